r"""The most probable parameters: minima of the misfit plus the prior, in coordinates x with bounds.

    J(x) = Φ(x) + ½ |x|²,       Φ = −ln L of all data,  x in units of the prior's standard deviation

`maximum_a_posteriori` is L-BFGS-B (Byrd, Lu, Nocedal & Zhu, SIAM J. Sci. Comput. 1995; scipy). `gauss_newton` uses the
Fisher information F(x) of the data too and takes the steps

    min_s  gᵀ s + ½ sᵀ (F + I + λ diag(F + I)) s     with x + s within the bounds and |s_i| ≤ `STRIDE`

(Levenberg and Marquardt; λ as Nielsen, report IMM-REP-1999-05, Technical University of Denmark), for few unknowns in
fewer evaluations. F is kept as long as it predicts the decrease. Both stop when J can fall by less than a tolerance,
in natural logarithms: ½ δ² is left at δ standard deviations of the posterior from the minimum. `multistart` descends
from many starts, a scrambled Sobol sequence of the prior, because J may have several minima.

An objective may fail at a point (ConvergenceError, or a value that is not finite): the step is then taken back. What
cannot be reached is told, never passed off as an answer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize
from scipy.stats import qmc

from hybridtumor.calibration.unknowns import Priors
from hybridtumor.errors import ConvergenceError, InputError

Array = NDArray[np.float64]

Objective = Callable[[Array], tuple[float, Array]]
"""x, (p,), to Φ(x) = −ln L and its gradient (p,) in coordinates. The prior is not part of it: estimators add it."""

Information = Callable[[Array], Array]
"""x, (p,), to the Fisher information of the data, (p, p), in coordinates, without the prior."""

TOLERANCE = 1e-4
"""Decrease of J, in natural logarithms, that is not worth a step: 0.014 standard deviations of the posterior."""

STRIDE = 2.0
"""Longest step of a coordinate: two standard deviations of its prior."""

TRUSTED = 0.25
"""The information is kept while the decrease differs from the predicted one by at most this share."""

DAMPINGS = 12
"""How often in a row a Gauss–Newton step may be damped more."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Where a descent ended.

    Parameters
    ----------
    priors
        The unknowns.
    coordinates
        Best x that was evaluated, (p,).
    value
        J = misfit + ½|x|² there; infinite if nothing could be evaluated.
    misfit
        Φ there.
    gradient
        ∂J/∂x there, (p,).
    evaluations
        Evaluations of the objective, those that failed included.
    informations
        Evaluations of the information.
    converged
        Whether J can fall by no more than the tolerance.
    reason
        Why it ended, for people.
    """

    priors: Priors
    coordinates: Array
    value: float
    misfit: float
    gradient: Array
    evaluations: int
    informations: int
    converged: bool
    reason: str

    @property
    def values(self) -> dict[str, float]:
        """Physical values by name."""
        return self.priors.values(self.coordinates)

    @property
    def at_bound(self) -> tuple[str, ...]:
        """Names of the unknowns that ended on a bound."""
        low, high = self.priors.bounds.T
        near = (self.coordinates <= low + 1e-6) | (self.coordinates >= high - 1e-6)
        return tuple(name for name, there in zip(self.priors.names, near, strict=True) if there)


@dataclass(frozen=True, eq=False)
class Multistart:
    """All ends of the descents, best first; those that did not converge are marked and follow.

    Parameters
    ----------
    ends
        One per descent.
    screened
        J of every point that was screened, infinite where it failed, ascending.
    evaluations
        Evaluations of the objective, screening included.
    """

    ends: tuple[Estimate, ...]
    screened: Array
    evaluations: int

    @property
    def best(self) -> Estimate:
        """The end of the least J."""
        return min(self.ends, key=lambda end: end.value)

    def share_at_best(self, within: float = 0.5) -> float:
        """Return the share of descents that ended within `within` natural logarithms of the best."""
        return float(np.mean([end.value - self.best.value <= within for end in self.ends]))


def maximum_a_posteriori(
    objective: Objective,
    priors: Priors,
    start: ArrayLike | None = None,
    tolerance: float = TOLERANCE,
    most_evaluations: int = 200,
) -> Estimate:
    """Minimise J by L-BFGS-B.

    Parameters
    ----------
    objective
        Φ and its gradient.
    priors
        The unknowns.
    start
        x to start from; None: the median of the prior.
    tolerance
        Decrease of J in two steps running that ends the descent.
    most_evaluations
        After so many evaluations the descent ends, not converged.

    Raises
    ------
    ConvergenceError
        The objective cannot be evaluated at the start.
    InputError
        A start that does not fit.
    """
    watched = _Watched(objective, priors, most_evaluations)
    x = priors.clipped(np.zeros(len(priors)) if start is None else start)
    watched.first(x)
    last, small = watched.best_value, 0

    def enough(intermediate_result: optimize.OptimizeResult) -> None:
        nonlocal last, small
        small = small + 1 if last - intermediate_result.fun < tolerance else 0
        last = intermediate_result.fun
        if small >= 2:
            raise StopIteration

    try:
        found = optimize.minimize(
            watched, x, jac=True, method="L-BFGS-B", bounds=priors.bounds, callback=enough,
            options={"maxiter": 10 * most_evaluations, "maxfun": 10 * most_evaluations, "ftol": 0.0, "gtol": 1e-9},
        )  # fmt: skip
    except _EnoughError:
        return watched.end(converged=False, reason=f"{most_evaluations} evaluations were not enough")
    if small >= 2:
        return watched.end(converged=True, reason=f"two steps gained less than {tolerance:g}")
    if found.success:
        return watched.end(converged=True, reason="the gradient vanished")
    flat = _projected(watched.best_gradient, watched.best, priors)
    if float(flat @ flat) < 2 * tolerance:  # J ≥ ½|x|² bends at least by 1: no more than ½|g|² is left
        return watched.end(converged=True, reason="the gradient is too small for a step")
    return watched.end(converged=False, reason=f"no step lowered the objective ({str(found.message).strip().lower()})")


def gauss_newton(
    objective: Objective,
    information: Information,
    priors: Priors,
    start: ArrayLike | None = None,
    tolerance: float = TOLERANCE,
    most_evaluations: int = 60,
) -> Estimate:
    """Minimise J by damped Gauss–Newton steps within the bounds.

    Parameters
    ----------
    objective
        Φ and its gradient.
    information
        Fisher information of the data.
    priors
        The unknowns.
    start
        x to start from; None: the median of the prior.
    tolerance
        Predicted decrease of J that ends the descent.
    most_evaluations
        After so many evaluations of the objective the descent ends, not converged.

    Raises
    ------
    ConvergenceError
        Objective or information cannot be evaluated at the start.
    InputError
        A start that does not fit.
    """
    watched = _Watched(objective, priors, most_evaluations)
    watched.first(priors.clipped(np.zeros(len(priors)) if start is None else start))
    H = watched.curvature(information)
    try:
        reason = _descend(watched, H, information, tolerance)
    except _EnoughError:
        return watched.end(converged=False, reason=f"{most_evaluations} evaluations were not enough")
    except ConvergenceError as error:
        return watched.end(converged=False, reason=str(error))
    return watched.end(converged=bool(reason), reason=reason or f"none of {DAMPINGS} steps lowered the objective")


def _descend(watched: "_Watched", H: Array, information: Information, tolerance: float) -> str:
    """Take damped steps until there is no more than the tolerance to gain; return why, or nothing if none helps."""
    λ, growth, stale, damped = 1e-3, 2.0, False, 0
    while damped <= DAMPINGS:
        x, J, g = watched.best, watched.best_value, watched.best_gradient
        if _step(H, g, x, watched.priors)[1] < tolerance:
            if not stale:
                return f"less than {tolerance:g} left to gain"
            H, stale = watched.curvature(information), False
            continue
        s, predicted = _step(H + λ * np.diag(np.diag(H)), g, x, watched.priors)
        new, _ = watched(watched.priors.clipped(x + s))
        ratio = (J - new) / predicted if watched.sound else -math.inf
        if ratio > 1e-4:
            damped, growth = 0, 2.0
            λ = max(λ * max(1 / 3, 1 - (2 * min(ratio, 1.0) - 1) ** 3), 1e-9)
            stale = abs(ratio - 1) <= TRUSTED
            H = H if stale else watched.curvature(information)
        elif stale:
            damped, stale, H = damped + 1, False, watched.curvature(information)
        else:
            damped, λ, growth = damped + 1, λ * growth, 2 * growth
    return ""


def multistart(
    objective: Objective,
    priors: Priors,
    count: int,
    seed: int,
    *,
    screened: int | None = None,
    screen: Callable[[Array], float] | None = None,
    information: Information | None = None,
    tolerance: float = TOLERANCE,
    most_evaluations: int = 200,
) -> Multistart:
    """Screen a scrambled Sobol sequence of the prior and descend from its best points.

    Parameters
    ----------
    objective
        Φ and its gradient.
    priors
        The unknowns.
    count
        Number of descents.
    seed
        Of the sequence.
    screened
        Number of points that are screened, at least `count`; None: four per descent. The prior's median is the first.
    screen
        x to Φ, cheap (a coarse mesh), for the screening; None: the objective.
    information
        Fisher information of the data; with it the descents are `gauss_newton`'s.
    tolerance, most_evaluations
        Of each descent.

    Raises
    ------
    ConvergenceError
        The objective could be evaluated at no start.
    InputError
        Fewer than one descent, or fewer points than descents.
    """
    many = 4 * count if screened is None else screened
    if count < 1 or many < count:
        raise InputError(f"multistart: expected at least 1 descent and as many points, got {count} and {many}.")
    sequence = qmc.Sobol(len(priors), scramble=True, rng=np.random.default_rng(seed)).random_base2(
        max(0, math.ceil(math.log2(many)))
    )
    points = priors.from_unit(sequence[:many])
    points[0] = priors.clipped(np.zeros(len(priors)))
    values, faults = [], []
    for x in points:
        value, fault = _value(screen or (lambda x: objective(x)[0]), x)
        values.append(value + priors.minus_log(x)[0])
        faults.append(fault)
    order = np.argsort(values, kind="stable")
    ends = []
    for i in order[:count]:
        try:
            if information is None:
                ends.append(maximum_a_posteriori(objective, priors, points[i], tolerance, most_evaluations))
            else:
                ends.append(gauss_newton(objective, information, priors, points[i], tolerance, most_evaluations))
        except ConvergenceError as error:
            nowhere = np.full(len(priors), np.nan)
            ends.append(Estimate(priors, points[i], math.inf, math.inf, nowhere, 1, 0, False, str(error)))
    if not any(math.isfinite(end.value) for end in ends):
        first = ends[0].reason or faults[int(order[0])]
        raise ConvergenceError(
            f"multistart: expected a start at which the objective can be evaluated, {count} of {count} failed."
            f" Check data and priors. The first: {first}"
        )
    ends.sort(key=lambda end: (not end.converged, end.value))
    spent = sum(end.evaluations for end in ends) + many
    return Multistart(tuple(ends), np.sort(np.array(values)), spent)


class _EnoughError(Exception):
    """The evaluations are used up."""


class _Watched:
    """J and its gradient; counts evaluations, remembers the best, and makes failures look like a hill."""

    def __init__(self, objective: Objective, priors: Priors, most: int) -> None:
        self.objective, self.priors, self.most = objective, priors, most
        self.evaluations = self.informations = self.failed = 0
        self.best = np.zeros(len(priors))
        self.best_gradient = np.zeros(len(priors))
        self.best_value = self.best_misfit = math.inf
        self.sound, self.fault = True, ""

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return J and its gradient; beyond the best point a rising slope where the objective fails."""
        if self.evaluations >= self.most:
            raise _EnoughError
        self.evaluations += 1
        x = np.array(x, np.float64)
        self.fault = ""
        try:
            misfit, slope = self.objective(x)
        except ConvergenceError as error:
            misfit, slope, self.fault = math.nan, np.zeros(len(self.priors)), str(error)
        slope = np.asarray(slope, np.float64)
        if slope.shape != (len(self.priors),):
            raise InputError(f"objective: expected a gradient ({len(self.priors)},), got shape {slope.shape}.")
        self.sound = bool(math.isfinite(misfit) and np.isfinite(slope).all())
        if not self.sound:
            self.failed += 1
            self.fault = self.fault or f"the objective or its gradient is not finite ({misfit:g})"
            away = x - self.best
            return self.best_value + 1.0 + 10.0 * float(away @ away), 20.0 * away
        prior, pull = self.priors.minus_log(x)
        value, gradient = float(misfit) + prior, slope + pull
        if value < self.best_value:
            self.best, self.best_value, self.best_misfit, self.best_gradient = x, value, float(misfit), gradient
        return value, gradient

    def first(self, x: Array) -> None:
        """Evaluate at the start, which has to be possible."""
        self(x)
        if not self.sound:
            values = ", ".join(f"{name} {value:.4g}" for name, value in self.priors.values(x).items())
            raise ConvergenceError(
                f"calibration: expected a finite objective at the start ({values}), {self.fault}."
                " Start elsewhere, or check the data."
            )

    def curvature(self, information: Information) -> Array:
        """Return F + I at the best point."""
        self.informations += 1
        F = np.asarray(information(self.best.copy()), np.float64)
        if F.shape != (len(self.priors),) * 2:
            raise InputError(f"information: expected {(len(self.priors),) * 2}, got shape {F.shape}.")
        if not np.isfinite(F).all():
            raise ConvergenceError("calibration: expected a finite information, got one that is not.")
        return np.asarray(0.5 * (F + F.T) + np.eye(len(F)))

    def end(self, *, converged: bool, reason: str) -> Estimate:
        """Return the best point with why the descent ended there."""
        told = f"; {self.failed} of {self.evaluations} points could not be evaluated" if self.failed else ""
        return Estimate(
            self.priors, self.best, self.best_value, self.best_misfit, self.best_gradient,
            self.evaluations, self.informations, converged, reason + told,
        )  # fmt: skip


def _value(function: Callable[[Array], float], x: Array) -> tuple[float, str]:
    """Return a value, infinite where it cannot be had, and why."""
    try:
        value = float(function(x))
    except ConvergenceError as error:
        return math.inf, str(error)
    return (value, "") if math.isfinite(value) else (math.inf, f"the objective is not finite ({value:g})")


def _projected(gradient: Array, x: Array, priors: Priors) -> Array:
    """Return the gradient without what presses against a bound."""
    low, high = priors.bounds.T
    pressing = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
    return np.where(pressing, 0.0, gradient)


def _step(H: Array, gradient: Array, x: Array, priors: Priors) -> tuple[Array, float]:
    """Return the step within bounds and stride that minimises gᵀs + ½ sᵀHs, and the decrease it promises."""
    low, high = priors.bounds.T
    free = (low < high) & ~(((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0)))
    s = np.zeros(len(x))
    if free.any():
        lower = linalg.cholesky(H[np.ix_(free, free)], lower=True)
        target = -linalg.solve_triangular(lower, gradient[free], lower=True)
        box = (np.maximum(low - x, -STRIDE)[free], np.minimum(high - x, STRIDE)[free])
        s[free] = optimize.lsq_linear(lower.T, target, bounds=box, method="bvls").x
    return s, -float(gradient @ s + 0.5 * s @ H @ s)
