r"""How strong the texture of healthy tissue is in a scan: what noise, resolution and sequence leave of it.

    ℓ_i = ( ⟨ (G_{a_i} I − G_{b_i} I)² ⟩ )^{1/2},   mean over deep white matter away from the tumour

with G_a a Gaussian of standard deviation a (G_0 the identity). Scanners differ in this more than tumours do, and what a
scanner does to white matter it does to a tumour, so the levels tell the networks how fine and how noisy an image to
write.

How strong the texture of the next tumour is, against what the regression says of it, no training case tells: every
sample is drawn with strengths of its own,

    k_m e^{τ ξ_m},    ξ_m = √½ a + √½ b_m,   a, b standard normal

k_m and τ: median and spread of what the left-out training cases would have wanted. The soft labels take k and no
spread.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.grid import BoolArray
from hybridtumor.scan import MODALITIES

SCALES = ((0.0, 0.7), (0.7, 2.0))
"""(a, b) of the two bands, mm."""

LEVELS_SHAPE = (len(MODALITIES), len(SCALES))

TYPICAL_LEVEL = 0.03
"""Normalised intensity: about the mean of both bands over the training cases."""

STRENGTH: NDArray[np.float32] = np.array([0.75, 0.9, 1.0, 1.05, 0.7, 0.7, 0.7], np.float32)
"""k of the four modalities and the three labels."""

STRENGTH_SPREAD = 0.2
"""τ."""

ENOUGH = 300
"""Voxels of white matter below which nothing is measured."""


def draw_strength(seed: int, sample: int) -> NDArray[np.float32]:
    """Return how strong the texture of one sample is in every channel, (7,); 2k and 2k + 1 have the same."""
    rng = np.random.default_rng([seed, sample // 2, *b"strength"])
    common, own = rng.standard_normal(), rng.standard_normal(len(MODALITIES))
    result = STRENGTH.copy()
    result[: len(MODALITIES)] *= np.exp(STRENGTH_SPREAD * 0.5**0.5 * (common + own))
    return result


def texture_levels(
    images: NDArray[np.floating[Any]],
    white: NDArray[np.floating[Any]],
    healthy: BoolArray,
    voxel_size: NDArray[np.float64],
) -> NDArray[np.float32] | None:
    """Return ℓ, (modality, band), normalised intensity, or None where there is too little white matter to tell.

    Parameters
    ----------
    images
        (4, X, Y, Z) normalised scans.
    white
        Fraction of white matter, (X, Y, Z).
    healthy
        Where there is no tumour, (X, Y, Z).
    voxel_size
        mm, (3,).
    """
    pure = (white > 0.8) & healthy
    deep = ndimage.binary_erosion(pure, iterations=1)
    where = deep if np.count_nonzero(deep) >= ENOUGH else pure
    if np.count_nonzero(where) < ENOUGH:
        return None
    levels = np.zeros(LEVELS_SHAPE, np.float32)
    for m, image in enumerate(images):
        smooth = {
            s: ndimage.gaussian_filter(image, s / voxel_size) if s else image for s in {s for p in SCALES for s in p}
        }
        for i, (fine, coarse) in enumerate(SCALES):
            band = (smooth[fine] - smooth[coarse])[where]
            levels[m, i] = np.sqrt(np.mean(np.clip(band, -1, 1) ** 2))
    return levels
