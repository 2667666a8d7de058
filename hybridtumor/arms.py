"""What a scenario file may leave to us: a grid of arms in one line, and dates in place of days.

::

    arms:
      untreated: []
      grid: {prescription: ["50 Gy", "60 Gy"], fractions: [15, 30], first_day: 14, target: estro-eano-2023}

becomes the arms ``50Gy-15fx``, ``50Gy-30fx``, ``60Gy-15fx`` and ``60Gy-30fx``: every key of a radiation course may be
a list, and ``with`` holds what all of them get besides. With ``baseline_date`` a day may be a date, or a date and a
clock time; what comes out holds days and the weekday of day 0 alone, so that no date of a patient goes any further.
"""

import datetime
import re
from collections.abc import Mapping
from itertools import product
from typing import Any

from hybridtumor.errors import InputError
from hybridtumor.schedule import WEEK, day_of, parse_moment

GRID = "grid"
WITH = "with"

MOST_ARMS = 100

DATED = ("first_day", "day", "days", "missed")
"""Keys of treatments that hold days."""

DATES = ("arms", "report_days")
"""Keys of a scenario below which there may be dates."""

LISTS = ("days",)
"""Keys whose plain value is a list already: an axis is a list of lists."""


def expanded(content: object) -> object:
    """Return the content of a scenario file with the grid of arms written out; all else is left as it is.

    Raises
    ------
    InputError
        A grid that is not one, too many arms, or arms of the same name.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("arms"), Mapping):
        return content
    if near := [name for name in content["arms"] if str(name) != GRID and str(name).lower() == GRID]:
        raise InputError(f"arms.{near[0]}: expected {GRID!r} in small letters.")
    arms: dict[Any, Any] = {}
    for name, arm in content["arms"].items():
        given = _grid(arm) if name == GRID and isinstance(arm, Mapping) else {name: arm}
        if twice := set(arms) & set(given):
            raise InputError(f"arms: expected names that differ, got {', '.join(sorted(map(str, twice)))} twice.")
        arms |= given
    if len(arms) > MOST_ARMS:
        raise InputError(f"arms: expected at most {MOST_ARMS}, got {len(arms)}. Make the grid coarser.")
    return {**content, "arms": arms}


def _grid(entry: Mapping[Any, Any]) -> dict[str, list[Any]]:
    """Return the arms of a grid, in the order of its keys, the last one running fastest."""
    axes = {key: value for key, value in entry.items() if key != WITH and _is_axis(key, value)}
    if not axes:
        raise InputError(
            "arms.grid: expected at least one list, such as prescription: ['50 Gy', '60 Gy'], got single values only."
        )
    if (empty := [key for key, values in axes.items() if not values]) or not isinstance(entry.get(WITH, []), list):
        raise InputError(f"arms.grid.{empty[0] if empty else WITH}: expected a list that is not empty.")
    size = 1
    for values in axes.values():
        size *= len(values)
    if size > MOST_ARMS:
        raise InputError(f"arms.grid: expected at most {MOST_ARMS} arms, got {size}. Make the grid coarser.")
    arms: dict[str, list[Any]] = {}
    for values in product(*axes.values()):
        course = {key: value for key, value in entry.items() if key != WITH} | dict(zip(axes, values, strict=True))
        name = _name(course, axes)
        if name in arms:
            raise InputError(f"arms.grid: expected values that differ, got the arm {name} twice.")
        arms[name] = [{"radiation": course}, *entry.get(WITH, [])]
    return arms


def _is_axis(key: object, value: object) -> bool:
    if not isinstance(value, list):
        return False
    return key not in LISTS or any(isinstance(part, list) for part in value)


def _name(course: Mapping[Any, Any], axes: Mapping[Any, Any]) -> str:
    """Return the name of an arm: its dose and fractions, and whatever else runs in the grid."""
    parts = [str(course.get("prescription", ""))]
    if "fractions" in course:
        parts.append(f"{course['fractions']}fx")
    for key in axes:
        if key in ("prescription", "fractions"):
            continue
        value = course[key]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            parts.append(f"{'day' if key == 'first_day' else key}{value:g}")
        elif isinstance(value, str) and key != "dose":  # a file may be called after the patient
            parts.append(value)
        else:
            parts.append(f"{key}{axes[key].index(value) + 1}")
    words = (re.sub(r"[^A-Za-z0-9.]+", "-" if i > 1 else "", part).strip("-.") for i, part in enumerate(parts))
    return "-".join(word for word in words if word)[:64]


def in_days(content: object) -> object:
    """Return the content of a scenario file with ``baseline_date`` and all dates turned to days.

    Raises
    ------
    InputError
        A date without ``baseline_date``, before it, or with a time zone.
    """
    if not isinstance(content, Mapping):
        return content
    rest = {key: value for key, value in content.items() if key != "baseline_date"}
    if "baseline_date" not in content:
        return rest | {
            key: _converted(rest[key], None, key, dated=key == "report_days") for key in DATES if key in rest
        }
    if "baseline_weekday" in rest:
        raise InputError("baseline_weekday: expected it or baseline_date, got both. Remove one of them.")
    try:
        baseline = parse_moment(content["baseline_date"]).date()
    except (InputError, TypeError, AttributeError) as error:
        raise InputError(
            f"baseline_date: expected a date such as 2024-03-01, got {content['baseline_date']!r}."
        ) from error
    return rest | _dated(rest, baseline) | {"baseline_weekday": WEEK[baseline.weekday()]}


def _dated(content: Mapping[Any, Any], baseline: datetime.date | None) -> dict[str, Any]:
    """Return what of a scenario may hold dates, in days."""
    return {key: _converted(content[key], baseline, key, dated=key == "report_days") for key in DATES if key in content}


def _converted(value: Any, baseline: datetime.date | None, place: str, *, dated: bool = False) -> Any:
    """Return a value with every date under a key of `DATED` turned to days."""
    if isinstance(value, Mapping):
        return {key: _converted(part, baseline, f"{place}.{key}", dated=key in DATED) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_converted(part, baseline, f"{place}[{i}]", dated=dated) for i, part in enumerate(value)]
    if not dated or not isinstance(value, (str, datetime.date)):
        return value
    if isinstance(value, str) and not re.match(r"\s*\d{4}-", value):
        raise InputError(f"{place}: expected a plain number of days or a date such as 2024-03-11, got {value!r}.")
    if baseline is None:
        raise InputError(
            f"{place}: expected days since the baseline scan, got the date {value}."
            " Give days, or add baseline_date to the scenario."
        )
    try:
        return day_of(value, baseline)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
