"""Order in space: a mode that diffusion damps at a known rate, a wave that moves at a known speed."""

import numpy as np
import pytest
from boxes import NO_KILL, box, lumped_volume, operators, parameters
from figures import Figure

from hybridtumor.meshes.lattice import graded_lattice
from hybridtumor.solvers.growth import strang_step


def orders(spacings: list[float], errors: list[float]) -> np.ndarray:
    return np.diff(np.log(errors)) / np.diff(np.log(spacings))


def damped_mode(x: np.ndarray, time: float) -> np.ndarray:
    """cos πx · cos 2πy · cos πz on the unit box loses e^{−6π²t}; no flux through the sides."""
    mode = np.cos(np.pi * x[:, 0]) * np.cos(2 * np.pi * x[:, 1]) * np.cos(np.pi * x[:, 2])
    return 0.5 + 0.25 * mode * np.exp(-6 * np.pi**2 * time)


@pytest.mark.law("growth", "A damped mode on a uniform lattice: second order in space")
def test_diffusion_is_second_order(figure: Figure) -> None:
    spacings, errors = [1 / 6, 1 / 12, 1 / 24], []
    for spacing in spacings:
        diffusion, x = box((1, 1, 1), spacing)
        u = diffusion.step(damped_mode(x, 0), 0.02)
        errors.append(float(np.sqrt(diffusion.volume @ (u - damped_mode(x, 0.02)) ** 2)))
    figure("order", orders(spacings, errors), at_least=1.9)
    figure("error", errors[-1], at_most=2e-4)


def exact_wave(x: np.ndarray, time: float) -> np.ndarray:
    """u = (1 + e^{(x − 5t/√6)/√6})⁻², D = ρ = 1: the wave of Ablowitz & Zeppetella (Bull. Math. Biol. 1979)."""
    return (1 + np.exp((x[:, 0] - 12 - 5 / np.sqrt(6) * time) / np.sqrt(6))) ** -2.0


@pytest.mark.law("growth", "Growth against the exact wave of Ablowitz and Zeppetella: second order in space")
def test_growth_is_second_order(figure: Figure) -> None:
    spacings, errors = [1.0, 0.5, 0.25], []
    for spacing in spacings:
        diffusion, x = box((40, 1, 1), spacing)
        u = exact_wave(x, 0)
        for start, stop in zip(t := np.linspace(0, 3, 241), t[1:], strict=False):
            u = strang_step(diffusion, parameters(), NO_KILL, u, start, stop)
        middle = (x[:, 0] > 4) & (x[:, 0] < 32)  # the wave goes on beyond the bar, the bar does not
        errors.append(float(np.sqrt(diffusion.volume[middle] @ (u - exact_wave(x, 3))[middle] ** 2)))
    figure("order", orders(spacings, errors), at_least=1.9)
    figure("error", errors[-1], at_most=5e-3)


@pytest.mark.law("growth", "A damped mode on a graded lattice with the repaired stiffness, two refinements")
@pytest.mark.parametrize("refinement", [1, 2])
def test_repair_at_grading_transitions_is_small(refinement: int, figure: Figure) -> None:
    """Where the lattice coarsens, positive off-diagonals are dropped: constants stay, the error stays small."""
    finest = 1 / (12 * refinement)

    def size(x: np.ndarray) -> np.ndarray:
        return np.where(np.linalg.norm(x, axis=1) < 0.6, finest, 2 * finest)

    mesh = graded_lattice((0, 0, 0), (1, 1, 1), size, finest=finest, coarsest=2 * finest)
    domain, diffusion = operators(mesh)
    x, volume = mesh.points[domain.vertices], lumped_volume(mesh)[domain.vertices]
    u = diffusion.step(damped_mode(x, 0), 0.02)
    assert 0 < diffusion.positive_share < 0.1
    assert diffusion.positive_size < 0.02
    figure("error", np.sqrt(volume @ (u - damped_mode(x, 0.02)) ** 2), at_most=4e-3 / refinement)
    np.testing.assert_allclose(diffusion.step(np.full(len(x), 0.3), 1.0), 0.3, rtol=1e-12)
    point = np.zeros(len(x))
    for vertex in np.random.default_rng(0).integers(0, len(x), 5):
        point[:] = np.arange(len(x)) == vertex
        assert diffusion.step(point, 0.1 * finest**2).min() >= 0
