"""Grid: where the voxels of an image lie in the world.

World coordinates are millimetres, RAS+ (x to the right, y to the front, z up), the convention of NIfTI. Voxel (i, j,
k) has its centre at ``affine @ (i, j, k, 1)``. Arrays keep the voxel order of their file; whoever needs a direction
asks the affine.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hybridtumor.errors import InputError

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxels.

    Parameters
    ----------
    shape
        Number of voxels along the three axes.
    affine
        (4, 4) matrix, voxel index to world RAS+ mm.

    Raises
    ------
    InputError
        A shape that is not three positive integers, an affine that is not finite or is singular.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"grid: expected three positive extents, got shape {self.shape}.")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError("grid: expected a finite 4×4 affine. Repair the image header (sform or qform).")
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        if sizes.min() <= 1e-6 or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * np.prod(sizes):
            raise InputError(
                "grid: expected an invertible affine, got a singular one. Repair the image header (sform or qform)."
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel along the array axes, (3,), mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel, mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def world(self, index: ArrayLike) -> NDArray[np.float64]:
        """Map voxel indices (..., 3) to world coordinates (..., 3), mm RAS+."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def index(self, world: ArrayLike) -> NDArray[np.float64]:
        """Map world coordinates (..., 3), mm RAS+, to fractional voxel indices (..., 3)."""
        return (np.asarray(world, dtype=np.float64) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def share_inside(self, points: ArrayLike) -> float:
        """Return which share of world points (n, 3), mm RAS+, lies in the field of view; 1 for no points."""
        index = self.index(points)
        inside = ((index >= -0.5) & (index <= np.array(self.shape) - 0.5)).all(axis=-1)
        return float(inside.mean()) if inside.size else 1.0

    def same_as(self, other: "Grid", tolerance: float = 1e-3) -> bool:
        """Tell whether both grids have the same shape and corners that agree within `tolerance` mm."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        return bool(np.abs(self.world(corners) - other.world(corners)).max() <= tolerance)

    def require_same(self, other: "Grid", name: str) -> None:
        """Raise InputError when `other` is not this grid."""
        if not self.same_as(other):
            raise InputError(
                f"{name}: expected the grid of the patient, shape {self.shape}, got shape {other.shape}"
                f"{'' if self.shape != other.shape else ' with another affine'}."
                " Resample it to the patient's grid first."
            )

    def crop(self, start: ArrayLike, stop: ArrayLike) -> "Grid":
        """Return the grid of the sub-array ``[start, stop)``."""
        begin, end = np.asarray(start, int), np.asarray(stop, int)
        affine = self.affine.copy()
        affine[:3, 3] = self.world(begin)
        extent = end - begin
        return Grid((int(extent[0]), int(extent[1]), int(extent[2])), affine)


def resample(values: FloatArray, source: Grid, target: Grid, *, order: int = 1, outside: float = 0.0) -> FloatArray:
    """Sample an array on `source` at the voxel centres of `target`, by affine.

    Parameters
    ----------
    values
        Array of shape ``source.shape``.
    order
        Spline order: 0 nearest (the only one allowed for labels), 1 trilinear.
    outside
        Value where `target` lies outside `source`.
    """
    if source.same_as(target, tolerance=1e-9):
        return values
    to_source = np.linalg.inv(source.affine) @ target.affine
    result: FloatArray = ndimage.affine_transform(
        values,
        to_source[:3, :3],
        to_source[:3, 3],
        output_shape=target.shape,
        order=order,
        mode="grid-constant",
        cval=outside,
    )
    return result
