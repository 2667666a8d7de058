"""Problems to evaluate on: the onset of real tumours, and the follow-ups of phantoms.

*Real.* There are no real follow-up scans here, so the question is onset: the baseline is the scan with its tumour
filled by healthy tissue, the density is the one that shows as the segmentation, the contrast is the population's (the
patient's own would be read off the answer) and the target is the real scan.

*Phantom.* Baseline and follow-up of a virtual patient on whom the growth solver ran. Nothing outside the stored box is
known, so "brain" is the brain in it; where tissue has moved only the carried baseline is kept, so persistence is
missing there and the warped baseline is the simplest answer.
"""

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hybridtumor.baseline import Baseline, without_tumour
from hybridtumor.errors import InputError
from hybridtumor.evaluation.cases import Array, EvaluationCase, pose
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.models.conditioning import Condition
from hybridtumor.models.contrast import contrast_error
from hybridtumor.models.intensity import IntensityScale
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.refiner_scene import DayFields, draw
from hybridtumor.scan import LABEL_CONVENTIONS, LABELS, MODALITIES, LabelMap
from hybridtumor.teacher import PhantomPair
from hybridtumor.tissue import TissueMap

ONSET_DAYS = 180.0
"""What the networks are told of an onset: days in which the tumour has appeared."""

STILL = 0.1
"""mm. Displacement below which tissue counts as where it was."""


def real_case(name: str, real: Baseline, population: Array, thresholds: ImagingThresholds) -> EvaluationCase:
    """Return the onset of a real patient's tumour.

    Parameters
    ----------
    real
        From `hybridtumor.baseline.read_baseline`.
    population
        (3, 4) contrast of a typical glioma; the patient's own is that of the target and may not be used.

    Raises
    ------
    InputError
        There is no tumour to see, or the fill differs from the scan away from it.
    """
    zero = np.zeros_like(real.density)
    before = replace(without_tumour(real), contrast=population)
    filled = (real.healthy + real.texture) * real.head
    textured = replace(before, images=filled, filled=None)
    fields = DayFields(zero, real.density, real.density, zero)
    condition = Condition(ONSET_DAYS, population, real.available, levels=real.levels)
    known = Condition(ONSET_DAYS, real.contrast, real.available, levels=real.levels)
    case = pose(name, name, "real", before, fields, condition, thresholds, real)
    box, fine = case.scene.box, case.scene.box.scaled(case.scene.factor)
    beyond = np.ones(real.grid.shape, bool)
    fine.put(np.zeros(fine.extent, bool), beyond)
    beyond &= real.head
    _require_alike(name, filled, real, beyond)
    return replace(
        case,
        persistence=fine.take(filled),
        warped=fine.take(filled),
        textured=draw(textured, fields, box, condition, thresholds, textured=True),
        oracle=draw(textured, fields, box, known, thresholds, textured=True).images,
        target_images=fine.take(real.images),
        target_labels=fine.take(real.soft_labels),
        outside=int(np.count_nonzero(beyond)),
    )


def phantom_case(pair: PhantomPair, thresholds: ImagingThresholds) -> EvaluationCase:
    """Return the follow-up of a phantom.

    Raises
    ------
    InputError
        Nothing changes visibly between its baseline and its follow-up.
    """
    baseline = _baseline_of(pair)
    fields = DayFields(
        _wide(pair.density_day0),
        _wide(pair.density),
        _wide(pair.density_untreated),
        _wide(pair.log_kill),
        _wide(pair.cavity),
        _wide(pair.displacement),
    )
    condition = Condition(pair.day, pair.contrast, baseline.available, pair.therapy, pair.levels)
    case = pose(pair.name, patient_of(pair.name), "phantom", baseline, fields, condition, thresholds, baseline)
    fine = case.scene.box.scaled(case.scene.factor)
    return replace(
        case,
        persistence=case.warped if float(pair.displacement.max(initial=0)) < STILL else None,
        target_images=fine.take(_wide(pair.target)) * case.head,
        target_labels=fine.take(_wide(pair.target_labels)),
    )


def patient_of(name: str) -> str:
    """Return the patient that a phantom pair belongs to: ``phantom_007`` of ``phantom_007_treated_120``."""
    found = re.match(r"\D*\d+", name)
    return found.group() if found else name


def _wide(values: NDArray[np.floating]) -> Array:
    """Return stored values in single precision."""
    return np.asarray(values, np.float32)


def _baseline_of(pair: PhantomPair) -> Baseline:
    """Return the baseline visit of a phantom, in normalised intensity throughout."""
    shape = pair.density.shape
    grid = Grid((shape[0], shape[1], shape[2]), np.diag([pair.spacing] * 3 + [1.0]))
    soft = _wide(pair.baseline_labels)
    white, grey, csf = _wide(pair.tissue)
    codes = np.array([LABEL_CONVENTIONS["brats2021"][name] for name in LABELS], np.uint8)
    hard = np.where(soft.sum(axis=0) > 0.5, codes[soft.argmax(axis=0)], 0).astype(np.uint8)
    zero, one = np.zeros(len(MODALITIES), np.float32), np.ones(len(MODALITIES), np.float32)
    return Baseline(
        scans={},
        images=_wide(pair.baseline),
        healthy=_wide(pair.healthy),
        texture=_wide(pair.texture),
        labels=LabelMap(hard, grid),
        density=_wide(pair.density_day0),
        tissue=TissueMap(white, grey, csf, grid),
        scale=IntensityScale(zero, one),
        contrast=pair.contrast,
        contrast_error=contrast_error(soft.sum(axis=(1, 2, 3)) * pair.spacing**3),
        available=(True,) * len(MODALITIES),
        enhances=pair.enhances,
        levels=pair.levels,
    )


def _require_alike(name: str, filled: Array, real: Baseline, beyond: BoolArray) -> None:
    """Refuse a case whose fill changes the scan beyond the box: whole-brain figures would be wrong."""
    worst = float(np.abs(filled - real.images)[:, beyond].max(initial=0))
    if worst > 1e-3:
        raise InputError(
            f"case {name}: expected the healthy fill to equal the scan away from the tumour, it differs by up to"
            f" {worst:.3g} beyond the scene. Its segmentation reaches farther than its density."
        )
