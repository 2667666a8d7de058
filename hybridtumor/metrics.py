r"""Figures that compare tumours and images.

Dice = 2|A ∩ B| / (|A| + |B|)
PSNR = 10 log₁₀(range² / MSE)
SSIM = (2 μ_a μ_b + c₁)(2 σ_ab + c₂) / ((μ_a² + μ_b² + c₁)(σ_a² + σ_b² + c₂))   (Wang et al., IEEE Trans. Image
Process. 2004)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray

FloatArray = NDArray[np.floating[Any]]


def dice(a: BoolArray, b: BoolArray) -> float:
    """Return the Dice overlap of two masks of the same shape, in [0, 1]; 1 when both are empty."""
    _require_same_shape(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def hd95(a: BoolArray, b: BoolArray, voxel_size: Sequence[float] | FloatArray) -> float:
    """Return the 95th percentile Hausdorff distance of two masks, mm: the larger of the two directions.

    Distances go from the surface voxels of one mask to those of the other. 0 when both are empty, infinite when one
    is.

    Parameters
    ----------
    voxel_size
        Edge lengths of a voxel along the array axes, mm (`Grid.voxel_size`).
    """
    _require_same_shape(a, b)
    if not a.any() or not b.any():
        return 0.0 if a.any() == b.any() else float("inf")
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (a[box], b[box])]
    far = [ndimage.distance_transform_edt(~surface, sampling=list(voxel_size)) for surface in surfaces]
    return float(max(np.percentile(far[1][surfaces[0]], 95), np.percentile(far[0][surfaces[1]], 95)))


def psnr(
    image: FloatArray, reference: FloatArray, mask: BoolArray | None = None, *, data_range: float | None = None
) -> float:
    """Return the peak signal-to-noise ratio inside a mask, dB; infinite when the images agree there.

    Parameters
    ----------
    data_range
        Range of intensities; None: that of the reference inside the mask.
    """
    where = np.ones(reference.shape, bool) if mask is None else mask
    a, b = _within(image, where), _within(reference, where)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(_range(b, data_range) ** 2 / error))


def ssim(
    image: FloatArray, reference: FloatArray, mask: BoolArray | None = None, *, data_range: float | None = None
) -> float:
    """Return the structural similarity, averaged over the voxels of a mask, at most 1.

    Local moments by a Gaussian of 1.5 voxels cut off at 5, constants 0.01 and 0.03 of the range. They reach beyond
    the mask.

    Parameters
    ----------
    data_range
        Range of intensities; None: that of the reference inside the mask.
    """
    where = np.ones(reference.shape, bool) if mask is None else mask
    spread = _range(_within(reference, where), data_range)
    box = tuple(
        slice(max(0, part.start - 6), part.stop + 6) for part in ndimage.find_objects(where.astype(np.uint8))[0]
    )
    _require_same_shape(image, reference)
    a, b = (np.asarray(x[box], np.float64) for x in (image, reference))

    def local(values: FloatArray) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(values, 1.5, radius=5, mode="nearest"))

    mean_a, mean_b = local(a), local(b)
    var_a, var_b, cov = local(a * a) - mean_a**2, local(b * b) - mean_b**2, local(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    index = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(index[where[box]].mean())


def _range(values: FloatArray, data_range: float | None) -> float:
    """Return the range of intensities, which has to be positive."""
    spread = float(values.max() - values.min()) if data_range is None else data_range
    if not spread > 0:
        raise InputError(f"image: expected a positive range of intensities, got {spread:g}.")
    return spread


def _within(values: FloatArray, mask: BoolArray) -> NDArray[np.float64]:
    """Return the values inside a mask, which has to fit and hold a voxel."""
    _require_same_shape(values, mask)
    if not mask.any():
        raise InputError("figures: expected a region of at least one voxel, got an empty one.")
    return np.asarray(values[mask], np.float64)


def _require_same_shape(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise InputError(f"figures: expected arrays of one shape, got {a.shape} and {b.shape}.")
