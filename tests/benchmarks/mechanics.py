"""Mass effect on the MNI brain: cost, error of the default cell size, linear against quadratic elements; one run.

A tumour of 14 mm radius grows to 20 mm. `python tests/benchmarks/mechanics.py [cost] [ball] [quadratic] [cells]` prints
one JSON object with the sections named; without names with the first two, the other two take minutes.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import ufl

sys.path.insert(0, str(Path(__file__).parents[1]))

from elastic_ball import INNER, elastic_ball, one_tissue, radial_solution, radius
from mni_brain import mni_brain, mni_tumour

from hybridtumor.meshes.head import HeadMesh, head_mesh
from hybridtumor.models.mechanics import first_piola, potential_density
from hybridtumor.parameters import MechanicalParameters
from hybridtumor.solvers.mechanics import Equilibrium, Mechanics
from hybridtumor.solvers.newton import Effort, RestProblem

# isort: split
from dolfinx import fem, mesh

GAMMA = 0.05


def largest(displacement: np.ndarray) -> float:
    return float(np.linalg.norm(displacement, axis=1).max())


def quadratic(mechanics: Mechanics, density: np.ndarray) -> tuple[float, np.ndarray]:
    """Largest displacement at the vertices, and displacement there, with quadratic elements and the same material."""
    mechanics.solve(density)  # leaves the coefficients of this density in their functions
    domain, material = mechanics.domain.space.mesh, mechanics.parameters.material
    space = fem.functionspace(domain, ("Lagrange", 2, (3,)))
    domain.topology.create_connectivity(2, 3)
    fixed = fem.locate_dofs_topological(space, 2, mesh.exterior_facet_indices(domain.topology))
    v, w, dx = fem.Function(space), ufl.TestFunction(space), ufl.dx(metadata={"quadrature_degree": 2})
    arguments = (material, ufl.Identity(3) + ufl.grad(v), *mechanics.coefficients)
    problem = RestProblem(
        v,
        ufl.inner(first_piola(*arguments), ufl.grad(w)) * dx,
        potential_density(*arguments) * dx,
        fixed,
        mechanics.problem.forcing,
    )
    load = problem.residual_norm()
    problem.prepare_step()
    problem.solve(load, Effort())
    at_vertices = fem.Function(mechanics.problem.unknown.function_space)
    at_vertices.interpolate(v)
    owned = at_vertices.x.array[: 3 * len(mechanics.domain.vertices)].reshape(-1, 3)
    result = np.stack([mechanics.domain.gather(np.ascontiguousarray(column)) for column in owned.T], 1)
    return largest(result), result


def ball(poisson: float, cell_size: float) -> dict[str, float]:
    """Errors on the growing ball at the tumour's surface and in its middle, and what quadratic elements change."""
    head, density = elastic_ball(cell_size, coarsest=2 * cell_size)
    mechanics = Mechanics.prepare(head, one_tissue("linear", GAMMA, poisson), 0 * density)
    rest = mechanics.solve(density)
    r, centre = radius(head.mesh.points), radius(head.mesh.points[head.mesh.cells].mean(1))
    near, weight = np.abs(r - INNER) < 1, head.mesh.volumes * (centre < INNER / 2)
    closed = radial_solution(r[near], GAMMA, poisson)[0].mean()

    def outwards(displacement: np.ndarray) -> float:
        return float((displacement * head.mesh.points)[near].sum(1).dot(1 / r[near]) / near.sum())

    return {
        "surface_displacement_error": outwards(rest.displacement) / closed - 1,
        "surface_displacement_error_p2": outwards(quadratic(mechanics, density)[1]) / closed - 1,
        "pressure_error": float(weight @ rest.pressure / (weight @ radial_solution(centre, GAMMA, poisson)[1]) - 1),
    }


def timed(head: HeadMesh, material: Any, before: np.ndarray, after: np.ndarray) -> tuple[dict[str, Any], Equilibrium]:
    clock = [time.process_time()]
    mechanics = Mechanics.prepare(head, MechanicalParameters(material=material), before)
    clock.append(time.process_time())
    first = mechanics.solve(after)
    clock.append(time.process_time())
    warm = mechanics.solve(0.9 * after + 0.1 * before, first)
    clock.append(time.process_time())
    figures = {
        "cpu_seconds": dict(zip(("set_up", "first", "warm"), np.diff(clock).tolist(), strict=True)),
        "first": first.figures,
        "warm": warm.figures,
        "largest_displacement_mm": largest(first.displacement),
        "largest_pressure_kpa": float(first.pressure.max()),
        "determinant_range": [float(f(np.linalg.det(first.gradient))) for f in (np.min, np.max)],
    }
    return figures, first


def on_grid(head: HeadMesh, displacement: np.ndarray) -> np.ndarray:
    return np.stack([head.transfer.to_grid(np.ascontiguousarray(column)) for column in displacement.T])


def main(sections: list[str]) -> dict[str, object]:
    result: dict[str, object] = {}
    tissue = mni_brain()
    early, late = mni_tumour(tissue).values, mni_tumour(tissue, radius=20.0).values

    def head_of(*sizes: float) -> tuple[HeadMesh, np.ndarray, np.ndarray]:
        named = dict(zip(("cell_size_mm", "coarsest_mm"), sizes, strict=False))
        head = head_mesh(tissue, late, **named)
        return head, head.transfer.to_mesh(early), head.transfer.to_mesh(late)

    if "cost" in sections:
        start = time.perf_counter()
        head, before, after = head_of()
        result |= {
            "mesh_seconds": time.perf_counter() - start,
            "vertices": len(head.mesh.points),
            "cells": len(head.mesh.cells),
        }
        result |= {material: timed(head, material, before, after)[0] for material in ("linear", "neo-hookean")}
    if "ball" in sections:
        result["ball"] = {f"nu {nu}, {size:g} mm": ball(nu, size) for nu in (0.3, 0.45, 0.49) for size in (4.0, 3.0)}
    if "quadratic" in sections:
        head, before, after = head_of(6.0, 12.0)
        mechanics = Mechanics.prepare(head, MechanicalParameters(material="linear"), before)
        once = largest(mechanics.solve(after).displacement)
        result["brain_p2_over_p1_at_6_to_12_mm"] = quadratic(mechanics, after)[0] / once
    if "cells" in sections:
        result["cell_sizes"] = cell_sizes(tissue.head, head_of)
    return result


def cell_sizes(mask: np.ndarray, head_of: Any) -> dict[str, object]:
    """Differences from the first of several meshes, over the head."""
    table, reference = {}, None
    for sizes in ((2.5, 5.0), (4.0, 4.0), (4.0, 8.0), (4.0, 16.0), (6.0, 12.0)):
        head, before, after = head_of(*sizes)
        figures, rest = timed(head, "neo-hookean", before, after)
        field = on_grid(head, rest.displacement)
        reference = field if reference is None else reference
        figures["largest_difference_mm"] = float(np.linalg.norm(field - reference, axis=0).max())
        figures["rms_difference_mm"] = float(np.sqrt(((field - reference) ** 2).sum(0)[mask].mean()))
        figures["rms_mm"] = float(np.sqrt((field**2).sum(0)[mask].mean()))
        table[f"{sizes[0]:g} to {sizes[1]:g} mm"] = figures
    return table


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:] or ["cost", "ball"]), indent=1))
