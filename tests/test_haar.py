"""The Haar transform is orthogonal: exact inverse, energy kept, white noise white."""

import pytest
import torch
from figures import Figure

from hybridtumor.models import haar


@pytest.mark.law("images", "The Haar transform has its exact inverse")
@pytest.mark.parametrize("levels", [1, 2])
def test_inverse_is_exact(levels: int, figure: Figure) -> None:
    image = torch.randn(2, 3, 8, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    back = haar.inverse(haar.transform(image, levels), levels)
    figure("largest difference", float((back - image).abs().max()), at_most=1e-14)


def test_two_levels_are_one_level_of_every_band() -> None:
    image = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    packet = haar.transform(image, 2).reshape(64, -1).square().sum(dim=1).sort().values
    twice = haar.transform(haar.transform(image)).reshape(64, -1).square().sum(dim=1).sort().values
    assert torch.allclose(packet, twice)


def test_energy_and_inner_products_are_kept() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(1, 2, 4, 4, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.allclose((haar.transform(a) * haar.transform(b)).sum(), (a * b).sum())


def test_white_noise_stays_white() -> None:
    noise = torch.randn(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(2))
    bands = haar.transform(noise).reshape(8, -1)
    covariance = bands @ bands.T / bands.shape[1]
    assert torch.allclose(covariance, torch.eye(8), atol=0.03)


def test_constant_image_lives_in_the_first_band() -> None:
    bands = haar.transform(torch.ones(1, 1, 4, 4, 4))
    assert torch.allclose(bands[:, 0], torch.full((1, 2, 2, 2), 8**0.5))
    assert bands[:, 1:].abs().max() < 1e-6
