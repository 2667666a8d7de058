r"""Growth under therapy: Strang splitting of reaction and kill from diffusion.

Between two landing points a step of Δt is

    R(Δt/2) · D(Δt) · R(Δt/2)

with R the closed-form flow of growth and drug kill (`hybridtumor.models.growth`) and D the exact, monotone
diffusion (`hybridtumor.solvers.diffusion`). Both keep 0 ≤ u ≤ 1 and rise with u, so the step does; nothing is
clipped. Exponential growth alone may leave [0, 1]: then the run stops. A fraction of radiation is an event on its day,
u ← u e^{−L}; the density reported for that day is the one before it. A fraction with a delivery time is a source term
while the beam is on, part of R. A resection is an event too; what it takes out is not damaged but gone. Arms that take
the same steps keep their order exactly: more kill never leaves more cells. Splitting after Strang (SIAM J. Numer. Anal.
1968).

Damaged cells d (`hybridtumor.models.damage`) are carried along and never act back: u is the same with and without
them, bit for bit. Both R hand over the cells that the drug kills in them, an event the cells it kills at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import ConvergenceError
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.models.damage import clearance_rate, leaves_damage
from hybridtumor.parameters import GrowthLaw, GrowthParameters
from hybridtumor.solvers.cells import Cells, crowded, cut_out, react, struck
from hybridtumor.solvers.diffusion import Diffusion
from hybridtumor.solvers.limited import LimitedDiffusion
from hybridtumor.solvers.petsc import MPI
from hybridtumor.solvers.time_grid import ADVICE, Fault, StepControl, advance, landing_points, repeat

Array = NDArray[np.float64]

Operator = Diffusion | LimitedDiffusion

EXCESS = 1e-9
"""How far a density may lie outside [0, 1] by round-off; farther stops the run."""

CROWDED = "Exponential growth has reached the carrying capacity there: use the law logistic or gompertz."


@dataclass(frozen=True, eq=False)
class Medium:
    """What cells live in between two landing points.

    Parameters
    ----------
    diffusion
        The diffusion operator.
    rate
        ρ, 1/day, one for all or one per degree of freedom.
    crowding
        Factor by which moved tissue has concentrated the cells since the medium before, per degree of freedom.
    """

    diffusion: Operator
    rate: float | Array
    crowding: Array | None = None


class Coupling(Protocol):
    """What changes the medium as the cells grow (`hybridtumor.solvers.coupled`)."""

    @property
    def highest(self) -> float:
        """Density up to which moved tissue may concentrate the cells."""
        ...

    def days(self, last: float) -> tuple[float, ...]:
        """Return the days until `last` on which the medium changes, day 0 among them."""
        ...

    def medium(self, cells: Cells, day: float) -> Medium:
        """Return the medium from a day of `days` on."""
        ...


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The cells over time.

    Parameters
    ----------
    density
        Report day to the density u at the degrees of freedom this rank owns.
    burden_curve
        (k, 2): day and burden ∫ u dx, mm³, on day 0, after every step and after every event.
    days
        Day 0 and the end of every step kept.
    steps, refused
        Steps kept, and steps repeated because their error was too large or their end faulty.
    products
        Products of a matrix and a vector.
    damaged
        Report day to the density of damaged cells there; None when nothing is killed, or cleared at once.
    damaged_curve
        (k, 2): day and ∫ d dx, mm³, at the points of `burden_curve`; None with `damaged`.
    """

    density: dict[float, Array]
    burden_curve: Array
    days: tuple[float, ...]
    steps: int
    refused: int
    products: int
    damaged: dict[float, Array] | None = None
    damaged_curve: Array | None = None


def grow(
    diffusion: Operator,
    growth: GrowthParameters,
    kill: KillSchedule,
    initial: Array,
    report_days: Sequence[float],
    control: StepControl,
    progress: Callable[[float], None] | None = None,
    *,
    steps: Sequence[float] | None = None,
    clearance_half_time: float = 0.0,
    coupling: Coupling | None = None,
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
        land on every report day, every event and every day of the coupling. None: steps adapt.
    clearance_half_time
        Time in which half of the damaged cells are cleared, days; 0: at once.
    coupling
        What changes diffusion and proliferation on the way; None: nothing does.

    Raises
    ------
    ConvergenceError
        The density left [0, 1], is not finite, or the steps became too small.
    """
    last = max(report_days)
    medium = Medium(diffusion, growth.proliferation)
    products, counted = 0, diffusion.products
    clearance = clearance_rate(clearance_half_time)
    curve: list[tuple[float, float]] = []
    damaged_curve: list[tuple[float, float]] = []

    def flow(cells: Cells, start: float, stop: float) -> Cells:
        reaction = partial(react, growth.law, medium.rate, kill, clearance)
        return _step(medium.diffusion, reaction, cells, start, stop)

    def record(cells: Cells, day: float) -> None:
        curve.append((day, medium.diffusion.integral(cells.living)))
        if cells.damaged is not None:
            damaged_curve.append((day, medium.diffusion.integral(cells.damaged)))

    def accepted(cells: Cells, day: float) -> None:
        record(cells, day)
        if progress is not None:
            progress(day / last)

    crowds = coupling is not None and growth.law != "exponential"  # the other laws thin out what is too dense
    fault = _fault(diffusion, growth.law, coupling.highest if coupling is not None and crowds else 1.0)
    living = np.array(initial, np.float64)
    cells = Cells(living, np.zeros_like(living) if leaves_damage(kill, clearance_half_time) else None)
    if (found := fault(cells)) is not None:
        raise ConvergenceError(f"growth: expected a density in [0, 1] on day 0, got a {found.what}. {ADVICE}")
    record(cells, 0.0)
    step, taken, refused, reported = control.first, 0, 0, dict[float, Cells]()
    changes = () if coupling is None else coupling.days(last)
    days = landing_points(report_days, (*kill.landing_days, *changes)) if steps is None else tuple(steps)
    for start, stop in zip(days, (*days[1:], None), strict=True):
        if start in report_days:
            reported[start] = cells
        if stop is None:
            break
        if (removed := kill.removal_log_kill(start)) is not None:
            cells = cut_out(cells, removed)
            record(cells, start)
        if start in kill.event_days:
            cells = struck(cells, kill.event_log_kill(start))
            record(cells, start)
        if coupling is not None and start in changes:
            products, medium = products + medium.diffusion.products - counted, coupling.medium(cells, start)
            counted = medium.diffusion.products
            cells = crowded(cells, medium.crowding)
        if steps is None:
            done = advance(cells, start, stop, step, control, flow, _relative_error(medium.diffusion), accepted, fault)
        else:
            done = repeat(cells, start, stop, flow, accepted, fault)
        cells, step, taken, refused = done.state, done.step, taken + done.taken, refused + done.refused
    return Trajectory(
        density={day: state.living for day, state in reported.items()},
        burden_curve=np.asarray(curve),
        days=tuple(sorted({day for day, _ in curve})),
        steps=taken,
        refused=refused,
        products=products + medium.diffusion.products - counted,
        damaged={day: d for day, state in reported.items() if (d := state.damaged) is not None} or None,
        damaged_curve=np.asarray(damaged_curve) if damaged_curve else None,
    )


def strang_step(
    diffusion: Operator,
    growth: GrowthParameters,
    kill: KillSchedule,
    u: Array,
    start: float,
    stop: float,
    rate: float | Array | None = None,
) -> Array:
    """Return the density at day `stop` from that at `start` by one step, without the events between them.

    `rate` is ρ, 1/day, one for all or one per degree of freedom; None: that of `growth`.
    """
    proliferation = growth.proliferation if rate is None else rate
    return _step(diffusion, partial(react, growth.law, proliferation, kill, 0.0), Cells(u), start, stop).living


def _step(diffusion: Operator, reaction: Callable[..., Cells], cells: Cells, start: float, stop: float) -> Cells:
    """Return the cells after one step: half of the reaction, diffusion, the other half."""
    middle, half = 0.5 * (start + stop), 0.5 * (stop - start)
    cells = reaction(cells, start, middle, half)
    cells = Cells(diffusion.step(cells.living, stop - start), cells.damaged)
    return reaction(cells, middle, stop, half)


def _relative_error(diffusion: Operator) -> Callable[[Cells, Cells], float]:
    """Return (better, worse) ↦ ‖better − worse‖ / ‖better‖ of the living cells in the norm (Σ m_i u_i²)^½."""

    def relative_error(better: Cells, worse: Cells) -> float:
        sums = np.array([diffusion.volume @ (better.living - worse.living) ** 2, diffusion.volume @ better.living**2])
        difference, size = diffusion.domain.comm.allreduce(sums)
        if not np.isfinite(difference) or size <= 0:
            return 0.0 if difference == 0 else float("nan")
        # ranks add in another order: digits that depend on it must not steer the steps
        return float(f"{np.sqrt(difference / size):.9e}")

    return relative_error


def _fault(diffusion: Operator, law: GrowthLaw, highest: float = 1.0) -> Callable[[Cells], Fault | None]:
    """Return what tells why cells may not be kept: 0 ≤ u ≤ `highest` up to round-off, all finite, on every rank."""

    def fault(cells: Cells) -> Fault | None:
        u, d = cells.living, cells.damaged
        finite = bool(np.isfinite(u).all() and (d is None or np.isfinite(d).all()))
        sides = [float(-u.min(initial=0.0)), float(u.max(initial=0.0) - highest)] if finite else [np.inf, np.inf]
        below, above = (diffusion.domain.comm.allreduce(side, op=MPI.MAX) for side in sides)
        if max(below, above) <= EXCESS:
            return None
        if law == "exponential" and below <= EXCESS:
            return Fault(f"density above the carrying capacity by {above:.3g}", CROWDED)
        return Fault(
            "density not finite" if above == np.inf else f"density outside [0, {highest:g}] by {max(below, above):.3g}"
        )

    return fault
