"""The treatments of an arm as a file states them; `hybridtumor.plan_builder` turns them into a plan on a patient.

A treatment is a mapping with one key, ``radiation``, ``chemotherapy`` or ``resection``. Days count from the baseline
scan; a scenario that gives the date of that scan may give dates instead (`hybridtumor.arms`).
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from hybridtumor import units
from hybridtumor.errors import InputError
from hybridtumor.parameters import TEMOZOLOMIDE
from hybridtumor.radiation_entry import Day, Entry, Radiation
from hybridtumor.therapy import Chemotherapy

STRUCTURE_PREFIX = "structure "
"""How a ``cavity`` names a structure of the patient folder."""

LARGEST_DOSE = 20_000.0
"""mg/m². A larger dose of one administration (methotrexate has the largest in use) is a unit mistaken."""

CAVITIES = ("core", "whole")
"""Cavities that derive from the tumour of day 0."""


class DrugCourse(Entry):
    """A drug: temozolomide in the schedule of Stupp et al. 2005, or so much on such days.

    Attributes
    ----------
    drug
        ``temozolomide``, or a key of ``response.drugs``.
    first_day
        Day of the first dose.
    concurrent_days
        Stupp: days of 75 mg/m² daily.
    adjuvant_cycles
        Stupp: cycles of 28 days that follow after four weeks of rest.
    dose
        Dose of one administration, mg/m², instead of Stupp's.
    days
        Day of every administration, instead of `first_day` and cycles.
    cycles, every, days_per_cycle
        So many cycles, one beginning each `every`, with a dose on each of their first days.
    """

    drug: Annotated[str, Field(min_length=1, max_length=64)]
    first_day: Day | None = None
    concurrent_days: Annotated[int, Field(strict=True, ge=0, le=365)] | None = None
    adjuvant_cycles: Annotated[int, Field(strict=True, ge=0, le=60)] | None = None
    dose: units.DrugDose | None = None
    days: tuple[Day, ...] | None = None
    cycles: Annotated[int, Field(strict=True, ge=1, le=100)] | None = None
    every: units.Time | None = None
    days_per_cycle: Annotated[int, Field(strict=True, ge=1, le=365)] | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.first_day is None) == (self.days is None):
            raise InputError("expected either first_day or days. Give one of them.")
        cycle = (self.cycles, self.every, self.days_per_cycle)
        stupp = (self.concurrent_days, self.adjuvant_cycles)
        scheduled = self.days is not None or any(part is not None for part in cycle)
        if self.dose is None and (self.drug != TEMOZOLOMIDE or scheduled):
            raise InputError(
                f"expected the dose of one administration, such as dose: '110 mg/m^2', with {self.drug}; only"
                f" {TEMOZOLOMIDE} without days and cycles has Stupp's. Add it."
            )
        if self.dose is not None and any(part is not None for part in stupp):
            raise InputError("concurrent_days and adjuvant_cycles are Stupp's doses. Remove them, or `dose`.")
        if self.days is not None and any(c is not None for c in cycle):
            raise InputError("cycles, every and days_per_cycle: expected with first_day, not with days. Remove them.")
        if self.dose is not None and not 0 <= self.dose <= LARGEST_DOSE:
            raise InputError(f"dose: expected 0 to {LARGEST_DOSE:g} mg/m², got {self.dose:g} mg/m².")
        if self.days is not None and len(set(self.days)) < len(self.days):
            raise InputError(f"days: expected every day once, got {list(self.days)}.")
        if (self.cycles is None) != (self.every is None):
            raise InputError("expected cycles and every together, such as cycles: 6, every: '42 days'. Add the other.")
        if self.every is not None and self.every < (self.days_per_cycle or 1):
            raise InputError(
                f"every: expected cycles of at least {self.days_per_cycle or 1} days, the doses of one, got"
                f" {self.every:g} days."
            )
        return self

    @property
    def first(self) -> float:
        """Day of the first dose."""
        return min(self.days) if self.days else float(self.first_day or 0)

    def course(self) -> Chemotherapy:
        """Return the doses."""
        if self.dose is None:
            concurrent = 42 if self.concurrent_days is None else self.concurrent_days
            adjuvant = 6 if self.adjuvant_cycles is None else self.adjuvant_cycles
            return Chemotherapy.temozolomide(self.first, concurrent_days=concurrent, adjuvant_cycles=adjuvant)
        days = self.days or tuple(
            self.first + cycle * (self.every or 0) + day
            for cycle in range(self.cycles or 1)
            for day in range(self.days_per_cycle or 1)
        )
        return Chemotherapy(tuple((float(day), self.dose) for day in days), self.drug)


class Surgery(Entry):
    """A resection.

    Attributes
    ----------
    day
        Day of surgery.
    cavity
        What is taken out: the ``core`` of the tumour of day 0, the ``whole`` of what shows of it, ``structure NAME`` of
        the patient folder, or a NIfTI file of 0 and 1.
    margin
        Brain that is taken out around it.
    residual
        Share of the cavity's cells that is left behind.
    """

    day: Day = 0.0
    cavity: Annotated[str, Field(min_length=1)] = "core"
    margin: units.Length = "0 mm"
    residual: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _margin(self) -> Self:
        if self.margin < 0:
            raise InputError("margin: expected a margin that is not negative.")
        return self

    @property
    def cavity_file(self) -> str | None:
        """The file of the cavity, if it is one."""
        derived = self.cavity in CAVITIES or self.cavity.startswith(STRUCTURE_PREFIX)
        return None if derived else self.cavity


class Treatment(Entry):
    """One treatment: a mapping with one of the keys ``radiation``, ``chemotherapy`` and ``resection``."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    radiation: Radiation | None = None
    chemotherapy: DrugCourse | None = None
    resection: Surgery | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(part is not None for part in (self.radiation, self.chemotherapy, self.resection)) != 1:
            raise InputError("expected exactly one of radiation, chemotherapy and resection in each entry of the list.")
        return self

    @property
    def first_day(self) -> float:
        """Day on which it starts."""
        if self.radiation is not None:
            return self.radiation.first_fraction
        if self.chemotherapy is not None:
            return self.chemotherapy.first
        return 0.0 if self.resection is None else self.resection.day

    @property
    def file(self) -> str | None:
        """The file it reads, if any: of a dose or of a cavity."""
        if self.radiation is not None:
            return self.radiation.dose_file
        return None if self.resection is None else self.resection.cavity_file

    def with_file(self, path: str) -> "Treatment":
        """Return the same treatment reading another file."""
        if self.radiation is not None:
            return Treatment(radiation=self.radiation.model_copy(update={"dose": path}))
        if self.resection is not None:
            return Treatment(resection=self.resection.model_copy(update={"cavity": path}))
        return self

    def with_copy(self, path: str) -> "Treatment":
        """Return the same treatment reading a copy that is ready to use: total dose in Gy, errors and margins done."""
        if self.radiation is not None:
            change = {"dose": path, "dose_unit": "Gy", "dose_is": "total", "setup_error": None}
            return Treatment(radiation=self.radiation.model_copy(update=change))
        if self.resection is not None:
            return Treatment(resection=self.resection.model_copy(update={"cavity": path, "margin": 0.0}))
        return self

    def within(self, folder: Path) -> "Treatment":
        """Return the same treatment with its file, if any, taken relative to a folder."""
        return self if self.file is None else self.with_file(str((folder / self.file).resolve()))
