"""load_patient: from a reference to a patient complete with tissue fractions and day-0 density.

Tissue fractions come from the scans (`hybridtumor.tissue_classifier`), density from the segmentation
(`hybridtumor.models.initial_density`).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hybridtumor import tissue_classifier
from hybridtumor.errors import InputError
from hybridtumor.models.initial_density import density_from_labels
from hybridtumor.parameters import GrowthParameters, ImagingThresholds
from hybridtumor.patient import Patient
from hybridtumor.scan import Scan
from hybridtumor.tissue import TissueMap

VIRTUAL = "mni152"
"""Reference of the embedded virtual patient."""

Progress = Callable[[float], None]


def load_patient(
    reference: str | Path,
    growth: GrowthParameters | None = None,
    *,
    check: Callable[[Patient], None] | None = None,
    progress: Progress | None = None,
) -> Patient:
    """Return a patient whom `hybridtumor.simulate` can take: with tissue fractions and day-0 density.

    Parameters
    ----------
    reference
        ``"mni152"``, the embedded virtual patient; or a patient folder; or a BraTS folder.
    growth
        Gives the width √(D/ρ) of the tumour's tail; None: the defaults. The virtual patient has its own past.
    check
        Called with what the folder holds before anything is derived from it, which takes its time.
    progress
        Called with the share that is done, in [0, 1].

    Raises
    ------
    InputError
        The folder is not what it has to be (`Patient.load`), has neither density nor segmentation, or the tumour
        lies outside the brain.
    """
    tell = progress or (lambda _: None)
    if str(reference) == VIRTUAL:
        from hybridtumor import virtual  # it loads the finite-element solver, which no other patient needs

        return virtual.virtual_patient(progress=tell)
    patient = Patient.load(reference)
    if check is not None:
        check(patient)
    tell(0.1)
    return complete(patient, growth, progress=lambda share: tell(0.1 + 0.9 * share))


def complete(patient: Patient, growth: GrowthParameters | None = None, *, progress: Progress | None = None) -> Patient:
    """Return the patient with the tissue fractions and the day-0 density it lacks; what it has stays as it is.

    Tissue that the patient brings is mended where the segmentation shows tumour and it shows none to live in.

    Raises
    ------
    InputError
        As `load_patient`.
    """
    tell = progress or (lambda _: None)
    if patient.density is not None and patient.tissue is not None:
        return patient
    labels = patient.baseline.labels
    if patient.density is None and labels is None:
        raise InputError(
            f"patient {patient.id}: expected a segmentation or a density on day 0, got neither."
            " Add `labels` to the first visit."
        )
    tissue = _tissue(patient)
    tell(0.9)
    if patient.density is not None or labels is None:
        return replace(patient, tissue=tissue)
    try:
        law = GrowthParameters() if growth is None else growth
        density = density_from_labels(labels, tissue.parenchyma, law, ImagingThresholds())
    except InputError as error:
        raise InputError(f"patient {patient.id}: {error}") from error
    tell(1.0)
    return replace(patient, tissue=tissue, density=Scan(density, patient.grid))


def _tissue(patient: Patient) -> TissueMap:
    """Return the patient's tissue fractions, classified when there are none, with parenchyma under the tumour."""
    labels = patient.baseline.labels
    tumour = None if labels is None else labels.mask()
    tissue = patient.tissue
    if tissue is None:
        if "T1w" not in patient.baseline.scans:
            raise InputError(f"patient {patient.id}: expected a T1w scan on day 0, or tissue fractions; got neither.")
        scan = patient.baseline.scans["T1w"]
        nowhere = np.zeros(scan.grid.shape, bool)
        try:
            return tissue_classifier.classify(scan, nowhere if tumour is None else tumour)
        except InputError as error:
            raise InputError(f"patient {patient.id}, T1w: {error}") from error
    if tumour is None:
        return tissue
    return tissue_classifier.fill(tissue, tumour & tissue.head & (tissue.white + tissue.grey <= 0.5))
