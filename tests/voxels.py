"""Small grids, brains and masks for tests of targets and doses."""

import numpy as np

from hybridtumor.grid import Grid
from hybridtumor.tissue import TissueMap


def grid_of(shape: tuple[int, int, int], size: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Grid:
    return Grid(shape, np.diag([*size, 1.0]))


def brain(grid: Grid, csf: np.ndarray | None = None) -> TissueMap:
    """A head that fills the grid: white matter, and CSF where a mask says so."""
    fluid = np.zeros(grid.shape, np.float32) if csf is None else csf.astype(np.float32)
    return TissueMap(1 - fluid, np.zeros(grid.shape, np.float32), fluid, grid)


def voxel(grid: Grid, *index: int | slice) -> np.ndarray:
    mask = np.zeros(grid.shape, bool)
    mask[index] = True
    return mask


def points(grid: Grid) -> np.ndarray:
    """World coordinates of all voxels, mm, shape (*grid.shape, 3)."""
    return grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))


def distance_from(grid: Grid, *index: float) -> np.ndarray:
    return np.linalg.norm(points(grid) - grid.world(index), axis=-1)
