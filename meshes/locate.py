r"""Where a point lies in a lattice: by arithmetic, not by search.

Every tetrahedron of the lattice lies in one pyramid, or in two back to back, that join a face of a cube with its
centre. With o = (x − centre) / half edge ∈ [−1, 1]³ and its components sorted by size, a ≥ b ≥ c ≥ 0, the face is
the one along a, and behind it stands one of four things:

    an equal cube       vertices: both centres and the edge of the face towards b;   λ = 1 − (a+b)/2, (a−b)/2, (b±c)/2
    the box's boundary  the centre, the face's centre and the same edge;             λ = 1 − a, a − b, (b±c)/2
    four smaller cubes  the centre and the face's centre, side and corner;           λ = 1 − a, a − b, b − c, c
    a larger cube       the centre and the same triangle of the larger face, in which the point has the coordinates
                        (α, β), α ≥ β, from the larger face's centre;                λ = 1 − a, a(1 − α), a(α − β), aβ

Where the edge has a vertex in the middle, the half towards c takes its place: (b±c)/2 becomes b − c at the middle and c
at the end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.meshes.lattice import Lattice

_Ids = NDArray[np.int64]
_BLOCK = 1 << 14
"""Points that are located together; their coordinates fit the cache."""


def locate(lattice: Lattice, points: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the vertices of the tetrahedra that hold points in the box, and the barycentric coordinates in them.

    Parameters
    ----------
    lattice
        The lattice; vertices are rows of ``lattice.points``.
    points
        (k, 3), mm. What lies outside the box is taken to its boundary.

    Returns
    -------
    tuple
        Vertices, (k, 4), and coordinates, (k, 4), ≥ 0, adding up to 1.
    """
    tables = _Tables.of(lattice)
    vertices, weights = np.empty((len(points), 4), np.int32), np.empty((len(points), 4))
    for start in range(0, len(points), _BLOCK):
        block = slice(start, start + _BLOCK)
        vertices[block], weights[block] = _located(tables, np.ascontiguousarray(points[block].T))
    return vertices, weights


@dataclass(frozen=True, eq=False)
class _Tables:
    """What is known of every smallest cube, flat: the level of its leaf, its centre's vertex, and corners' vertices."""

    lattice: Lattice
    shape: _Ids
    level: NDArray[np.int64]
    centre: _Ids
    corner: _Ids
    cubes: _Ids
    corners: _Ids

    @classmethod
    def of(cls, lattice: Lattice) -> "_Tables":
        shape = np.array(lattice.split[0].shape)
        cubes = np.array([shape[1] * shape[2], shape[2], 1])
        corners = np.array([(shape[1] + 1) * (shape[2] + 1), shape[2] + 1, 1])
        level, centre = lattice.level_of_cube.ravel(), lattice.centre_of_cube.ravel()
        return cls(lattice, shape, level, centre, lattice.corner_id.ravel(), cubes, corners)


def _located(tables: _Tables, points: NDArray[np.float64]) -> tuple[_Ids, NDArray[np.float64]]:
    """Return vertices and coordinates, (k, 4) each, of points (3, k)."""
    lattice = tables.lattice
    place = (points - lattice.low[:, None]) / lattice.unit[:, None]
    cube = np.clip(place.astype(np.int64), 0, tables.shape[:, None] - 1)
    level = tables.level[tables.cubes @ cube]
    edge = 1 << level
    origin = cube & -edge
    offset = np.clip((place - origin) * (2 / edge) - 1, -1, 1)
    order = _descending(np.abs(offset))
    rank = np.arange(points.shape[1])
    sorted_offset = offset[order, rank]
    a, b, c = np.abs(sorted_offset)
    above = sorted_offset >= 0
    start = origin[order, rank]
    stride = tables.corners[order]
    far = stride * np.where(above, start + edge, start)  # of the face, the edge, the corner the point leans to
    face = far[0]
    near_c = stride[2] * np.where(above[2], start[2], start[2] + edge)
    middle_c = stride[2] * (start[2] + (edge >> 1))
    centre = tables.centre[tables.cubes @ cube]
    step = np.where(above[0], start[0] + edge, start[0] - 1)
    outside = (step < 0) | (step >= tables.shape[order[0]])
    across = tables.cubes @ cube + tables.cubes[order[0]] * (np.where(outside, start[0], step) - cube[order[0], rank])
    behind = tables.level[across]
    middle = tables.corner[face + far[1] + middle_c]
    cut = (middle >= 0) & (level > 0)
    vertices = np.stack(
        [
            centre,
            tables.centre[across],
            tables.corner[face + far[1] + far[2]],
            np.where(cut, middle, tables.corner[face + far[1] + near_c]),
        ]
    )
    weights = np.stack([1 - (a + b) / 2, (a - b) / 2, np.where(cut, c, (b + c) / 2), np.where(cut, b - c, (b - c) / 2)])
    finer, coarser = ~outside & (behind < level), ~outside & (behind > level)
    if outside.any():
        where = np.flatnonzero(outside)
        weights[:2, where] = 1 - a[where], a[where] - b[where]
        vertices[1, where] = _on_the_box(tables, cube[:, where], level[where], order[0, where], above[0, where])
    if finer.any():
        where = np.flatnonzero(finer)
        in_face = face + stride[1] * (start[1] + (edge >> 1)) + middle_c
        side = face + far[1] + middle_c
        vertices[1:, where] = tables.corner[np.stack([in_face, side, face + far[1] + far[2]])[:, where]]
        weights[:, where] = np.stack([1 - a, a - b, b - c, c])[:, where]
    if coarser.any():
        where = np.flatnonzero(coarser)
        vertices[1:, where], weights[:, where] = _against_larger(
            tables, sorted_offset[:, where], start[:, where], edge[where], stride[:, where], face[where]
        )
    return vertices.T, weights.T


def _descending(size: NDArray[np.float64]) -> _Ids:
    """Return the axes by falling size, (3, k), of sizes (3, k)."""
    x, y, z = size
    first = np.where((x >= y) & (x >= z), 0, np.where(y >= z, 1, 2))
    u, v = (first + 1) % 3, (first + 2) % 3
    rank = np.arange(size.shape[1])
    second = np.where(size[u, rank] >= size[v, rank], u, v)
    return np.stack([first, second, 3 - first - second])


def _on_the_box(tables: _Tables, cube: _Ids, level: _Ids, axis: _Ids, above: NDArray[np.bool_]) -> _Ids:
    """Return the vertices at the centres of cubes' faces in the faces of the box."""
    result = np.empty(len(level), np.int64)
    for (k, along, side), number in tables.lattice.face_id.items():
        where = np.flatnonzero((level == k) & (axis == along) & (above == bool(side)))
        if len(where):
            u, v = (cube[other, where] >> k for other in range(3) if other != along)
            result[where] = number[u, v]
    return result


def _against_larger(
    tables: _Tables, offset: NDArray[np.float64], start: _Ids, edge: _Ids, stride: _Ids, face: _Ids
) -> tuple[_Ids, NDArray[np.float64]]:
    """Return centre, side and corner of the larger face, (3, k), and the coordinates, (4, k); axes sorted by size."""
    a = np.abs(offset[0])
    lower = (start[1:] & edge) == 0  # the smaller cube is the lower of two: the larger face's centre lies above
    alpha = (a - np.where(lower, offset[1:], -offset[1:])) / 2
    centre = stride[1:] * np.where(lower, start[1:] + edge, start[1:])
    rim = stride[1:] * np.where(lower, start[1:], start[1:] + edge)
    first = alpha[0] >= alpha[1]
    side = np.where(first, rim[0] + centre[1], centre[0] + rim[1])
    vertices = tables.corner[face + np.stack([centre[0] + centre[1], side, rim[0] + rim[1]])]
    high, low = np.maximum(*alpha), np.minimum(*alpha)
    return vertices, np.stack([1 - a, a - high, high - low, low])
