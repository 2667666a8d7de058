r"""A convex quadratic program with a box, one half-space and balls, by the alternating direction method.

    minimise ½ xᵀP x + qᵀx   so that   l ≤ x ≤ u,   wᵀx ≤ b,   |g_k + Γ_k x|₂ ≤ r   for every point k

Γ_k are three rows: a gradient at a point. With z = A x for all rows A and a projection Π onto the constraints,

    (P + σ + ρ AᵀA) x̃ = σ x + Aᵀ(ρ z − y) − q,   z ← Π(z̃ + y/ρ),   y ← y + ρ (z̃ − z)

over-relaxed, ρ balanced between the residuals (Boyd et al., Found. Trends Mach. Learn. 2011; Stellato et al., OSQP,
Math. Program. Comput. 2020). The matrix is factorised once for each ρ; the half-space enters by Sherman and Morrison.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

Array = NDArray[np.float64]

SIGMA, RELAXATION = 1e-6, 1.6
CHECK_EVERY, BALANCE = 25, 8.0
"""Iterations between two looks at the residuals; how far apart these may be before ρ changes."""


@dataclass(frozen=True, eq=False)
class Constraints:
    """What x has to meet.

    Parameters
    ----------
    low, high
        The box, (n,).
    weight, budget
        w, (n,), and b.
    rows
        Γ, (3 m, n): all first components, then all second ones, then all third ones.
    offset
        g, (3, m).
    radius
        r.
    """

    low: Array
    high: Array
    weight: Array
    budget: float
    rows: sparse.csr_array
    offset: Array
    radius: float

    def violation(self, x: Array) -> float:
        """Return by how much x misses the worst of them, each in units of its own size."""
        box = float(np.maximum(np.maximum(self.low - x, x - self.high), 0).max(initial=0.0))
        room = max(float(self.weight @ x) - self.budget, 0.0) / max(float(np.linalg.norm(self.weight)), 1e-300)
        steep = np.linalg.norm(self.offset + (self.rows @ x).reshape(3, -1), axis=0).max(initial=0.0) - self.radius
        return max(box, room, float(steep))


@dataclass(frozen=True, eq=False)
class Program:
    """The minimum that was found; `y` and `z` start the next program, which is alike."""

    x: Array
    z: Array
    y: Array
    iterations: int
    converged: bool
    rho: float

    def with_points(self, before: int, more: int) -> "Program":
        """Return what starts a program of `more` points after the `before` first ones, at which nothing presses."""
        parts = [
            np.concatenate(
                [v[: self.x.size + 1], np.pad(v[self.x.size + 1 :].reshape(3, before), ((0, 0), (0, more))).ravel()]
            )
            for v in (self.z, self.y)
        ]
        return replace(self, z=parts[0], y=parts[1])


def minimise(
    hessian: sparse.csr_array,
    slope: Array,
    constraints: Constraints,
    start: Array,
    *,
    before: Program | None = None,
    tolerance: float = 3e-3,
    dual_tolerance: float = 1e-2,
    most: int = 1500,
) -> Program:
    """Return the minimum.

    Parameters
    ----------
    tolerance, dual_tolerance
        How far constraints may be missed, in the unit of x, and the slope, relative to its parts.
    hessian, slope
        P, positive semidefinite, and q.
    start
        x to start from, (n,).
    before
        Result of a program that is alike.
    most
        Iterations at most.
    """
    constraints = _scaled(constraints)
    matrix, middle = _matrix(constraints), constraints.offset.ravel()
    x = start.copy()
    z = matrix @ x if before is None else before.z.copy()
    y = np.zeros_like(z) if before is None else before.y.copy()
    rho = 1.0 if before is None else before.rho
    solve = _factorised(hessian, matrix, constraints, rho)
    done, converged = 0, False
    for done in range(1, most + 1):
        ahead = solve(SIGMA * x + matrix.T @ (rho * z - y) - slope)
        seen = RELAXATION * (matrix @ ahead) + (1 - RELAXATION) * z
        x = RELAXATION * ahead + (1 - RELAXATION) * x
        z = _projected(seen + y / rho, constraints, middle)
        y = y + rho * (seen - z)
        if done % CHECK_EVERY:
            continue
        here, back, pull = matrix @ x, matrix.T @ y, hessian @ x
        primal = float(np.abs(here - z).max())
        dual = float(np.abs(pull + slope + back).max())
        size = max(float(np.abs(pull).max()), float(np.abs(back).max()), float(np.abs(slope).max()), 1e-300)
        if primal <= tolerance and dual <= dual_tolerance * size:
            converged = True
            break
        ratio = (primal / max(float(np.abs(here).max()), float(np.abs(z).max()), tolerance)) / max(dual / size, 1e-300)
        if not 1 / BALANCE < ratio < BALANCE:
            rho = float(np.clip(rho * np.sqrt(ratio), 1e-6, 1e6))
            solve = _factorised(hessian, matrix, constraints, rho)
    return Program(np.clip(x, constraints.low, constraints.high), z, y, done, converged, rho)


def _scaled(constraints: Constraints) -> Constraints:
    """Return the same constraints with gradients in units in which their rows are about as long as those of the box."""
    if not constraints.rows.nnz:
        return constraints
    size = float(np.sqrt(constraints.rows.power(2).sum() / constraints.rows.shape[0]))
    return replace(
        constraints,
        rows=sparse.csr_array(constraints.rows / size),
        offset=constraints.offset / size,
        radius=constraints.radius / size,
    )


def _matrix(constraints: Constraints) -> sparse.csr_array:
    """Return A: the box, the half-space with a row of length 1, the gradients."""
    n = constraints.low.size
    unit = constraints.weight / max(float(np.linalg.norm(constraints.weight)), 1e-300)
    parts = [sparse.eye_array(n, format="csr"), sparse.csr_array(unit[None]), constraints.rows]
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def _projected(values: Array, constraints: Constraints, middle: Array) -> Array:
    """Return the nearest point of the box, the half-space and the balls."""
    n = constraints.low.size
    size = max(float(np.linalg.norm(constraints.weight)), 1e-300)
    result = np.empty_like(values)
    result[:n] = np.clip(values[:n], constraints.low, constraints.high)
    result[n] = min(values[n], constraints.budget / size)
    steep = (values[n + 1 :] + middle).reshape(3, -1)
    length = np.linalg.norm(steep, axis=0)
    steep = steep * np.minimum(1.0, constraints.radius / np.maximum(length, 1e-300))
    result[n + 1 :] = steep.ravel() - middle
    return result


class _factorised:  # noqa: N801  a function with a memory
    """Solves (P + σ + ρ AᵀA) x = c, the row of the half-space apart, since it would fill the matrix."""

    def __init__(self, hessian: sparse.csr_array, matrix: sparse.csr_array, constraints: Constraints, rho: float):
        n = constraints.low.size
        rows = constraints.rows
        whole = hessian + (SIGMA + rho) * sparse.eye_array(n) + rho * (rows.T @ rows)
        self._solver = linalg.splu(sparse.csc_array(whole), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        self._unit = np.asarray(matrix[[n], :].toarray()).ravel()
        self._along = self._solver.solve(self._unit)
        self._share = rho / (1 + rho * float(self._unit @ self._along))

    def __call__(self, right: Array) -> Array:
        x = self._solver.solve(right)
        return np.asarray(x - self._along * (self._share * float(self._unit @ x)))
