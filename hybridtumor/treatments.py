"""The treatments of an arm as a file states them, and the plan they come to on a patient.

A treatment is a mapping with one key, ``radiation`` or ``chemotherapy``. Dose maps derive from the patient of day 0.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, field_validator, model_validator

from hybridtumor import dose_planning, units
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.patient import Patient
from hybridtumor.therapy import PLAUSIBLE_DOSE, Chemotherapy, DoseMap, Fractionation, TherapyPlan
from hybridtumor.tissue import TissueMap

PATIENTS_DOSE = "patient"
"""Value of ``dose`` that means the planned dose of the patient folder."""

PLAUSIBLE_MAXIMUM = (0.5, 1.5)
"""Largest dose of a dose file over the prescription: outside this range the two do not belong together."""

Day = Annotated[
    float,
    Field(strict=True, ge=0, allow_inf_nan=False),
    PlainSerializer(lambda day: int(day) if float(day).is_integer() else day),
]
"""Days since the baseline scan, a plain number."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Radiation(_Entry):
    """A course of radiation in equal fractions: around a `target`, or as a `dose` file says.

    Attributes
    ----------
    prescription
        Total dose, Gy.
    fractions
        Number of fractions.
    first_day
        Day of the first fraction; the others follow on five days a week.
    days
        Day of every fraction, instead of `first_day`.
    target
        Recipe of the clinical target, a key of `hybridtumor.dose_planning.TARGET_MARGINS`.
    ptv_margin, falloff
        Of the synthetic dose around the target, mm; 3 and 15 mm by default.
    dose
        NIfTI file of the total dose, or ``patient`` for the planned dose of the patient folder. It is given as it is;
        the prescription has to belong to it and is what the report quotes.
    dose_unit
        Unit of the file, ``Gy`` or ``cGy``; compulsory with a file.
    """

    prescription: units.Dose
    fractions: Annotated[int, Field(strict=True, ge=1, le=200)]
    first_day: Day | None = None
    days: tuple[Day, ...] | None = None
    target: Literal["estro-eano-2023", "eortc-2016", "rtog"] | None = None
    ptv_margin: units.Length | None = None
    falloff: units.Length | None = None
    dose: Annotated[str, Field(min_length=1)] | None = None
    dose_unit: Literal["Gy", "cGy"] | None = None

    @field_validator("prescription")
    @classmethod
    def _plausible(cls, dose: float) -> float:
        if dose < 0:
            raise InputError(f"expected a dose that is not negative, got {dose:g} Gy.")
        if dose > PLAUSIBLE_DOSE:
            raise InputError(
                f"expected at most {PLAUSIBLE_DOSE:g} Gy, got {dose:g} Gy, which looks like cGy."
                f" Write '{dose:g} cGy' if it is."
            )
        return dose

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.first_day is None) == (self.days is None):
            raise InputError("expected either first_day or days. Give one of them.")
        if self.days is not None and len(self.days) != self.fractions:
            raise InputError(f"days: expected one day for each of {self.fractions} fractions, got {len(self.days)}.")
        if (self.target is None) == (self.dose is None):
            raise InputError("expected either a target (a recipe) or a dose (a file). Give one of them.")
        if self.target is None and (self.ptv_margin is not None or self.falloff is not None):
            raise InputError(
                "ptv_margin and falloff shape the dose around a target; a dose file has none. Remove them."
            )
        if self.dose not in (None, PATIENTS_DOSE) and self.dose_unit is None:
            raise InputError("dose_unit: expected Gy or cGy with a dose file, which does not say. Add dose_unit.")
        if self.dose in (None, PATIENTS_DOSE) and self.dose_unit is not None:
            raise InputError("dose_unit: expected only with a dose file. Remove it.")
        if (self.ptv_margin or 0) < 0 or (self.falloff is not None and self.falloff <= 0):
            raise InputError("expected a ptv_margin that is not negative and a falloff that is positive.")
        return self

    @property
    def first_fraction(self) -> float:
        """Day of the first fraction."""
        return min(self.days) if self.days else float(self.first_day or 0)


class TemozolomideCourse(_Entry):
    """Temozolomide in the schedule of Stupp et al. 2005, see `hybridtumor.therapy.Chemotherapy.temozolomide`.

    Attributes
    ----------
    first_day
        Day of the first dose.
    concurrent_days
        Days of 75 mg/m² daily.
    adjuvant_cycles
        Cycles of 28 days that follow after four weeks of rest.
    """

    drug: Literal["temozolomide"]
    first_day: Day
    concurrent_days: Annotated[int, Field(strict=True, ge=0, le=365)] = 42
    adjuvant_cycles: Annotated[int, Field(strict=True, ge=0, le=60)] = 6


class Treatment(BaseModel):
    """One treatment: a mapping with the one key ``radiation`` or ``chemotherapy``."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"minProperties": 1, "maxProperties": 1})

    radiation: Radiation | None = None
    chemotherapy: TemozolomideCourse | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.radiation is None) == (self.chemotherapy is None):
            raise InputError("expected exactly one of radiation and chemotherapy in each entry of the list.")
        return self

    @property
    def first_day(self) -> float:
        """Day on which it starts."""
        if self.radiation is not None:
            return self.radiation.first_fraction
        return self.chemotherapy.first_day if self.chemotherapy is not None else 0.0

    def within(self, folder: Path) -> "Treatment":
        """Return the same treatment with its dose file, if any, taken relative to a folder."""
        course = self.radiation
        if course is None or course.dose in (None, PATIENTS_DOSE):
            return self
        return Treatment(radiation=course.model_copy(update={"dose": str((folder / course.dose).resolve())}))


class PlanBuilder:
    """Turns treatments into plans for one patient; equal targets and doses of several arms are built once.

    Parameters
    ----------
    patient
        With tissue and density (or a segmentation) where a treatment states a target.
    """

    def __init__(self, patient: Patient) -> None:
        self._patient = patient
        self._relative: dict[tuple[str, float, float], NDArray[np.float64]] = {}
        self._doses: dict[tuple[object, ...], DoseMap] = {}
        self._targets: dict[str, BoolArray] = {}

    def plan(self, treatments: Sequence[Treatment]) -> TherapyPlan:
        """Return the plan of these treatments.

        Raises
        ------
        InputError
            A target without a tumour or a tissue map, a dose file that cannot be used.
        """
        given: list[Fractionation | Chemotherapy] = []
        for treatment in treatments:
            if treatment.radiation is not None:
                given.append(self._course(treatment.radiation))
            if treatment.chemotherapy is not None:
                drug = treatment.chemotherapy
                given.append(
                    Chemotherapy.temozolomide(
                        drug.first_day, concurrent_days=drug.concurrent_days, adjuvant_cycles=drug.adjuvant_cycles
                    )
                )
        return TherapyPlan.of(*given)

    def _course(self, course: Radiation) -> Fractionation:
        return Fractionation(
            self._dose(course),
            course.fractions,
            course.first_fraction,
            days=course.days,
            prescription=course.prescription,
        )

    def _dose(self, course: Radiation) -> DoseMap:
        margin = dose_planning.PLANNING_MARGIN if course.ptv_margin is None else course.ptv_margin
        falloff = dose_planning.FALL_OFF if course.falloff is None else course.falloff
        key = (course.prescription, course.target, margin, falloff, course.dose, course.dose_unit)
        if key not in self._doses:
            if course.target is not None:
                relative = self._relative_dose(course.target, margin, falloff)
                values = (course.prescription * relative).astype(np.float32)
                self._doses[key] = DoseMap(values, self._patient.grid)
            else:
                self._doses[key] = self._given_dose(course)
        return self._doses[key]

    def _relative_dose(self, recipe: str, margin: float, falloff: float) -> NDArray[np.float64]:
        key = (recipe, margin, falloff)
        if key not in self._relative:
            if recipe not in self._targets:
                self._targets[recipe] = dose_planning.clinical_target(recipe, self._gross_tumour, self._tissue)
            self._relative[key] = dose_planning.relative_dose(
                self._targets[recipe], self._tissue, margin=margin, falloff=falloff
            )
        return self._relative[key]

    def _given_dose(self, course: Radiation) -> DoseMap:
        """Return the dose of a file or of the patient folder, which has to belong to the prescription."""
        patient = self._patient
        if course.dose == PATIENTS_DOSE:
            if patient.dose is None:
                raise InputError(f"patient {patient.id}: expected a planned dose in the patient folder, found none.")
            dose = patient.dose
        else:
            brain = None if patient.tissue is None else patient.tissue.parenchyma
            dose = dose_planning.dose_from_nifti(
                str(course.dose), patient.grid, course.dose_unit, tumour=self._gross_tumour, brain=brain
            )
        low, high = (share * course.prescription for share in PLAUSIBLE_MAXIMUM)
        top = float(dose.values.max(initial=0.0))
        if not low <= top <= high:
            raise InputError(
                f"{course.dose}: expected a maximum near the prescription of {course.prescription:g} Gy,"
                f" got {top:.4g} Gy. Check prescription and dose_unit, and that the file holds the total dose and not"
                " that of one fraction."
            )
        return dose

    @cached_property
    def _gross_tumour(self) -> BoolArray:
        return dose_planning.gross_tumour(self._patient)

    @property
    def _tissue(self) -> TissueMap:
        if self._patient.tissue is None:
            raise InputError(
                f"patient {self._patient.id}: expected tissue fractions to build a target. Prepare the patient first"
                " (hybridtumor.prepare.load_patient)."
            )
        return self._patient.tissue
