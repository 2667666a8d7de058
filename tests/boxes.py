"""Boxes of uniform lattice for tests: the same operators as in the brain, without a brain."""

import numpy as np
from numpy.typing import NDArray

from hybridtumor.meshes.domain import Domain, distribute
from hybridtumor.meshes.lattice import TetMesh, uniform_lattice
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.parameters import GrowthParameters
from hybridtumor.solvers.diffusion import Diffusion, assemble_diffusion
from hybridtumor.solvers.petsc import MPI

NO_KILL = KillSchedule()


def lumped_volume(mesh: TetMesh) -> NDArray[np.float64]:
    """Vertex quadrature: every vertex gets a quarter of each of its cells."""
    return np.bincount(mesh.cells.ravel(), np.repeat(mesh.volumes / 4, 4), minlength=len(mesh.points))


def operators(mesh: TetMesh, diffusivity: float = 1.0, comm: MPI.Intracomm = MPI.COMM_SELF) -> tuple[Domain, Diffusion]:
    """Domain and diffusion of a mesh of one tissue."""
    domain, ones = distribute(mesh, comm), np.ones(len(mesh.cells))
    return domain, assemble_diffusion(domain, diffusivity * ones, ones, lumped_volume(mesh))


def box(
    upper: tuple[float, float, float], spacing: float, diffusivity: float = 1.0
) -> tuple[Diffusion, NDArray[np.float64]]:
    """Diffusion in the box from the origin to `upper`, and the coordinates of its degrees of freedom."""
    mesh = uniform_lattice((0, 0, 0), upper, spacing)
    domain, diffusion = operators(mesh, diffusivity)
    return diffusion, mesh.points[domain.vertices]


def parameters(diffusion: float = 1.0, rate: float = 1.0, law: str = "logistic") -> GrowthParameters:
    return GrowthParameters(
        diffusion_white=f"{diffusion} mm^2/day",
        diffusion_grey=f"{diffusion} mm^2/day",
        proliferation=f"{rate} 1/day",
        law=law,
    )


def kill_of(
    days: tuple[float, ...] = (),
    fields: tuple[np.ndarray, ...] = (),
    doses: tuple[tuple[float, float], ...] = (),
    peak_rate: float = 0.0,
    clearance: float = 1.0,
) -> KillSchedule:
    """Events of given log-kills, and a drug in doses of mg/m² that kills at `peak_rate` after 75 of them."""
    terms = np.array([(day, peak_rate * amount / 75, clearance) for day, amount in doses]).reshape(-1, 3)
    return KillSchedule.of_events(days, fields, terms)
