"""Predictions: every answer to a case, from doing nothing to an ensemble of the diffusion.

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

Array = NDArray[np.float32]
OneStep = Callable[[Scene], Array]
"""A student: scene → what to add to the render, (7, X, Y, Z) on the working grid."""

METHODS = {
    "persistence": "the baseline scan: nothing happens",
    "warped baseline": "the baseline carried along with the tissue; equals persistence where nothing moves",
    "render": "the physics render on the textured fill: the best picture without networks",
    "smooth render": "the physics render on tissue means, which the networks add to",
    "render, own contrast": "the render with the contrast measured on the target: an oracle, no forecast knows it",
    "unconditional": "one sample with all fields dropped but the support; the networks still see the render",
    "regression mean": "render plus the regression's mean, no diffusion",
    "one-step student": "one evaluation of the student network",
    "one sample": "the first of the ensemble",
    "mean": "mean of the ensemble",
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
class Answers:
    """Every answer to one case, and the ensemble (K, 4, x, y, z): antithetic pairs 2k, 2k + 1, or independent."""

    predictions: tuple[Prediction, ...]
    ensemble: Array
    antithetic: bool = True


def answers(
    case: EvaluationCase,
    refiner: Refiner,
    *,
    samples: int = 8,
    seed: int = 0,
    student: OneStep | None = None,
    antithetic: bool = True,
) -> Answers:
    """Answer a case in every way there is.

    Parameters
    ----------
    samples, seed
        Size of the ensemble, and seed of its noise.
    student
        The one-step student, when there are weights of one.
    antithetic
        Whether members come in pairs of opposite noise, as `Refiner.refine` draws them, or are independent.
    """
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
    if student is not None:
        ready.append(_timed("one-step student", scene, lambda: student(scene)[None]))
    began = perf_counter()
    images, labels = scene.compose(_sampled(refiner, scene, samples, seed, antithetic=antithetic))
    seconds = perf_counter() - began
    ready.append(Prediction("one sample", images[0], labels[0], seconds / samples))
    ready.append(Prediction("mean", images.mean(axis=0), labels.mean(axis=0), seconds))
    return Answers(tuple(ready), images, antithetic)


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
