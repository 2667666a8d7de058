"""Laws of the solver on a box: bounds, conservation, kill, comparison."""

from itertools import pairwise

import numpy as np
import pytest
from boxes import NO_KILL, box, kill_of, parameters
from figures import Figure

from hybridtumor.errors import ConvergenceError
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.solvers.diffusion import Diffusion, poisson_weights
from hybridtumor.solvers.growth import grow
from hybridtumor.solvers.time_grid import StepControl

CONTROL = StepControl(1e-4)


@pytest.fixture(scope="module")
def block() -> tuple[Diffusion, np.ndarray]:
    return box((12, 10, 8), 1.0, 0.13)


@pytest.fixture(scope="module")
def rough(block: tuple[Diffusion, np.ndarray]) -> np.ndarray:
    """Zeros and ones drawn for every vertex: the roughest density there is."""
    return np.random.default_rng(0).integers(0, 2, block[1].shape[0]).astype(float)


def radiation(
    count: int, log_kill: float, first: float = 5.0, drug: tuple[tuple[float, float], ...] = ()
) -> KillSchedule:
    days = tuple(first + i for i in range(count))
    return kill_of(days, tuple(np.array(log_kill) for _ in days), drug, 0.15, 9.24)


@pytest.mark.law("growth", "Diffusion of zeros and ones drawn at random keeps [0, 1] and the burden, up to 10 000 days")
@pytest.mark.parametrize("duration", [1e-3, 1.0, 100.0, 1e4])
def test_diffusion_keeps_bounds_and_burden(
    block: tuple[Diffusion, np.ndarray], rough: np.ndarray, duration: float, figure: Figure
) -> None:
    diffusion, _ = block
    u = diffusion.step(rough, duration)
    assert u.max() <= 1 + 1e-13
    figure("lowest", u.min(), at_least=0)
    figure("change of burden", abs(diffusion.integral(u) / diffusion.integral(rough) - 1), at_most=1e-12)


def test_diffusion_is_self_adjoint_and_a_semigroup(block: tuple[Diffusion, np.ndarray], rough: np.ndarray) -> None:
    diffusion, x = block
    v = np.sin(x[:, 0]) ** 2
    left = diffusion.volume @ (diffusion.step(rough, 3.0) * v)
    assert left == pytest.approx(diffusion.volume @ (rough * diffusion.step(v, 3.0)), rel=1e-12)
    twice = diffusion.step(diffusion.step(rough, 1.0), 2.0)
    np.testing.assert_allclose(diffusion.step(rough, 3.0), twice, atol=1e-11)


def test_huge_diffusion_ends_in_the_mean() -> None:
    diffusion, x = box((4, 4, 4), 1.0, 50.0)
    u = diffusion.step((x[:, 0] > 2).astype(float), 20.0)
    np.testing.assert_allclose(u, u.mean(), rtol=1e-9)


@pytest.mark.parametrize("mean", [0.0, 1e-9, 0.3, 40.0, 1e5])
def test_poisson_weights_add_up_to_one_and_have_the_mean(mean: float) -> None:
    first, weights = poisson_weights(mean)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert (first + np.arange(weights.size)) @ weights == pytest.approx(mean, rel=1e-7, abs=1e-12)


@pytest.mark.law("growth", "Growth under radiation and drug keeps [0, 1] from the roughest start")
@pytest.mark.parametrize("law", ["logistic", "gompertz"])
def test_density_stays_in_bounds_from_the_roughest_start(
    block: tuple[Diffusion, np.ndarray], rough: np.ndarray, law: str, figure: Figure
) -> None:
    for kill in (NO_KILL, radiation(10, 0.3, drug=((2.0, 75.0), (3.0, 200.0)))):
        end = grow(block[0], parameters(0.13, 0.2, law), kill, rough, (0, 40), CONTROL)
        figure("lowest", min(u.min() for u in end.density.values()), at_least=0)
        figure("highest", max(u.max() for u in end.density.values()), at_most=1 + 1e-12)


@pytest.mark.law("growth", "Without growth the burden is kept for a year")
def test_burden_is_kept_without_growth(block: tuple[Diffusion, np.ndarray], rough: np.ndarray, figure: Figure) -> None:
    curve = grow(block[0], parameters(0.13, 0.0), NO_KILL, rough, (0, 90, 365), CONTROL).burden_curve
    figure("change", np.abs(curve[:, 1] / curve[0, 1] - 1).max(), at_most=1e-12)


@pytest.mark.law("therapy", "Without growth the burden is that of the closed form, wherever steps fall")
@pytest.mark.parametrize("reports", [(20,), tuple(range(21)), (3.3, 7.77, 20)])
def test_kill_does_not_depend_on_where_steps_fall(
    block: tuple[Diffusion, np.ndarray], rough: np.ndarray, reports: tuple[float, ...], figure: Figure
) -> None:
    """Without growth the same share survives everywhere, so the burden is known exactly."""
    diffusion, _ = block
    kill = radiation(6, 0.25, first=2.5, drug=((1.0, 75.0), (9.0, 150.0)))
    curve = grow(diffusion, parameters(0.13, 0.0), kill, rough, reports, CONTROL).burden_curve
    survival = np.exp(-float(kill.log_kill(0, 20)))
    figure("error", abs(curve[-1, 1] / (diffusion.integral(rough) * survival) - 1), at_most=1e-12)


def test_a_fraction_counts_from_its_day_on(block: tuple[Diffusion, np.ndarray], rough: np.ndarray) -> None:
    """The density of a report day is the one before that day's fraction: an interval holds start <= day < end."""
    diffusion, _ = block
    still = parameters(0.13, 0.0)
    end = grow(diffusion, still, radiation(1, 1.0, first=10.0), rough, (0, 10, 11), CONTROL)
    burden = {day: diffusion.integral(u) for day, u in end.density.items()}
    assert burden[10] == pytest.approx(burden[0], rel=1e-12)
    assert burden[11] == pytest.approx(burden[0] * np.exp(-1.0), rel=1e-12)
    np.testing.assert_array_equal(
        grow(diffusion, still, radiation(1, 1.0, first=0.0), rough, (0, 1), CONTROL).density[0], rough
    )


@pytest.mark.law("therapy", "More dose never means more cells, at any vertex and day of five arms")
@pytest.mark.parametrize("law", ["logistic", "gompertz"])
def test_more_dose_never_means_more_cells(block: tuple[Diffusion, np.ndarray], law: str, figure: Figure) -> None:
    diffusion, x = block
    initial = 0.8 * np.exp(-((x - 5) ** 2).sum(1) / 8)
    field = np.exp(-((x[:, 0] - 5) ** 2) / 20)
    days = tuple(range(0, 41, 4))
    arms = []
    for dose in (0.0, 0.5, 1.0, 2.0, 2.5):
        one = 0.035 * dose * field + 0.0035 * (dose * field) ** 2
        kill = kill_of(tuple(range(5, 25)), (one,) * 20, (), 0.0, 1.0) if dose else NO_KILL
        arms.append(grow(diffusion, parameters(0.13, 0.05, law), kill, initial, days, CONTROL))
    for less, more in pairwise(arms):
        figure("gained", max((more.density[day] - less.density[day]).max() for day in days), at_most=1e-9)
        for day in days:
            assert diffusion.integral(more.density[day]) <= diffusion.integral(less.density[day])


@pytest.mark.law("growth", "Gompertz growth of a uniform tumour is the closed form")
def test_gompertz_growth_of_a_uniform_tumour_is_the_closed_form(
    block: tuple[Diffusion, np.ndarray], figure: Figure
) -> None:
    diffusion, x = block
    end = grow(diffusion, parameters(0.13, 0.05, "gompertz"), NO_KILL, np.full(len(x), 0.1), (0, 30), CONTROL)
    figure("error", np.abs(end.density[30] / 0.1 ** np.exp(-0.05 * 30) - 1).max(), at_most=1e-11)


@pytest.mark.parametrize("value", [-1e-6, 1.001, np.nan])
def test_a_density_outside_its_bounds_stops_the_run(block: tuple[Diffusion, np.ndarray], value: float) -> None:
    initial = np.full(block[1].shape[0], 0.5)
    initial[3] = value
    with pytest.raises(ConvergenceError, match=r"\[0, 1\]"):
        grow(block[0], parameters(), NO_KILL, initial, (0, 1), CONTROL)


def test_progress_rises_to_one(block: tuple[Diffusion, np.ndarray], rough: np.ndarray) -> None:
    seen: list[float] = []
    grow(block[0], parameters(0.13, 0.1), radiation(3, 0.1), rough, (0, 30), CONTROL, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
