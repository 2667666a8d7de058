"""The dose of a patient in one line: recipe of the target, and a conformal dose around it."""

import numpy as np

from hybridtumor import units
from hybridtumor.dose_planning import summed_relative_dose
from hybridtumor.errors import InputError
from hybridtumor.patient import Patient
from hybridtumor.targets import clinical_targets
from hybridtumor.therapy import DoseMap


def conformal_dose(patient: Patient, prescription: str, *, target: str = "estro-eano-2023") -> DoseMap:
    """Return a synthetic conformal dose around the tumour of day 0.

    Of a recipe with phases, such as ``rtog``, it is the sum of all phases: the prescription where all of them overlap,
    and the total dose everywhere. Given in equal fractions it differs from the phases in the dose per fraction
    outside the last target; a scenario gives every phase its own fractions.

    Parameters
    ----------
    patient
        Prepared by `hybridtumor.load_patient`.
    prescription
        Total dose with its unit, such as ``"60 Gy"``.
    target
        Recipe of the clinical target, a key of `hybridtumor.targets.RECIPES`.

    Raises
    ------
    InputError
        The patient has no tissue fractions or no tumour, the prescription is no dose, the recipe is unknown.
    """
    if patient.tissue is None:
        raise InputError(
            f"patient {patient.id}: expected tissue fractions, got none. Prepare it with load_patient first."
        )
    shape = summed_relative_dose(clinical_targets(target, patient, patient.tissue), patient.tissue)
    dose = units.magnitude(prescription, "Gy", name="prescription")
    return DoseMap((dose * shape).astype(np.float32), patient.grid)
