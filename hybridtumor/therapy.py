"""TherapyPlan: what was given, and when. What it does to cells is `hybridtumor.models.cell_kill`.

Days count from the baseline scan (day 0) and may be fractions of a day. Doses are Gy, drug doses mg/m². A plan of
several phases (a boost after the first course, a second course months later) is several courses, one dose map each; an
integrated boost is one course whose dose map has two levels.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.parameters import TEMOZOLOMIDE

PLAUSIBLE_DOSE = 200.0
"""Gy. A larger maximum is refused: it is nearly always a dose in cGy."""

SAME_TIME = 1e-9
"""days. Closer moments are one."""

LONGEST_DELIVERY = 0.25
"""days. A fraction that takes longer is nearly always a unit mistaken."""


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
        Total physical dose of the course.
    fractions
        Number of fractions.
    first_day
        Day of the first fraction.
    days
        Day of each fraction. None: one a day on five days a week from `first_day`, counted as a Monday.
    prescription
        Prescribed total dose, Gy; None: the maximum of the dose map.
    delivery_time
        How long the beam is on in each fraction, days; 0: at once.
    boost
        Prescribed total dose of an integrated boost, Gy; None: there is none.
    entry
        Number of the course that this is a phase of; None: it is one of its own.
    remark
        What else there is to say of the dose, such as how far it has been moved.
    """

    dose: DoseMap
    fractions: int
    first_day: float
    days: tuple[float, ...] | None = None
    prescription: float | None = None
    delivery_time: float = 0.0
    boost: float | None = None
    entry: int | None = None
    remark: str = ""

    def __post_init__(self) -> None:
        if self.fractions < 1:
            raise InputError(f"radiation: expected at least one fraction, got {self.fractions}.")
        if self.first_day < 0:
            raise InputError(
                f"radiation: expected a first day on or after the baseline scan (day 0), got {self.first_day}."
            )
        if self.days is not None and (len(self.days) != self.fractions or min(self.days) < 0):
            raise InputError(f"radiation: expected {self.fractions} days, none before day 0, got {self.days}.")
        days = self.fraction_days
        gaps = [later - earlier for earlier, later in pairwise(days)]
        if not (np.isfinite(days).all() and 0 <= self.delivery_time <= LONGEST_DELIVERY):
            raise InputError(
                "radiation: expected finite days and a delivery time between 0 and"
                f" {24 * LONGEST_DELIVERY:g} h, got {24 * self.delivery_time:g} h."
            )
        if gaps and min(gaps) < self.delivery_time - SAME_TIME:
            raise InputError(
                "radiation: expected each fraction to start after the one before has ended, got fractions"
                f" {24 * min(gaps):g} h apart that take {24 * self.delivery_time:g} h."
            )

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

    @property
    def highest_dose(self) -> float:
        """Total dose prescribed anywhere, Gy: that of the boost, where there is one."""
        return self.prescribed_dose if self.boost is None else self.boost


@dataclass(frozen=True)
class Chemotherapy:
    """Doses of one drug.

    Parameters
    ----------
    doses
        (day, dose in mg/m²) of every administration, in order of time.
    drug
        Name of the drug; how it kills is `hybridtumor.parameters.TreatmentResponse.drug`.
    """

    doses: tuple[tuple[float, float], ...]
    drug: str = TEMOZOLOMIDE

    def __post_init__(self) -> None:
        if not np.isfinite(np.asarray(self.doses)).all() or any(day < 0 or dose < 0 for day, dose in self.doses):
            raise InputError("chemotherapy: expected finite days and doses that are not negative.")
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
class Resection:
    """Surgery: the tissue of a cavity is taken out, with the cells in it; CSF fills the cavity.

    Parameters
    ----------
    cavity
        Voxels that are taken out, shape ``grid.shape``.
    grid
        The patient's grid.
    day
        Day of surgery.
    residual
        Share of the cavity's cells that is left behind, in [0, 1).
    """

    cavity: BoolArray
    grid: Grid
    day: float = 0.0
    residual: float = 0.0

    def __post_init__(self) -> None:
        cavity = np.asarray(self.cavity, bool)
        if cavity.shape != self.grid.shape or not cavity.any():
            raise InputError(
                f"resection: expected a cavity on the grid of shape {self.grid.shape}, not empty,"
                f" got {np.count_nonzero(cavity)} voxels of shape {cavity.shape}."
            )
        if not (self.day >= 0 and np.isfinite(self.day)):
            raise InputError(f"resection: expected a day on or after the baseline scan (day 0), got {self.day}.")
        if not 0 <= self.residual < 1:
            raise InputError(f"resection: expected a residual share of cells in [0, 1), got {self.residual}.")
        object.__setattr__(self, "cavity", cavity)


Treatment = Fractionation | Chemotherapy | Resection


@dataclass(frozen=True, eq=False)
class TherapyPlan:
    """Everything that is given to one patient in one arm; an empty plan is no treatment."""

    courses: tuple[Fractionation, ...] = ()
    drugs: tuple[Chemotherapy, ...] = ()
    resections: tuple[Resection, ...] = ()

    def __post_init__(self) -> None:
        beams = sorted((day, course.delivery_time) for course in self.courses for day in course.fraction_days)
        for (start, time), (later, other) in pairwise(beams):
            together = later - start <= SAME_TIME
            if (together and abs(time - other) > SAME_TIME) or not (together or later - start >= time - SAME_TIME):
                raise InputError(
                    "radiation: expected fractions of several courses to be given together or one after the other, got"
                    f" two that overlap on day {later:g}. Give them the same start and delivery time, or move one."
                )

    @classmethod
    def of(cls, *treatments: Treatment) -> "TherapyPlan":
        """Return the plan that gives these treatments."""
        unknown = [t for t in treatments if not isinstance(t, Treatment)]
        if unknown:
            raise InputError(
                f"plan: expected Fractionation, Chemotherapy or Resection, got {type(unknown[0]).__name__}."
            )
        return cls(
            tuple(t for t in treatments if isinstance(t, Fractionation)),
            tuple(t for t in treatments if isinstance(t, Chemotherapy)),
            tuple(sorted((t for t in treatments if isinstance(t, Resection)), key=lambda t: t.day)),
        )

    @property
    def gives_nothing(self) -> bool:
        """Whether this is no treatment: no course, drug or resection, or doses of zero alone."""
        return not (self.active.courses or self.active.drugs or self.resections)

    @cached_property
    def active(self) -> "TherapyPlan":
        """The same plan without courses and drug doses that are zero: an arm with 0 Gy is the untreated arm."""
        return TherapyPlan(
            tuple(course for course in self.courses if course.dose.values.any()),
            tuple(drug for drug in self.drugs if any(dose > 0 for _, dose in drug.doses)),
            self.resections,
        )

    @cached_property
    def landing_days(self) -> tuple[float, ...]:
        """Days on which something starts or ends: fractions, deliveries, resections; ascending, each once."""
        starts = {(float(day), course.delivery_time) for course in self.courses for day in course.fraction_days}
        cuts = {float(cut.day) for cut in self.resections}
        return tuple(sorted({day for start, time in starts for day in (start, start + time)} | cuts))

    def cavity_on(self, day: float) -> NDArray[np.float32] | None:
        """Return the share of every voxel that has been taken out before `day`; None when there is none."""
        taken = [cut for cut in self.resections if cut.day < day]
        if not taken:
            return None
        left = np.ones(taken[0].grid.shape, np.float32)
        for cut in taken:
            left[cut.cavity] *= np.float32(cut.residual)
        return 1 - left

    def cavity_until(self, day: float) -> NDArray[np.float32] | None:
        """Return the same for what has been taken out up to and including `day`."""
        return self.cavity_on(float(np.nextafter(day, np.inf)))

    @cached_property
    def drug_doses(self) -> tuple[tuple[float, float], ...]:
        """(day, mg/m²) of every administration of any drug, in order of time."""
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
