r"""Carrying images along with the tissue.

Mechanics says where tissue goes: what was at X on day 0 is at x = X + v(X). An image of that day asks the other way
round, where the tissue now at x came from:

    X(x) = x + w(x),      w(x) = −v(x + w(x)),      B_t(x) = B_0(X(x)).

w is found by fixed-point iteration with relaxation ω,

    w ← w − ω ( w + v(x + w) ),

which converges where 0 < λ < 2/ω for every principal stretch λ of I + ∇v, on nodes about 4 mm apart (mechanics is no
finer) and interpolated by cubic splines in between. Volumes change by J = det(I + ∇v): ∫ n(X(x)) dx = ∫ n(X) J(X) dX.
Where J ≤ 0 tissue would lie upon tissue and there is no image to make.

Below 0.05 mm w is set to 0, and fades in smoothly up to 0.1 mm: far from the tumour tissue is exactly where it was.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.grid import BoolArray, FloatArray, Grid

STILL, MOVING = 0.05, 0.10
"""mm. A displacement below the first counts as none; from the second on it counts in full."""

NODE_SPACING = 4.0
"""mm between the nodes on which the map is inverted."""

RELAXATION = 0.8
"""ω: stretches up to 2.5 converge."""

TOLERANCE = 0.01
"""mm. Largest residual |w + v(x + w)| of an inverse."""

ITERATIONS = 100
"""Most iterations; compression to a tenth takes about 80."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Origins:
    """Where the tissue of a day was on day 0.

    Parameters
    ----------
    grid
        The patient's grid.
    box
        Smallest box of voxels that holds everything that has moved.
    index
        X(x) as fractional voxel indices, (3, x, y, z), of the voxels in the box.
    moved
        Where w ≠ 0, (x, y, z), in the box.
    """

    grid: Grid
    box: Box
    index: NDArray[np.float32]
    moved: BoolArray

    @property
    def mask(self) -> BoolArray:
        """Where w ≠ 0, (X, Y, Z): the only voxels in which a carried image differs."""
        mask = np.zeros(self.grid.shape, bool)
        mask[self.box] = self.moved
        return mask


def settled(field: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return a vector field (3, …), mm, that fades smoothly to exactly 0 where it is shorter than `STILL`."""
    length = np.sqrt(np.einsum("c...,c...->...", field, field))
    ramp = np.clip((length - STILL) / (MOVING - STILL), 0, 1)
    return np.asarray(field * (ramp * ramp * (3 - 2 * ramp)), np.float32)


def jacobian(displacement: NDArray[np.floating[Any]], grid: Grid) -> NDArray[np.float64]:
    """Return J = det(I + ∇v), (X, Y, Z), of a displacement (3, X, Y, Z), mm RAS, by central differences."""
    per_voxel = np.stack([np.stack(np.gradient(component)) for component in np.asarray(displacement, np.float64)])
    gradient = np.einsum("caxyz,ab->xyzcb", per_voxel, np.linalg.inv(grid.affine[:3, :3]))
    return np.asarray(np.linalg.det(np.eye(3) + gradient))


def find_origins(displacement: NDArray[np.floating[Any]], grid: Grid) -> Origins:
    """Invert a displacement.

    Parameters
    ----------
    displacement
        v(X), (3, X, Y, Z), mm RAS+: the tissue that was at X on day 0 is at X + v(X). Beyond the grid it goes on as
        at its edge.
    grid
        The patient's grid; its axes may point anywhere.

    Raises
    ------
    InputError
        The displacement does not fit the grid or is not finite.
    ConvergenceError
        Tissue would lie upon tissue (J ≤ 0), or the iteration ends with a residual above `TOLERANCE`.
    """
    v = np.asarray(displacement, np.float32)
    if v.shape != (3, *grid.shape):
        raise InputError(f"displacement: expected shape {(3, *grid.shape)}, got {v.shape}.")
    if not np.isfinite(v).all():
        raise InputError("displacement: expected finite values, got NaN or infinity. Solve the mechanics anew.")
    nodes = _nodes(grid)
    w = _inverse(v, nodes, grid)
    found = np.linalg.norm(w, axis=0) > STILL
    if not found.any():
        return _origins(grid, _box(None), np.zeros((3, 0, 0, 0)))
    box = _voxels_around(found, nodes)
    return _origins(grid, box, _interpolated(w, nodes, box))


def counterparts(origins: Origins, displacement: NDArray[np.floating[Any]]) -> Origins:
    """Return where, in another arm of the same day, the tissue is that is now at each voxel: y(x) = X(x) + v'(X(x)).

    Parameters
    ----------
    origins
        X(x) in this arm.
    displacement
        v' of the other arm, (3, X, Y, Z), mm RAS+.
    """
    grid = origins.grid
    index = np.indices(grid.shape, np.float32)
    index[:, *origins.box] = origins.index
    away = origins.mask | (np.einsum("cxyz,cxyz->xyz", displacement, displacement) > STILL**2)
    box = _box(bounds_of(away))
    x, y = index[:, *box], np.indices(grid.shape, np.float32)[:, *box]
    there = _vectors_at(np.asarray(displacement, np.float32), x.reshape(3, -1)).reshape(x.shape)
    return _origins(grid, box, np.tensordot(grid.affine[:3, :3], x - y, 1) + there)


def _origins(grid: Grid, box: Box, w: NDArray[np.floating[Any]]) -> Origins:
    """Return x + w(x) as voxel indices, w (3, x, y, z) in mm, in the smallest box outside which w fades to 0."""
    w = settled(w)
    bounds = bounds_of(w.any(axis=0))
    start = np.array([part.start for part in box])
    tight = _box(bounds)
    w, corner = w[:, *tight], start + [part.start for part in tight]
    own = np.indices(w.shape[1:], np.float32) + corner[:, None, None, None].astype(np.float32)
    index = own + np.tensordot(np.linalg.inv(grid.affine[:3, :3]), w, 1).astype(np.float32)
    whole = _box([(int(a), int(a) + n) for a, n in zip(corner, w.shape[1:], strict=True)])
    return Origins(grid, whole, index, w.any(axis=0))


def _box(bounds: list[tuple[int, int]] | None) -> Box:
    """Return bounds as slices; empty ones for None."""
    i, j, k = (slice(low, high) for low, high in bounds or [(0, 0)] * 3)
    return i, j, k


def bounds_of(mask: BoolArray) -> list[tuple[int, int]] | None:
    """Return first and one past the last index along each axis at which a mask holds; None when it is empty."""
    bounds = []
    for axis in range(3):
        where = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not where.size:
            return None
        bounds.append((int(where[0]), int(where[-1]) + 1))
    return bounds


def _nodes(grid: Grid) -> list[NDArray[np.float64]]:
    """Return the voxel indices of the nodes along each axis: both ends, and about `NODE_SPACING` between."""
    counts = np.maximum(np.rint((np.array(grid.shape) - 1) * grid.voxel_size / NODE_SPACING).astype(int) + 1, 2)
    return [np.linspace(0, n - 1, count) for n, count in zip(grid.shape, counts, strict=True)]


def _node_grid(nodes: list[NDArray[np.float64]], grid: Grid) -> Grid:
    """Return the nodes as a grid."""
    scale = np.diag([*(line[1] - line[0] for line in nodes), 1.0])
    return Grid((len(nodes[0]), len(nodes[1]), len(nodes[2])), grid.affine @ scale)


def _inverse(v: NDArray[np.float32], nodes: list[NDArray[np.float64]], grid: Grid) -> NDArray[np.float64]:
    """Return w, mm, at the nodes, (3, a, b, c)."""
    start = np.stack(np.meshgrid(*nodes, indexing="ij"))
    shape = start.shape
    to_voxels = np.linalg.inv(grid.affine[:3, :3])
    place = start.reshape(3, -1)
    here = _vectors_at(v, place)
    smallest = float(jacobian(here.reshape(shape), _node_grid(nodes, grid)).min())
    if smallest <= 0:
        raise ConvergenceError(
            f"displacement: expected tissue that keeps a positive volume, got a smallest det(I + ∇v) of {smallest:.2g}."
            " The growth strain is too large for this tumour: lower mechanics.growth_strain."
        )
    w, residual = -here, np.inf
    active = np.flatnonzero(here.any(axis=0))
    for _ in range(ITERATIONS):
        error = w[:, active] + _vectors_at(v, place[:, active] + to_voxels @ w[:, active])
        size = np.linalg.norm(error, axis=0)
        residual = float(size.max(initial=0.0))
        if residual <= TOLERANCE:
            return w.reshape(shape)
        going = size > TOLERANCE / 10
        active = active[going]
        w[:, active] -= RELAXATION * error[:, going]
    raise ConvergenceError(
        f"displacement: expected an inverse with a residual below {TOLERANCE} mm, got {residual:.2g} mm"
        f" after {ITERATIONS} iterations. The tissue is compressed too far: lower mechanics.growth_strain."
    )


def _vectors_at(v: NDArray[np.float32], index: FloatArray) -> NDArray[np.float64]:
    """Return a vector field (3, X, Y, Z) at fractional indices (3, n), trilinearly; (3, n)."""
    return np.stack([ndimage.map_coordinates(c, index, order=1, mode="nearest", output=np.float64) for c in v])


def _voxels_around(found: BoolArray, nodes: list[NDArray[np.float64]]) -> Box:
    """Return the box of voxels between the nodes that move and the next ones."""
    bounds = bounds_of(found) or []
    low = [int(np.ceil(line[max(a - 1, 0)])) for line, (a, _) in zip(nodes, bounds, strict=True)]
    high = [int(line[min(b, len(line) - 1)]) + 1 for line, (_, b) in zip(nodes, bounds, strict=True)]
    return _box(list(zip(low, high, strict=True)))


def _interpolated(w: NDArray[np.float64], nodes: list[NDArray[np.float64]], box: Box) -> NDArray[np.float32]:
    """Return w (3, a, b, c) at the voxels of a box by cubic splines, (3, x, y, z)."""
    fine = w.astype(np.float32)
    for axis, (line, part) in enumerate(zip(nodes, box, strict=True), start=1):
        at = np.arange(part.start, part.stop)
        weights = CubicSpline(line, np.eye(len(line)))(at).astype(np.float32)
        fine = np.moveaxis(np.tensordot(weights, fine, (1, axis)), 0, axis)
    return np.ascontiguousarray(fine)
