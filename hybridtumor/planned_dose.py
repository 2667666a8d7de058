"""The dose of a patient in one line: recipe of the target, and a conformal dose around it."""

from hybridtumor import dose_planning, units
from hybridtumor.errors import InputError
from hybridtumor.patient import Patient
from hybridtumor.therapy import DoseMap


def conformal_dose(patient: Patient, prescription: str, *, target: str = "estro-eano-2023") -> DoseMap:
    """Return a synthetic conformal dose around the tumour of day 0.

    Parameters
    ----------
    patient
        Prepared by `hybridtumor.load_patient`.
    prescription
        Total dose with its unit, such as ``"60 Gy"``.
    target
        Recipe of the clinical target, a key of `hybridtumor.dose_planning.TARGET_MARGINS`.

    Raises
    ------
    InputError
        The patient has no tissue fractions or no tumour, the prescription is no dose, the recipe is unknown.
    """
    if patient.tissue is None:
        raise InputError(
            f"patient {patient.id}: expected tissue fractions, got none. Prepare it with load_patient first."
        )
    volume = dose_planning.clinical_target(target, dose_planning.gross_tumour(patient), patient.tissue)
    dose = units.magnitude(prescription, "Gy", name="prescription")
    return dose_planning.conformal_dose(volume, patient.tissue, dose)
