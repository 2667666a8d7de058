"""Order of the whole equation, ∂u/∂t = ∇·(D ∇u) + ρ u (1 − u) − k u + s, against a manufactured solution.

    u = 0.45 + 0.3 e^{−t/2} c,   D = 0.1 (1 + c/2),   c = cos πx cos πy cos πz   on the unit box, no flux

The source s is what u asks for. It is no part of the package: the test adds its time integral before and after each
step of the solver, S(Δt/2) · step · S(Δt/2), which keeps the splitting symmetric.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from boxes import kill_of, lumped_volume, parameters
from figures import Figure

from hybridtumor.meshes.domain import distribute
from hybridtumor.meshes.lattice import uniform_lattice
from hybridtumor.solvers.diffusion import Diffusion, assemble_diffusion
from hybridtumor.solvers.growth import strang_step
from hybridtumor.solvers.petsc import MPI

RATE, END = 0.8, 1.0
DRUG = kill_of((), (), ((0.0, 75.0),), 0.5, 1.5)
"""k(t) = 0.5 e^{−1.5 t}."""


def mode(x: np.ndarray) -> np.ndarray:
    return np.cos(np.pi * x).prod(axis=1)


def diffusivity(x: np.ndarray) -> np.ndarray:
    return 0.1 * (1 + 0.5 * mode(x))


def exact(x: np.ndarray, time: float) -> np.ndarray:
    return 0.45 + 0.3 * np.exp(-time / 2) * mode(x)


def source(x: np.ndarray, time: float) -> np.ndarray:
    """s = ∂u/∂t − ∇D·∇u − D Δu − ρ u (1 − u) + k u."""
    u, amplitude = exact(x, time), 0.3 * np.exp(-time / 2)
    cosine, sine = np.cos(np.pi * x), np.sin(np.pi * x)
    slope = -np.pi * np.stack([sine[:, i] * np.delete(cosine, i, axis=1).prod(axis=1) for i in range(3)], axis=1)
    flux = 0.05 * amplitude * (slope**2).sum(axis=1) - 3 * np.pi**2 * diffusivity(x) * amplitude * mode(x)
    return -amplitude / 2 * mode(x) - flux - RATE * u * (1 - u) + 0.5 * np.exp(-1.5 * time) * u


@cache
def box(spacing: float) -> tuple[Diffusion, np.ndarray]:
    mesh = uniform_lattice((0, 0, 0), (1, 1, 1), spacing)
    domain, ones = distribute(mesh, MPI.COMM_SELF), np.ones(len(mesh.cells))
    there = diffusivity(mesh.points[mesh.cells].mean(axis=1))
    diffusion = assemble_diffusion(domain, there, ones, lumped_volume(mesh))
    return diffusion, mesh.points[domain.vertices]


def solution(spacing: float, steps: int, rate: float = RATE) -> np.ndarray:
    diffusion, x = box(spacing)

    def add(u: np.ndarray, start: float, stop: float) -> np.ndarray:
        ends, middle = source(x, start) + source(x, stop), source(x, 0.5 * (start + stop))
        return u + (stop - start) / 6 * (ends + 4 * middle)

    u, days = exact(x, 0), np.linspace(0, END, steps + 1)
    for start, stop in pairwise(days):
        middle = 0.5 * (start + stop)
        u = add(u, start, middle)
        u = strang_step(diffusion, parameters(), DRUG, u, start, stop, rate)
        u = add(u, middle, stop)
    return u


def norm(spacing: float, error: np.ndarray) -> float:
    return float(np.sqrt(box(spacing)[0].volume @ error**2))


@pytest.mark.law("growth", "The whole equation with growth, drug and a manufactured solution: second order in space")
def test_whole_equation_is_second_order_in_space(figure: Figure) -> None:
    spacings = (1 / 4, 1 / 8, 1 / 16)
    errors = [norm(h, solution(h, 64) - exact(box(h)[1], END)) for h in spacings]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    figure("order", orders, at_least=1.9)
    figure("error", errors[-1], at_most=1e-3)


@pytest.mark.law("growth", "The same: second order in time")
def test_whole_equation_is_second_order_in_time(figure: Figure) -> None:
    fine = solution(1 / 8, 512)
    errors = [norm(1 / 8, solution(1 / 8, steps) - fine) for steps in (4, 8, 16, 32)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    figure("order", orders, at_least=1.9)
    figure("error", errors[-1], at_most=1e-4)


@pytest.mark.law("growth", "The same sees a proliferation that is 5 % off")
def test_a_wrong_term_is_seen(figure: Figure) -> None:
    """With a proliferation 5 % off the solution is another one."""
    spacing = 1 / 16
    right, wrong = (
        norm(spacing, solution(spacing, 32, rate) - exact(box(spacing)[1], END)) for rate in (RATE, 1.05 * RATE)
    )
    figure("error grows by", wrong / right, at_least=5)
