r"""What therapy does to cells: the log-kill L(x; t₀, t₁) = ∫ k dt ≥ 0, which adds over any split of the interval.

Radiation (`hybridtumor.models.radiation`): a fraction given at once is an event on its day; an interval [t₀, t₁) holds
the events with t₀ ≤ day < t₁. A fraction that takes a time T is a source k = L/T while the beam is on: the same total.

Drugs (`hybridtumor.models.drug_kinetics`): a kill rate that follows the concentration, integrated in closed form.

Resection: an event of L = −ln(1 − c (1 − r)) where the share c of a point's surroundings is cavity and the share r of
the cavity's cells is left behind.

BED(x) = L(x)/α of the radiation alone; for n fractions of d it is n d (1 + d/(α/β)) (Fowler, Br. J. Radiol. 1989). The
parameters are those of `hybridtumor.parameters.TreatmentResponse`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.models import drug_kinetics, radiation
from hybridtumor.models.oxygen import UNIFORM, LocalResponse
from hybridtumor.models.radiation import FractionTerms
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.therapy import Fractionation, Resection, TherapyPlan

Array = NDArray[np.float64]
Sampler = Callable[[NDArray[np.floating[Any]]], NDArray[Any]]
"""Maps an array on the patient's grid to its values at the points."""

LEAST_RESIDUAL = 1e-15
"""Share of the cells of a cavity that counts as none: less than a cell in a litre; a log-kill has to be finite."""


@dataclass(frozen=True)
class Fraction:
    """One fraction: its start and duration, days, and its log-kill as weights of `KillSchedule.fields`."""

    start: float
    duration: float
    weights: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class KillSchedule:
    """The log-kill of one plan at one set of points.

    Parameters
    ----------
    fields
        What the log-kills of all fractions are made of, float64: few, however many fractions there are.
    fractions
        Every fraction, in order of time.
    drug_terms
        Exponentials of the kill rate of all drugs, (n, 3): `hybridtumor.models.drug_kinetics.drug_terms`.
    removals
        (day, log-kill) of every resection, in order of time.
    shape
        Shape of the points; () when nothing fixes it: a plan without radiation then gives 0-d arrays, which broadcast.
    products
        Which two courses' roots the `fields` after the linear ones are products of; a plan's schedule alone has them.
    """

    fields: tuple[Array, ...] = ()
    fractions: tuple[Fraction, ...] = ()
    drug_terms: Array = field(default_factory=drug_kinetics.NO_TERMS.copy)
    removals: tuple[tuple[float, Array], ...] = ()
    shape: tuple[int, ...] = ()
    products: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_plan(
        cls,
        plan: TherapyPlan,
        response: TreatmentResponse,
        sample: Sampler,
        *,
        local: LocalResponse = UNIFORM,
        shape: tuple[int, ...] = (),
    ) -> Self:
        """Return the schedule of a plan at the points that `sample` reads an array of the patient's grid at.

        Courses and drug doses that are zero, or that the cells do not respond to, leave no event. That is decided on
        the whole dose map, not on its samples, so that every process of a parallel run has the same events.

        Parameters
        ----------
        plan, response
            What is given and how sensitive the cells are.
        sample
            Identity for voxels, ``lambda values: transfer.to_mesh(values)`` for mesh nodes.
        local
            How the response differs from place to place.
        shape
            Shape of the points, needed only when `log_kill` has to have it without radiation too.

        Raises
        ------
        InputError
            A drug whose response is unknown.
        """
        courses = plan.active.courses if response.alpha > 0 else ()
        terms = [course_terms(course, response, sample, local) for course in courses]
        fields, fractions, products = _fractions(courses, terms, response)
        drugs = [drug_kinetics.drug_terms(drug.doses, response.drug(drug.drug)) for drug in plan.active.drugs]
        removals = tuple((float(cut.day), _removal(cut, sample)) for cut in plan.resections)
        known = [*fields, *(values for _, values in removals)]
        return cls(
            tuple(map(_frozen, fields)),
            fractions,
            np.concatenate([drug_kinetics.NO_TERMS, *drugs]),
            removals,
            known[0].shape if known else shape,
            products,
        )

    @classmethod
    def of_events(cls, days: Iterable[float], fields: Iterable[Array], drug_terms: Array | None = None) -> Self:
        """Return the schedule of events of given log-kills, and of exponentials of a drug's kill rate."""
        values = tuple(_frozen(values) for values in fields)
        fractions = tuple(Fraction(float(day), 0.0, ((i, 1.0),)) for i, day in enumerate(days))
        terms = drug_kinetics.NO_TERMS if drug_terms is None else drug_terms
        return cls(values, fractions, terms, shape=values[0].shape if values else ())

    def scaled(self, radiation: float, drug: float) -> Self:
        """Return the schedule at other sensitivities: α (α/β as it is) and kill rate of drugs times these factors."""
        if radiation == drug == 1:
            return self
        terms = self.drug_terms * np.array([1.0, drug, 1.0])
        return replace(self, fields=tuple(_frozen(radiation * part) for part in self.fields), drug_terms=terms)

    @cached_property
    def event_days(self) -> tuple[float, ...]:
        """Days of the fractions that are given at once, ascending, each once."""
        return tuple(sorted({fraction.start for fraction in self.fractions if fraction.duration == 0}))

    @cached_property
    def deliveries(self) -> tuple[Fraction, ...]:
        """The fractions that take their time."""
        return tuple(fraction for fraction in self.fractions if fraction.duration > 0)

    @cached_property
    def landing_days(self) -> tuple[float, ...]:
        """Days on which something starts or ends, ascending: no time step may pass over one."""
        beam = {day for fraction in self.deliveries for day in (fraction.start, fraction.start + fraction.duration)}
        return tuple(sorted({*self.event_days, *beam, *(day for day, _ in self.removals)}))

    @property
    def gives_nothing(self) -> bool:
        """Whether nothing is given at all."""
        return not (self.fractions or self.removals or len(self.drug_terms))

    def event_log_kill(self, day: float) -> Array:
        """Return the log-kill of the fractions given at once on a day of `event_days`.

        Raises
        ------
        InputError
            There is none on that day.
        """
        return self._combined(self.event_weights(day))

    def event_weights(self, day: float) -> dict[int, float]:
        """Return the weights of `fields` whose sum is the log-kill of an event; arguments as for `event_log_kill`."""
        if day not in self.event_days:
            raise InputError(f"kill: expected a day among {self.event_days}, got {day}.")
        given = (fraction for fraction in self.fractions if fraction.duration == 0 and fraction.start == day)
        return _weights((fraction, 1.0) for fraction in given)

    def removal_log_kill(self, day: float) -> Array | None:
        """Return the log-kill of the resections on a day, None without."""
        cuts = [values for when, values in self.removals if when == day]
        return np.asarray(sum(cuts)) if cuts else None

    def drug_log_kill(self, start: float, end: float) -> float:
        """Return the log-kill of the drugs over [start, end], the same everywhere."""
        _require_interval(start, end)
        return drug_kinetics.integral(self.drug_terms, start, end)

    def beam_log_kill(self, start: float, end: float) -> Array | float:
        """Return the log-kill over [start, end] of the fractions that take their time; 0.0 while no beam is on."""
        weights = self.beam_weights(start, end)
        return self._combined(weights) if weights else 0.0

    def beam_weights(self, start: float, end: float) -> dict[int, float]:
        """Return the weights of `fields` whose sum is `beam_log_kill`; none while no beam is on."""
        shares = [(f, _overlap(f, start, end)) for f in self.deliveries]
        return _weights((fraction, share) for fraction, share in shares if share > 0)

    def log_kill(self, start: float, end: float) -> Array:
        """Return the log-kill of everything given in [start, end), one value per point.

        Raises
        ------
        InputError
            The interval ends before it starts.
        """
        total = np.full(self.shape, self.drug_log_kill(start, end))
        at_once = [(f, 1.0) for f in self.fractions if f.duration == 0 and start <= f.start < end]
        under_way = [(f, _overlap(f, start, end)) for f in self.deliveries]
        total += self._combined(_weights([*at_once, *under_way]))
        for day, values in self.removals:
            if start <= day < end:
                total += values
        return total

    def _combined(self, weights: Mapping[int, float]) -> Array:
        """Return a weighted sum of `fields`; every field is read once."""
        total = np.zeros(self.shape)
        for number, weight in weights.items():
            if weight != 0:
                total += weight * self.fields[number]
        return total


def log_kill_on_grid(
    plan: TherapyPlan,
    response: TreatmentResponse,
    days: Sequence[float],
    shape: tuple[int, int, int],
    local: LocalResponse = UNIFORM,
) -> tuple[NDArray[np.float32], ...]:
    """Return the log-kill from day 0 until each day, in every voxel of the patient's grid of that shape.

    Parameters
    ----------
    plan, response, local
        As for `KillSchedule.from_plan`.
    days
        Ascending, the first not before day 0.
    """
    touched = np.zeros(shape, bool)
    for course in plan.active.courses:
        touched |= course.dose.values > 0
    for cut in plan.resections:
        touched |= cut.cavity
    places = np.flatnonzero(touched)
    kill = KillSchedule.from_plan(
        plan, response, lambda values: np.ravel(values)[places], local=local, shape=places.shape
    )
    fields = []
    for day in days:
        field = np.full(shape, kill.drug_log_kill(0.0, day), np.float32)
        field.flat[places] = kill.log_kill(0.0, day)
        fields.append(field)
    return tuple(fields)


def radiation_bed(plan: TherapyPlan, alpha_beta: float, *, repair_half_time: float = 0.0) -> Array:
    """Return the biologically effective dose of all courses of a plan, Gy, on the grid of its dose maps.

    Parameters
    ----------
    plan
        With at least one course; the dose maps lie on one grid.
    alpha_beta
        α/β of the tissue in question, Gy.
    repair_half_time
        Of its sublethal damage, days; 0: repair is complete before the next fraction.

    Raises
    ------
    InputError
        No course.
    """
    if not plan.courses:
        raise InputError("dose: expected a plan with radiation, got none.")
    unit = TreatmentResponse().model_copy(
        update={"alpha": 1.0, "alpha_beta": alpha_beta, "repair_half_time": repair_half_time}
    )
    radiation_alone = TherapyPlan(plan.courses)
    shape = plan.courses[0].dose.grid.shape
    return KillSchedule.from_plan(radiation_alone, unit, lambda values: values, shape=shape).log_kill(0.0, np.inf)


def course_terms(
    course: Fractionation, response: TreatmentResponse, sample: Sampler, local: LocalResponse
) -> FractionTerms:
    """Return the terms of one fraction of a course at the points of `sample`."""
    dose = course.dose.values if local.oer is None else np.divide(course.dose.values, local.oer, dtype=np.float64)
    factor = 1.0 if local.factor is None else np.asarray(sample(local.factor), np.float64)
    per_fraction = np.asarray(sample(dose), np.float64) / course.fractions
    return radiation.fraction_terms(per_fraction, response.alpha, response.alpha_beta, response.transition_dose, factor)


def _fractions(
    courses: Sequence[Fractionation], terms: Sequence[FractionTerms], response: TreatmentResponse
) -> tuple[list[Array], tuple[Fraction, ...], tuple[tuple[int, int], ...]]:
    """Return the fields, the fractions in order of time, weighted sums of them, and the courses of every product."""
    rate = radiation.repair_rate(response.repair_half_time)
    given = sorted((float(day), c) for c, course in enumerate(courses) for day in course.fraction_days)
    durations = [courses[c].delivery_time for _, c in given]
    unrepaired = radiation.interactions([day for day, _ in given], durations, rate)
    fields = [part.linear for part in terms]
    numbers: dict[tuple[int, int], int] = {}

    def product(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in numbers:
            numbers[key] = len(fields)
            fields.append(terms[a].root * terms[b].root)
        return numbers[key]

    fractions = []
    for (day, c), duration, earlier in zip(given, durations, unrepaired, strict=True):
        weights: defaultdict[int, float] = defaultdict(float, {c: 1.0})
        weights[product(c, c)] += radiation.protraction(duration, rate)
        for j, h in earlier:
            weights[product(c, given[j][1])] += 2 * h
        fractions.append(Fraction(day, duration, tuple(weights.items())))
    return fields, tuple(fractions), tuple(numbers)


def _removal(cut: Resection, sample: Sampler) -> Array:
    """Return the log-kill of a resection at the points of `sample`."""
    share = np.clip(np.asarray(sample(cut.cavity.astype(np.float32)), np.float64), 0, 1)
    return _frozen(-np.log(1 - share * (1 - max(cut.residual, LEAST_RESIDUAL))))


def _weights(fractions: Iterable[tuple[Fraction, float]]) -> dict[int, float]:
    """Return the weights of the fields whose sum is the log-kill of shares of fractions."""
    weights: defaultdict[int, float] = defaultdict(float)
    for fraction, share in fractions:
        for number, weight in fraction.weights:
            weights[number] += share * weight
    return dict(weights)


def _overlap(fraction: Fraction, start: float, end: float) -> float:
    """Return the share of a fraction's delivery that lies in [start, end]."""
    finish = fraction.start + fraction.duration
    inside = min(end, finish) - max(start, fraction.start)
    return max(0.0, inside / (finish - fraction.start))  # all of it is exactly 1


def _frozen(values: Any) -> Array:
    """Return the values as an array that cannot be written into, for it is shared between fractions."""
    array = np.asarray(values, np.float64)
    array.setflags(write=False)
    return array


def _require_interval(start: float, end: float) -> None:
    if end < start:
        raise InputError(f"kill: expected an interval in order of time, got {start} to {end}.")
