"""Normalised intensity: scans of different scanners on one scale.

    x = (I − median) / (q98 − q2)        over healthy brain of the same scan

so 0 is the typical healthy voxel and 1 the healthy range. The map is affine, hence invertible.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray

MIN_HEALTHY_VOXELS = 1000


@dataclass(frozen=True, eq=False)
class IntensityScale:
    """Median and healthy range of each of m scans, scanner units, (m,) each."""

    median: NDArray[np.float32]
    width: NDArray[np.float32]

    @classmethod
    def of(cls, scans: NDArray[np.floating[Any]], healthy: BoolArray) -> "IntensityScale":
        """Measure the scale of scans (m, X, Y, Z) over `healthy` (X, Y, Z).

        Raises
        ------
        InputError
            Too few healthy voxels, or a scan that is constant there.
        """
        if np.count_nonzero(healthy) < MIN_HEALTHY_VOXELS:
            raise InputError(
                f"scans: expected at least {MIN_HEALTHY_VOXELS} healthy brain voxels, got {np.count_nonzero(healthy)}."
                " Check the segmentation and the tissue maps."
            )
        low, middle, high = np.percentile(scans[:, healthy], [2, 50, 98], axis=1)
        if not (high > low).all():
            raise InputError("scans: expected contrast in the healthy brain, got a constant image.")
        return cls(middle.astype(np.float32), (high - low).astype(np.float32))

    def normalise(self, scans: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Map scanner units (m, …) to normalised intensity."""
        shape = (-1, *[1] * (scans.ndim - 1))
        return np.asarray((scans - self.median.reshape(shape)) / self.width.reshape(shape), np.float32)

    def restore(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Map normalised intensity (m, …) back to scanner units."""
        shape = (-1, *[1] * (values.ndim - 1))
        return np.asarray(values * self.width.reshape(shape) + self.median.reshape(shape), np.float32)
