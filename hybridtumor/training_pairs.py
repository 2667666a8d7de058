"""Training pairs: batches of rendered examples (`hybridtumor.training_examples`), as the networks read them.

Every scan is seen by another scanner at random: noisier or less sharp, of which the texture of its healthy tissue
tells, and with another gain. Cases are drawn by weight; therapy, fields and modalities are dropped at random.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.models.conditioning import (
    FIELDS,
    IMAGE_CHANNELS,
    THERAPY_ENTRIES,
    THERAPY_FIELDS,
    Condition,
    FieldStack,
)
from hybridtumor.models.render import render
from hybridtumor.models.texture import texture_levels
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import MODALITIES
from hybridtumor.solvers.training import Batch
from hybridtumor.teacher import Array, PhantomPair, RealCase
from hybridtumor.training_examples import Example, from_phantom, growth, response

DROP_THERAPY = 0.1
DROP_FIELDS = 0.1
DROP_MODALITY = 0.05
INTENSITY_LIMIT = 4.0
"""Normalised intensity beyond this is cut off in training: vessels and hot voxels."""

KINDS = ("onset", "growth", "response")
KIND_SHARES = (0.45, 0.3, 0.25)

RESCANNED = 0.5
"""Share of examples seen by another scanner: noisier, or less sharp."""

MORE_NOISE, LESS_SHARP = (0.003, 0.03), (0.2, 0.6)
"""Standard deviation of added noise, normalised intensity, and of blur, working voxels."""


@dataclass(frozen=True, eq=False)
class PairSource:
    """An endless, reproducible stream of batches.

    Parameters
    ----------
    cases, phantoms
        From `hybridtumor.teacher`.
    crop
        Edge of the windows, working voxels, a multiple of 16.
    batch
        Examples per batch.
    seed
        Of everything random.
    phantom_share
        Share of examples drawn from phantoms when there are any.
    weights
        How often each case is drawn, relative to the others; all the same by default.
    repainted
        Share of examples of growth whose tumour is painted anew.
    """

    cases: list[RealCase]
    phantoms: list[PhantomPair]
    crop: int = 64
    batch: int = 2
    seed: int = 0
    phantom_share: float = 0.35
    weights: tuple[float, ...] = ()
    repainted: float = 0.0
    thresholds: ImagingThresholds = field(default_factory=ImagingThresholds)

    def batch_of(self, step: int) -> Batch:
        """Return the batch of a step; an example depends on its number alone, however batches are cut."""
        numbers = range(step * self.batch, (step + 1) * self.batch)
        streams = [np.random.default_rng([self.seed, number]) for number in numbers]
        return to_batch([augmented(self.example(rng), rng, self.thresholds) for rng in streams])

    def example(self, rng: np.random.Generator) -> Example:
        """Draw one example."""
        if self.phantoms and (not self.cases or rng.random() < self.phantom_share):
            return from_phantom(self.phantoms[rng.integers(len(self.phantoms))], rng, self.crop)
        shares = np.array(self.weights or [1.0] * len(self.cases))
        case = self.cases[rng.choice(len(self.cases), p=shares / shares.sum())]
        kind = rng.choice(KINDS, p=KIND_SHARES)
        if kind == "response":
            return response(case, rng, self.crop, self.thresholds)
        nothing = kind == "onset"
        return growth(case, rng, self.crop, self.thresholds, from_nothing=nothing, repainted=self.repainted)


def rescanned(example: Example, rng: np.random.Generator) -> Example:
    """Return an example as a noisier or a less sharp scanner would have seen it, with the levels that go with that."""
    if rng.random() > RESCANNED:
        return example
    images = [example.baseline.copy(), example.target.copy()]
    for m in range(len(MODALITIES)):
        if rng.random() < 0.5:
            grain = rng.standard_normal(example.density.shape, np.float32)
            noise = np.exp(rng.uniform(*np.log(MORE_NOISE))) * ndimage.gaussian_filter(grain, rng.uniform(0.2, 0.7))
            for image in images:
                image[m] += noise
        else:
            blur = rng.uniform(*LESS_SHARP)
            for image in images:
                image[m] = ndimage.gaussian_filter(image[m], blur)
    healthy = (example.tissue.sum(axis=0) > 0.5) & (np.maximum(example.density, example.density_day0) < 0.02)
    levels = texture_levels(images[1], example.tissue[0], healthy, np.full(3, example.spacing))
    if levels is None:
        return example
    return replace(example, baseline=images[0], target=images[1], levels=levels)


def augmented(
    example: Example, rng: np.random.Generator, thresholds: ImagingThresholds
) -> dict[str, NDArray[np.float32]]:
    """Render an example and return one row of a batch: flipped, rescaled, with inputs dropped at random."""
    example = rescanned(example, rng)
    gain = rng.uniform(0.85, 1.15, (len(MODALITIES), 1, 1, 1)).astype(np.float32)
    shift = rng.uniform(-0.1, 0.1, gain.shape).astype(np.float32)
    head = example.tissue.sum(axis=0) > 0.5

    def rescaled(images: Array) -> Array:
        return np.asarray(np.clip(images * gain + shift, -INTENSITY_LIMIT, INTENSITY_LIMIT) * head, np.float32)

    scene = replace(
        example,
        baseline=rescaled(example.baseline),
        healthy=rescaled(example.healthy),
        target=rescaled(example.target),
        contrast=(example.contrast * gain[:, 0, 0, 0]).astype(np.float32),
        levels=example.levels * gain[:, 0, 0, 0, None],
    )
    available = np.ones(len(MODALITIES), bool)
    if rng.random() < DROP_MODALITY:
        available[rng.integers(len(MODALITIES))] = False
    row = to_row(scene, tuple(bool(a) for a in available), thresholds)
    if rng.random() < DROP_THERAPY:
        row["fields"][list(THERAPY_FIELDS)] = 0
        row["vector"][THERAPY_ENTRIES] = 0
    if rng.random() < DROP_FIELDS:
        drop_fields(row["fields"])
    flips = [-3 + axis for axis in range(3) if rng.random() < 0.5]
    return {k: np.flip(v, tuple(flips)).copy() if v.ndim == 4 and flips else v for k, v in row.items()}


def drop_fields(fields: NDArray[np.float32]) -> None:
    """Set to zero, in place, all fields but the support: what the network sees when it has to guess."""
    dropped = np.array([name != "support" for name in FIELDS])
    fields[dropped] = 0


def to_row(
    example: Example, available: tuple[bool, ...], thresholds: ImagingThresholds
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays the networks and losses read for one example."""
    head = example.tissue.sum(axis=0) > 0.5
    drawn = render(
        example.baseline,
        example.healthy,
        example.baseline_labels,
        example.density_day0,
        example.density,
        example.contrast,
        head,
        np.full(3, example.spacing),
        thresholds,
        enhances=example.enhances,
    )
    absent = np.zeros_like(example.density)
    fields = FieldStack(
        density=example.density,
        density_untreated=example.density_untreated,
        log_kill=example.log_kill,
        displacement=absent if example.displacement is None else example.displacement,
        white=example.tissue[0],
        grey=example.tissue[1],
        csf=example.tissue[2],
        support=drawn.support,
        density_day0=example.density_day0,
        kept=drawn.kept if example.filled is None else drawn.kept * (1 - example.filled),
        cavity=absent if example.cavity is None else example.cavity,
    ).stack()
    flags = np.array([*available, *[True] * (IMAGE_CHANNELS - len(MODALITIES))], np.float32)
    seen = flags[:, None, None, None]
    return {
        "baseline": np.concatenate([example.baseline, example.baseline_labels]) * seen,
        "render": np.concatenate([drawn.images, drawn.labels]) * seen,
        "target": np.concatenate([example.target, example.target_labels]) * seen,
        "fields": fields,
        "vector": Condition(example.day, example.contrast, available, example.therapy, example.levels).vector(),
        "present": flags,
    }


def to_batch(rows: list[dict[str, NDArray[np.float32]]]) -> Batch:
    """Stack rows to a batch of tensors."""
    return Batch(**{key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]})
