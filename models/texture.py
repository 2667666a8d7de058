r"""How strong the texture of healthy tissue is in a scan: what noise, resolution and sequence leave of it.

    ℓ_i = ( ⟨ (G_{a_i} I − G_{b_i} I)² ⟩ )^{1/2},   mean over deep white matter away from the tumour

with G_a a Gaussian of standard deviation a (G_0 the identity). Scanners differ in this more than tumours do, and what a
scanner does to white matter it does to a tumour, so the levels tell the networks how fine and how noisy an image to
write.
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

ENOUGH = 300
"""Voxels of white matter below which nothing is measured."""


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
