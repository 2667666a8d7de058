r"""Training pairs: random examples (baseline, densities, therapy → follow-up) from the teacher's cases.

From a real case with scan X, healthy fill H and density n:

- *onset*: baseline H, n_0 = 0, follow-up X;
- *growth*: n_0 = (n − c)⁺/(1 − c), baseline H + a (X − H) + Σ_l C_l (f_l(n_0) − min(f_l(n_0), f_l(n))), follow-up X.
  a = Σ_l min(f_l(n_0), f_l(n)) is the share of tissue whose label stays: staying tumour keeps its texture, tissue that
  changes its label gives nothing away;
- *response*: an invented tumour on healthy tissue is the baseline, killed by a known log-kill, and the untouched scan
  is the follow-up, so the network learns real healthy texture.

Every tumour is given another contrast at random, of which the render knows more or less.
From phantoms: baseline and follow-up of the growth solver, treated or not. Densities are smoothed at random, because
a growth model knows the extent of a tumour and not its every lobule.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.models.conditioning import (
    IMAGE_CHANNELS,
    THERAPY_ENTRIES,
    THERAPY_FIELDS,
    Condition,
    FieldStack,
    TherapyState,
)
from hybridtumor.models.render import GLIOSIS, render
from hybridtumor.models.visibility import label_fractions
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABELS, MODALITIES
from hybridtumor.solvers.training import Batch
from hybridtumor.teacher import Array, PhantomPair, RealCase

DROP_THERAPY = 0.1
DROP_FIELDS = 0.1
DROP_MODALITY = 0.05
BORROWED_THERAPY = 0.2
"""Share of growth examples that are told of a therapy whose effect is already in their density."""

CONTRAST_SPREAD = 0.2
"""Standard deviation of the contrast added to a tumour, normalised intensity: as much as patients differ."""

CONTRAST_ERRORS = (0.03, 0.15)
"""Standard deviation of the error of the known contrast, when the baseline shows the tumour and when it does not."""

INTENSITY_LIMIT = 4.0
"""Normalised intensity beyond this is cut off in training: vessels and hot voxels."""

KINDS = ("onset", "growth", "response")
KIND_SHARES = (0.45, 0.3, 0.25)

Window = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Example:
    """Baseline, follow-up and what the growth layer says of both, in one window of the working grid."""

    baseline: Array
    healthy: Array
    baseline_labels: Array
    target: Array
    target_labels: Array
    density_day0: Array
    density: Array
    density_untreated: Array
    log_kill: Array
    tissue: Array
    contrast: Array
    enhances: bool
    spacing: float
    day: float
    therapy: TherapyState


@dataclass(frozen=True, eq=False)
class PairSource:
    """An endless, reproducible stream of batches.

    Parameters
    ----------
    cases, phantoms
        From `hybridtumor.teacher`.
    crop
        Edge of the windows, working voxels, a multiple of 8.
    batch
        Examples per batch.
    seed
        Of everything random.
    phantom_share
        Share of examples drawn from phantoms when there are any.
    """

    cases: list[RealCase]
    phantoms: list[PhantomPair]
    crop: int = 40
    batch: int = 2
    seed: int = 0
    phantom_share: float = 0.5
    thresholds: ImagingThresholds = field(default_factory=ImagingThresholds)

    def batch_of(self, step: int) -> Batch:
        """Return the batch of a step; the same step gives the same batch."""
        rng = np.random.default_rng([self.seed, step])
        items = [self.example(rng) for _ in range(self.batch)]
        return to_batch([augmented(e, rng, self.thresholds) for e in items])

    def example(self, rng: np.random.Generator) -> Example:
        """Draw one example."""
        if self.phantoms and (not self.cases or rng.random() < self.phantom_share):
            return from_phantom(self.phantoms[rng.integers(len(self.phantoms))], rng, self.crop)
        case = self.cases[rng.integers(len(self.cases))]
        kind = rng.choice(KINDS, p=KIND_SHARES)
        if kind == "response":
            return response(case, rng, self.crop, self.thresholds)
        return growth(case, rng, self.crop, self.thresholds, from_nothing=kind == "onset")


def window(around: NDArray[np.bool_], rng: np.random.Generator, crop: int) -> Window:
    """Return a window of edge `crop` near a random voxel of `around`, inside the image where that is large enough."""
    inside = np.argwhere(around)
    centre = 0.6 * inside[rng.integers(len(inside))] + 0.4 * inside.mean(axis=0)
    start = np.clip(np.rint(centre - crop / 2), 0, np.maximum(0, np.array(around.shape) - crop)).astype(int)
    x, y, z = (slice(int(s), int(s) + crop) for s in start)
    return x, y, z


def cut(values: NDArray[Any], where: Window) -> Array:
    """Return a window of (…, X, Y, Z) as float32, padded with zeros to its full extent."""
    part = values[..., where[0], where[1], where[2]]
    pad = [(0, 0)] * (part.ndim - 3) + [
        (0, (w.stop - w.start) - n) for w, n in zip(where, part.shape[-3:], strict=True)
    ]
    return np.pad(part, pad).astype(np.float32)


def growth(
    case: RealCase, rng: np.random.Generator, crop: int, thresholds: ImagingThresholds, *, from_nothing: bool
) -> Example:
    """Return an example whose follow-up is the real scan: from no tumour, or from a smaller one."""
    where = window(case.density > 0.15, rng, crop)
    scans, healthy, labels = cut(case.scans, where), cut(case.healthy, where), cut(case.labels, where)
    true_density = cut(case.density, where)
    blur = float(rng.uniform(0, 1.5)) if rng.random() < 0.7 else 0.0
    density = ndimage.gaussian_filter(true_density, blur) if blur else true_density
    scans, change = another_contrast(scans, labels, rng)
    own_contrast = case.contrast + change
    contrast = known_contrast(own_contrast, rng)
    if from_nothing:
        before, baseline, own = np.zeros_like(density), healthy, np.zeros_like(labels)
    else:
        level = float(rng.uniform(0.15, 0.75))
        before = np.maximum(density - level, 0) / (1 - level)
        now, then = (label_fractions(n, thresholds, enhances=case.enhances) for n in (true_density, before))
        stays = np.minimum(now, then)
        baseline = (
            healthy + stays.sum(axis=0) * (scans - healthy) + np.einsum("lm,lxyz->mxyz", own_contrast, then - stays)
        )
        own = np.clip(labels * stays.sum(axis=0) + then - stays, 0, 1)
    day, therapy, log_kill, untreated = float(rng.uniform(20, 360)), TherapyState(), np.zeros_like(density), density
    if rng.random() < BORROWED_THERAPY:
        therapy, day = random_therapy(rng)
        log_kill = np.full_like(density, rng.uniform(0, 3)) * (density > 0)
        untreated = 1 - (1 - density) * np.exp(-0.3 * log_kill)
    return Example(
        baseline.astype(np.float32),
        healthy,
        own.astype(np.float32),
        scans,
        labels,
        before.astype(np.float32),
        density,
        untreated.astype(np.float32),
        log_kill,
        cut(case.tissue, where),
        contrast,
        case.enhances,
        case.spacing,
        day,
        therapy,
    )


def response(case: RealCase, rng: np.random.Generator, crop: int, thresholds: ImagingThresholds) -> Example:
    """Return an example in which an invented tumour is killed and the real healthy tissue comes back."""
    index = int(rng.integers(len(case.pockets)))
    centre, radius = case.pockets[index, :3], float(case.pockets[index, 3])
    axes = np.ogrid[tuple(slice(0, n) for n in case.density.shape)]
    distance = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))) * case.spacing
    peak, width = float(rng.uniform(0.4, 0.97)), float(rng.uniform(1.5, 4))
    ball = (
        peak / (1 + np.exp((distance - rng.uniform(0.6, 0.95) * radius) / width)) * (case.tissue[:2].sum(axis=0) > 0.3)
    )
    where = window(distance < radius, rng, crop)
    scans, healthy, before = cut(case.scans, where), cut(case.pocket_fills[index], where), cut(ball, where)
    log_kill = np.full_like(before, rng.choice([0.5, 1.0, 2.0, 4.0, 8.0])) * (before > 0)
    density = (before * np.exp(-log_kill)).astype(np.float32)
    contrast = known_contrast(case.contrast, rng)
    then, now = (label_fractions(n, thresholds, enhances=case.enhances) for n in (before, density))
    seen, left = then.sum(axis=0), now.sum(axis=0)
    painted = scans + seen * (healthy - scans) + np.einsum("lm,lxyz->mxyz", contrast, then)
    gliosis = (GLIOSIS * contrast[LABELS.index("edema")])[:, None, None, None] * np.maximum(seen - left, 0)
    target = scans + left * (healthy - scans) + np.einsum("lm,lxyz->mxyz", contrast, now) + gliosis
    therapy, day = random_therapy(rng)
    return Example(
        painted.astype(np.float32),
        healthy,
        then,
        target.astype(np.float32),
        now,
        before,
        density,
        np.sqrt(before),
        log_kill,
        cut(case.tissue, where),
        contrast,
        case.enhances,
        case.spacing,
        day,
        therapy,
    )


def from_phantom(pair: PhantomPair, rng: np.random.Generator, crop: int) -> Example:
    """Return a window of a phantom pair."""
    visible = np.maximum(pair.density, pair.density_day0) > 0.15
    where = window(visible if visible.any() else pair.density >= 0, rng, crop)
    names = (
        "baseline",
        "healthy",
        "baseline_labels",
        "target",
        "target_labels",
        "density_day0",
        "density",
        "density_untreated",
        "log_kill",
        "tissue",
    )
    return Example(
        **{name: cut(getattr(pair, name), where) for name in names},
        contrast=pair.contrast,
        enhances=pair.enhances,
        spacing=pair.spacing,
        day=pair.day,
        therapy=pair.therapy,
    )


def another_contrast(scans: Array, labels: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the scans with another tumour contrast, and by how much it differs, (3, 4).

    Seven tumours do not tell which contrast goes with which brain: without this, the networks would learn it by heart.
    """
    change = (CONTRAST_SPREAD * rng.standard_normal((len(LABELS), len(MODALITIES)))).astype(np.float32)
    return (scans + np.einsum("lm,lxyz->mxyz", change, labels)).astype(np.float32), change


def known_contrast(contrast: Array, rng: np.random.Generator) -> Array:
    """Return what is known of a contrast: much when the baseline shows the tumour, little when it does not."""
    error = rng.choice(CONTRAST_ERRORS) * rng.standard_normal(contrast.shape)
    return np.asarray(contrast + error, np.float32)


def random_therapy(rng: np.random.Generator) -> tuple[TherapyState, float]:
    """Return the state of a plausible course and the day on which it is looked at."""
    start, fractions, day = float(rng.uniform(7, 40)), int(rng.integers(5, 34)), float(rng.uniform(50, 300))
    last = min(day - 1, start + 1.4 * fractions)
    drug = int(rng.integers(5, 60)) if rng.random() < 0.6 else 0
    bed = fractions * 2 * (1 + 0.2)
    return TherapyState(day - start, day - last, fractions, bed, drug, float(rng.uniform(1, 60)) if drug else 0.0), day


def augmented(
    example: Example, rng: np.random.Generator, thresholds: ImagingThresholds
) -> dict[str, NDArray[np.float32]]:
    """Render an example and return one row of a batch: flipped, rescaled, with inputs dropped at random."""
    gain = rng.uniform(0.85, 1.15, (len(MODALITIES), 1, 1, 1)).astype(np.float32)
    shift = rng.uniform(-0.1, 0.1, gain.shape).astype(np.float32)
    head = example.tissue.sum(axis=0) > 0.5

    def rescaled(images: Array) -> Array:
        return np.asarray(np.clip(images * gain + shift, -INTENSITY_LIMIT, INTENSITY_LIMIT) * head, np.float32)

    contrast = (example.contrast * gain[:, 0, 0, 0]).astype(np.float32)
    scene = replace(
        example,
        baseline=rescaled(example.baseline),
        healthy=rescaled(example.healthy),
        target=rescaled(example.target),
        contrast=contrast,
    )
    available = np.ones(len(MODALITIES), bool)
    if rng.random() < DROP_MODALITY:
        available[rng.integers(len(MODALITIES))] = False
    row = to_row(scene, tuple(bool(a) for a in available), thresholds)
    if rng.random() < DROP_THERAPY:
        row["fields"][list(THERAPY_FIELDS)] = 0
        row["vector"][THERAPY_ENTRIES] = 0
    if rng.random() < DROP_FIELDS:
        kept = row["fields"][[7]].copy()
        row["fields"][:] = 0
        row["fields"][[7]] = kept
    flips = [-3 + axis for axis in range(3) if rng.random() < 0.5]
    return {k: np.flip(v, tuple(flips)).copy() if v.ndim == 4 and flips else v for k, v in row.items()}


def to_row(
    example: Example, available: tuple[bool, ...], thresholds: ImagingThresholds
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays the networks and losses read for one example."""
    head = example.tissue.sum(axis=0) > 0.5
    size = np.full(3, example.spacing)
    drawn = render(
        example.baseline,
        example.healthy,
        example.baseline_labels,
        example.density_day0,
        example.density,
        example.contrast,
        head,
        size,
        thresholds,
        enhances=example.enhances,
    )
    fields = FieldStack(
        density=example.density,
        density_untreated=example.density_untreated,
        log_kill=example.log_kill,
        displacement=np.zeros_like(example.density),
        white=example.tissue[0],
        grey=example.tissue[1],
        csf=example.tissue[2],
        support=drawn.support,
        density_day0=example.density_day0,
    ).stack()
    flags = np.array([*available, *[True] * (IMAGE_CHANNELS - len(MODALITIES))], np.float32)
    seen = flags[:, None, None, None]
    return {
        "baseline": np.concatenate([example.baseline, example.baseline_labels]) * seen,
        "render": np.concatenate([drawn.images, drawn.labels]) * seen,
        "target": np.concatenate([example.target, example.target_labels]) * seen,
        "fields": fields,
        "vector": Condition(example.day, example.contrast, available, example.therapy).vector(),
        "present": flags,
    }


def to_batch(rows: list[dict[str, NDArray[np.float32]]]) -> Batch:
    """Stack rows to a batch of tensors."""
    return Batch(**{key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]})
