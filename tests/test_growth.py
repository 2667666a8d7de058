"""Laws of the closed-form flows of growth and kill, and of the step control; no mesh needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from hybridtumor.errors import ConvergenceError
from hybridtumor.models.growth import gompertz_flow, logistic_flow, reaction_flow, surviving
from hybridtumor.solvers.time_grid import StepControl, advance, landing_points

DENSITIES = np.array([0.0, 1e-12, 1e-3, 0.2, 0.5, 0.9, 1.0])
rates = st.floats(0, 0.5)
durations = st.floats(0, 60)
kills = st.floats(0, 20)
laws = st.sampled_from(["logistic", "gompertz"])


def slope(law: str, u: np.ndarray, rate: float) -> np.ndarray:
    return rate * u * (1 - u) if law == "logistic" else -rate * u * np.log(u)


@pytest.mark.parametrize("law", ["logistic", "gompertz"])
@pytest.mark.parametrize("kill", [0.0, 0.025, 0.3])
def test_flow_solves_its_equation(law: str, kill: float) -> None:
    start, rate, duration = DENSITIES[1:], 0.025, 30.0
    end = solve_ivp(
        lambda _, u: slope(law, u, rate) - kill * u, (0, duration), start, rtol=1e-11, atol=1e-20, method="LSODA"
    ).y[:, -1]
    np.testing.assert_allclose(reaction_flow(law, start, rate, duration, kill * duration), end, rtol=1e-7)


def test_gompertz_flow_is_the_closed_form() -> None:
    np.testing.assert_allclose(gompertz_flow(DENSITIES, 0.1, 7.0), DENSITIES ** np.exp(-0.7), rtol=1e-14)


@given(laws, rates, durations, durations, st.floats(0, 0.5))
def test_flow_does_not_depend_on_the_split(law: str, rate: float, first: float, second: float, kill: float) -> None:
    once = reaction_flow(law, DENSITIES, rate, first + second, kill * (first + second))
    twice = reaction_flow(law, reaction_flow(law, DENSITIES, rate, first, kill * first), rate, second, kill * second)
    np.testing.assert_allclose(once, twice, rtol=1e-11, atol=1e-300)


@given(laws, rates, durations, kills)
def test_flow_stays_in_the_unit_interval_and_rises_with_density(
    law: str, rate: float, duration: float, kill: float
) -> None:
    u = reaction_flow(law, DENSITIES, rate, duration, kill)
    assert u[0] == 0
    assert u.min() >= 0
    assert u.max() <= 1 + 1e-14
    assert (np.diff(u) >= -1e-14).all()


@given(laws, rates, durations, kills, kills)
def test_more_kill_never_leaves_more_cells(law: str, rate: float, duration: float, kill: float, more: float) -> None:
    assert (
        reaction_flow(law, DENSITIES, rate, duration, kill + more)
        <= reaction_flow(law, DENSITIES, rate, duration, kill) * (1 + 1e-14)
    ).all()


def test_flow_is_smooth_where_kill_balances_growth() -> None:
    near = [float(logistic_flow(np.array(0.4), 0.1, 10.0, 1.0 + d)) for d in (-1e-9, 0.0, 1e-9)]
    assert near[1] == pytest.approx(0.4 / 1.4, rel=1e-14)
    assert near[0] == pytest.approx(near[1], rel=1e-8)
    assert near[0] >= near[1] >= near[2]


def test_without_growth_only_the_kill_is_left() -> None:
    for flow in (logistic_flow, gompertz_flow):
        np.testing.assert_array_equal(flow(DENSITIES, 0.0, 10.0), DENSITIES)
        np.testing.assert_allclose(flow(DENSITIES, 0.0, 10.0, 0.7), surviving(DENSITIES, 0.7), rtol=1e-14)


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=40))
def test_events_kill_alike_however_they_are_grouped(kills: list[float]) -> None:
    u = DENSITIES
    for kill in kills:
        u = surviving(u, kill)
    np.testing.assert_allclose(u, surviving(DENSITIES, sum(kills)), rtol=1e-12)


def test_landing_points_hold_all_reports_and_the_events_before_the_last() -> None:
    assert landing_points((30.0, 60.0), (14.0, 30.0, 60.0, 80.0)) == (0.0, 14.0, 30.0, 60.0)


def decay_by_midpoint(u: float, start: float, stop: float) -> float:
    h = stop - start
    return u * (1 - h + 0.5 * h**2)


def relative(better: float, worse: float) -> float:
    return abs(better - worse) / abs(better)


def test_step_control_meets_the_tolerance_and_lands() -> None:
    seen: list[float] = []
    ends = []
    for tolerance in (1e-4, 1e-7):
        control = StepControl(tolerance)
        done = advance(1.0, 0.0, 2.0, 1.0, control, decay_by_midpoint, relative, lambda _, day: seen.append(day))
        assert seen[-1] == 2.0
        ends.append(abs(done.state / np.exp(-2) - 1))
    assert ends[0] < 20 * 1e-4
    assert ends[1] < ends[0] / 50


def test_a_landing_point_does_not_shorten_later_steps() -> None:
    control = StepControl(1e-3)
    done = advance(1.0, 0.0, 1e-3, 0.05, control, decay_by_midpoint, relative, lambda *_: None)
    assert done.taken == 1
    assert done.step >= 0.05


def test_an_error_that_is_not_a_number_stops_the_run() -> None:
    with pytest.raises(ConvergenceError, match="finite"):
        advance(1.0, 0.0, 1.0, 1.0, StepControl(1e-3), lambda *_: float("nan"), relative, lambda *_: None)


def test_a_step_that_cannot_meet_the_tolerance_stops_the_run() -> None:
    with pytest.raises(ConvergenceError, match="tolerance"):
        advance(1.0, 0.0, 1.0, 1.0, StepControl(1e-3), decay_by_midpoint, lambda *_: 1.0, lambda *_: None)
