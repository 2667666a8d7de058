"""MONAI's network in the place of ours: the same shapes, the same start, every parameter in use."""

import sys

import pytest
import torch

from hybridtumor.errors import ResourceError
from hybridtumor.models.monai_backbone import MonaiUNet
from hybridtumor.models.unet import UNet

SIZES = {"c_in": 5, "c_out": 3, "vector": 4, "widths": (8, 16)}


@pytest.fixture
def network() -> MonaiUNet:
    """With the layers that start at zero filled, so that everything matters."""
    pytest.importorskip("monai")
    pytest.importorskip("einops")
    torch.manual_seed(0)
    made = MonaiUNet(**SIZES)
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return made


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn((2, 5, 8, 12, 4), generator=generator), torch.randn((2, 4), generator=generator)


def test_an_untrained_network_returns_zero_as_ours() -> None:
    pytest.importorskip("monai")
    pytest.importorskip("einops")
    for kind in (UNet, MonaiUNet):
        out = kind(**SIZES)(*inputs())
        assert out.shape == (2, 3, 8, 12, 4)
        assert not out.any()


def test_gradient_reaches_every_parameter(network: MonaiUNet) -> None:
    network(*inputs()).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_the_vector_conditions_each_example_for_itself(network: MonaiUNet) -> None:
    x, vector = inputs()
    with torch.no_grad():
        before, after = network(x, vector), network(x, vector * torch.tensor([[1.0], [-1.0]]))
    torch.testing.assert_close(before[0], after[0])
    assert float((before[1] - after[1]).abs().max()) > 1e-3


def test_without_monai_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ResourceError, match="Install them"):
        MonaiUNet(**SIZES)
