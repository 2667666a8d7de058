r"""Figures that compare doses, tumours and images.

BED = n d (1 + d/(α/β)),   EQD2 = BED / (1 + 2/(α/β))       n fractions of d Gy (Fowler, Br. J. Radiol. 1989)
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
from hybridtumor.therapy import TherapyPlan

FloatArray = NDArray[np.floating[Any]]

PROGRESSION_GROWTH = 1.4
"""Volume over its smallest so far that counts as progression: +40 %, the volumetric threshold of RANO 2.0."""

MEASURABLE_VOLUME = 1000.0
"""mm³. A smaller tumour does not count as progression: a cube of 10 mm, after RANO's 10 mm × 10 mm."""


def bed(total_dose: float, fractions: int, alpha_beta: float) -> float:
    """Return the biologically effective dose of equal fractions, Gy; total dose and α/β in Gy."""
    return total_dose * (1 + total_dose / fractions / alpha_beta)


def eqd2(total_dose: float, fractions: int, alpha_beta: float) -> float:
    """Return the total dose in 2 Gy fractions with the same effect, Gy; total dose and α/β in Gy."""
    return bed(total_dose, fractions, alpha_beta) / (1 + 2 / alpha_beta)


def dvh(
    dose: FloatArray, mask: BoolArray, bins: int | FloatArray = 100
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cumulative dose-volume histogram of a region.

    Parameters
    ----------
    dose
        Dose, Gy.
    mask
        Region, same shape.
    bins
        Doses at which to evaluate, Gy; or how many, from 0 to the maximum in the region.

    Returns
    -------
    tuple
        Doses, Gy, and the share of the region's voxels that receive at least that dose.

    Raises
    ------
    InputError
        An empty region.
    """
    inside = np.sort(_within(dose, mask))
    levels = np.linspace(0, inside[-1], bins) if isinstance(bins, int) else np.asarray(bins, np.float64)
    return levels, 1 - np.searchsorted(inside, levels, side="left") / inside.size


def mean_dose(dose: FloatArray, mask: BoolArray) -> float:
    """Return the mean dose in a region, in the unit of `dose`."""
    return float(_within(dose, mask).mean())


def max_dose(dose: FloatArray, mask: BoolArray) -> float:
    """Return the largest dose in a region, in the unit of `dose`."""
    return float(_within(dose, mask).max())


def dose_figures(plan: TherapyPlan, tumour: BoolArray, alpha_beta: float) -> dict[str, float] | None:
    """Return the dose of an arm for its summary, or None when it gives no radiation (0 Gy included).

    Parameters
    ----------
    plan
        The arm's plan; its doses lie on the grid of `tumour`.
    tumour
        Gross tumour of day 0, in which the mean is taken.
    alpha_beta
        α/β of the tumour, Gy.

    Returns
    -------
    dict or None
        ``prescribed_Gy``; ``mean_tumour_Gy``; ``BED_Gy`` and ``EQD2_Gy`` of the prescription. Courses add.
    """
    courses = plan.active.courses
    if not courses:
        return None
    total = plan.active.total_dose(courses[0].dose.grid)
    prescriptions = [(course.prescribed_dose, course.fractions) for course in courses]
    return {
        "prescribed_Gy": float(sum(dose for dose, _ in prescriptions)),
        "mean_tumour_Gy": mean_dose(total, tumour),
        "BED_Gy": float(sum(bed(dose, n, alpha_beta) for dose, n in prescriptions)),
        "EQD2_Gy": float(sum(eqd2(dose, n, alpha_beta) for dose, n in prescriptions)),
    }


def time_to_progression(days: Sequence[float], volumes: Sequence[float]) -> float | None:
    """Return the day on which the model's tumour volume passes the threshold of progression, None if it does not.

    The threshold is 1.4 times the smallest volume up to then, day 0 included, and at least `MEASURABLE_VOLUME`; the
    volume is taken as linear between the days. A model output, not a clinical RANO assessment.

    Parameters
    ----------
    days
        Ascending.
    volumes
        Tumour volume on these days, mm³.

    Raises
    ------
    InputError
        Lengths that differ, days out of order.
    """
    if len(days) != len(volumes) or list(days) != sorted(set(days)):
        raise InputError(f"progression: expected one volume for each of ascending days, got {days} and {volumes}.")
    for i in range(1, len(days)):
        threshold = max(PROGRESSION_GROWTH * min(volumes[:i]), MEASURABLE_VOLUME)
        before, after = volumes[i - 1], volumes[i]
        if after > before and after >= threshold:
            share = max(0.0, (threshold - before) / (after - before))
            return float(days[i - 1] + share * (days[i] - days[i - 1]))
    return None


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
