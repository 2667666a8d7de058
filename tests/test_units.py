"""Units at the door: one number, one unit, the right dimension."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridtumor.errors import InputError
from hybridtumor.units import format_quantity, magnitude, registry


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("0.13 mm²/day", "mm^2/day", 0.13),
        ("0.025 1/day", "1/day", 0.025),
        ("0.025 /day", "1/day", 0.025),
        ("1 per day", "1/day", 1.0),
        ("0.1 day⁻1", "1/day", 0.1),
        ("6000 cGy", "Gy", 60.0),
        ("60Gy", "Gy", 60.0),
        (".5 Gy", "Gy", 0.5),
        ("1e3 cGy", "Gy", 10.0),
        ("75 mg/m²", "mg/m^2", 75.0),
        ("2 h", "day", 1 / 12),
        ("3mm", "mm", 3.0),
    ],
)
def test_text_with_a_unit_is_read(text: str, unit: str, value: float) -> None:
    assert magnitude(text, unit) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("text", ["60 Sv", "60Sv", "6000 cSv", "60 millisievert", "60 dSv", "60 mrem", "60 kSv"])
def test_an_equivalent_dose_is_no_absorbed_dose(text: str) -> None:
    with pytest.raises(InputError, match="Sievert"):
        magnitude(text, "Gy")


@pytest.mark.parametrize(
    "text",
    ["1,5 Gy", "60,0 Gy", "Gy", "6 000 cGy", "6.0 000 cGy", "60 Gy 5", "60 1 Gy", "(60 Gy", "'60 Gy", "60 \\", ""],
)
def test_text_that_is_not_one_number_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="one number"):
        magnitude(text, "Gy")


@pytest.mark.parametrize("value", ["60", 60, 60.0, True, None, "60 mm", "60 Quux", "1e999 Gy"])
def test_no_unit_or_the_wrong_one_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="dose"):
        magnitude(value, "Gy", name="dose")


def test_a_pint_quantity_is_taken() -> None:
    assert magnitude(registry().Quantity(2.0, "Gy"), "cGy") == pytest.approx(200.0)


@given(st.floats(allow_nan=False, allow_infinity=False, max_value=1e12, min_value=-1e12))
def test_what_is_written_is_read_back(value: float) -> None:
    back = magnitude(format_quantity(value, "mm^2/day"), "mm^2/day")
    assert back == value or math.isclose(back, value, rel_tol=1e-15)
