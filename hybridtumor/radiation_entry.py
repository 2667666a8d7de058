"""A course of radiation as a file states it: what, when, where.

Days count from the baseline scan. Quantities carry units and become plain floats in mm, days, Gy and degrees.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema, field_validator, model_validator

from hybridtumor import units
from hybridtumor.errors import InputError
from hybridtumor.schedule import SIX_HOURS, Calendar, fraction_days
from hybridtumor.targets import RECIPES, split_fractions
from hybridtumor.therapy import PLAUSIBLE_DOSE

PATIENTS_DOSE = "patient"
"""Value of ``dose`` that means the planned dose of the patient folder."""

NIFTI = (".nii", ".nii.gz")

LONGEST = 100.0
"""mm. Longer margins, fall-offs and shifts are units mistaken."""

STEEPEST = 45.0
"""Degrees. No patient is set up with a larger rotation."""

Day = Annotated[
    float,
    Field(strict=True, ge=0, le=100_000, allow_inf_nan=False),
    PlainSerializer(lambda day: int(day) if float(day).is_integer() else day),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "format": "date"}],
            "description": "days since the baseline scan; a date where the scenario has baseline_date",
        }
    ),
]
"""Days since the baseline scan, a plain number."""

Target = Literal["estro-eano-2023", "eortc-2016", "rtog", "gtv"]
Vector = Annotated[tuple[units.Length, ...], Field(min_length=3, max_length=3)]
Angles = Annotated[tuple[units.Angle, ...], Field(min_length=3, max_length=3)]


class Entry(BaseModel):
    """Part of a scenario file: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Pause(Entry):
    """A split course: so many days of rest after so many fractions.

    Attributes
    ----------
    after
        Number of fractions given before the pause.
    rest
        How long it lasts.
    """

    after: Annotated[int, Field(strict=True, ge=1, le=200)]
    rest: units.Time


class Schedule(Entry):
    """On which days and at which hours the fractions of a course are given.

    Attributes
    ----------
    per_day
        Fractions on a day of treatment.
    gap
        Time between two fractions of one day.
    weekends
        Treat on Saturdays and Sundays too.
    missed
        Days without a fraction, such as holidays; what is missed is given later.
    pauses
        Splits of the course.
    """

    per_day: Annotated[int, Field(strict=True, ge=1, le=8)] = 1
    gap: units.Time = f"{24 * SIX_HOURS:g} h"
    weekends: bool = False
    missed: tuple[Day, ...] = ()
    pauses: tuple[Pause, ...] = ()

    @model_validator(mode="after")
    def _gap_is_used(self) -> Self:
        if self.per_day == 1 and "gap" in self.model_fields_set:
            raise InputError("gap: expected only with several fractions a day. Remove it, or add per_day.")
        return self

    def calendar(self, weekday: int | None) -> Calendar:
        """Return the calendar for a baseline scan on that weekday, 0 for Monday; None: it is not known."""
        return Calendar(
            weekday,
            self.per_day,
            self.gap,
            self.weekends,
            frozenset(int(day) for day in self.missed),
            tuple((pause.after, pause.rest) for pause in self.pauses),
        )


def require_shape(ctv_margin: float | None, ptv_margin: float | None, falloff: float | None) -> None:
    """Refuse what no dose around a target looks like, mm.

    Raises
    ------
    InputError
        A margin that is negative or larger than `LONGEST`, a fall-off that is not positive or as large.
    """
    for margin in (ctv_margin, ptv_margin):
        if margin is not None and not 0 <= margin <= LONGEST:
            raise InputError(f"expected margins that are not negative, and at most {LONGEST:g} mm, got {margin:g} mm.")
    if falloff is not None and not 0 < falloff <= LONGEST:
        raise InputError(f"expected a falloff that is positive, and at most {LONGEST:g} mm, got {falloff:g} mm.")


class Boost(Entry):
    """A simultaneous integrated boost: more dose in part of the target, in the same fractions.

    Attributes
    ----------
    prescription
        Total dose in the boost, Gy; at least that of the course.
    target
        Recipe of the boost's target; the gross tumour by default.
    ctv_margin, ptv_margin, falloff
        Of the boost, as for the course.
    """

    prescription: units.Dose
    target: Target = "gtv"
    ctv_margin: units.Length | None = None
    ptv_margin: units.Length | None = None
    falloff: units.Length | None = None


class SetUpError(Entry):
    """Errors of set-up: a displacement of the dose against the patient in all fractions, and one anew in each.

    Attributes
    ----------
    shift
        How far the dose is shifted to the right, the front and the top (RAS).
    rotation
        Angles about these axes through the centre of the dose, in that order.
    random
        Standard deviation of the daily shift along each axis; its expected dose is given.
    """

    shift: Vector = ("0 mm", "0 mm", "0 mm")
    rotation: Angles = ("0 deg", "0 deg", "0 deg")
    random: units.Length = "0 mm"

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        if (
            not 0 <= self.random <= LONGEST
            or max(map(abs, self.shift)) > LONGEST
            or max(map(abs, self.rotation)) > STEEPEST
        ):
            raise InputError(
                f"setup_error: expected a shift and a random error of at most {LONGEST:g} mm and a rotation of at most"
                f" {STEEPEST:g}°, got {self.shift} mm, {self.random:g} mm and {self.rotation}°."
            )
        return self


class Radiation(Entry):
    """A course of radiation in equal fractions: around a `target`, or as a `dose` file says.

    Attributes
    ----------
    prescription
        Total dose, Gy.
    fractions
        Number of fractions.
    first_day
        Day of the first fraction; the others follow on five days a week, or as `schedule` says.
    days
        Day of every fraction, instead of `first_day`.
    schedule
        Several fractions a day, weekends, missed days, pauses.
    delivery_time
        How long the beam is on in each fraction.
    target
        Recipe of the clinical target, a key of `hybridtumor.targets.RECIPES`.
    ctv_margin
        Instead of the recipe's margin to the clinical target, mm.
    ptv_margin, falloff
        Of the synthetic dose around the target, mm; 3 and 15 mm by default.
    boost
        An integrated boost.
    dose
        NIfTI file of the total dose, a DICOM RTDOSE file or a folder of them, or ``patient`` for the planned dose of
        the patient folder. It is given as it is; the prescription has to belong to it and is what the report quotes.
    dose_unit
        Unit of a NIfTI file, ``Gy`` or ``cGy``; compulsory with it.
    dose_is
        Whether a NIfTI file holds the ``total`` of the course or one ``fraction``.
    setup_error
        A displacement of the dose against the patient.
    """

    prescription: units.Dose
    fractions: Annotated[int, Field(strict=True, ge=1, le=200)]
    first_day: Day | None = None
    days: tuple[Day, ...] | None = None
    schedule: Schedule | None = None
    delivery_time: units.Time | None = None
    target: Target | None = None
    ctv_margin: units.Length | None = None
    ptv_margin: units.Length | None = None
    falloff: units.Length | None = None
    boost: Boost | None = None
    dose: Annotated[str, Field(min_length=1)] | None = None
    dose_unit: Literal["Gy", "cGy"] | None = None
    dose_is: Literal["total", "fraction"] = "total"
    setup_error: SetUpError | None = None

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
    def _times_belong_together(self) -> Self:
        if (self.first_day is None) == (self.days is None):
            raise InputError("expected either first_day or days. Give one of them.")
        if self.days is not None and len(self.days) != self.fractions:
            raise InputError(f"days: expected one day for each of {self.fractions} fractions, got {len(self.days)}.")
        if self.days is not None and len(set(self.days)) < len(self.days):
            raise InputError(
                "days: expected every day once, got the same twice. Give the hour of fractions on one day, such as"
                " 14.375 and 14.625."
            )
        if self.days is not None and list(self.days) != sorted(self.days):
            raise InputError(f"days: expected days in order of time, got {list(self.days)}.")
        if self.days is not None and self.schedule is not None:
            raise InputError("schedule: expected only with first_day; `days` says it all. Remove one of them.")
        late = [pause.after for pause in self.schedule.pauses if pause.after >= self.fractions] if self.schedule else []
        if late:
            raise InputError(
                f"schedule.pauses: expected a pause before the last of {self.fractions} fractions, got one after"
                f" {late[0]}."
            )
        return self

    @model_validator(mode="after")
    def _dose_belongs_together(self) -> Self:
        if (self.target is None) == (self.dose is None):
            raise InputError("expected either a target (a recipe) or a dose (a file). Give one of them.")
        shaping = (self.ctv_margin, self.ptv_margin, self.falloff, self.boost)
        if self.target is None and any(part is not None for part in shaping):
            raise InputError(
                "ctv_margin, ptv_margin, falloff and boost shape the dose around a target; a dose file has none."
                " Remove them."
            )
        if self.dose_file is not None and self.dose_file.endswith(NIFTI) and self.dose_unit is None:
            raise InputError("dose_unit: expected Gy or cGy with a dose file, which does not say. Add dose_unit.")
        if self.dose_file is None and (self.dose_unit is not None or self.dose_is != "total"):
            raise InputError("dose_unit, dose_is: expected only with a dose file. Remove them.")
        for part in (self, *(() if self.boost is None else (self.boost,))):
            require_shape(part.ctv_margin, part.ptv_margin, part.falloff)
        if self.boost is not None and self.prescription == 0 < self.boost.prescription:
            raise InputError("boost: expected a course with a dose of its own, got a prescription of 0 Gy.")
        if self.boost is not None and self.boost.prescription < self.prescription:
            raise InputError(
                f"boost: expected at least the prescription of {self.prescription:g} Gy, got"
                f" {self.boost.prescription:g} Gy."
            )
        return self

    @property
    def dose_file(self) -> str | None:
        """The file or folder of the dose, if it is one."""
        return None if self.dose in (None, PATIENTS_DOSE) else self.dose

    @property
    def phases(self) -> int:
        """How many phases, one after the other, the fractions come in."""
        if self.target is None:
            return 1
        return sum(count > 0 for count in split_fractions(self.fractions, RECIPES[self.target].phases))

    def times(self, weekday: int | None) -> tuple[float, ...]:
        """Return the day of every fraction; `weekday` is that of day 0, 0 for Monday, None where it is not known."""
        if self.days is not None:
            return self.days
        schedule = Schedule() if self.schedule is None else self.schedule
        return fraction_days(self.fractions, float(self.first_day or 0), schedule.calendar(weekday))

    @property
    def first_fraction(self) -> float:
        """Day of the first fraction."""
        return min(self.days) if self.days else float(self.first_day or 0)
