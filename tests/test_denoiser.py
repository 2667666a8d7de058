"""The networks: EDM preconditioning, nothing outside the support, an untrained network adds nothing."""

import pytest
import torch
from figures import Figure
from torch import Tensor

from hybridtumor.models import haar
from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS, VECTOR_SIZE
from hybridtumor.models.denoiser import GAINS, LOG_SCALE_RANGE, Denoiser, MeanAndScale
from hybridtumor.models.spectrum import band_variances, filtered, wiener, wiener_error
from hybridtumor.models.unet import UNet

TINY = (8, 8, 8)


def inputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, IMAGE_CHANNELS, 16, 32, 16, generator=generator)
    fields = torch.rand(2, len(FIELDS), 16, 32, 16, generator=generator)
    support = FIELDS.index("support")
    fields[:, support] = torch.where(fields[:, support] > 0.5, fields[:, support], 0.0)
    return {"image": image, "fields": fields, "vector": torch.randn(2, VECTOR_SIZE, generator=generator)}


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """The network with no weight at zero, so that every path contributes."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return network


@pytest.mark.law("images", "The untrained denoiser is Wiener's filter")
@pytest.mark.parametrize("sigma", [0.05, 0.5, 2.5])
def test_untrained_denoiser_is_wieners_filter(sigma: float, figure: Figure) -> None:
    x = inputs()
    out = Denoiser(TINY)(x["image"], torch.full((2,), sigma), x["image"], x["image"], x["fields"], x["vector"])
    support = x["fields"][:, FIELDS.index("support"), None] > 0
    expected = torch.where(support, wiener(x["image"], torch.full((2,), sigma)), 0.0)
    figure("largest difference", float((out - expected).detach().abs().max()), at_most=1e-5)


def test_spectrum_has_unit_variance_and_wiener_its_stated_error() -> None:
    generator = torch.Generator().manual_seed(0)
    white, noise = (torch.randn((8, 1, 48, 48, 48), generator=generator) for _ in range(2))
    r = filtered(white, torch.sqrt)
    assert abs(float(r.var()) - 1) < 0.15  # few long waves fit into the box
    for sigma in (0.1, 1.0, 3.0):
        level = torch.full((8,), sigma)
        error = wiener(r + sigma * noise, level) - r
        assert abs(float(error.std() / wiener_error(level)[0]) - 1) < 0.03


def test_wieners_filter_is_the_best_linear_one() -> None:
    generator = torch.Generator().manual_seed(0)
    white, noise = (torch.randn((4, 1, 32, 32, 32), generator=generator) for _ in range(2))
    r = filtered(white, torch.sqrt)
    level = torch.ones(4)
    best = float((wiener(r + noise, level) - r).std())
    assert best < float(((r + noise) / 2 - r).std())
    assert best < float((wiener(r + noise, 1.5 * level) - r).std())
    assert best < float((wiener(r + noise, 0.7 * level) - r).std())


@pytest.mark.law("images", "The denoiser is zero outside its support")
def test_denoiser_is_zero_outside_the_support() -> None:
    x = inputs()
    network = shaken(Denoiser(TINY))
    out = network(x["image"], torch.ones(2), x["image"], x["image"], x["fields"], x["vector"])
    outside = (x["fields"][:, FIELDS.index("support"), None] == 0).expand_as(out)
    assert outside.any()
    assert (out[outside] == 0).all()
    assert (out[~outside] != 0).all()


def test_untrained_regression_adds_nothing_and_its_scale_is_bounded() -> None:
    x = inputs()
    mean, _ = MeanAndScale(TINY)(x["image"], x["image"], x["fields"], x["vector"])
    assert (mean == 0).all()
    _, scale = shaken(MeanAndScale(TINY))(100 * x["image"], x["image"], x["fields"], x["vector"])
    assert scale.log().min() >= LOG_SCALE_RANGE[0]
    assert scale.log().max() <= LOG_SCALE_RANGE[1]


def test_conditioning_vector_reaches_the_output() -> None:
    network = shaken(UNet(5, 4, 3, TINY))
    x = torch.randn(1, 5, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(network(x, torch.zeros(1, 3)), network(x, torch.ones(1, 3)))


@pytest.mark.parametrize("levels", [1, 2])
def test_band_variances_are_those_of_fields(levels: int) -> None:
    white = torch.randn((6, 1, 64, 64, 64), generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5])
    r = filtered(white, torch.sqrt)
    noise = sigma * torch.randn(r.shape, generator=torch.Generator().manual_seed(1))
    seen = wiener(r + noise, sigma.expand(6))
    expected = band_variances(sigma, levels)
    for name, field in (("data", r), ("estimate", seen), ("error", seen - r)):
        measured = haar.transform(field, levels).square().mean(dim=(0, 2, 3, 4))
        assert torch.allclose(measured[1:], expected[name][0, 1:], rtol=0.1)  # the mean needs more waves than fit here
        assert abs(float(measured[0] / expected[name][0, 0]) - 1) < 0.25


def test_a_gain_scales_what_the_linear_filter_is_unsure_of() -> None:
    """A gain of −1 in all groups removes Wiener's estimate under much noise and leaves it alone under little."""
    x = inputs()
    network = Denoiser(TINY)
    with torch.no_grad():
        network.net.leave.bias[: GAINS * IMAGE_CHANNELS] = -1
    for sigma, least, most in ((50.0, 0.0, 0.2), (0.01, 0.9, 1.0)):
        level = torch.full((2,), sigma)
        out = network(x["image"], level, x["image"], x["image"], x["fields"], x["vector"]).detach()
        support = x["fields"][:, FIELDS.index("support"), None] > 0
        linear = torch.where(support, wiener(x["image"], level), 0.0)
        assert least <= float(out.norm() / linear.norm()) <= most
