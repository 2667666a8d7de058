r"""Draws of the posterior without the normal approximation: an ensemble of walkers that stretch towards each other.

    x_k → x_j + z (x_k − x_j),   p(z) ∝ 1/√z on [1/2, 2],   accepted with min(1, z^{p−1} e^{J(x_k) − J(new)})

(Goodman & Weare, Comm. App. Math. Comp. Sci. 2010; emcee, Foreman-Mackey et al., PASP 2013). It needs no gradient and
does not care how unknowns are correlated, but thousands of evaluations: for few unknowns on a cheap mesh. Draws that
lie closer together than the autocorrelation time τ are not independent; τ is only known from 50 τ steps or more.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.calibration.posterior import LEVEL, Interval, Laplace, tails
from hybridtumor.calibration.unknowns import Priors
from hybridtumor.errors import ConvergenceError, InputError, ResourceError

Array = NDArray[np.float64]

MOST_UNKNOWNS = 6
"""Unknowns up to which walkers are worth their evaluations."""

LONG_ENOUGH = 50
"""Autocorrelation times that a chain has to be long."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Draws of the posterior.

    Parameters
    ----------
    priors
        The unknowns.
    coordinates
        (n, p), after burn-in, all walkers of one step after those of another.
    minus_log
        J of each, (n,).
    acceptance
        Share of the moves that were accepted, averaged over walkers; 0.2 to 0.5 is usual.
    autocorrelation
        τ of each unknown, steps, (p,); not a number where nothing moved.
    effective
        Number of independent draws: n/τ of the slowest unknown.
    evaluations
        Evaluations of the misfit.
    converged
        Whether the chain after burn-in is `LONG_ENOUGH` τ long.
    notes
        What to know about the draws.
    """

    priors: Priors
    coordinates: Array
    minus_log: Array
    acceptance: float
    autocorrelation: Array
    effective: float
    evaluations: int
    converged: bool
    notes: tuple[str, ...]

    def intervals(self, level: float = LEVEL) -> dict[str, Interval]:
        """Return the interval of every unknown, in physical units, by name."""
        table = np.quantile(self.priors.physical(self.coordinates), tails(level), axis=0)
        return {u.name: Interval.of(column, u.unit) for u, column in zip(self.priors.unknowns, table.T, strict=True)}

    def draws(self, count: int, seed: int) -> Array:
        """Return draws (count, p), coordinates, without repetition as long as there are enough."""
        rng = np.random.default_rng(seed)
        return self.coordinates[rng.choice(len(self.coordinates), count, replace=count > len(self.coordinates))]


def sample(
    misfit: Callable[[Array], float],
    start: Laplace,
    *,
    seed: int,
    steps: int = 1000,
    burn_in: int | None = None,
    walkers: int | None = None,
) -> Samples:
    """Draw from the posterior by an ensemble of walkers that start from its normal approximation.

    Parameters
    ----------
    misfit
        x, (p,), to Φ = −ln L of the data; where it fails (ConvergenceError, not finite) nothing is drawn.
    start
        Gives the unknowns and the places of the walkers.
    seed
        Of places and moves.
    steps
        Moves of each walker, burn-in included.
    burn_in
        First moves that are thrown away; None: a quarter.
    walkers
        Even, at least 2 p; None: the larger of 2 p + 2 and 16.

    Raises
    ------
    InputError
        More than `MOST_UNKNOWNS` unknowns, too few walkers or steps.
    ResourceError
        emcee is not installed.
    ConvergenceError
        The misfit could not be evaluated where the walkers start.
    """
    p = len(start.priors)
    many = max(16, 2 * p + 2) if walkers is None else walkers
    first = steps // 4 if burn_in is None else burn_in
    if p > MOST_UNKNOWNS:
        raise InputError(
            f"sampling: expected at most {MOST_UNKNOWNS} unknowns, got {p}."
            " Fix those that the data do not inform, or use the normal approximation."
        )
    if many < 2 * p or many % 2 or not 0 <= first < steps:
        raise InputError(
            f"sampling: expected an even number of at least {2 * p} walkers and more steps than burn-in,"
            f" got {many} walkers, {steps} steps and {first} of burn-in."
        )
    emcee = _emcee()
    spent, (low, high) = [0], start.priors.bounds.T

    def log_density(x: Array) -> float:
        if (x < low).any() or (x > high).any():
            return -math.inf
        spent[0] += 1
        try:
            value = -float(misfit(x)) - start.priors.minus_log(x)[0]
        except ConvergenceError:
            return -math.inf
        return value if math.isfinite(value) else -math.inf

    places = start.draws(many, seed)
    densities = np.array([log_density(x) for x in places])
    sound = np.isfinite(densities)
    if not sound.any() or (~sound).sum() > many // 2:
        raise ConvergenceError(
            f"sampling: expected a misfit at the {many} starts of the walkers, {(~sound).sum()} failed."
            " Start from a posterior that fits."
        )
    sampler = emcee.EnsembleSampler(many, p, log_density)
    sampler.random_state = np.random.MT19937(seed).state
    sampler.run_mcmc(emcee.State(places, log_prob=densities), steps, skip_initial_state_check=True)
    return _gathered(sampler, start.priors, first, spent[0])


def _gathered(sampler: Any, priors: Priors, first: int, spent: int) -> Samples:
    """Return the draws of a sampler after burn-in, with what is to be known of them."""
    τ = np.atleast_1d(np.asarray(sampler.get_autocorr_time(discard=first, tol=0), np.float64))
    x = np.asarray(sampler.get_chain(discard=first, flat=True), np.float64)
    J = -np.asarray(sampler.get_log_prob(discard=first, flat=True), np.float64)
    kept, slowest = sampler.iteration - first, float(np.max(τ)) if np.isfinite(τ).all() else math.inf
    acceptance, converged = float(np.mean(sampler.acceptance_fraction)), kept >= LONG_ENOUGH * slowest
    notes = []
    if not converged:
        notes.append(
            f"The chain is {kept} steps long, {LONG_ENOUGH} autocorrelation times of {slowest:.3g} steps are expected:"
            " draw longer before you rely on the tails."
        )
    if not 0.1 <= acceptance <= 0.8:
        notes.append(f"{acceptance:.0%} of the moves were accepted, 20 to 50 % is usual.")
    if not np.isfinite(J).all():
        notes.append(f"{np.mean(~np.isfinite(J)):.0%} of the draws are walkers that never left a place that failed.")
        x, J = x[np.isfinite(J)], J[np.isfinite(J)]
    effective = len(x) / slowest if slowest > 0 else 0.0
    return Samples(priors, x, J, acceptance, τ, effective, spent, converged, tuple(notes))


def _emcee() -> Any:
    try:
        return importlib.import_module("emcee")
    except ImportError as error:
        raise ResourceError(
            "sampling: expected emcee, it is not installed. Run pip install 'hybridtumor[bayes]'."
        ) from error
