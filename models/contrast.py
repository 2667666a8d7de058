"""Contrast of a tumour: by how much each label differs from the healthy tissue it replaced, in every modality.

    C[l, m] = ( N_l c̄[l, m] + N_0 C_pop[l, m] ) / ( N_l + N_0 )

with c̄ the mean of (scan − healthy fill) over the N_l mm³ of label l in the patient's own baseline scan, in
normalised intensity, and C_pop the mean over the training cases. A label the patient does not show takes the
population's contrast. Contrast varies more between scanners than between tumours, so the patient's own counts from a
fraction of a millilitre on.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.scan import LABELS, MODALITIES

PRIOR_VOLUME = 500.0
"""N_0, mm³: volume of a label at which the patient's own contrast weighs as much as the population's."""

POPULATION: NDArray[np.float32] = np.array(
    # T1w, T1ce, T2w, FLAIR
    [
        [-0.5, -0.3, 0.8, 0.3],  # necrosis and non-enhancing core
        [-0.2, -0.1, 0.5, 0.8],  # oedema
        [-0.3, 0.6, 0.5, 0.6],  # enhancing
    ],
    np.float32,
)
"""Contrast of a typical glioma, used until trained weights bring the mean of their training cases."""

CONTRAST_SHAPE = (len(LABELS), len(MODALITIES))


def measure_contrast(
    scans: NDArray[np.floating[Any]],
    healthy: NDArray[np.floating[Any]],
    labels: NDArray[np.floating[Any]],
    voxel_volume: float,
    population: NDArray[np.float32] = POPULATION,
) -> NDArray[np.float32]:
    """Return the contrast C of a patient, (label, modality).

    Parameters
    ----------
    scans, healthy
        (4, X, Y, Z) normalised scans and their healthy fill.
    labels
        (3, X, Y, Z) soft labels, in the order of `hybridtumor.scan.LABELS`.
    voxel_volume
        mm³.
    population
        C_pop.
    """
    contrast = np.empty(CONTRAST_SHAPE, np.float32)
    difference = scans - healthy
    for index, label in enumerate(labels):
        inside = label > 0.5
        own = difference[:, inside].mean(axis=1) if inside.any() else np.zeros(len(MODALITIES))
        volume = float(np.count_nonzero(inside)) * voxel_volume
        contrast[index] = (volume * own + PRIOR_VOLUME * population[index]) / (volume + PRIOR_VOLUME)
    return contrast
