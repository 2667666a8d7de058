r"""Newton's method for a field at rest: the displacement v at which a potential is stationary.

    R(v; w) = 0 for all w,      K(v) δ = −R(v),      v ← v + α δ

K is the derivative of the residual R, symmetric, and positive definite at a stable rest; conjugate gradients solve for
δ, preconditioned by algebraic multigrid (GAMG) that knows the six rigid motions. The multigrid is set up once, at the
state without load, and serves every tangent; where conjugate gradients need too many iterations with it, the solve at
hand continues with one of its own. So a result depends on nothing but the load and the start.

The step α is halved until the potential is finite (no cell is turned inside out: ln J) and the residual falls.
"""

# DOLFINx cannot be loaded before MPI
from hybridtumor.solvers.petsc import MPI, PETSc, compile_form, petsc_errors

# isort: split
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ufl
from dolfinx import fem, la
from dolfinx.fem import petsc as fem_petsc

from hybridtumor.errors import ConvergenceError

ROUND_OFF = 1e-11
"""kPa mm². Residual that is rest whatever the load: rounding leaves about 2e-13 on a head."""

RESIDUAL = 1e-10
"""Where Newton's method ends: norm of the residual over that of the load."""

FORCING = 1e-2
"""Largest relative residual to which a Newton step is solved."""

NEWTON_LIMIT, KRYLOV_LIMIT, HALVINGS = 20, 500, 8

STALE = 80
"""Conjugate gradient iterations after which the multigrid is set up anew."""

OPTIONS = {
    "ksp_type": "cg",
    "ksp_norm_type": "unpreconditioned",
    "pc_type": "gamg",
    "pc_use_amat": False,
    "mg_levels_ksp_type": "chebyshev",
    "mg_levels_pc_type": "jacobi",
    "pc_gamg_threshold": 0.0,
}


@dataclass
class Effort:
    """What a solve cost, and how its residual fell."""

    newton: int = 0
    krylov: int = 0
    residuals: list[float] = field(default_factory=list)


class RestProblem:
    """A potential's rest on a vector space with fixed degrees of freedom.

    Parameters
    ----------
    unknown
        v, a vector-valued DOLFINx function; it is the start and becomes the result.
    residual, potential
        R(v; w) and the potential as UFL forms. Coefficients and constants in them may change between solves.
    fixed
        Block numbers of the degrees of freedom (with those of other ranks at the border) at which v is 0.
    forcing
        Largest relative residual to which a Newton step is solved; 0 for a linear problem, which takes one step.
    """

    def __init__(self, unknown: Any, residual: Any, potential: Any, fixed: Any, forcing: float = FORCING) -> None:
        space = unknown.function_space
        self.unknown, self.forcing = unknown, forcing
        self._condition = fem.dirichletbc(np.zeros(3), fixed, space)
        self._residual, self._potential = compile_form(residual), compile_form(potential)
        self._tangent = compile_form(ufl.derivative(residual, unknown, ufl.TrialFunction(space)))
        with petsc_errors("mechanics"):
            self._matrix = fem_petsc.create_matrix(self._tangent)
            self._matrix.setOption(PETSc.Mat.Option.SPD, True)
            self._motions = _rigid_motions(space)
            self._vector, self._step = self._matrix.createVecLeft(), self._matrix.createVecRight()
            self._assembled = fem_petsc.create_vector(space)
            self._assemble_tangent()
            self._multigrid = self._krylov_method()

    @property
    def unknowns(self) -> int:
        """How many numbers are sought."""
        return int(self._matrix.getSize()[0])

    def residual_norm(self) -> float:
        """Return ‖R(v)‖ at the present state."""
        with petsc_errors("mechanics"):
            self._assemble_residual()
            return float(self._vector.norm())

    def prepare_step(self) -> None:
        """Make the tangent of the present state the one of the next solve's first step.

        Under a load far from rest a tangent need not be positive definite; the one of the state at rest from which
        the load is raised is.
        """
        with petsc_errors("mechanics"):
            self._assemble_tangent()

    def solve(self, load: float, effort: Effort) -> None:
        """Bring the unknown to rest; `prepare_step` has come before.

        Parameters
        ----------
        load
            Size of the forces, ‖R‖ at rest without them; the residual falls to `RESIDUAL` times this.
        effort
            Is added to.

        Raises
        ------
        ConvergenceError
            The residual could not be brought down. The unknown is then undefined.
        """
        solver = self._multigrid
        norm, rest = self.residual_norm(), max(RESIDUAL * load, ROUND_OFF)
        effort.residuals.append(norm / load)
        for step in range(NEWTON_LIMIT):
            if norm <= rest:
                return
            if step > 0:
                self.prepare_step()
            needed = 0.3 * rest / norm
            solver = self._newton_step(solver, max(min(self.forcing, norm / load), needed), effort)
            norm = self._advance(norm)
            effort.newton += 1
            effort.residuals.append(norm / load)
        if norm > rest:
            raise ConvergenceError(f"mechanics: Newton's method is not at rest after {NEWTON_LIMIT} steps.")

    def _newton_step(self, solver: PETSc.KSP, tolerance: float, effort: Effort) -> PETSc.KSP:
        """Solve K δ = R; return the method to go on with."""
        with petsc_errors("mechanics"):
            fresh = solver is not self._multigrid
            solver.setTolerances(rtol=tolerance, atol=0.0, max_it=KRYLOV_LIMIT if fresh else STALE)
            solver.solve(self._vector, self._step)
            effort.krylov += solver.getIterationNumber()
            reason: Any = solver.getConvergedReason()
            if reason > 0:
                return solver
            if not fresh and reason == PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT:
                return self._newton_step(self._krylov_method(), tolerance, effort)
            raise ConvergenceError(
                f"mechanics: conjugate gradients stopped with reason {reason}"
                f" after {solver.getIterationNumber()} iterations."
            )

    def _advance(self, norm: float) -> float:
        """Take the step, halved until it leads to an admissible state with a smaller residual; return its norm."""
        v = self.unknown.x
        owned = self._step.array_r.size
        before, direction = v.array[:owned].copy(), self._step.array_r.copy()
        for halving in range(HALVINGS):
            v.array[:owned] = before - 0.5**halving * direction
            v.scatter_forward()
            if np.isfinite(self._energy()) and (trial := self.residual_norm()) < norm:
                return trial
        raise ConvergenceError(f"mechanics: no smaller residual along Newton's direction than {norm:.3g}.")

    def _energy(self) -> float:
        local = fem.assemble_scalar(self._potential)
        return float(self.unknown.function_space.mesh.comm.allreduce(local, op=MPI.SUM))

    def _assemble_residual(self) -> None:
        with self._assembled.localForm() as local:
            local.set(0.0)
        fem_petsc.assemble_vector(self._assembled, self._residual)
        self._assembled.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        fem_petsc.set_bc(self._assembled, [self._condition], alpha=0.0)
        self._vector.array[:] = self._assembled.array_r

    def _assemble_tangent(self) -> None:
        self._matrix.zeroEntries()
        fem_petsc.assemble_matrix(self._matrix, self._tangent, bcs=[self._condition])
        self._matrix.assemble()

    def _krylov_method(self) -> PETSc.KSP:
        """Set conjugate gradients up, with a multigrid for the present tangent that stays as it is."""
        solver = PETSc.KSP().create(self._matrix.comm)
        prefix = "hybridtumor_mechanics_"
        options = PETSc.Options(prefix)
        for name, value in OPTIONS.items():
            options.setValue(name, value)
        solver.setOptionsPrefix(prefix)
        frozen = self._matrix.copy()  # smoothers on a new matrix with old bounds of its spectrum diverge
        frozen.setNearNullSpace(self._motions)
        solver.setOperators(self._matrix, frozen)
        solver.setFromOptions()
        solver.setUp()
        solver.getPC().setReusePreconditioner(True)
        return solver


def _rigid_motions(space: Any) -> PETSc.NullSpace:
    """Return the three translations and three rotations on a vector space, orthonormal."""
    index_map, x = space.dofmap.index_map, space.tabulate_dof_coordinates()
    motions = [la.vector(index_map, 3) for _ in range(6)]
    for axis in range(3):
        motions[axis].array.reshape(-1, 3)[:, axis] = 1
        one, other = (axis + 1) % 3, (axis + 2) % 3
        motions[3 + axis].array.reshape(-1, 3)[:, one] = -x[:, other]
        motions[3 + axis].array.reshape(-1, 3)[:, other] = x[:, one]
    la.orthonormalize(motions)
    owned, comm = 3 * index_map.size_local, space.mesh.comm
    vectors = [PETSc.Vec().createWithArray(m.array[:owned].copy(), bsize=3, comm=comm) for m in motions]
    return PETSc.NullSpace().create(vectors=vectors, comm=comm)
