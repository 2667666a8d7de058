"""Order in time, of the step and of the step control."""

import numpy as np
import pytest
from boxes import NO_KILL, box, parameters
from figures import Figure

from hybridtumor.solvers.growth import grow, strang_step
from hybridtumor.solvers.time_grid import StepControl


def bump(x: np.ndarray) -> np.ndarray:
    return 0.1 + 0.5 * np.cos(np.pi * x[:, 0] / 8) ** 2


@pytest.mark.law("growth", "Strang splitting: second order in time")
def test_strang_splitting_is_second_order(figure: Figure) -> None:
    diffusion, x = box((8, 1, 1), 0.5)
    ends = []
    for steps in (4, 8, 16, 32, 256):
        u = bump(x)
        for start, stop in zip(t := np.linspace(0, 4, steps + 1), t[1:], strict=False):
            u = strang_step(diffusion, parameters(), NO_KILL, u, start, stop)
        ends.append(u)
    errors = [np.sqrt(diffusion.volume @ (u - ends[-1]) ** 2) for u in ends[:-1]]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    figure("order", orders, at_least=1.9)
    figure("error", errors[-1], at_most=1e-3)


@pytest.mark.law("growth", "Step control: the error of the burden follows the tolerance, 1e-3 and 1e-4")
def test_a_smaller_tolerance_gives_a_smaller_error(figure: Figure) -> None:
    diffusion, x = box((8, 1, 1), 0.5)
    burden = [
        grow(diffusion, parameters(), NO_KILL, bump(x), (0, 4), StepControl(t)).burden_curve[-1, 1]
        for t in (1e-3, 1e-4, 1e-7)
    ]
    errors = np.abs(np.array(burden[:-1]) / burden[-1] - 1)
    figure("error", errors[0], at_most=1e-3)
    figure("error falls by", errors[0] / errors[1], at_least=3)
