r"""How a dose may be changed: trilinear on a coarse grid of nodes around the clinical target, and nothing beyond.

    D(x) = D₀(x) + Δ(x),   Δ(x) = M(x) Σ_i c_i B_i(x),   D_k = D₀,k (1 + Δ/D₀)   for every course k

B_i are hat functions of nodes a few mm apart, c_i Gy, M is 1 where D₀ > 0. Courses share the change as they share the
dose. A trilinear Δ lies between its nodes' values, so that bounds kept at the nodes hold in every voxel.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.therapy import DoseMap, TherapyPlan

Array = NDArray[np.float64]
Box = tuple[slice, slice, slice]

MOST_NODES = 1000
"""Nodes that may change, about: larger regions get coarser nodes."""

FINEST = 4.0
"""mm. Nodes are not closer than that."""


@dataclass(frozen=True, eq=False)
class DoseControl:
    """The nodes.

    Parameters
    ----------
    grid
        The patient's grid.
    dose
        D₀ of all courses, Gy, shape ``grid.shape``.
    box
        Voxels between the outermost nodes.
    step
        Voxels from node to node along each axis.
    active
        Nodes that may change, (a, b, c).
    """

    grid: Grid
    dose: Array
    box: Box
    step: tuple[int, int, int]
    active: BoolArray

    @classmethod
    def around(cls, region: BoolArray, dose: Array, grid: Grid, spacing: float | None = None) -> "DoseControl":
        """Return the nodes whose hats lie within `region` to at least one voxel.

        Parameters
        ----------
        region
            Where the dose may change, shape ``grid.shape``.
        dose
            D₀, Gy.
        spacing
            mm; None: `FINEST`, or so that there are about `MOST_NODES`.

        Raises
        ------
        InputError
            No voxel of the region has a dose.
        """
        region = region & (dose > 0)
        if not region.any():
            raise InputError("optimise: expected dose around the target, got none there. Check plan and target.")
        if spacing is None:
            volume = float(np.count_nonzero(region)) * grid.voxel_volume
            spacing = max(FINEST, (volume / MOST_NODES) ** (1 / 3))
        a, b, c = (max(1, round(spacing / size)) for size in grid.voxel_size)
        step, box, counts = (a, b, c), [], []
        for part, h, size in zip(ndimage.find_objects(region.astype(np.uint8))[0], step, grid.shape, strict=True):
            first = max(0, part.start - h)
            count = max(1, min(-(-(part.stop + h - first) // h), (size - 1 - first) // h))
            box.append(slice(first, first + count * h + 1))
            counts.append(count + 1)
        inside = region[tuple(box)]
        wide = ndimage.maximum_filter(inside.astype(np.uint8), size=[2 * h - 1 if h > 1 else 1 for h in step]) > 0
        active = wide[tuple(slice(None, None, h) for h in step)].copy()
        for axis, count in enumerate(counts):  # nothing changes at the faces of the box, nor beyond
            edge = np.moveaxis(active, axis, 0)
            edge[[0, count - 1]] = False
        if not active.any():
            raise InputError("optimise: expected a region of several nodes, got one too small. Refine the nodes.")
        return cls(grid, dose, (box[0], box[1], box[2]), step, active)

    @property
    def size(self) -> int:
        """Number of nodes that may change."""
        return int(np.count_nonzero(self.active))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of the nodes along each axis, mm."""
        x, y, z = (float(h * size) for h, size in zip(self.step, self.grid.voxel_size, strict=True))
        return x, y, z

    @cached_property
    def inside(self) -> BoolArray:
        """M in the box."""
        return np.asarray(self.dose[self.box] > 0)

    @cached_property
    def _hats(self) -> tuple[Array, Array, Array]:
        """Hat functions along each axis, (voxels, nodes)."""
        hats = []
        for nodes, h in zip(self.active.shape, self.step, strict=True):
            place = np.arange((nodes - 1) * h + 1) / h
            hats.append(np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(nodes))))
        return hats[0], hats[1], hats[2]

    def change(self, nodes: Array) -> Array:
        """Return Δ in the box, Gy, from c at the active nodes, (n,)."""
        full = np.zeros(self.active.shape)
        full[self.active] = nodes
        x, y, z = self._hats
        return np.asarray(np.where(self.inside, np.einsum("ia,jb,kc,abc->ijk", x, y, z, full, optimize=True), 0.0))

    def gathered(self, per_voxel: Array) -> Array:
        """Return Σ_x B_i(x) f(x) at the active nodes, (n,), of f in the box: the transpose of `change`."""
        x, y, z = self._hats
        full = np.einsum("ia,jb,kc,ijk->abc", x, y, z, np.where(self.inside, per_voxel, 0.0), optimize=True)
        return np.asarray(full[self.active])

    def hats_at(self, voxels: NDArray[np.intp]) -> sparse.csr_array:
        """Return B_i(x) at voxels of the box, (m, 3) → (m, n); M is not in it."""
        number = np.full(self.active.shape, -1)
        number[self.active] = np.arange(self.size)
        low = np.minimum(voxels // self.step, np.array(self.active.shape) - 2)
        share = voxels / np.array(self.step) - low
        rows, columns, values = [], [], []
        for corner in product((0, 1), repeat=3):
            weight = np.prod(np.where(np.array(corner), share, 1 - share), axis=1)
            node = number[tuple((low + corner).T)]
            keep = (node >= 0) & (weight > 0)
            rows.append(np.flatnonzero(keep))
            columns.append(node[keep])
            values.append(weight[keep])
        place = (np.concatenate(rows), np.concatenate(columns))
        return sparse.csr_array((np.concatenate(values), place), shape=(len(voxels), self.size))

    @cached_property
    def movable(self) -> BoolArray:
        """Voxels of the box at which the gradient of Δ may change and that have six neighbours with a dose."""
        reach = self.change(np.ones(self.size)) > 0
        return np.asarray(ndimage.binary_dilation(reach, np.ones((3, 3, 3), bool)) & interior(self.inside))

    @cached_property
    def samples(self) -> NDArray[np.intp]:
        """The `movable` voxels on nodes and in the middle between eight of them, (m, 3)."""
        thin = np.zeros(self.inside.shape, bool)
        thin[tuple(slice(None, None, h) for h in self.step)] = True
        thin[tuple(slice(h // 2, None, h) for h in self.step)] = True
        return np.argwhere(thin & self.movable)

    def gradient_rows(self, voxels: NDArray[np.intp]) -> sparse.csr_array:
        """Return central differences of Δ at `movable` voxels, (m, 3): Gy/mm, (3 m, n)."""
        rows = []
        for axis, size in enumerate(self.grid.voxel_size):
            one = np.eye(3, dtype=np.intp)[axis]
            rows.append((self.hats_at(voxels + one) - self.hats_at(voxels - one)) / (2 * size))
        return sparse.csr_array(sparse.vstack(rows, format="csr"))

    def bounds(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Return bounds of c at the active nodes that keep Δ within `low` and `high`, Gy, in every voxel of the box."""
        size = [2 * h - 1 for h in self.step]
        pick = tuple(slice(None, None, h) for h in self.step)
        least = ndimage.maximum_filter(np.where(self.inside, low, -np.inf), size=size, mode="nearest")
        most = ndimage.minimum_filter(np.where(self.inside, high, np.inf), size=size, mode="nearest")
        lower, upper = least[pick][self.active], most[pick][self.active]
        return np.maximum(lower, -1e3), np.minimum(upper, 1e3)

    def plan(self, plan: TherapyPlan, nodes: Array) -> TherapyPlan:
        """Return the plan with the change of c, (n,), in all its courses."""
        factor = np.ones(self.box_shape)
        np.divide(self.change(nodes), self.dose[self.box], out=factor, where=self.inside)
        factor[self.inside] += 1.0
        courses = []
        for course in plan.active.courses:
            values = course.dose.values.copy()
            values[self.box] = values[self.box] * np.maximum(factor, 0.0)
            courses.append(replace(course, dose=DoseMap(values, self.grid)))
        return TherapyPlan(tuple(courses), plan.drugs, plan.resections)

    @property
    def box_shape(self) -> tuple[int, ...]:
        """Shape of the box, voxels."""
        return self.inside.shape


def interior(inside: BoolArray) -> BoolArray:
    """Return the voxels whose six neighbours lie inside too."""
    return np.asarray(ndimage.binary_erosion(inside, border_value=0))


def steepness(dose: NDArray[np.floating], grid: Grid, where: BoolArray | None = None) -> Array:
    """Return |∇D| by central differences, Gy/mm, 0 where a neighbour has no dose, and outside of `where`."""
    valid = interior(np.asarray(dose > 0)) if where is None else interior(np.asarray(dose > 0)) & where
    square = np.zeros(dose.shape)
    for axis, size in enumerate(grid.voxel_size):
        values = np.moveaxis(np.asarray(dose, np.float64), axis, 0)
        part = np.moveaxis(square, axis, 0)
        part[1:-1] += ((values[2:] - values[:-2]) / (2 * size)) ** 2
    return np.where(valid, np.sqrt(square), 0.0)


def shares(plan: TherapyPlan, dose: Array, box: Box) -> Iterable[Array]:
    """Yield what share of D₀ every course gives, in the box."""
    for course in plan.active.courses:
        part = np.zeros(dose[box].shape)
        np.divide(course.dose.values[box], dose[box], out=part, where=dose[box] > 0)
        yield part
