"""TherapyPlan: what was given, and when. What it does to cells is `hybridtumor.models.cell_kill`.

Days count from the baseline scan (day 0) and may be fractions of a day. Doses are Gy, drug doses mg/m².
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid

PLAUSIBLE_DOSE = 200.0
"""Gy. A larger maximum is refused: it is nearly always a dose in cGy."""


@dataclass(frozen=True, eq=False)
class DoseMap:
    """Total absorbed dose of a course, Gy, shape ``grid.shape``.

    Raises
    ------
    InputError
        Not finite, negative, or larger than `PLAUSIBLE_DOSE`.
    """

    values: NDArray[np.float32]
    grid: Grid

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float32)
        if values.shape != self.grid.shape:
            raise InputError(f"dose: expected an array of the grid's shape {self.grid.shape}, got {values.shape}.")
        if not np.isfinite(values).all():
            raise InputError("dose: expected finite values, got NaN or infinity.")
        top = float(values.max(initial=0.0))
        if top > PLAUSIBLE_DOSE:
            raise InputError(
                f"dose: expected Gy, got a maximum of {top:.4g}, which looks like cGy. Divide by 100 if it is."
            )
        if values.min(initial=0.0) < -1e-6 * max(top, 1.0):
            raise InputError(f"dose: expected no negative dose, got {values.min():.4g} Gy.")
        object.__setattr__(self, "values", np.maximum(values, 0))


@dataclass(frozen=True, eq=False)
class Fractionation:
    """A course of external-beam radiation in equal fractions.

    Parameters
    ----------
    dose
        Total dose of the course.
    fractions
        Number of fractions.
    first_day
        Day of the first fraction.
    days
        Day of each fraction. None: one a day on five days a week from `first_day`, counted as a Monday.
    prescription
        Prescribed total dose, Gy; None: the maximum of the dose map.
    """

    dose: DoseMap
    fractions: int
    first_day: float
    days: tuple[float, ...] | None = None
    prescription: float | None = None

    def __post_init__(self) -> None:
        if self.fractions < 1:
            raise InputError(f"radiation: expected at least one fraction, got {self.fractions}.")
        if self.first_day < 0:
            raise InputError(
                f"radiation: expected a first day on or after the baseline scan (day 0), got {self.first_day}."
            )
        if self.days is not None and (len(self.days) != self.fractions or min(self.days) < 0):
            raise InputError(f"radiation: expected {self.fractions} days, none before day 0, got {self.days}.")

    @property
    def fraction_days(self) -> tuple[float, ...]:
        """Day of every fraction, in order."""
        if self.days is not None:
            return tuple(sorted(self.days))
        return tuple(self.first_day + 7 * (i // 5) + i % 5 for i in range(self.fractions))

    @property
    def prescribed_dose(self) -> float:
        """Prescribed total dose, Gy."""
        return float(self.dose.values.max(initial=0.0)) if self.prescription is None else self.prescription


@dataclass(frozen=True)
class Chemotherapy:
    """Doses of one drug.

    Parameters
    ----------
    doses
        (day, dose in mg/m²) of every administration, in order of time.
    drug
        Name of the drug; `temozolomide` is the one whose kinetics are known.
    """

    doses: tuple[tuple[float, float], ...]
    drug: str = "temozolomide"

    def __post_init__(self) -> None:
        if self.drug != "temozolomide":
            raise InputError(f"chemotherapy: expected temozolomide, got {self.drug!r}.")
        if any(day < 0 or dose < 0 for day, dose in self.doses):
            raise InputError("chemotherapy: expected days and doses that are not negative.")
        object.__setattr__(self, "doses", tuple(sorted(self.doses)))

    @classmethod
    def temozolomide(cls, first_day: float, *, concurrent_days: int = 42, adjuvant_cycles: int = 6) -> "Chemotherapy":
        """Return the schedule of Stupp et al. (N. Engl. J. Med. 2005).

        75 mg/m² daily for `concurrent_days`, four weeks of rest, then `adjuvant_cycles` of 28 days with 150 mg/m²
        (first cycle) or 200 mg/m² on their first five days.
        """
        concurrent = [(first_day + i, 75.0) for i in range(concurrent_days)]
        start = first_day + concurrent_days + (28 if concurrent_days else 0)
        adjuvant = [(start + 28 * c + i, 150.0 if c == 0 else 200.0) for c in range(adjuvant_cycles) for i in range(5)]
        return cls(tuple(concurrent + adjuvant))


@dataclass(frozen=True, eq=False)
class TherapyPlan:
    """Everything that is given to one patient in one arm; an empty plan is no treatment."""

    courses: tuple[Fractionation, ...] = ()
    drugs: tuple[Chemotherapy, ...] = ()

    @classmethod
    def of(cls, *treatments: Fractionation | Chemotherapy) -> "TherapyPlan":
        """Return the plan that gives these treatments."""
        unknown = [t for t in treatments if not isinstance(t, (Fractionation, Chemotherapy))]
        if unknown:
            raise InputError(f"plan: expected Fractionation or Chemotherapy, got {type(unknown[0]).__name__}.")
        return cls(
            tuple(t for t in treatments if isinstance(t, Fractionation)),
            tuple(t for t in treatments if isinstance(t, Chemotherapy)),
        )

    @cached_property
    def active(self) -> "TherapyPlan":
        """The same plan without courses and drug doses that are zero: an arm with 0 Gy is the untreated arm."""
        return TherapyPlan(
            tuple(course for course in self.courses if course.dose.values.any()),
            tuple(drug for drug in self.drugs if any(dose > 0 for _, dose in drug.doses)),
        )

    @cached_property
    def drug_doses(self) -> tuple[tuple[float, float], ...]:
        """(day, mg/m²) of every drug administration, in order of time."""
        return tuple(sorted(dose for drug in self.drugs for dose in drug.doses))

    def total_dose(self, grid: Grid) -> NDArray[np.float32]:
        """Return the sum of all courses, Gy, on `grid`; every course has to lie on it.

        Raises
        ------
        InputError
            A course lies on another grid.
        """
        total = np.zeros(grid.shape, np.float32)
        for course in self.courses:
            grid.require_same(course.dose.grid, "dose")
            total += course.dose.values
        return total


UNTREATED = TherapyPlan()
"""The plan that gives nothing."""
