"""Fractions fall on working days, keep off missed ones and pauses, and dates become days."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridtumor.arms import expanded, in_days
from hybridtumor.errors import InputError
from hybridtumor.schedule import Calendar, day_of, fraction_days

CALENDARS = st.builds(
    Calendar,
    weekday=st.none() | st.integers(0, 6),
    per_day=st.integers(1, 4),
    weekends=st.booleans(),
    missed=st.frozensets(st.integers(1, 60), max_size=6),
    pauses=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20)), max_size=2, unique_by=lambda p: p[0]).map(tuple),
)


@given(calendar=CALENDARS, fractions=st.integers(1, 60), first=st.integers(0, 20), hour=st.floats(0, 0.2))
@settings(max_examples=150)
def test_every_fraction_is_given_on_a_day_that_allows_it(
    calendar: Calendar, fractions: int, first: int, hour: float
) -> None:
    try:
        days = fraction_days(fractions, first + hour, calendar)
    except InputError:
        weekday = None if calendar.weekday is None else (calendar.weekday + first) % 7
        assert first in calendar.missed or (weekday is not None and weekday >= 5)
        return
    assert len(days) == fractions
    assert list(days) == sorted(set(days))
    assert days[0] == first + hour
    start = 0 if calendar.weekday is None else calendar.weekday + first
    for day in days:
        assert int(day) not in calendar.missed
        assert calendar.weekends or (start + int(day) - first) % 7 < 5
    for after, rest in calendar.pauses:
        if after < fractions:
            assert int(days[after]) - int(days[after - 1]) > rest


def test_schedules_of_the_textbook() -> None:
    assert fraction_days(30, 14) == tuple(14 + 7 * (i // 5) + i % 5 for i in range(30))
    assert fraction_days(4, 0, Calendar(per_day=2)) == (0.0, 0.25, 1.0, 1.25)
    assert fraction_days(3, 4, Calendar(weekday=0)) == (4.0, 7.0, 8.0)  # Friday, Monday, Tuesday
    assert fraction_days(3, 4, Calendar(weekday=0, weekends=True)) == (4.0, 5.0, 6.0)
    assert fraction_days(3, 0, Calendar(missed=frozenset({1, 2}))) == (0.0, 3.0, 4.0)
    assert fraction_days(4, 0, Calendar(pauses=((2, 14),))) == (0.0, 1.0, 16.0, 17.0)
    with pytest.raises(InputError, match="a saturday"):
        fraction_days(3, 5, Calendar(weekday=0))


def test_dates_become_days() -> None:
    baseline = datetime.date(2024, 2, 26)
    assert day_of("2024-03-01", baseline) == 4
    assert day_of(datetime.date(2024, 2, 26), baseline) == 0
    assert day_of("2024-02-26 18:00", baseline) == 0.75
    for text, why in (
        ("2024-02-25", "on or after"),
        ("2024-03-01T08:00+01:00", "time zone"),
        ("1.3.2024", "2024-03-11"),
    ):
        with pytest.raises(InputError, match=why):
            day_of(text, baseline)


def test_a_scenario_with_dates_keeps_no_date() -> None:
    course = {"prescription": "60 Gy", "fractions": 30, "first_day": datetime.date(2024, 3, 11)}
    course["schedule"] = {"missed": ["2024-03-29", 40]}
    content = {
        "baseline_date": "2024-03-01",
        "report_days": [0, "2024-04-30"],
        "arms": {"a": [{"radiation": course}, {"resection": {"day": "2024-03-04"}}]},
    }
    result = in_days(content)
    assert result["baseline_weekday"] == "friday"
    assert result["report_days"] == [0, 60.0]
    assert result["arms"]["a"][0]["radiation"]["first_day"] == 10.0
    assert result["arms"]["a"][0]["radiation"]["schedule"]["missed"] == [28.0, 40]
    assert result["arms"]["a"][1]["resection"]["day"] == 3.0
    assert "2024" not in str(result)
    del content["baseline_date"]
    with pytest.raises(InputError, match=r"arms\.a\[0\]\.radiation\.first_day: expected days"):
        in_days(content)


def test_a_grid_is_written_out() -> None:
    grid = {"prescription": ["50 Gy", "59.4 Gy"], "fractions": [15, 30], "first_day": 14, "target": "rtog"}
    drug = {"chemotherapy": {"drug": "temozolomide", "first_day": 14}}
    arms = expanded({"arms": {"untreated": [], "grid": {**grid, "with": [drug]}}})["arms"]
    assert list(arms) == ["untreated", "50Gy-15fx", "50Gy-30fx", "59.4Gy-15fx", "59.4Gy-30fx"]
    assert arms["59.4Gy-15fx"] == [
        {"radiation": {"prescription": "59.4 Gy", "fractions": 15, "first_day": 14, "target": "rtog"}}, drug
    ]  # fmt: skip
    named = expanded({"arms": {"grid": {**grid, "target": ["rtog", "eortc-2016"]}}})["arms"]
    assert "50Gy-15fx-eortc-2016" in named
    assert len(named) == 8
    plain = {"arms": {"grid": [{"radiation": grid}]}}
    assert expanded(plain) == plain  # an arm that is called grid stays one
    for wrong in (
        {"prescription": "60 Gy"},
        {"prescription": []},
        {"prescription": ["6 Gy", "6 Gy"], "fractions": [1]},
    ):
        with pytest.raises(InputError, match=r"arms\.grid"):
            expanded({"arms": {"grid": wrong}})
    with pytest.raises(InputError, match="at most 100"):
        expanded({"arms": {"grid": {"prescription": [f"{i} Gy" for i in range(20)], "fractions": list(range(1, 20))}}})
