"""One case through the whole evaluation: answers, scores, dose series, memorisation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.evaluation.cases import INSIDE, EvaluationCase
from hybridtumor.evaluation.dose_series import EstimatorOf, agreement, dose_series
from hybridtumor.evaluation.memorisation import memorisation, places, training_bank
from hybridtumor.evaluation.predictions import STUDENT_ROWS, TEACHER_ROWS, Ensemble, Prediction, Rows, ensemble, simpler
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
        Size of an ensemble, an even number of at least 4 (pairs are antithetic); seed of its noise.
    estimator_of
        Makes S_B, which measures the density that images imply; None: those figures are left out.
    students
        Stage of training to refiner: students that answer every case too.
    bank
        Training crops (`bank_of`), or None: memorisation is left out.
    doses
        Whether to make dose series; they need S_B.
    antithetic
        Whether the members of an ensemble come in pairs of opposite noise; see `ensemble`.
    """

    refiner: Refiner
    samples: int = 8
    seed: int = 0
    estimator_of: EstimatorOf | None = None
    students: Mapping[str, Refiner] = field(default_factory=dict)
    bank: Bank | None = field(default=None, repr=False)
    doses: bool = True
    antithetic: bool = True

    def __post_init__(self) -> None:
        if self.samples < 4 or self.samples % 2:
            raise InputError(
                f"evaluate: expected an even number of at least 4 samples, got {self.samples}: they come in pairs."
            )

    @property
    def generators(self) -> list[tuple[Rows, Refiner]]:
        """The teacher and then its students, each with its rows."""
        return [(TEACHER_ROWS, self.refiner), *((STUDENT_ROWS[stage], own) for stage, own in self.students.items())]

    def of(self, case: EvaluationCase) -> tuple[list[Score], Ensemble]:
        """Return every score of a case, and the teacher's ensemble."""
        found, teacher = simpler(case, self.refiner, self.seed), self._drawn(case, TEACHER_ROWS, self.refiner)
        students = (self._drawn(case, rows, own) for rows, own in self.generators[1:])
        flags = case.scene.condition.available
        estimator = None if self.estimator_of is None else self.estimator_of(case.healthy, flags)
        scores = Scorer(case, self.refiner.thresholds, estimator).scores(found, chain([teacher], students))
        return scores + self._response(case) + self._memory(case, [*found, teacher.sample]), teacher

    def _drawn(self, case: EvaluationCase, rows: Rows, refiner: Refiner) -> Ensemble:
        return ensemble(case.scene, refiner, rows, samples=self.samples, seed=self.seed, antithetic=self.antithetic)

    def _response(self, case: EvaluationCase) -> list[Score]:
        """Return how the images of every generator follow the dose."""
        if not self.doses or self.estimator_of is None:
            return []
        scores = []
        for rows, refiner in self.generators:
            for measured in (dose_series, agreement):
                found = measured(case.baseline, refiner, self.estimator_of, self.seed)
                scores += [
                    Score(case.kind, case.patient, case.name, rows.sample, "dose series", figure, value)
                    for figure, value in ({} if found is None else vars(found)).items()
                ]
        return scores

    def _memory(self, case: EvaluationCase, found: Iterable[Prediction]) -> list[Score]:
        """Return how near training crops are to the crops of render and sample; all modalities have to be there."""
        if self.bank is None or len(case.present) < len(MODALITIES):
            return []
        tumour = case.target_labels.sum(axis=0) > INSIDE
        mask = tumour if tumour.any() else case.scene.drawn.support > INSIDE
        centres = places(mask, CROPS, self.seed)
        scores = []
        for answer in found:
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
