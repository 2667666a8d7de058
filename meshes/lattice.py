r"""Graded body-centred-cubic lattice of tetrahedra.

Space is cut into cubes whose edges are a = h·2^k (an octree), balanced so that cubes that touch, even at a corner,
differ at most by a factor of two. The vertices are the corners and the centres of the cubes. Between two equal cubes
stand the four tetrahedra of the BCC lattice, each made of one edge of their common square and the two centres; all of
them are congruent, with dihedral angles of 60° and 90°, so the P1 stiffness matrix of −∇·(D∇u) is an M-matrix for any
D > 0 that is constant per cell. Where a smaller cube puts a vertex on the middle of an edge, the tetrahedra around that
edge are bisected there, which makes angles of 120°. Between a cube and four smaller ones the square is cut into eight
triangles around its centre, and each triangle is joined to the centres on its two sides. At the faces of the box the
squares are cut around their centre, which mirrors the lattice: the box's boundary is planar and exact.

The idea of an octree whose cubes carry BCC tetrahedra is that of isosurface stuffing (Labelle & Shewchuk, ACM Trans.
Graphics 2007).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hybridtumor.errors import InputError

SizeField = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TetMesh:
    """A conforming mesh of tetrahedra.

    Parameters
    ----------
    points
        Vertices, (n, 3), world RAS+ mm.
    cells
        Vertices of every tetrahedron, (m, 4), positively oriented.
    """

    points: NDArray[np.float64]
    cells: NDArray[np.int64]

    @property
    def corners(self) -> NDArray[np.float64]:
        """Coordinates of the four vertices of every cell, (4, 3, m): vertex, axis, cell; mm."""
        return np.ascontiguousarray(self.points.T)[:, self.cells.T].swapaxes(0, 1)

    @property
    def volumes(self) -> NDArray[np.float64]:
        """Volume of every cell, (m,), mm³; positive."""
        return signed_volumes(self.corners)

    def submesh(self, keep: NDArray[np.bool_]) -> "TetMesh":
        """Return the mesh of the cells marked in `keep`, (m,), without the vertices that no longer belong to any."""
        cells = self.cells[keep]
        used = np.zeros(len(self.points), bool)
        used[cells] = True
        return TetMesh(self.points[used], (np.cumsum(used) - 1)[cells])


def graded_lattice(lower: ArrayLike, upper: ArrayLike, size: SizeField, *, finest: float, coarsest: float) -> TetMesh:
    """Fill a box with a graded lattice.

    Parameters
    ----------
    lower, upper
        Opposite corners of the box, (3,), mm. The box grows beyond `upper` to a whole number of the largest cubes.
    size
        Wanted edge of the cubes at points (k, 3), (k,), mm. It is sampled every 2·`finest`.
    finest, coarsest
        Smallest and largest edge, mm; edges are `finest`·2^k up to `coarsest`.

    Raises
    ------
    InputError
        An empty box, or not 0 < finest ≤ coarsest.
    """
    return Lattice.graded(lower, upper, size, finest=finest, coarsest=coarsest).mesh()


def uniform_lattice(lower: ArrayLike, upper: ArrayLike, spacing: float) -> TetMesh:
    """Fill exactly the box from `lower` to `upper`, (3,), mm, with a lattice of equal cells.

    The spacing along each axis is the one nearest to `spacing` that divides the box.
    """
    low, high = _box(lower, upper)
    if not 0 < spacing < np.inf:
        raise InputError(f"lattice: expected a positive spacing, got {spacing:g} mm.")
    counts = np.maximum(1, np.rint((high - low) / spacing).astype(int))
    return Lattice([np.zeros(counts, bool)], low, (high - low) / counts).mesh()


def _box(lower: ArrayLike, upper: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    if low.shape != (3,) or high.shape != (3,) or not (low < high).all():
        raise InputError(f"lattice: expected a box with lower < upper along three axes, got {low} and {high}.")
    return low, high


def _octree(
    low: NDArray[np.float64], counts: _Ids, size: SizeField, finest: float, top: int
) -> list[NDArray[np.bool_]]:
    """Tell for every level k which cubes of edge finest·2^k are split, balanced across faces, edges and corners."""
    split = [np.zeros(counts * 2**top, bool)]
    if top == 0:
        return split
    shape = counts * 2 ** (top - 1)
    centres = low + (np.indices(shape).reshape(3, -1).T + 0.5) * (2 * finest)
    smallest = np.asarray(size(centres), np.float64).reshape(shape)
    for level in range(1, top + 1):
        wanted = smallest < finest * 2**level * (1 - 1e-9)
        if level > 1:
            neighbourhood = ndimage.maximum_filter(split[-1].view(np.uint8), size=3, mode="constant")
            wanted |= _blocks(neighbourhood).max(axis=(1, 3, 5)) > 0
        split.append(wanted)
        if level < top:
            smallest = _blocks(smallest).min(axis=(1, 3, 5))
    return split


def _blocks[T: np.generic](array: NDArray[T]) -> NDArray[T]:
    """View an array as blocks of 2×2×2."""
    a, b, c = (n // 2 for n in array.shape)
    return array.reshape(a, 2, b, 2, c, 2)


class Lattice:
    """The cubes of an octree and the numbers of the vertices in them.

    Parameters
    ----------
    split
        For every level k, which cubes of edge unit·2^k are split.
    low
        Corner of the box, mm.
    unit
        Edges of the smallest cubes, (3,), mm.
    """

    def __init__(self, split: list[NDArray[np.bool_]], low: NDArray[np.float64], unit: NDArray[np.float64]) -> None:
        self.split, self.low, self.unit = split, low, unit
        self.leaves = self._leaves()
        corner = np.zeros(np.array(split[0].shape) + 1, bool)
        centres = []
        for level, leaf in enumerate(self.leaves):
            origin = np.argwhere(leaf) << level
            for offset in np.ndindex(2, 2, 2):
                corner[tuple((origin + (np.array(offset) << level)).T)] = True
            centres.append(low + (origin + 0.5 * 2**level) * unit)
        points = [low + np.argwhere(corner) * unit, *centres]
        self.corner_id = np.where(corner, np.cumsum(corner).reshape(corner.shape) - 1, -1)
        count = len(points[0])
        self.centre_id = []
        for leaf in self.leaves:
            number = np.cumsum(leaf).reshape(leaf.shape) - 1 + count
            self.centre_id.append(np.where(leaf, number, -1))
            count += int(leaf.sum())
        self.face_id: dict[tuple[int, int, int], _Ids] = {}
        for level, axis, side in self._faces():
            layer = np.asarray(self.leaves[level].take(-side, axis))
            self.face_id[level, axis, side] = np.where(layer, np.cumsum(layer).reshape(layer.shape) - 1 + count, -1)
            points.append(self._face_centres(layer, level, axis, side))
            count += int(layer.sum())
        self.points = np.concatenate(points)
        self.level_of_cube, self.centre_of_cube = self._cubes()

    @classmethod
    def graded(
        cls, lower: ArrayLike, upper: ArrayLike, size: SizeField, *, finest: float, coarsest: float
    ) -> "Lattice":
        """Return the lattice of `graded_lattice`; arguments and errors as there."""
        low, high = _box(lower, upper)
        if not 0 < finest <= coarsest < np.inf:
            raise InputError(f"lattice: expected 0 < finest ≤ coarsest, got {finest:g} and {coarsest:g} mm.")
        top = int(np.floor(np.log2(coarsest / finest) + 1e-9))
        counts = np.maximum(1, np.ceil((high - low) / (finest * 2**top) - 1e-9).astype(int))
        return cls(_octree(low, counts, size, finest, top), low, np.full(3, float(finest)))

    def _leaves(self) -> list[NDArray[np.bool_]]:
        exists = np.ones(self.split[-1].shape, bool)
        leaves = []
        for split in reversed(self.split):
            leaves.append(exists & ~split)
            exists = split.repeat(2, 0).repeat(2, 1).repeat(2, 2)
        return leaves[::-1]

    def _cubes(self) -> tuple[_Ids, _Ids]:
        """Return level and centre vertex of the leaf that every smallest cube lies in."""
        level, centre = np.zeros(self.split[0].shape, np.int64), np.zeros(self.split[0].shape, np.int64)
        for k, number in enumerate(self.centre_id):
            fine = number
            for axis in range(3):
                fine = fine.repeat(2**k, axis)
            level[fine >= 0], centre[fine >= 0] = k, fine[fine >= 0]
        return level, centre

    def _faces(self) -> list[tuple[int, int, int]]:
        """Return level, axis and side (0 low, 1 high) of all faces of the box."""
        return [(level, axis, side) for level in range(len(self.leaves)) for axis in range(3) for side in range(2)]

    def _face_centres(self, layer: NDArray[np.bool_], level: int, axis: int, side: int) -> NDArray[np.float64]:
        """Return the centres of the cubes' faces in a face of the box, (k, 3), mm."""
        position = np.insert(np.argwhere(layer) + 0.5, axis, side * self.leaves[level].shape[axis], axis=1)
        return np.asarray(self.low + position * 2**level * self.unit)

    def mesh(self, wanted: NDArray[np.bool_] | None = None) -> TetMesh:
        """Make the tetrahedra, oriented; vertices are those of the lattice, `points`.

        Parameters
        ----------
        wanted
            Which of the smallest cubes matter, shape of ``split[0]``: tetrahedra between cubes that hold none of them
            are left out. None: all.
        """
        return TetMesh(self.points, _Tetrahedra(self, wanted).made())


class _Tetrahedra:
    """The tetrahedra of a lattice, gathered as they are made."""

    def __init__(self, lattice: Lattice, wanted: NDArray[np.bool_] | None) -> None:
        self.corner_id, self.centre_id = lattice.corner_id, lattice.centre_id
        self.face_id, self.split, self.points = lattice.face_id, lattice.split, lattice.points
        self.useful = [np.ones(leaf.shape, bool) for leaf in lattice.leaves]
        if wanted is not None:
            for level in range(len(self.useful)):
                self.useful[level] = wanted
                if level + 1 < len(self.useful):
                    wanted = _blocks(wanted).any(axis=(1, 3, 5))
        self.tets: list[NDArray[np.int64]] = []

    def made(self) -> NDArray[np.int64]:
        """Return all tetrahedra, (m, 4), positively oriented."""
        for level in range(len(self.centre_id)):
            for axis in range(3):
                self._between_equals(level, axis)
                if level > 0:
                    self._between_sizes(level, axis, fine_above=True)
                    self._between_sizes(level, axis, fine_above=False)
                self._at_the_box(level, axis)
        cells = np.concatenate(self.tets)
        cells = cells[np.argsort(cells[:, 2], kind="stable")]  # neighbours in space are neighbours in memory
        negative = TetMesh(self.points, cells).volumes < 0
        cells[negative, 2], cells[negative, 3] = cells[negative, 3], cells[negative, 2].copy()
        return cells

    def _corner(self, position: _Ids) -> _Ids:
        return np.asarray(self.corner_id[tuple(position.T)])

    def _fan(self, first: _Ids, second: _Ids, origin: _Ids, level: int, axis: int) -> None:
        """Join the edges of the squares at `origin` to two vertices; edges with a vertex in the middle are bisected."""
        u, v = (_unit(other) << level for other in range(3) if other != axis)
        ring = [origin, origin + u, origin + u + v, origin + v]
        for start, end in zip(ring, [*ring[1:], ring[0]], strict=True):
            p, q = self._corner(start), self._corner(end)
            middle = self._corner((start + end) // 2) if level > 0 else np.full(len(p), -1)
            whole, cut = middle < 0, middle >= 0
            self.tets.append(np.stack([p, q, first, second], 1)[whole])
            self.tets.append(np.stack([p, middle, first, second], 1)[cut])
            self.tets.append(np.stack([middle, q, first, second], 1)[cut])

    def _between_equals(self, level: int, axis: int) -> None:
        centre = self.centre_id[level]
        below, above = _pairs(centre, axis)
        both = (below >= 0) & (above >= 0) & np.logical_or(*_pairs(self.useful[level], axis))
        origin = (np.argwhere(both) + _unit(axis)) << level
        self._fan(below[both], above[both], origin, level, axis)

    def _between_sizes(self, level: int, axis: int, *, fine_above: bool) -> None:
        """Join a cube and the four half as large behind one of its faces."""
        centres, split = _pairs(self.centre_id[level], axis), _pairs(self.split[level], axis)
        centre, refined = centres[not fine_above], split[fine_above]
        where = (centre >= 0) & refined & np.logical_or(*_pairs(self.useful[level], axis))
        index = np.argwhere(where)
        coarse = centre[where]
        origin = (index + _unit(axis)) << level
        u, v = (_unit(other) << (level - 1) for other in range(3) if other != axis)
        middle = self._corner(origin + u + v)
        child = 2 * (index + _unit(axis)) - (0 if fine_above else _unit(axis))
        for s, t in np.ndindex(2, 2):
            offset = [_unit(other) * bit for other, bit in zip([o for o in range(3) if o != axis], (s, t), strict=True)]
            fine = self.centre_id[level - 1][tuple((child + offset[0] + offset[1]).T)]
            corner = self._corner(origin + 2 * (s * u + t * v))
            for side in (origin + 2 * s * u + v, origin + u + 2 * t * v):
                triangle = [middle, corner, self._corner(side)]
                self.tets += [np.stack([*triangle, coarse], 1), np.stack([*triangle, fine], 1)]

    def _at_the_box(self, level: int, axis: int) -> None:
        """Close the lattice at the two faces of the box."""
        for side in range(2):
            layer = self.centre_id[level].take(-side, axis)
            there = (layer >= 0) & self.useful[level].take(-side, axis)
            position = np.insert(np.argwhere(there), axis, side * self.centre_id[level].shape[axis], axis=1)
            self._fan(layer[there], self.face_id[level, axis, side][there], position << level, level, axis)


def _unit(axis: int) -> _Ids:
    return np.asarray(np.eye(3, dtype=np.int64)[axis])


def _pairs[T: np.generic](array: NDArray[T], axis: int) -> tuple[NDArray[T], NDArray[T]]:
    """Return every cube but the last along an axis, and its neighbour above."""
    n = array.shape[axis]
    return array.take(range(n - 1), axis), array.take(range(1, n), axis)


def signed_volumes(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (b − a) · ((c − a) × (d − a)) / 6 of tetrahedra with vertices (4, 3, m): (m,)."""
    a, b, c = corners[1:] - corners[0]
    return np.asarray(
        (a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0]))
        / 6
    )
