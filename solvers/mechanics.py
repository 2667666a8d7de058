"""Mass effect: the displacement and the stress that a tumour's growth strain causes in the head.

`models/mechanics.py` states the equations; v is linear, growth and elasticity constant in every cell. The head is set
up once and shared by arms; a solve depends on nothing but its arguments. From a state that is at rest the load is
changed in one step; where Newton's method fails, in steps of half the size.
"""

# DOLFINx cannot be loaded before MPI
from hybridtumor.solvers.petsc import MPI

# isort: split
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ufl
from dolfinx import fem
from numpy.typing import NDArray

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.meshes.domain import Domain, distribute
from hybridtumor.meshes.head import HeadMesh
from hybridtumor.meshes.lattice import TetMesh
from hybridtumor.meshes.quality import barycentric_gradients
from hybridtumor.models import mechanics as law
from hybridtumor.parameters import MechanicalParameters
from hybridtumor.solvers.newton import FORCING, Effort, RestProblem

Array = NDArray[np.float64]

MOST_CELLS = 10.0
"""Density u + d beyond which something is wrong; with damaged cells that are slow to clear 2.3 has been seen."""

SMALLEST_STEP = 0.5**5
"""Share of a change of load that is no longer halved."""


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """The head at rest under a tumour.

    Parameters
    ----------
    density
        n = u + d at the vertices of the mesh that it belongs to, (n,).
    displacement
        v since day 0 at the vertices, (n, 3), mm, RAS.
    gradient
        F = I + ∇v in every cell, (m, 3, 3).
    von_mises, pressure
        Von Mises stress and pressure of the Cauchy stress in every cell, (m,), kPa; positive under compression.
    figures
        ``newton`` and ``krylov`` iterations, ``increments`` of load, ``unknowns``, ``seconds``.
    """

    density: Array
    displacement: Array
    gradient: Array
    von_mises: Array
    pressure: Array
    figures: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Load:
    """What acts on the head: n at the vertices, (n,), and the pressure of the ventricles, kPa."""

    density: Array
    pressure: float

    def towards(self, other: "_Load", share: float) -> "_Load":
        """Return the load that has gone this share of the way to another; exactly the other at 1."""
        return _Load(
            (1 - share) * self.density + share * other.density, (1 - share) * self.pressure + share * other.pressure
        )


@dataclass(frozen=True, eq=False)
class Mechanics:
    """The mechanics of one head; see `prepare`.

    Parameters
    ----------
    head
        Mesh and CSF.
    parameters
        Elasticity, growth strain, pressure of the ventricles.
    initial
        n_0 at the vertices, (n,).
    domain
        The mesh on the ranks.
    problem
        What is solved.
    coefficients
        g, μ, λ and p as piecewise constant functions.
    """

    head: HeadMesh
    parameters: MechanicalParameters
    initial: Array
    domain: Domain
    problem: RestProblem
    coefficients: tuple[Any, Any, Any, Any]

    @classmethod
    def prepare(
        cls, head: HeadMesh, parameters: MechanicalParameters, initial: Array, comm: MPI.Intracomm = MPI.COMM_WORLD
    ) -> "Mechanics":
        """Set up the mechanics of a head.

        Parameters
        ----------
        head
            Mesh and CSF, the same on all ranks.
        parameters
            Elasticity, growth strain, pressure of the ventricles.
        initial
            n_0 = u + d at the vertices on day 0, (n,).
        comm
            The ranks that share the work.
        """
        domain = distribute(head.mesh, comm)
        space = fem.functionspace(domain.space.mesh, ("Lagrange", 1, (3,)))
        initial = _checked(head, initial)
        day0 = _material(head, parameters, initial, _Load(initial, 0.0))
        coefficients = tuple(domain.cell_function(values) for values in day0)
        unknown, test = fem.Function(space), ufl.TestFunction(space)
        dx = ufl.dx(metadata={"quadrature_degree": 1})  # everything is constant in a cell
        F = ufl.Identity(3) + ufl.grad(unknown)
        residual = ufl.inner(law.first_piola(parameters.material, F, *coefficients), ufl.grad(test)) * dx
        potential = law.potential_density(parameters.material, F, *coefficients) * dx
        forcing = 0.0 if parameters.material == "linear" else FORCING
        problem = RestProblem(unknown, residual, potential, _marked(domain, head.outer), forcing)
        return cls(head, parameters, initial, domain, problem, coefficients)

    def solve(self, density: Array, start: Equilibrium | None = None) -> Equilibrium:
        """Return the head at rest under a tumour.

        Parameters
        ----------
        density
            n = u + d at the vertices of the head's mesh, (n,).
        start
            A state of the same head near the one sought, which saves time; day 0 if not given.

        Raises
        ------
        ConvergenceError
            No rest was found; the message holds how far the load got and how the residual fell.
        """
        begin, effort, increments = time.perf_counter(), Effort(), 0
        goal = _Load(_checked(self.head, density), self.parameters.ventricle_pressure)
        growth, _, _, pressure = material = self._material(goal)
        displacement = np.zeros_like(self.head.mesh.points)
        if (growth != 1).any() or pressure.any():
            first = _Load(self.initial, 0.0) if start is None else _Load(start.density, goal.pressure)
            displacement = displacement if start is None else start.displacement
            displacement, increments = self._follow(first, goal, displacement, effort)
        F = deformation_gradient(self.head.mesh, displacement)
        stress = law.cauchy_stress(self.parameters.material, F, *material)
        figures = {
            "newton": effort.newton,
            "krylov": effort.krylov,
            "increments": increments,
            "unknowns": self.problem.unknowns,
            "seconds": time.perf_counter() - begin,
        }
        return Equilibrium(goal.density, displacement, F, law.von_mises(stress), law.mean_pressure(stress), figures)

    def _follow(self, first: _Load, goal: _Load, known: Array, effort: Effort) -> tuple[Array, int]:
        """Raise the load from the first, under which `known` is at rest; return the goal's rest and the increments."""
        done, step, increments, history = 0.0, 1.0, 0, []
        while done < 1:
            share = min(done + step, 1.0)
            try:
                known = self._raise(first.towards(goal, done), first.towards(goal, share), known, effort)
                done, increments = share, increments + 1
            except ConvergenceError as error:
                fall = ", ".join(f"{r:.1e}" for r in effort.residuals)
                history.append(f"load {done:g} to {share:g}: {error} (residuals {fall})")
                step /= 2
                if step < SMALLEST_STEP:
                    raise ConvergenceError(
                        "mechanics: expected the head to come to rest, got none even in small steps of load."
                        " Use a smaller growth strain or pressure, or less contrast of stiffness.\n"
                        + "\n".join(history)
                    ) from error
        return known, increments

    def _raise(self, before: _Load, after: _Load, known: Array, effort: Effort) -> Array:
        """Return the rest under the load `after`, given the one under the load `before`."""
        effort.residuals.clear()
        (growth, _, _, pressure), goal = self._material(before), self._material(after)
        self._apply((growth, goal[1], goal[2], pressure))
        self._set(known)
        self.problem.prepare_step()
        self._apply(goal)
        self._set(np.zeros_like(known))
        size = self.problem.residual_norm()
        self._set(known)
        self.problem.solve(size, effort)
        return self._gathered()

    def _apply(self, material: tuple[Array, Array, Array, Array]) -> None:
        for function, values in zip(self.coefficients, material, strict=True):
            function.x.array[function.function_space.dofmap.list[:, 0]] = values[self.domain.cells]

    def _material(self, load: _Load) -> tuple[Array, Array, Array, Array]:
        return _material(self.head, self.parameters, self.initial, load)

    def _set(self, displacement: Array) -> None:
        v = self.problem.unknown.x
        v.array[: 3 * len(self.domain.vertices)] = displacement[self.domain.vertices].ravel()
        v.scatter_forward()

    def _gathered(self) -> Array:
        owned = self.problem.unknown.x.array[: 3 * len(self.domain.vertices)].reshape(-1, 3)
        return np.stack([self.domain.gather(np.ascontiguousarray(column)) for column in owned.T], 1)


def deformation_gradient(mesh: TetMesh, displacement: Array) -> Array:
    """Return F = I + ∇v in every cell, (m, 3, 3), of displacements (n, 3) at the vertices, mm."""
    gradient = barycentric_gradients(mesh.corners)
    return np.asarray(np.eye(3) + np.einsum("cji,jdc->cid", displacement[mesh.cells], gradient, optimize=True))


def _material(
    head: HeadMesh, parameters: MechanicalParameters, initial: Array, load: _Load
) -> tuple[Array, Array, Array, Array]:
    """Return g, μ, λ and p in every cell, (m,) each; a cell takes the mean density of its vertices."""
    before, now = (values[head.mesh.cells].mean(1) for values in (initial, load.density))
    mu, lmbda = law.lame(parameters, head.csf, now)
    return law.growth_stretch(parameters.growth_strain, before, now), mu, lmbda, load.pressure * head.ventricle


def _marked(domain: Domain, vertices: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the degrees of freedom at vertices of the `TetMesh`, those of other ranks included that this one sees."""
    mark = fem.Function(domain.space)
    mark.x.array[: len(domain.vertices)] = np.isin(domain.vertices, vertices)
    mark.x.scatter_forward()
    return np.flatnonzero(mark.x.array > 0.5).astype(np.int32)


def _checked(head: HeadMesh, density: Array) -> Array:
    values, vertices = np.asarray(density, np.float64), len(head.mesh.points)
    if values.shape != (vertices,):
        raise InputError(f"mechanics: expected one density for each of {vertices} vertices, got shape {values.shape}.")
    if not (values.min() > -1e-6 and values.max() < MOST_CELLS):
        raise InputError(
            f"mechanics: expected densities u + d between 0 and {MOST_CELLS:g},"
            f" got {values.min():.3g} to {values.max():.3g}."
        )
    return values
