"""The lattice conforms, fills its box, and has the angles of the BCC lattice."""

import numpy as np
import pytest
from figures import Figure
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.meshes import quality
from hybridtumor.meshes.lattice import TetMesh, graded_lattice, uniform_lattice

HALF = 24.0


def graded(finest: float = 1.5, coarsest: float = 12.0) -> TetMesh:
    centre = np.array([5.0, -3.0, 8.0])

    def size(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1.5 + 0.5 * np.maximum(np.linalg.norm(points - centre, axis=1) - 6, 0)

    return graded_lattice([-HALF] * 3, [HALF] * 3, size, finest=finest, coarsest=coarsest)


def conforming(mesh: TetMesh, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
    """Every triangle lies between exactly two cells or in a face of the box."""
    pairs, boundary = quality.face_neighbours(mesh)
    if 2 * len(pairs) + len(boundary) != 4 * len(mesh.cells):
        return False
    x = mesh.points[boundary]
    in_face = np.isclose(x, lower).all(1) | np.isclose(x, upper).all(1)
    return bool(in_face.any(1).all())


@pytest.mark.law("mesh", "The graded lattice conforms and fills its box")
def test_graded_lattice_conforms_and_fills_the_box(figure: Figure) -> None:
    mesh = graded()
    assert set(np.round(quality.edge_lengths(mesh).max(1), 6)) >= {1.5, 3.0, 6.0, 12.0}
    assert mesh.volumes.min() > 0
    figure("error of the volume", abs(mesh.volumes.sum() / (2 * HALF) ** 3 - 1), at_most=1e-12)
    assert conforming(mesh, np.full(3, -HALF), np.full(3, HALF))
    assert len(np.unique(mesh.points, axis=0)) == len(mesh.points)
    assert np.array_equal(np.unique(mesh.cells), np.arange(len(mesh.points)))


def test_an_abrupt_size_is_graded() -> None:
    def size(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.linalg.norm(points - [1.0, 2.0, -1.0], axis=1) < 2, 1.0, 16.0)

    mesh = graded_lattice([-HALF] * 3, [HALF] * 3, size, finest=1.0, coarsest=16.0)
    assert conforming(mesh, np.full(3, -HALF), np.full(3, HALF))
    assert mesh.volumes.sum() == pytest.approx((2 * HALF) ** 3, rel=1e-12)
    assert quality.dihedral_angles(mesh).max() < 120 + 1e-6


def test_a_missing_cell_is_seen() -> None:
    mesh = graded()
    inner = np.linalg.norm(mesh.corners.mean(0), axis=0).argmin()
    torn = TetMesh(mesh.points, np.delete(mesh.cells, inner, axis=0))
    assert not conforming(torn, np.full(3, -HALF), np.full(3, HALF))


def test_cells_are_as_small_as_wanted() -> None:
    mesh = graded()
    centre = mesh.corners.mean(0).T
    wanted = 1.5 + 0.5 * np.maximum(np.linalg.norm(centre - [5.0, -3.0, 8.0], axis=1) - 6, 0)
    edge = np.cbrt(12 * mesh.volumes)  # a BCC tetrahedron of spacing a has the volume a³/12
    assert (edge <= 2 * np.maximum(wanted, 1.5)).all()
    assert np.median(edge / wanted) < 1.01


@pytest.mark.law("mesh", "Dihedral angles of the graded lattice")
def test_angles(figure: Figure) -> None:
    inner = quality.dihedral_angles(graded())
    figure("smallest", inner.min(), "°", at_least=45 - 1e-6)
    figure("largest", inner.max(), "°", at_most=120 + 1e-6)
    mesh = uniform_lattice([0, 0, 0], [4, 4, 4], 1.0)
    angles = quality.dihedral_angles(mesh)
    away = np.all((mesh.corners > 0.1) & (mesh.corners < 3.9), axis=(0, 1))
    assert np.allclose(np.sort(angles[away], axis=1), [60, 60, 60, 60, 90, 90])


@pytest.mark.law("mesh", "The uniform lattice gives an M-matrix, also with jumping diffusivities")
def test_uniform_lattice_is_exactly_its_box_and_gives_an_m_matrix(figure: Figure) -> None:
    lower, upper = np.array([-1.0, 0.0, 2.0]), np.array([1.0, 1.5, 3.0])
    mesh = uniform_lattice(lower, upper, 0.25)
    assert mesh.points.min(0) == pytest.approx(lower)
    assert mesh.points.max(0) == pytest.approx(upper)
    assert mesh.volumes.sum() == pytest.approx(3.0, rel=1e-12)
    assert conforming(mesh, lower, upper)
    jumping = np.random.default_rng(0).uniform(0.01, 1.0, len(mesh.cells))
    for diffusion in (1.0, jumping):
        share, _ = quality.stiffness_signs(mesh, diffusion)
        figure("share of positive entries", share, at_most=0)


def test_stiffness_of_a_linear_field_is_its_flux_through_the_box() -> None:
    mesh = graded(finest=3.0)
    stiffness = quality.stiffness(mesh)
    x = mesh.points[:, 0]
    assert abs(stiffness @ np.ones(len(x))).max() < 1e-10
    assert x @ stiffness @ x == pytest.approx((2 * HALF) ** 3, rel=1e-10)  # ∫|∇x|²
    inside = (np.abs(mesh.points) < HALF - 0.1).all(1)
    assert abs((stiffness @ x)[inside]).max() < 1e-9
    assert quality.stiffness_diagonal(mesh) == pytest.approx(stiffness.diagonal())


def test_uniform_diagonal_is_eight_over_spacing_squared() -> None:
    mesh = uniform_lattice([0, 0, 0], [6, 6, 6], 1.5)
    ratio = quality.stiffness_diagonal(mesh) / quality.vertex_volumes(mesh)
    inside = (np.abs(mesh.points - 3) < 1.6).all(1)
    assert ratio[inside] == pytest.approx(8 / 1.5**2)


@pytest.mark.parametrize(
    ("finest", "coarsest", "upper"), [(0.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, np.inf, 1.0)]
)
def test_bad_sizes_are_refused(finest: float, coarsest: float, upper: float) -> None:
    with pytest.raises(InputError):
        graded_lattice([0, 0, 0], [1, 1, upper], lambda x: x[:, 0], finest=finest, coarsest=coarsest)
