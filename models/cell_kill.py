r"""What therapy does to cells: the log-kill L(x; t₀, t₁) = ∫ k dt ≥ 0, which adds over any split of the interval.

Radiation, per fraction of dose d(x) in Gy (linear-quadratic model):

    L = α d + β d²,   β = α / (α/β)

A fraction is an event on its day; an interval [t₀, t₁) holds the fractions with t₀ ≤ day < t₁.

Temozolomide, doses m_j in mg/m² on days t_j, first-order clearance λ:

    k(t) = s C(t),   C(t) = Σ_{t_j ≤ t} (m_j / 75) e^{−λ (t − t_j)}
    ∫_{t₀}^{t₁} k dt = (s/λ) Σ_j (m_j / 75) (e^{−λ (a_j − t_j)} − e^{−λ (b_j − t_j)}),
    a_j = max(t₀, t_j),  b_j = max(t₁, t_j)

so the kill does not depend on the time step. s is the kill rate at the peak concentration after 75 mg/m².
Linear-quadratic model: Fowler, Br. J. Radiol. 1989. Temozolomide: doses after Stupp et al., N. Engl. J. Med. 2005. The
parameters are those of `hybridtumor.parameters.TreatmentResponse`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.therapy import DoseMap, Fractionation, TherapyPlan

REFERENCE_DRUG_DOSE = 75.0
"""mg/m². The dose of temozolomide whose peak concentration is C = 1."""


def lq_log_kill(dose: Any, alpha: float, alpha_beta: float) -> Any:
    """Return the log-kill α d + β d² of one fraction, in the algebra of `dose` (float, numpy, torch, UFL).

    Parameters
    ----------
    dose
        Dose d of the fraction, Gy.
    alpha
        α, 1/Gy.
    alpha_beta
        α/β, Gy.
    """
    return alpha * dose + (alpha / alpha_beta) * dose**2


def drug_log_kill(
    doses: Sequence[tuple[float, float]], start: float, end: float, peak_rate: float, clearance: float
) -> float:
    """Return the log-kill of temozolomide over [start, end], closed form, exactly 0.0 without doses.

    Parameters
    ----------
    doses
        (day, mg/m²) of every administration.
    start, end
        Interval, days.
    peak_rate
        s, kill rate at C = 1, 1/day.
    clearance
        λ, 1/day.

    Raises
    ------
    InputError
        The interval ends before it starts.
    """
    _require_interval(start, end)
    if not doses:
        return 0.0
    day, amount = np.asarray(doses, np.float64).T
    entry, leave = np.maximum(start, day), np.maximum(end, day)
    share = np.exp(-clearance * (entry - day)) * -np.expm1(-clearance * (leave - entry))
    return float(peak_rate / clearance * np.sum(amount / REFERENCE_DRUG_DOSE * share))


@dataclass(frozen=True, eq=False)
class KillSchedule:
    """The log-kill of one plan at one set of points.

    Parameters
    ----------
    event_days
        Days of the fractions, ascending, each once.
    event_fields
        Log-kill of each event at the points, float64. Fractions that are alike share one array: do not write into it.
    drug_doses
        (day, mg/m²) of every drug administration.
    drug_peak_rate, drug_clearance
        s and λ of the drug, 1/day.
    shape
        Shape of the points; () when nothing fixes it: a plan without radiation then gives 0-d arrays, which broadcast.
    """

    event_days: tuple[float, ...]
    event_fields: tuple[NDArray[np.float64], ...]
    drug_doses: tuple[tuple[float, float], ...]
    drug_peak_rate: float
    drug_clearance: float
    shape: tuple[int, ...] = ()

    @classmethod
    def from_plan(
        cls,
        plan: TherapyPlan,
        response: TreatmentResponse,
        sample: Callable[[DoseMap], NDArray[Any]],
        *,
        shape: tuple[int, ...] = (),
    ) -> Self:
        """Return the schedule of a plan at the points that `sample` reads a dose map at.

        Courses and drug doses that are zero, or that the cells do not respond to, leave no event. That is decided on
        the whole dose map, not on its samples, so that every process of a parallel run has the same events.

        Parameters
        ----------
        plan, response
            What is given and how sensitive the cells are.
        sample
            Maps the dose map of a course (total dose, Gy) to its values at the points: ``lambda dose: dose.values`` for
            voxels, ``lambda dose: transfer.to_mesh(dose.values)`` for mesh nodes.
        shape
            Shape of the points, needed only when `log_kill` has to have it without radiation too.
        """
        courses = plan.active.courses if response.alpha > 0 else ()
        fields = [_fraction_log_kill(course, response, sample) for course in courses]
        given: defaultdict[float, list[int]] = defaultdict(list)
        for number, course in enumerate(courses):
            for day in course.fraction_days:
                given[float(day)].append(number)
        merged: dict[tuple[int, ...], NDArray[np.float64]] = {}
        for numbers in map(tuple, given.values()):
            if numbers not in merged:
                merged[numbers] = fields[numbers[0]] if len(numbers) == 1 else _frozen(sum(fields[i] for i in numbers))
        days = tuple(sorted(given))
        doses = tuple(dose for dose in plan.drug_doses if dose[1] > 0) if response.temozolomide > 0 else ()
        return cls(
            days,
            tuple(merged[tuple(given[day])] for day in days),
            doses,
            response.temozolomide,
            response.temozolomide_clearance,
            fields[0].shape if fields else shape,
        )

    def event_log_kill(self, day: float) -> NDArray[np.float64]:
        """Return the log-kill of the event on a day of `event_days`.

        Raises
        ------
        InputError
            There is no event on that day.
        """
        if day not in self.event_days:
            raise InputError(f"kill: expected a day among {self.event_days}, got {day}.")
        return self.event_fields[self.event_days.index(day)]

    def drug_log_kill(self, start: float, end: float) -> float:
        """Return the log-kill of the drug over [start, end], the same everywhere."""
        return drug_log_kill(self.drug_doses, start, end, self.drug_peak_rate, self.drug_clearance)

    def log_kill(self, start: float, end: float) -> NDArray[np.float64]:
        """Return the log-kill of everything given in [start, end), one value per point.

        Raises
        ------
        InputError
            The interval ends before it starts.
        """
        total = np.full(self.shape, self.drug_log_kill(start, end))
        inside = [field for day, field in zip(self.event_days, self.event_fields, strict=True) if start <= day < end]
        fields = {id(field): field for field in inside}
        for key, count in Counter(map(id, inside)).items():
            total += count * fields[key]
        return total


def _fraction_log_kill(
    course: Fractionation, response: TreatmentResponse, sample: Callable[[DoseMap], NDArray[Any]]
) -> NDArray[np.float64]:
    """Return the log-kill of one fraction of a course at the points of `sample`."""
    dose = np.asarray(sample(course.dose), np.float64) / course.fractions
    return _frozen(lq_log_kill(dose, response.alpha, response.alpha_beta))


def _frozen(values: Any) -> NDArray[np.float64]:
    """Return the values as an array that cannot be written into, for it is shared between events."""
    array = np.asarray(values, np.float64)
    array.setflags(write=False)
    return array


def _require_interval(start: float, end: float) -> None:
    if end < start:
        raise InputError(f"kill: expected an interval in order of time, got {start} to {end}.")
