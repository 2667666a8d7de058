"""How large cells may be: fine within a margin of the tumour, growing outwards."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hybridtumor.errors import InputError
from hybridtumor.grid import FloatArray
from hybridtumor.meshes.brain import VISIBLE_DENSITY
from hybridtumor.meshes.lattice import SizeField
from hybridtumor.tissue import TissueMap

SLOPE = 0.35
"""Growth of the wanted edge length per mm beyond the margin."""


def around_tumour(
    tissue: TissueMap, density: FloatArray, *, margin_mm: float, finest: float, coarsest: float
) -> SizeField:
    """Return the wanted cell size as a function of points (k, 3) → (k,), mm.

    Parameters
    ----------
    tissue, density
        Tissue and day-0 density on one grid.
    margin_mm
        Distance from the tumour up to which the cells stay fine.
    finest, coarsest
        Edge lengths near the tumour and far away, mm.

    Raises
    ------
    InputError
        A density of another shape, or sizes out of order.
    """
    if density.shape != tissue.grid.shape:
        raise InputError(f"mesh: expected a density of the grid's shape {tissue.grid.shape}, got {density.shape}.")
    if not (0 < finest <= coarsest < np.inf and 0 <= margin_mm < np.inf):
        raise InputError(
            f"mesh: expected 0 < cell size ≤ coarsest and margin ≥ 0, got {finest:g}, {coarsest:g}"
            f" and {margin_mm:g} mm."
        )
    tumour = tissue.grid.world(np.argwhere(density > VISIBLE_DENSITY))
    tree = cKDTree(tumour) if len(tumour) else None

    def size(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if tree is None:
            return np.full(len(points), float(coarsest))
        beyond = np.maximum(tree.query(points)[0] - margin_mm, 0)
        return np.asarray(np.minimum(finest + SLOPE * beyond, coarsest))

    return size
