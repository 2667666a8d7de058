r"""Training examples: baseline and follow-up, drawn at random from the teacher's cases.

From a real case with scan X, mean healthy fill H, fill weight w and density n, with κ the share of tissue that keeps
its label (`hybridtumor.models.render`) and C the contrast,

- *onset*: baseline X + w (H − X), n_0 = 0, follow-up X;
- *growth*: n_0 = (n − c)⁺/(1 − c), baseline H + κ (X − H) + Σ_l C_l (f_l(n_0) − min(f_l(n_0), f_l(n))), follow-up X:
  tissue that stays keeps its texture, tissue that changes its label gives nothing away;
- *response*: an invented tumour on healthy tissue is the baseline, killed by a known log-kill, and the untouched scan
  is the follow-up, so the network learns real healthy texture.

Seven tumours do not show how tumours can look: in half of the examples of growth the tumour is painted anew, on the
same labels, with random regions and borders (`hybridtumor.models.heterogeneity`),

    X ← X + v (H + Σ_l C_l f_l(n + ℓ) + a_m h_m + noise − X),    ℓ lobules that shift borders, v visible

with the noise of the patient's white matter. Every tumour is given another contrast at random, which the render knows.
Windows are centred on a label chosen first and a voxel of it second, so that a millilitre of enhancing rim is seen as
often as a hundred of oedema. From phantoms: baseline and follow-up of the growth solver, treated or not. Densities are
smoothed at random, because a growth model knows the extent of a tumour and not its every lobule.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.models.conditioning import TherapyState
from hybridtumor.models.heterogeneity import heterogeneity, smooth_noise
from hybridtumor.models.render import CORE, GLIOSIS, blurred
from hybridtumor.models.visibility import seen_fractions
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABELS, MODALITIES
from hybridtumor.teacher import Array, PhantomPair, RealCase

BORROWED_THERAPY = 0.2
"""Share of growth examples that are told of a therapy whose effect is already in their density."""

CONTRAST_SPREAD = 0.2
"""Standard deviation of the contrast added to a tumour, normalised intensity: as much as patients differ."""

CONTRAST_ERROR = 0.03
"""Standard deviation of the error of the known contrast. How little is known of a patient's contrast is no business of
the networks: every sample is told a contrast of its own (`hybridtumor.models.contrast.draw_contrast`).
"""

AMPLITUDE = (0.06, 0.5)
"""Range of a, normalised intensity, log-uniform in each modality: what label means leave of the training tumours."""

CORE_AMPLITUDE = 1.5
"""By how much larger a is in the core."""

LOBULES = 0.06
"""Largest deviation of ℓ, density."""

SLOPE = 0.15
"""Deviation of the change of oedema's contrast from its outer border to its inner one, normalised intensity."""

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
    levels: Array
    enhances: bool
    spacing: float
    day: float
    therapy: TherapyState
    filled: Array | None = None
    displacement: Array | None = None
    cavity: Array | None = None


def window(shown: NDArray[Any], rng: np.random.Generator, crop: int) -> Window:
    """Return a window of edge `crop` around a random voxel of a random mask of (k, X, Y, Z) that is not empty.

    It stays inside the image where that is large enough.
    """
    present = [mask for mask in shown if mask.any()]
    inside = np.flatnonzero(present[rng.integers(len(present))])
    centre = np.array(np.unravel_index(inside[rng.integers(len(inside))], shown.shape[1:]))
    start = centre - crop // 2 + rng.integers(-crop // 6, crop // 6 + 1, 3)
    start = np.clip(start, 0, np.maximum(0, np.array(shown.shape[1:]) - crop))
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
    case: RealCase,
    rng: np.random.Generator,
    crop: int,
    thresholds: ImagingThresholds,
    *,
    from_nothing: bool,
    repainted: float = 0.0,
) -> Example:
    """Return an example whose follow-up is the real scan: from no tumour, or from a smaller one.

    `repainted` is the share of examples whose tumour is painted anew.
    """
    where = window(case.labels, rng, crop)
    scans, healthy, labels = cut(case.scans, where), cut(case.healthy, where), cut(case.labels, where)
    true_density, tissue = cut(case.density, where), cut(case.tissue, where)
    blur = float(rng.uniform(0, 3)) if rng.random() < 0.7 else 0.0
    density = ndimage.gaussian_filter(true_density, blur) if blur else true_density
    if rng.random() < repainted:
        scans = painted_anew(case, scans, healthy, true_density, tissue, thresholds, rng)
    scans, change = another_contrast(scans, labels, rng)
    own_contrast = case.contrast + change
    contrast = known_contrast(own_contrast, rng)
    filled = None
    if from_nothing:
        filled = cut(case.fill, where)
        before, baseline, own = np.zeros_like(density), scans + filled * (healthy - scans), np.zeros_like(labels)
    else:
        level = float(rng.uniform(0.15, 0.75))
        before = np.maximum(density - level, 0) / (1 - level)
        head, size = tissue.sum(axis=0) > 0.5, np.full(3, case.spacing)
        now, then = (seen_fractions(n, thresholds, head, size, enhances=case.enhances) for n in (true_density, before))
        stays = np.minimum(now, then)
        kept = stays.sum(axis=0) + np.minimum(1 - now.sum(axis=0), 1 - then.sum(axis=0))
        baseline = healthy + kept * (scans - healthy) + np.einsum("lm,lxyz->mxyz", own_contrast, then - stays)
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
        tissue,
        contrast,
        case.levels,
        case.enhances,
        case.spacing,
        day,
        therapy,
        filled,
    )


def painted_anew(
    case: RealCase,
    scans: Array,
    healthy: Array,
    density: Array,
    tissue: Array,
    thresholds: ImagingThresholds,
    rng: np.random.Generator,
) -> Array:
    """Return scans (4, X, Y, Z) in which the tumour has another inside of the same contrast."""
    shape, head, size = density.shape, tissue.sum(axis=0) > 0.5, np.full(3, case.spacing)
    lobules = rng.uniform(0, LOBULES) * smooth_noise(rng, shape, rng.uniform(2, 6) / case.spacing)
    lumpy = np.clip(density + lobules * np.clip(density / 0.15, 0, 1), 0, 1).astype(np.float32)
    shown, seen = (seen_fractions(n, thresholds, head, size, enhances=case.enhances) for n in (lumpy, density))
    column = (len(MODALITIES), 1, 1, 1)
    low, high = np.log(AMPLITUDE)
    amplitude = np.exp(rng.uniform(low, high, column)).astype(np.float32)
    core = shown[CORE].sum(axis=0)
    inside = amplitude * (1 + (CORE_AMPLITUDE - 1) * core) * heterogeneity(rng, shape, case.spacing)
    depth = np.clip((lumpy - thresholds.edema) / (thresholds.enhancing - thresholds.edema), 0, 1) - 0.5
    inside += (SLOPE * rng.standard_normal(column)).astype(np.float32) * depth * shown[LABELS.index("edema")]
    grain = np.stack([smooth_noise(rng, shape, rng.uniform(0.4, 0.8) / case.spacing) for _ in MODALITIES])
    inside += np.asarray(case.levels, np.float32).max(axis=1).reshape(column) * grain
    anatomy = healthy + core * (blurred(healthy, head, size) - healthy)
    painted = anatomy + np.einsum("lm,lxyz->mxyz", case.contrast, shown) + inside
    return np.asarray(scans + np.clip(seen.sum(axis=0), 0, 1) * (painted - scans), np.float32)


def response(case: RealCase, rng: np.random.Generator, crop: int, thresholds: ImagingThresholds) -> Example:
    """Return an example in which an invented tumour is killed and the real healthy tissue comes back."""
    index = int(rng.integers(len(case.pockets)))
    centre, radius = case.pockets[index, :3], float(case.pockets[index, 3])
    where = _around(centre, rng, crop, case.density.shape)
    tissue = cut(case.tissue, where)
    axes = np.ogrid[tuple(slice(w.start, w.stop) for w in where)]
    distance = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))) * case.spacing
    peak, width = float(rng.uniform(0.4, 0.97)), float(rng.uniform(1.5, 4))
    before = peak / (1 + np.exp((distance - rng.uniform(0.6, 0.95) * radius) / width)) * (tissue[:2].sum(axis=0) > 0.3)
    before = before.astype(np.float32)
    scans, healthy = cut(case.scans, where), cut(case.pocket_fill, where)
    log_kill = np.full_like(before, rng.choice([0.5, 1.0, 2.0, 4.0, 8.0])) * (before > 0)
    density = (before * np.exp(-log_kill)).astype(np.float32)
    contrast = known_contrast(case.contrast, rng)
    head, size = tissue.sum(axis=0) > 0.5, np.full(3, case.spacing)
    then, now = (seen_fractions(n, thresholds, head, size, enhances=case.enhances) for n in (before, density))
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
        tissue,
        contrast,
        case.levels,
        case.enhances,
        case.spacing,
        day,
        therapy,
    )


def _around(centre: Array, rng: np.random.Generator, crop: int, shape: tuple[int, ...]) -> Window:
    """Return a window of edge `crop` around a place, inside the image where that is large enough."""
    start = np.rint(centre).astype(int) - crop // 2 + rng.integers(-crop // 8, crop // 8 + 1, 3)
    start = np.clip(start, 0, np.maximum(0, np.array(shape) - crop))
    x, y, z = (slice(int(s), int(s) + crop) for s in start)
    return x, y, z


def from_phantom(pair: PhantomPair, rng: np.random.Generator, crop: int) -> Example:
    """Return a window of a phantom pair."""
    shown = np.concatenate([pair.target_labels, pair.baseline_labels]) > 0.5
    where = window(shown if shown.any() else np.ones((1, *shown.shape[1:]), bool), rng, crop)
    names = (
        *("baseline", "healthy", "baseline_labels", "target", "target_labels", "density_day0", "density"),
        *("density_untreated", "log_kill", "tissue", "displacement", "cavity"),
    )
    return Example(
        **{name: cut(getattr(pair, name), where) for name in names},
        contrast=pair.contrast,
        levels=pair.levels,
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
    """Return what the render is told of a contrast."""
    return np.asarray(contrast + CONTRAST_ERROR * rng.standard_normal(contrast.shape), np.float32)


def random_therapy(rng: np.random.Generator) -> tuple[TherapyState, float]:
    """Return the state of a plausible course and the day on which it is looked at."""
    start, fractions, day = float(rng.uniform(7, 40)), int(rng.integers(5, 34)), float(rng.uniform(50, 300))
    last = min(day - 1, start + 1.4 * fractions)
    drug = int(rng.integers(5, 60)) if rng.random() < 0.6 else 0
    bed = fractions * 2 * (1 + 0.2)
    return TherapyState(day - start, day - last, fractions, bed, drug, float(rng.uniform(1, 60)) if drug else 0.0), day
