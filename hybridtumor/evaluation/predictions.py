"""Predictions: every answer to a case, from doing nothing to ensembles of the diffusion and of its students.

A model that is not compared with the render and with the unchanged scan is not evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hybridtumor.evaluation.cases import EvaluationCase
from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS
from hybridtumor.refine import Refiner
from hybridtumor.refiner_scene import Scene
from hybridtumor.solvers.place_noise import PlaceNoise
from hybridtumor.train_options import STUDENTS

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """What the rows of one refiner are called: one sample, the mean of the ensemble, the ensemble as a forecast."""

    sample: str
    mean: str
    ensemble: str


TEACHER_ROWS = Rows("one sample", "mean", "ensemble")
STUDENT_ROWS = {stage: Rows(f"{stage} student", f"{stage} mean", f"{stage} ensemble") for stage in STUDENTS}
"""Rows of the refiner, and of its students by their stage of training."""

METHODS = {
    "persistence": "the baseline scan: nothing happens",
    "warped baseline": "the baseline carried along with the tissue; equals persistence where nothing moves",
    "render": "the physics render on the textured fill: the best picture without networks",
    "smooth render": "the physics render on tissue means, which the networks add to",
    "render, own contrast": "the render with the contrast measured on the target: an oracle, no forecast knows it",
    "unconditional": "one sample with all fields dropped but the support; the networks still see the render",
    "regression mean": "render plus the regression's mean, no diffusion",
    "one sample": "the first of the ensemble",
    "mean": "mean of the ensemble",
    "ensemble": "all of the ensemble, as a forecast",
    "one-step student": "the first of its ensemble, in one evaluation of the network",
    "consistency student": "the first of its ensemble, in two evaluations of the network",
    "half-width student": "the first of its ensemble, sampled as the teacher by a network of half the width",
} | {
    row: f"{says} of the {stage} student"
    for stage, rows in STUDENT_ROWS.items()
    for row, says in ((rows.mean, "mean of the ensemble"), (rows.ensemble, "all of the ensemble"))
}
"""What the rows of the table are."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """One answer: images (4, x, y, z), soft labels (3, x, y, z), and the seconds that the networks took for it."""

    method: str
    images: Array
    labels: Array
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What one refiner draws of a case.

    Parameters
    ----------
    rows
        What its rows are called.
    images
        (K, 4, x, y, z): antithetic pairs 2k, 2k + 1, or independent members.
    sample, mean
        Its first member, and the mean of all, as answers.
    antithetic
        Whether the members come in pairs.
    """

    rows: Rows
    images: Array
    sample: Prediction
    mean: Prediction
    antithetic: bool = True


def ensemble(
    scene: Scene, refiner: Refiner, rows: Rows, *, samples: int = 8, seed: int = 0, antithetic: bool = True
) -> Ensemble:
    """Draw an ensemble.

    Parameters
    ----------
    scene
        What the networks are told.
    refiner, rows
        The teacher's or a student's, and what its rows are called.
    samples, seed
        Size of the ensemble, and seed of its noise.
    antithetic
        Whether members come in pairs of opposite noise, as `Refiner.refine` draws them, or are independent.
    """
    began = perf_counter()
    images, labels = scene.compose(_sampled(refiner, scene, samples, seed, antithetic=antithetic))
    seconds = perf_counter() - began
    one = Prediction(rows.sample, images[0], labels[0], seconds / samples)
    mean = Prediction(rows.mean, images.mean(axis=0), labels.mean(axis=0), seconds)
    return Ensemble(rows, images, one, mean, antithetic)


def simpler(case: EvaluationCase, refiner: Refiner, seed: int = 0) -> list[Prediction]:
    """Answer a case in every way but by an ensemble; `seed` is that of the unconditional sample."""
    scene, drawn = case.scene, case.scene.drawn
    ready = [] if case.persistence is None else [Prediction("persistence", case.persistence, scene.labels)]
    ready += [
        Prediction("warped baseline", case.warped, scene.labels),
        Prediction("render", case.textured.images, case.textured.labels),
        Prediction("smooth render", drawn.images, drawn.labels),
    ]
    if case.oracle is not None:
        ready.append(Prediction("render, own contrast", case.oracle, drawn.labels))
    ready.append(_timed("unconditional", scene, lambda: _sampled(refiner, unconditional(scene), 1, seed)))
    ready.append(_timed("regression mean", scene, lambda: refiner.regression_mean(scene)[None]))
    return ready


def unconditional(scene: Scene) -> Scene:
    """Return the scene with all fields dropped but the support, as in training (`hybridtumor.training_pairs`)."""
    kept = np.zeros_like(scene.fields)
    index = FIELDS.index("support")
    kept[index] = scene.fields[index]
    return replace(scene, fields=kept)


def _sampled(refiner: Refiner, scene: Scene, samples: int, seed: int, *, antithetic: bool = True) -> Array:
    numbers = range(0, samples if antithetic else 2 * samples, 1 if antithetic else 2)  # even ones have own noise
    return refiner.sample(scene, [PlaceNoise(seed, k, IMAGE_CHANNELS, scene.box) for k in numbers])


def _timed(method: str, scene: Scene, added: Callable[[], Array]) -> Prediction:
    began = perf_counter()
    images, labels = scene.compose(added())
    return Prediction(method, images[0], labels[0], perf_counter() - began)
