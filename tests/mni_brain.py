"""The MNI152 brain with a round tumour in its white matter: the case on which solver and oracle meet."""

import numpy as np
from nilearn import datasets

from hybridtumor.grid import BoolArray, Grid
from hybridtumor.scan import Scan
from hybridtumor.tissue import TissueMap

SEED = np.array([28.0, -22.0, 28.0])
"""mm, MNI."""


def mni_brain() -> TissueMap:
    """Tissue fractions at 1 mm from the maps that nilearn ships."""
    head = datasets.load_mni152_template(resolution=1)
    grid = Grid(head.shape, head.affine)
    grey, white = (
        np.clip(load(resolution=1).get_fdata(), 0, 1)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    total = np.maximum(grey + white, 1)
    grey, white = grey / total, white / total
    csf = np.where(head.get_fdata() > 0, np.clip(1 - grey - white, 0, 1), 0)
    return TissueMap(white, grey, csf, grid)


def mni_tumour(tissue: TissueMap, radius: float = 14.0, width: float = 2.28) -> Scan:
    """A ball with the profile of a front, about 20 ml above u = 0.2."""
    grid = tissue.grid
    r = np.linalg.norm(grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - SEED, axis=-1)
    u = 1 / (1 + np.exp((r - radius) / width))
    return Scan(np.where(tissue.parenchyma & (u > 1e-3), u, 0), grid)


def around(mask: BoolArray, reach: int) -> BoolArray:
    """The box that holds a mask and `reach` voxels more on all sides."""
    box = tuple(slice(max(0, int(i.min()) - reach), int(i.max()) + reach + 1) for i in np.nonzero(mask))
    result = np.zeros(mask.shape, bool)
    result[box] = True
    return result


def dice(a: BoolArray, b: BoolArray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
