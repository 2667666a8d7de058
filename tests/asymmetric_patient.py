"""A patient without any symmetry, known at every point of the world, on whatever grid a scanner may choose.

Brain is a ball; grey matter gives way to white along an oblique plane, a slit of CSF parts it beside the tumour, an
ellipsoid off the centre. A voxel holds the mean of its points, as a scanner's does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.grid import Grid
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import Scan
from hybridtumor.therapy import DoseMap
from hybridtumor.tissue import TissueMap

CENTRE = np.array([4.0, -3.0, 2.0])
TUMOUR = CENTRE + np.array([8.0, 7.0, -5.0])
EXTENT = 86.0


def turned_by(degrees: float, axis: int) -> NDArray[np.float64]:
    """The rotation around a world axis."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    turn[i, i], turn[i, j], turn[j, i], turn[j, j] = cos, -sin, sin, cos
    return turn


def scanner(voxel: tuple[float, float, float], turn: NDArray[np.float64] | None = None) -> Grid:
    """A grid around the brain's centre with voxels of these edges, mm, its axes turned."""
    shape = np.ceil(EXTENT / np.array(voxel)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(voxel)
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def asymmetric_patient(grid: Grid) -> Patient:
    """The patient as a scanner with this grid sees them, with tissue, day-0 density and a planned dose."""
    white, grey, csf, density, dose, scan = _means(grid)
    tissue = TissueMap(white, grey, csf, grid)
    density = np.where(tissue.parenchyma & (density > 1e-4), density, 0)
    visit = Visit(0, {"T1w": Scan(scan, grid)})
    return Patient("asymmetric", (visit,), tissue, Scan(density, grid), DoseMap(dose, grid))


def _means(grid: Grid) -> Any:
    """The mean of every field over every voxel, at points about a millimetre apart."""
    cut = np.maximum(1, np.rint(grid.voxel_size)).astype(int)
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    shifts = (np.indices(cut).reshape(3, -1).T + 0.5) / cut - 0.5
    total = sum(_fields(grid.world(index + shift)) for shift in shifts)
    return np.asarray(total / len(shifts), np.float32)


def _fields(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """White, grey, CSF, tumour cell density, total dose (Gy) and T1w at world points (..., 3)."""
    d = x - CENTRE
    r = np.linalg.norm(d, axis=-1)
    slit = (np.abs(d @ [0.8, -0.6, 0.0] + 20) < 3) & (d[..., 2] > -16) & (d[..., 1] < 18)
    tissue = ((r < 38) & ~slit).astype(float)
    white = tissue / (1 + np.exp(-(d @ [0.3, 0.5, 0.8]) / 2))
    csf = (r < 41) - tissue
    density = tissue / (1 + np.exp((np.linalg.norm((x - TUMOUR) / [1, 1.3, 0.9], axis=-1) - 12) / 3))
    dose = 20 * np.exp(-(np.linalg.norm((x - TUMOUR - [2, 0, -1]) / [23, 29, 21], axis=-1) ** 4))
    return np.stack([white, tissue - white, csf, density, dose, 200 * tissue + 100 * (white + csf) - 50 * density])
