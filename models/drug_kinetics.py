r"""What a drug does to cells: a kill rate that follows its concentration, integrated in closed form.

    k(t) = s Σ_{t_j ≤ t} (m_j / m₀) c(t − t_j)
    c(t) = e^{−λ t}                                      given at once
    c(t) = k_a / (k_a − λ) (e^{−λ t} − e^{−k_a t})       absorbed at the rate k_a (Bateman)

doses m_j in mg/m² on days t_j, m₀ the reference dose, λ the first-order clearance, s the kill rate at the peak
concentration after m₀ given at once. The whole kill of a dose is (s/λ) (m_j/m₀), absorbed or not. Every k(t) is a sum
of decaying exponentials A e^{−r (t − t_j)}, whose integral over a step

    ∫_a^b k dt = Σ A/r (e^{−r (a − t_j)} − e^{−r (b − t_j)}),   a, b not before t_j

is exact: the kill does not depend on the time step.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hybridtumor.parameters import DrugResponse

Array = NDArray[np.float64]

ALIKE = 1e-6
"""Relative difference below which absorption and clearance count as this different: Bateman's formula cancels there."""

NO_TERMS: Array = np.empty((0, 3))


def drug_terms(doses: Sequence[tuple[float, float]], response: DrugResponse) -> Array:
    """Return the exponentials of the kill rate of a drug, (n, 3): day t_j, amplitude A (1/day), decay r (1/day).

    Parameters
    ----------
    doses
        (day, mg/m²) of every administration.
    response
        How the drug kills.
    """
    given = [(day, dose) for day, dose in doses if dose > 0]
    if not given or response.kill_rate == 0:
        return NO_TERMS
    day, amount = np.asarray(given, np.float64).T
    peak, clearance = response.kill_rate * amount / response.reference_dose, np.full_like(day, response.clearance)
    if math.isinf(response.absorption):
        return np.column_stack([day, peak, clearance])
    absorption = response.absorption
    if abs(absorption - response.clearance) < ALIKE * response.clearance:
        absorption = response.clearance * (1 + ALIKE)
    share = absorption / (absorption - response.clearance)
    slow = np.column_stack([day, share * peak, clearance])
    return np.concatenate([slow, np.column_stack([day, -share * peak, np.full_like(day, absorption)])])


def integral(terms: Array, start: float, end: float) -> float:
    """Return the log-kill ∫ k dt over [start, end], exactly 0.0 without terms."""
    if not len(terms):
        return 0.0
    day, amplitude, decay = terms.T
    entry, leave = np.maximum(start, day), np.maximum(end, day)
    share = np.exp(-decay * (entry - day)) * -np.expm1(-decay * (leave - entry))
    return max(0.0, float(np.sum(amplitude / decay * share)))
