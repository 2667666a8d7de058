r"""Noise that belongs to a place in the patient.

White noise is drawn tile by tile, each from a generator of its own (seed, sample, step, tile), so a voxel sees the same
noise whatever box is cut around it: arms and days that differ only in dose share it (common random numbers), and their
difference is the dose's. Samples come in antithetic pairs, ε and −ε, whose mean is less noisy than that of two
independent ones (Hammersley and Morton 1956); samples 2k and 2k + 1 are not independent of each other.

The reverse process starts at a moderate level σ₀ from

    y = r₀ + σ₀ ε

r₀ a draw of tumour heterogeneity (`hybridtumor.models.heterogeneity`; Gaussian of spectrum S for the labels) of unit
variance, as SDEdit starts from a drawing (Meng et al., ICLR 2022): what is larger than the noise stays, regions with
borders, and the network draws the rest. Started from noise alone it has to invent the regions, which seven tumours do
not teach, and draws clouds.
"""

from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from hybridtumor.models.heterogeneity import remainder
from hybridtumor.models.resolution import WORKING_SPACING, Box, interpolate
from hybridtumor.models.spectrum import filtered
from hybridtumor.scan import MODALITIES

TILE = 16
"""Working voxels along the edge of a tile."""

GAUSSIAN, REGIONS = 1 << 16, 1 << 17
"""Numbers of the noise of the start, beyond those of any sampler's steps."""

TRUNCATE = 3.0
"""Standard deviations at which smoothing stops: a voxel's noise depends on no place farther away."""

EDGE = 4
"""Voxels around a box that the blur of borders reaches from inside it."""

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
        return self._sign * torch.from_numpy(self._tiles(step))

    def start(self, level: float) -> Tensor:
        """Return the start of a sampler at the noise level σ₀, (channels, X, Y, Z)."""
        drawn = filtered(self.white(GAUSSIAN), torch.sqrt)
        images = min(self.channels, len(MODALITIES))
        drawn[:images] = torch.from_numpy(self._sign * self._regions())[:images]
        return drawn + level * self.white(0)

    @property
    def _sign(self) -> float:
        return 1.0 if self.sample % 2 == 0 else -1.0

    def _regions(self) -> NDArray[np.float32]:
        """Return heterogeneity that belongs to the place, (4, X, Y, Z)."""
        steps = count(REGIONS)
        rng = np.random.default_rng([self.seed, self.sample // 2, *b"regions"])
        (a, b, c), (x, y, z), e = self.box.start, self.box.extent, EDGE
        wide = replace(self, box=Box((a - e, b - e, c - e), (x + 2 * e, y + 2 * e, z + 2 * e)))
        found = remainder(rng, lambda width: wide._smooth(next(steps), width), WORKING_SPACING)
        return np.ascontiguousarray(found[:, e : e + x, e : e + y, e : e + z])

    def _smooth(self, step: int, width: float) -> NDArray[np.float32]:
        """Return standard normal noise smoothed over `width` voxels, (X, Y, Z), made on nodes that belong to places."""
        factor = max(1, int(width / 2))
        pad = int(np.ceil(TRUNCATE * width / factor)) + 2
        first = [a // factor - pad for a in self.box.start]
        last = [(a + n - 1) // factor + pad for a, n in zip(self.box.start, self.box.extent, strict=True)]
        (a, b, c), (x, y, z) = first, [j - i + 1 for i, j in zip(first, last, strict=True)]
        nodes = replace(self, channels=1, box=Box((a, b, c), (x, y, z)))._tiles(step)[0]
        deviation = width / factor
        smooth = ndimage.gaussian_filter(nodes, deviation, truncate=TRUNCATE)
        smooth *= (2 * np.pi**0.5 * deviation) ** 1.5
        fine = interpolate(smooth, factor, tuple(n * factor for n in smooth.shape))
        seen = tuple(
            slice(s - f * factor, s - f * factor + n)
            for s, f, n in zip(self.box.start, first, self.box.extent, strict=True)
        )
        return np.ascontiguousarray(fine[seen])

    def _tiles(self, step: int) -> NDArray[np.float32]:
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
