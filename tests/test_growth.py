"""Laws of the closed-form flows of growth and kill, and of the step control; no mesh needed."""

from collections.abc import Callable

import numpy as np
import pytest
from figures import Figure
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from hybridtumor.errors import ConvergenceError
from hybridtumor.models.growth import (
    FLOWS,
    exponential_flow,
    gompertz_flow,
    killed_cells,
    logistic_flow,
    reaction_flow,
    surviving,
)
from hybridtumor.solvers.time_grid import HALVINGS, Fault, StepControl, advance, landing_points, repeat

DENSITIES = np.array([0.0, 1e-12, 1e-3, 0.2, 0.5, 0.9, 1.0])
rates = st.floats(0, 0.5)
durations = st.floats(0, 60)
kills = st.floats(0, 20)
laws = st.sampled_from(sorted(FLOWS))
bounded_laws = st.sampled_from(["logistic", "gompertz"])


def slope(law: str, u: np.ndarray, rate: float) -> np.ndarray:
    return rate * {"logistic": u * (1 - u), "gompertz": -u * np.log(u), "exponential": u}[law]


@pytest.mark.law("growth", "The flows of all laws, growth and kill together, solve their equations")
@pytest.mark.parametrize("law", FLOWS)
@pytest.mark.parametrize("kill", [0.0, 0.025, 0.3])
def test_flow_solves_its_equation(law: str, kill: float, figure: Figure) -> None:
    start, rate, duration = DENSITIES[1:], 0.025, 30.0
    end = solve_ivp(
        lambda _, u: slope(law, u, rate) - kill * u, (0, duration), start, rtol=1e-11, atol=1e-20, method="LSODA"
    ).y[:, -1]
    np.testing.assert_allclose(reaction_flow(law, start, rate, duration, kill * duration), end, rtol=1e-7)
    found = reaction_flow(law, start, rate, duration, kill * duration)
    figure("error", np.abs(found / end - 1).max(), at_most=1e-7)


@pytest.mark.law("growth", "The flow of Gompertz growth is the closed form")
def test_gompertz_flow_is_the_closed_form(figure: Figure) -> None:
    np.testing.assert_allclose(gompertz_flow(DENSITIES, 0.1, 7.0), DENSITIES ** np.exp(-0.7), rtol=1e-14)
    figure("error", np.abs(gompertz_flow(DENSITIES, 0.1, 7.0) - DENSITIES ** np.exp(-0.7)).max(), at_most=1e-14)


@pytest.mark.law("growth", "A flow does not depend on how its time is split, to 1e-11")
@given(laws, rates, durations, durations, st.floats(0, 0.5))
def test_flow_does_not_depend_on_the_split(law: str, rate: float, first: float, second: float, kill: float) -> None:
    once = reaction_flow(law, DENSITIES, rate, first + second, kill * (first + second))
    twice = reaction_flow(law, reaction_flow(law, DENSITIES, rate, first, kill * first), rate, second, kill * second)
    np.testing.assert_allclose(once, twice, rtol=1e-11, atol=1e-300)


@pytest.mark.law("growth", "Bounded laws keep [0, 1] and the order of densities, for any step")
@given(bounded_laws, rates, durations, kills)
def test_flow_stays_in_the_unit_interval_and_rises_with_density(
    law: str, rate: float, duration: float, kill: float
) -> None:
    u = reaction_flow(law, DENSITIES, rate, duration, kill)
    assert u[0] == 0
    assert u.min() >= 0
    assert u.max() <= 1 + 1e-14
    assert (np.diff(u) >= -1e-14).all()


@pytest.mark.law("therapy", "More kill never leaves more cells, for any law, rate and step")
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
    for flow in (logistic_flow, gompertz_flow, exponential_flow):
        np.testing.assert_array_equal(flow(DENSITIES, 0.0, 10.0), DENSITIES)
        np.testing.assert_allclose(flow(DENSITIES, 0.0, 10.0, 0.7), surviving(DENSITIES, 0.7), rtol=1e-14)


@given(laws, st.lists(rates, min_size=7, max_size=7), durations, kills)
def test_a_rate_per_node_is_the_rate_of_that_node(law: str, rate: list[float], duration: float, kill: float) -> None:
    """Nodes that grow and nodes that shrink in one array, as under stress-reduced proliferation."""
    together = reaction_flow(law, DENSITIES, np.array(rate), duration, kill)
    apart = [float(reaction_flow(law, u, r, duration, kill)) for u, r in zip(DENSITIES, rate, strict=True)]
    np.testing.assert_allclose(together, apart, rtol=1e-14)
    killed = killed_cells(law, DENSITIES, np.array(rate), duration, kill)
    apart = [float(killed_cells(law, u, r, duration, kill)) for u, r in zip(DENSITIES, rate, strict=True)]
    np.testing.assert_allclose(killed, apart, rtol=1e-14)


@pytest.mark.parametrize("law", ["logistic", "gompertz"])
def test_flow_of_huge_steps_ends_where_it_has_to(law: str) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        end = reaction_flow(law, np.full(3, 0.3), np.array([1e4, 0.0, 5e3]), 1.0, 2000.0)
        none = reaction_flow(law, np.zeros(3), np.array([1e4, 0.0, 5e3]), 1.0, 2000.0)
    balance = (1e4 - 2000) / 1e4 if law == "logistic" else np.exp(-2000 / 1e4)
    np.testing.assert_allclose(end, [balance, 0.0, 0.6 if law == "logistic" else np.exp(-0.4)], rtol=1e-12)
    assert not none.any()
    assert np.isfinite(killed_cells(law, np.full(3, 0.3), np.array([1e4, 0.0, 5e3]), 1.0, 2000.0)).all()


@pytest.mark.law("therapy", "The cells killed within a step are the integral of the kill")
@pytest.mark.parametrize("law", ["logistic", "exponential"])
@pytest.mark.parametrize(("rate", "kill"), [(0.025, 0.01), (0.025, 0.025), (0.0, 0.3), (0.1, 0.3), (1e-12, 0.02)])
def test_killed_cells_are_the_integral_of_the_kill(law: str, rate: float, kill: float, figure: Figure) -> None:
    start, duration = DENSITIES[1:], 30.0
    both = solve_ivp(
        lambda _, y: np.concatenate([slope(law, y[:6], rate) - kill * y[:6], kill * y[:6]]),
        (0, duration), np.concatenate([start, 0 * start]), rtol=1e-11, atol=1e-22, method="LSODA",
    ).y[6:, -1]  # fmt: skip
    np.testing.assert_allclose(killed_cells(law, start, rate, duration, kill * duration), both, rtol=1e-8)
    found = killed_cells(law, start, rate, duration, kill * duration)
    figure("error", np.abs(found / both - 1).max(), at_most=1e-8)
    assert not killed_cells(law, np.zeros(2), rate, duration, 1.0).any()


@pytest.mark.law("therapy", "The same under Gompertz growth: second order in the step")
def test_killed_cells_of_gompertz_growth_are_of_second_order(figure: Figure) -> None:
    start, rate, kill = np.array([1e-6, 0.1, 0.9]), 0.05, 0.1
    both = solve_ivp(
        lambda _, y: np.concatenate([slope("gompertz", y[:3], rate) - kill * y[:3], kill * y[:3]]),
        (0, 20), np.concatenate([start, 0 * start]), rtol=1e-12, atol=1e-22, method="LSODA",
    ).y[3:, -1]  # fmt: skip
    errors = []
    for steps in (5, 10, 20, 40):
        u, killed, duration = start, np.zeros(3), 20 / steps
        for _ in range(steps):
            killed = killed + killed_cells("gompertz", u, rate, duration, kill * duration)
            u = gompertz_flow(u, rate, duration, kill * duration)
        errors.append(np.abs(killed / both - 1).max())
    assert np.log2(np.array(errors[:-1]) / errors[1:]).min() >= 1.9
    assert errors[-1] < 5e-4
    figure("order", np.log2(np.array(errors[:-1]) / errors[1:]), at_least=1.9)
    figure("error", errors[-1], at_most=5e-4)


@given(laws, durations, kills)
def test_without_growth_the_killed_are_those_who_are_missing(law: str, duration: float, kill: float) -> None:
    killed = killed_cells(law, DENSITIES, 0.0, duration, kill)
    np.testing.assert_allclose(killed, -DENSITIES * np.expm1(-kill), rtol=1e-12, atol=1e-300)


@pytest.mark.law("therapy", "Fractions kill alike however they are grouped, to 1e-12")
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


def fails_above(longest: float) -> tuple[Callable[[float, float, float], float], list[float]]:
    """Decay by a method whose linear algebra fails, or whose end is no number, when the step is too long."""
    tried: list[float] = []

    def flow(u: float, start: float, stop: float) -> float:
        tried.append(stop - start)
        if stop - start > 2 * longest:
            raise ConvergenceError("diffusion: PETSc stopped with error 91.")
        return float("nan") if stop - start > longest else decay_by_midpoint(u, start, stop)

    return flow, tried


def not_finite(u: float) -> Fault | None:
    return None if np.isfinite(u) else Fault("not finite")


def test_a_step_that_fails_is_halved_until_it_does_not() -> None:
    flow, tried = fails_above(0.1)
    days: list[float] = []
    done = advance(1.0, 0.0, 2.0, 1.0, StepControl(1e-2), flow, relative, lambda _, day: days.append(day), not_finite)
    assert done.state == pytest.approx(np.exp(-2), rel=1e-2)
    assert days[-1] == 2.0
    assert done.refused == 4  # 1, 0.5, 0.25, 0.125, and from then on nothing that is longer again
    assert max(tried[-2 * done.taken :]) <= 0.1
    assert done.taken == len(days) <= 2.0 / 0.0625 + 1


def test_a_blow_up_stops_the_run_and_is_not_crept_up_to() -> None:
    """u' = u² reaches infinity on day 1."""

    def flow(u: float, start: float, stop: float) -> float:
        return u / (1 - (stop - start) * u) if (stop - start) * u < 1 else float("inf")

    with pytest.raises(ConvergenceError, match=r"from day (0\.99|1)"):
        advance(1.0, 0.0, 2.0, 0.1, StepControl(1e-3), flow, relative, lambda *_: None, not_finite)


@pytest.mark.parametrize("bad", ["nan", "out of bounds", "raises"])
@pytest.mark.parametrize("again", [False, True])
def test_a_step_that_always_fails_stops_the_run_with_its_history(bad: str, again: bool) -> None:
    tried: list[float] = []
    kept: list[float] = []

    def flow(u: float, start: float, stop: float) -> float:
        tried.append(stop - start)
        if bad == "raises":
            raise ConvergenceError("diffusion: PETSc stopped with error 91.")
        return float("nan") if bad == "nan" else 1.5

    def fault(u: float) -> Fault | None:
        return Fault("density outside [0, 1] by 0.5", "Use another law.") if u > 1 else not_finite(u)

    def accepted(_: float, day: float) -> None:
        kept.append(day)

    def go() -> object:
        if again:
            return repeat(0.5, 10.0, 18.0, flow, accepted, fault)
        return advance(0.5, 10.0, 18.0, 8.0, StepControl(1e-3), flow, relative, accepted, fault)

    with pytest.raises(ConvergenceError) as caught:
        go()
    text = str(caught.value)
    assert "from day 10" in text
    assert f"{HALVINGS + 1} steps failed" in text
    assert f"step {8 / 2**HALVINGS:.3g}" in text
    assert {"nan": "finite", "out of bounds": "outside [0, 1] by 0.5", "raises": "error 91"}[bad] in text
    assert ("Use another law." in text) == (bad == "out of bounds")
    assert len(text) < 700
    assert kept == []
    assert len(tried) <= 3 * (HALVINGS + 1)


def test_repeated_steps_are_halved_too_and_never_hand_on_a_bad_state() -> None:
    flow, _ = fails_above(0.1)
    done = repeat(1.0, 0.0, 2.0, flow, lambda *_: None, not_finite)
    assert done.state == pytest.approx(np.exp(-2), rel=1e-2)
    assert done.refused == 1 + 2 + 4 + 8
    sound = repeat(1.0, 0.0, 0.2, flow, lambda *_: None, not_finite)
    assert (sound.taken, sound.refused) == (1, 0)
    assert sound.state == decay_by_midpoint(decay_by_midpoint(1.0, 0.0, 0.1), 0.1, 0.2)


def test_an_error_that_is_not_a_number_stops_the_run() -> None:
    with pytest.raises(ConvergenceError, match="finite"):
        advance(1.0, 0.0, 1.0, 1.0, StepControl(1e-3), lambda *_: float("nan"), relative, lambda *_: None)


def test_a_step_that_cannot_meet_the_tolerance_stops_the_run() -> None:
    with pytest.raises(ConvergenceError, match="tolerance"):
        advance(1.0, 0.0, 1.0, 1.0, StepControl(1e-3), decay_by_midpoint, lambda *_: 1.0, lambda *_: None)
