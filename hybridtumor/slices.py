"""Plane sections of images as a radiologist hangs them: the patient's right is on the left of the picture.

Directions come from the affine, never from the index. Axial sections show anterior at the top, coronal and sagittal
ones superior; sagittal ones look to the left of the picture.
"""

from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from hybridtumor.grid import BoolArray, Grid

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

AXES: dict[Plane, tuple[int, int, int]] = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
"""World axis across the section, down the picture, along the picture."""

LETTERS: dict[Plane, tuple[str, str]] = {"axial": ("R", "L"), "coronal": ("R", "L"), "sagittal": ("A", "P")}
"""What is at the left and at the right edge of the picture."""


@dataclass(frozen=True, eq=False)
class Section:
    """One plane through an image.

    Parameters
    ----------
    plane
        Which of the three.
    grid
        The grid it cuts.
    through
        World point, mm RAS+, that lies in the plane.
    window
        ((top, bottom), (left, right)) of the part that is shown, in pixels of the oriented section; None: all of it.
    """

    plane: Plane
    grid: Grid
    through: tuple[float, float, float]
    window: tuple[tuple[int, int], tuple[int, int]] | None = None

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Cut an array of shape ``grid.shape``; returns (rows, columns), row 0 at the top."""
        across, down, along = (self._array_axis(axis) for axis in AXES[self.plane])
        index = int(np.clip(np.rint(self.grid.index(self.through)[across[0]]), 0, self.grid.shape[across[0]] - 1))
        section: NDArray[Any] = values[(slice(None),) * across[0] + (index,)]
        if down[0] > along[0]:
            section = section.T
        section = section[:: -down[1], :: -along[1]]  # top = +z or +y, left = +x or +y comes last on a rising axis
        if self.window is not None:
            (top, bottom), (left, right) = self.window
            section = section[top:bottom, left:right]
        return section

    @property
    def pixel(self) -> tuple[float, float]:
        """Height and width of a pixel, mm."""
        _, down, along = (self._array_axis(axis)[0] for axis in AXES[self.plane])
        size = self.grid.voxel_size
        return float(size[down]), float(size[along])

    @property
    def aspect(self) -> float:
        """Height of a pixel divided by its width."""
        return self.pixel[0] / self.pixel[1]

    def cropped_to(self, mask: BoolArray, margin_mm: float = 5.0) -> "Section":
        """Return the same section, shown only as far as `mask` reaches in it."""
        inside = self.of(mask)
        if not inside.any():
            return self
        bounds = []
        for axis, size in ((1, self.pixel[0]), (0, self.pixel[1])):
            where = np.flatnonzero(inside.any(axis=axis))
            margin = int(np.ceil(margin_mm / size))
            bounds.append((max(0, int(where[0]) - margin), int(where[-1]) + 1 + margin))
        return Section(self.plane, self.grid, self.through, (bounds[0], bounds[1]))

    def _array_axis(self, world_axis: int) -> tuple[int, int]:
        """Return the array axis closest to a world axis, and whether it rises (1) or falls (-1) along it."""
        orientation = nib.io_orientation(self.grid.affine)
        axis = int(np.flatnonzero(orientation[:, 0] == world_axis)[0])
        return axis, int(orientation[axis, 1])


def centre_of_mass(density: NDArray[np.floating[Any]], grid: Grid, above: float) -> tuple[float, float, float]:
    """Return the centre of mass, world mm RAS+, of the tumour above a density; of all of it when none is that dense."""
    weight = np.where(density > above, density, 0)
    if not weight.any():
        weight = density if density.any() else np.ones_like(density)
    total = float(weight.sum(dtype=np.float64))
    axes = ((1, 2), (0, 2), (0, 1))
    index = [float(weight.sum(axis=axes[i], dtype=np.float64) @ np.arange(grid.shape[i])) / total for i in range(3)]
    x, y, z = grid.world(index)
    return float(x), float(y), float(z)
