r"""Figures of dose: biologically effective dose, dose-volume histograms, equivalent uniform dose.

    BED  = n d (1 + d/(α/β))                                            n fractions of d Gy, repair complete
    BED  = Σ_i d_i + (Σ_i d_i² + 2 Σ_{i<j} d_i d_j θ_ij)/(α/β)          any fractions; θ_ij = 2^{−(t_j − t_i)/T_r}
    EQD2 = BED / (1 + 2/(α/β))
    gEUD = (1/N Σ_i D_i^a)^{1/a}
    V(D) = share of a region that receives at least D;   D_x = dose with V(D_x) = x

(Fowler, Br. J. Radiol. 1989; incomplete repair: Lea and Catcheside, J. Genet. 1942; gEUD: Niemierko, Med. Phys. 1997
and 1999.) T_r is the half-time of repair. BED and EQD2 of a plan, voxel by voxel, come from
`hybridtumor.models.cell_kill.radiation_bed`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray, Grid
from hybridtumor.models import cell_kill
from hybridtumor.therapy import DoseMap, TherapyPlan

FLAT = 1e-4
"""Spread of dose in a voxel, as a share of the largest dose, below which the voxel counts as uniform."""


def bed(total_dose: float, fractions: int, alpha_beta: float) -> float:
    """Return the biologically effective dose of equal fractions, Gy; total dose and α/β in Gy."""
    return total_dose * (1 + total_dose / fractions / alpha_beta)


def eqd2(total_dose: float, fractions: int, alpha_beta: float) -> float:
    """Return the total dose in 2 Gy fractions with the same effect, Gy; total dose and α/β in Gy."""
    return bed(total_dose, fractions, alpha_beta) / (1 + 2 / alpha_beta)


def schedule_bed(
    doses: Sequence[float],
    alpha_beta: float,
    *,
    days: Sequence[float] | None = None,
    repair_half_time: float = 0.0,
) -> float:
    """Return the biologically effective dose of fractions that need not be equal, Gy.

    Parameters
    ----------
    doses
        Dose of every fraction, Gy.
    days
        Day of every fraction; needed only when repair takes time.
    repair_half_time
        Half-time of the repair of sublethal damage, days; 0: complete before the next fraction.

    Raises
    ------
    InputError
        Repair takes time and there is not one day for each fraction.
    """
    d = np.asarray(doses, np.float64)
    if repair_half_time <= 0:
        return float(d.sum() + d @ d / alpha_beta)
    if days is None or len(days) != d.size:
        raise InputError(f"schedule: expected a day for each of {d.size} fractions, got {days}. State the days.")
    gaps = np.abs(np.subtract.outer(days, days))
    return float(d.sum() + d @ np.exp2(-gaps / repair_half_time) @ d / alpha_beta)


def eqd2_map(plan: TherapyPlan, alpha_beta: float, *, repair_half_time: float = 0.0) -> NDArray[np.float64]:
    """Return the dose in 2 Gy fractions with the same effect as all courses of a plan, Gy, on the plan's grid.

    Courses of any fractionation, boosts, integrated boosts and fractions on the same day add as their effects do.

    Raises
    ------
    InputError
        The plan has no course.
    """
    effective = cell_kill.radiation_bed(plan, alpha_beta, repair_half_time=repair_half_time)
    return np.asarray(effective / (1 + 2 / alpha_beta), np.float64)


def prescribed_bed(plan: TherapyPlan, alpha_beta: float, *, repair_half_time: float = 0.0) -> float:
    """Return the biologically effective dose where every course gives its highest prescription, Gy: in its boost."""
    point = Grid((1, 1, 1), np.eye(4))
    courses = tuple(
        replace(course, dose=DoseMap(np.full((1, 1, 1), course.highest_dose, np.float32), point))
        for course in plan.courses
    )
    return float(cell_kill.radiation_bed(TherapyPlan(courses), alpha_beta, repair_half_time=repair_half_time).item())


def dvh(
    dose: FloatArray, mask: BoolArray, bins: int | FloatArray = 100, *, subvoxel: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cumulative dose-volume histogram of a region.

    Counting voxel centres makes steps as high as the share of the voxels that have one dose: up to 1.5 % of a ball of
    40 voxels' diameter across a gradient. With `subvoxel` the dose is taken as linear in every voxel, with the smaller
    of the differences to its two neighbours along each axis (0 at a maximum or a minimum), and spread over a uniform
    range of the same variance: within 0.25 % for that ball, in any direction. Where isodoses run along the surface of
    a region, its partly filled voxels limit the accuracy, to 0.75 % for that ball, to 0.2 % with voxel centres.

    Parameters
    ----------
    dose
        Dose, Gy.
    mask
        Region, same shape.
    bins
        Doses at which to evaluate, Gy, ascending; or how many, from 0 to the largest dose in the region.
    subvoxel
        Whether dose varies within voxels.

    Returns
    -------
    tuple
        Doses, Gy, and the share of the region that receives at least that dose.

    Raises
    ------
    InputError
        An empty region, doses out of order.
    """
    inside = _within(dose, mask)
    half = _spread(dose, mask) / 2 if subvoxel else np.zeros(inside.shape)
    levels = np.linspace(0, (inside + half).max(), bins) if isinstance(bins, int) else np.asarray(bins, np.float64)
    if (np.diff(levels) < 0).any():
        raise InputError("dvh: expected ascending doses, got doses out of order. Sort them.")
    if not subvoxel:
        return levels, _steps(inside, levels) / inside.size
    wide = 2 * half > FLAT * inside.max()
    middle, reach = inside[wide], half[wide]
    ramps = [_ramps(middle + side * reach, 0.5 / reach, levels) for side in (1, -1)]
    share = (_steps(inside[~wide], levels) + ramps[0] - ramps[1]) / inside.size
    return levels, np.minimum.accumulate(np.clip(share, 0, 1))  # round-off, not doses, leaves [0, 1]


def dose_at_volume(dose: FloatArray, mask: BoolArray, percent: float) -> float:
    """Return D_x, the least dose in the hottest x per cent of a region, Gy: D₀ is its maximum, D₁₀₀ its minimum.

    Voxels of the same size; linear between their doses.

    Raises
    ------
    InputError
        An empty region, or x outside 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise InputError(f"D_x: expected x between 0 and 100 %, got {percent:g}.")
    return float(np.quantile(_within(dose, mask), 1 - percent / 100, method="hazen"))


def volume_at_dose(dose: FloatArray, mask: BoolArray, level: float) -> float:
    """Return V_x, the share of a region's voxels that receive at least `level` Gy, in [0, 1]."""
    return float(np.mean(_within(dose, mask) >= level))


def geud(dose: FloatArray, mask: BoolArray, a: float) -> float:
    """Return the generalised equivalent uniform dose of a region, in the unit of `dose`.

    Parameters
    ----------
    a
        Volume effect, not 0: 1 the mean, large the maximum (serial organs), negative for tumours, where a voxel without
        dose makes it 0.

    Raises
    ------
    InputError
        An empty region, or a = 0.
    """
    inside = _within(dose, mask)
    if a == 0:
        raise InputError("gEUD: expected a parameter a that is not 0.")
    scale = float(inside.max() if a > 0 else inside.min())
    return scale * float(np.mean((inside / scale) ** a)) ** (1 / a) if scale > 0 else 0.0


def mean_dose(dose: FloatArray, mask: BoolArray) -> float:
    """Return the mean dose in a region, in the unit of `dose`."""
    return float(_within(dose, mask).mean())


def max_dose(dose: FloatArray, mask: BoolArray) -> float:
    """Return the largest dose in a region, in the unit of `dose`."""
    return float(_within(dose, mask).max())


def dose_figures(
    plan: TherapyPlan, tumour: BoolArray, alpha_beta: float, *, repair_half_time: float = 0.0
) -> dict[str, float] | None:
    """Return the dose of an arm for its summary, or None when it gives no radiation (0 Gy included).

    Parameters
    ----------
    plan
        The arm's plan; its doses lie on the grid of `tumour`.
    tumour
        Gross tumour of day 0, in which the mean is taken.
    alpha_beta
        α/β of the tumour, Gy.
    repair_half_time
        Half-time of repair, days.

    Returns
    -------
    dict or None
        ``prescribed_Gy``; ``boost_Gy`` with an integrated boost; ``mean_tumour_Gy``; ``BED_Gy`` and ``EQD2_Gy`` of the
        highest prescription, that of the boost. Courses add.
    """
    given = plan.active
    if not given.courses:
        return None
    effective = prescribed_bed(given, alpha_beta, repair_half_time=repair_half_time)
    boosted = any(course.boost is not None for course in given.courses)
    return {
        "prescribed_Gy": float(sum(course.prescribed_dose for course in given.courses)),
        **({"boost_Gy": float(sum(course.highest_dose for course in given.courses))} if boosted else {}),
        "mean_tumour_Gy": mean_dose(given.total_dose(given.courses[0].dose.grid), tumour),
        "BED_Gy": effective,
        "EQD2_Gy": effective / (1 + 2 / alpha_beta),
    }


def _steps(values: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many values are at least each level."""
    counts = np.bincount(np.searchsorted(levels, values, side="right"), minlength=levels.size + 1)
    return np.asarray(values.size - np.cumsum(counts)[:-1], np.float64)


def _ramps(upper: NDArray[np.float64], weight: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Σ weight · max(upper − level, 0) for every level."""
    place = np.searchsorted(levels, upper, side="right")
    sums = [np.bincount(place, w, levels.size + 1)[::-1].cumsum()[::-1][1:] for w in (weight, weight * upper)]
    return np.asarray(sums[1] - levels * sums[0])


def _spread(dose: FloatArray, mask: BoolArray) -> NDArray[np.float64]:
    """Return the range of dose within every voxel of a mask, as wide as a uniform one of the same variance."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in found)
    values = np.asarray(dose[box], np.float64)
    square = np.zeros(values.shape)
    for axis in range(values.ndim):
        before = np.diff(values, axis=axis, prepend=np.take(values, [0], axis))
        after = np.diff(values, axis=axis, append=np.take(values, [-1], axis))
        slope = np.minimum(np.abs(before), np.abs(after))
        square += np.where(before * after > 0, slope, 0.0) ** 2
    return np.asarray(np.sqrt(square[mask[box]]))


def _within(values: FloatArray, mask: BoolArray) -> NDArray[np.float64]:
    """Return the values inside a mask, which has to fit and hold a voxel."""
    if values.shape != mask.shape:
        raise InputError(f"dose: expected arrays of one shape, got {values.shape} and {mask.shape}.")
    if not mask.any():
        raise InputError("dose: expected a region of at least one voxel, got an empty one.")
    return np.asarray(values[mask], np.float64)
