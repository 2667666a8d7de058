r"""Which unknowns move an outcome: Sobol indices over the priors.

    S_i = Var(E[f | x_i]) / Var f,       T_i = 1 − Var(E[f | all but x_i]) / Var f

S_i is the share of the variance of f that x_i explains alone, T_i with all it takes part in; T_i − S_i is interaction,
and an unknown with T_i ≈ 0 can be fixed. Estimated from N (p + 2) evaluations on Saltelli's design of a scrambled Sobol
sequence (Sobol, Math. Comput. Simul. 2001; Saltelli et al., Comput. Phys. Commun. 2010; SALib).
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.calibration.unknowns import Priors
from hybridtumor.errors import ConvergenceError, InputError, ResourceError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Sobol indices of one outcome.

    Parameters
    ----------
    names
        The unknowns.
    first, total
        S and T, (p,).
    first_error, total_error
        Half widths of their 95 % intervals, by resampling, (p,).
    mean, deviation
        Of the outcome over the prior.
    evaluations
        Evaluations of the outcome.
    """

    names: tuple[str, ...]
    first: Array
    total: Array
    first_error: Array
    total_error: Array
    mean: float
    deviation: float
    evaluations: int

    def sentences(self) -> list[str]:
        """Return in words what moves the outcome, the most important unknown first."""
        told = []
        for i in np.argsort(-self.total, kind="stable"):
            negligible = self.total[i] < max(0.02, self.total_error[i])
            told.append(
                f"{self.names[i]} explains {100 * self.first[i]:.0f} ± {100 * self.first_error[i]:.0f} % alone,"
                f" {100 * self.total[i]:.0f} ± {100 * self.total_error[i]:.0f} % with all it takes part in"
                f"{'; it can be fixed' if negligible else ''}."
            )
        return told


def sobol_indices(outcome: Callable[[Array], float], priors: Priors, count: int, seed: int) -> Sensitivity:
    """Estimate the Sobol indices of an outcome over the priors.

    Parameters
    ----------
    outcome
        x, (p,), coordinates, to a number.
    priors
        The unknowns, at least two.
    count
        N, a power of two; ``N (p + 2)`` evaluations are made.
    seed
        Of the sequence and of the resampling.

    Raises
    ------
    InputError
        One unknown only, or a count that is not a power of two.
    ConvergenceError
        The outcome cannot be evaluated at a point, or is the same everywhere.
    ResourceError
        SALib is not installed.
    """
    p = len(priors)
    if p < 2:
        raise InputError("sensitivity: expected two or more unknowns, got 1.")
    if count < 2 or count & (count - 1):
        raise InputError(f"sensitivity: expected a power of two of points, got {count}.")
    design, analysis = _salib("sample.sobol"), _salib("analyze.sobol")
    problem = {"num_vars": p, "names": list(priors.names), "bounds": [[0.0, 1.0]] * p}
    points = priors.from_unit(design.sample(problem, count, calc_second_order=False, seed=seed))
    values = np.array([_value(outcome, x, priors) for x in points])
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        raise ConvergenceError(
            "sensitivity: expected an outcome that depends on an unknown, it is the same everywhere."
        )
    found = analysis.analyze(problem, values, calc_second_order=False, seed=seed)
    S, T, S_error, T_error = (np.asarray(found[key], np.float64) for key in ("S1", "ST", "S1_conf", "ST_conf"))
    return Sensitivity(
        priors.names, S, T, S_error, T_error, float(values.mean()), float(values.std()), len(values)
    )  # fmt: skip


def _value(outcome: Callable[[Array], float], x: Array, priors: Priors) -> float:
    """Return the outcome at a point; a hole in the design would make all indices wrong."""
    told = ", ".join(f"{name} {value:.4g}" for name, value in priors.values(x).items())
    try:
        value = float(outcome(x))
    except ConvergenceError as error:
        raise ConvergenceError(f"sensitivity: expected an outcome at {told}. {error}") from error
    if not math.isfinite(value):
        raise ConvergenceError(f"sensitivity: expected a finite outcome at {told}, got {value}. Narrow the bounds.")
    return value


def _salib(module: str) -> Any:
    try:
        return importlib.import_module(f"SALib.{module}")
    except ImportError as error:
        raise ResourceError(
            "sensitivity: expected SALib, it is not installed. Run pip install 'hybridtumor[bayes]'."
        ) from error
