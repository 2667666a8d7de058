"""TissueMap: which share of every voxel is white matter, grey matter and cerebrospinal fluid."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid


@dataclass(frozen=True, eq=False)
class TissueMap:
    """Volume fractions of white matter, grey matter and CSF on a grid.

    Each array has shape ``grid.shape`` and values in [0, 1]; their sum is 1 inside the head and 0 outside.
    """

    white: NDArray[np.float32]
    grey: NDArray[np.float32]
    csf: NDArray[np.float32]
    grid: Grid

    def __post_init__(self) -> None:
        total = np.zeros(self.grid.shape, np.float32)
        for name in ("white", "grey", "csf"):
            values = np.asarray(getattr(self, name), np.float32)
            if values.shape != self.grid.shape:
                raise InputError(f"tissue {name}: expected shape {self.grid.shape}, got {values.shape}.")
            if not np.isfinite(values).all() or values.min() < -1e-4 or values.max() > 1 + 1e-4:
                raise InputError(
                    f"tissue {name}: expected volume fractions between 0 and 1,"
                    f" got {values.min():.3g} to {values.max():.3g}."
                )
            object.__setattr__(self, name, values)
            total += values
        if total.max() > 1.01:
            raise InputError(f"tissue: expected fractions that add up to at most 1, got {total.max():.3g}.")

    @cached_property
    def parenchyma(self) -> BoolArray:
        """Where tumour cells can live: the largest connected piece with more white and grey matter than CSF."""
        labels, count = ndimage.label(self.white + self.grey > 0.5)
        if count == 0:
            raise InputError("tissue: expected a brain, found no voxel with more white and grey matter than CSF.")
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        result: BoolArray = labels == sizes.argmax()
        result.setflags(write=False)
        return result

    @property
    def head(self) -> BoolArray:
        """Where there is any of the three tissues, shape ``grid.shape``."""
        return np.asarray(self.white + self.grey + self.csf > 0.5)
