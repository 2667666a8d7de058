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

from hybridtumor.errors import InputError
from hybridtumor.grid import FloatArray
from hybridtumor.meshes.lattice import Lattice, TetMesh
from hybridtumor.meshes.pieces import carrying_piece
from hybridtumor.meshes.quality import stiffness_diagonal
from hybridtumor.meshes.sizes import around_tumour, box_of, spans_of
from hybridtumor.meshes.transfer import GridTransfer, cell_means
from hybridtumor.meshes.voxel_samples import sampled
from hybridtumor.tissue import TissueMap

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
    size = around_tumour(density, grid, margin_mm=margin_mm, finest=cell_size_mm, coarsest=coarsest_mm)
    lattice = Lattice.graded(*box_of(domain, grid), size, finest=cell_size_mm, coarsest=coarsest_mm)
    samples = sampled(lattice, grid, domain)
    mesh = lattice.mesh(samples.cubes())
    white_share = np.zeros(grid.shape, np.float32)
    box = tuple(slice(span[0], span[-1] + 1) for span in spans_of(domain))
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
