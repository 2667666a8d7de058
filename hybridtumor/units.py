"""Units at the door: a string or pint quantity comes in, a plain float in the field's own unit goes on.

Inside hybridtumor lengths are mm, times days, doses Gy, rates 1/day, pressures kPa, drug doses mg/m².
One registry serves the whole package. Sievert is refused although pint counts it as gray: an equivalent dose
weighted for radiation protection is not an absorbed dose.
"""

import re
from functools import cache
from tokenize import TokenError
from typing import Annotated, Any

import pint
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from hybridtumor.errors import InputError

__all__ = [
    "Angle", "Diffusivity", "Dose", "DrugDose", "InverseDose", "InversePressure", "Length", "Pressure", "Rate", "Time",
    "format_quantity", "magnitude", "registry",
]  # fmt: skip

_UNIT = r"[A-Za-zµ]+(?:(?:\^|\*\*)-?\d+)?"
_NUMBER_WITH_UNIT = re.compile(
    rf"\s*[+-]?(?>\d+\.?\d*|\.\d+)(?>[eE][+-]?\d+)?\s*(?:(?:1\s*/|[*/])?\s*{_UNIT}(?:[\s*/]+{_UNIT})*)?\s*"
)
_EQUIVALENT_DOSE = re.compile(r"(?<![A-Za-z])[A-Za-zµ]*(Sv|sieverts?|rems?)(?![A-Za-z])", re.IGNORECASE)
_SUPERSCRIPTS = str.maketrans({"²": "^2", "³": "^3", "⁻": "^-", "·": "*"})


@cache
def registry() -> pint.UnitRegistry[float]:
    """Return the one unit registry of the package."""
    return pint.UnitRegistry(cache_folder=None)


def _plain(text: str) -> str:
    """Return text with ASCII powers: mm², mm2 and mm^2 are one."""
    return re.sub(r"(?<=m)([23])(?![\d.])", r"^\1", text.translate(_SUPERSCRIPTS))


def magnitude(value: object, unit: str, *, name: str = "value") -> float:
    """Convert a quantity with a unit to a plain float in `unit`.

    Parameters
    ----------
    value
        Text such as ``"0.13 mm²/day"`` or a pint quantity. A bare number is refused.
    unit
        The unit the result is wanted in.
    name
        What the quantity is, for the error message.

    Raises
    ------
    InputError
        No unit, an unknown unit, the wrong dimension, sievert, or a number that is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (str, pint.Quantity)):
        raise InputError(f"{name}: expected text with a unit such as '1 {unit}', got {value!r}. Add the unit.")
    if _EQUIVALENT_DOSE.search(str(value)):
        raise InputError(
            f"{name}: expected an absorbed dose in Gy, got {value!r}. Sievert measures a radiation-protection dose;"
            " state the absorbed dose in Gy or cGy."
        )
    if isinstance(value, str) and not _NUMBER_WITH_UNIT.fullmatch(_plain(value)):
        raise InputError(
            f"{name}: expected one number with a decimal point and a unit, such as '1.5 {unit}', got {value!r}."
        )
    try:
        text_or_quantity = _plain(value) if isinstance(value, str) else value
        quantity = registry().Quantity(text_or_quantity)
        if quantity.unitless and not registry().Unit(unit).dimensionless:
            raise InputError(f"{name}: expected a quantity in {unit}, got {value!r} without a unit. Add the unit.")
        result = float(quantity.to(unit).magnitude)
    except pint.DimensionalityError as error:
        raise InputError(
            f"{name}: expected a quantity in {unit}, got {value!r}, which has another dimension."
        ) from error
    except (
        pint.errors.PintError,
        AttributeError,
        TypeError,
        ValueError,
        ArithmeticError,
        SyntaxError,
        TokenError,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{name}: expected a quantity in {unit}, got {value!r}, which is not a number with a unit."
        ) from error
    if result != result or result in (float("inf"), float("-inf")):
        raise InputError(f"{name}: expected a finite quantity in {unit}, got {value!r}.")
    return result


def format_quantity(value: float, unit: str) -> str:
    """Write a float and its unit as text that `magnitude` reads back."""
    short = f"{value:.12g}"
    return f"{short if float(short) == value else repr(float(value))} {unit}"


def _quantity_in(unit: str) -> Any:
    """Return a pydantic type: text with a unit in the file, a float in `unit` in the program."""

    def to_float(value: object) -> float:
        return magnitude(value, unit)

    return Annotated[
        float,
        BeforeValidator(to_float),
        PlainSerializer(lambda v: format_quantity(v, unit), return_type=str),
        WithJsonSchema(
            {"type": "string", "description": f"number and unit, in {unit} or a multiple", "examples": [f"1 {unit}"]}
        ),
    ]


Diffusivity = _quantity_in("mm^2/day")
Rate = _quantity_in("1/day")
Time = _quantity_in("day")
Length = _quantity_in("mm")
Angle = _quantity_in("degree")
Dose = _quantity_in("Gy")
InverseDose = _quantity_in("1/Gy")
DrugDose = _quantity_in("mg/m^2")
Pressure = _quantity_in("kPa")
InversePressure = _quantity_in("1/kPa")
