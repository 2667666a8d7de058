"""A run of the growth solver whose steps are fixed, as the list of what happens: what an adjoint goes back through."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.models.damage import clearance_rate, leaves_damage
from hybridtumor.parameters import GrowthLaw
from hybridtumor.solvers.cells import Cells
from hybridtumor.solvers.tissue_diffusion import TissueOperator

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrozenRun:
    """A run of `grow` without mechanics that acts back, its steps fixed.

    Parameters
    ----------
    law, rate
        Growth law and ρ, 1/day.
    kill
        What therapy does.
    media
        (day, operator) from which day on which diffusion acts, the first on day 0.
    steps
        `Trajectory.days`: each is taken in two halves, as `grow` does with ``steps``.
    report_days
        Days to report.
    clearance_half_time
        Time in which half of the damaged cells are cleared, days; 0: at once.
    """

    law: GrowthLaw
    rate: float
    kill: KillSchedule
    media: tuple[tuple[float, TissueOperator], ...]
    steps: tuple[float, ...]
    report_days: tuple[float, ...]
    clearance_half_time: float = 0.0

    @property
    def clearance(self) -> float:
        """1/τ_c, 1/day."""
        return clearance_rate(self.clearance_half_time)

    def start(self, living: Array) -> Cells:
        """Return the cells on day 0."""
        damage = leaves_damage(self.kill, self.clearance_half_time)
        return Cells(living, np.zeros_like(living) if damage else None)

    def __post_init__(self) -> None:
        landings = {*self.report_days, *(day for day, _ in self.media)}
        landings |= {day for day in self.kill.landing_days if day < max(self.report_days)}
        if missed := sorted(landings - set(self.steps)):
            raise InputError(f"adjoint: expected steps that land on day {missed[0]:g}, they do not. Make them anew.")


@dataclass(frozen=True)
class Half:
    """Half a step: reaction, diffusion, reaction."""

    start: float
    stop: float
    medium: int


@dataclass(frozen=True)
class Event:
    """A fraction given at once."""

    day: float


@dataclass(frozen=True)
class Cut:
    """A resection."""

    day: float


@dataclass(frozen=True)
class Report:
    """A day of report."""

    day: float


Operation = Half | Event | Cut | Report


def operations_of(run: FrozenRun) -> list[Operation]:
    """Return what happens, in the order in which `grow` does it."""
    operations: list[Operation] = []
    starts = [day for day, _ in run.media]
    for start, stop in zip(run.steps, (*run.steps[1:], None), strict=True):
        if start in run.report_days:
            operations.append(Report(start))
        if stop is None or start >= max(run.report_days):
            break
        if run.kill.removal_log_kill(start) is not None:
            operations.append(Cut(start))
        if start in run.kill.event_days:
            operations.append(Event(start))
        medium = sum(day <= start for day in starts) - 1
        middle = 0.5 * (start + stop)
        operations += [Half(start, middle, medium), Half(middle, stop, medium)]
    return operations


def middle_of(half: Half) -> tuple[float, float]:
    """Return the middle of half a step and the duration up to it, rounded as `grow` does."""
    return 0.5 * (half.start + half.stop), 0.5 * (half.stop - half.start)
