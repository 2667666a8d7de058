"""What reaction, events and moving tissue make of living and damaged cells; diffusion moves the living ones alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.models.damage import killed_at_once, share_left
from hybridtumor.models.growth import killed_cells, reaction_flow, surviving
from hybridtumor.parameters import GrowthLaw

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """Living and damaged cells at the degrees of freedom this rank owns; damaged None: there are none."""

    living: Array
    damaged: Array | None = None


def react(
    law: GrowthLaw,
    rate: float | Array,
    kill: KillSchedule,
    clearance: float,
    cells: Cells,
    start: float,
    stop: float,
    duration: float,
) -> Cells:
    """Return the cells after growth, kill by drug and beam and clearance (1/τ_c, 1/day) alone, over `duration` days."""
    log_kill = kill.drug_log_kill(start, stop) + kill.beam_log_kill(start, stop)
    living = reaction_flow(law, cells.living, rate, duration, log_kill)
    if cells.damaged is None:
        return Cells(living)
    damaged = cells.damaged * np.exp(-clearance * duration)
    if np.any(log_kill):
        killed = killed_cells(law, cells.living, rate, duration, log_kill)
        damaged += killed * share_left(kill, start, stop, clearance)
    return Cells(living, damaged)


def struck(cells: Cells, log_kill: Array) -> Cells:
    """Return the cells after an event."""
    living = surviving(cells.living, log_kill)
    return Cells(living, None if cells.damaged is None else cells.damaged + killed_at_once(cells.living, log_kill))


def cut_out(cells: Cells, log_kill: Array) -> Cells:
    """Return the cells after a resection: living and damaged ones go alike."""
    return Cells(
        surviving(cells.living, log_kill), None if cells.damaged is None else surviving(cells.damaged, log_kill)
    )


def crowded(cells: Cells, factor: Array | None) -> Cells:
    """Return the cells after the tissue they are in has moved; J u is conserved."""
    if factor is None:
        return cells
    return Cells(cells.living * factor, None if cells.damaged is None else cells.damaged * factor)
