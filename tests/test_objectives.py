"""Training objectives: their weights and distributions against quadrature of the definitions."""

import math
from collections.abc import Callable

import pytest
import torch
from figures import Figure
from torch import Tensor

from hybridtumor.errors import InputError
from hybridtumor.models.spectrum import filtered, wiener, wiener_error
from hybridtumor.solvers.objectives import BETA, LEVELS, OBJECTIVES, OFFSET, ddpm, edm, flow, objective

VARIANCE = 0.6


def denoise(y: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser that is wrong for data of VARIANCE: it takes their variance for 1."""
    return y / (1 + sigma**2)


def expectation(error: Callable[[Tensor, Tensor], Tensor], t: Tensor) -> Tensor:
    """Mean square over r ~ N(0, VARIANCE) and ε ~ N(0, 1) of an error that is linear in both."""
    one, none = torch.ones_like(t), torch.zeros_like(t)
    return VARIANCE * error(one, none) ** 2 + error(none, one) ** 2


def mean_loss(name: str, draws: int = 20_000) -> float:
    chosen = OBJECTIVES[name]
    sigma = chosen.draw_sigma(torch.Generator().manual_seed(0), draws).double()
    one, none = torch.ones_like(sigma), torch.zeros_like(sigma)
    square = VARIANCE * (denoise(one, sigma) - one) ** 2 + denoise(sigma * one, sigma) ** 2 + none
    return float((chosen.weight(sigma) * square).mean())


def kept(schedule: str, t: Tensor) -> Tensor:
    """ᾱ(t), as the papers have it."""
    if schedule == "cosine":
        at = [torch.cos((s + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2 for s in (t, torch.zeros_like(t))]
        return at[0] / at[1]
    return torch.exp(-BETA[0] * t - (BETA[1] - BETA[0]) * t**2 / 2)


@pytest.mark.law("images", "The DDPM objective is the loss of the noise")
@pytest.mark.law(
    "images", "The weighted loss of the denoiser is the loss of the noise in the variance-preserving process"
)
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_ddpm_weighs_as_the_loss_of_the_noise(schedule: str, figure: Figure) -> None:
    t = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    share = kept(schedule, t)
    sigma = ((1 - share) / share).sqrt()

    def error(r: Tensor, noise: Tensor) -> Tensor:
        x = share.sqrt() * r + (1 - share).sqrt() * noise
        seen = (x - share.sqrt() * denoise(x / share.sqrt(), sigma)) / (1 - share).sqrt()
        return seen - noise

    inside = (sigma >= LEVELS[0]) & (sigma <= LEVELS[1])
    defined = float(expectation(error, t)[inside].mean())
    figure("loss over its definition", mean_loss(f"ddpm_{schedule}") / defined, at_least=0.999, at_most=1.001)


@pytest.mark.law("images", "The rectified-flow objective is the loss of the velocity")
@pytest.mark.law("images", "The weighted loss of the denoiser is the loss of the velocity in rectified flow")
def test_flow_weighs_as_the_loss_of_the_velocity(figure: Figure) -> None:
    t = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    density = torch.exp(-(torch.logit(t) ** 2) / 2) / math.sqrt(2 * math.pi) / (t * (1 - t))

    def error(r: Tensor, noise: Tensor) -> Tensor:
        x = (1 - t) * r + t * noise
        return (x - denoise(x / (1 - t), t / (1 - t))) / t - (noise - r)

    assert float(density.mean()) == pytest.approx(1, abs=1e-6)
    defined = float((density * expectation(error, t)).mean())
    figure("loss over its definition", mean_loss("flow") / defined, at_least=0.999, at_most=1.001)


@pytest.mark.law("images", "Wiener's filter, where a network that adds nothing starts, has the loss 1 at every level")
def test_edm_weighs_wieners_filter_equally(figure: Figure) -> None:
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn((3, 1, 64, 64, 64), generator=generator)
    r, sigma = filtered(fields, torch.sqrt), torch.tensor([0.05, 0.5, 3.0])
    y = r + sigma[:, None, None, None, None] * torch.randn(r.shape, generator=generator)
    loss = edm().weight(sigma) * ((wiener(y, sigma) - r) ** 2).mean(dim=(1, 2, 3, 4))
    figure("loss", loss, at_least=0.9, at_most=1.1)


@pytest.mark.parametrize("make", [edm, flow])
def test_lognormal_levels_have_mean_and_deviation(make: Callable[[float, float], object]) -> None:
    logs = make(-0.4, 1.2).draw_sigma(torch.Generator().manual_seed(1), 10_000).log()  # type: ignore[attr-defined]
    assert float(logs.mean()) == pytest.approx(-0.4, abs=1e-3)
    assert float(logs.std()) == pytest.approx(1.2, rel=2e-3)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_time_is_uniform_within_the_levels(schedule: str) -> None:
    sigma = OBJECTIVES[f"ddpm_{schedule}"].draw_sigma(torch.Generator().manual_seed(1), 999).sort().values.double()
    ends = OBJECTIVES[f"ddpm_{schedule}"].quantile(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx(LEVELS)
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:-1]
    levels = (1 / kept(schedule, t) - 1).clamp_min(0).sqrt()
    place = t[torch.searchsorted(levels, sigma).clamp_max(len(t) - 1)]
    steps = place.diff() * (len(sigma) - 1) / (place[-1] - place[0])
    assert float((steps - 1).abs().max()) < 0.1


def test_linear_schedule_is_the_limit_of_a_thousand_steps() -> None:
    betas = torch.linspace(BETA[0] / 1000, BETA[1] / 1000, 1000, dtype=torch.float64)
    discrete = torch.cumprod(1 - betas, 0)[[99, 499]]
    torch.testing.assert_close(
        kept("linear", torch.tensor([0.1, 0.5], dtype=torch.float64)), discrete, rtol=0.02, atol=0
    )


def test_levels_of_a_batch_are_stratified() -> None:
    chosen = flow()
    for seed in range(5):
        sigma = chosen.draw_sigma(torch.Generator().manual_seed(seed), 16).double()
        place = torch.special.ndtr(sigma.log()) * 16
        assert sorted(place.floor().int().tolist()) == list(range(16))
    first = torch.stack([chosen.draw_sigma(torch.Generator().manual_seed(seed), 2)[0] for seed in range(400)])
    assert float(first.log().std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_levels_belong_to_the_seed_and_weights_are_bounded(name: str) -> None:
    chosen = objective(name)
    drawn = [chosen.draw_sigma(torch.Generator().manual_seed(4), 5) for _ in range(2)]
    assert torch.equal(*drawn)
    assert drawn[0].shape == (5,)
    assert drawn[0].dtype == torch.float32
    sigma = torch.tensor([1e-4, 1e-2, 1.0, 80.0])
    loss = chosen.weight(sigma) * wiener_error(sigma) ** 2
    assert (loss > 0).all()
    assert float(loss[:2].max()) < 1.1


def test_unknown_objectives_are_refused() -> None:
    with pytest.raises(InputError, match="ddpm_cosine"):
        objective("vdm")
    with pytest.raises(InputError, match="schedule"):
        ddpm("sigmoid")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="least"):
        ddpm("cosine", (2.0, 1.0))
