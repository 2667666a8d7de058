"""Location by arithmetic agrees with the tetrahedra themselves."""

import numpy as np
import pytest
from figures import Figure

from hybridtumor.meshes.lattice import Lattice
from hybridtumor.meshes.locate import locate


def graded() -> Lattice:
    def size(points: np.ndarray) -> np.ndarray:
        return 1 + 0.5 * np.linalg.norm(points - [7.0, 9.0, 6.0], axis=1)

    return Lattice.graded([0, 0, 0], [30, 24, 20], size, finest=1.0, coarsest=8.0)


@pytest.fixture(scope="module")
def lattice() -> Lattice:
    return graded()


@pytest.mark.law("mesh", "Barycentric coordinates by arithmetic reproduce 20 000 points of a graded lattice")
def test_coordinates_reproduce_the_points(lattice: Lattice, figure: Figure) -> None:
    points = np.random.default_rng(0).uniform(0, 1, (20000, 3)) * (lattice.points.max(0) - lattice.low) + lattice.low
    vertices, weights = locate(lattice, points)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    found = np.einsum("kj,kjd->kd", weights, lattice.points[vertices])
    figure("largest error", np.abs(found - points).max(), "mm", at_most=1e-10)


def test_the_vertices_are_those_of_one_tetrahedron(lattice: Lattice) -> None:
    points = np.random.default_rng(1).uniform(0, 1, (20000, 3)) * (lattice.points.max(0) - lattice.low) + lattice.low
    vertices, _ = locate(lattice, points)
    known = {tuple(cell) for cell in np.sort(lattice.mesh().cells, axis=1).tolist()}
    assert {tuple(cell) for cell in np.sort(vertices, axis=1).tolist()} <= known


def test_all_kinds_of_tetrahedra_are_met(lattice: Lattice) -> None:
    mesh = lattice.mesh()
    centres = mesh.points[mesh.cells].mean(1)
    vertices, weights = locate(lattice, centres)
    np.testing.assert_array_equal(np.sort(vertices, axis=1), np.sort(mesh.cells, axis=1))
    np.testing.assert_allclose(weights, 0.25, atol=1e-12)


def test_points_on_faces_edges_and_vertices_are_reproduced(lattice: Lattice) -> None:
    points = lattice.points[np.unique(lattice.mesh().cells)]
    for shift in ([0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0]):
        moved = np.clip(points + shift, lattice.low, lattice.points.max(0))
        vertices, weights = locate(lattice, moved)
        assert vertices.min() >= 0 or weights[vertices < 0].max() == 0
        np.testing.assert_allclose(np.einsum("kj,kjd->kd", weights, lattice.points[vertices]), moved, atol=1e-10)
