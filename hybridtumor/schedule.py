"""When fractions are given: working days, two a day, missed days, a pause in the middle.

Days count from the baseline scan and may be fractions of a day. Without a calendar the first day counts as a Monday.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

from hybridtumor.errors import InputError

WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

WORKING_DAYS = 5

SIX_HOURS = 0.25
"""days. Shortest gap between two fractions of a day in common use: repair needs it."""

MOST_FRACTIONS = 200


@dataclass(frozen=True)
class Calendar:
    """On which days and at which hours fractions are given.

    Parameters
    ----------
    weekday
        Weekday of day 0, 0 for Monday; None: the first fraction falls on a Monday.
    per_day
        Fractions on a day of treatment.
    gap
        Days between two fractions of one day.
    weekends
        Whether Saturdays and Sundays count as working days.
    missed
        Days (whole, since the baseline scan) on which no fraction is given; what is missed is given later.
    pauses
        (fractions, days): after so many fractions so many days of rest.
    """

    weekday: int | None = None
    per_day: int = 1
    gap: float = SIX_HOURS
    weekends: bool = False
    missed: frozenset[int] = frozenset()
    pauses: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if not (1 <= self.per_day <= 8 and self.gap > 0 and self.per_day * self.gap <= 1):
            raise InputError(
                f"schedule: expected up to 8 fractions a day that fit into it, got {self.per_day} at a gap of"
                f" {24 * self.gap:g} h."
            )
        if any(after < 1 or rest <= 0 for after, rest in self.pauses):
            raise InputError("schedule: expected pauses after at least one fraction and of more than 0 days.")
        if len({after for after, _ in self.pauses}) < len(self.pauses):
            raise InputError("schedule: expected one pause after a fraction, got two.")


def fraction_days(fractions: int, first_day: float, calendar: Calendar | None = None) -> tuple[float, ...]:
    """Return the day of every fraction.

    Parameters
    ----------
    fractions
        How many.
    first_day
        Day and hour of the first one, such as 14.375 for nine o'clock; the others of a day follow at `Calendar.gap`.
    calendar
        None: one a day on five days a week, the first on a Monday.

    Raises
    ------
    InputError
        The first day is one on which no fraction may be given, or there are too many fractions.
    """
    plan = Calendar() if calendar is None else calendar
    if not 1 <= fractions <= MOST_FRACTIONS:
        raise InputError(f"radiation: expected 1 to {MOST_FRACTIONS} fractions, got {fractions}.")
    whole, last = int(first_day // 1), first_day % 1 + (plan.per_day - 1) * plan.gap
    if last >= 1:
        raise InputError(
            f"schedule: expected all fractions of a day before midnight, got the last at {24 * last:.3g} h."
            " Start earlier in the day, or choose a smaller gap."
        )
    if not _works(whole, whole, plan):
        weekday = "" if plan.weekday is None else f", a {WEEK[(plan.weekday + whole) % 7]}"
        raise InputError(
            f"radiation: expected a first day on which fractions are given, got day {first_day:g}{weekday}."
            " Move it, take it out of `missed`, or set `weekends: true`."
        )
    return tuple(islice(_times(fractions, first_day, plan), fractions))


def _times(fractions: int, first_day: float, plan: Calendar) -> Iterator[float]:
    """Yield the day of one fraction after the other."""
    whole, hour = int(first_day // 1), first_day % 1
    given, resumes = 0, float("-inf")
    pauses = dict(plan.pauses)
    for day in count(whole):
        if day < resumes or not _works(day, whole, plan):
            continue
        for number in range(plan.per_day):
            yield day + hour + number * plan.gap
            given += 1
            if given in pauses:
                resumes = day + 1 + pauses[given]
                break
        if given >= fractions:
            return


def _works(day: int, first: int, plan: Calendar) -> bool:
    """Tell whether fractions are given on a day."""
    weekday = (day - first) % 7 if plan.weekday is None else (plan.weekday + day) % 7
    return (plan.weekends or weekday < WORKING_DAYS) and day not in plan.missed


def day_of(moment: datetime.date | datetime.datetime | str, baseline: datetime.date) -> float:
    """Return the day, counted from midnight of the baseline scan's date, of a date or of a date with a clock time.

    Raises
    ------
    InputError
        No date, a time zone (clinics give local time), or a date before the baseline scan.
    """
    when = parse_moment(moment)
    midnight = datetime.datetime.combine(baseline, datetime.time())
    day = (when - midnight) / datetime.timedelta(days=1)
    if day < 0:
        raise InputError(f"expected a date on or after the baseline scan ({baseline}), got {when.date()}.")
    return day


def parse_moment(moment: datetime.date | datetime.datetime | str) -> datetime.datetime:
    """Return a date, or a date with a clock time, as a local time without a zone.

    Raises
    ------
    InputError
        It is neither, or has a time zone.
    """
    if isinstance(moment, str):
        try:
            moment = datetime.datetime.fromisoformat(moment)
        except ValueError as error:
            raise InputError(f"expected a date such as 2024-03-11 or 2024-03-11 08:30, got {moment!r}.") from error
    if not isinstance(moment, datetime.datetime):
        return datetime.datetime.combine(moment, datetime.time())
    if moment.tzinfo is not None:
        raise InputError(f"expected a local time without a time zone, got {moment.isoformat()}. Leave the zone out.")
    return moment
