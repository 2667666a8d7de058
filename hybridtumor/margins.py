"""Growing a mask by a margin in millimetres, inside a domain that it does not leave.

    T = {x in the domain : |x − M| ≤ m and the way to x through the domain is no longer},   |∇t| = 1,   t = 0 on M

t is the length of the way, mm.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid


def grow_within(mask: BoolArray, domain: BoolArray, grid: Grid, margin: float) -> BoolArray:
    """Return `mask` and the voxels of `domain` within `margin` mm of it, straight and by a way inside the domain.

    The straight distance is exact. The way through the domain is first-order accurate and is therefore allowed a voxel
    diagonal more.

    Raises
    ------
    InputError
        An empty mask or one of another shape, a negative margin.
    """
    require_mask(mask, grid, "tumour")
    require_margin(margin)
    reach = np.ceil(margin / grid.voxel_size).astype(int) + 1
    box = tuple(
        slice(max(0, part.start - int(r)), part.stop + int(r))
        for part, r in zip(ndimage.find_objects(mask.astype(np.uint8))[0], reach, strict=True)
    )
    seed, room = mask[box], domain[box] | mask[box]
    straight = ndimage.distance_transform_edt(~seed, sampling=grid.voxel_size)
    near = room & (straight <= margin)
    way = path_length(seed, near, grid.voxel_size, margin + float(np.linalg.norm(grid.voxel_size)))
    result = np.zeros_like(mask)
    result[box] = seed | (near & np.isfinite(way))
    return result


def path_length(seed: BoolArray, room: BoolArray, voxel_size: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Return the length of the shortest way from `seed` inside `room`, mm; infinite beyond `limit`.

    Solves |∇T| = 1 by upwind differences, updating only voxels whose neighbours changed (the fast iterative method of
    Jeong and Whitaker, SIAM J. Sci. Comput. 2008). First order in the voxel size.
    """
    inside = np.pad(room | seed, 1)
    shape = inside.shape
    time = np.where(np.pad(seed, 1), 0.0, np.inf).ravel()
    steps = [shape[1] * shape[2], shape[2], 1]
    free = inside.ravel() & (time > 0)
    changed = np.flatnonzero(time == 0)
    while changed.size:
        around = np.unique(np.concatenate([changed + sign * step for step in steps for sign in (-1, 1)]))
        active = around[free[around]]
        upwind = np.stack([np.minimum(time[active - step], time[active + step]) for step in steps])
        arrival = _eikonal_update(upwind, voxel_size)
        better = (arrival < time[active] - 1e-9) & (arrival <= limit)
        changed = active[better]
        time[changed] = arrival[better]
    return time.reshape(shape)[1:-1, 1:-1, 1:-1]


def _eikonal_update(upwind: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return T with Σ_i max(0, (T − a_i)/h_i)² = 1, for arrival times a (3, n) of the upwind neighbours."""
    order = np.argsort(upwind, axis=0)
    a = np.take_along_axis(upwind, order, axis=0)
    w = 1 / h[order] ** 2
    result = a[0] + 1 / np.sqrt(w[0])
    for m in (2, 3):
        more = result > a[m - 1]
        first, weight = a[:m, more] - a[0, more], w[:m, more]
        p, q, r = weight.sum(0), (weight * first).sum(0), (weight * first**2).sum(0) - 1
        result[more] = a[0, more] + (q + np.sqrt(np.maximum(q**2 - p * r, 0))) / p
    return np.asarray(result)


def require_mask(mask: BoolArray, grid: Grid, name: str, *, empty: bool = False) -> None:
    """Raise InputError unless `mask` has the shape of the grid and, but for `empty`, at least one voxel."""
    if mask.shape != grid.shape:
        raise InputError(f"{name}: expected a mask of the grid's shape {grid.shape}, got {mask.shape}.")
    if not (empty or mask.any()):
        raise InputError(f"{name}: expected at least one voxel, got an empty mask.")


def require_margin(margin: float) -> None:
    """Raise InputError unless `margin` is a finite number of mm that is not negative."""
    if not (margin >= 0 and np.isfinite(margin)):
        raise InputError(f"margin: expected a finite number of mm that is not negative, got {margin:g}.")
