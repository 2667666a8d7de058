"""The sampler: mean and variance of a Gaussian, common random numbers, noise levels."""

import pytest
import torch
from figures import Figure
from torch import Tensor

from hybridtumor.models.resolution import Box
from hybridtumor.models.spectrum import filtered, wiener
from hybridtumor.solvers.place_noise import PlaceNoise
from hybridtumor.solvers.samplers import SAMPLERS
from hybridtumor.solvers.sampling import SIGMA_MAX, noise_levels

heun = SAMPLERS["heun"]


@pytest.mark.law("images", "The sampler with the exact denoiser of a Gaussian draws its mean 0.7 and deviation 0.5")
@pytest.mark.parametrize("steps", [20, 40])
def test_gaussian_denoiser_gives_its_mean_and_variance(steps: int, figure: Figure) -> None:
    mean, spread = 0.7, 0.5

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(-1, *[1] * (y.ndim - 1)) ** 2
        return (spread**2 * y + level * mean) / (spread**2 + level)

    noise = torch.randn((4, 50_000), generator=torch.Generator().manual_seed(0))
    levels = noise_levels(steps, sigma_max=20.0, sigma_min=0.005)
    drawn = heun(denoise, 20.0 * noise, levels)
    figure("mean", float(drawn.mean()), at_least=mean - 0.05, at_most=mean + 0.05)
    figure("deviation", float(drawn.std()), at_least=spread - 0.03, at_most=spread + 0.03)


def test_wieners_filter_draws_fields_of_the_spectrum() -> None:
    levels = noise_levels(12)
    box = Box((0, 0, 0), (32, 32, 32))
    white = torch.stack([PlaceNoise(0, k, 1, box).white(0) for k in range(0, 8, 2)])
    start = filtered(white, lambda s: (s + SIGMA_MAX**2).sqrt())
    drawn = heun(wiener, start, levels)
    expected = filtered(start, lambda s: (s / (s + SIGMA_MAX**2)).sqrt())
    assert float((drawn - expected).std()) < 0.1 * float(expected.std())
    assert 0.7 < float(drawn.std()) < 1.3


@pytest.mark.law("images", "The sampler is of second order in the noise levels")
def test_heun_is_of_second_order(figure: Figure) -> None:
    levels = {steps: noise_levels(steps, 2.5, 0.2)[:-1] for steps in (20, 40)}

    def error(steps: int) -> float:
        start = (levels[steps][:1, None] ** 2 + 1).sqrt()
        drawn = heun(lambda y, sigma: y / (sigma.reshape(-1, 1) ** 2 + 1), start, levels[steps])
        return abs(float(drawn) - float((1 + levels[steps][-1] ** 2).sqrt()))

    figure("order", float(torch.log2(torch.tensor(error(20) / error(40)))), at_least=1.7, at_most=2.4)


def test_noise_levels_fall_to_zero() -> None:
    levels = noise_levels(12)
    assert levels[0] == pytest.approx(SIGMA_MAX)
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()
    assert len(levels) == 13
