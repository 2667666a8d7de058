"""The head's mesh, on which the tissue's equilibrium is solved: everything inside the skull, brain and CSF.

The mask of the three tissues, holes filled, is meshed with the same graded lattice as the brain, but coarser: mechanics
spreads over centimetres. CSF is a soft tissue, so its share of every cell is kept, and the share that belongs to the
ventricles. The vertices on the outer faces lie at the skull and are fixed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray
from hybridtumor.meshes.lattice import TetMesh, graded_lattice
from hybridtumor.meshes.pieces import largest_piece
from hybridtumor.meshes.quality import face_neighbours
from hybridtumor.meshes.transfer import GridTransfer, cell_means
from hybridtumor.tissue import TissueMap

VISIBLE_DENSITY = 0.01
"""The mesh is fine within a margin of where the density exceeds this."""

MARGIN = 10.0
"""Distance from the tumour up to which the cells are fine, mm."""

SLOPE = 1.0
"""Growth of the wanted cell size per mm beyond the margin."""

MIN_HEAD = 0.5
"""Share of the head from which a cell belongs to the mesh."""


@dataclass(frozen=True, eq=False)
class HeadMesh:
    """A mesh of the inside of the skull with its CSF.

    Parameters
    ----------
    mesh
        Tetrahedra, one face-connected piece, world RAS+ mm.
    csf
        Share of every cell that is CSF, (m,), in [0, 1].
    ventricle
        Share of every cell that is CSF of the ventricles, (m,), at most `csf`.
    outer
        Vertices on the outer boundary, (k,), which are fixed.
    transfer
        The way between the patient's grid and the mesh; its domain is the head.
    """

    mesh: TetMesh
    csf: NDArray[np.float64]
    ventricle: NDArray[np.float64]
    outer: NDArray[np.int64]
    transfer: GridTransfer


def head_mesh(
    tissue: TissueMap,
    near: FloatArray | BoolArray,
    *,
    ventricles: BoolArray | None = None,
    cell_size_mm: float = 4.0,
    coarsest_mm: float = 8.0,
) -> HeadMesh:
    """Mesh the inside of the skull.

    Parameters
    ----------
    tissue
        Tissue fractions on the patient's grid.
    near
        Density (or mask) of the tumour on the same grid: around it the mesh is fine.
    ventricles
        Mask of the ventricles on the same grid; none by default.
    cell_size_mm, coarsest_mm
        Lattice spacing near the tumour, and the largest allowed far away.

    Raises
    ------
    InputError
        Arrays of another shape, sizes out of order, or a head too thin for the cell size.
    """
    grid = tissue.grid
    if ventricles is None:
        ventricles = np.zeros(grid.shape, bool)
    for name, array in (("density", near), ("mask of ventricles", ventricles)):
        if array.shape != grid.shape:
            raise InputError(f"head mesh: expected a {name} of the grid's shape {grid.shape}, got {array.shape}.")
    if not 0 < cell_size_mm <= coarsest_mm:
        raise InputError(f"head mesh: expected 0 < cell size ≤ coarsest, got {cell_size_mm:g} and {coarsest_mm:g} mm.")
    head = np.asarray(ndimage.binary_fill_holes(tissue.head))
    lattice = _lattice(tissue, head, np.asarray(near > VISIBLE_DENSITY), cell_size_mm, coarsest_mm)
    solid = np.where(head, np.minimum(tissue.white + tissue.grey, 1), 0)
    spacing = 2 * float(grid.voxel_size.min())
    share, brain, inner = cell_means(lattice, grid, [head, solid, ventricles & head], spacing=spacing)
    keep = share > MIN_HEAD
    if not keep.any():
        raise InputError(f"head mesh: expected a head thicker than the cell size of {cell_size_mm:g} mm. Choose less.")
    keep[keep] = largest_piece(lattice.submesh(keep))
    mesh, share, brain, inner = lattice.submesh(keep), share[keep], brain[keep], inner[keep]
    csf = np.clip(1 - brain / share, 0, 1)  # rounding of the float32 interpolation
    outer = np.unique(face_neighbours(mesh)[1])
    return HeadMesh(mesh, csf, np.minimum(inner / share, csf), outer, GridTransfer(mesh, grid, head))


def _lattice(tissue: TissueMap, head: BoolArray, fine: BoolArray, finest: float, coarsest: float) -> TetMesh:
    """Fill the box of the head with a lattice that is fine around the voxels marked in `fine`."""
    grid = tissue.grid
    if not head.any():
        raise InputError("head mesh: expected a head, found no voxel with tissue.")
    centres = grid.world(np.argwhere(head))
    half = np.abs(grid.affine[:3, :3]).sum(1) / 2
    tumour = grid.world(np.argwhere(fine))
    tree = cKDTree(tumour) if len(tumour) else None

    def size(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if tree is None:
            return np.full(len(points), coarsest)
        return np.asarray(finest + SLOPE * np.maximum(tree.query(points)[0] - MARGIN, 0))

    return graded_lattice(centres.min(0) - half, centres.max(0) + half, size, finest=finest, coarsest=coarsest)
