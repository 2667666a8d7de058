r"""Closeness voxel by voxel inside a region: mean absolute error and multi-scale structural similarity.

    MAE     = ⟨|a − b|⟩
    SSIM    = ⟨l · cs⟩,   l = (2 μ_a μ_b + c₁)/(μ_a² + μ_b² + c₁),   cs = (2 σ_ab + c₂)/(σ_a² + σ_b² + c₂)
    MS-SSIM = ⟨l_S cs_S⟩^{w_S} Π_{s<S} ⟨cs_s⟩^{w_s}

⟨·⟩ is the mean over the voxels of the region, scale s + 1 is scale s averaged over 2×2×2 voxels, and the local moments
are those of `hybridtumor.metrics.ssim` (Wang, Simoncelli & Bovik, Asilomar Conf. Signals, Systems and Computers 2003).
The published five scales need a region of 11·2⁴ = 176 voxels across; a smaller one takes as many scales as its box is
wide enough for, with their weights scaled to add up to 1, and says how many (`scales_of`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.models.resolution import block_mean

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang et al. 2003, Table 1)."""

WINDOW = 11
"""Voxels across the Gaussian window: radius 5, standard deviation 1.5."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Scale:
    """Structural similarity at one scale.

    Parameters
    ----------
    luminance, structure
        l and cs, (x, y, z).
    """

    luminance: Array
    structure: Array


def mae(image: Array, reference: Array, mask: BoolArray) -> float:
    """Return the mean absolute difference of two images (…, x, y, z) over the voxels of a mask (x, y, z)."""
    if not mask.any():
        raise InputError("mae: expected a region of at least one voxel, got an empty one.")
    return float(np.abs(image[..., mask] - reference[..., mask]).mean())


def scales_of(mask: BoolArray) -> int:
    """Return how many scales a region has room for, 1 to 5: the narrowest side of its box over the window's width."""
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        raise InputError("MS-SSIM: expected a region of at least one voxel, got an empty one.")
    narrowest = min(side.stop - side.start for side in box[0])
    return int(np.clip(1 + np.floor(np.log2(max(narrowest / WINDOW, 1))), 1, len(WEIGHTS)))


def similarity_scales(image: Array, reference: Array, data_range: float, scales: int) -> list[Scale]:
    """Return the maps of structural similarity of one modality (x, y, z) at `scales` scales, finest first."""
    if image.shape != reference.shape or not data_range > 0:
        raise InputError(
            f"SSIM: expected images of one shape and a positive range, got {image.shape}, {reference.shape} and"
            f" {data_range:g}."
        )
    maps, a, b = [], np.asarray(image, np.float32), np.asarray(reference, np.float32)
    for index in range(scales):
        maps.append(_scale(a, b, data_range))
        if index + 1 < scales:
            a, b = block_mean(a, 2), block_mean(b, 2)
    return maps


def ssim_of(scales: list[Scale], mask: BoolArray) -> float:
    """Return SSIM over a region: that of `hybridtumor.metrics.ssim`, from maps that several regions share."""
    return float((scales[0].luminance * scales[0].structure)[mask].mean())


def ms_ssim_of(scales: list[Scale], mask: BoolArray) -> float:
    """Return MS-SSIM over a region (x, y, z) from its maps; at most 1.

    A scale counts the blocks that lie mostly inside the region. A mean structure below 0 counts as 0, because no
    power of it is real.
    """
    used = scales[: scales_of(mask)]
    parts = _pyramid(mask, len(used))
    means = [float(scale.structure[part].mean()) for scale, part in zip(used, parts, strict=True)]
    means[-1] = float((used[-1].luminance * used[-1].structure)[parts[-1]].mean())
    weights = np.array(WEIGHTS[: len(used)]) / sum(WEIGHTS[: len(used)])
    return float(np.prod(np.maximum(means, 0) ** weights))


def ms_ssim(image: Array, reference: Array, mask: BoolArray, *, data_range: float) -> float:
    """Return MS-SSIM of one modality (x, y, z) inside a mask; the local moments reach beyond it.

    Parameters
    ----------
    data_range
        Range of intensities.

    Raises
    ------
    InputError
        Shapes differ, the range is not positive or the mask is empty.
    """
    return ms_ssim_of(similarity_scales(image, reference, data_range, scales_of(mask)), mask)


def _pyramid(mask: BoolArray, scales: int) -> list[BoolArray]:
    """Return the region at every scale: blocks of which at least half lie inside, or that hold most of it."""
    share, found = mask.astype(np.float32), [mask]
    for _ in range(scales - 1):
        share = block_mean(share, 2)
        found.append(share >= min(0.5, float(share.max())))
    return found


def _scale(a: Array, b: Array, data_range: float) -> Scale:
    def local(values: Array) -> Array:
        return np.asarray(ndimage.gaussian_filter(values, 1.5, radius=WINDOW // 2, mode="nearest"))

    mean_a, mean_b = local(a), local(b)
    var_a, var_b, cov = local(a * a) - mean_a**2, local(b * b) - mean_b**2, local(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return Scale((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1), (2 * cov + c2) / (var_a + var_b + c2))
