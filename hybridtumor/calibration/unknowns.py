r"""What is looked for, and what is believed of it before any scan.

An unknown θ > 0 is log-normal, or θ is normal, with its median and its spread s on that scale, between two bounds.
Calibration works in coordinates that make the priors alike,

    x = (S(θ) − S(median)) / s,     S = ln or the identity,     −ln p(x) = ½ |x|²  + const  within the bounds

so x = 1 is one standard deviation of the prior, whatever the unit. Prior ranges are those in use by published models:
where a range is known, it is taken for the median ± 2 s.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from hybridtumor.errors import InputError
from hybridtumor.parameters import GrowthParameters, ImagingThresholds, TreatmentResponse

Array = NDArray[np.float64]
Scale = Literal["log", "linear"]


@dataclass(frozen=True)
class Unknown:
    """A number to be found, with its prior.

    Parameters
    ----------
    name
        Name, as in `GrowthParameters`, `TreatmentResponse` or a data term.
    unit
        Unit of its values, for people.
    scale
        ``log``: log-normal; ``linear``: normal.
    median
        Of the prior.
    spread
        Standard deviation of ln θ (``log``) or of θ (``linear``).
    low, high
        Bounds, on which the model still makes sense.
    source
        Where the prior is from.

    Raises
    ------
    InputError
        Values that are not finite, a spread that is not positive, a median that is not within the bounds, or a
        log-normal unknown with a lower bound that is not positive.
    """

    name: str
    unit: str
    scale: Scale
    median: float
    spread: float
    low: float
    high: float
    source: str = ""

    def __post_init__(self) -> None:
        numbers = (self.median, self.spread, self.low, self.high)
        if self.scale not in {"log", "linear"}:
            raise InputError(f"{self.name}: expected the scale log or linear, got {self.scale!r}.")
        if not all(map(math.isfinite, numbers)) or not self.spread > 0 or not self.low < self.median < self.high:
            raise InputError(
                f"{self.name}: expected finite low < median < high and a positive spread,"
                f" got {self.low:g}, {self.median:g}, {self.high:g} and {self.spread:g}."
            )
        if self.scale == "log" and not self.low > 0:
            raise InputError(f"{self.name}: expected a positive lower bound on the log scale, got {self.low:g}.")

    @overload
    def coordinate(self, value: float) -> float: ...
    @overload
    def coordinate(self, value: Array) -> Array: ...
    def coordinate(self, value: float | Array) -> float | Array:
        """Return x of physical values."""
        if self.scale == "log":
            return np.log(value / self.median) / self.spread
        return (value - self.median) / self.spread

    @overload
    def value(self, x: float) -> float: ...
    @overload
    def value(self, x: Array) -> Array: ...
    def value(self, x: float | Array) -> float | Array:
        """Return the physical values of x."""
        if self.scale == "log":
            return self.median * np.exp(self.spread * x)
        return self.median + self.spread * x

    def slope(self, x: float) -> float:
        """Return ∂value/∂x."""
        return self.spread * (float(self.value(x)) if self.scale == "log" else 1.0)

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds of x."""
        return float(self.coordinate(self.low)), float(self.coordinate(self.high))


@dataclass(frozen=True)
class Priors:
    """The unknowns of a calibration, in the order of the coordinates x, (p,).

    Raises
    ------
    InputError
        No unknown, or two of one name.
    """

    unknowns: tuple[Unknown, ...]

    def __post_init__(self) -> None:
        if not self.unknowns or len(set(self.names)) < len(self.unknowns):
            raise InputError(
                f"unknowns: expected one or more of different names, got {', '.join(self.names) or 'none'}."
            )

    @classmethod
    def of(cls, *names: str) -> "Priors":
        """Return the default priors of the named unknowns; see `UNKNOWNS`.

        Raises
        ------
        InputError
            An unknown without a default prior.
        """
        strange = [name for name in names if name not in UNKNOWNS]
        if strange:
            raise InputError(
                f"unknowns: expected names among {', '.join(UNKNOWNS)}, got {', '.join(strange)}."
                " State an Unknown with its prior."
            )
        return cls(tuple(UNKNOWNS[name] for name in names))

    def __len__(self) -> int:
        return len(self.unknowns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in the order of the coordinates."""
        return tuple(unknown.name for unknown in self.unknowns)

    @property
    def bounds(self) -> Array:
        """Bounds of x, (p, 2)."""
        return np.array([unknown.bounds for unknown in self.unknowns])

    def values(self, x: ArrayLike) -> dict[str, float]:
        """Return the physical values of coordinates (p,), by name."""
        return {u.name: float(u.value(float(c))) for u, c in zip(self.unknowns, self.checked(x), strict=True)}

    def physical(self, x: ArrayLike) -> Array:
        """Return the physical values of coordinates (..., p), (..., p)."""
        return np.stack([u.value(c) for u, c in zip(self.unknowns, np.moveaxis(np.asarray(x), -1, 0), strict=True)], -1)

    def coordinates(self, values: Mapping[str, float]) -> Array:
        """Return x of physical values by name, (p,); an unknown that is not named is at its median.

        Raises
        ------
        InputError
            A value of no unknown, or one that is not within the bounds.
        """
        strange = [name for name in values if name not in self.names]
        if strange:
            raise InputError(f"unknowns: expected values of {', '.join(self.names)}, got also {', '.join(strange)}.")
        for unknown in self.unknowns:
            value = values.get(unknown.name, unknown.median)
            if not unknown.low <= value <= unknown.high:
                raise InputError(
                    f"{unknown.name}: expected {unknown.low:g} to {unknown.high:g} {unknown.unit}, got {value:g}."
                    " Start within the bounds, or widen them."
                )
        return np.array([float(u.coordinate(values.get(u.name, u.median))) for u in self.unknowns])

    def slopes(self, x: ArrayLike) -> Array:
        """Return ∂value/∂x, (p,): the factors that turn a physical gradient into one in coordinates."""
        return np.array([u.slope(float(c)) for u, c in zip(self.unknowns, self.checked(x), strict=True)])

    def minus_log(self, x: ArrayLike) -> tuple[float, Array]:
        """Return −ln p(x) = ½|x|² up to a constant, and its gradient."""
        c = self.checked(x)
        return 0.5 * float(c @ c), c.copy()

    def from_unit(self, u: ArrayLike) -> Array:
        """Map the unit cube (..., p) onto the priors within their bounds: uniform numbers become draws of them."""
        low, high = special.ndtr(self.bounds.T)
        x = special.ndtri(low + (high - low) * np.asarray(u, np.float64))
        return np.asarray(np.clip(x, self.bounds[:, 0], self.bounds[:, 1]))

    def clipped(self, x: ArrayLike) -> Array:
        """Return the nearest coordinates within the bounds."""
        return np.clip(self.checked(x), self.bounds[:, 0], self.bounds[:, 1])

    def checked(self, x: ArrayLike) -> Array:
        """Return coordinates that are finite and as many as the unknowns.

        Raises
        ------
        InputError
            They are not.
        """
        c = np.asarray(x, np.float64)
        if c.shape != (len(self),) or not np.isfinite(c).all():
            raise InputError(f"unknowns: expected {len(self)} finite coordinates, got {c.tolist()}.")
        return c

    def changed(self, name: str, **changes: float) -> "Priors":
        """Return these priors with another median, spread, low or high of one unknown."""
        if name not in self.names:
            raise InputError(f"unknowns: expected a name among {', '.join(self.names)}, got {name!r}.")
        return Priors(tuple(replace(u, **changes) if u.name == name else u for u in self.unknowns))  # type: ignore[arg-type]


def _spread(low: float, high: float) -> float:
    """Return the spread of ln θ whose range is the median ± 2 s."""
    return math.log(high / low) / 4


_GROWTH, _RESPONSE, _THRESHOLDS = GrowthParameters(), TreatmentResponse(), ImagingThresholds()
_D, _ρ = float(_GROWTH.diffusion_white), float(_GROWTH.proliferation)
_RATIO = float(_GROWTH.diffusion_grey) / _D
_LIPKOVA = "Lipková et al., IEEE Trans. Med. Imaging 2019"

_DEFAULTS: Sequence[Unknown] = (
    Unknown(
        "diffusion_white", "mm²/day", "log", _D, _spread(0.02, 1.3), 0.005, 3.0,
        f"{_LIPKOVA}: 0.02 to 1.3 mm²/day",
    ),
    Unknown(
        "grey_ratio", "1", "log", _RATIO, _spread(1 / 30, 1 / 5), 0.02, 1.0,
        f"D_grey/D_white; {_LIPKOVA}: 1/10; published models use 1/5 to 1/30",
    ),
    Unknown(
        "proliferation", "1/day", "log", _ρ, _spread(0.0027, 0.19), 0.001, 0.6,
        f"{_LIPKOVA}: 0.0027 to 0.19 /day",
    ),
    Unknown(
        "alpha", "1/Gy", "log", float(_RESPONSE.alpha), 0.5, 0.003, 0.3,
        "Rockne et al. 2009–2010 and Hormuth et al.: 0.025 to 0.05 /Gy between studies; patients differ by more"
        " (van Leeuwen et al., Radiat. Oncol. 2018, find large heterogeneity within and between studies), so ± 2 s is"
        " taken as 0.013 to 0.095",
    ),
    Unknown(
        "temozolomide", "1/day", "log", float(_RESPONSE.temozolomide), 0.8, 0.005, 3.0,
        "kill rate at the peak after 75 mg/m²; a value in common use, wide because none is measured",
    ),
    Unknown(
        "threshold_edema", "1", "log", _THRESHOLDS.edema, _spread(0.05, 0.6), 0.03, 0.45,
        f"{_LIPKOVA}; Ezhov et al. 2022: 0.05 to 0.6; below 0.45, so that it stays below the core's",
    ),
    Unknown(
        "threshold_enhancing", "1", "linear", _THRESHOLDS.enhancing, (0.85 - 0.45) / 4, 0.46, 0.89,
        f"{_LIPKOVA}; Ezhov et al. 2022: 0.45 to 0.85; below the threshold of necrosis, 0.9",
    ),
)  # fmt: skip

UNKNOWNS: Mapping[str, Unknown] = {unknown.name: unknown for unknown in _DEFAULTS}
"""Default priors by name."""
