r"""What fractions of radiation do to cells: the linear-quadratic model and what is known to bend it.

A fraction of dose d (Gy) at a point where oxygen weakens it by OER ≥ 1 and the tissue responds s times as strongly:

    LQ     L = s (α d' + g β d'²),                       d' = d / OER,  β = α / (α/β)
    LQ-L   L = s (α d' + g β d̂² + 2 β d̂ (d' − d̂)),       d̂ = min(d', d_T)

Above the transition dose d_T the log-kill goes on along its tangent. g is the Lea–Catcheside factor of a fraction that
takes a time T, with repair of sublethal damage at the rate μ = ln 2 / half-time:

    g(x) = 2 (x − 1 + e^{−x}) / x²,                      x = μ T

Sublethal damage that is not yet repaired when the next fraction comes adds to what that one kills, by

    2 h_ij s β d̂_i d̂_j,      h_ij = e^{−μ (t_i − t_j − T_j)} p(μ T_i) p(μ T_j),   p(x) = (1 − e^{−x}) / x

so that α D + G β D² of all fractions together is the sum over fractions, each with what came before it: the log-kill
stays additive in time. Fractions that start together are one fraction of the summed dose. Linear-quadratic model:
Fowler, Br. J. Radiol. 1989. Protraction: Lea & Catcheside, J. Genet. 1942; incomplete repair: Thames, Int. J. Radiat.
Biol. 1985. LQ-L: Astrahan, Med. Phys. 2008.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.therapy import SAME_TIME

Array = NDArray[np.float64]

REPAIRED = 40.0
"""μ times a gap after which no sublethal damage counts any more: e⁻⁴⁰ is below round-off."""


def lq_log_kill(dose: Any, alpha: float, alpha_beta: float, transition_dose: float | None = None) -> Any:
    """Return the log-kill of one fraction given at once, in the algebra of `dose` (float, numpy, torch, UFL).

    Parameters
    ----------
    dose
        Dose d of the fraction, Gy.
    alpha
        α, 1/Gy.
    alpha_beta
        α/β, Gy.
    transition_dose
        d_T, Gy; None: LQ at every dose.
    """
    capped = bounded(dose, transition_dose)
    return alpha * dose + (alpha / alpha_beta) * (capped**2 + 2 * capped * (dose - capped))


def bounded(dose: Any, transition_dose: float | None) -> Any:
    """Return d̂ = min(d, d_T) in the algebra of `dose`."""
    if transition_dose is None:
        return dose
    return 0.5 * (dose + transition_dose - abs(dose - transition_dose))


@dataclass(frozen=True, eq=False)
class FractionTerms:
    """One fraction of a course at the points: L = `linear` + g · `root`², and 2 h `root_i` `root_j` with others.

    Parameters
    ----------
    linear
        s (α d' + 2 β d̂ (d' − d̂)).
    root
        √(s β) d̂.
    """

    linear: Array
    root: Array


def fraction_terms(
    dose: Array, alpha: float, alpha_beta: float, transition_dose: float | None = None, factor: Array | float = 1.0
) -> FractionTerms:
    """Return the terms of a fraction of dose d' (Gy, oxygen accounted for) where the tissue responds s = `factor`."""
    beta, capped = alpha / alpha_beta, bounded(dose, transition_dose)
    linear = factor * (alpha * dose + 2 * beta * capped * (dose - capped))
    return FractionTerms(np.asarray(linear, np.float64), np.asarray(np.sqrt(factor * beta) * capped, np.float64))


def repair_rate(half_time: float) -> float:
    """Return μ, 1/day, of a half-time in days; infinite for 0: repair is complete before anything follows."""
    return math.log(2) / half_time if half_time > 0 else math.inf


def protraction(duration: float, rate: float) -> float:
    """Return g of a fraction that takes `duration` days, in (0, 1]; 1 when repair plays no part (infinite rate)."""
    x = duration * rate if math.isfinite(rate) else 0.0
    if x < 1e-2:  # the formula cancels; its series is exact to 1e-11 there
        return 1 - x / 3 + x**2 / 12 - x**3 / 60
    return 2 * (x - 1 + math.exp(-x)) / x**2


def interaction(gap: float, durations: tuple[float, float], rate: float) -> float:
    """Return h of two fractions with `gap` days from the end of one to the start of the other, in [0, 1]."""
    if not math.isfinite(rate) or rate * gap > REPAIRED:
        return 0.0
    result = math.exp(-rate * max(gap, 0.0))
    for x in (rate * duration for duration in durations):
        result *= -math.expm1(-x) / x if x > 0 else 1.0
    return result


def interactions(starts: Sequence[float], durations: Sequence[float], rate: float) -> list[list[tuple[int, float]]]:
    """Return for every fraction the earlier ones whose damage is not repaired yet, (number, h_ij); starts ascend.

    Fractions that start together are one: their doses add, and h is the factor g of one fraction.
    """
    found: list[list[tuple[int, float]]] = []
    for i, start in enumerate(starts):
        pairs = []
        for j in reversed(range(i)):
            if start - starts[j] <= SAME_TIME:
                h = protraction(durations[i], rate)
            else:
                h = interaction(start - starts[j] - durations[j], (durations[i], durations[j]), rate)
            if h == 0.0:
                break
            pairs.append((j, h))
        found.append(pairs)
    return found
