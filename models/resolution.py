"""Between the patient's grid and the working grid of the networks: block means down, trilinear interpolation up.

Working voxels are blocks of `factor` voxels; their values sit at block centres. A box names a part of the working
grid by its first voxel and its extent; it may reach beyond the image, where everything is 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hybridtumor.grid import BoolArray, Grid

WORKING_SPACING = 1.0
"""mm. Voxel size the networks were trained at."""


def working_factor(grid: Grid) -> int:
    """Return how many voxels make the edge of a working voxel."""
    return max(1, round(WORKING_SPACING / float(np.cbrt(grid.voxel_volume))))


def block_mean(values: NDArray[np.floating[Any]], factor: ArrayLike) -> NDArray[np.float32]:
    """Return means over blocks of the last three axes, padded with zeros at the far end.

    `factor` is one number or one per axis.
    """
    a, b, c = (int(f) for f in np.broadcast_to(factor, 3))
    lead = values.shape[:-3]
    pad = [(0, 0)] * len(lead) + [(0, -n % f) for n, f in zip(values.shape[-3:], (a, b, c), strict=True)]
    padded = np.pad(values, pad) if any(p for _, p in pad) else values
    x, y, z = padded.shape[-3:]
    return np.asarray(padded.reshape(*lead, x // a, a, y // b, b, z // c, c).mean(axis=(-5, -3, -1)), np.float32)


def interpolate(values: NDArray[np.floating[Any]], factor: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Interpolate block values (…, X, Y, Z) at the voxels of `shape`, trilinearly.

    `shape` has three extents; beyond the outermost block centres the nearest block counts.
    """
    factors = [int(f) for f in np.broadcast_to(factor, 3)]
    fine = [n * f for n, f in zip(values.shape[-3:], factors, strict=True)]
    blocks = torch.from_numpy(np.ascontiguousarray(values, np.float32)).reshape(1, -1, *values.shape[-3:])
    up = torch.nn.functional.interpolate(blocks, size=fine, mode="trilinear", align_corners=False)[0].numpy()
    x, y, z = shape
    return np.ascontiguousarray(up[:, :x, :y, :z]).reshape(*values.shape[:-3], *shape)


@dataclass(frozen=True)
class Box:
    """A box of voxels: first voxel and extent along the three axes."""

    start: tuple[int, int, int]
    extent: tuple[int, int, int]

    @classmethod
    def around(cls, mask: BoolArray, multiple: int) -> "Box":
        """Return the smallest box that holds `mask` and whose extents are multiples of `multiple`, centred on it."""
        found = ndimage.find_objects(mask.astype(np.uint8))[0]
        extent = [-(-(s.stop - s.start) // multiple) * multiple for s in found]
        start = [(s.start + s.stop - e) // 2 for s, e in zip(found, extent, strict=True)]
        return cls((start[0], start[1], start[2]), (extent[0], extent[1], extent[2]))

    def scaled(self, factor: int) -> "Box":
        """Return the box that covers the same place on a grid finer by `factor`."""
        (a, b, c), (x, y, z) = self.start, self.extent
        return Box((a * factor, b * factor, c * factor), (x * factor, y * factor, z * factor))

    def take(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the part of `values` (…, X, Y, Z) in the box, 0 where the box lies outside."""
        inside, place = self._overlap(values.shape[-3:])
        part = np.zeros((*values.shape[:-3], *self.extent), values.dtype)
        part[..., place[0], place[1], place[2]] = values[..., inside[0], inside[1], inside[2]]
        return part

    def put(self, part: NDArray[Any], values: NDArray[Any]) -> None:
        """Write `part` (…, extent) into `values` (…, X, Y, Z); what lies outside is dropped."""
        inside, place = self._overlap(values.shape[-3:])
        values[..., inside[0], inside[1], inside[2]] = part[..., place[0], place[1], place[2]]

    def _overlap(self, shape: tuple[int, ...]) -> tuple[list[slice], list[slice]]:
        """Return the slices of the image and of the box where they overlap."""
        inside, place = [], []
        for start, extent, n in zip(self.start, self.extent, shape, strict=True):
            low, high = max(0, start), max(0, min(n, start + extent))
            inside.append(slice(low, max(low, high)))
            place.append(slice(low - start, max(low, high) - start))
        return inside, place
