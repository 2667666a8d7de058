"""A brain as round as a ball, small enough for tests: white core, grey shell, a ventricle, CSF outside."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from hybridtumor.grid import Grid
from hybridtumor.scan import Scan
from hybridtumor.therapy import DoseMap
from hybridtumor.tissue import TissueMap

CENTRE = np.array([4.0, -3.0, 2.0])
TUMOUR = CENTRE + np.array([9.0, 4.0, 0.0])


def ball_grid(shape: tuple[int, int, int] = (26, 25, 24), spacing: float = 2.0, flip: bool = False) -> Grid:
    """A grid centred on the ball; `flip` turns its first axis round."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = CENTRE - spacing * (np.array(shape) - 1) / 2
    if flip:
        affine[0, 3] += spacing * (shape[0] - 1)
        affine[0, 0] *= -1
    return Grid(shape, affine)


def distance(grid: Grid, point: np.ndarray) -> np.ndarray:
    """Distance of every voxel from a point, mm."""
    return np.linalg.norm(grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - point, axis=-1)


def ball_tissue(grid: Grid) -> TissueMap:
    r = distance(grid, CENTRE)
    ventricle = distance(grid, CENTRE - (6, 0, 0)) < 4
    white = ((r < 14) & ~ventricle).astype(np.float32)
    grey = ((r >= 14) & (r < 20)).astype(np.float32)
    csf = ((r < 22) & (white + grey == 0)).astype(np.float32)
    return TissueMap(white, grey, csf, grid)


def ball_density(grid: Grid, tissue: TissueMap, radius: float = 4.0) -> Scan:
    u = 1 / (1 + np.exp((distance(grid, TUMOUR) - radius) / 1.5))
    return Scan(np.where(tissue.parenchyma & (u > 1e-4), u, 0).astype(np.float32), grid)


def ball_patient(grid: Grid | None = None) -> Any:
    """What `simulate` needs of a patient."""
    grid = ball_grid() if grid is None else grid
    tissue = ball_tissue(grid)
    return SimpleNamespace(
        structures={},
        oxygen=None,
        radiosensitivity=None,
        id="ball",
        grid=grid,
        tissue=tissue,
        density=ball_density(grid, tissue),
        diffusion_tensor=None,
    )


def ball_dose(grid: Grid, dose: float) -> DoseMap:
    """A total dose around the tumour, Gy."""
    return DoseMap((dose * np.exp(-((distance(grid, TUMOUR) / 14) ** 4))).astype(np.float32), grid)
