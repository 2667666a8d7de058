"""Treatments become a plan on one patient; equal targets and doses of several arms are built once.

Targets and doses derive from the patient of day 0, and from the cavity of a resection that comes before the course.
"""

from collections.abc import Sequence
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridtumor import dose_planning
from hybridtumor.dose_file import dose_from_file
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, resample
from hybridtumor.margins import grow_within
from hybridtumor.patient import Patient
from hybridtumor.radiation_entry import PATIENTS_DOSE, Boost, Radiation, SetUpError
from hybridtumor.scan import Scan
from hybridtumor.set_up_error import blurred, displaced
from hybridtumor.targets import TargetPhase, TumourMasks, clinical_targets, tumour_masks
from hybridtumor.therapy import DoseMap, Fractionation, Resection, TherapyPlan
from hybridtumor.therapy import Treatment as Given
from hybridtumor.tissue import TissueMap
from hybridtumor.treatments import STRUCTURE_PREFIX, Surgery, Treatment

Array = NDArray[np.float64]
Phase = tuple[int, float, DoseMap]
"""Fractions, prescription (Gy) and dose of one phase of a course."""

PLAUSIBLE_MAXIMUM = (0.5, 1.5)
"""Largest dose of a dose file over the prescription: outside this range the two do not belong together."""

MOST_OF_THE_BRAIN = 0.5
"""Share of the parenchyma that no resection takes out."""

LEAST_INSIDE = 0.5
"""Share of a cavity that has to lie in brain or tumour."""


class PlanBuilder:
    """Turns treatments into plans for one patient.

    Parameters
    ----------
    patient
        With tissue and density (or a segmentation) where a treatment states a target.
    weekday
        Weekday of day 0, 0 for Monday; None: it is not known, and every course starts on a Monday.
    """

    def __init__(self, patient: Patient, weekday: int | None = None) -> None:
        self._patient, self._weekday = patient, weekday
        self._shapes: dict[tuple[object, ...], Array] = {}
        self._doses: dict[tuple[object, ...], tuple[Phase, ...]] = {}
        self._grown: dict[tuple[object, ...], tuple[tuple[TargetPhase, BoolArray], ...]] = {}
        self._cavities: dict[Surgery, BoolArray] = {}

    def plan(self, treatments: Sequence[Treatment]) -> TherapyPlan:
        """Return the plan of these treatments.

        Raises
        ------
        InputError
            A target without a tumour or a tissue map, a dose file or a cavity that cannot be used.
        """
        surgery = [treatment.resection for treatment in treatments if treatment.resection is not None]
        given: list[Given] = [
            Resection(self._cavity(cut), self._patient.grid, cut.day, cut.residual) for cut in surgery
        ]
        for number, treatment in enumerate(treatments):
            if treatment.radiation is not None:
                before = tuple(cut for cut in surgery if cut.day < treatment.radiation.first_fraction)
                given += self._courses(treatment.radiation, before, number)
            if treatment.chemotherapy is not None:
                given.append(treatment.chemotherapy.course())
        return TherapyPlan.of(*given)

    def _courses(self, course: Radiation, surgery: tuple[Surgery, ...], number: int) -> list[Fractionation]:
        """Return one course for every phase, one after the other; `number` is that of the entry."""
        days, courses, first = course.times(self._weekday), [], 0
        for fractions, prescription, dose in self._phases(course, surgery):
            times = days[first : first + fractions]
            first += fractions
            delivery = course.delivery_time or 0.0
            boost = None if course.boost is None else course.boost.prescription * fractions / course.fractions
            courses.append(
                Fractionation(dose, fractions, times[0], times, prescription, delivery, boost, number, _remark(course))
            )
        return courses

    def _phases(self, course: Radiation, surgery: tuple[Surgery, ...]) -> tuple[Phase, ...]:
        """Return fractions, prescription and dose of every phase; equal ones are built once."""
        key = (course.model_copy(update=dict.fromkeys(("first_day", "days", "schedule", "delivery_time"))), surgery)
        if key not in self._doses:
            if course.dose is not None:
                phases: tuple[Phase, ...] = ((course.fractions, course.prescription, self._given_dose(course)),)
            else:
                phases = self._planned(course, surgery)
            error = course.setup_error
            if error is not None:  # beyond the head a planned dose goes on; a synthetic one ends there
                head = None if course.dose is not None else self._shown
                phases = tuple((n, p, _in_error(dose, error, head)) for n, p, dose in phases)
            self._doses[key] = phases
        return self._doses[key]

    def _planned(self, course: Radiation, surgery: tuple[Surgery, ...]) -> tuple[Phase, ...]:
        """Return the synthetic doses around the targets of a recipe."""

        def shape(target: BoolArray, _: TissueMap) -> Array:
            base, boost = self._shape(target, course), course.boost
            if boost is None or course.prescription == 0:
                return base
            high = self._targets(boost.target, boost.ctv_margin, surgery)[-1][1]
            ratio = boost.prescription / course.prescription
            return dose_planning.integrated_boost(base, self._shape(high, boost), ratio)

        targets = self._targets(str(course.target), course.ctv_margin, surgery)
        doses = dose_planning.phase_doses(targets, self._tissue, course.prescription, course.fractions, shape=shape)
        return tuple((phase.fractions, phase.prescription, phase.dose) for phase in doses)

    def _shape(self, target: BoolArray, course: Radiation | Boost) -> Array:
        """Return the dose around a target relative to its prescription; equal ones are built once."""
        margin = dose_planning.PLANNING_MARGIN if course.ptv_margin is None else course.ptv_margin
        falloff = dose_planning.FALL_OFF if course.falloff is None else course.falloff
        key = (id(target), margin, falloff)  # targets are kept, so that their ids stay theirs
        if key not in self._shapes:
            self._shapes[key] = dose_planning.relative_dose(
                target, self._tissue, margin=margin, falloff=falloff, shown=self._shown
            )
        return self._shapes[key]

    def _targets(
        self, recipe: str, margin: float | None, surgery: tuple[Surgery, ...]
    ) -> tuple[tuple[TargetPhase, BoolArray], ...]:
        """Return the phases of a recipe and their targets; equal ones are built once."""
        key = (recipe, margin, surgery)
        if key not in self._grown:
            cavity = reduce(np.logical_or, map(self._cavity, surgery)) if surgery else None
            self._grown[key] = clinical_targets(recipe, self._masks, self._tissue, margin=margin, cavity=cavity)
        return self._grown[key]

    def _given_dose(self, course: Radiation) -> DoseMap:
        """Return the dose of a file or of the patient folder, which has to belong to the prescription."""
        patient = self._patient
        if course.dose == PATIENTS_DOSE:
            dose = _planned_dose(patient)
        else:
            brain = None if patient.tissue is None else patient.tissue.parenchyma
            dose = dose_from_file(
                str(course.dose),
                patient.grid,
                course.dose_unit,
                tumour=self._masks.core,
                brain=brain,
                fractions=course.fractions,
                quantity=course.dose_is,
            )
        low, high = (share * course.prescription for share in PLAUSIBLE_MAXIMUM)
        top = float(dose.values.max(initial=0.0))
        if not low <= top <= high:
            raise InputError(
                f"{course.dose}: expected a maximum near the prescription of {course.prescription:g} Gy,"
                f" got {top:.4g} Gy. Check prescription and dose_unit, and say dose_is: fraction if the file holds the"
                " dose of one fraction."
            )
        return dose

    def _cavity(self, cut: Surgery) -> BoolArray:
        """Return what a resection takes out; it has to be brain or tumour, and not most of the brain."""
        key = cut.model_copy(update={"day": 0.0, "residual": 0.0})
        if key not in self._cavities:
            brain = self._tissue.parenchyma
            mask = self._named_cavity(cut.cavity)
            inside = np.count_nonzero(mask & (brain | self._masks.whole)) / max(1, int(np.count_nonzero(mask)))
            if inside < LEAST_INSIDE:
                raise InputError(f"resection: expected a cavity in the brain, {1 - inside:.0%} of it lies outside.")
            if cut.margin > 0:
                mask = grow_within(mask, brain, self._patient.grid, cut.margin)
            share = np.count_nonzero(mask & brain) / max(1, int(np.count_nonzero(brain)))
            if share > MOST_OF_THE_BRAIN:
                raise InputError(
                    f"resection: expected a cavity of at most {MOST_OF_THE_BRAIN:.0%} of the brain, got {share:.0%}."
                )
            self._cavities[key] = mask
        return self._cavities[key]

    def _named_cavity(self, name: str) -> BoolArray:
        patient = self._patient
        if name == "core":
            return self._masks.core
        if name == "whole":
            return self._masks.whole
        if name.startswith(STRUCTURE_PREFIX):
            return _structure(patient, name)
        if not Path(name).is_file():
            raise InputError(
                "resection: expected core, whole, 'structure NAME' or a NIfTI file of 0 and 1, got"
                f" {Path(name).name!r}."
            )
        scan = Scan.load(name)
        if not np.isin(scan.values, (0, 1)).all() or not scan.values.any():
            raise InputError(f"{name}: expected a cavity of 0 and 1, not empty.")
        mask = np.asarray(resample(scan.values, scan.grid, patient.grid, order=0) > 0.5)
        if not mask.any():
            raise InputError(f"{name}: expected a cavity inside the patient's images, it lies outside of them.")
        return mask

    @cached_property
    def _shown(self) -> BoolArray:
        """Where a dose is shown: the head, and the structures beyond the tissue map, such as the eyes."""
        return np.asarray(np.logical_or.reduce([self._tissue.head, *self._patient.structures.values()]))

    @cached_property
    def _masks(self) -> TumourMasks:
        return tumour_masks(self._patient)

    @property
    def _tissue(self) -> TissueMap:
        if self._patient.tissue is None:
            raise InputError(
                f"patient {self._patient.id}: expected tissue fractions to build a target. Prepare the patient first"
                " (hybridtumor.prepare.load_patient)."
            )
        return self._patient.tissue


def require_inputs(patient: Patient, treatments: Sequence[Treatment]) -> None:
    """Raise InputError when a patient lacks the dose or a structure that treatments name."""
    for treatment in treatments:
        if treatment.radiation is not None and treatment.radiation.dose == PATIENTS_DOSE:
            _planned_dose(patient)
        if treatment.resection is not None and treatment.resection.cavity.startswith(STRUCTURE_PREFIX):
            _structure(patient, treatment.resection.cavity)


def _planned_dose(patient: Patient) -> DoseMap:
    if patient.dose is None:
        raise InputError(f"patient {patient.id}: expected a planned dose in the patient folder, found none.")
    return patient.dose


def _structure(patient: Patient, cavity: str) -> BoolArray:
    """Return the structure that a cavity names."""
    structure = cavity.removeprefix(STRUCTURE_PREFIX).strip()
    if structure not in patient.structures:
        known = ", ".join(patient.structures) or "none"
        raise InputError(
            f"resection: expected a structure of patient {patient.id}, which has {known}; got {structure!r}."
        )
    return patient.structures[structure]


def _in_error(dose: DoseMap, error: SetUpError, head: BoolArray | None) -> DoseMap:
    """Return the expected dose under errors of set-up: one for the whole course, and one anew in every fraction."""
    moved = displaced(dose, shift=error.shift, rotation=error.rotation, head=head)
    return blurred(moved, error.random, head=head) if error.random > 0 else moved


def _remark(course: Radiation) -> str:
    """Return what else there is to say of a course."""
    error = course.setup_error
    if error is None:
        return ""
    parts = []
    if any(error.shift):
        parts.append("shifted by " + ", ".join(f"{mm:g}" for mm in error.shift) + " mm (right, front, top)")
    if any(error.rotation):
        parts.append("turned by " + ", ".join(f"{angle:g}°" for angle in error.rotation))
    if error.random > 0:
        parts.append(f"blurred by daily errors of {error.random:g} mm")
    return " and ".join(parts)
