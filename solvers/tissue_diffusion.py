r"""The diffusion operator as a function of the diffusivities of white and grey matter.

    K = D_w K_w + D_g K_g,      K_w = ∫ φ w ∇λ_i·∇λ_j,   K_g likewise with the share of grey matter

K_w and K_g are assembled once; an operator for other D_w and D_g is a sum of their entries. Which off-diagonals are
dropped is decided on K (`hybridtumor.solvers.diffusion`), and its slopes leave out the same ones:

    D_w ∂K̃/∂D_w + D_g ∂K̃/∂D_g = K̃

so that the slope in one of the two and K̃ itself tell both.
"""

from dataclasses import dataclass

import numpy as np
import ufl
from numpy.typing import NDArray

from hybridtumor.meshes.domain import Domain
from hybridtumor.models.growth import diffusion_form
from hybridtumor.solvers.diffusion import Diffusion, monotone, product
from hybridtumor.solvers.petsc import PETSc, assemble, petsc_errors

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TissueOperator:
    """A diffusion operator and its slope.

    Parameters
    ----------
    diffusion
        The operator.
    grey
        D_g ∂K̃/∂D_g over `factor`, sparse, symmetric, rows add up to 0; mm³/day.
    factor
        How many times as large the diffusivities are as when `grey` was made.
    """

    diffusion: Diffusion
    grey: PETSc.Mat
    factor: float = 1.0

    def scaled(self, factor: float) -> "TissueOperator":
        """Return the operator of diffusivities that are `factor` times as large."""
        return TissueOperator(self.diffusion.scaled(factor), self.grey, self.factor * factor)

    def grey_slope(self, u: Array) -> Array:
        """Return D_g ∂K̃/∂D_g u at the nodes this rank owns."""
        return self.factor * product(self.grey, u)


@dataclass(frozen=True, eq=False)
class TissueDiffusion:
    """K_w and K_g of a domain.

    Parameters
    ----------
    domain
        Where they act.
    white, grey
        K_w and K_g, mm.
    volume
        m_i of the degrees of freedom this rank owns, mm³.
    """

    domain: Domain
    white: PETSc.Mat
    grey: PETSc.Mat
    volume: Array

    @classmethod
    def assemble(cls, domain: Domain, white: Array, grey: Array, fraction: Array, volume: Array) -> "TissueDiffusion":
        """Assemble K_w and K_g.

        Parameters
        ----------
        domain
            Where.
        white, grey, fraction
            Shares of white and grey matter, and φ, in each cell of the `TetMesh`, (m,).
        volume
            Volume of each node, (n,), mm³.
        """
        u, v = ufl.TrialFunction(domain.space), ufl.TestFunction(domain.space)
        parts = [
            assemble(diffusion_form(u, v, domain.cell_function(share), domain.cell_function(fraction)))
            for share in (white, grey)
        ]
        return cls(domain, parts[0], parts[1], domain.local(volume))

    def operator(self, white: float, grey: float) -> TissueOperator:
        """Return the operator of D_w and D_g, mm²/day."""
        with petsc_errors("diffusion"):
            total = self.white.copy()
            total.scale(white)
            total.axpy(grey, self.grey, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)  # type: ignore[arg-type]  # a stub that says int
        slope = self._grey_slope(total, grey)
        return TissueOperator(monotone(self.domain, total, self.volume), slope)

    def _grey_slope(self, total: PETSc.Mat, grey: float) -> PETSc.Mat:
        """Return D_g ∂K̃/∂D_g where K = `total`."""
        start, columns, entries = total.getValuesCSR()
        values = grey * self.grey.getValuesCSR()[2]
        rows = np.repeat(np.arange(self.volume.size), np.diff(start))
        diagonal = columns == rows + total.getOwnershipRange()[0]
        values[diagonal | (entries > 0)] = 0.0
        values[diagonal] = -np.bincount(rows, values, minlength=self.volume.size)
        there = (values != 0) | diagonal
        start = np.concatenate([[0], np.cumsum(np.bincount(rows[there], minlength=self.volume.size))]).astype(
            start.dtype
        )
        slope = PETSc.Mat().createAIJ(total.getSizes(), csr=(start, columns[there], values[there]), comm=total.comm)
        slope.assemble()
        return slope
