"""How the voxels of a grid become DICOM frames, without resampling.

A voxel (i, j, k) of an array lies at A (i, j, k, 1), RAS+ mm; pixel (column c, row r) of frame f lies at

    x = P₀ + c Δ_c X + r Δ_r Y + f Δ_f N,     N = X × Y     (LPS mm; PS3.3 C.7.6.2.1.1)

with X, Y = ImageOrientationPatient. Array axes are swapped and flipped, never resampled, until X, Y and N are
right-handed and each points as near as it can to where radiology expects it: columns to the left (to the back in a
sagittal frame), rows to the back (to the feet in a sagittal or coronal one). Frames lie across the axis that leaves
pixels nearest to squares, and are axial when that leaves a choice: a 1 × 1 × 5 mm stack keeps its slices.
"""

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])

LARGEST_SHIFT = 0.005
"""mm that a voxel may move when its axes are made exactly orthogonal, as DICOM needs them."""

SQUARE = 0.01
"""Relative difference of two pixel spacings that counts as none."""

_VIEWS = {0: ((1, 1), (2, -1)), 1: ((0, 1), (2, -1)), 2: ((0, 1), (1, 1))}
"""World axis (LPS) of the frames' normal to (axis, sign) of columns and rows: sagittal, coronal, axial."""


@dataclass(frozen=True, eq=False)
class Frames:
    """A stack of DICOM frames that holds exactly the voxels of a grid.

    Parameters
    ----------
    axes
        Array axis that runs along columns, rows and frames.
    flipped
        Whether each of the three runs against its array axis.
    directions
        (3, 3), LPS: unit vectors X, Y and N as columns.
    spacing
        (3,), mm: Δ_c, Δ_r and Δ_f.
    origin
        (3,), LPS mm: P₀, centre of the first pixel of the first frame.
    shape
        Number of columns, rows and frames.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    directions: NDArray[np.float64]
    spacing: NDArray[np.float64]
    origin: NDArray[np.float64]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, grid: Grid) -> "Frames":
        """Return the frames of a grid.

        Raises
        ------
        InputError
            The axes of the grid are not at right angles: DICOM has no word for that.
        """
        axes, signs = _arrangement(grid)
        flipped = tuple(bool(sign < 0) for sign in signs)
        steps = RAS_TO_LPS @ grid.affine[:3, :3][:, axes] * signs
        first = np.zeros(3)
        for axis, flip in zip(axes, flipped, strict=True):
            first[axis] = grid.shape[axis] - 1 if flip else 0
        shape = tuple(grid.shape[axis] for axis in axes)
        directions, spacing = _orthonormal(steps, shape)
        return cls(tuple(axes), flipped, directions, spacing, RAS_TO_LPS @ grid.world(first), shape)  # type: ignore[arg-type]

    def stack[T: np.generic](self, values: NDArray[T]) -> NDArray[T]:
        """Turn an array of the grid's shape into frames, (frames, rows, columns)."""
        across, down, through = self.axes
        turned = values.transpose(through, down, across)
        step = tuple(slice(None, None, -1 if flip else 1) for flip in reversed(self.flipped))
        return np.ascontiguousarray(turned[step])

    def position(self, frame: int) -> NDArray[np.float64]:
        """Return ImagePositionPatient of a frame, (3,), LPS mm."""
        return np.asarray(self.origin + frame * self.spacing[2] * self.directions[:, 2])

    def points(self, pixels: NDArray[np.float64], frame: int) -> NDArray[np.float64]:
        """Map (column, row) positions (n, 2) of a frame to (n, 3), LPS mm."""
        return np.asarray(self.position(frame) + (pixels * self.spacing[:2]) @ self.directions[:, :2].T)

    @property
    def orientation(self) -> NDArray[np.float64]:
        """ImageOrientationPatient, (6,): X, then Y."""
        return self.directions[:, :2].T.ravel()

    @property
    def pixel_spacing(self) -> NDArray[np.float64]:
        """PixelSpacing, (2,), mm: between rows, then between columns."""
        return self.spacing[1::-1]


def _arrangement(grid: Grid) -> tuple[list[int], NDArray[np.float64]]:
    """Return the array axes of columns, rows and frames, and the sign that turns each where it should point."""
    ornt = io_orientation(np.vstack([np.c_[RAS_TO_LPS @ grid.affine[:3, :3], np.zeros(3)], [0, 0, 0, 1]]))
    nearest = {int(world): (array, float(sign)) for array, (world, sign) in enumerate(ornt)}
    normal = _normal(grid, [nearest[world][0] for world in range(3)])
    (column, column_sign), (row, row_sign) = _VIEWS[normal]
    axes = [nearest[column][0], nearest[row][0], nearest[normal][0]]
    signs = np.array([column_sign * nearest[column][1], row_sign * nearest[row][1], 1.0])
    if np.linalg.det(RAS_TO_LPS @ grid.affine[:3, :3][:, axes] * signs) < 0:
        signs[2] = -1.0
    return axes, signs


def _normal(grid: Grid, arrays: list[int]) -> int:
    """Return the world axis across which frames lie: squarest pixels, then axial before coronal before sagittal."""
    spacing = grid.voxel_size[arrays]
    uneven = [abs(float(np.log(np.divide(*np.delete(spacing, world))))) for world in range(3)]
    best = min(uneven)
    return max(world for world in range(3) if uneven[world] <= best + SQUARE)


def _orthonormal(steps: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split steps (3, 3), one column an axis, into orthonormal directions and spacings."""
    spacing = np.linalg.norm(steps, axis=0)
    left, _, right = np.linalg.svd(steps / spacing)
    directions = left @ right
    far = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
    shift = float(np.abs((directions * spacing - steps) @ far).max())
    if shift > LARGEST_SHIFT:
        raise InputError(
            f"DICOM: expected voxel axes at right angles, got sheared ones: voxels would move by up to {shift:.3g} mm."
            " Resample the patient to a grid without shear first."
        )
    return directions, spacing
