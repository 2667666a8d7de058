"""Closed planar contours become voxels: a voxel belongs to a structure when its centre is inside.

Inside is even–odd: a ray from the centre crosses all contours of the plane an odd number of times. So a contour within
a contour is a hole, several contours are several parts, and the channel of a keyhole contour, run along twice,
cancels. A plane stands for the voxels within half the distance between planes, half-open, so that slices half-way
between two planes belong to one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid

Points = NDArray[np.float64]

MAX_SPREAD = 0.5
"""mm. Points of one contour may lie this far apart along the normal of its plane."""

SAME_PLANE = 0.1
"""mm. Contours closer than this along the normal are in one plane."""

ALIGNED = 0.02
"""Contours are drawn in the slices of a grid when they run through this share of a slice or less."""

FINEST = 3
"""Lattice points per voxel edge where contours lie askew to the grid."""

LARGEST_LATTICE = 4096


@dataclass(frozen=True, eq=False)
class Plane:
    """All contours of one plane: distance along the normal and (n, 2) points."""

    distance: float
    contours: tuple[Points, ...]


def fill(contours: Sequence[Points], shape: tuple[int, int]) -> BoolArray:
    """Return which pixels have their centre inside, even–odd; points (n, 2) are in pixels, centres whole numbers."""
    toggles = np.zeros((shape[0] + 1) * shape[1], np.int64)
    for contour in contours:
        start = np.round(contour, 6)  # a centre on an edge falls to one side, whatever the last digits
        stop = np.roll(start, -1, axis=0)
        upward = start[:, 1] <= stop[:, 1]  # both runs along a keyhole's channel are computed alike
        low, high = np.where(upward[:, None], start, stop), np.where(upward[:, None], stop, start)
        first = np.clip(np.ceil(low[:, 1]), 0, shape[1]).astype(int)
        count = np.clip(np.ceil(high[:, 1]), 0, shape[1]).astype(int) - first
        edge = np.repeat(np.arange(len(start)), count)
        row = np.arange(edge.size) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        share = (row - low[edge, 1]) / (high[edge, 1] - low[edge, 1])
        crossing = low[edge, 0] + share * (high[edge, 0] - low[edge, 0])
        column = np.clip(np.ceil(np.round(crossing, 6)), 0, shape[0]).astype(int)
        toggles += np.bincount(column * shape[1] + row, minlength=toggles.size)
    inside: BoolArray = np.cumsum(toggles.reshape(shape[0] + 1, shape[1]), axis=0)[:-1] % 2 == 1
    return inside


def contour_normal(contours: Sequence[Points], label: str) -> NDArray[np.float64] | None:
    """Return the unit normal of the planes of all contours, (n, 3) points each; None when none has an area.

    Raises
    ------
    InputError
        A contour is not planar, or contours lie in planes of different orientation.
    """
    normals = [np.cross(c - c[0], np.roll(c, -1, axis=0) - c[0]).sum(axis=0) for c in contours]
    largest = max(normals, key=lambda n: float(np.linalg.norm(n)))
    size = float(np.linalg.norm(largest))
    if size < 1e-6:
        return None
    normal = largest / size
    normal = normal * np.sign(normal[np.abs(normal).argmax()])
    if max(float(np.ptp(c @ normal)) for c in contours) > MAX_SPREAD:
        raise InputError(
            f"{label}: expected contours in parallel planes, got contours askew to each other or not flat."
        )
    return np.asarray(normal)


def typical_gap(contours: Sequence[Points], normal: NDArray[np.float64]) -> float | None:
    """Return the median distance between neighbouring planes, mm; None for a single plane."""
    distances = np.sort([float((c @ normal).mean()) for c in contours])
    gaps = np.diff(distances)
    gaps = gaps[gaps > SAME_PLANE]
    return float(np.median(gaps)) if gaps.size else None


def rasterise(contours: Sequence[Points], normal: NDArray[np.float64], gap: float | None, grid: Grid) -> BoolArray:
    """Return the voxels of a structure.

    Parameters
    ----------
    contours
        (n, 3) points each, RAS+, mm, all in planes of this normal.
    gap
        Distance between planes, mm; None: the distance between the slices of the grid.
    """
    for axis in range(3):
        along = [grid.index(contour)[:, axis] for contour in contours]
        if max(float(np.ptp(a)) for a in along) <= ALIGNED and _faces(grid, axis, normal):
            return _in_slices(contours, axis, gap, grid)
    return _askew(contours, normal, gap, grid)


def _faces(grid: Grid, axis: int, normal: NDArray[np.float64]) -> bool:
    """Tell whether the slices of one axis are parallel to the planes of contours."""
    others = [grid.affine[:3, a] for a in range(3) if a != axis]
    face = np.cross(others[0], others[1])
    return bool(abs(normal @ face) / np.linalg.norm(face) > 1 - 1e-4)


def _slice_distance(grid: Grid, axis: int) -> float:
    """Return the distance between slices along their normal, mm."""
    others = [grid.affine[:3, a] for a in range(3) if a != axis]
    return grid.voxel_volume / float(np.linalg.norm(np.cross(others[0], others[1])))


def _in_slices(contours: Sequence[Points], axis: int, gap: float | None, grid: Grid) -> BoolArray:
    """Fill contours that are drawn in the slices of an axis."""
    thickness = _slice_distance(grid, axis)
    flat = [a for a in range(3) if a != axis]
    index = [grid.index(contour) for contour in contours]
    merge = SAME_PLANE / thickness
    planes = _planes([float(p[:, axis].mean()) for p in index], [p[:, flat] for p in index], merge)
    nearest = _nearest(np.arange(grid.shape[axis]), planes, (gap or thickness) / thickness)
    mask = np.zeros(grid.shape, bool)
    view = np.moveaxis(mask, axis, -1)
    for number in np.unique(nearest[nearest >= 0]):
        view[..., nearest == number] = fill(planes[number].contours, view.shape[:2])[..., None]
    return mask


def _askew(contours: Sequence[Points], normal: NDArray[np.float64], gap: float | None, grid: Grid) -> BoolArray:
    """Fill contours that lie askew to the grid on a fine lattice of their own, and look voxel centres up in it."""
    u = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    u = u / np.linalg.norm(u)
    axes = np.array([u, np.cross(normal, u), normal])
    local = [contour @ axes.T for contour in contours]
    low, high = np.min([p.min(axis=0) for p in local], axis=0), np.max([p.max(axis=0) for p in local], axis=0)
    pitch = max(float(grid.voxel_size.min()) / FINEST, float((high - low)[:2].max()) / LARGEST_LATTICE)
    size = tuple(int(n) for n in np.ceil((high - low)[:2] / pitch) + 1)
    planes = _planes([float(p[:, 2].mean()) for p in local], [(p[:, :2] - low[:2]) / pitch for p in local], SAME_PLANE)
    reach = gap or float(grid.voxel_size.min())
    mask = np.zeros(grid.shape, bool)
    rasters: dict[int, BoolArray] = {}
    start, stop = _box(contours, reach, grid)
    for k in range(start[2], stop[2]):
        ij = np.meshgrid(np.arange(start[0], stop[0]), np.arange(start[1], stop[1]), indexing="ij")
        seen = grid.world(np.stack([*ij, np.full_like(ij[0], k)], axis=-1)) @ axes.T
        nearest = _nearest(seen[..., 2], planes, reach)
        pixel = np.round((seen[..., :2] - low[:2]) / pitch).astype(int)
        held = (nearest >= 0) & (pixel >= 0).all(axis=-1) & (pixel < np.array(size)).all(axis=-1)
        for number in np.unique(nearest[held]):
            if number not in rasters:
                rasters[number] = fill(planes[number].contours, (size[0], size[1]))
            chosen = held & (nearest == number)
            mask[start[0] : stop[0], start[1] : stop[1], k][chosen] = rasters[number][tuple(pixel[chosen].T)]
    return mask


def _box(contours: Sequence[Points], reach: float, grid: Grid) -> tuple[list[int], list[int]]:
    """Return where voxels of a structure can be: first index and one past the last of each axis."""
    index = grid.index(np.concatenate(contours))
    margin = 1 + np.ceil(reach / grid.voxel_size)
    start = np.clip(np.floor(index.min(axis=0) - margin), 0, grid.shape).astype(int)
    stop = np.clip(np.ceil(index.max(axis=0) + margin) + 1, 0, grid.shape).astype(int)
    return start.tolist(), stop.tolist()


def _planes(distances: Sequence[float], contours: Sequence[Points], merge: float) -> list[Plane]:
    """Return contours by plane, in order."""
    order = np.argsort(distances, kind="stable")
    groups: list[list[int]] = []
    for i in order:
        if groups and distances[i] - distances[groups[-1][0]] <= merge:
            groups[-1].append(int(i))
        else:
            groups.append([int(i)])
    return [Plane(float(np.mean([distances[i] for i in g])), tuple(contours[i] for i in g)) for g in groups]


def _nearest(where: NDArray[np.generic], planes: Sequence[Plane], gap: float) -> NDArray[np.int64]:
    """Return the number of the plane nearest to each position, −1 where none is within half a gap."""
    distances = np.array([plane.distance for plane in planes])
    right = np.searchsorted(distances, where).clip(1, max(len(planes) - 1, 1))
    right = np.minimum(right, len(planes) - 1)
    left = np.maximum(right - 1, 0)
    tiny = 1e-4 * gap  # half-way to the last digits: to the plane above
    nearest = np.where(np.abs(where - distances[left]) + 2 * tiny < np.abs(distances[right] - where), left, right)
    offset = where - distances[nearest]
    return np.where((offset >= -gap / 2 - tiny) & (offset < gap / 2 - tiny), nearest, -1)
