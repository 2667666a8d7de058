r"""The density some days before a scan, found as a field: what a single seed is too simple for.

    min  −ln L(n_0(u)) + (1/2 σ² V_ℓ) ∫ (δ² + ℓ² |∇δ|²) dx,    δ = u − ū,   0 ≤ u ≤ `HIGHEST`

u is the density `lead` days before the scan, n_0 what growth makes of it by the day of the scan, ū the state of the
fitted seed at that time, σ and ℓ how far and over what length u is believed to differ from it, V_ℓ = 8π ℓ³ the volume
that counts as one independent place. Of the time before nothing is claimed. The gradient in all nodal values comes from
one adjoint run; the descent is L-BFGS-B with the thresholds of the image beside the field.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from hybridtumor.calibration.unknowns import Priors
from hybridtumor.errors import ConvergenceError
from hybridtumor.models.observation import DataTerm
from hybridtumor.solvers.adjoint import Adjoint
from hybridtumor.solvers.cells import Cells
from hybridtumor.solvers.diffusion import Diffusion

Array = NDArray[np.float64]

HIGHEST = 0.97
"""Largest density that is looked for."""

DEVIATION, LENGTH = 0.3, 4.0
"""σ, and ℓ in mm: seeds fitted to real gliomas miss by about so much, over folds of about that size (conventions)."""

MOST_STEPS = 40
"""Steps of the descent; later ones change the overlap by less than 0.01."""


@dataclass(frozen=True, eq=False)
class FittedField:
    """A field and what it explains.

    Parameters
    ----------
    initial
        u at the nodes this rank owns, `lead` days before the scan.
    density
        The density on the day of the scan at the mesh's nodes, (n,).
    own
        Thresholds of the image.
    misfit, misfit_before
        −ln L with the field, and with ū.
    evaluations
        Gradients that were computed.
    converged, reason
        Whether and why the descent ended.
    """

    initial: Array
    density: Array
    own: Mapping[str, float]
    misfit: float
    misfit_before: float
    evaluations: int
    converged: bool
    reason: str


@dataclass(frozen=True, eq=False)
class FieldProblem:
    """The field that is looked for.

    Parameters
    ----------
    adjoint
        Run from `lead` days before the scan to the scan, its last report day.
    smoothness
        Diffusion operator with D = 1 mm²/day everywhere, for ∫ |∇δ|².
    term, way
        What the scan says, and what maps nodal values to its voxels, (k, n).
    priors
        Of the term's own parameters.
    free
        Which nodes of this rank may differ from ū.
    """

    adjoint: Adjoint
    smoothness: Diffusion
    term: DataTerm
    way: sparse.csr_array
    priors: Priors
    free: NDArray[np.bool_]

    def fit(self, mean: Array, own: Mapping[str, float], most_steps: int = MOST_STEPS) -> FittedField:
        """Return the most likely field.

        Parameters
        ----------
        mean
            ū at the nodes this rank owns.
        own
            Thresholds to start from.
        """
        domain = self.smoothness.domain
        day = max(self.adjoint.run.report_days)
        weight = 1 / (DEVIATION**2 * 8 * np.pi * LENGTH**3)
        count = int(np.count_nonzero(self.free))
        trace: list[float] = []

        def split(z: Array) -> tuple[Array, Array]:
            u = mean.copy()
            u[self.free] = z[:count]
            return u, z[count:]

        def objective(z: Array) -> tuple[float, Array]:
            u, x = split(z)
            values = self.priors.values(x)
            by_own: dict[str, float] = {}

            def functional(cells: Mapping[float, Cells]) -> tuple[float, Mapping[float, Cells]]:
                misfit = self.term.misfit(self.way @ domain.gather(cells[day].living), values)
                by_own.update(misfit.own)
                slopes = domain.local(self.way.T @ misfit.slope)
                return misfit.value, {day: Cells(slopes)}

            misfit, slopes, _ = self.adjoint.value_and_slopes(u, functional)
            trace.append(misfit)
            δ = u - mean
            pull = weight * self.smoothness.volume * (δ + LENGTH**2 * self.smoothness.excess(δ))
            prior, by_x = self.priors.minus_log(x)
            value = misfit + 0.5 * float(δ @ pull) + prior
            gradient = (slopes.initial + pull)[self.free]
            own_gradient = np.array([by_own[name] for name in self.priors.names]) * self.priors.slopes(x) + by_x
            return value, np.concatenate([gradient, own_gradient])

        start = np.concatenate([np.clip(mean[self.free], 0, HIGHEST), self.priors.coordinates(own)])
        bounds = np.vstack([np.tile([0.0, HIGHEST], (count, 1)), self.priors.bounds])
        found = optimize.minimize(
            objective, start, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": most_steps, "ftol": 1e-4, "gtol": 1e-8, "maxcor": 12},
        )  # fmt: skip
        if not np.isfinite(found.fun):
            raise ConvergenceError("calibration: expected a finite misfit of the field, got none. Check the scan.")
        u, x = split(found.x)
        density = domain.gather(self.adjoint.cells(u)[day].living)
        values = self.priors.values(x)
        misfit = self.term.misfit(self.way @ density, values).value
        ended = found.success or found.nit >= most_steps
        return FittedField(u, density, values, misfit, trace[0], len(trace), bool(ended), str(found.message).lower())
