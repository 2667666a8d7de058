r"""Damaged cells: killed by therapy, still there for a while, still seen on MRI.

    ∂d/∂t = k u − d/τ_c,      τ_c ln 2 the half-time of clearance

d has the unit of u, does not divide, does not move and does not act back on u. An event of log-kill L adds
u (1 − e^{−L}) at once; what is there decays by e^{−Δt/τ_c}, exactly over any split of the time.

A drug kills over a step [t₀, t₁] the cells K = ∫ k u dt (`hybridtumor.models.growth.killed_cells`). Their kills are
spread over the step as the drug is, so that of K there is left at t₁

    K ∫ k(s) e^{−(t₁ − s)/τ_c} ds / ∫ k(s) ds

in closed form: second order in the step, also where a step is longer than the half-life of the drug. Exponential
decay of lethally damaged cells: Chvetsov, Palta & Nagata, Phys. Med. Biol. 2008.
"""

import math

import numpy as np
from numpy.typing import NDArray

from hybridtumor.models.cell_kill import KillSchedule

Array = NDArray[np.float64]


def clearance_rate(half_time: float) -> float:
    """Return 1/τ_c, 1/day, of a half-time in days; infinite for 0, clearance at once."""
    return math.log(2) / half_time if half_time > 0 else math.inf


def leaves_damage(kill: KillSchedule, half_time: float) -> bool:
    """Tell whether there are damaged cells at all: something is given, and they are not cleared at once."""
    return half_time > 0 and bool(kill.event_days or kill.drug_doses)


def killed_at_once(u: Array, log_kill: Array | float) -> Array:
    """Return u (1 − e^{−L}): the cells that an event of log-kill L kills."""
    return np.asarray(-u * np.expm1(-np.asarray(log_kill)))


def share_left(kill: KillSchedule, start: float, stop: float, rate: float) -> float:
    """Return the share of the cells killed by the drug in [start, stop] that is not cleared at `stop`, in (0, 1].

    Parameters
    ----------
    kill
        The schedule; without drug in the interval the share is 1.
    start, stop
        The step, days.
    rate
        1/τ_c, 1/day.
    """
    given = [dose for dose in kill.drug_doses if dose[0] < stop]
    if not given:
        return 1.0
    day, amount = np.asarray(given, np.float64).T
    entry, clearance = np.maximum(start, day), kill.drug_clearance
    span, wane = stop - entry, np.exp(-clearance * (entry - day))
    killed = float(np.sum(amount * wane * span * _mean_decay(-clearance * span)))
    # ∫ e^{−λ(s − t_j) − (t₁ − s)/τ} ds from entry to t₁, its larger end drawn out so that nothing overflows
    z = (rate - clearance) * span
    left = float(np.sum(amount * wane * span * np.exp(np.maximum(z, 0) - rate * span) * _mean_decay(-np.abs(z))))
    return left / killed if killed > 0 else 1.0


def _mean_decay(z: Array) -> Array:
    """Return (e^z − 1)/z for z ≤ 0, 1 at z = 0."""
    return np.where(z == 0, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z))
