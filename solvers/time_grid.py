r"""Where time steps fall: on every scan and every fraction, and between them as the error asks.

Between two landing points the step is chosen by step doubling (Hairer, Nørsett & Wanner, Solving Ordinary
Differential Equations I, §II.4): one step of Δt against two of Δt/2, of which the two are kept. For a method
of order 2 the error of the two is

    e = ‖u_{Δt/2,Δt/2} − u_{Δt}‖ / 3,      Δt ← Δt · clip(0.9 (tol / e)^{1/3}, 0.2, 4)

A step with e > tol is repeated. What is left to the next landing point is cut into equal steps, so that none
is tiny, and a step shortened by a landing point does not shorten the ones after it. Nothing is drawn from a
clock or the number of ranks: the same problem always gets the same steps.

A step that ends in a state nobody may keep (not finite, out of bounds) or in a solver that fails is tried again at
half its length; up to the next landing point no step is longer again. After `HALVINGS` of them the run stops, and the
error tells the last tries. A faulty state is never handed on, neither by steps that adapt nor by steps that repeat
those of another arm.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hybridtumor.errors import ConvergenceError

ORDER = 2
SAFETY, SHRINK, GROW = 0.9, 0.2, 4.0
SMALLEST = 1e-6
"""days. A step that would have to be shorter stops the run."""

HALVINGS = 12
"""How often a step may be halved between two landing points because of a fault."""

TOLD = 4
"""How many of the last tries an error tells."""

ADVICE = "Check the day-0 density and the parameters."


@dataclass(frozen=True)
class Fault:
    """Why a state may not be kept, and what to do about it."""

    what: str
    advice: str = ADVICE


@dataclass(frozen=True)
class Try:
    """A step that failed: its first day, its length in days, and why."""

    day: float
    step: float
    fault: Fault


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
    fault: Callable[[State], Fault | None] = lambda _: None,
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
    fault
        Why a state may not be kept; None for a sound one. Under MPI the same on all ranks.

    Raises
    ------
    ConvergenceError
        A step still failed after `HALVINGS` halvings, or the tolerance asks for less than `SMALLEST`.
    """
    now, taken, refused, halved, longest = start, 0, 0, 0, math.inf
    tries: list[Try] = []

    def doubled(then: float) -> tuple[State, float]:
        middle = 0.5 * (now + then)
        coarse = flow(state, now, then)
        fine = flow(flow(state, now, middle), middle, then)
        return fine, relative_error(fine, coarse) / (2**ORDER - 1)

    while stop - now > 1e-9 * max(1.0, abs(stop)):
        pieces = max(1, math.ceil((stop - now) / step - 1e-6))
        trial = (stop - now) / pieces
        then = stop if pieces == 1 else now + trial
        outcome = _attempt(doubled, then, lambda result: fault(result[0]) or _not_finite(result[1]))
        if isinstance(outcome, Fault):
            halved += 1
            tries.append(Try(now, trial, outcome))
            if halved > HALVINGS:
                raise gave_up(tries)
            step = longest = 0.5 * trial
            continue
        fine, error = outcome
        proposal = min(control.following(trial, error), longest)
        if error > control.tolerance:
            refused += 1
            step = proposal
            tries.append(Try(now, trial, _too_large(error, control.tolerance)))
            if step < SMALLEST:
                raise gave_up(tries)
            continue
        taken += 1
        step = max(proposal, step) if trial < 0.999 * step else proposal
        state, now = fine, then
        accepted(state, now)
    return Steps(state, step, taken, refused + halved)


def repeat[State](
    state: State,
    start: float,
    stop: float,
    flow: Callable[[State, float, float], State],
    accepted: Callable[[State, float], None],
    fault: Callable[[State], Fault | None] = lambda _: None,
) -> Steps[State]:
    """Take the step from `start` to `stop` that `advance` kept for another arm: two halves, no estimate.

    A step that fails here is halved, and each half again; the arm then agrees with the others to the tolerance only.
    Arguments as for `advance`.

    Raises
    ------
    ConvergenceError
        A step still failed after `HALVINGS` halvings.
    """
    tries: list[Try] = []

    def halves(state: State, now: float, then: float, depth: int) -> State:
        middle = 0.5 * (now + then)
        outcome = _attempt(lambda end: flow(flow(state, now, middle), middle, end), then, fault)
        if not isinstance(outcome, Fault):
            return outcome
        tries.append(Try(now, then - now, outcome))
        if depth == HALVINGS:
            raise gave_up(tries)
        return halves(halves(state, now, middle, depth + 1), middle, then, depth + 1)

    state = halves(state, start, stop, 0)
    accepted(state, stop)
    return Steps(state, stop - start, 1, len(tries))


def gave_up(tries: Sequence[Try]) -> ConvergenceError:
    """Return the error that tells the last tries: day, length and what was wrong with each."""
    last = tries[-1]
    told = "; ".join(f"day {t.day:.6g}, step {t.step:.3g}: {t.fault.what}" for t in tries[-TOLD:])
    return ConvergenceError(
        f"growth: expected a step from day {last.day:g} with a finite density in [0, 1] and an error within the"
        f" tolerance, got none, {len(tries)} steps failed, the last of {last.step:.3g} days. {last.fault.advice}"
        f" Last tries: {told}."
    )


def _attempt[Result](
    take: Callable[[float], Result], then: float, fault: Callable[[Result], Fault | None]
) -> Result | Fault:
    """Return what a step to `then` gives, or why it may not be kept."""
    try:
        result = take(then)
    except ConvergenceError as error:
        return Fault(str(error))
    return fault(result) or result


def _not_finite(error: float) -> Fault | None:
    return None if math.isfinite(error) else Fault(f"error {error}")


def _too_large(error: float, tolerance: float) -> Fault:
    return Fault(f"error {error:.3g}, allowed {tolerance:g}", "Use a larger tolerance.")
