"""A brain for phantoms, quick enough for tests: an ellipsoid of 2 mm voxels with folded cortex and two ventricles."""

import numpy as np

from hybridtumor.atlas import Atlas
from hybridtumor.grid import Grid
from hybridtumor.scan import Scan
from hybridtumor.tissue import TissueMap

SHAPE = (56, 64, 52)


def phantom_atlas(spacing: float = 2.0) -> Atlas:
    """The brain and its T1w image."""
    shape = np.array(SHAPE)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (shape - 1) / 2 + (0, 0, 12)
    grid = Grid(SHAPE, affine)
    x, y, z = np.moveaxis(grid.world(np.moveaxis(np.indices(SHAPE), 0, -1)), -1, 0)
    angle = np.arctan2(y, x)
    r = np.sqrt((x / 44) ** 2 + (y / 52) ** 2 + ((z - 12) / 40) ** 2)
    cortex = 0.80 + 0.06 * np.sin(9 * angle) * np.cos(0.15 * z)
    csf = np.clip((r - 0.94) * 20, 0, 1)
    grey = np.clip((r - cortex) * 20, 0, 1) - csf
    inside = r < 1
    for side in (-1, 1):
        ventricle = np.sqrt(((x - 9 * side) / 6) ** 2 + (y / 18) ** 2 + ((z - 14) / 8) ** 2) < 1
        csf, grey = np.where(ventricle, 1, csf), np.where(ventricle, 0, grey)
    white, grey, csf = (np.where(inside, t, 0).astype(np.float32) for t in (1 - grey - csf, grey, csf))
    rough = np.random.default_rng(0).normal(0, 3, SHAPE)
    t1 = np.where(inside, 110 * white + 80 * grey + 30 * csf + rough, 0).astype(np.float32)
    return Atlas(Scan(t1, grid), TissueMap(white, grey, csf, grid))
