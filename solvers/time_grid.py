r"""Where time steps fall: on every scan and every fraction, and between them as the error asks.

Between two landing points the step is chosen by step doubling (Hairer, Nørsett & Wanner, Solving Ordinary
Differential Equations I, §II.4): one step of Δt against two of Δt/2, of which the two are kept. For a method
of order 2 the error of the two is

    e = ‖u_{Δt/2,Δt/2} − u_{Δt}‖ / 3,      Δt ← Δt · clip(0.9 (tol / e)^{1/3}, 0.2, 4)

A step with e > tol is repeated. What is left to the next landing point is cut into equal steps, so that none
is tiny, and a step shortened by a landing point does not shorten the ones after it. Nothing is drawn from a
clock or the number of ranks: the same problem always gets the same steps.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hybridtumor.errors import ConvergenceError

ORDER = 2
SAFETY, SHRINK, GROW = 0.9, 0.2, 4.0
SMALLEST = 1e-6
"""days. A step that would have to be shorter stops the run."""


def landing_points(report_days: Iterable[float], event_days: Iterable[float]) -> tuple[float, ...]:
    """Return the days to land on, ascending: day 0, all reports, and the events before the last report."""
    reports = set(report_days)
    return tuple(sorted({0.0} | reports | {day for day in event_days if 0 <= day < max(reports, default=0.0)}))


@dataclass(frozen=True)
class StepControl:
    """How accurate a step has to be.

    Parameters
    ----------
    tolerance
        Largest error of one step, relative to the norm of the state.
    first
        Step that is tried first, days.
    longest
        Upper bound of a step, days.
    """

    tolerance: float
    first: float = 1.0
    longest: float = math.inf

    def following(self, step: float, error: float) -> float:
        """Return the step to take after one of `step` days had a relative `error`."""
        factor = SAFETY * (self.tolerance / error) ** (1 / (ORDER + 1)) if error > 0 else GROW
        return min(step * min(max(factor, SHRINK), GROW), self.longest)


@dataclass(frozen=True)
class Steps[State]:
    """What is left after an interval: the state, the step to go on with, and how many steps were taken and refused."""

    state: State
    step: float
    taken: int
    refused: int


def advance[State](
    state: State,
    start: float,
    stop: float,
    step: float,
    control: StepControl,
    flow: Callable[[State, float, float], State],
    relative_error: Callable[[State, State], float],
    accepted: Callable[[State, float], None],
) -> Steps[State]:
    """Integrate from `start` to `stop` with steps that meet the tolerance.

    Parameters
    ----------
    state
        State at `start`.
    step
        Step to try first, days.
    flow
        (state, t0, t1) to the state at t1.
    relative_error
        (better, worse) to ‖better − worse‖ / ‖better‖.
    accepted
        Called with the state and the day after every step kept.

    Raises
    ------
    ConvergenceError
        The step fell below `SMALLEST`, or the error is not a number.
    """
    now, taken, refused = start, 0, 0
    while stop - now > 1e-9 * max(1.0, abs(stop)):
        pieces = max(1, math.ceil((stop - now) / step - 1e-6))
        trial = (stop - now) / pieces
        then = stop if pieces == 1 else now + trial
        middle = 0.5 * (now + then)
        coarse = flow(state, now, then)
        fine = flow(flow(state, now, middle), middle, then)
        error = relative_error(fine, coarse) / (2**ORDER - 1)
        if not math.isfinite(error):
            raise ConvergenceError(
                f"growth: expected a finite density, got {error} on day {then:g}. Check the parameters."
            )
        proposal = control.following(trial, error)
        if error > control.tolerance:
            refused += 1
            step = proposal
            if step < SMALLEST:
                raise ConvergenceError(
                    f"growth: expected an error of at most {control.tolerance:g} per step, got {error:.3g}"
                    f" on day {now:g} with a step of {trial:.3g} days. Use a larger tolerance."
                )
            continue
        taken += 1
        step = max(proposal, step) if trial < 0.999 * step else proposal
        state, now = fine, then
        accepted(state, now)
    return Steps(state, step, taken, refused)


def repeat[State](
    state: State,
    start: float,
    stop: float,
    flow: Callable[[State, float, float], State],
    accepted: Callable[[State, float], None],
) -> Steps[State]:
    """Take the step from `start` to `stop` that `advance` kept for another arm: two halves, no estimate."""
    middle = 0.5 * (start + stop)
    state = flow(flow(state, start, middle), middle, stop)
    accepted(state, stop)
    return Steps(state, stop - start, 1, 0)
