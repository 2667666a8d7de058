"""One case through the whole evaluation: answers, scores, dose series, memorisation."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.evaluation.cases import INSIDE, EvaluationCase
from hybridtumor.evaluation.dose_series import EstimatorOf, dose_series
from hybridtumor.evaluation.memorisation import memorisation, places, training_bank
from hybridtumor.evaluation.predictions import Answers, OneStep, answers
from hybridtumor.evaluation.scoring import Score, Scorer
from hybridtumor.refine import Refiner
from hybridtumor.scan import MODALITIES
from hybridtumor.teacher import RealCase

CROPS = 48
"""Crops per case that are compared with training crops."""

Bank = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How cases are evaluated.

    Parameters
    ----------
    refiner
        The image layer.
    samples, seed
        Size of the ensemble, an even number of at least 4 (pairs are antithetic); seed of its noise.
    estimator_of
        Makes S_B, which measures the density that images imply; None: those figures are left out.
    student
        The one-step student, or None.
    bank
        Training crops (`bank_of`), or None: memorisation is left out.
    doses
        Whether to make dose series; they need S_B.
    antithetic
        Whether the members of the ensemble come in pairs of opposite noise; see `answers`.
    """

    refiner: Refiner
    samples: int = 8
    seed: int = 0
    estimator_of: EstimatorOf | None = None
    student: OneStep | None = None
    bank: Bank | None = field(default=None, repr=False)
    doses: bool = True
    antithetic: bool = True

    def __post_init__(self) -> None:
        if self.samples < 4 or self.samples % 2:
            raise InputError(
                f"evaluate: expected an even number of at least 4 samples, got {self.samples}: they come in pairs."
            )

    def of(self, case: EvaluationCase) -> tuple[list[Score], Answers]:
        """Return every score of a case, and the answers it was scored on."""
        found = answers(
            case,
            self.refiner,
            samples=self.samples,
            seed=self.seed,
            student=self.student,
            antithetic=self.antithetic,
        )
        flags = case.scene.condition.available
        estimator = None if self.estimator_of is None else self.estimator_of(case.healthy, flags)
        scores = Scorer(case, self.refiner.thresholds, estimator).scores(found)
        return scores + self._response(case) + self._memory(case, found), found

    def _response(self, case: EvaluationCase) -> list[Score]:
        if not self.doses or self.estimator_of is None:
            return []
        series = dose_series(case.baseline, self.refiner, self.estimator_of, self.seed)
        figures = {} if series is None else vars(series)
        return [
            Score(case.kind, case.patient, case.name, "one sample", "dose series", figure, value)
            for figure, value in figures.items()
        ]

    def _memory(self, case: EvaluationCase, found: Answers) -> list[Score]:
        """Return how near training crops are to the crops of render and sample; all modalities have to be there."""
        if self.bank is None or len(case.present) < len(MODALITIES):
            return []
        tumour = case.target_labels.sum(axis=0) > INSIDE
        mask = tumour if tumour.any() else case.scene.drawn.support > INSIDE
        centres = places(mask, CROPS, self.seed)
        scores = []
        for answer in found.predictions:
            if answer.method in ("render", "smooth render", "one sample"):
                seen = memorisation(answer.images, case.target_images, centres, self.bank)
                figures = {"nearest training crop": seen.generated, "memorisation": seen.ratio}
                scores += [
                    Score(case.kind, case.patient, case.name, answer.method, "crops", figure, value)
                    for figure, value in figures.items()
                ]
        return scores


def bank_of(cases: Iterable[RealCase]) -> Bank:
    """Return the training crops of the prepared training cases, as rows."""
    return np.concatenate([training_bank(case.scans, case.labels.sum(axis=0) > INSIDE) for case in cases])
