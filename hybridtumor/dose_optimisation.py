r"""The dose that leaves the least expected burden: sequential quadratic programmes with the adjoint's exact slope.

    c ← argmin_d  qᵀd + ½ dᵀH d   so that c + d keeps the limits and |d|_∞ ≤ r,     q = Bᵀ ∂J/∂D,  H = Bᵀ h B

h > 0 is the curvature of cells that stay where they are (`hybridtumor.dose_objective`); a step that lowers J is taken,
r grows or shrinks with what the model has promised and the run has kept. Every iterate keeps all limits, so that the
search may stop at any time with a plan that is no worse than the uniform one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hybridtumor.dose_limits import LimitedDose
from hybridtumor.dose_objective import BurdenSlopes, ExpectedBurden
from hybridtumor.errors import InputError
from hybridtumor.solvers.cone_program import Program, minimise
from hybridtumor.therapy import TherapyPlan

Array = NDArray[np.float64]

FIRST_RADIUS, LARGEST_RADIUS, SMALLEST_RADIUS = 12.0, 40.0, 0.05
"""Gy. How far a node may move in a step, at first, at most, and before the search ends."""

ENOUGH = 1e-4
"""Share of the burden below which a promised decrease is not worth a step."""

TRIES = 15
"""Programmes for one step, each told where the one before was too steep, its integral linear about that one's dose."""

MOST_NEW, STEEP_ALREADY = 4000, 0.6
"""Voxels of which the next programme is told, the steepest first; share of the limit from which the first one is."""

SMOOTH = 0.01
"""Pull of a step towards a smooth one, relative to the largest curvature: where J is flat, the dose stays smooth."""


@dataclass(frozen=True, eq=False)
class OptimisedDose:
    """What was found.

    Parameters
    ----------
    plan, nodes
        The plan, and c, Gy.
    uniform, optimised
        Burdens and slopes under the plan at the start and under this one.
    history
        J after every iteration, mm³, the uniform plan's first.
    reason
        Why the search has ended.
    """

    plan: TherapyPlan
    nodes: Array
    uniform: BurdenSlopes
    optimised: BurdenSlopes
    history: tuple[float, ...]
    reason: str

    @property
    def iterations(self) -> int:
        """Number of iterations."""
        return len(self.history) - 1


@dataclass(frozen=True)
class Perturbations:
    """Other feasible doses around the optimum.

    Parameters
    ----------
    tried
        How many there were; changes that could not be brought within the limits are not counted.
    best, worst
        Smallest and largest relative change of J; negative: a perturbation is better.
    rms
        Root mean square of the change of dose at the nodes, Gy, the mean over all.
    """

    tried: int
    best: float
    worst: float
    rms: float


def optimise(
    objective: ExpectedBurden,
    limited: LimitedDose,
    *,
    iterations: int = 12,
    progress: Callable[[float], None] = lambda _share: None,
) -> OptimisedDose:
    """Return the dose of least expected burden within the limits.

    Parameters
    ----------
    objective
        J.
    limited
        The uniform plan, its control and the limits.
    iterations
        At most so many.
    progress
        Told the share of them that is done.

    Raises
    ------
    InputError
        No dose keeps the limits.
    """
    control, box = limited.control, limited.control.box
    rows = control.hats_at(control.samples)
    weight = np.count_nonzero(control.movable) / len(control.samples)
    smooth = control.gradient_rows(control.samples) * min(control.spacing)
    pull = sparse.csr_array(smooth.T @ smooth)
    pull = pull / float(pull.diagonal().max()) + 0.1 * sparse.eye_array(control.size)
    steps = _Steps(limited)
    uniform = objective.slopes(limited.plan, box)
    if not uniform.slope[box].any():
        raise InputError("optimise: expected a dose that changes the burden, it does not. Check plan and horizon.")
    nodes = np.zeros(control.size)
    here, plan, radius = uniform, limited.plan, FIRST_RADIUS
    if not steps.feasible(nodes):
        nodes = steps.nearest(nodes)
        plan = control.plan(limited.plan, nodes)
        here = objective.slopes(plan, box)
    history, reason = [here.mean], f"{iterations} iterations done"
    for number in range(iterations):
        slope = control.gathered(here.slope[box])
        at_samples = here.curvature[tuple(control.samples.T)] * weight
        hessian = sparse.csr_array(rows.T @ sparse.diags_array(at_samples) @ rows)
        scale = float(hessian.diagonal().max())
        ahead = steps.towards(sparse.csr_array(hessian / scale + SMOOTH * pull), slope / scale, nodes, radius)
        move = ahead - nodes
        promised = -float(slope @ move + 0.5 * move @ (hessian @ move))
        progress((number + 0.3) / iterations)
        if promised < ENOUGH * here.mean:
            reason = f"converged: the best step would lower the burden by less than {ENOUGH:g} of it"
            break
        trial = control.plan(limited.plan, ahead)
        there = objective.slopes(trial, box)
        kept = (here.mean - there.mean) / promised
        if kept > 0:
            nodes, plan, here = ahead, trial, there
        history.append(here.mean)
        radius *= 2.0 if kept > 0.7 else 1.0 if kept > 0.3 else 0.35
        radius = min(radius, LARGEST_RADIUS)
        progress((number + 1) / iterations)
        if radius < SMALLEST_RADIUS:
            reason = f"converged: steps of {SMALLEST_RADIUS:g} Gy do not lower the burden"
            break
        if kept > 0 and history[-2] - history[-1] < ENOUGH * here.mean:
            reason = f"converged: the last step lowered the burden by less than {ENOUGH:g} of it"
            break
    progress(1.0)
    return OptimisedDose(plan, nodes, uniform, here, tuple(history), reason)


def perturbed(
    objective: ExpectedBurden,
    limited: LimitedDose,
    found: OptimisedDose,
    *,
    count: int = 10,
    seed: int = 0,
    size: float = 2.0,
    progress: Callable[[float], None] = lambda _share: None,
) -> Perturbations:
    """Change the dose at random within the limits and tell whether any change lowers J.

    Parameters
    ----------
    count, seed
        How many changes, and of the random numbers.
    size
        Standard deviation of the change at every node before it is projected onto the limits, Gy; every second one is
        a fifth of it.
    """
    generator, steps, changes, rms = np.random.default_rng(seed), _Steps(limited), [], []
    for number in range(count):
        step = size * generator.standard_normal(found.nodes.size) * (1.0 if number % 2 == 0 else 0.2)
        progress((number + 1) / count)
        try:
            other = steps.nearest(found.nodes + step)
        except InputError:  # no dose within the limits was found there: nothing is learnt, and the optimum stays
            continue
        burdens = objective.burdens(limited.control.plan(limited.plan, other))
        changes.append(float(burdens.mean()) / found.optimised.mean - 1)
        rms.append(float(np.sqrt(np.mean((other - found.nodes) ** 2))))
    if not changes:
        return Perturbations(0, 0.0, 0.0, 0.0)
    return Perturbations(len(changes), min(changes), max(changes), float(np.mean(rms)))


class _Steps:
    """Steps that keep the limits in every voxel; remembers where doses were too steep."""

    def __init__(self, limited: LimitedDose) -> None:
        self._limited = limited
        self._integral = limited.spent(limited.control.dose)
        places = [limited.control.samples, limited.steep_already(STEEP_ALREADY, MOST_NEW)]
        self._voxels = np.unique(np.concatenate(places), axis=0)
        self._rows = limited.control.gradient_rows(self._voxels)
        self._before: Program | None = None

    def feasible(self, nodes: Array) -> bool:
        """Tell whether c keeps the limits."""
        return self._limited.kept(self._limited.attained(self._plan(nodes)), self._integral)

    def nearest(self, nodes: Array) -> Array:
        """Return the point that keeps the limits and is nearest to c.

        Raises
        ------
        InputError
            There is none.
        """
        eye = sparse.csr_array(sparse.eye_array(nodes.size))
        return self._kept(eye, -nodes, np.zeros_like(nodes), 1e3)

    def towards(self, hessian: sparse.csr_array, slope: Array, nodes: Array, radius: float) -> Array:
        """Return c after the step that the model of J promises most of; c itself where there is none."""
        try:
            return self._kept(hessian, slope - hessian @ nodes, nodes, radius)
        except InputError:
            return nodes

    def _kept(self, hessian: sparse.csr_array, slope: Array, nodes: Array, radius: float) -> Array:
        """Return the minimum of ½ cᵀH c + slopeᵀc that keeps the limits in every voxel."""
        limits, at = self._limited.limits, nodes
        for _ in range(TRIES):
            constraints = self._limited.constraints(nodes, radius, self._voxels, self._rows, at)
            self._before = minimise(hessian, slope, constraints, nodes, before=self._before)
            plan = self._plan(self._before.x)
            found = self._limited.attained(plan)
            if self._limited.kept(found, self._integral):
                return self._before.x
            self._look_at(self._limited.too_steep(plan)[:MOST_NEW])
            at = self._before.x
        raise InputError(
            "limits: expected a dose that keeps all of them, found none:"
            f" steepest {found['steepest_Gy_per_mm']:.3g} of {limits.steepest:.3g} Gy/mm, integral"
            f" {found['integral_Gy_ml']:.5g} of {self._integral:.5g} Gy·ml, smallest in the target"
            f" {found['target_minimum_Gy']:.3g} of {limits.minimum:.3g} Gy. Widen one."
        )

    def _look_at(self, voxels: NDArray[np.intp]) -> None:
        """Look at more voxels from now on; what is known of the others starts the next programme."""
        known = {tuple(place) for place in self._voxels}
        new = np.array([place for place in voxels if tuple(place) not in known], np.intp).reshape(-1, 3)
        if not len(new) or self._before is None:
            return
        rows = self._limited.control.gradient_rows(new)
        self._before = self._before.with_points(len(self._voxels), len(new))
        parts = zip(np.split(np.arange(self._rows.shape[0]), 3), np.split(np.arange(rows.shape[0]), 3), strict=True)
        self._rows = sparse.csr_array(sparse.vstack([part for a, b in parts for part in (self._rows[a], rows[b])]))
        self._voxels = np.concatenate([self._voxels, new])

    def _plan(self, nodes: Array) -> TherapyPlan:
        return self._limited.control.plan(self._limited.plan, nodes)
