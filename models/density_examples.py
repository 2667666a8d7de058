r"""Examples for the density net S_B: windows of scans whose tumour cell density n is known.

    x = A + g ( T + Σ_l C'_l f_l(n') ) + noise        A: healthy tissue, T: its texture, C': altered contrast

Three kinds, drawn at random: the scan as it is; the scan with its tumour killed in a smooth region, where texture and a
little gliosis remain and n is 0, so that the net is not blind to absence; and a painted tumour, an altered density of
the patient or one grown anywhere in healthy tissue, often with the contrast of other patients. The healthy fill H is
that of the whole head, as in use, or reaches beyond the tumour by a random distance and into healthy places too, so
that where H differs from the scan says nothing about n.

How bright a tumour is differs much from patient to patient, and few patients are at hand: a net that goes by brightness
would be off by the same factor all over a tumour. So the contrast of whole windows is stretched at random, each
modality on its own, T2 and FLAIR often alike; what remains to go by is what differs within a tumour, between
modalities, and in shape. Gains, bias, noise, flips and missing modalities are drawn on top. An example depends
on seed and index alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.models.density_estimator import BLOCK
from hybridtumor.models.density_training import DensityExamples
from hybridtumor.models.resolution import block_mean
from hybridtumor.models.visibility import label_fractions
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABELS, MODALITIES

WINDOW = 32
"""Edge of an example in blocks of 2 mm."""

WHOLE_HEAD = 0.88
"""Share of the examples whose healthy fill covers the whole head."""

STRETCH = (0.2, 0.2, 0.35, 0.35)
"""Standard deviation of the logarithm by which the contrast of T1w, T1ce, T2w and FLAIR is stretched."""

Array = NDArray[np.float32]
Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class DensityCase:
    """One patient with a known density, on blocks of `hybridtumor.models.density_estimator.BLOCK` mm.

    Parameters
    ----------
    images
        (4, X, Y, Z) normalised scans.
    means
        (4, X, Y, Z) local tissue means, `hybridtumor.models.healthy_fill.tissue_model`, in the whole head.
    healthy
        (4, X, Y, Z) textured pseudo-healthy scans, equal to `images` away from the tumour.
    density
        n, (X, Y, Z).
    contrast
        C, (3, 4).
    head
        (X, Y, Z).
    enhances
        Whether the tumour enhances.
    """

    images: Array
    means: Array
    healthy: Array
    density: Array
    contrast: Array
    head: NDArray[np.bool_]
    enhances: bool

    @classmethod
    def pooled(
        cls,
        images: Array,
        means: Array,
        healthy: Array,
        density: Array,
        contrast: Array,
        head: NDArray[np.bool_],
        *,
        enhances: bool,
    ) -> "DensityCase":
        """Return a case from arrays at 1 mm."""
        pool = partial(block_mean, factor=BLOCK)
        return cls(pool(images), pool(means), pool(healthy), pool(density), contrast, pool(head * 1.0) > 0.5, enhances)

    def window(self, start: NDArray[np.int64], size: int = WINDOW) -> "DensityCase":
        """Return the cube of `size` voxels at `start`, zero beyond the grid."""
        low = np.maximum(-start, 0)
        high = np.maximum(start + size - self.density.shape, 0)
        x, y, z = (slice(s + lo, s + size - h) for s, lo, h in zip(start, low, high, strict=True))
        pads = list(zip(low.tolist(), high.tolist(), strict=True))

        def cut(a: NDArray[Any]) -> NDArray[Any]:
            return np.pad(a[..., x, y, z], [(0, 0)] * (a.ndim - 3) + pads)

        return replace(
            self,
            images=cut(self.images),
            means=cut(self.means),
            healthy=cut(self.healthy),
            density=cut(self.density),
            head=cut(self.head),
        )


@dataclass(frozen=True, eq=False)
class ExampleSource:
    """Endless examples from some cases.

    Parameters
    ----------
    cases
        Patients to draw from.
    phantoms, phantom_share
        Virtual patients, and the share of the examples drawn from them; all of it without patients.
    seed
        Of everything random.
    batch
        Examples per step.
    thresholds
        Densities at which the tumour shows.
    """

    cases: Sequence[DensityCase]
    phantoms: Sequence[DensityCase] = ()
    phantom_share: float = 0.0
    seed: int = 0
    batch: int = 2
    thresholds: ImagingThresholds = field(default_factory=ImagingThresholds)

    def batch_of(self, step: int) -> DensityExamples:
        """Return the examples of a step."""
        drawn = [self.example(step * self.batch + i) for i in range(self.batch)]
        images, healthy, present, density = (
            torch.from_numpy(np.stack(parts).astype(np.float32)) for parts in zip(*drawn, strict=True)
        )
        return DensityExamples(images, healthy, present, density[:, None])

    def example(self, index: int) -> tuple[Array, Array, Array, Array]:
        """Return images, healthy fill, flags and density of one example."""
        rng = np.random.default_rng((self.seed, index))
        virtual = bool(self.phantoms) and (not self.cases or rng.random() < self.phantom_share)
        pool = self.phantoms if virtual else self.cases
        case = pool[int(rng.integers(len(pool)))]
        part = case.window(_place(case, rng))
        images, density = _scene(part, _other_contrast(case, self.cases, rng), self.thresholds, rng)
        healthy = _fill(part, density, rng)
        images, healthy = _scanned(_stretched(images, healthy, rng), healthy, part.head, rng)
        present = rng.random(len(MODALITIES)) > 0.12
        present[int(rng.integers(len(MODALITIES)))] = True
        images, healthy, density = _turned(rng, images, healthy, density)
        return images, healthy, present.astype(np.float32), density


def _other_contrast(case: DensityCase, cases: Sequence[DensityCase], rng: Generator) -> Array:
    """Return the contrast to paint with, (3, 4): the case's own or, more often, one between two patients."""
    if not cases or rng.random() < 0.3:
        return case.contrast
    one, other = (cases[int(rng.integers(len(cases)))].contrast for _ in range(2))
    share = np.float32(rng.random())
    return np.asarray(share * one + (1 - share) * other, np.float32)


def _place(case: DensityCase, rng: Generator) -> NDArray[np.int64]:
    """Return the corner of a window: around tumour three times out of four, else anywhere in the head."""
    where = np.argwhere(case.density > 0.1) if rng.random() < 0.75 else np.argwhere(case.head)
    centre = where[int(rng.integers(len(where)))] + rng.integers(-WINDOW // 4, WINDOW // 4 + 1, 3)
    return np.asarray(centre - WINDOW // 2, np.int64)


def smooth_field(rng: Generator, mm: float, shape: tuple[int, ...]) -> Array:
    """Return smooth Gaussian noise of unit variance with a correlation length in mm."""
    length = mm / BLOCK
    noise = rng.standard_normal([int(2 * n / length) + 5 for n in shape])
    for n, knots in zip(shape, noise.shape, strict=True):
        distance = np.arange(n)[:, None] / length - (np.arange(knots) - 2) / 2
        noise = np.tensordot(noise, np.exp(-2 * distance**2), axes=(0, 1))  # the next axis comes first
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), np.float32)


def _scene(case: DensityCase, contrast: Array, thresholds: ImagingThresholds, rng: Generator) -> tuple[Array, Array]:
    """Return images and density of one of the three kinds; tumours are painted with `contrast`, (3, 4)."""
    kind = rng.random()
    if kind < 0.4:
        return case.images, case.density
    texture = float(rng.uniform(0.7, 1.5)) * (case.healthy - case.means)
    visible = label_fractions(case.density, thresholds, enhances=case.enhances)
    covered = np.clip(visible.sum(axis=0) * 4, 0, 1)
    bare = np.asarray(case.healthy + covered * (case.means + texture - case.healthy), np.float32)
    if kind < 0.68:
        gone = _region(case, rng)
        rest = float(rng.uniform(0, 0.35)) * visible.sum(axis=0) * np.array([0, 0, 1, 1])[:, None, None, None]
        killed = bare + rest * case.contrast[LABELS.index("edema")][:, None, None, None]
        return case.images + gone * (killed - case.images), case.density * (1 - gone)
    return _painted(case, bare, contrast, thresholds, rng)


def _region(case: DensityCase, rng: Generator) -> Array:
    """Return where the tumour is killed: everywhere, or in a smooth region."""
    if rng.random() < 0.35:
        return np.ones_like(case.density)
    level = smooth_field(rng, float(rng.uniform(25, 60)), case.density.shape) + float(rng.uniform(-0.7, 0.7))
    return np.asarray(1 / (1 + np.exp(-level * float(rng.uniform(3, 15)))), np.float32)


def _painted(
    case: DensityCase, bare: Array, contrast: Array, thresholds: ImagingThresholds, rng: Generator
) -> tuple[Array, Array]:
    """Return images and density of a tumour painted on healthy tissue."""
    if rng.random() < 0.5:
        density = float(rng.uniform(0.3, 1.0)) * case.density ** float(rng.uniform(0.6, 1.8))
    else:
        axes = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in case.density.shape], indexing="ij")
        centre = rng.uniform(0.25, 0.75, 3) * case.density.shape
        distance = BLOCK * np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)))
        depth = float(rng.uniform(5, 32)) + 4 * smooth_field(rng, 15, case.density.shape) - distance
        wave = 1 / (1 + np.exp(-depth / float(rng.uniform(1.5, 7))))
        tissue = ndimage.gaussian_filter((case.means[0] > np.percentile(case.means[0][case.head], 15)) * 1.0, 0.5)
        density = float(rng.uniform(0.3, 0.98)) * wave * case.head * tissue if case.head.any() else 0 * wave
    altered = contrast * rng.uniform(0.6, 1.4, contrast.shape) + rng.normal(0, 0.04, contrast.shape)
    shown = label_fractions(density, thresholds, enhances=bool(rng.random() < 0.6))
    uneven = np.stack([1 + 0.2 * smooth_field(rng, float(rng.uniform(4, 12)), density.shape) for _ in MODALITIES])
    images = bare + np.einsum("lm,lxyz->mxyz", altered, shown) * uneven
    return images.astype(np.float32), np.asarray(density, np.float32)


def _fill(case: DensityCase, density: Array, rng: Generator) -> Array:
    """Return the healthy fill H: tissue means everywhere, or around the tumour, beyond it and in other places."""
    if rng.random() < WHOLE_HEAD:
        return case.means
    tumour = np.maximum(density, case.density) > 0.04
    distance = BLOCK * ndimage.distance_transform_edt(~tumour) if tumour.any() else np.full(density.shape, np.inf)
    weight = np.clip(1 + (float(rng.uniform(2, 12)) - distance) / 4, 0, 1)
    if rng.random() < 0.6:
        blob = smooth_field(rng, float(rng.uniform(15, 40)), density.shape) - 0.3
        weight = np.maximum(weight, np.clip(3 * blob, 0, 1))
    return np.asarray(case.healthy + weight * (case.means - case.healthy), np.float32)


def _stretched(images: Array, healthy: Array, rng: Generator) -> Array:
    """Return images whose contrast to the healthy fill is stretched, each modality on its own or T2 as FLAIR."""
    logarithm = rng.normal(0, STRETCH)
    if rng.random() < 0.5:
        t2, flair = (MODALITIES.index(name) for name in ("T2w", "FLAIR"))
        logarithm[flair] = logarithm[t2] + rng.normal(0, 0.1)
    stretch = np.exp(logarithm).astype(np.float32)[:, None, None, None]
    return np.asarray(healthy + stretch * (images - healthy), np.float32)


def _scanned(images: Array, healthy: Array, head: NDArray[np.bool_], rng: Generator) -> tuple[Array, Array]:
    """Return images and fill of another scanner: contrast, gain, offset, bias, noise."""
    column = (len(MODALITIES), 1, 1, 1)
    contrast, gain = (
        rng.uniform(0.75, 1.3, column).astype(np.float32),
        rng.uniform(0.85, 1.2, column).astype(np.float32),
    )
    offset, strength = rng.normal(0, 0.05, column).astype(np.float32), rng.uniform(0, [0.05, 0.08]).astype(np.float32)
    images = gain * (healthy + contrast * (images - healthy)) + offset
    images += strength[0] * np.stack([smooth_field(rng, 60, head.shape) for _ in MODALITIES])
    images += strength[1] * rng.standard_normal(images.shape, np.float32)
    return images * head, (gain * healthy + offset) * head


def _turned(rng: Generator, *arrays: Array) -> list[Array]:
    """Return arrays (…, X, Y, Z), cubes, flipped and turned alike."""
    axes = rng.permutation(3)
    flips = tuple(axis - 3 for axis in range(3) if rng.random() < 0.5)
    lead = [range(a.ndim - 3) for a in arrays]
    turned = [np.transpose(a, [*r, *(axes + a.ndim - 3)]) for a, r in zip(arrays, lead, strict=True)]
    return [np.flip(a, flips).copy() for a in turned]
