"""The voxels of a domain in a lattice: sample points, and the vertices that share them.

A voxel that is coarse for the cells it touches gets so many sample points that they lie half an edge apart or closer.
Where the cells are twice as large as the smallest or larger, and the voxels small, blocks of 2×2×2 voxels share one
sample; every other voxel has one, its centre. What lies in cells that are not part of the mesh goes to those of its
tetrahedron's vertices that are, in proportion, or else to the nearest vertex of the mesh.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from hybridtumor.grid import BoolArray, Grid
from hybridtumor.meshes.lattice import Lattice
from hybridtumor.meshes.locate import locate
from hybridtumor.meshes.sizes import spans_of


@dataclass(frozen=True, eq=False)
class VoxelSamples:
    """Sample points of a domain's voxels and where they lie in a lattice.

    Parameters
    ----------
    lattice
        The lattice.
    count
        Number of voxels of the domain.
    voxel, sample, share
        Which voxels, by number among those of the domain in C order and ascending, have which samples, and the share
        of the voxel that the sample stands for, (p,) each.
    points
        Positions, (k, 3), mm.
    vertices, weights
        Vertices of the tetrahedra that hold the points and the coordinates in them, (k, 4).
    """

    lattice: Lattice
    count: int
    voxel: NDArray[np.int64]
    sample: NDArray[np.int64]
    share: NDArray[np.float64]
    points: NDArray[np.float64]
    vertices: NDArray[np.int32]
    weights: NDArray[np.float64]

    def cubes(self) -> BoolArray:
        """Return which smallest cubes lie in a cube that holds a sample, or stand beside one that does."""
        holds = np.zeros(len(self.lattice.points), bool)
        holds[self.vertices[:, 0]] = True  # the centre of the cube a point lies in
        return np.asarray(ndimage.binary_dilation(holds[self.lattice.centre_of_cube], np.ones((3, 3, 3), bool)))

    def node_share(self) -> NDArray[np.float64]:
        """Return how many voxels every vertex of the lattice carries, (n,)."""
        voxels = np.bincount(self.sample, self.share, minlength=len(self.points))
        weight = self.weights * voxels[:, None]
        return np.bincount(self.vertices.ravel(), weight.ravel(), minlength=len(self.lattice.points))

    def operator(self, used: BoolArray) -> sparse.csr_array:
        """Return P, sparse (voxels, vertices of the mesh), whose rows add up to 1.

        Parameters
        ----------
        used
            Which of the lattice's vertices belong to the mesh, (n,); they keep their order.
        """
        number = np.where(used, np.cumsum(used, dtype=np.int32) - 1, 0).astype(np.int32)
        weights = self.weights * used[self.vertices]
        total = weights @ np.ones(4)
        columns = number[self.vertices]
        lost = np.flatnonzero(total <= 0)
        if len(lost):
            nearest = cKDTree(self.lattice.points[used]).query(self.points[lost])[1]
            columns[lost, 0], weights[lost, 0], total[lost] = nearest, 1, 1
        weights /= total[:, None]
        alone = len(self.voxel) == self.count
        entries = weights[self.sample] if alone else weights[self.sample] * self.share[:, None]
        numbers = np.arange(self.count + 1)
        starts = 4 * (numbers if alone else np.searchsorted(self.voxel, numbers))
        operator = sparse.csr_array(
            (entries.ravel(), columns[self.sample].ravel(), starts.astype(np.int32)),
            shape=(self.count, int(used.sum())),
        )
        if not alone:
            operator.sum_duplicates()
        return operator


def sampled(lattice: Lattice, grid: Grid, domain: BoolArray) -> VoxelSamples:
    """Place sample points in the voxels of a domain and locate them.

    Parameters
    ----------
    lattice
        Fills a box around the domain.
    grid, domain
        The grid, and its voxels that matter, shape ``grid.shape``; at least one.
    """
    count = int(np.count_nonzero(domain))
    if (2 * grid.voxel_size <= lattice.unit.min() * (1 + 1e-6)).all():
        voxel, sample, share, index = _shared(lattice, grid, domain, count)
    else:
        voxel, share, index = _divided(lattice, grid, np.argwhere(domain))
        sample = np.arange(len(voxel))
    points = grid.world(index)
    vertices, weights = locate(lattice, points)
    return VoxelSamples(lattice, count, voxel, sample, share, points, vertices, weights)


def _level_at(lattice: Lattice, points: NDArray[np.float64], reach: int) -> NDArray[np.int64]:
    """Return the lowest level among the leaves within `reach` smallest cubes of points, (k,)."""
    shape = np.array(lattice.split[0].shape)
    lowest = ndimage.minimum_filter(lattice.level_of_cube, size=2 * reach + 1)
    cube = np.clip(((points - lattice.low) / lattice.unit).astype(int), 0, shape - 1)
    return np.asarray(lowest[tuple(cube.T)])


def _shared(
    lattice: Lattice, grid: Grid, domain: BoolArray, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return voxel, sample and share of every pair and the samples' voxel indices, where no voxel needs two samples.

    Voxels are taken in blocks of 2×2×2: all of those in large cells share the block's centre.
    """
    spans = spans_of(domain)
    start, stop = (np.array([span[side] for span in spans]) for side in (0, -1))
    inside = domain[tuple(slice(a, b + 1) for a, b in zip(start, stop, strict=True))]
    inside = np.pad(inside, [(0, n % 2) for n in inside.shape])
    held = inside[::2] | inside[1::2]
    held = held[:, ::2] | held[:, 1::2]
    held = held[:, :, ::2] | held[:, :, 1::2]
    middle = np.argwhere(held) * 2 + start + 0.5
    large = held.copy()
    large[held] = _level_at(lattice, grid.world(middle), 1) > 0
    alone = inside & ~large.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    single = np.argwhere(alone)
    number = np.cumsum(large.ravel(), dtype=np.int32).reshape(large.shape) - 1 + len(single)
    sample = number.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    sample[alone] = np.arange(len(single))
    index = np.concatenate([single + start, middle[large[held]]])
    return np.arange(count), sample[inside].astype(np.int64), np.ones(count), np.asarray(index)


def _divided(
    lattice: Lattice, grid: Grid, index: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return voxel and share of every sample and their places in voxel indices, where voxels need several samples."""
    finest = float(lattice.unit.min())
    reach = int(np.ceil(grid.voxel_size.max() / finest))
    edge = finest * 2.0 ** _level_at(lattice, grid.world(index), reach)
    per_voxel = np.maximum(1, np.ceil(2 * grid.voxel_size / edge[:, None] - 1e-6).astype(int))
    counts = per_voxel.prod(1)
    voxel = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(voxel)) - np.repeat(np.cumsum(counts) - counts, counts)
    own = per_voxel[voxel]
    place = np.stack([number // (own[:, 1] * own[:, 2]), number // own[:, 2] % own[:, 1], number % own[:, 2]], 1)
    return voxel, 1 / counts[voxel], index[voxel] + (place + 0.5) / own - 0.5
