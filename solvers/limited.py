r"""Diffusion with a full tensor, conservative and bounded: uniformisation with flux-corrected transport.

Linear elements with lumped mass give M u' = −K u as in `hybridtumor.solvers.diffusion`, but with a tensor D, or
with obtuse dihedral angles, K has positive off-diagonals k_ij > 0 that are not small: dropping them (K̃) adds a
diffusivity that refinement does not remove. Over a step Δt

    low order    u_L = e^{−Δt M⁻¹K̃} u      averages only: bounded, conservative, too diffusive
    high order   u_H = e^{−Δt M⁻¹K} u      conservative, of second order, not bounded

are both series Σ_k w_k N^k u in the Poisson weights w_k of Δt d, with N = I − M⁻¹K̃/d and N = I − M⁻¹K/d. With
the integral U of each over the step, (1/d) Σ_j (Σ_{k>j} w_k) N^j u, each changes u by exactly −M⁻¹K̃U_L and
−M⁻¹K U_H however the series is cut, so that their difference is one of fluxes along edges,

    m_i (u_H − u_L)_i = Σ_j f_ij,      f_ij = k̃_ij (U_L,j − U_L,i) − k_ij (U_H,j − U_H,i) = −f_ji.

Each is cut to α_ij f_ij, α_ij = α_ji ∈ [0, 1], so that u_L + M⁻¹ Σ_j α_ij f_ij stays between the least and
the largest of u and u_L at the node and its neighbours (`hybridtumor.solvers.flux_limiter`). Burden is kept
to round-off, bounds by construction. Away from positive entries f fades, and without any the step is that of
`Diffusion`.

One rate serves both series. d = max_i Σ_j k̃_ij⁻/m_i (the largest diagonal of M⁻¹K̃) makes the low one an average.
The rows of K add up to zero, so by Gershgorin the spectrum of M⁻¹K, real as K is symmetric in ⟨M·, ·⟩ and ≥ 0 as D is,
ends at max_i (k_ii + Σ_j |k_ij|)/m_i = 2 max_i Σ_j k_ij⁻/m_i = 2d. So −1 ≤ N ≤ 1 in the norm (Σ m_i u_i²)^½: no
term of the series is larger than u and nothing cancels.

u_L has to stay near: a step is cut into parts of at most `PART` averages, and each is limited.
"""

from dataclasses import dataclass, field

import numpy as np
import ufl
from numpy.typing import NDArray

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.meshes.domain import Domain
from hybridtumor.models.anisotropy import COMPONENTS, tensor_form
from hybridtumor.solvers.diffusion import ROUND_OFF, poisson_weights
from hybridtumor.solvers.flux_limiter import Edges, edges_of
from hybridtumor.solvers.petsc import MPI, PETSc, assemble, petsc_errors

Array = NDArray[np.float64]

PART = 8.0
"""Largest Δt d of a part of a step, which is limited by itself."""

_ABOVE = 1 + 1e-14
"""The rate lies this much above its bound, so that rounding leaves no average a negative weight."""


@dataclass(eq=False)
class LimitedDiffusion:
    """A diffusion operator whose matrix need not be an M-matrix; it is stepped as `Diffusion` is.

    Parameters
    ----------
    domain
        Where it acts.
    exact, average
        N of K and of K̃.
    edges
        The entries of both at the nodes this rank owns.
    rate
        d, 1/day.
    volume
        m_i of the degrees of freedom this rank owns, mm³.
    positive_share
        Share of the off-diagonal entries of K that are positive.
    positive_size
        Sum of those entries relative to the sum of all off-diagonal entries.
    products
        Matrix-vector products done so far.
    cancelled
        Share of the fluxes f that the limiter took away in the last part of the last step.
    """

    domain: Domain
    exact: PETSc.Mat
    average: PETSc.Mat
    edges: Edges
    rate: float
    volume: Array
    positive_share: float
    positive_size: float
    products: int = field(default=0, init=False)
    cancelled: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._vectors = [self.average.createVecLeft() for _ in range(4)]

    def step(self, u: Array, duration: float) -> Array:
        """Return the density after Δt, within the range of u.

        Parameters
        ----------
        u
            Density at the degrees of freedom this rank owns.
        duration
            Δt, days.
        """
        if self.positive_size == 0:
            return self.low_order(u, duration)
        parts = _parts(duration * self.rate)
        for _ in range(parts):
            u = self._limited_step(u, duration / parts)
        return u

    def low_order(self, u: Array, duration: float) -> Array:
        """Return e^{−Δt M⁻¹K̃} u: bounded, but with another diffusivity."""
        return self._series(self.average, u, duration)[0]

    def high_order(self, u: Array, duration: float) -> Array:
        """Return e^{−Δt M⁻¹K} u: accurate, but not bounded."""
        return self._series(self.exact, u, duration)[0]

    def integral(self, u: Array) -> float:
        """Return ∫ u dx over the whole domain, mm³ for a density."""
        return float(self.domain.comm.allreduce(float(self.volume @ u)))

    def _limited_step(self, u: Array, duration: float) -> Array:
        low, below = self._series(self.average, u, duration)
        _, above = self._series(self.exact, u, duration)
        with petsc_errors("diffusion"):
            change, size = self.edges.correction(self.volume, u, low, (below, above))
        total, left = self.domain.comm.allreduce(size)
        self.cancelled = float(1 - left / total) if total > 0 else 0.0
        return np.asarray(low + change / self.volume)

    def _series(self, matrix: PETSc.Mat, u: Array, duration: float) -> tuple[Array, Array]:
        """Return Σ w_k N^k u and the integral over the step, (1/d) Σ_j (Σ_{k>j} w_k) N^j u."""
        first, kept = poisson_weights(duration * self.rate)
        weights = np.concatenate([np.zeros(first), kept])
        later = np.concatenate([np.cumsum(weights[:0:-1])[::-1], [0.0]])
        now, following, result, integral = self._vectors
        now.array[:] = u
        result.array[:] = weights[0] * u
        integral.array[:] = later[0] * u
        with petsc_errors("diffusion"):
            for weight, rest in zip(weights[1:], later[1:], strict=True):
                matrix.mult(now, following)
                now, following = following, now
                integral.axpy(rest, now)
                if weight:
                    result.axpy(weight, now)
        self.products += weights.size - 1
        return np.array(result.array_r), integral.array_r / self.rate


def _parts(mean: float) -> int:
    """Return into how many parts a step of Δt d averages is cut."""
    if not 0 <= mean < 1e8:
        raise ConvergenceError(
            f"diffusion: expected a step of less than 1e8 averages, got {mean:.3g}. Use larger cells."
        )
    return max(1, int(np.ceil(mean / PART)))


def limited(domain: Domain, stiffness: PETSc.Mat, volume: Array) -> LimitedDiffusion:
    """Make a bounded operator of a stiffness matrix; the matrix is used up.

    Parameters
    ----------
    domain
        Where it acts.
    stiffness
        K: symmetric, positive semi-definite, rows that add up to zero; mm³/day.
    volume
        m_i > 0 of the degrees of freedom this rank owns, mm³.
    """
    comm = domain.comm
    start, columns, entries = stiffness.getValuesCSR()
    rows = np.repeat(np.arange(volume.size), np.diff(start))
    diagonal = columns == rows + stiffness.getOwnershipRange()[0]
    largest = comm.allreduce(float(entries.max(initial=0.0)), op=MPI.MAX)
    entry = np.where(diagonal | (np.abs(entries) <= ROUND_OFF * largest), 0.0, entries)
    monotone = np.minimum(entry, 0.0)
    counts = [(entry > 0).sum(), (~diagonal).sum(), entry[entry > 0].sum(), np.abs(entry).sum()]
    positive, off, size, total = comm.allreduce(np.array(counts, np.float64))
    exchange = -np.bincount(rows, monotone, minlength=volume.size) / volume
    rate = _ABOVE * float(comm.allreduce(float(exchange.max(initial=0.0)), op=MPI.MAX)) or 1.0
    exact, average = (
        _averages(stiffness, rows, columns, values / -(volume * rate)[rows]) for values in (entry, monotone)
    )
    edges = edges_of(stiffness, start, columns, entry)
    stiffness.destroy()
    share, relative = float(positive / max(off, 1)), float(size / total) if total > 0 else 0.0
    return LimitedDiffusion(domain, exact, average, edges, rate, volume, share, relative)


def _averages(pattern: PETSc.Mat, rows: NDArray[np.intp], columns: NDArray[np.int32], values: Array) -> PETSc.Mat:
    """Return the matrix with these entries off the diagonal, whose rows add up to 1; zeros are left out."""
    count = pattern.getLocalSize()[0]
    diagonal = columns == rows + pattern.getOwnershipRange()[0]
    complete = values + diagonal * (1 - np.bincount(rows, values, minlength=count))[rows]
    there = diagonal | (complete != 0)
    start = np.concatenate([[0], np.cumsum(np.bincount(rows[there], minlength=count))]).astype(columns.dtype)
    result = PETSc.Mat().createAIJ(pattern.getSizes(), csr=(start, columns[there], complete[there]), comm=pattern.comm)
    result.assemble()
    return result


def assemble_limited(domain: Domain, tensor: Array, fraction: Array, volume: Array) -> LimitedDiffusion:
    """Assemble diffusion with a tensor.

    Parameters
    ----------
    domain
        Where.
    tensor
        D, symmetric and positive semi-definite, in each cell of the `TetMesh`, (m, 3, 3), mm²/day, world RAS+ axes.
    fraction
        Share of parenchyma in each cell, (m,).
    volume
        Volume of each node, (n,), mm³: the lumped mass.

    Raises
    ------
    InputError
        A tensor of another shape, or one that is not finite, symmetric and positive semi-definite.
    """
    _require_tensor(tensor, fraction.size)
    u, v = ufl.TrialFunction(domain.space), ufl.TestFunction(domain.space)
    parts = [domain.cell_function(tensor[:, i, j]) for i, j in COMPONENTS]
    stiffness = assemble(tensor_form(u, v, parts, domain.cell_function(fraction)))
    return limited(domain, stiffness, domain.local(volume))


def _require_tensor(tensor: Array, cells: int) -> None:
    """Refuse what is not one diffusion tensor per cell."""
    if tensor.shape != (cells, 3, 3) or not np.isfinite(tensor).all():
        raise InputError(f"diffusion: expected a finite tensor per cell, shape ({cells}, 3, 3), got {tensor.shape}.")
    size = np.abs(tensor).max(initial=0.0)
    skew = np.abs(tensor - tensor.swapaxes(1, 2)).max(initial=0.0)
    least = np.linalg.eigvalsh(tensor).min(initial=0.0)
    if skew > 1e-9 * size or least < -1e-9 * size:
        raise InputError(
            f"diffusion: expected symmetric tensors without negative eigenvalues, got asymmetry {skew:.3g}"
            f" and an eigenvalue of {least:.3g} mm²/day. Check how the components are ordered."
        )
