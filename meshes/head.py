"""The head's mesh, on which the tissue's equilibrium is solved: everything inside the skull, brain and CSF.

The mask of the three tissues, holes filled, is meshed with the same graded lattice as the brain, but coarser: mechanics
spreads over centimetres. CSF is a soft tissue, so its share of every cell is kept, and the share that belongs to the
ventricles. The vertices on the outer faces lie at the skull and are fixed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray
from hybridtumor.meshes.lattice import Lattice, TetMesh
from hybridtumor.meshes.pieces import carrying_piece
from hybridtumor.meshes.quality import face_neighbours
from hybridtumor.meshes.sizes import around_tumour, box_of
from hybridtumor.meshes.transfer import GridTransfer, cell_means
from hybridtumor.meshes.voxel_samples import sampled
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
    if ventricles.shape != grid.shape:
        raise InputError(
            f"head mesh: expected a mask of ventricles of the grid's shape {grid.shape}, got {ventricles.shape}."
        )
    head = np.asarray(ndimage.binary_fill_holes(tissue.head))
    if not head.any():
        raise InputError("head mesh: expected a head, found no voxel with tissue.")
    sizes = {"margin_mm": MARGIN, "finest": cell_size_mm, "coarsest": coarsest_mm}
    size = around_tumour(np.asarray(near, np.float32), grid, **sizes)
    lattice = Lattice.graded(*box_of(head, grid), size, finest=cell_size_mm, coarsest=coarsest_mm)
    samples = sampled(lattice, grid, head)
    mesh = lattice.mesh(samples.cubes())
    solid = np.where(head, np.minimum(tissue.white + tissue.grey, 1), 0)
    spacing = 2 * float(grid.voxel_size.min())
    share, brain, inner = cell_means(mesh, grid, [head, solid, ventricles & head], spacing=spacing)
    keep = carrying_piece(mesh, share > MIN_HEAD, samples.node_share() * grid.voxel_volume)
    if not keep.any():
        raise InputError(f"head mesh: expected a head thicker than the cell size of {cell_size_mm:g} mm. Choose less.")
    used = np.zeros(len(mesh.points), bool)
    used[mesh.cells[keep]] = True
    mesh, share, brain, inner = mesh.submesh(keep), share[keep], brain[keep], inner[keep]
    csf = np.clip(1 - brain / share, 0, 1)  # rounding of the float32 sums
    outer = np.unique(face_neighbours(mesh)[1])
    return HeadMesh(
        mesh, csf, np.minimum(inner / share, csf), outer, GridTransfer(mesh, grid, head, samples.operator(used))
    )
