r"""The brain's mesh: fine where the tumour is and will be, coarse elsewhere.

The lattice fills the box of the parenchyma with cubes of edge a(x) = cell size within a margin of the tumour, growing
outwards. A cell with the share φ_c of parenchyma stays when φ_c is large enough, so ventricles and outer CSF are
barriers with stair-steps of one cell; the stiffness is D φ_c, so that cells that are only partly tissue conduct in
proportion to it.

Explicit and uniformisation time steps cost d = max_i K_ii / m_i. A vertex at the border can carry little tissue (m_i)
although its cells conduct well; such a vertex cannot pass on what it does not hold. So wherever K_ii / m_i would exceed
`STIFFNESS_CAP` times the value 8/a² of the uniform lattice (D = 1, a the cell size), the `fraction` of its cells is
scaled down to the cap.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray, Grid
from hybridtumor.meshes.lattice import Lattice, TetMesh
from hybridtumor.meshes.pieces import MIN_FILL, carrying_piece
from hybridtumor.meshes.quality import face_neighbours, stiffness_diagonal, vertex_volumes
from hybridtumor.meshes.transfer import GridTransfer, Samples, cell_means
from hybridtumor.meshes.voxel_samples import sampled
from hybridtumor.tissue import TissueMap

VISIBLE_DENSITY = 0.01
"""The mesh is fine within a margin of where the density exceeds this."""

SLOPE = 1.0
"""Growth of the wanted cell size per mm beyond the margin."""

MIN_PARENCHYMA = 0.45
"""Share of parenchyma from which a cell belongs to the brain: about half; one half itself is met exactly too often."""

READING = 1.5
"""Distance of the points at which the voxels under a cell are read, in voxels."""

STIFFNESS_CAP = 1.25
"""Largest K_ii / m_i allowed, in units of 8/a²."""


@dataclass(frozen=True, eq=False)
class BrainMesh:
    """A mesh of the parenchyma with its tissue.

    Parameters
    ----------
    mesh
        Tetrahedra, one face-connected piece, world RAS+ mm.
    white, grey
        Shares of white and grey matter in the parenchyma of every cell, (m,); they add up to 1.
    fraction
        Share of every cell that is parenchyma and conducts, (m,), in (0, 1]; the stiffness is D · fraction.
    transfer
        The way between the patient's grid and the mesh; its domain is the parenchyma.
    """

    mesh: TetMesh
    white: NDArray[np.float64]
    grey: NDArray[np.float64]
    fraction: NDArray[np.float64]
    transfer: GridTransfer


def brain_mesh(
    tissue: TissueMap, density: FloatArray, *, margin_mm: float, cell_size_mm: float = 2.0, coarsest_mm: float = 8.0
) -> BrainMesh:
    """Mesh the parenchyma of a brain.

    Parameters
    ----------
    tissue
        Tissue fractions on the patient's grid.
    density
        Tumour cell density on day 0 on the same grid.
    margin_mm
        Distance from the tumour up to which the cells stay fine: what the front covers, and a few widths of it.
    cell_size_mm, coarsest_mm
        Lattice spacing near the tumour, and the largest allowed far away.

    Raises
    ------
    InputError
        A density of another shape, sizes out of order, or a brain too thin for the cell size.
    """
    grid, domain = tissue.grid, tissue.parenchyma
    if density.shape != grid.shape:
        raise InputError(f"mesh: expected a density of the grid's shape {grid.shape}, got {density.shape}.")
    if not (0 < cell_size_mm <= coarsest_mm and 0 <= margin_mm < np.inf):
        raise InputError(
            f"mesh: expected 0 < cell size ≤ coarsest and margin ≥ 0, got {cell_size_mm:g}, {coarsest_mm:g}"
            f" and {margin_mm:g} mm."
        )
    tumour = grid.world(_rim(density > VISIBLE_DENSITY))
    tree = cKDTree(tumour) if len(tumour) else None

    def size(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if tree is None:
            return np.full(len(points), coarsest_mm)
        beyond = tree.query(points, distance_upper_bound=margin_mm + coarsest_mm / SLOPE)[0] - margin_mm
        return np.asarray(cell_size_mm + SLOPE * np.maximum(beyond, 0))

    lower, upper = _box(domain, grid)
    lattice = Lattice.graded(lower, upper, size, finest=cell_size_mm, coarsest=coarsest_mm)
    samples = sampled(lattice, grid, domain)
    mesh = lattice.mesh(samples.cubes())
    white_share = np.zeros(grid.shape, np.float32)
    box = tuple(slice(span[0], span[-1] + 1) for span in _spans(domain))
    total = np.maximum(tissue.white[box] + tissue.grey[box], 0.5)  # in the domain it is no less
    white_share[box] = domain[box] * (tissue.white[box] / total)
    spacing = READING * float(grid.voxel_size.min())
    share, white = cell_means(mesh, grid, [domain, white_share], spacing=spacing)
    keep = carrying_piece(mesh, share > MIN_PARENCHYMA, samples.node_share() * grid.voxel_volume)
    if not keep.any():
        raise InputError(
            f"mesh: expected a brain thicker than the cell size of {cell_size_mm:g} mm. Choose smaller cells."
        )
    share, white, used = share[keep], white[keep], np.zeros(len(mesh.points), bool)
    used[mesh.cells[keep]] = True
    mesh = mesh.submesh(keep)
    transfer = GridTransfer(mesh, grid, domain, samples.operator(used))
    stiff = stiffness_diagonal(mesh, share) / transfer.node_volume * (cell_size_mm**2 / 8)
    fraction = np.minimum(share, 1) * np.minimum(1, STIFFNESS_CAP / stiff)[mesh.cells].min(1)
    white = np.clip(white / share, 0, 1)  # rounding of the float32 sums
    return BrainMesh(mesh, white, 1 - white, fraction, transfer)


def _box(domain: BoolArray, grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the opposite corners of the smallest box along the world's axes that holds the voxels of a domain, mm."""
    spans = _spans(domain)
    if np.count_nonzero(grid.affine[:3, :3]) > 3:  # an oblique box would be larger
        centres = grid.world(_rim(domain))
    else:
        centres = grid.world(np.array([[span[side] for span in spans] for side in (0, -1)]))
    half = np.abs(grid.affine[:3, :3]).sum(1) / 2
    return centres.min(0) - half, centres.max(0) + half


def _spans(mask: BoolArray) -> list[NDArray[np.int64]]:
    """Return the indices along each axis at which a mask has voxels."""
    return [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]


def _rim(mask: BoolArray) -> NDArray[np.int64]:
    """Return the indices of the voxels of a mask that touch its outside by a face, (k, 3)."""
    found = ndimage.find_objects(mask.view(np.uint8))
    if not found:
        return np.zeros((0, 3), np.int64)
    inside = mask[found[0]]
    start = np.array([part.start for part in found[0]])
    return np.asarray(np.argwhere(inside & ~ndimage.binary_erosion(inside)) + start)


def _kept(mesh: TetMesh, samples: Samples, voxel_volume: float) -> NDArray[np.bool_]:
    """Tell which cells form the largest face-connected piece all of whose vertices hold some tissue, (m,)."""
    pairs, _ = face_neighbours(mesh)
    keep = np.ones(len(mesh.cells), bool)
    quarters = np.repeat(mesh.volumes[:, None] / 4, 4, axis=1)
    capacity = vertex_volumes(mesh)
    held = samples.node_share(mesh, keep) * voxel_volume
    while True:
        gone = keep & (held < MIN_FILL * capacity)[mesh.cells].any(1)
        if not gone.any():
            gone = keep & ~_largest_piece(pairs, keep)
            if not gone.any():
                return keep
        keep &= ~gone
        held -= samples.node_share(mesh, gone) * voxel_volume
        capacity -= np.bincount(mesh.cells[gone].ravel(), quarters[gone].ravel(), minlength=len(capacity))


def _largest_piece(pairs: NDArray[np.int64], keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which of the kept cells belong to the piece with most cells, (m,)."""
    linked = pairs[keep[pairs].all(1)]
    graph = sparse.coo_array(
        (np.ones(len(linked), np.int8), (linked[:, 0], linked[:, 1])), shape=(len(keep), len(keep))
    )
    _, piece = connected_components(graph, directed=False)
    sizes = np.bincount(piece[keep], minlength=1)
    return np.asarray(keep & (piece == sizes.argmax()))
