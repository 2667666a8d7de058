"""Noise belongs to a place: the same voxel sees the same noise in every box, white, and paired with its negative."""

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
