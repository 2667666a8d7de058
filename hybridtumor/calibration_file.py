r"""calibration.json: a patient's own parameters and how sure they are.

    θ = (θ₁, …, θₙ),    φ(θ) ~ N(φ(θ̂), Σ) within bounds,    φ = ln or the identity, one for each parameter

θ̂ is the estimate, Σ the covariance of the posterior in the scales φ. Forecasts read the parameters of `UNITS` and leave
all others (where a seed lay, when it began) alone; draws are of all of them together.
"""

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from hybridtumor import __version__, units
from hybridtumor.errors import InputError
from hybridtumor.parameters import GrowthParameters, ImagingThresholds, TreatmentResponse
from hybridtumor.scan import write_bytes
from hybridtumor.validation import validated

FILE_NAME = "calibration.json"

UNITS = {
    "diffusion_white": "mm^2/day",
    "diffusion_grey": "mm^2/day",
    "grey_ratio": "1",
    "proliferation": "1/day",
    "alpha": "1/Gy",
    "temozolomide": "1/day",
    "threshold_edema": "1",
    "threshold_enhancing": "1",
}
"""Name to unit of every parameter that a forecast reads; ``grey_ratio`` is D_grey / D_white."""

RESEARCH_ONLY = "Research use only: model output by hybridtumor, not a prognosis and not for treatment."

MOST_BYTES = 4_000_000
"""Largest file that is read."""

MOST_PARAMETERS = 64

MOST_TRIES = 1000
"""Draws that may fall outside the bounds, or be no parameters at all, before one that does not."""

ROUND_OFF = 1e-8
"""How far the covariance may be from symmetric and from positive semidefinite, relative to its largest entry, and a
value beyond its bounds, relative to their distance: an estimate on a bound comes out of a logarithm.
"""

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Values = Mapping[str, float]
"""Name to value of parameters, each in its unit."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


class Prior(_Part):
    """What was believed before: median in the parameter's unit, standard deviation in its scale."""

    median: Number
    spread: Annotated[Number, Field(gt=0)]


class CalibratedParameter(_Part):
    """One parameter.

    Attributes
    ----------
    name, unit
        What it is; forecasts read those of `UNITS`.
    scale
        φ: ``log``, the natural logarithm, or ``linear``.
    estimate
        θ̂.
    interval
        Ends of the 90 % interval of the posterior.
    prior
        None: there was none.
    bounds
        What it cannot leave.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
    unit: str
    scale: Literal["log", "linear"]
    estimate: Number
    interval: tuple[Number, Number]
    prior: Prior | None = None
    bounds: tuple[Number, Number]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        (low, high), (first, last) = self.bounds, self.interval
        if not self.allows(self.estimate):
            raise InputError(f"{self.name}: expected an estimate within {low:g} to {high:g}, got {self.estimate:g}.")
        if first > last:
            raise InputError(f"{self.name}: expected an interval in ascending order, got {first:g} to {last:g}.")
        if self.scale == "log" and low <= 0:
            raise InputError(f"{self.name}: expected positive bounds of a parameter in log scale, got {low:g}.")
        known = UNITS.get(self.name)
        if known is not None and not _same_unit(self.unit, known):
            raise InputError(f"{self.name}: expected the unit {known}, got {self.unit!r}. Convert the values.")
        return self

    def allows(self, value: float) -> bool:
        """Tell whether a value lies within the bounds, up to round-off."""
        low, high = self.bounds
        slack = ROUND_OFF * (high - low)
        return low - slack <= value <= high + slack

    def moved(self, step: float) -> float:
        """Return the value at φ(θ̂) + step; the estimate itself at 0."""
        return self.estimate * math.exp(step) if self.scale == "log" else self.estimate + step


class CalibratedVisit(_Part):
    """How well one visit is met.

    Attributes
    ----------
    day
        Since the baseline scan.
    kind
        What was compared, such as ``segmentation``.
    misfit
        Its part of the negative logarithm of the likelihood.
    dice_whole, dice_core
        Overlap of the visible tumour and of its core; None where there is no segmentation.
    held_out
        Whether the fit has not seen it.
    """

    day: Number
    kind: Text
    misfit: Number
    dice_whole: Number | None = None
    dice_core: Number | None = None
    held_out: bool = False


class Effort(_Part):
    """What the fit has cost."""

    forward_solves: Annotated[Number, Field(ge=0)]
    seconds: Annotated[Number, Field(ge=0)]


class Calibration(_Part):
    """The content of the file.

    Attributes
    ----------
    schema_version
        1; ``schema`` in the file.
    hybridtumor, research_only
        Version that wrote it, and what it may be used for.
    patient
        Name of the patient.
    parameters
        In the order of `covariance`.
    covariance
        Σ of the posterior in the scales of the parameters.
    fixed
        Name to value of what was held fast; forecasts read those of `UNITS` too.
    visits, identifiability, effort
        How well each visit is met, what can be told apart (in sentences), and what it has cost.
    density
        NIfTI file with the density of day 0 that belongs to the estimate, beside this file; None: the patient's.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    hybridtumor: str = __version__
    research_only: str = RESEARCH_ONLY
    patient: Text
    parameters: Annotated[tuple[CalibratedParameter, ...], Field(min_length=1, max_length=MOST_PARAMETERS)]
    covariance: tuple[tuple[Number, ...], ...]
    fixed: dict[str, Number] = Field(default_factory=dict)
    visits: tuple[CalibratedVisit, ...] = ()
    identifiability: tuple[Text, ...] = ()
    density: Annotated[str, Field(pattern=r"^[-\w.]+\.nii(\.gz)?$")] | None = None
    effort: Effort | None = None

    @field_validator("covariance")
    @classmethod
    def _is_a_covariance(
        cls, covariance: tuple[tuple[float, ...], ...], info: ValidationInfo
    ) -> tuple[tuple[float, ...], ...]:
        count = len(info.data.get("parameters", covariance))
        if len(covariance) != count or any(len(row) != count for row in covariance):
            raise InputError(f"expected {count} rows of {count} numbers, as there are parameters.")
        matrix = np.array(covariance)
        size = np.abs(matrix).max()
        if np.abs(matrix - matrix.T).max() > ROUND_OFF * size:
            raise InputError("expected a symmetric matrix, got one that is not.")
        if np.linalg.eigvalsh(matrix).min() < -ROUND_OFF * size:
            raise InputError("expected a positive semidefinite matrix, got one with a negative eigenvalue.")
        return covariance

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> Self:
        names = [*(parameter.name for parameter in self.parameters), *self.fixed]
        if len(set(names)) < len(names):
            raise InputError(f"parameters: expected each name once, estimated or fixed, got {', '.join(names)}.")
        if {"grey_ratio", "diffusion_grey"} <= set(names):
            raise InputError("parameters: expected grey_ratio or diffusion_grey, got both. Keep one.")
        for part in (self.growth, self.response, self.thresholds):
            part()  # an estimate that cannot be simulated is refused
        return self

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a calibration: the file, or the folder that holds it.

        Raises
        ------
        InputError
            There is none, it is too large, no JSON, or says what a calibration cannot say; every such place is named.
        """
        path = file_of(path)
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path}: expected a calibration of at most {MOST_BYTES} bytes, got {size}.")
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: expected the JSON of a calibration ({error}). Calibrate anew.") from error
        return validated(cls, content, str(path))

    def save(self, path: Path | str) -> None:
        """Write the file, whole or not at all."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False, allow_nan=False)
        write_bytes(Path(path), (text + "\n").encode())

    @property
    def estimate(self) -> dict[str, float]:
        """Name to estimate of every parameter."""
        return {parameter.name: parameter.estimate for parameter in self.parameters}

    def draw(self, count: int, seed: int = 0) -> tuple[dict[str, float], ...]:
        """Draw parameters from the posterior; the first of many draws are those of few.

        Parameters
        ----------
        count
            How many.
        seed
            Of the random numbers.

        Raises
        ------
        InputError
            A negative count or seed; or hardly any draw falls within the bounds.
        """
        if count < 0 or seed < 0:
            raise InputError(f"draws: expected a count and a seed that are not negative, got {count} and {seed}.")
        generator = np.random.default_rng(seed)
        return tuple(self._one(generator) for _ in range(count))

    def growth(self, base: GrowthParameters | None = None, values: Values | None = None) -> GrowthParameters:
        """Return parameters of growth with the estimate, or the values of a draw, put in.

        Without either ``diffusion_grey`` or ``grey_ratio`` the ratio of D in grey to D in white matter is that of
        `base`, by default that of the population.
        """
        base, known = base or GrowthParameters(), self._known(values)
        white = known.get("diffusion_white", base.diffusion_white)
        ratio = known.get("grey_ratio", base.diffusion_grey / base.diffusion_white)
        stated = "diffusion_grey" in known or not {"grey_ratio", "diffusion_white"} & set(known)
        grey = known.get("diffusion_grey", base.diffusion_grey) if stated else ratio * white
        found = {"diffusion_white": white, "diffusion_grey": grey, **_those(known, "proliferation")}
        return _with(base, {name: (value, UNITS[name]) for name, value in found.items()})

    def response(self, base: TreatmentResponse | None = None, values: Values | None = None) -> TreatmentResponse:
        """Return the response to treatment with the estimate, or the values of a draw, put in."""
        found = _those(self._known(values), "alpha", "temozolomide")
        return _with(base or TreatmentResponse(), {name: (value, UNITS[name]) for name, value in found.items()})

    def thresholds(self, base: ImagingThresholds | None = None, values: Values | None = None) -> ImagingThresholds:
        """Return the imaging thresholds with the estimate, or the values of a draw, put in."""
        found = _those(self._known(values), "threshold_edema", "threshold_enhancing")
        short = {name.removeprefix("threshold_"): value for name, value in found.items()}
        content = (base or ImagingThresholds()).model_dump() | short
        return validated(ImagingThresholds, content, "thresholds")

    def _known(self, values: Values | None) -> dict[str, float]:
        """Return what forecasts read: what was fixed, the estimate, and on top of them the values of a draw."""
        return {name: v for name, v in {**self.fixed, **self.estimate, **(values or {})}.items() if name in UNITS}

    @cached_property
    def _root(self) -> NDArray[np.float64]:
        """Σ^½, symmetric, (n, n)."""
        values, vectors = np.linalg.eigh(np.array(self.covariance))
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)

    def _one(self, generator: np.random.Generator) -> dict[str, float]:
        """Draw once, again while the draw lies outside the bounds or no tumour can have such parameters."""
        for _ in range(MOST_TRIES):
            steps = self._root @ generator.standard_normal(len(self.parameters))
            values = {p.name: p.moved(float(step)) for p, step in zip(self.parameters, steps, strict=True)}
            if all(p.allows(values[p.name]) for p in self.parameters) and self._possible(values):
                return values
        raise InputError(
            f"draws: expected a posterior that lies within the bounds, but {MOST_TRIES} draws in a row left them."
            " Calibrate with wider bounds, or with more data."
        )

    def _possible(self, values: Values) -> bool:
        """Tell whether no rate is negative and the thresholds are in order."""
        try:
            self.thresholds(values=values)
        except InputError:
            return False
        return min(self._known(values).values(), default=0) >= 0


def file_of(path: Path | str) -> Path:
    """Return the file of a calibration, given as itself or as the folder that holds it.

    Raises
    ------
    InputError
        There is none.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: expected a calibration, found none. Run `hybridtumor calibrate` first.")
    return file


def _those(known: Values, *names: str) -> dict[str, float]:
    return {name: known[name] for name in names if name in known}


def _with[M: (GrowthParameters, TreatmentResponse)](base: M, found: Mapping[str, tuple[float, str]]) -> M:
    """Return parameters with values in their units put in."""
    stated = {name: units.format_quantity(value, unit) for name, (value, unit) in found.items()}
    return validated(type(base), base.model_dump(mode="json") | stated, "calibration")


def _same_unit(unit: str, known: str) -> bool:
    """Tell whether a unit is the known one, however it is written."""
    if known == "1":
        return unit.strip() in {"", "1", "-", "dimensionless"}
    try:
        return math.isclose(units.magnitude(f"1 {unit}", known), 1.0)
    except InputError:
        return False
