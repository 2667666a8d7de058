"""Order of diffusion with a full tensor; without the limiter there are no bounds, without high order no convergence."""

from itertools import pairwise

import numpy as np
import pytest
from boxes import lumped_volume
from figures import Figure
from scipy.spatial.transform import Rotation

from hybridtumor.meshes.domain import distribute
from hybridtumor.meshes.lattice import TetMesh, uniform_lattice
from hybridtumor.models.anisotropy import pulled_back
from hybridtumor.solvers.limited import LimitedDiffusion, assemble_limited
from hybridtumor.solvers.petsc import MPI

Array = np.ndarray

TURN = Rotation.from_euler("xyz", [0.5, 0.7, 0.3]).as_matrix()


def operator(mesh: TetMesh, tensor: Array, volume: Array | None = None) -> tuple[LimitedDiffusion, Array]:
    """Diffusion with a tensor per cell, or one for all, and the coordinates of its degrees of freedom."""
    m = len(mesh.cells)
    domain = distribute(mesh, MPI.COMM_SELF)
    mass = lumped_volume(mesh) if volume is None else volume
    made = assemble_limited(domain, np.array(np.broadcast_to(tensor, (m, 3, 3))), np.ones(m), mass)
    return made, mesh.points[domain.vertices]


def orders(spacings: list[float], errors: list[float]) -> Array:
    return np.diff(np.log(errors)) / np.diff(np.log(spacings))


def error(diffusion: LimitedDiffusion, u: Array, exact: Array) -> float:
    return float(np.sqrt(diffusion.volume @ (u - exact) ** 2))


# --- constant tensor: a Gaussian stays one, with second moments that grow by 2 D t ---

CONSTANT = TURN @ np.diag([1.0, 0.3, 0.1]) @ TURN.T
START = 0.25 * np.eye(3)
TIME = 0.3


def gaussian(x: Array, time: float) -> Array:
    spread = START + 2 * CONSTANT * time
    height = np.sqrt(np.linalg.det(START) / np.linalg.det(spread))
    return np.asarray(height * np.exp(-0.5 * np.einsum("ni,ij,nj->n", x, np.linalg.inv(spread), x)))


@pytest.mark.law("tensor", "A Gaussian spreads by its tensor: second order; without high order none")
def test_a_gaussian_spreads_by_its_tensor_at_second_order(figure: Figure) -> None:
    spacings, ways = [0.6, 0.4, 0.27], ("step", "high_order", "low_order")
    errors: dict[str, list[float]] = {way: [] for way in ways}
    lowest = dict.fromkeys(ways, 0.0)
    for spacing in spacings:
        diffusion, x = operator(uniform_lattice((-3.6,) * 3, (3.6,) * 3, spacing), CONSTANT)
        start = gaussian(x, 0)
        ends = {way: getattr(diffusion, way)(start, TIME) for way in ways}
        for way, u in ends.items():
            errors[way].append(error(diffusion, u, gaussian(x, TIME)))
            lowest[way] = min(lowest[way], float(u.min()))
            assert diffusion.integral(u) == pytest.approx(diffusion.integral(start), rel=1e-12)
        assert ends["step"].max() <= start.max()
        assert diffusion.positive_share > 0.2
    assert diffusion.positive_size > 0.05
    assert orders(spacings, errors["step"]).min() >= 1.85
    assert errors["step"][-1] < 5e-3
    figure("order", orders(spacings, errors["step"]), at_least=1.85)
    figure("error", errors["step"][-1], at_most=5e-3)
    figure("order without high order", orders(spacings, errors["low_order"]), at_most=0.3)
    assert errors["step"][-1] == pytest.approx(errors["high_order"][-1], rel=1e-3)
    assert lowest["high_order"] < -1e-7
    assert lowest["step"] == lowest["low_order"] == 0
    assert orders(spacings, errors["low_order"]).max() < 0.3
    assert errors["low_order"][-1] > 5 * errors["step"][-1]
    u, weight = ends["step"], diffusion.volume
    spread = np.einsum("n,ni,nj->ij", weight * u, x, x) / (weight @ u)
    np.testing.assert_allclose(TURN.T @ (spread - START) / (2 * TIME) @ TURN, np.diag([1, 0.3, 0.1]), atol=2e-3)


@pytest.mark.law("tensor", "A ball of ones undershoots without the limiter and keeps [0, 1] with it")
def test_a_ball_of_ones_needs_the_limiter(figure: Figure) -> None:
    """Undershoots of an unlimited step are of the order of a percent; limiting them away changes as little."""
    tensor = TURN @ np.diag([1.0, 0.1, 0.1]) @ TURN.T
    diffusion, x = operator(uniform_lattice((0, 0, 0), (10, 10, 10), 0.5), tensor)
    ball = (np.linalg.norm(x - 5, axis=1) < 3).astype(float)
    u, unlimited = diffusion.step(ball, 0.1), diffusion.high_order(ball, 0.1)
    assert unlimited.min() < -0.01
    assert unlimited.max() > 1.005
    assert u.min() >= 0
    figure("lowest", u.min(), at_least=0)
    figure("lowest without the limiter", unlimited.min(), at_most=-0.01)
    assert u.max() <= 1
    assert diffusion.cancelled > 1e-3
    size = np.sqrt(diffusion.volume @ unlimited**2)
    assert error(diffusion, u, unlimited) < 0.01 * size
    assert error(diffusion, diffusion.low_order(ball, 0.1), unlimited) > 0.03 * size


# --- tensor that turns from place to place: manufactured solution e^{−t} Π sin² πx_i on the unit box, with source ---

ALONG, ACROSS, WAVE = 1.0, 0.1, np.array([1.5, -1.0, 2.0])


def fibre(x: Array) -> tuple[Array, Array]:
    """Direction of the fibres, which turns with the angle k·x in a tilted plane, and its derivative by the angle."""
    angle = (x @ WAVE)[:, None]
    return np.cos(angle) * TURN[0] + np.sin(angle) * TURN[1], np.cos(angle) * TURN[1] - np.sin(angle) * TURN[0]


def fibre_tensor(x: Array) -> Array:
    q = fibre(x)[0]
    return np.asarray(ACROSS * np.eye(3) + (ALONG - ACROSS) * q[:, :, None] * q[:, None, :])


def bump(x: Array) -> tuple[Array, Array, Array]:
    """Π sin² πx_i, its gradient and its second derivatives."""
    value, slope, bend = np.sin(np.pi * x) ** 2, np.pi * np.sin(2 * np.pi * x), 2 * np.pi**2 * np.cos(2 * np.pi * x)
    gradient = np.stack([np.prod(np.where(np.arange(3) == i, slope, value), 1) for i in range(3)], 1)
    hessian = np.empty((len(x), 3, 3))
    for i, j in np.ndindex(3, 3):
        once = np.where((np.arange(3) == i) | (np.arange(3) == j), slope, value)
        hessian[:, i, j] = np.prod(np.where(np.arange(3) == i, bend, value) if i == j else once, 1)
    return value.prod(1), gradient, hessian


def source(x: Array) -> Array:
    """What has to be added at t = 0: −u − ∇·(D ∇u); ∇·(q qᵀ∇u) = (∇·q) q·∇u + ((q·∇) q)·∇u + q·H q."""
    u, gradient, hessian = bump(x)
    q, turning = fibre(x)
    spread = np.einsum("ni,nij,nj->n", q, hessian, q)
    spread += (turning @ WAVE) * (q * gradient).sum(1) + (q @ WAVE) * (turning * gradient).sum(1)
    return np.asarray(-u - ACROSS * np.trace(hessian, axis1=1, axis2=2) - (ALONG - ACROSS) * spread)


@pytest.mark.law("tensor", "A tensor that turns from place to place, manufactured solution: second order")
def test_a_varying_tensor_is_second_order(figure: Figure) -> None:
    spacings, errors = [1 / 8, 1 / 12, 1 / 18], {"step": [], "high_order": [], "low_order": []}
    active = 0.0
    for spacing in spacings:
        mesh = uniform_lattice((0, 0, 0), (1, 1, 1), spacing)
        diffusion, x = operator(mesh, fibre_tensor(mesh.corners.mean(0).T))
        rate, start, days = source(x), bump(x)[0], np.linspace(0, 0.2, round(2 / spacing) + 1)
        for way, found in errors.items():
            step, u = getattr(diffusion, way), start
            for begin, end in pairwise(days):
                half = (end - begin) / 2
                u = step(u + half * np.exp(-begin - half / 2) * rate, 2 * half)
                u = u + half * np.exp(-end + half / 2) * rate
                active = max(active, diffusion.cancelled) if way == "step" else active
            found.append(error(diffusion, u, np.exp(-0.2) * start))
    assert active > 1e-6
    assert orders(spacings, errors["step"]).min() >= 1.85
    assert errors["step"][-1] < 4e-3
    figure("order", orders(spacings, errors["step"]), at_least=1.85)
    figure("error", errors["step"][-1], at_most=4e-3)
    assert orders(spacings, errors["low_order"]).max() < 0.5
    assert errors["low_order"][-1] > 5 * errors["step"][-1]


# --- tissue that moves: the box is mapped onto itself, where the modes of the box are known ---

SPEEDS = np.array([1.0, 0.3, 0.1])
BEND = 0.06


def moved(x: Array) -> Array:
    """X ↦ x: every coordinate is shifted by a smooth function that vanishes on its own two sides."""
    other = np.stack([np.cos(np.pi * x[:, 1]), np.cos(2 * np.pi * x[:, 2]), np.cos(np.pi * x[:, 0])], 1)
    return np.asarray(x + BEND * np.sin(np.pi * x) * other)


def deformation(x: Array) -> Array:
    """F = ∂x/∂X by central differences."""
    shift = 1e-5 * np.eye(3)
    return np.stack([(moved(x + d) - moved(x - d)) / 2e-5 for d in shift], 2)


def mode(x: Array, time: float) -> Array:
    """cos πx · cos 2πy · cos πz loses e^{−π²(D₁ + 4 D₂ + D₃) t}."""
    decay = np.exp(-(np.pi**2) * (SPEEDS @ [1, 4, 1]) * time)
    return np.asarray(
        0.5 + 0.45 * decay * np.cos(np.pi * x[:, 0]) * np.cos(2 * np.pi * x[:, 1]) * np.cos(np.pi * x[:, 2])
    )


@pytest.mark.law("tensor", "Diffusion in moved tissue, pulled back to day 0: second order")
def test_diffusion_in_moved_tissue_is_second_order(figure: Figure) -> None:
    spacings, errors, ignored = [1 / 8, 1 / 12, 1 / 18], [], []
    for spacing in spacings:
        mesh = uniform_lattice((0, 0, 0), (1, 1, 1), spacing)
        f = deformation(mesh.corners.mean(0).T)
        tensor = np.array(np.broadcast_to(np.diag(SPEEDS), f.shape))
        grown = np.bincount(mesh.cells.ravel(), np.repeat(np.linalg.det(f) * mesh.volumes / 4, 4))
        for found, d in ((errors, pulled_back(tensor, f)), (ignored, tensor)):
            diffusion, x = operator(mesh, d, grown)
            u = diffusion.step(mode(moved(x), 0), 0.04)
            found.append(error(diffusion, u, mode(moved(x), 0.04)))
    assert orders(spacings, errors).min() >= 1.85
    assert errors[-1] < 3e-3
    figure("order", orders(spacings, errors), at_least=1.85)
    figure("error", errors[-1], at_most=3e-3)
    figure("error grows, motion ignored, by", ignored[-1] / errors[-1], at_least=5)
    assert ignored[-1] > 5 * errors[-1]


@pytest.mark.law("tensor", "Pulling back is the same as moving the mesh")
def test_pulling_back_is_the_same_as_moving_the_mesh(figure: Figure) -> None:
    """With a displacement linear in each cell both give the same matrix, and so the same density."""
    mesh = uniform_lattice((0, 0, 0), (1, 1, 1), 1 / 6)
    there = TetMesh(moved(mesh.points), mesh.cells)
    edges, images = mesh.corners[1:] - mesh.corners[0], there.corners[1:] - there.corners[0]
    f = np.moveaxis(images, -1, 0).swapaxes(1, 2) @ np.linalg.inv(np.moveaxis(edges, -1, 0).swapaxes(1, 2))
    tensor = np.array(np.broadcast_to(CONSTANT, f.shape))
    here, x = operator(mesh, pulled_back(tensor, f), lumped_volume(there))
    on_moved, _ = operator(there, tensor)
    u = np.random.default_rng(0).random(len(x))
    np.testing.assert_allclose(here.step(u, 0.01), on_moved.step(u, 0.01), atol=1e-12)
    figure("largest difference", np.abs(here.step(u, 0.01) - on_moved.step(u, 0.01)).max(), at_most=1e-12)
