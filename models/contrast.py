"""Contrast of a tumour: by how much each label differs from the healthy tissue it replaced, in every modality.

    C[l, m] = ( N_l c̄[l, m] + N_0 C_pop[l, m] ) / ( N_l + N_0 )

with c̄ the mean of (scan − healthy fill) over the N_l mm³ of label l in the patient's own baseline scan, in
normalised intensity, and C_pop the mean over the training cases. A label the patient does not show takes the
population's contrast. Contrast varies more between scanners than between tumours, so the patient's own counts from a
fraction of a millilitre on. What is left unknown is

    σ[l, m] = max( σ_min, σ_pop[l, m] √( N_0 / (N_l + N_0) ) )

with σ_pop the spread between patients: the posterior of a mean with prior variance σ_pop², of which N_0 mm³ of a label
tell as much as the prior. Each sample of an ensemble sees a contrast of its own,

    C + σ[l, m] ( √ρ a_m + √(1 − ρ) b[l, m] ) √(ν/χ²_ν),   a, b standard normal

(ρ: half of it is the scanner's, the same for all labels), so that a forecast is unsure of a tumour's brightness as a
whole and of its texture separately. A spread that few patients tell of makes the next one Student's t (ν), not normal.
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

SPREAD: NDArray[np.float32] = np.array(
    # T1w, T1ce, T2w, FLAIR
    [
        [0.13, 0.08, 0.20, 0.16],  # necrosis and non-enhancing core
        [0.08, 0.07, 0.12, 0.14],  # oedema
        [0.26, 0.24, 0.09, 0.14],  # enhancing
    ],
    np.float32,
)
"""σ_pop: error of the mean of the others as a forecast of each of the seven training cases."""

LEAST_SPREAD = 0.03
"""σ_min, normalised intensity."""

SHARED = 0.5
"""ρ."""

FREEDOM = 5
"""ν: one less than the five to seven training cases that show a label."""

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


def contrast_error(label_volumes: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return σ, (label, modality), for volumes N_l of the labels in the patient's own scan, mm³."""
    left = np.sqrt(PRIOR_VOLUME / (np.asarray(label_volumes, float) + PRIOR_VOLUME))
    return np.maximum(LEAST_SPREAD, SPREAD * left[:, None]).astype(np.float32)


def draw_contrast(error: NDArray[np.float32], seed: int, sample: int) -> NDArray[np.float32]:
    """Return by how much the contrast of one sample differs from C, (label, modality); 2k and 2k + 1 are opposite."""
    rng = np.random.default_rng([seed, sample // 2, *b"contrast"])
    common, own = rng.standard_normal(len(MODALITIES)), rng.standard_normal(CONTRAST_SHAPE)
    heavy = (FREEDOM / rng.chisquare(FREEDOM)) ** 0.5
    sign = 1.0 if sample % 2 == 0 else -1.0
    return np.asarray(sign * heavy * error * (SHARED**0.5 * common + (1 - SHARED) ** 0.5 * own), np.float32)
