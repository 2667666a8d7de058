r"""The physics render: the follow-up scan that the growth model alone predicts.

With B the baseline scan, H its healthy fill, f_l(n) the soft label fractions of a density n, as sharp as a scan is
(`hybridtumor.models.visibility`), v = Σ_l f_l, c the fraction of core (necrosis and enhancing) and C the contrast,

    R_t = A + Σ_l C_l ( f_l(n_t) − κ f_l(n_0) ) + g C_oedema (v_0 − v_t)⁺
    A = H + κ (B − H),  then  A ← A + (c_t − c_0)⁺ (H̄ − A)
    κ = Σ_k min(f_k(n_0), f_k(n_t)),   k over the labels and "no tumour", f = 1 − v

κ is the share of tissue whose label stays: there it keeps its own look. Tissue whose label has changed, healthy tissue
that the tumour has reached included, is painted anew, with the contrast of its new label, on the healthy fill; where
the density has fallen the image returns to the fill; a new core hides the anatomy below it (H̄ is H smoothed). g is a
small rest of T2 and FLAIR brightness, gliosis, where tumour was killed. R_0 = B exactly. The same formula with C = 1
and H = 0 carries the patient's own labels along.

H is either the mean of `hybridtumor.models.healthy_fill`, for the render that the networks add texture to, or the
textured fill, for a picture of its own.

M ∈ [0, 1] is the support in which anything may change: 1 where label fractions have changed, fading to 0 within a few
millimetres, exactly 0 elsewhere, and 0 everywhere when nothing has changed. Outside M, R is B bit for bit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.grid import BoolArray
from hybridtumor.models.distance import distance_near
from hybridtumor.models.resolution import block_mean, interpolate
from hybridtumor.models.visibility import seen_fractions
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABELS

CHANGE = 0.02
"""Change of a label fraction that counts as visible."""

FADE = 4.0
"""mm over which the support fades to 0 around a visible change."""

CORE = [LABELS.index("necrosis"), LABELS.index("enhancing")]

BLUR = 4.0
"""mm. Standard deviation of the smoothing that leaves tissue brightness and no anatomy under a tumour core."""

GLIOSIS = np.array([0.0, 0.0, 0.25, 0.25], np.float32)
"""g per modality: share of the oedema contrast that remains where tumour was killed. An assumption, to be calibrated
on follow-up scans.
"""


@dataclass(frozen=True, eq=False)
class Rendering:
    """What the growth model alone predicts.

    Parameters
    ----------
    images
        R, (4, X, Y, Z) normalised intensity.
    labels
        (3, X, Y, Z) soft labels in [0, 1].
    support
        M, (X, Y, Z) in [0, 1].
    kept
        κ, (X, Y, Z) in [0, 1].
    gained, lost
        By how much more of each label there is, f_l(n_t) − κ f_l(n_0), (3, X, Y, Z), and (v_0 − v_t)⁺, (X, Y, Z), where
        M > 0: what multiplies the contrast.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.float32]
    support: NDArray[np.float32]
    kept: NDArray[np.float32]
    gained: NDArray[np.float32]
    lost: NDArray[np.float32]

    def coloured(self, change: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return by how much the images change with a change of contrast (3, 4): they are linear in it."""
        return np.asarray(_painted(change, self.gained, self.lost), np.float32)


def _painted(
    contrast: NDArray[np.float32], gained: NDArray[np.float32], lost: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return Σ_l C_l g_l + g C_oedema v, (4, X, Y, Z)."""
    gliosis = (GLIOSIS * contrast[LABELS.index("edema")])[:, None, None, None] * lost
    return np.asarray(np.einsum("lm,lxyz->mxyz", contrast, gained) + gliosis, np.float32)


def blurred(images: NDArray[np.float32], head: BoolArray, voxel_size: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return images (m, X, Y, Z) smoothed over `BLUR` mm within the head."""
    factor = np.maximum(1, np.round(BLUR / 2 / voxel_size)).astype(int)
    sigma = BLUR / (factor * voxel_size)

    def smooth(values: NDArray[np.float32]) -> NDArray[np.float32]:
        coarse = ndimage.gaussian_filter(block_mean(values, factor), sigma, truncate=3.0)
        return interpolate(coarse, factor, head.shape)

    weight = smooth(head.astype(np.float32))
    return np.stack([smooth(np.where(head, image, 0)) / np.maximum(weight, 1e-3) for image in images])


def support_of_change(
    before: NDArray[np.float32], after: NDArray[np.float32], head: BoolArray, voxel_size: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return M, (X, Y, Z), from soft label fractions (3, X, Y, Z) before and after."""
    changed = (np.abs(after - before) > CHANGE).any(axis=0) & head
    if not changed.any():
        return np.zeros(head.shape, np.float32)
    distance = distance_near(changed, voxel_size, FADE)
    ramp = np.clip(1 - distance / FADE, 0, 1)
    return np.asarray(np.where(head, ramp * ramp * (3 - 2 * ramp), 0), np.float32)


def render(
    baseline: NDArray[np.float32],
    healthy: NDArray[np.float32],
    baseline_labels: NDArray[np.float32],
    density_day0: NDArray[np.floating[Any]],
    density: NDArray[np.floating[Any]],
    contrast: NDArray[np.float32],
    head: BoolArray,
    voxel_size: NDArray[np.float64],
    thresholds: ImagingThresholds,
    *,
    enhances: bool = True,
) -> Rendering:
    """Render the scan of a day.

    Parameters
    ----------
    baseline, healthy
        B and H, (4, X, Y, Z) normalised intensity.
    baseline_labels
        The patient's own soft labels, (3, X, Y, Z).
    density_day0, density
        n_0 and n_t, (X, Y, Z).
    contrast
        C, (3, 4).
    head
        Where there is head, (X, Y, Z); nothing changes outside.
    voxel_size
        mm, (3,).
    thresholds, enhances
        As in `hybridtumor.models.visibility.seen_fractions`.
    """
    before, after = (
        seen_fractions(n, thresholds, head, voxel_size, enhances=enhances) for n in (density_day0, density)
    )
    seen_before = before.sum(axis=0)
    seen = after.sum(axis=0)
    kept = np.minimum(before, after).sum(axis=0) + np.minimum(1 - seen_before, 1 - seen)
    gained = after - before * kept
    lost = np.maximum(seen_before - seen, 0)
    support = support_of_change(before, after, head, voxel_size)
    new_core = np.maximum((after - before)[CORE].sum(axis=0), 0)
    anatomy = healthy + (baseline - healthy) * kept
    if new_core.any():
        anatomy += new_core * (blurred(healthy, head, voxel_size) - anatomy)
    images = anatomy + _painted(contrast, gained, lost)
    labels = np.clip(baseline_labels * kept + gained, 0, 1)
    writable = support > 0
    return Rendering(
        np.where(writable, images, baseline).astype(np.float32),
        np.where(writable, labels, baseline_labels).astype(np.float32),
        support,
        kept.astype(np.float32),
        np.where(writable, gained, 0).astype(np.float32),
        np.where(writable, lost, 0).astype(np.float32),
    )
