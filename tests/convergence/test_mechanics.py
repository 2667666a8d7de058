"""Order of the displacement for a manufactured body force, and a growing ball against its closed form."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ufl
from elastic_ball import INNER, elastic_ball, one_tissue, radial_solution, radius
from figures import Figure

from hybridtumor.meshes.domain import distribute
from hybridtumor.meshes.lattice import uniform_lattice
from hybridtumor.models.mechanics import first_piola, potential_density
from hybridtumor.solvers.mechanics import Mechanics
from hybridtumor.solvers.newton import Effort, RestProblem
from hybridtumor.solvers.petsc import MPI, compile_form

# isort: split
from dolfinx import fem, mesh

MU, LAMBDA = 0.7, 2.1


def exact(x: Any, size: float) -> Any:
    """A displacement that vanishes on the faces of the unit box."""
    bubble = ufl.sin(ufl.pi * x[0]) * ufl.sin(ufl.pi * x[1]) * ufl.sin(ufl.pi * x[2])
    return size * bubble * ufl.as_vector([1.0, x[0] - 0.5 * x[2], ufl.cos(ufl.pi * x[1])])


def written_stress(material: str, F: Any, g: Any, p: Any) -> Any:
    """First Piola–Kirchhoff stress, written down by hand rather than derived from an energy."""
    identity = ufl.Identity(3)
    if material == "linear":
        strain = (F + F.T) / 2 - g * identity
        return 2 * MU * strain + LAMBDA * ufl.tr(strain) * identity - p * identity
    elastic, inverse = F / g, ufl.inv(F / g).T
    P = MU * (elastic - inverse) + LAMBDA / 2 * (ufl.det(elastic) ** 2 - 1) * inverse
    return g**2 * P - p * ufl.det(F) * ufl.inv(F).T


def l2_error(material: str, spacing: float) -> float:
    lattice = uniform_lattice((0, 0, 0), (1, 1, 1), spacing)
    domain = distribute(lattice, MPI.COMM_SELF).space.mesh
    space = fem.functionspace(domain, ("Lagrange", 1, (3,)))
    domain.topology.create_connectivity(2, 3)
    fixed = fem.locate_dofs_topological(space, 2, mesh.exterior_facet_indices(domain.topology))
    x, v, w = ufl.SpatialCoordinate(domain), fem.Function(space), ufl.TestFunction(space)
    g, p = 1 + 0.1 * ufl.cos(2 * x[0] + x[1]), 0.1 * ufl.sin(3 * x[2])
    target = exact(x, 0.1)
    force = -ufl.div(written_stress(material, ufl.Identity(3) + ufl.grad(target), g, p))
    F, dx = ufl.Identity(3) + ufl.grad(v), ufl.dx(metadata={"quadrature_degree": 4})
    arguments = (material, F, g, MU, LAMBDA, p)
    residual = ufl.inner(first_piola(*arguments), ufl.grad(w)) * dx - ufl.inner(force, w) * dx
    problem = RestProblem(v, residual, potential_density(*arguments) * dx, fixed)
    problem.prepare_step()
    problem.solve(problem.residual_norm(), Effort())
    return float(np.sqrt(fem.assemble_scalar(compile_form(ufl.inner(v - target, v - target) * dx))))


@pytest.mark.law("mechanics", "Linear and neo-Hookean displacement under a manufactured force: second order")
@pytest.mark.parametrize("material", ["linear", "neo-hookean"])
def test_displacement_is_second_order(material: str, figure: Figure) -> None:
    spacings = [1 / 4, 1 / 8, 1 / 16]
    errors = [l2_error(material, spacing) for spacing in spacings]
    assert (np.diff(np.log(errors)) / np.diff(np.log(spacings))).min() >= 1.9
    assert errors[-1] < 2e-3
    figure("order", np.diff(np.log(errors)) / np.diff(np.log(spacings)), at_least=1.9)
    figure("error", errors[-1], at_most=2e-3)


@pytest.mark.law("mechanics", "A growing ball in an elastic one has its closed form, ν = 0.3 and 0.45")
@pytest.mark.parametrize("poisson", [0.3, 0.45])
def test_a_growing_ball_in_an_elastic_ball_has_its_closed_form(poisson: float, figure: Figure) -> None:
    """Displacement at the tumour's surface and pressure within, to 1 %; both errors fall with the cell size."""
    errors = []
    for cell_size in (3.5, 1.75):
        head, density = elastic_ball(cell_size, coarsest=2 * cell_size)
        rest = Mechanics.prepare(head, one_tissue("linear", 0.05, poisson), 0 * density, MPI.COMM_SELF).solve(density)
        r, centre = radius(head.mesh.points), radius(head.mesh.points[head.mesh.cells].mean(1))
        surface, inside = np.abs(r - INNER) < 1, centre < INNER / 2
        outwards = (rest.displacement * head.mesh.points)[surface].sum(1) / r[surface]
        weight = head.mesh.volumes * inside
        closed = radial_solution(r[surface], 0.05, poisson)[0], radial_solution(centre, 0.05, poisson)[1]
        errors.append((outwards.mean() / closed[0].mean() - 1, weight @ rest.pressure / (weight @ closed[1]) - 1))
    assert np.abs(errors[1]).max() < 0.01
    figure("error at the surface", 100 * abs(errors[1][0]), "%", at_most=1)
    figure("error of the pressure", 100 * abs(errors[1][1]), "%", at_most=1)
    assert abs(errors[1][0]) < abs(errors[0][0]) / 2


PROGRAM = """
import sys
import numpy as np
from elastic_ball import elastic_ball
from mpi4py import MPI
from hybridtumor.parameters import MechanicalParameters
from hybridtumor.solvers.mechanics import Mechanics

head, density = elastic_ball(3.0, cavity=5.0)
parameters = MechanicalParameters(ventricle_pressure="0.02 kPa")
rest = Mechanics.prepare(head, parameters, 0.2 * density).solve(density)
comm = MPI.COMM_WORLD
everyone = comm.gather([rest.displacement, rest.gradient, rest.von_mises, rest.pressure])
if comm.rank == 0:
    for other in everyone[1:]:
        for ours, theirs in zip(everyone[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.savez(sys.argv[1], displacement=rest.displacement, von_mises=rest.von_mises, pressure=rest.pressure)
"""


def run(ranks: int, folder: Path) -> dict[str, np.ndarray]:
    beside = Path(sys.executable).parent / "mpiexec"
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    out = folder / f"{ranks}.npz"
    launch = [launcher, "-n", str(ranks)] if ranks > 1 else []
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n" + PROGRAM
    done = subprocess.run(
        [*launch, sys.executable, "-c", program, str(out)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))


@pytest.mark.law("mechanics", "One and two MPI ranks give the same rest")
def test_ranks_cannot_be_seen(tmp_path: Path, figure: Figure) -> None:
    one, two = run(1, tmp_path), run(2, tmp_path)
    assert np.abs(one["displacement"]).max() > 0.1
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=0, atol=1e-8)
        figure("largest difference", np.abs(two[name] - values).max(), at_most=1e-8)
