r"""From the grid to the mesh and back, without losing a cell of tumour.

Let P_vi be the mean of the barycentric coordinate λᵢ over voxel v of the domain: every row adds up to one, no entry is
negative. With the voxel volume V each node carries

    mᵢ = V Σ_v P_vi                     (its share of the domain, mm³)
    uᵢ = V Σ_v P_vi n_v / mᵢ            grid → mesh, a weighted mean
    n_v = Σ_i P_vi uᵢ                   mesh → grid, P1 interpolation

Both ways conserve the burden, Σ mᵢ uᵢ = V Σ_v n_v, keep constants and never leave the range of the values they are
given. With the mᵢ as lumped mass the whole line from image to forecast therefore counts every cell once.

The mean over a voxel is taken over sample points, so many that they lie at most half a lattice spacing apart where the
mesh is fine. A sample outside the mesh (cortex that the lattice cannot follow) takes the tetrahedron whose centroid is
nearest, with its coordinates cut at zero.
"""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray, Grid
from hybridtumor.meshes.lattice import TetMesh
from hybridtumor.meshes.quality import barycentric_gradients, longest_edges

_TOLERANCE = 1e-9
"""Barycentric coordinates down to minus this count as inside; neighbours agree on their common face."""

_TIE_BREAK = np.array([1.0e-4, 1.7e-4, 0.6e-4])
"""Shift (mm) of points before their nearest tetrahedron or voxel is sought: the choice must not hang on rounding."""

_FINEST_READING = 4
"""Points per edge at which the voxels under a cell are read: 20 in all, enough for a mean."""

_BLOCK = 1 << 14
"""Tetrahedra that are tested together; their coordinates fit the cache."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Sample points of a domain's voxels and where they lie in a mesh.

    Parameters
    ----------
    voxel
        Number of the voxel among those of the domain in C order, (k,).
    points
        Positions, (k, 3), world RAS+ mm.
    share
        One over the number of samples of the voxel, (k,).
    cell
        Tetrahedron that holds the point, (k,); −1 where there is none.
    weight
        Barycentric coordinates in it, (k, 4), ≥ 0, adding up to 1.
    """

    voxel: NDArray[np.int64]
    points: NDArray[np.float64]
    share: NDArray[np.float64]
    cell: NDArray[np.int64]
    weight: NDArray[np.float64]

    def restricted(self, keep: NDArray[np.bool_]) -> "Samples":
        """Return the samples for the mesh that keeps only the cells marked in `keep`."""
        number = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)
        return Samples(self.voxel, self.points, self.share, number[self.cell], self.weight)

    def node_share(self, mesh: TetMesh, among: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return how many voxels every vertex carries, (n,), by the samples in the cells marked in `among`, (m,)."""
        inside = np.flatnonzero(np.append(among, False)[self.cell])
        weight = self.weight[inside] * self.share[inside, None]
        return np.bincount(mesh.cells[self.cell[inside]].ravel(), weight.ravel(), minlength=len(mesh.points))


@dataclass(frozen=True, eq=False)
class GridTransfer:
    """The way between a grid and a mesh.

    Parameters
    ----------
    mesh, grid
        Mesh and grid, both in world RAS+ mm.
    domain
        Voxels that the mesh stands for, shape ``grid.shape``.
    samples
        Where the samples of `locate_samples` lie in the mesh, or P itself, if that is known already.

    Attributes
    ----------
    operator
        P, sparse (domain voxels in C order, n): rows add up to 1, entries ≥ 0.
    node_volume
        m, (n,), mm³, positive.

    Raises
    ------
    InputError
        The domain is empty or has another shape, or a vertex gets no share of it.
    """

    mesh: TetMesh
    grid: Grid
    domain: BoolArray
    samples: InitVar["Samples | sparse.csr_array | None"] = None
    operator: sparse.csr_array = field(init=False)
    node_volume: NDArray[np.float64] = field(init=False)

    def __post_init__(self, samples: "Samples | sparse.csr_array | None") -> None:
        domain = np.asarray(self.domain, bool)
        if domain.shape != self.grid.shape or not domain.any():
            raise InputError(
                f"transfer: expected a mask of shape {self.grid.shape} with at least one voxel, got {domain.shape}."
            )
        count = int(np.count_nonzero(domain))
        if isinstance(samples, sparse.csr_array):
            operator = samples
        else:
            operator = _operator(self.mesh, samples or locate_samples(self.mesh, self.grid, domain), count)
        volume = self.grid.voxel_volume * (operator.T @ np.ones(count))
        if not (volume > 0).all():
            operator = _operator(self.mesh, locate_samples(self.mesh, self.grid, domain, starved=volume <= 0), count)
            volume = self.grid.voxel_volume * (operator.T @ np.ones(count))
        if not (volume > 0).all():
            raise InputError(
                f"transfer: expected every vertex to carry some of the domain, {int((volume <= 0).sum())} carry none."
                " Drop the cells outside the domain, or use larger cells."
            )
        object.__setattr__(self, "domain", domain)
        object.__setattr__(self, "operator", operator)
        object.__setattr__(self, "node_volume", volume)

    def to_mesh(self, values: FloatArray) -> NDArray[np.float64]:
        """Average an array on the grid, shape ``grid.shape``, around every vertex: (n,)."""
        if values.shape != self.grid.shape:
            raise InputError(f"transfer: expected an array of the grid's shape {self.grid.shape}, got {values.shape}.")
        inside = np.asarray(values[self.domain], np.float64)
        result: NDArray[np.float64] = self.grid.voxel_volume * (self.operator.T @ inside) / self.node_volume
        return result

    def nodal_values(self, density: FloatArray) -> NDArray[np.float64]:
        """Return the values of a density, shape ``grid.shape``, at the vertices: (n,).

        `to_mesh` averages over the cells around a vertex; that raises the foot of a front by a factor A and lowers what
        stands out. Here the mean of u and of one step of Richardson and Lucy from it is taken (Richardson, J. Opt. Soc.
        Am. 1972), (A + 1/A)/2 ≈ 1: it conserves the burden and keeps zeros and constants just as `to_mesh` does. Where
        it would leave the range of the density, all of it stays so much nearer to the average.
        """
        average = self.to_mesh(density)
        inside = np.asarray(density[self.domain], np.float64)
        drawn = self.operator @ average
        ratio = np.divide(inside, drawn, out=np.zeros_like(inside), where=drawn > 0)
        change = average * (self.grid.voxel_volume * (self.operator.T @ ratio) / self.node_volume - 1) / 2
        high, low = inside.max(), inside.min()
        room = np.maximum(np.where(change > 0, high - average, average - low), 0)
        beyond = np.abs(change) > room + _TOLERANCE
        share = float((room[beyond] / np.abs(change[beyond])).min()) if beyond.any() else 1.0
        return np.asarray(np.clip(average + share * change, low, high))  # clips round-off alone

    def to_grid(self, nodal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate nodal values, (n,), to the grid, shape ``grid.shape``; 0 outside the domain."""
        if np.shape(nodal) != self.node_volume.shape:
            raise InputError(
                f"transfer: expected one value per vertex, shape {self.node_volume.shape}, got {np.shape(nodal)}."
            )
        result = np.zeros(self.grid.shape)
        result[self.domain] = self.operator @ nodal
        return result

    def to_mesh_transposed(self, slopes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ∂J/∂(values on the grid), shape ``grid.shape``, from ∂J/∂(what `to_mesh` makes of them), (n,)."""
        result = np.zeros(self.grid.shape)
        result[self.domain] = self.grid.voxel_volume * (self.operator @ (slopes / self.node_volume))
        return result

    def to_grid_transposed(self, slopes: FloatArray) -> NDArray[np.float64]:
        """Return ∂J/∂(nodal values), (n,), from ∂J/∂(what `to_grid` makes of them), shape ``grid.shape``."""
        result: NDArray[np.float64] = self.operator.T @ np.asarray(slopes[self.domain], np.float64)
        return result


def locate_samples(
    mesh: TetMesh, grid: Grid, domain: BoolArray, *, starved: NDArray[np.bool_] | None = None
) -> Samples:
    """Place sample points in the voxels of the domain and find the tetrahedra that hold them.

    A voxel that is coarse for the cells it touches gets so many points that they lie half an edge apart or closer; the
    others get one. Around the vertices marked in `starved`, (n,), which no point reached, they lie three times closer.
    """
    longest = longest_edges(mesh.corners)
    dense = np.maximum(1, np.ceil(2 * grid.voxel_size / longest.min() - 1e-6)).astype(int)
    sampling = [np.ones(3, int), dense, 3 * dense]
    kind = np.zeros(grid.shape, np.int8)
    if dense.max() > 1:
        small = (2 * grid.voxel_size[:, None] > longest * (1 + 1e-6)).any(0)
        kind[_touched(mesh.points[np.unique(mesh.cells[small])], grid)] = 1
    if starved is not None:
        around = starved[mesh.cells].any(1)
        kind[_touched(mesh.points[np.unique(mesh.cells[around])], grid)] = 2
    number = np.full(grid.shape, -1)
    number[domain] = np.arange(np.count_nonzero(domain))
    parts = [
        _placed(mesh, grid, np.where(kind == which, number, -1), sampling[which])
        for which in range(3)
        if (number[kind == which] >= 0).any()
    ]
    return Samples(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _touched(points: NDArray[np.float64], grid: Grid) -> BoolArray:
    """Mark the voxels in which points lie, and the voxels around them."""
    mark = np.zeros(grid.shape, bool)
    index = grid.index(points)
    for shift in np.ndindex(2, 2, 2):  # a point on the border of two voxels marks both, whichever way the axes run
        voxel = np.rint(index + (np.array(shift) - 0.5) * 2e-6).astype(int)
        inside = ((voxel >= 0) & (voxel < grid.shape)).all(1)
        mark[tuple(voxel[inside].T)] = True
    return np.asarray(ndimage.binary_dilation(mark, np.ones((3, 3, 3), bool)))


def _placed(
    mesh: TetMesh, grid: Grid, number: NDArray[np.int64], per_voxel: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the fields of `Samples` for the voxels with a number ≥ 0, with `per_voxel` points along each axis."""
    start = np.array([i.min() for i in np.nonzero(number >= 0)])
    stop = np.array([i.max() + 1 for i in np.nonzero(number >= 0)])
    number = number[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    # sample s of the finer grid lies at voxel index start + (s + 1/2)/k − 1/2
    scale = np.diag([*(1 / per_voxel), 1.0])
    scale[:3, 3] = start + 0.5 / per_voxel - 0.5
    extents = (stop - start) * per_voxel
    fine = Grid((int(extents[0]), int(extents[1]), int(extents[2])), grid.affine @ scale)
    for axis in range(3):
        number = number.repeat(per_voxel[axis], axis)
    wanted = number >= 0
    cell, weight = _located(mesh, fine, wanted)
    voxel = number[wanted]
    return voxel, fine.world(np.argwhere(wanted)), np.full(len(voxel), 1 / np.prod(per_voxel)), cell, weight


def _located(mesh: TetMesh, grid: Grid, wanted: BoolArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the tetrahedron, (k,), −1 for none, and the barycentric coordinates, (k, 4), of wanted points of a grid.

    Every tetrahedron tests the points of its bounding box; tetrahedra whose boxes are equally large go together.
    """
    owner = np.full(wanted.size, -1)
    weight = np.zeros((wanted.size, 4))
    corners = _in_voxels(mesh, grid)
    slack, last = 1e-6, np.array(grid.shape)[:, None] - 1
    low = np.maximum(np.ceil(_reduce(np.minimum, corners) - slack).astype(np.int64), 0)
    high = np.minimum(np.floor(_reduce(np.maximum, corners) + slack).astype(np.int64), last)
    span = high - low + 1
    candidates = np.flatnonzero(_reduce(np.minimum, span) > 0)
    span = span[:, candidates]
    key = np.ravel_multi_index(tuple(span), tuple(span.max(1, initial=0) + 1))
    kinds, kind = np.unique(key, return_inverse=True)
    by_kind = np.split(candidates[np.argsort(kind.astype(np.uint16), kind="stable")], np.cumsum(np.bincount(kind))[:-1])
    strides = np.array([grid.shape[1] * grid.shape[2], grid.shape[2], 1])
    flat = wanted.ravel()
    for members in by_kind[: len(kinds)]:
        extent = (high - low)[:, members[0]] + 1
        for begin in range(0, len(members), _BLOCK):
            block = members[begin : begin + _BLOCK]
            own = corners[:, :, block]
            step = np.ascontiguousarray(barycentric_gradients(own).swapaxes(0, 1))
            first = np.einsum("djc,dc->jc", step, low[:, block] - own[0])
            first[0] += 1
            position = strides @ low[:, block]
            for i, j in np.ndindex(int(extent[0]), int(extent[1])):
                row = first + i * step[0] + j * step[1]
                for k in range(int(extent[2])):
                    inside = np.flatnonzero(_reduce(np.minimum, row) >= -_TOLERANCE)
                    sample = position[inside] + (i * strides[0] + j * strides[1] + k)
                    later = block[inside] > owner[sample]  # on a common face, the same cell wins whatever the axes
                    sample, inside = sample[later], inside[later]
                    owner[sample] = block[inside]
                    weight[sample] = row[:, inside].T
                    row += step[2]
    return owner[flat], _clamped(weight[flat])


def _in_voxels(mesh: TetMesh, grid: Grid) -> NDArray[np.float64]:
    """Return the vertices of every cell in voxel indices, (4, 3, m): vertex, axis, cell."""
    return TetMesh(grid.index(mesh.points), mesh.cells).corners


def _reduce[T: np.generic](operation: np.ufunc, arrays: NDArray[T]) -> NDArray[T]:
    """Reduce along the short first axis, one long row after the other."""
    result: NDArray[T] = arrays[0].copy()
    for row in arrays[1:]:
        operation(result, row, out=result)
    return result


def _clamped(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut barycentric coordinates at zero and make them add up to one again; rows of zeros stay."""
    weight = np.maximum(weight, 0)
    total = (weight[:, 0] + weight[:, 1] + weight[:, 2] + weight[:, 3])[:, None]
    return weight / np.where(total > 0, total, 1)


def _operator(mesh: TetMesh, samples: Samples, count: int) -> sparse.csr_array:
    """Assemble P for `count` voxels; a sample outside the mesh goes to the tetrahedron whose centroid is nearest."""
    cell, weight = samples.cell, samples.weight
    outside = np.flatnonzero(cell < 0)
    if len(outside):
        cell, weight = cell.copy(), weight.copy()
        points = samples.points[outside]
        corners = mesh.corners
        tree = cKDTree(corners.mean(0).T, balanced_tree=False, compact_nodes=False)
        cell[outside] = tree.query(points + _TIE_BREAK)[1]
        own = corners[:, :, cell[outside]]
        nearest = np.einsum("jdc,dc->cj", barycentric_gradients(own), points.T - own[0])
        nearest[:, 0] += 1
        weight[outside] = _clamped(nearest)
    entries = (weight * samples.share[:, None]).ravel()
    rows = np.repeat(samples.voxel.astype(np.int32), 4)
    columns = mesh.cells[cell].astype(np.int32).ravel()
    operator = sparse.csr_array(sparse.coo_array((entries, (rows, columns)), shape=(count, len(mesh.points))))
    operator.eliminate_zeros()
    return operator


def cell_means(
    mesh: TetMesh, grid: Grid, fields: Sequence[FloatArray | BoolArray], *, spacing: float
) -> NDArray[np.float64]:
    """Average fields on the grid over every cell, (len(fields), m).

    The voxels are read (0 beyond the grid) at points of a barycentric lattice in the cell, at most about `spacing` mm
    apart, but no more than `_FINEST_READING` points per edge. With s points per edge they are λ = (k + 1/4)/s over all
    k ≥ 0 with k₁ + … + k₄ = s − 1; their mean is the centroid.
    """
    result = np.empty((len(fields), len(mesh.cells)))
    order = np.maximum(1, np.ceil(longest_edges(mesh.corners) / spacing - 1e-6)).astype(int)
    order = np.minimum(order, _FINEST_READING)
    vertices = grid.index(mesh.points + _TIE_BREAK)
    low = np.clip(np.floor(vertices.min(0)), 0, grid.shape).astype(int)
    high = np.clip(np.ceil(vertices.max(0)) + 1, 0, grid.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, np.maximum(low, high), strict=True))
    volumes = [np.pad(np.asarray(field[box], np.float32), 1).ravel() for field in fields]
    shape = np.maximum(high - low, 0) + 2
    corners = TetMesh(vertices - (low - 1.5), mesh.cells).corners  # so that the whole part is the padded voxel
    strides, last = np.array([shape[1] * shape[2], shape[2], 1]), (shape - 1)[:, None]
    for s in np.unique(order):
        members = np.flatnonzero(order == s)
        k = np.array([(*i, s - 1 - sum(i)) for i in np.ndindex(s, s, s) if sum(i) < s])
        for start in range(0, len(members), _BLOCK):
            block = members[start : start + _BLOCK]
            own = corners[:, :, block].reshape(4, -1)
            places = (((k + 0.25) / s) @ own).reshape(len(k), 3, -1).clip(0, last).astype(np.int64)
            read = np.einsum("d,kdc->kc", strides, places)
            for row, volume in zip(result, volumes, strict=True):
                row[block] = volume[read].mean(0, dtype=np.float64)
    return result
