r"""Damaged cells: killed by therapy, still there for a while, still seen on MRI.

    ∂d/∂t = k u − d/τ_c,      τ_c ln 2 the half-time of clearance

d has the unit of u, does not divide, does not move and does not act back on u. An event of log-kill L adds
u (1 − e^{−L}) at once; what is there decays by e^{−Δt/τ_c}, exactly over any split of the time.

Drugs, and a beam that is on, kill over a step [t₀, t₁] the cells K = ∫ k u dt
(`hybridtumor.models.growth.killed_cells`). Their kills are spread over the step as k is, so that of K there is left

    K ∫ k(s) e^{−(t₁ − s)/τ_c} ds / ∫ k(s) ds

in closed form: second order in the step, also where a step is longer than the half-life of the drug. Exponential
decay of lethally damaged cells: Chvetsov, Palta & Nagata, Phys. Med. Biol. 2008.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.models.cell_kill import KillSchedule

Array = NDArray[np.float64]


def clearance_rate(half_time: float) -> float:
    """Return 1/τ_c, 1/day, of a half-time in days; infinite for 0, clearance at once."""
    return math.log(2) / half_time if half_time > 0 else math.inf


def leaves_damage(kill: KillSchedule, half_time: float) -> bool:
    """Tell whether there are damaged cells at all: something is given, and they are not cleared at once."""
    return half_time > 0 and bool(kill.fractions or len(kill.drug_terms))


def killed_at_once(u: Array, log_kill: Array | float) -> Array:
    """Return u (1 − e^{−L}): the cells that an event of log-kill L kills."""
    return np.asarray(-u * np.expm1(-np.asarray(log_kill)))


@dataclass(frozen=True)
class KillMoments:
    """What kills over a step, and how much of its dead is left at the end.

    Parameters
    ----------
    drug, drug_left
        ∫ k ds and ∫ k(s) e^{−(t₁ − s)/τ_c} ds of the drugs.
    beam
        Log-kill of the beam.
    beam_share
        Share of the cells killed by the beam that is left.
    """

    drug: float
    drug_left: float
    beam: Array | float
    beam_share: float

    @property
    def log_kill(self) -> Array | float:
        """∫ k ds of drugs and beam."""
        return self.drug + self.beam

    @property
    def left(self) -> Array | float:
        """∫ k(s) e^{−(t₁ − s)/τ_c} ds of drugs and beam."""
        return self.drug_left + self.beam * self.beam_share


def kill_moments(kill: KillSchedule, start: float, stop: float, rate: float) -> KillMoments:
    """Return the moments of a step [start, stop], days; a beam is on during all of it or not at all.

    `rate` is 1/τ_c, 1/day.
    """
    share = float(_mean_decay(np.asarray(-rate * (stop - start))))
    drug, drug_left = _drug_moments(kill.drug_terms, start, stop, rate)
    return KillMoments(drug, drug_left, kill.beam_log_kill(start, stop), share)


def share_left(kill: KillSchedule, start: float, stop: float, rate: float) -> Array | float:
    """Return the share of the cells killed by drug and beam in a step that is not cleared at its end, in (0, 1].

    Where nothing is given in the step the share is 1. Arguments as for `kill_moments`.
    """
    moments = kill_moments(kill, start, stop, rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.asarray(moments.log_kill) > 0, moments.left / np.asarray(moments.log_kill), 1.0)
    return share if share.ndim else float(share)


def _drug_moments(terms: Array, start: float, stop: float, rate: float) -> tuple[float, float]:
    """Return ∫ k ds and ∫ k e^{−(t₁ − s)/τ} ds of the drugs over a step."""
    given = terms[terms[:, 0] < stop]
    if not len(given):
        return 0.0, 0.0
    day, amplitude, decay = given.T
    entry = np.maximum(start, day)
    span, wane = stop - entry, np.exp(-decay * (entry - day))
    killed = float(np.sum(amplitude * wane * span * _mean_decay(-decay * span)))
    # ∫ e^{−r(s − t_j) − (t₁ − s)/τ} ds from entry to t₁, its larger end drawn out so that nothing overflows
    z = (rate - decay) * span
    left = float(np.sum(amplitude * wane * span * np.exp(np.maximum(z, 0) - rate * span) * _mean_decay(-np.abs(z))))
    return max(killed, 0.0), max(left, 0.0)


def _mean_decay(z: Array) -> Array:
    """Return (e^z − 1)/z for z ≤ 0, 1 at z = 0."""
    return np.where(z == 0, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z))
