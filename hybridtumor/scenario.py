"""Scenario: the file that states one patient, one biology and the arms to compare.

Quantities carry units, plain numbers are days since the baseline scan or counts, and unknown keys are refused. A grid
of arms and dates are written out before the rest is read (`hybridtumor.arms`).
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hybridtumor import units
from hybridtumor.arms import GRID, expanded, in_days
from hybridtumor.errors import InputError
from hybridtumor.models.oxygen import local_response
from hybridtumor.parameters import GrowthParameters, MechanicalParameters, TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.plan_builder import PlanBuilder, require_inputs
from hybridtumor.radiation_entry import Day
from hybridtumor.scan import write_bytes
from hybridtumor.schedule import WEEK
from hybridtumor.therapy import TherapyPlan
from hybridtumor.treatments import Treatment
from hybridtumor.validation import validated
from hybridtumor.yaml_file import load_yaml

CLOSE = 0.5
"""days. Between fractions closer than this, repair of sublethal damage is not complete."""

EMBEDDED_PATIENT = "mni152"
"""Patient reference that names the embedded brain and not a folder."""

SHORTEST_INTERVAL = 0.01
"""days. File names tell no closer report days apart."""

Weekday = Annotated[
    Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
    BeforeValidator(lambda text: text.lower() if isinstance(text, str) else text),
]

ArmName = Annotated[str, Field(pattern=r"^[_A-Za-z0-9][-_.A-Za-z0-9]{0,63}$")]
"""Name of an arm; it becomes the name of a folder."""


class RefineOptions(BaseModel):
    """How the images are refined.

    Attributes
    ----------
    samples
        Images in the ensemble.
    seed
        Of the random numbers, the same for every arm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: Annotated[int, Field(strict=True, ge=1, le=256)] = 4
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0


class Scenario(BaseModel):
    """Named arms on one patient.

    Attributes
    ----------
    schema_version
        1.
    patient
        ``mni152`` (the embedded brain), a patient folder or a BraTS folder. `load` makes a folder absolute.
    baseline_weekday
        Weekday of the baseline scan: fractions then keep off real weekends. Without it every course starts on a Monday.
        A file gives it, or ``baseline_date``, which also lets days be dates.
    horizon
        How far to look ahead, days.
    report_days
        Days since the baseline scan, ascending and within the horizon; day 0 and the horizon are added when they are
        not there.
    growth, response
        Biology, the same in every arm.
    mechanics
        Tissue mechanics, for the mass effect; an empty table takes the defaults, without it tissue stays where it is.
    arms
        Name to treatments, in order; an empty list is no treatment.
    refine
        How the images are refined.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1]
    patient: Annotated[str, Field(min_length=1)]
    baseline_weekday: Weekday | None = None
    horizon: units.Time
    report_days: tuple[Day, ...]
    growth: GrowthParameters = GrowthParameters()
    response: TreatmentResponse = TreatmentResponse()
    mechanics: MechanicalParameters | None = None
    arms: Annotated[dict[ArmName, tuple[Treatment, ...]], Field(min_length=1)]
    refine: RefineOptions = RefineOptions()

    @field_validator("horizon")
    @classmethod
    def _lies_ahead(cls, horizon: float) -> float:
        if horizon <= 0:
            raise InputError(f"expected a horizon after day 0, got {horizon:g} days.")
        return horizon

    @field_validator("report_days")
    @classmethod
    def _ascend_from_zero(cls, days: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if not days:
            raise InputError("expected at least one day, got none.")
        if list(days) != sorted(set(days)):
            raise InputError(f"expected ascending days, each once, got {list(days)}.")
        if min((b - a for a, b in pairwise(days)), default=1.0) < SHORTEST_INTERVAL:
            raise InputError(f"expected days at least {SHORTEST_INTERVAL} apart, got {list(days)}.")
        horizon = info.data.get("horizon", days[-1])
        return (*(() if days[0] == 0 else (0.0,)), *days, *((horizon,) if horizon > days[-1] else ()))

    @model_validator(mode="after")
    def _within_horizon(self) -> Self:
        if self.report_days[-1] > self.horizon:
            raise InputError(
                f"report_days: expected days within the horizon of {self.horizon:g} days, got {self.report_days[-1]:g}."
            )
        names = [name.casefold().rstrip(".") for name in self.arms]
        if len(set(names)) < len(names) or any(name.endswith(".") for name in self.arms):
            raise InputError(
                f"arms: expected names that differ in more than capitals and do not end in a dot, got"
                f" {', '.join(self.arms)}: they become folders."
            )
        for name, treatments in self.arms.items():
            for treatment in treatments:
                if treatment.chemotherapy is not None:
                    self.response.drug(treatment.chemotherapy.drug)
                if treatment.first_day >= self.horizon:
                    raise InputError(
                        f"arms.{name}: expected treatments that start before the horizon of {self.horizon:g} days, got"
                        f" first day {treatment.first_day:g}. Move the horizon or the treatment."
                    )
        return self

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a scenario file; folders and files in it are relative to it.

        Raises
        ------
        InputError
            The file is missing, too large or not plain YAML, or says something that a scenario cannot say; every such
            place is named.
        """
        path = Path(path)
        return cls.parse(load_yaml(path), folder=path.parent, name=str(path))

    @classmethod
    def parse(cls, content: object, *, folder: Path | str = ".", name: str = "scenario") -> Self:
        """Check the content of a scenario file, given as plain dictionaries and lists.

        Parameters
        ----------
        folder
            What references to files are relative to.
        name
            What to call it in an error.

        Raises
        ------
        InputError
            As `load`.
        """
        try:
            content = expanded(in_days(content))
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        scenario = validated(cls, content, name)
        root = Path(folder)
        patient = scenario.patient
        if patient != EMBEDDED_PATIENT:
            patient = str((root / patient).resolve())
        arms = {arm: tuple(t.within(root) for t in treatments) for arm, treatments in scenario.arms.items()}
        return scenario.model_copy(update={"patient": patient, "arms": arms})

    def to_yaml(self) -> str:
        """Return the scenario as a file that loads again equal, from any folder."""
        content = self.model_dump(mode="json", exclude_none=True)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)

    def save(self, path: Path | str) -> None:
        """Write `to_yaml`, whole or not at all."""
        write_bytes(Path(path), self.to_yaml().encode())

    @property
    def weekday(self) -> int | None:
        """Weekday of day 0, 0 for Monday; None: it is not known."""
        return None if self.baseline_weekday is None else WEEK.index(self.baseline_weekday)

    def notes(self, plans: Mapping[str, TherapyPlan]) -> list[str]:
        """Return what whoever reads the results has to know about what the arms give."""
        return [note for name, plan in plans.items() for note in _notes(name, plan, self.horizon, self.response)]

    def require(self, patient: Patient) -> None:
        """Raise InputError when a patient folder lacks a map that an arm or the response asks for."""
        if self.response.hypoxia == "patient":
            local_response(patient, self.response)
        for name, treatments in self.arms.items():
            try:
                require_inputs(patient, treatments)
            except InputError as error:
                raise InputError(f"arm {name}: {error}") from error

    def plans(self, patient: Patient) -> dict[str, TherapyPlan]:
        """Return the plan of every arm on a patient; targets and doses derive from day 0 and are shared between arms.

        Raises
        ------
        InputError
            An arm cannot be planned on this patient.
        """
        builder, plans = PlanBuilder(patient, self.weekday), {}
        for name, treatments in self.arms.items():
            try:
                plans[name] = builder.plan(treatments)
            except InputError as error:
                raise InputError(f"arm {name}: {error}") from error
        return plans


def _notes(arm: str, plan: TherapyPlan, horizon: float, response: TreatmentResponse) -> list[str]:
    days = sorted(day for course in plan.active.courses for day in course.fraction_days)
    late = sum(day >= horizon for day in days)
    notes = []
    if late:
        notes.append(
            f"arm {arm}: {late} of {len(days)} fractions fall on or after the horizon of {horizon:g} days and are not"
            " simulated; the dose figures count them."
        )
    if response.repair_half_time == 0 and any(later - earlier < CLOSE for earlier, later in pairwise(days)):
        notes.append(
            f"arm {arm}: fractions less than {24 * CLOSE:g} h apart, and repair counts as complete between them."
            " State response.repair_half_time."
        )
    return notes


def json_schema() -> str:
    """Return the JSON schema of the scenario file, as docs/scenario.schema.json holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}
    schema["properties"]["baseline_date"] = {"type": "string", "format": "date", "description": "lets days be dates"}
    arms = schema["properties"]["arms"]
    (pattern,) = arms["patternProperties"]
    arms["patternProperties"] = {pattern.replace("^", f"^(?!{GRID}$)", 1): arms["patternProperties"][pattern]}
    arms["properties"] = {GRID: {"type": ["object", "array"], "description": "a radiation course; lists run"}}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
