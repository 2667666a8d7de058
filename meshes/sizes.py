"""How large cells may be: fine within a margin of the tumour, growing outwards."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray, Grid
from hybridtumor.meshes.lattice import SizeField

VISIBLE_DENSITY = 0.01
"""The mesh is fine within a margin of where the density exceeds this."""

SLOPE_OF_CUBES, SLOPE_OF_EDGES = 1.0, 0.35
"""Growth of the wanted size per mm beyond the margin: of a lattice's cubes, which double, and of a mesher's edges."""


def around_tumour(
    density: FloatArray, grid: Grid, *, margin_mm: float, finest: float, coarsest: float, slope: float = SLOPE_OF_CUBES
) -> SizeField:
    """Return the wanted cell size as a function of points (k, 3) → (k,), mm.

    Parameters
    ----------
    density
        Density (or mask) of the tumour on the grid; without a tumour all cells are of the largest size.
    grid
        The patient's grid.
    margin_mm
        Distance from the tumour up to which the cells stay fine.
    finest, coarsest
        Sizes near the tumour and far away, mm.
    slope
        Growth of the size per mm beyond the margin.

    Raises
    ------
    InputError
        A density of another shape, or sizes out of order.
    """
    if density.shape != grid.shape:
        raise InputError(f"mesh: expected a density of the grid's shape {grid.shape}, got {density.shape}.")
    if not (0 < finest <= coarsest < np.inf and 0 <= margin_mm < np.inf):
        raise InputError(
            f"mesh: expected 0 < cell size ≤ coarsest and margin ≥ 0, got {finest:g}, {coarsest:g}"
            f" and {margin_mm:g} mm."
        )
    seen = np.asarray(density > VISIBLE_DENSITY)
    tumour = grid.world(_rim(seen))
    tree = cKDTree(tumour) if len(tumour) else None
    reach = margin_mm + coarsest / slope  # farther away nothing changes

    def size(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if tree is None:
            return np.full(len(points), float(coarsest))
        beyond = np.maximum(tree.query(points, distance_upper_bound=reach)[0] - margin_mm, 0)
        place = np.rint(grid.index(points)).astype(np.int64)
        within = ((place >= 0) & (place < grid.shape)).all(1)
        beyond[within] = np.where(seen[tuple(place[within].T)], 0, beyond[within])
        return np.asarray(np.minimum(finest + slope * beyond, coarsest))

    return size


def box_of(domain: BoolArray, grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the opposite corners of the smallest box along the world's axes that holds the voxels of a domain, mm."""
    if np.count_nonzero(grid.affine[:3, :3]) > 3:  # the box of the voxels' box would be larger
        centres = grid.world(_rim(domain))
    else:
        spans = spans_of(domain)
        centres = grid.world(np.array([[span[side] for span in spans] for side in (0, -1)]))
    half = np.abs(grid.affine[:3, :3]).sum(1) / 2
    return centres.min(0) - half, centres.max(0) + half


def spans_of(mask: BoolArray) -> list[NDArray[np.int64]]:
    """Return the indices along each axis at which a mask has voxels."""
    return [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]


def _rim(mask: BoolArray) -> NDArray[np.int64]:
    """Return the indices of the voxels of a mask that touch its outside by a face, (k, 3)."""
    spans = spans_of(mask)
    if not spans[0].size:
        return np.zeros((0, 3), np.int64)
    inside = mask[tuple(slice(span[0], span[-1] + 1) for span in spans)]
    start = np.array([span[0] for span in spans])
    return np.asarray(np.argwhere(inside & ~ndimage.binary_erosion(inside)) + start)
