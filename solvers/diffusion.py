r"""Diffusion of the density over a time step, exact in time and monotone: uniformisation of the exponential.

Linear elements with lumped mass give M u' = −K u, m_i the volume of node i and K the stiffness ∫ φ D
∇λ_i·∇λ_j. On a lattice without obtuse dihedral angles K is an M-matrix; the few positive off-diagonals at
grading transitions are set to 0 and the diagonal is adjusted so that rows still add up to 0: K̃, symmetric,
hence conservative. With A = M⁻¹K̃ and d ≥ max A_ii,

    e^{−Δt A} = e^{−Δt d} Σ_k (Δt d)^k / k! N^k,      N = I − A/d

(Jensen 1953; Grassmann 1977). N has no negative entry and rows that add up to 1: every term is an average of
nodal values, so that min u ≤ e^{−Δt A} u ≤ max u holds without a limiter, and Σ m_i u_i is kept to round-off.
The sum stops where the Poisson weights left out add up to less than `TAIL`; the weights kept are scaled to
add up to 1. Only products of a sparse matrix and a vector are needed. The operator is self-adjoint in ⟨u, v⟩
= Σ m_i u_i v_i.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import ufl
from numpy.typing import NDArray
from scipy.special import gammaln

from hybridtumor.errors import ConvergenceError
from hybridtumor.meshes.domain import Domain
from hybridtumor.models.growth import diffusion_form
from hybridtumor.solvers.petsc import MPI, PETSc, assemble, petsc_errors

TAIL = 1e-9
"""Poisson weight that may be left out of a sum."""

ROUND_OFF = 1e-12
"""Positive off-diagonals below this share of the largest entry come from right angles; they are not counted."""


@dataclass(eq=False)
class Diffusion:
    """The diffusion operator of a domain.

    Parameters
    ----------
    domain
        Where it acts.
    average
        N, a sparse matrix of averages.
    rate
        d, 1/day.
    volume
        m_i of the degrees of freedom this rank owns, mm³.
    positive_share
        Share of the off-diagonal entries of K that were positive.
    positive_size
        Sum of those entries relative to the sum of all off-diagonal entries.
    products
        Matrix-vector products done so far.
    """

    domain: Domain
    average: PETSc.Mat
    rate: float
    volume: NDArray[np.float64]
    positive_share: float
    positive_size: float
    products: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._now, self._next = self.average.createVecRight(), self.average.createVecLeft()

    def step(self, u: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
        """Return e^{−Δt A} u.

        Parameters
        ----------
        u
            Density at the degrees of freedom this rank owns.
        duration
            Δt, days.
        """
        first, weights = poisson_weights(duration * self.rate)
        result = np.zeros_like(u)
        for k, power in self.powers(u, duration):
            if k >= first:
                result += weights[k - first] * power
        return result

    def powers(self, u: NDArray[np.float64], duration: float) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield k and N^k u for every power that `step` needs for that duration; valid until the next one is taken.

        From the same powers, with other weights, comes e^{−s A} u of every s up to `duration`.
        """
        first, weights = poisson_weights(duration * self.rate)
        now, following = self._now, self._next
        now.array[:] = u
        yield 0, u
        with petsc_errors("diffusion"):
            for k in range(1, first + weights.size):
                self.average.mult(now, following)
                now, following = following, now
                yield k, now.array_r
        self.products += first + weights.size - 1

    def scaled(self, factor: float) -> "Diffusion":
        """Return the operator of a diffusivity that is `factor` times as large everywhere; N is the same."""
        return Diffusion(
            self.domain, self.average, factor * self.rate, self.volume, self.positive_share, self.positive_size
        )

    def excess(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A u = d (u − N u), 1/day."""
        self.products += 1
        return self.rate * (u - product(self.average, u))

    def integral(self, u: NDArray[np.float64]) -> float:
        """Return ∫ u dx over the whole domain, mm³ for a density."""
        return float(self.domain.comm.allreduce(float(self.volume @ u)))


def product(matrix: PETSc.Mat, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a sparse matrix times nodal values, both at the nodes this rank owns."""
    right, left = matrix.createVecRight(), matrix.createVecLeft()
    with petsc_errors("diffusion"):
        right.array[:] = u
        matrix.mult(right, left)
        result = np.array(left.array_r)
    right.destroy()
    left.destroy()
    return result


def poisson_weights(mean: float) -> tuple[int, NDArray[np.float64]]:
    """Return the first k and the weights e^{−λ} λ^k / k! from there on that matter, scaled to add up to 1.

    Parameters
    ----------
    mean
        λ ≥ 0.
    """
    if not 0 <= mean < 1e8:
        raise ConvergenceError(
            f"diffusion: expected a step of less than 1e8 averages, got {mean:.3g}. Use larger cells."
        )
    if mean == 0:
        return 0, np.ones(1)
    reach = 9 * np.sqrt(mean) + 40
    k = np.arange(max(0, int(mean - reach)), int(mean + reach) + 1)
    weights = np.exp(k * np.log(mean) - mean - gammaln(k + 1.0))
    upper = np.cumsum(weights[::-1])[::-1]
    lower = np.cumsum(weights)
    keep = (upper >= TAIL / 2) & (lower >= TAIL / 2)
    kept = weights[keep]
    return int(k[keep][0]), kept / kept.sum()


def assemble_diffusion(
    domain: Domain,
    diffusivity: NDArray[np.float64],
    fraction: NDArray[np.float64],
    volume: NDArray[np.float64],
) -> Diffusion:
    """Assemble the diffusion operator.

    Parameters
    ----------
    domain
        Where.
    diffusivity, fraction
        D, mm²/day, and share of parenchyma in each cell of the `TetMesh`, (m,).
    volume
        Volume of each node, (n,), mm³: the lumped mass.
    """
    u, v = ufl.TrialFunction(domain.space), ufl.TestFunction(domain.space)
    stiffness = assemble(diffusion_form(u, v, domain.cell_function(diffusivity), domain.cell_function(fraction)))
    return monotone(domain, stiffness, domain.local(volume))


def monotone(domain: Domain, stiffness: PETSc.Mat, volume: NDArray[np.float64]) -> Diffusion:
    """Return the operator of a stiffness, which is destroyed, and of this rank's lumped masses.

    Positive off-diagonals are dropped, and what is left is scaled to averages.
    """
    comm = domain.comm
    start, columns, entries = stiffness.getValuesCSR()
    rows = np.repeat(np.arange(volume.size), np.diff(start))
    diagonal = columns == rows + stiffness.getOwnershipRange()[0]
    positive = ~diagonal & (entries > 0)
    largest = comm.allreduce(float(entries.max(initial=0.0)), op=MPI.MAX)
    size, total = entries[positive].sum(), np.abs(entries[~diagonal]).sum()
    count, off = (entries[positive] > ROUND_OFF * largest).sum(), (~diagonal).sum()
    size, total, count, off = comm.allreduce(np.array([size, total, count, off], np.float64))
    values = np.where(diagonal | positive, 0.0, entries)
    exchange = -np.bincount(rows, values, minlength=volume.size)
    rate = float(comm.allreduce(float((exchange / volume).max(initial=0.0)), op=MPI.MAX))
    values /= -(volume * rate)[rows]
    values[diagonal] = 1 - exchange / (volume * rate)
    there = values != 0  # long edges of the lattice carry nothing
    start = np.concatenate([[0], np.cumsum(np.bincount(rows[there], minlength=volume.size))]).astype(start.dtype)
    csr = (start, columns[there], values[there])
    average = PETSc.Mat().createAIJ(stiffness.getSizes(), csr=csr, comm=stiffness.comm)
    average.assemble()
    stiffness.destroy()
    return Diffusion(domain, average, rate, volume, float(count / off), float(size / total))
