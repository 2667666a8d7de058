r"""Dose series: the same patient, the same noise and six doses; more dose has to leave less tumour on the image.

    L = α D (1 + d/(α/β)),   n_D = n e^{−L}        d = 2 Gy, everywhere in the tumour

The images' burden ∫ S_B(x) over the place of the tumour is held against the fields' ∫ n_D
(`hybridtumor.evaluation.response.dose_response`). Dose 0 changes nothing, and its image is the baseline scan.

Therapy can enter by the fields (mode ``condition``) or as a source term of a sampler that is told nothing of it (mode
``source``); for a small kill both have to change the image alike. With U the sample that is told nothing and not
pushed, all of the same noise and in the same mask,

    source over condition = ∫ (S_B(x_source) − S_B(x_U)) / ∫ (S_B(x_condition) − S_B(x_U))
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hybridtumor.baseline import Baseline
from hybridtumor.evaluation.response import DensityEstimator, DoseResponse, dose_response
from hybridtumor.models.conditioning import IMAGE_CHANNELS, Condition, TherapyState
from hybridtumor.models.radiation import lq_log_kill
from hybridtumor.models.resolution import Box
from hybridtumor.refine import Refiner
from hybridtumor.refiner_scene import INVISIBLE, DayFields, Scene, changed_box
from hybridtumor.solvers.guidance import Mode
from hybridtumor.solvers.place_noise import PlaceNoise

DOSES = (0.0, 12.0, 24.0, 36.0, 48.0, 60.0)
"""Gy, in fractions of `FRACTION`."""

FRACTION, ALPHA, ALPHA_BETA = 2.0, 0.035, 10.0
"""Gy; 1/Gy and Gy: population values (`hybridtumor.parameters.TreatmentResponse`)."""

SMALL_DOSE = 4.0
"""Gy: a kill of 0.17."""

DAY, LAST_FRACTION = 120.0, 30.0
"""Day of the image, and days since the last fraction."""

Array = NDArray[np.float32]
EstimatorOf = Callable[[Array, tuple[bool, ...]], DensityEstimator]
"""Smooth healthy fill (4, x, y, z) and flags of the modalities at hand → estimator of density."""


def dose_series(baseline: Baseline, refiner: Refiner, estimator_of: EstimatorOf, seed: int = 0) -> DoseResponse | None:
    """Return how the images of a patient follow the dose; None where no dose changes anything visibly.

    Parameters
    ----------
    baseline
        A patient whose scans show a tumour.
    estimator_of
        Makes the estimator that measures, which is not the one that steers.
    seed
        Of the noise that all doses share.
    """
    box = changed_box(baseline.density, _fields(baseline, DOSES[-1]).density, baseline)
    if box is None:
        return None
    scenes = [_scene(baseline, dose, box, refiner) for dose in DOSES]
    fine = box.scaled(scenes[0].factor)
    estimate = estimator_of(fine.take(baseline.healthy), baseline.available)
    place = fine.take(baseline.density) > INVISIBLE
    noise = [PlaceNoise(seed, 0, IMAGE_CHANNELS, box)]
    implied = [float(estimate(_image(scene, refiner, noise))[place].sum()) for scene in scenes]
    meant = [float(fine.take(_fields(baseline, dose).density)[place].sum()) for dose in DOSES]
    return dose_response(DOSES, implied, meant)


@dataclass(frozen=True)
class Agreement:
    """How a small kill changes the image by the source term, against by the fields; see the module's equation.

    `same_sign` is the share of the change by the fields that lies where both changes have the same sign.
    """

    source_over_condition: float
    same_sign: float


def agreement(baseline: Baseline, refiner: Refiner, estimator_of: EstimatorOf, seed: int = 0) -> Agreement | None:
    """Return how the modes agree for a small dose; None where it changes nothing visibly. Parameters: `dose_series`."""
    fields = _fields(baseline, SMALL_DOSE)
    box = changed_box(baseline.density, fields.density, baseline)
    scene = None if box is None else _scene(baseline, SMALL_DOSE, box, refiner)
    if box is None or scene is None or not scene.drawn.support.any():
        return None
    untold = scene.told_nothing(baseline, fields, refiner.thresholds)
    fine, noise = box.scaled(scene.factor), [PlaceNoise(seed, 0, IMAGE_CHANNELS, box)]
    estimate = estimator_of(fine.take(baseline.healthy), baseline.available)

    def implied(shown: Scene, mode: Mode) -> Array:
        return estimate(_image(shown, replace(refiner, guidance=replace(refiner.guidance, mode=mode)), noise))

    free = implied(untold, "condition")
    by_fields, by_source = implied(scene, "condition") - free, implied(untold, "source") - free
    there = scene.drawn.support > 0
    told, pushed = by_fields[there], by_source[there]
    alike = np.abs(told[told * pushed > 0]).sum() / max(float(np.abs(told).sum()), 1e-9)
    return Agreement(float(pushed.sum() / told.sum()) if told.sum() else float("nan"), float(alike))


def _fields(baseline: Baseline, dose: float) -> DayFields:
    """Return the fields after a dose to the whole tumour."""
    kill = (dose / FRACTION) * lq_log_kill(FRACTION, ALPHA, ALPHA_BETA)
    n = baseline.density
    return DayFields(n, (n * np.exp(-kill)).astype(np.float32), n, np.where(n > 0, kill, 0).astype(np.float32))


def _scene(baseline: Baseline, dose: float, box: Box, refiner: Refiner) -> Scene:
    fractions = round(dose / FRACTION)
    bed = fractions * float(lq_log_kill(FRACTION, 1.0, ALPHA_BETA))
    first = LAST_FRACTION + 1.4 * fractions
    given = TherapyState(first, LAST_FRACTION, fractions, bed) if fractions else TherapyState()
    condition = Condition(DAY, baseline.contrast, baseline.available, given, baseline.levels)
    return Scene.cut(baseline, _fields(baseline, dose), box, condition, refiner.thresholds)


def _image(scene: Scene, refiner: Refiner, noise: list[PlaceNoise]) -> Array:
    """Return one sample, or the baseline where nothing may change."""
    if not scene.drawn.support.any():
        return scene.baseline
    images, _ = scene.compose(refiner.sample(scene, noise))
    return np.asarray(images[0], np.float32)
