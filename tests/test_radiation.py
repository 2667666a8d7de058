"""The log-kill of any plan against formulas written out by hand: two a day, boosts, LQ-L, oxygen, long fractions."""

import math
from itertools import pairwise

import numpy as np
import pytest
from figures import Figure
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridtumor.grid import Grid
from hybridtumor.models.cell_kill import KillSchedule, radiation_bed
from hybridtumor.models.oxygen import LocalResponse, enhancement_ratio, oxygen_from_density
from hybridtumor.models.radiation import interaction, lq_log_kill, protraction
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.schedule import Calendar, fraction_days
from hybridtumor.therapy import DoseMap, Fractionation, Resection, TherapyPlan

GRID = Grid((5, 4, 3), np.eye(4))
ALPHA, RATIO = 0.035, 10.0
BETA = ALPHA / RATIO
HALF_TIME = 1.5 / 24
MU = math.log(2) / HALF_TIME


def response(**changes: object) -> TreatmentResponse:
    return TreatmentResponse(alpha=f"{ALPHA} 1/Gy", alpha_beta=f"{RATIO} Gy", **changes)


def course(total: float | np.ndarray, days: tuple[float, ...], delivery: float = 0.0) -> Fractionation:
    values = np.broadcast_to(np.float32(total), GRID.shape)
    return Fractionation(DoseMap(values, GRID), len(days), days[0], days, delivery_time=delivery)


def log_kill(
    *courses: Fractionation, how: TreatmentResponse | None = None, end: float = 500, cuts: int = 1, **options: object
) -> np.ndarray:
    """The log-kill over [0, end], summed over `cuts` intervals."""
    plan = TherapyPlan.of(*courses)
    kill = KillSchedule.from_plan(plan, how or response(), lambda values: values, shape=GRID.shape, **options)
    return sum(kill.log_kill(a, b) for a, b in pairwise(np.linspace(0, end, cuts + 1)))


@pytest.mark.law("therapy", "Survival of any plan against hand formulas, however many steps it is summed over")
@pytest.mark.parametrize("cuts", [1, 7, 1000])
def test_plans_in_closed_form(cuts: int, figure: Figure) -> None:
    """Conventional, two a day, missed days, integrated boost, LQ-L, oxygen: each by the textbook formula."""
    conventional = fraction_days(30, 14)
    twice = fraction_days(60, 14, Calendar(per_day=2))
    missed = fraction_days(30, 14, Calendar(missed=frozenset({16, 22})))
    levels = np.full(GRID.shape, 60.0, np.float32)
    levels[2:] = 75.0
    h = 2.0 ** -(6 / 1.5)  # 6 h apart, half-time 1.5 h
    oxygen = np.full(GRID.shape, 2.5, np.float32)
    cases = {
        "30 x 2 Gy": (log_kill(course(60, conventional), cuts=cuts), 30 * (ALPHA * 2 + BETA * 4)),
        "missed days": (log_kill(course(60, missed), cuts=cuts), 30 * (ALPHA * 2 + BETA * 4)),
        "integrated boost": (
            log_kill(course(levels, conventional), cuts=cuts),
            ALPHA * levels.astype(float) + BETA * levels.astype(float) ** 2 / 30,
        ),
        "sequential boost": (
            log_kill(course(46, conventional[:23]), course(14, conventional[23:]), cuts=cuts),
            30 * (ALPHA * 2 + BETA * 4),
        ),
        "two fractions a day, one day": (
            log_kill(course(2.5, (14.0, 14.25)), how=response(repair_half_time="1.5 h"), cuts=cuts),
            2 * (ALPHA * 1.25 + BETA * 1.5625) + 2 * h * BETA * 1.5625,
        ),
        "two fractions a day": (
            log_kill(course(72, twice), how=response(repair_half_time="1.5 h"), cuts=cuts),
            60 * (ALPHA * 1.2 + BETA * 1.44) + 2 * BETA * 1.44 * pairs(twice),
        ),
        "LQ-L, 3 x 15 Gy": (
            log_kill(course(45, conventional[:3]), how=response(transition_dose="8 Gy"), cuts=cuts),
            3 * (ALPHA * 8 + BETA * 64 + (ALPHA + 2 * BETA * 8) * 7),
        ),
        "LQ-L below the transition": (
            log_kill(course(60, conventional), how=response(transition_dose="8 Gy"), cuts=cuts),
            30 * (ALPHA * 2 + BETA * 4),
        ),
        "oxygen": (
            log_kill(course(60, conventional), cuts=cuts, local=LocalResponse(oer=oxygen)),
            30 * (ALPHA * 0.8 + BETA * 0.64),
        ),
        "regional radiosensitivity": (
            log_kill(course(60, conventional), cuts=cuts, local=LocalResponse(factor=oxygen)),
            2.5 * 30 * (ALPHA * 2 + BETA * 4),
        ),
        "one fraction of 30 min": (
            log_kill(course(20, (14.0,), 1 / 48), how=response(repair_half_time="1.5 h"), cuts=cuts),
            ALPHA * 20 + BETA * 400 * 2 * (MU / 48 - 1 + math.exp(-MU / 48)) / (MU / 48) ** 2,
        ),
    }
    worst = max(float(np.abs(np.exp(-got) / np.exp(-np.asarray(want)) - 1).max()) for got, want in cases.values())
    for name, (got, want) in cases.items():
        np.testing.assert_allclose(np.exp(-got), np.exp(-np.asarray(want)), rtol=1e-10, err_msg=name)
    figure("error of the survival", worst, at_most=1e-10)


def pairs(days: tuple[float, ...]) -> float:
    """Σ over pairs of fractions of what is left unrepaired of the one when the other comes."""
    return sum(2.0 ** -((days[i] - days[j]) * 24 / 1.5) for i in range(len(days)) for j in range(i))


@pytest.mark.law(
    "therapy", "Fractions that take their time kill as much as those at once when nothing repairs meanwhile"
)
@given(delivery=st.floats(1e-4, 0.05), cuts=st.integers(1, 50), total=st.floats(1, 80))
@settings(max_examples=40, deadline=None)
def test_a_source_term_kills_as_much_as_an_event(delivery: float, cuts: int, total: float) -> None:
    days = fraction_days(10, 3)
    slow, quick = log_kill(course(total, days, delivery), cuts=cuts), log_kill(course(total, days), cuts=cuts)
    np.testing.assert_allclose(slow, quick, rtol=1e-12, atol=1e-12)


@pytest.mark.law(
    "therapy", "Repair between and within fractions: α D + G β D² with the Lea–Catcheside factor by quadrature"
)
@pytest.mark.parametrize(("gap", "delivery"), [(0.25, 0.02), (0.1, 0.05), (0.06, 0.05), (1.0, 0.1)])
def test_repair_is_the_lea_catcheside_integral(gap: float, delivery: float, figure: Figure) -> None:
    """G = (2/D²) ∫ Ḋ(t) ∫ Ḋ(t') e^{−μ(t − t')} dt' dt of two pulses of different dose, by a fine double sum."""
    first, second = 3.0, 5.0
    n = 4000
    mid = (np.arange(n) + 0.5) / n * delivery
    rate = np.concatenate([np.full(n, first / n), np.full(n, second / n)])
    time = np.concatenate([mid, gap + mid])
    running, state = np.zeros(2 * n), 0.0
    for i in range(2 * n):
        running[i] = state + rate[i] / 2
        state = (state + rate[i]) * math.exp(-MU * (time[i + 1] - time[i])) if i + 1 < 2 * n else state
    expected = ALPHA * (first + second) + BETA * 2 * float(rate @ running)
    repairing = response(repair_half_time="1.5 h")
    got = log_kill(course(first, (1.0,), delivery), course(second, (1.0 + gap,), delivery), how=repairing)
    assert got == pytest.approx(expected, rel=1e-6)
    figure("difference", float(np.abs(got / expected - 1).max()), at_most=1e-6)


def test_limits_of_repair() -> None:
    """At once and together is one fraction; after long the fractions are apart; without repair nothing is lost."""
    assert protraction(0.0, MU) == protraction(0.1, math.inf) == 1.0
    assert protraction(1e-9, MU) == pytest.approx(1.0)
    assert protraction(9.99e-3 / MU, MU) == pytest.approx(protraction(1.001e-2 / MU, MU), rel=1e-5)
    assert interaction(0.0, (0.0, 0.0), MU) == 1.0
    assert interaction(0.25, (0.0, 0.0), math.inf) == 0.0
    repairing = response(repair_half_time="1.5 h")
    together = log_kill(course(2, (1.0,)), course(2, (1.0,)), how=repairing)
    np.testing.assert_allclose(together, lq_log_kill(4.0, ALPHA, RATIO), rtol=1e-14)


@given(dose=st.floats(0, 40), more=st.floats(0, 40), transition=st.floats(1, 20))
def test_lql_is_smooth_and_below_lq(dose: float, more: float, transition: float) -> None:
    kill = lq_log_kill(dose, ALPHA, RATIO, transition)
    assert kill <= lq_log_kill(dose, ALPHA, RATIO) + 1e-12
    assert lq_log_kill(dose + more, ALPHA, RATIO, transition) >= kill - 1e-12
    step = 1e-5
    slopes = [
        (
            lq_log_kill(transition + s * step, ALPHA, RATIO, transition)
            - lq_log_kill(transition, ALPHA, RATIO, transition)
        )
        / (s * step)
        for s in (-1, 1)
    ]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)


def test_bed_of_a_plan_is_that_of_the_textbook() -> None:
    days = fraction_days(30, 14)
    ramp = np.linspace(0, 70, 60, dtype=np.float32).reshape(GRID.shape)
    plan = TherapyPlan.of(course(ramp, days), course(9.0, (80.0, 81.0, 82.0)))
    expected = ramp * (1 + ramp.astype(float) / 30 / 3) + 9 * (1 + 3 / 3)
    np.testing.assert_allclose(radiation_bed(plan, 3.0), expected, rtol=1e-6)


def test_oxygen_takes_away_between_nothing_and_all_of_its_enhancement() -> None:
    pressure = np.array([0.0, 3.0, 10.0, 40.0, 100.0], np.float32)
    ratio = enhancement_ratio(pressure, 3.0)
    assert (np.diff(ratio) <= 0).all()
    assert ratio[0] == pytest.approx(123 / 43)  # f(40) = 123/43, f(0) = 1
    assert ratio[3] == ratio[4] == 1.0
    assert (enhancement_ratio(pressure, 1.0) == 1).all()
    np.testing.assert_allclose(oxygen_from_density(np.array([0.0, 0.5, 1.0], np.float32)), [40, 20, 0])


def test_surgery_leaves_the_residual_share() -> None:
    cavity = np.zeros(GRID.shape, bool)
    cavity[:2] = True
    kill = KillSchedule.from_plan(
        TherapyPlan.of(Resection(cavity, GRID, 3.0, 0.02)), response(), lambda values: values, shape=GRID.shape
    )
    left = np.exp(-kill.log_kill(0, 10))
    np.testing.assert_allclose(left[cavity], 0.02, rtol=1e-6)
    assert (left[~cavity] == 1).all()
    assert not kill.log_kill(0, 3).any()  # the report of day 3 is the one before surgery
