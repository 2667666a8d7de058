r"""Oxygen: how much less radiation does to cells that lack it.

    f(p) = (m p + K) / (p + K)                  effect at a partial pressure p (mmHg) relative to none
    OER(x) = max(1, f(p_n) / f(p(x)))           by which the dose counts less than at the normal pressure p_n

m is the enhancement from anoxic to well-oxygenated cells, K = 3 mmHg the pressure of half the effect (Alper & Howard-
Flanders, Nature 1956). Without a map of p the cell density n of day 0 stands in for it,

    p(n) = p_n (1 − n)

a stated rule: crowded cells outgrow their vessels, and a necrotic core (n → 1) has none. It is not measured, and it
does not follow reoxygenation during treatment.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.patient import Patient

NORMAL_PRESSURE = 40.0
"""mmHg. Tissue oxygen of healthy brain, a value in common use."""

HALF_EFFECT = 3.0
"""mmHg. K, the pressure at which oxygen has half of its effect (Alper & Howard-Flanders 1956)."""

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LocalResponse:
    """How the response differs from place to place, on the patient's grid; None: it does not.

    Parameters
    ----------
    oer
        By which the dose of a fraction is divided, ≥ 1.
    factor
        Factor s on α and β, ≥ 0.
    """

    oer: Array | None = None
    factor: Array | None = None


UNIFORM = LocalResponse()


def local_response(patient: Patient, response: TreatmentResponse) -> LocalResponse:
    """Return how the response of a patient's tumour differs from place to place.

    Raises
    ------
    InputError
        The response asks for an oxygen map or a density that the patient does not have.
    """
    factor = None if patient.radiosensitivity is None else patient.radiosensitivity.values
    if response.hypoxia == "none":
        return LocalResponse(None, factor)
    if response.hypoxia == "patient":
        if patient.oxygen is None:
            raise InputError(
                f"patient {patient.id}: expected a map of oxygen for `hypoxia: patient`, found none."
                " Add `oxygen` to the patient folder, or use `hypoxia: density`."
            )
        pressure = patient.oxygen.values
    else:
        if patient.density is None:
            raise InputError(f"patient {patient.id}: expected a density for `hypoxia: density`, found none.")
        pressure = oxygen_from_density(patient.density.values)
    return LocalResponse(enhancement_ratio(pressure, response.oxygen_enhancement), factor)


def oxygen_from_density(density: Array) -> Array:
    """Return p(n), mmHg, of the cell density n, in [0, 1]."""
    return np.asarray(NORMAL_PRESSURE * (1 - np.clip(density, 0, 1)), np.float32)


def enhancement_ratio(pressure: Array, enhancement: float) -> Array:
    """Return OER(x) ≥ 1 of the partial pressure of oxygen, mmHg; `enhancement` is m ≥ 1."""
    effect = _effect(np.maximum(np.asarray(pressure, np.float64), 0), enhancement)
    return np.asarray(np.maximum(_effect(NORMAL_PRESSURE, enhancement) / effect, 1), np.float32)


def _effect(pressure: NDArray[np.float64] | float, enhancement: float) -> NDArray[np.float64]:
    return np.asarray((enhancement * pressure + HALF_EFFECT) / (pressure + HALF_EFFECT))
