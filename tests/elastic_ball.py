"""A ball of one elastic tissue in a rigid shell, with a growing ball at its centre: what has a closed form."""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.integrate import cumulative_trapezoid

from hybridtumor.grid import Grid
from hybridtumor.meshes.head import HeadMesh, head_mesh
from hybridtumor.meshes.lattice import TetMesh
from hybridtumor.parameters import MechanicalParameters
from hybridtumor.tissue import TissueMap

INNER, OUTER, WIDTH = 8.0, 24.0, 2.0
"""mm."""


def radius(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=-1)


def ball_grid(spacing: float = 1.0) -> Grid:
    n = int(np.ceil(2 * OUTER / spacing)) + 2
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (n - 1) / 2
    return Grid((n, n, n), affine)


def voxels(grid: Grid) -> np.ndarray:
    return grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))


def profile(r: np.ndarray) -> np.ndarray:
    """Density of a tumour of radius INNER with the front of the default growth parameters."""
    return 1 / (1 + np.exp((r - INNER) / WIDTH))


def elastic_ball(cell_size: float = 2.0, cavity: float = 0.0, coarsest: float = 8.0) -> tuple[HeadMesh, np.ndarray]:
    """A ball of white matter with a ventricle of radius `cavity` and a tumour: mesh and density at vertices."""
    grid = ball_grid()
    r = radius(voxels(grid))
    fluid = r < cavity
    csf = fluid.astype(np.float32)
    tissue = TissueMap(((r < OUTER) & ~fluid).astype(np.float32), 0 * csf, csf, grid)
    head = head_mesh(tissue, profile(r), ventricles=fluid, cell_size_mm=cell_size, coarsest_mm=coarsest)
    points = head.mesh.points.copy()
    points[head.outer] *= OUTER / radius(points[head.outer])[:, None]  # onto the sphere
    return replace(head, mesh=TetMesh(points, head.mesh.cells)), profile(radius(points))


def one_tissue(material: str, gamma: float, poisson: float = 0.45, **others: Any) -> MechanicalParameters:
    return MechanicalParameters(
        material=material,
        growth_strain=gamma,
        stiffness_brain="2.1 kPa",
        stiffness_tumour="2.1 kPa",
        poisson_brain=poisson,
        poisson_tumour=poisson,
        **others,
    )


def radial_solution(r: np.ndarray, gamma: float, poisson: float) -> tuple[np.ndarray, np.ndarray]:
    """Radial displacement and pressure (kPa) at radii r under the growth strain γ n(r), one tissue, u(OUTER) = 0.

    Equilibrium is (λ + 2μ) (div u)' = 3K (γ n)', so u = β/r² ∫₀ʳ γ n s² ds + A r with β = 3K / (λ + 2μ); for a sharp
    sphere that is Lamé's u = C r inside and A r + D/r² outside.
    """
    mu, bulk = 2.1 / (2 * (1 + poisson)), 2.1 / (3 * (1 - 2 * poisson))
    beta = 3 * bulk / (bulk + 4 / 3 * mu)
    s = np.linspace(0, OUTER, 20001)
    moment = np.concatenate([[0], cumulative_trapezoid(gamma * profile(s) * s**2, s)])
    A = -beta * moment[-1] / OUTER**3
    u = beta * np.interp(r, s, moment) / np.maximum(r, 1e-9) ** 2 + A * r
    return u, -bulk * ((beta - 3) * gamma * profile(r) + 3 * A)
