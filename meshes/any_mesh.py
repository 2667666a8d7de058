r"""A brain's mesh from any mesh of tetrahedra.

A cell with the share φ_c of parenchyma stays when φ_c ≥ `MIN_SHARE` and all its vertices hold some tissue; the largest
face-connected piece of these is the brain. Its cells conduct with D φ_c. A cell that its author labelled as white or
grey matter is that matter throughout: φ_c = 1.

A vertex of volume V_i whose cells were full of tissue would have the stiffness K_ii(1) / V_i (D = 1). A vertex at the
border that holds little tissue m_i cannot pass on what it does not hold: where K_ii(φ) / m_i exceeds `STIFFNESS_CAP`
times the former, φ of its cells is scaled down to it.
"""

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.meshes.brain import STIFFNESS_CAP, BrainMesh
from hybridtumor.meshes.lattice import TetMesh
from hybridtumor.meshes.pieces import carrying_piece
from hybridtumor.meshes.quality import stiffness_diagonal, vertex_volumes
from hybridtumor.meshes.transfer import GridTransfer, Samples, cell_means, locate_samples
from hybridtumor.tissue import TissueMap

MIN_SHARE = 0.1
"""Share of parenchyma from which a cell belongs to the brain: the mesh follows the boundary, few cells are partial."""

TISSUES = ("white", "grey", "csf")


def brain_mesh_on(mesh: TetMesh, tissue: TissueMap, labelled: NDArray[np.str_] | None = None) -> BrainMesh:
    """Make a brain's mesh from any mesh of tetrahedra.

    Parameters
    ----------
    mesh
        Covers the parenchyma, world RAS+ mm; cells outside are dropped.
    tissue
        Tissue fractions on the patient's grid; the parenchyma is the domain of the transfer.
    labelled
        What every cell is, (m,): ``white``, ``grey``, ``csf``, or empty: as the tissue fractions say. Cells of CSF are
        dropped.

    Raises
    ------
    InputError
        Labels of another length or other words, or no cell in the parenchyma.
    """
    labels = np.full(len(mesh.cells), "", "U5") if labelled is None else np.asarray(labelled)
    if labels.shape != (len(mesh.cells),) or not np.isin(labels, ["", *TISSUES]).all():
        raise InputError(f"mesh: expected one of white, grey, csf or nothing for each of {len(mesh.cells)} cells.")
    share, white = _tissue_of_cells(mesh, tissue, labels)
    candidate = share >= MIN_SHARE
    mesh, share, white = mesh.submesh(candidate), share[candidate], white[candidate]
    if not len(mesh.cells):
        raise InputError("mesh: expected cells in the brain, found none. Check the mesh's units and frame.")
    domain = tissue.parenchyma
    samples = locate_samples(mesh, tissue.grid, domain)
    keep = _kept(mesh, samples, tissue.grid.voxel_volume)
    if not keep.any():
        raise InputError("mesh: expected cells that hold some of the brain, found none. Check its units and frame.")
    mesh, share, white = mesh.submesh(keep), share[keep], white[keep]
    transfer = GridTransfer(mesh, tissue.grid, domain, samples.restricted(keep))
    return BrainMesh(mesh, white, 1 - white, _capped(mesh, share, transfer.node_volume), transfer)


def _tissue_of_cells(
    mesh: TetMesh, tissue: TissueMap, labels: NDArray[np.str_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of parenchyma in every cell, (m,), and of white matter in that, (m,)."""
    domain = tissue.parenchyma
    total = np.where(domain, tissue.white + tissue.grey, 1)
    fields = [domain, np.where(domain, tissue.white / total, 0)]
    share, white = cell_means(mesh, tissue.grid, fields, spacing=2 * float(tissue.grid.voxel_size.min()))
    white = np.clip(white / np.maximum(share, 1e-12), 0, 1)  # rounding of the float32 interpolation
    share = np.where(labels == "", np.minimum(share, 1), labels != "csf")
    white = np.where((labels == "") | (labels == "csf"), white, labels == "white")
    return share, white


def _kept(mesh: TetMesh, samples: Samples, voxel_volume: float) -> NDArray[np.bool_]:
    """Tell which cells form the largest face-connected piece all of whose vertices hold tissue of its cells, (m,)."""
    keep = np.ones(len(mesh.cells), bool)
    while True:
        held = samples.node_share(mesh, keep) * voxel_volume
        staying = carrying_piece(mesh, keep, held)
        if np.array_equal(staying, keep):
            return keep
        keep = staying


def _capped(mesh: TetMesh, share: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the conducting fraction of every cell, (m,), once no vertex is stiffer than it may be."""
    allowed = STIFFNESS_CAP * stiffness_diagonal(mesh) / vertex_volumes(mesh)
    stiff = stiffness_diagonal(mesh, share) / held
    return np.asarray(share * np.minimum(1, allowed / stiff)[mesh.cells].min(1))
