r"""Noise that belongs to a place in the patient.

White noise is drawn tile by tile, each from a generator of its own (seed, sample, step, tile), so a voxel sees the same
noise whatever box is cut around it: arms and days that differ only in dose share it (common random numbers), and their
difference is the dose's. Samples come in antithetic pairs, ε and −ε, whose mean is less noisy than that of two
independent ones (Hammersley and Morton 1956); samples 2k and 2k + 1 are not independent of each other.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybridtumor.models.resolution import Box
from hybridtumor.models.spectrum import filtered

TILE = 16
"""Working voxels along the edge of a tile."""

ORIGIN = 1 << 20
"""Added to the numbers of tiles: seeds are not negative, boxes may reach beyond the grid."""


@dataclass(frozen=True)
class PlaceNoise:
    """The noise of one sample in one box of the working grid.

    Parameters
    ----------
    seed, sample
        Of the ensemble; number within it.
    channels
        Image channels.
    box
        On the working grid.
    """

    seed: int
    sample: int
    channels: int
    box: Box

    def white(self, step: int) -> Tensor:
        """Return white noise of unit variance for a step of a sampler, (channels, X, Y, Z)."""
        sign = 1.0 if self.sample % 2 == 0 else -1.0
        return sign * torch.from_numpy(self._tiles(step))

    def start(self, sigma_max: float) -> Tensor:
        """Return the start of a sampler, a Gaussian field of spectrum S + σ_max², (channels, X, Y, Z)."""
        return filtered(self.white(0), lambda s: (s + sigma_max**2).sqrt())

    def _tiles(self, step: int) -> np.ndarray:
        first = [a // TILE for a in self.box.start]
        last = [(a + n - 1) // TILE for a, n in zip(self.box.start, self.box.extent, strict=True)]
        counts = [b - a + 1 for a, b in zip(first, last, strict=True)]
        field = np.empty((self.channels, *(n * TILE for n in counts)), np.float32)
        for i, j, k in np.ndindex(*counts):
            tile = [ORIGIN + a + n for a, n in zip(first, (i, j, k), strict=True)]
            rng = np.random.default_rng([self.seed, self.sample // 2, step, *tile])
            values = rng.standard_normal((self.channels, TILE, TILE, TILE), np.float32)
            x, y, z = (slice(n * TILE, (n + 1) * TILE) for n in (i, j, k))
            field[:, x, y, z] = values
        x, y, z = (
            slice(a - f * TILE, a - f * TILE + n)
            for a, f, n in zip(self.box.start, first, self.box.extent, strict=True)
        )
        return np.ascontiguousarray(field[:, x, y, z])
