"""Laws of the mass effect: energy and stress, rigid motion, small strain, rest on day 0, pressure, non-convergence."""

from itertools import pairwise

import numpy as np
import pytest
import ufl
from ball_brain import CENTRE, ball_grid, ball_tissue, distance
from elastic_ball import elastic_ball, one_tissue, radius
from figures import Figure
from mni_brain import mni_brain
from scipy import ndimage
from scipy.spatial.transform import Rotation
from ufl.algorithms import expand_derivatives

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.grid import Grid
from hybridtumor.meshes.head import HeadMesh, head_mesh
from hybridtumor.meshes.quality import face_neighbours
from hybridtumor.models import mechanics as law
from hybridtumor.models.ventricles import ventricles
from hybridtumor.parameters import MechanicalParameters
from hybridtumor.solvers import newton
from hybridtumor.solvers.mechanics import Mechanics
from hybridtumor.solvers.petsc import MPI
from hybridtumor.tissue import TissueMap

MATERIALS = ["linear", "neo-hookean"]
GROWTH, MU, LAMBDA, PRESSURE = 1.1, 0.7, 2.1, 0.3


def some_gradient(seed: int, size: float = 0.2) -> np.ndarray:
    return np.eye(3) + size * np.random.default_rng(seed).normal(size=(3, 3))


def energy(material: str, F: np.ndarray) -> float:
    expression = law.potential_density(material, ufl.as_matrix(F.tolist()), GROWTH, MU, LAMBDA, PRESSURE)
    return float(expression(()))


def piola(material: str, F: np.ndarray) -> np.ndarray:
    expression = expand_derivatives(law.first_piola(material, ufl.as_matrix(F.tolist()), GROWTH, MU, LAMBDA, PRESSURE))
    return np.array([[float(expression[i, j](())) for j in range(3)] for i in range(3)])


def cauchy(material: str, F: np.ndarray, growth: float = GROWTH, pressure: float = PRESSURE) -> np.ndarray:
    one = np.ones(1)
    return law.cauchy_stress(material, F[None], growth * one, MU * one, LAMBDA * one, pressure * one)[0]


@pytest.mark.law("mechanics", "Stress is the slope of the energy, by differences, for both materials")
@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("seed", [0, 1])
def test_stress_is_the_slope_of_the_energy(material: str, seed: int, figure: Figure) -> None:
    F, h, slope = some_gradient(seed), 1e-5, np.empty((3, 3))
    for i, j in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[i, j] = h
        slope[i, j] = (energy(material, F + step) - energy(material, F - step)) / (2 * h)
    np.testing.assert_allclose(piola(material, F), slope, atol=1e-8)
    figure("largest difference", np.abs(piola(material, F) - slope).max(), "kPa", at_most=1e-7)


def test_neo_hookean_stress_is_the_closed_form() -> None:
    F = some_gradient(2)
    J, cauchy_of_piola = np.linalg.det(F), piola("neo-hookean", F) @ F.T / np.linalg.det(F)
    elastic = F / GROWTH
    inverse, volume = np.linalg.inv(elastic).T, np.linalg.det(elastic)
    P = GROWTH**2 * (MU * (elastic - inverse) + LAMBDA / 2 * (volume**2 - 1) * inverse)
    np.testing.assert_allclose(piola("neo-hookean", F), P - PRESSURE * J * np.linalg.inv(F).T, atol=1e-12)
    np.testing.assert_allclose(cauchy("neo-hookean", F), cauchy_of_piola, atol=1e-12)


def test_linear_stress_is_the_closed_form() -> None:
    F = some_gradient(3)
    np.testing.assert_allclose(cauchy("linear", F), piola("linear", F), atol=1e-12)


@pytest.mark.law("mechanics", "A turned head has no stress (neo-Hookean)")
def test_turning_the_head_gives_no_stress(figure: Figure) -> None:
    for angle in (0.3, 1.5, 3.0):
        turn = Rotation.from_rotvec(angle * np.array([2, -1, 2]) / 3).as_matrix()
        assert np.abs(cauchy("neo-hookean", turn * GROWTH, pressure=0)).max() < 1e-14
        figure("stress", np.abs(cauchy("neo-hookean", turn * GROWTH, pressure=0)).max(), "kPa", at_most=1e-14)
        stretched = some_gradient(4)
        turned = cauchy("neo-hookean", turn @ stretched)
        np.testing.assert_allclose(turned, turn @ cauchy("neo-hookean", stretched) @ turn.T, atol=1e-12)


@pytest.mark.law("mechanics", "Both materials agree for small strains, to first order")
def test_materials_agree_for_small_strains(figure: Figure) -> None:
    differences = []
    for size in (1e-2, 1e-3):
        F = some_gradient(5, size)
        stresses = [cauchy(material, F, growth=1 + size, pressure=0) for material in MATERIALS]
        differences.append(np.abs(stresses[0] - stresses[1]).max() / np.abs(stresses[0]).max())
    assert differences[0] < 0.1
    assert differences[1] < differences[0] / 8
    figure("difference falls by", differences[0] / differences[1], at_least=8)


def test_von_mises_and_pressure() -> None:
    stress = np.stack([np.diag([3.0, 0, 0]), -2 * np.eye(3), np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, 0]])])
    np.testing.assert_allclose(law.von_mises(stress), [3, 0, np.sqrt(3)], atol=1e-14)
    np.testing.assert_allclose(law.mean_pressure(stress), [-1, 2, 0])


def test_mixtures_lie_between_their_parts() -> None:
    parameters, csf = MechanicalParameters(), np.array([0.0, 1.0, 1.0, 0.5, 0.0])
    mu, lmbda = law.lame(parameters, csf, np.array([0.0, 0.0, 1.0, 0.0, 1.3]))
    E, nu = mu * (3 * lmbda + 2 * mu) / (lmbda + mu), lmbda / (2 * (lmbda + mu))
    np.testing.assert_allclose(E, [2.1, 0.1, 8.0, 1.1, 8.0], rtol=1e-12)
    np.testing.assert_allclose(nu, [0.45, 0.1, 0.45, 0.275, 0.45], rtol=1e-12)


@pytest.fixture(scope="module")
def ball() -> tuple[HeadMesh, np.ndarray]:
    return elastic_ball(4.0)


def prepared(ball: tuple[HeadMesh, np.ndarray], parameters: MechanicalParameters, initial: float = 0.0) -> Mechanics:
    return Mechanics.prepare(ball[0], parameters, initial * ball[1], MPI.COMM_SELF)


def size(displacement: np.ndarray) -> float:
    return float(np.linalg.norm(displacement, axis=1).max())


@pytest.mark.law("mechanics", "Nothing moves on day 0: displacement and stress are exactly zero")
@pytest.mark.parametrize("material", MATERIALS)
def test_nothing_moves_on_day_0(ball: tuple[HeadMesh, np.ndarray], material: str) -> None:
    mechanics = prepared(ball, one_tissue(material, 0.15), initial=0.7)
    later = mechanics.solve(ball[1])
    for start in (None, later):
        rest = mechanics.solve(0.7 * ball[1], start)
        assert not rest.displacement.any()
        assert np.array_equal(rest.gradient, np.broadcast_to(np.eye(3), rest.gradient.shape))
        assert not rest.von_mises.any()
        assert not rest.pressure.any()


@pytest.mark.law("mechanics", "A tumour pushes away, no cell turns over, and the volume of the head stays")
@pytest.mark.parametrize("material", MATERIALS)
def test_a_tumour_pushes_away_and_the_skull_stays(
    ball: tuple[HeadMesh, np.ndarray], material: str, figure: Figure
) -> None:
    head, density = ball
    rest = prepared(ball, one_tissue(material, 0.15)).solve(density)
    outwards = (rest.displacement * head.mesh.points).sum(1)
    assert not rest.displacement[head.outer].any()
    assert (outwards >= -1e-3).all()
    assert size(rest.displacement) > 0.3
    assert rest.pressure[radius(head.mesh.points[head.mesh.cells].mean(1)) < 4].min() > 0
    assert np.linalg.det(rest.gradient).min() > 0
    figure("smallest det F", np.linalg.det(rest.gradient).min(), at_least=0)
    volume = head.mesh.volumes @ np.linalg.det(rest.gradient)
    assert volume == pytest.approx(head.mesh.volumes.sum(), rel=1e-12 if material == "neo-hookean" else 1e-2)


@pytest.mark.law("mechanics", "Displacements of both materials differ by first order in γ")
def test_small_growth_makes_the_materials_agree(ball: tuple[HeadMesh, np.ndarray], figure: Figure) -> None:
    """The difference of the displacements relative to their size is of first order in γ."""
    differences = []
    for gamma in (0.02, 0.01):
        linear, finite = (prepared(ball, one_tissue(m, gamma)).solve(ball[1]).displacement for m in MATERIALS)
        differences.append(np.linalg.norm(linear - finite) / np.linalg.norm(linear))
    assert differences[0] < 0.1
    assert differences[0] / differences[1] == pytest.approx(2, rel=0.1)
    figure("difference falls by", differences[0] / differences[1], at_least=1.8, at_most=2.2)


def test_more_growth_never_moves_less(ball: tuple[HeadMesh, np.ndarray]) -> None:
    mechanics = prepared(ball, one_tissue("linear", 0.15), initial=0.2)
    sizes = [size(mechanics.solve(share * ball[1]).displacement) for share in (0.2, 0.3, 0.6, 1.0)]
    assert sizes[0] == 0
    assert all(less < more for less, more in pairwise(sizes))


@pytest.mark.law("mechanics", "A warm start and a cold one end in the same rest")
@pytest.mark.parametrize("material", MATERIALS)
def test_the_start_cannot_be_seen(ball: tuple[HeadMesh, np.ndarray], material: str, figure: Figure) -> None:
    mechanics = prepared(ball, MechanicalParameters(material=material))
    half = mechanics.solve(0.5 * ball[1])
    cold, warm, again = mechanics.solve(ball[1]), mechanics.solve(ball[1], half), mechanics.solve(ball[1])
    np.testing.assert_allclose(warm.displacement, cold.displacement, atol=1e-8)
    figure("largest difference", np.abs(warm.displacement - cold.displacement).max(), "mm", at_most=1e-7)
    assert np.array_equal(again.displacement, cold.displacement)


@pytest.mark.parametrize("material", MATERIALS)
def test_pressure_in_a_ventricle_pushes_its_wall_outwards(material: str) -> None:
    head, density = elastic_ball(3.0, cavity=7.0)
    parameters = MechanicalParameters(material=material, growth_strain=0.0, ventricle_pressure="0.05 kPa")
    rest = Mechanics.prepare(head, parameters, 0 * density, MPI.COMM_SELF).solve(0 * density)
    wall = np.abs(radius(head.mesh.points) - 7) < 1.5
    outwards = (rest.displacement * head.mesh.points).sum(1) / np.maximum(radius(head.mesh.points), 1e-9)
    assert outwards[wall].min() > 0.01
    assert outwards.min() > -1e-3


def test_failure_tells_how_far_the_load_got(ball: tuple[HeadMesh, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    mechanics = prepared(ball, one_tissue("neo-hookean", 0.15))
    monkeypatch.setattr(newton, "NEWTON_LIMIT", 1)
    with pytest.raises(ConvergenceError, match=r"rest") as failure:
        mechanics.solve(ball[1])
    history = str(failure.value).splitlines()[1:]
    assert len(history) == 6
    assert "load 0 to 1:" in history[0]
    assert "load 0 to 0.03125:" in history[-1]
    assert all("residuals 1.0e+00" in line for line in history)
    monkeypatch.undo()
    assert size(mechanics.solve(ball[1]).displacement) > 0.3  # a failure leaves nothing behind


def test_smaller_steps_of_load_lead_to_the_same_rest(
    ball: tuple[HeadMesh, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    mechanics = prepared(ball, one_tissue("neo-hookean", 0.15))
    whole = mechanics.solve(ball[1])
    solve, calls = newton.RestProblem.solve, []

    def stumbling(problem: newton.RestProblem, load: float, effort: newton.Effort) -> None:
        calls.append(load)
        if len(calls) in (1, 3):
            raise ConvergenceError("mechanics: stumbled.")
        solve(problem, load, effort)

    monkeypatch.setattr(newton.RestProblem, "solve", stumbling)
    steps = mechanics.solve(ball[1])
    assert steps.figures["increments"] == 3  # 0 to 1/2, to 3/4, to 1
    np.testing.assert_allclose(steps.displacement, whole.displacement, atol=1e-8)


@pytest.mark.parametrize("bad", [np.zeros(3), None, np.nan])
def test_a_bad_density_is_refused(ball: tuple[HeadMesh, np.ndarray], bad: object) -> None:
    density = bad if isinstance(bad, np.ndarray) else ball[1] + (10.1 if bad is None else np.nan)
    with pytest.raises(InputError, match="mechanics"):
        prepared(ball, one_tissue("linear", 0.15)).solve(density)


def test_the_head_is_one_piece_fixed_on_its_outside() -> None:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    fluid = ventricles(tissue)
    assert np.array_equal(fluid, distance(grid, CENTRE - (6, 0, 0)) < 4)
    csf = np.where(fluid, 0, tissue.csf)  # a hole in the mask is filled, and is fluid
    head = head_mesh(
        TissueMap(tissue.white, tissue.grey, csf, grid), tissue.white * 0, ventricles=fluid, cell_size_mm=4
    )
    assert head.csf.min() >= 0
    assert head.csf.max() <= 1
    assert (head.ventricle <= head.csf).all()
    volumes = head.mesh.volumes
    assert volumes @ head.ventricle == pytest.approx(fluid.sum() * grid.voxel_volume, rel=0.1)
    away = radius(head.mesh.points - CENTRE)
    assert away[head.outer].min() > 12
    assert np.array_equal(head.outer, np.unique(face_neighbours(head.mesh)[1]))
    assert head.transfer.to_mesh(np.ones(grid.shape)) == pytest.approx(1)


@pytest.mark.parametrize("size", [(0.0, 8.0), (9.0, 8.0)])
def test_bad_cell_sizes_are_refused(size: tuple[float, float]) -> None:
    tissue = ball_tissue(ball_grid())
    with pytest.raises(InputError, match="mesh: expected 0 < cell size"):
        head_mesh(tissue, tissue.white * 0, cell_size_mm=size[0], coarsest_mm=size[1])


def test_ventricles_of_the_mni_brain_are_the_lateral_and_third() -> None:
    """Two-millimetre voxels: every other one of the atlas."""
    full = mni_brain()
    affine = full.grid.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    parts = [values[::2, ::2, ::2] for values in (full.white, full.grey, full.csf)]
    tissue = TissueMap(*parts, Grid(parts[0].shape, affine))
    mask = ventricles(tissue)
    assert 12 < mask.sum() * tissue.grid.voxel_volume / 1000 < 22
    centre = tissue.grid.world(np.array(ndimage.center_of_mass(mask)))
    assert np.linalg.norm(centre - [0, -15, 14]) < 5
    assert mask[tuple(np.rint(tissue.grid.index([-16, -26, 22])).astype(int))]
    assert not mask[tuple(np.rint(tissue.grid.index([0, -36, -4])).astype(int))]
