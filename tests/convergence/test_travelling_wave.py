"""The front of a Fisher–Kolmogorov wave moves at 2√(Dρ)."""

import numpy as np
import pytest
from boxes import NO_KILL, box, parameters
from figures import Figure

from hybridtumor.solvers.growth import grow
from hybridtumor.solvers.time_grid import StepControl


@pytest.mark.law("growth", "A front moves at 2√(Dρ)")
def test_front_moves_at_twice_the_root_of_diffusion_times_proliferation(figure: Figure) -> None:
    """D = ρ = 1. A front with tail e^{−x} nears the speed 2 like 2 − 1/(2t) (Bramson 1983), so it is timed late."""
    spacing = 1 / 3
    diffusion, x = box((110, spacing, spacing), spacing)
    initial = 1 / (1 + np.exp(x[:, 0] - 10))
    days = (0, 20, 25, 30, 35, 40)
    end = grow(diffusion, parameters(), NO_KILL, initial, days, StepControl(1e-4))
    front = [diffusion.integral(end.density[day]) / spacing**2 for day in days]
    speed = np.diff(front)[1:] / 5
    figure("speed / 2√(Dρ)", speed / 2, at_least=0.98, at_most=1.02)
    figure("on the last days", speed[-1] / 2, at_least=0.99, at_most=1.01)
