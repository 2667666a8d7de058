"""The samplers on data whose denoiser is known: a point, correlated Gaussians, the spectrum of the remainder."""

from collections.abc import Callable

import pytest
import torch
from figures import Figure
from torch import Tensor

from hybridtumor.errors import InputError
from hybridtumor.models.spectrum import spectrum
from hybridtumor.solvers.samplers import CONSISTENCY, SAMPLERS, Churn, Sampler, evaluations, heun_churn, sampler
from hybridtumor.solvers.sampling import SIGMA_MAX, SIGMA_MIN, Denoise, noise_levels

DETERMINISTIC = [name for name, each in SAMPLERS.items() if not each.stochastic]
STOCHASTIC = [name for name, each in SAMPLERS.items() if each.stochastic]
FIRST_ORDER = ["euler", "ddim", "flow_euler"]
VARIANCES = torch.tensor([0.02, 0.3, 2.0, 20.0], dtype=torch.float64)
AXES = torch.linalg.qr(torch.randn((4, 4), generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q


def denoise(y: Tensor, sigma: Tensor) -> Tensor:
    """E[r | y] of a Gaussian of covariance AXES diag(VARIANCES) AXESᵀ."""
    return y @ AXES * (VARIANCES / (VARIANCES + sigma[:, None] ** 2)) @ AXES.T


def exact(y: Tensor, here: float, there: float) -> Tensor:
    """The map of the ODE from one level to another."""
    return y @ AXES * ((VARIANCES + there**2) / (VARIANCES + here**2)).sqrt() @ AXES.T


def white(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fresh_for(start: Tensor):
    return lambda step: white(tuple(start.shape), 100 + step)


def gaussian_start(samples: int, sigma: float) -> Tensor:
    return white((samples, 4)) * (VARIANCES + sigma**2).sqrt() @ AXES.T


def uneven_levels(steps: int) -> Tensor:
    """Steps in ln σ of lengths 1, 3, 1, 3, … between 8 and 0.1."""
    lengths = torch.tensor([0.0, *([1.0, 3.0] * (steps // 2))], dtype=torch.float64).cumsum(0)
    return 8.0 * (0.1 / 8.0) ** (lengths / lengths[-1])


@pytest.mark.law("images", "Samplers converge at their order")
@pytest.mark.law("images", "Every sampler of an ODE converges to its exact map at the sampler's order")
@pytest.mark.parametrize("ladder", [lambda steps: noise_levels(steps, 8.0, 0.1)[:-1], uneven_levels])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_samplers_converge_at_their_order(name: str, ladder: Callable[[int], Tensor], figure: Figure) -> None:
    start = gaussian_start(16, 8.0)

    def error(steps: int) -> float:
        levels = ladder(steps)
        off = (SAMPLERS[name](denoise, start, levels) - exact(start, 8.0, 0.1)) @ AXES / (VARIANCES + 0.1**2).sqrt()
        return float(off.square().mean().sqrt())

    errors = torch.tensor([error(steps) for steps in (80, 160, 320)])
    orders = torch.log2(errors[:-1] / errors[1:])
    expected = SAMPLERS[name].order
    figure(f"order of {name}", orders, at_least=expected - 0.1, at_most=expected + 0.1)
    figure(f"error of {name}, 320 steps", errors[-1], at_most=0.02 if expected == 1 else 2e-4)


def covariance(name: str, levels: Tensor, function: Denoise = denoise) -> Tensor:
    """The covariance a sampler draws, exactly: it is linear in the start and in the noise of each step, so add up."""
    count, first = len(levels) - 1, float(levels[0])
    start = torch.zeros((4 * (count + 1), 4), dtype=torch.float64)
    start[:4] = (VARIANCES + first**2).sqrt()[:, None] * AXES.T

    def fresh(step: int) -> Tensor:
        noise = torch.zeros_like(start)
        noise[4 * step : 4 * (step + 1)] = torch.eye(4)
        return noise

    drawn = sampler(name)(function, start, levels, fresh=fresh)
    return drawn.T @ drawn


@pytest.mark.law("images", "Stochastic samplers reproduce the covariance of the data")
@pytest.mark.law("images", "The covariance that a stochastic sampler draws converges to that of the data")
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_reproduce_the_covariance(name: str, figure: Figure) -> None:
    scale = (VARIANCES + 0.1**2).sqrt()

    def error(steps: int) -> float:
        found = AXES.T @ covariance(name, noise_levels(steps, 20.0, 0.1)[:-1]) @ AXES
        return float((found / scale / scale[:, None] - torch.eye(4)).norm())

    errors = torch.tensor([error(steps) for steps in (80, 160, 320)])
    expected = SAMPLERS[name].order
    figure(f"order of {name}", torch.log2(errors[:-1] / errors[1:]), at_least=expected - 0.15, at_most=expected + 0.15)
    figure(f"error of {name}, 320 steps", errors[-1], at_most=0.05 if expected == 1 else 5e-4)


@pytest.mark.law("images", "Around a point every step, however long, leaves noise of exactly the level it goes to")
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_point_in_noise_keeps_the_level_of_every_step(name: str, figure: Figure) -> None:
    point, levels = 3.0, torch.tensor([4.0, 1.0, 0.4])
    start = point + 4.0 * white((8, 50_000))
    drawn = SAMPLERS[name](lambda y, sigma: torch.full_like(y, point), start, levels, fresh=fresh_for(start))
    figure("deviation over level", (drawn - point).std() / 0.4, at_least=0.99, at_most=1.01)


@pytest.mark.law("images", "Euler, DDIM and rectified flow in its time are one map")
def test_first_order_samplers_are_one_map(figure: Figure) -> None:
    start, levels = gaussian_start(50, 8.0), noise_levels(7, 8.0)
    drawn = torch.stack([SAMPLERS[name](denoise, start, levels) for name in FIRST_ORDER])
    figure("largest difference", (drawn[1:] - drawn[0]).abs().max(), at_most=1e-13)


@pytest.mark.law("images", "DPM-Solver++(2M) with 10 evaluations errs less than Heun's method with 11")
def test_multistep_is_more_exact_per_evaluation(figure: Figure) -> None:
    start = gaussian_start(500, SIGMA_MAX)

    def error(name: str, budget: int) -> float:
        levels = noise_levels(SAMPLERS[name].steps_within(budget))
        assert evaluations(name, len(levels) - 1) == budget
        whitened = (SAMPLERS[name](denoise, start, levels) - exact(start, SIGMA_MAX, 0.0)) @ AXES / VARIANCES.sqrt()
        return float(whitened.square().mean().sqrt())

    figure("error over that of Heun", error("dpmpp_2m", 10) / error("heun", 11), at_most=0.5)


@pytest.mark.law("images", "DPM-Solver++ needs half the evaluations of Heun on the spectrum of the remainder")
@pytest.mark.law(
    "images", "On the spectrum of the remainder 12 evaluations of DPM-Solver++(2M) do for 23 of Heun's method"
)
def test_multistep_halves_the_evaluations_on_the_spectrum_of_the_remainder(figure: Figure) -> None:
    k = torch.fft.fftfreq(24, dtype=torch.float64)
    power = spectrum(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).ravel()
    start = (power + SIGMA_MAX**2).sqrt()[None]

    def drawn(name: str, steps: int, rho: float) -> Tensor:
        levels = noise_levels(steps, sigma_min=0.03, rho=rho)
        return SAMPLERS[name](lambda y, sigma: power / (power + sigma[:, None] ** 2) * y, start, levels)[0]

    few, many = drawn("dpmpp_2m", 12, 40.0), drawn("heun", 12, 7.0)
    error = [float((y - power.sqrt()).norm() / power.sqrt().norm()) for y in (few, many)]
    figure("relative error", error[0], at_most=0.02)
    figure("relative error over that of Heun", error[0] / error[1], at_most=0.8)
    figure("distance of log spectra", (few.abs().log() - power.sqrt().log()).abs().mean() * 2, at_most=0.05)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_to_zero_returns_the_denoiser(name: str) -> None:
    start = gaussian_start(5, SIGMA_MAX)
    drawn = SAMPLERS[name](denoise, start, torch.tensor([SIGMA_MAX, 0.0]), fresh=fresh_for(start))
    torch.testing.assert_close(drawn, denoise(start, torch.full((5,), SIGMA_MAX)))


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations_and_steps_are_counted(name: str, steps: int) -> None:
    seen: list[tuple[int, ...]] = []
    told: list[tuple[int, int]] = []
    used: list[int] = []

    def counting(y: Tensor, sigma: Tensor) -> Tensor:
        seen.append(tuple(sigma.shape))
        return denoise(y, sigma)

    def fresh(step: int) -> Tensor:
        used.append(step)
        return white((3, 4), step)

    start = gaussian_start(3, SIGMA_MAX)
    SAMPLERS[name](counting, start, noise_levels(steps), fresh=fresh, progress=lambda a, b: told.append((a, b)))
    assert seen == [(3,)] * evaluations(name, steps)
    assert told == [(k + 1, steps) for k in range(steps)]
    assert used == sorted(set(used))
    assert set(used) <= set(range(1, steps)), "noise of step 0 is that of the start, and the step to 0 takes none"
    if name == "ddpm":
        assert len(used) == steps - 1
    assert SAMPLERS[name].steps_within(evaluations(name, steps)) == steps


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_noise_gives_the_same_sample(name: str) -> None:
    start = gaussian_start(7, SIGMA_MAX)

    def draw(seed: int) -> Tensor:
        return SAMPLERS[name](denoise, start, noise_levels(6), fresh=lambda step: white((7, 4), 100 * seed + step))

    assert torch.equal(draw(3), draw(3))
    assert torch.equal(draw(3), draw(4)) is not SAMPLERS[name].stochastic


def test_a_sample_does_not_depend_on_the_batch() -> None:
    start, levels = gaussian_start(3, SIGMA_MAX), noise_levels(6)
    for name in DETERMINISTIC:
        together = SAMPLERS[name](denoise, start, levels)
        torch.testing.assert_close(together[1:2], SAMPLERS[name](denoise, start[1:2], levels))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_need_noise_of_the_right_shape(name: str) -> None:
    start = gaussian_start(3, SIGMA_MAX)
    with pytest.raises(InputError, match="fresh"):
        SAMPLERS[name](denoise, start, noise_levels(4))
    with pytest.raises(InputError, match=r"expected noise \(3, 4\), got \(2, 4\)"):
        SAMPLERS[name](denoise, start, noise_levels(4), fresh=lambda step: white((2, 4)))


@pytest.mark.law(
    "images", "Samples of the exact consistency function have the covariance of the data in any number of steps"
)
@pytest.mark.parametrize("levels", [[20.0], [20.0, 1.0], [20.0, 2.0, 0.5, 0.2]])
def test_the_exact_consistency_function_draws_the_covariance(levels: list[float], figure: Figure) -> None:
    def function(y: Tensor, sigma: Tensor) -> Tensor:
        return exact(y, float(sigma[0]), SIGMA_MIN)

    found = AXES.T @ covariance("consistency", torch.tensor([*levels, 0.0]), function) @ AXES
    scale = (VARIANCES + SIGMA_MIN**2).sqrt()
    figure("error", (found / scale / scale[:, None] - torch.eye(4)).norm(), at_most=1e-9)


def test_a_consistency_function_is_evaluated_once_a_step() -> None:
    told: list[tuple[int, int]] = []
    start = gaussian_start(3, SIGMA_MAX)
    seen: list[float] = []

    def function(y: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma[0]))
        return y

    ladder = torch.tensor([SIGMA_MAX, 1.0, 0.0])
    drawn = CONSISTENCY(function, start, ladder, fresh=fresh_for(start), progress=lambda a, b: told.append((a, b)))
    torch.testing.assert_close(drawn, start + (1 - SIGMA_MIN**2) ** 0.5 * fresh_for(start)(1))
    assert seen == [SIGMA_MAX, 1.0]
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(InputError, match=r"levels above 0\.05"):
        CONSISTENCY(function, start, torch.tensor([SIGMA_MAX, 0.03, 0.0]), fresh=fresh_for(start))
    with pytest.raises(InputError, match="fresh"):
        CONSISTENCY(function, start, ladder)


@pytest.mark.parametrize("levels", [[1.0], [1.0, 1.0], [1.0, 2.0], [1.0, -0.1], [float("nan"), 0.0]])
def test_levels_have_to_descend(levels: list[float]) -> None:
    with pytest.raises(InputError, match="descending"):
        SAMPLERS["dpmpp_2m"](denoise, gaussian_start(3, 1.0), torch.tensor(levels))


def test_samplers_are_found_by_name() -> None:
    assert sampler("ddpm") is SAMPLERS["ddpm"]
    assert sampler("consistency") is CONSISTENCY
    assert isinstance(heun_churn(Churn(amount=9.0)), Sampler)
    with pytest.raises(InputError, match="dpmpp_2m"):
        sampler("plms")
