r"""Growth under therapy: Strang splitting of reaction and kill from diffusion.

Between two landing points a step of Δt is

    R(Δt/2) · D(Δt) · R(Δt/2)

with R the closed-form flow of growth and drug kill (`hybridtumor.models.growth`) and D the exact, monotone
diffusion (`hybridtumor.solvers.diffusion`). Both keep 0 ≤ u ≤ 1 and rise with u, so the step does; nothing is
clipped. A fraction of radiation is an event on its day, u ← u e^{−L}; the density reported for that day is
the one before it. Arms that take the same steps keep their order exactly: more kill never leaves more cells.
Splitting after Strang (SIAM J. Numer. Anal. 1968).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import ConvergenceError
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.models.growth import reaction_flow, surviving
from hybridtumor.parameters import GrowthParameters
from hybridtumor.solvers.diffusion import Diffusion
from hybridtumor.solvers.petsc import MPI
from hybridtumor.solvers.time_grid import StepControl, advance, landing_points, repeat

Array = NDArray[np.float64]

EXCESS = 1e-9
"""How far a density may lie outside [0, 1] by round-off; farther stops the run."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The density over time.

    Parameters
    ----------
    density
        Report day to the density at the degrees of freedom this rank owns.
    burden_curve
        (k, 2): day and burden ∫ u dx, mm³, on day 0, after every step and after every event.
    days
        Day 0 and the end of every step kept.
    steps, refused
        Steps kept and steps repeated because their error was too large.
    """

    density: dict[float, Array]
    burden_curve: Array
    days: tuple[float, ...]
    steps: int
    refused: int


def grow(
    diffusion: Diffusion,
    growth: GrowthParameters,
    kill: KillSchedule,
    initial: Array,
    report_days: Sequence[float],
    control: StepControl,
    progress: Callable[[float], None] | None = None,
    *,
    steps: Sequence[float] | None = None,
) -> Trajectory:
    """Grow a density from day 0 to the last report day.

    Parameters
    ----------
    diffusion
        The diffusion operator.
    growth
        Proliferation and growth law; the diffusivities are in `diffusion`.
    kill
        What therapy does, its fields at the degrees of freedom this rank owns.
    initial
        Density on day 0 there.
    report_days
        Days ≥ 0 to report.
    control
        Accuracy in time.
    progress
        Called with the share of the time that is done, in [0, 1].
    steps
        `Trajectory.days` of another arm, whose steps are taken again without estimating their error; they have to
        land on every report day and every event. None: steps adapt.

    Raises
    ------
    ConvergenceError
        The density left [0, 1], is not finite, or the steps became too small.
    """
    last = max(report_days)
    curve: list[tuple[float, float]] = []

    def flow(u: Array, start: float, stop: float) -> Array:
        return strang_step(diffusion, growth, kill, u, start, stop)

    def accepted(u: Array, day: float) -> None:
        _require_density(diffusion, u, day)
        curve.append((day, diffusion.integral(u)))
        if progress is not None:
            progress(day / last)

    u, step, taken, refused = np.array(initial, np.float64), control.first, 0, 0
    _require_density(diffusion, u, 0.0)
    curve.append((0.0, diffusion.integral(u)))
    density: dict[float, Array] = {}
    days = landing_points(report_days, kill.event_days) if steps is None else tuple(steps)
    for start, stop in zip(days, (*days[1:], None), strict=True):
        if start in report_days:
            density[start] = u
        if stop is None:
            break
        if start in kill.event_days:
            u = surviving(u, kill.event_log_kill(start))
            curve.append((start, diffusion.integral(u)))
        if steps is None:
            done = advance(u, start, stop, step, control, flow, _relative_error(diffusion), accepted)
        else:
            done = repeat(u, start, stop, flow, accepted)
        u, step, taken, refused = done.state, done.step, taken + done.taken, refused + done.refused
    kept = tuple(sorted({day for day, _ in curve}))
    return Trajectory(density, np.asarray(curve), kept, taken, refused)


def strang_step(
    diffusion: Diffusion, growth: GrowthParameters, kill: KillSchedule, u: Array, start: float, stop: float
) -> Array:
    """Return the density at day `stop` from that at `start` by one step, without the events between them."""
    middle, half = 0.5 * (start + stop), 0.5 * (stop - start)
    u = reaction_flow(growth.law, u, growth.proliferation, half, kill.drug_log_kill(start, middle))
    u = diffusion.step(u, stop - start)
    return reaction_flow(growth.law, u, growth.proliferation, half, kill.drug_log_kill(middle, stop))


def _relative_error(diffusion: Diffusion) -> Callable[[Array, Array], float]:
    """Return (better, worse) ↦ ‖better − worse‖ / ‖better‖ in the norm (Σ m_i u_i²)^½."""

    def relative_error(better: Array, worse: Array) -> float:
        sums = np.array([diffusion.volume @ (better - worse) ** 2, diffusion.volume @ better**2])
        difference, size = diffusion.domain.comm.allreduce(sums)
        if not np.isfinite(difference) or size <= 0:
            return 0.0 if difference == 0 else float("nan")
        # ranks add in another order: digits that depend on it must not steer the steps
        return float(f"{np.sqrt(difference / size):.9e}")

    return relative_error


def _require_density(diffusion: Diffusion, u: Array, day: float) -> None:
    """Stop unless 0 ≤ u ≤ 1 up to round-off on every rank."""
    finite = bool(np.isfinite(u).all())
    beyond = max(-u.min(initial=0.0), u.max(initial=0.0) - 1) if finite else np.inf
    worst = diffusion.domain.comm.allreduce(float(beyond), op=MPI.MAX)
    if worst > EXCESS:
        raise ConvergenceError(
            f"growth: expected a density in [0, 1] on day {day:g}, got one outside by {worst:.3g}."
            " Check the day-0 density and the parameters."
        )
