"""Grids, scans and masks for the tests of the DICOM export, and what tests read back from the files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
from hypothesis import strategies as st

from hybridtumor.dicom.writing import Identity, Series
from hybridtumor.grid import Grid
from hybridtumor.scan import LabelMap, Scan

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (18, 18, 18)
AXES = st.permutations([0, 1, 2])
SIGNS = st.tuples(*[st.sampled_from([-1, 1])] * 3)
ANGLES = st.sampled_from([0.0, 17.0])
SIZES = st.sampled_from([(1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (0.9375, 0.9375, 3.0)])


def turn(degrees: float) -> np.ndarray:
    """A rotation about an axis that is none of the patient's."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    angle = np.radians(degrees)
    return np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def arranged(
    axes: tuple[int, ...] = (0, 1, 2),
    signs: tuple[int, ...] = (1, 1, 1),
    degrees: float = 0.0,
    size: tuple[float, ...] = (1.0, 1.0, 1.0),
    shape: tuple[int, int, int] = SHAPE,
) -> Grid:
    """A grid whose array axis k runs along world axis ``axes[k]``, with that sign, turned by an angle."""
    affine = np.eye(4)
    affine[:3, :3] = turn(degrees) @ np.eye(3)[:, list(axes)] * np.array(signs) * np.array(size)
    affine[:3, 3] = (-40.5, 22.25, -7.125)
    return Grid(shape, affine)


GRIDS = st.builds(arranged, AXES, SIGNS, ANGLES, SIZES)


def noise(grid: Grid, seed: int = 0) -> Scan:
    """Values that tell every voxel from every other."""
    return Scan(np.random.default_rng(seed).normal(100, 40, grid.shape).astype(np.float32), grid)


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A ragged mask with single voxels, corners that touch, holes, and islands in holes."""
    ragged = np.random.default_rng(seed).random(shape) < 0.6
    index = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    radius = np.linalg.norm(index, axis=-1)
    shell = (radius < 7) & (radius > 4) | (radius < 2)
    return np.where(index[..., 0] > 0, shell, ragged & (radius < 8.4))


def labels_on(grid: Grid, seed: int = 0) -> LabelMap:
    values = np.random.default_rng(seed).choice([0, 1, 2, 4], p=[0.7, 0.1, 0.1, 0.1], size=grid.shape)
    return LabelMap(values.astype(np.uint8), grid)


def series(label: str = "day000 T1w", number: int = 1, **changes: object) -> Series:
    content: dict[str, object] = {"content": ("x",), "day": 0.0, "synthetic": True} | changes
    return Series(Identity("small", "2.25.1", "2.25.2"), label, number, **content)  # type: ignore[arg-type]


def read_folder(folder: Path) -> list[pydicom.Dataset]:
    """The slices of a series by their position along the normal."""
    slices = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    orientation = np.array(slices[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    return sorted(slices, key=lambda s: float(normal @ np.array(s.ImagePositionPatient, float)))


def affine_of(positions: list[np.ndarray], orientation: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """(column, row, frame) to RAS mm, as PS3.3 C.7.6.2.1.1 has it."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * spacing[1], orientation[3:] * spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    affine[:3, 3] = positions[0]
    return LPS @ affine


def values_at(frames: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray:
    """What (frames, rows, columns) on an affine hold at the voxel centres of a grid; every voxel has to be there."""
    world = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    index = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    nearest = np.rint(index)
    assert np.abs((index - nearest) @ affine[:3, :3].T).max() < 0.01  # mm
    column, row, frame = np.moveaxis(nearest.astype(int), -1, 0)
    assert {column.min(), row.min(), frame.min()} == {0}
    assert (frame.max() + 1, row.max() + 1, column.max() + 1) == frames.shape
    return frames[frame, row, column]


def all_text(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder as bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
