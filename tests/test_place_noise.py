"""Noise belongs to a place: the same voxel sees the same noise in every box, white, and paired with its negative."""

import numpy as np
import pytest
import torch

from hybridtumor.models.resolution import Box
from hybridtumor.solvers.place_noise import PlaceNoise


@pytest.mark.law("images", "A voxel sees the same noise whatever box is cut around it")
def test_noise_does_not_depend_on_the_box() -> None:
    large = PlaceNoise(3, 0, 2, Box((-5, 10, 0), (48, 32, 40))).white(1)
    small = PlaceNoise(3, 0, 2, Box((7, 20, 17), (16, 16, 20))).white(1)
    assert torch.equal(large[:, 12:28, 10:26, 17:37], small)


def test_noise_is_white_and_differs_between_seeds_samples_steps_and_channels() -> None:
    box = Box((0, 0, 0), (40, 40, 40))
    fields = [PlaceNoise(seed, sample, 2, box).white(step) for seed, sample, step in
              ((0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 1))]  # fmt: skip
    rows = torch.cat([f.reshape(2, -1) for f in fields])
    covariance = rows @ rows.T / rows.shape[1]
    assert torch.allclose(covariance, torch.eye(len(rows)), atol=0.02)
    neighbours = fields[0][:, 1:] * fields[0][:, :-1]
    assert abs(float(neighbours.mean())) < 0.01


def test_samples_come_in_antithetic_pairs() -> None:
    box = Box((0, 0, 0), (16, 16, 16))
    a, b, c = (PlaceNoise(0, k, 1, box).start(5.0) for k in range(3))
    assert torch.equal(a, -b)
    assert not torch.equal(a, c)


@pytest.mark.law("images", "A voxel sees the same heterogeneity at the start whatever box is cut around it")
def test_regions_do_not_depend_on_the_box() -> None:
    for seed in range(4):
        large = PlaceNoise(seed, 0, 4, Box((-5, 10, 0), (48, 32, 40))).start(0.5)
        small = PlaceNoise(seed, 0, 4, Box((7, 20, 17), (16, 16, 20))).start(0.5)
        assert torch.allclose(large[:, 12:28, 10:26, 17:37], small, atol=2e-5)


def test_a_start_has_unit_variance_beside_its_noise_and_borders() -> None:
    box = Box((0, 0, 0), (16, 16, 16))
    drawn = torch.stack([PlaceNoise(seed, 0, 7, box).start(0.0)[:4] for seed in range(150)])
    assert float(drawn.square().mean()) == pytest.approx(1, abs=0.25)  # standard error 0.09
    assert abs(float(drawn.mean())) < 0.2
    noisy = PlaceNoise(0, 0, 7, box)
    assert torch.allclose(noisy.start(0.5) - noisy.start(0.0), 0.5 * noisy.white(0), atol=1e-6)
    steps = drawn.diff(dim=2).numpy()
    kurtosis = (steps**4).mean() / (steps**2).mean() ** 2
    assert kurtosis > 6  # borders: of a Gaussian field it is 3
    assert np.isfinite(kurtosis)
