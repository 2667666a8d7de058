r"""From a tumour to a dose: gross tumour, clinical target by a named recipe, synthetic conformal dose around it.

    target:   T = {x in the brain : |x − GTV| ≤ m and the way to x through the brain is no longer}
    dose:     d(x) = D for s ≤ p,   D e^{−(s − p)/ℓ} beyond,   0 outside the head;   s = |x − T|

m is the margin of the recipe, p the margin of the planning target, ℓ the fall-off length, D the prescription in Gy.
Ventricles and outer CSF are barriers: cells migrate through tissue, so the target does not reach across them. Falx
and tentorium are barriers only where the tissue map shows CSF. The dose, being physical, ignores barriers. With ℓ =
15 mm a prescription of 60 Gy falls by 4 Gy/mm at the edge. The dose is a stated shape, not the result of a treatment
planning system.
"""

from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid, resample
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient
from hybridtumor.scan import Scan
from hybridtumor.therapy import DoseMap
from hybridtumor.tissue import TissueMap

TARGET_MARGINS = MappingProxyType({"estro-eano-2023": 15.0, "eortc-2016": 20.0, "rtog": 20.0})
"""mm from the gross to the clinical target.

ESTRO-EANO 2023 (Niyazi et al., Radiother. Oncol. 2023); ESTRO-ACROP 2016, as in the EORTC trials (Niyazi et al.,
Radiother. Oncol. 2016); the 20 mm of RTOG around the gross tumour, as one phase: RTOG itself gives two, the first of
them around the oedema.
"""

PLANNING_MARGIN = 3.0
"""mm from the clinical to the planning target, for set-up errors; 3 to 5 mm are in common use."""

FALL_OFF = 15.0
"""mm over which the dose outside the planning target falls by a factor e; a stated default, not measured."""

DOSE_UNITS = MappingProxyType({"Gy": 1.0, "cGy": 0.01})
"""Units a dose file may be in, and their size in Gy."""


def gross_tumour(patient: Patient, thresholds: ImagingThresholds | None = None) -> BoolArray:
    """Return the gross tumour of day 0 on the patient's grid: its core, or all that shows of a tumour without core.

    The core is the labels enhancing and necrosis (which BraTS shares with non-enhancing tumour) of the baseline
    segmentation; without a segmentation, where the density exceeds the threshold of enhancement.

    Raises
    ------
    InputError
        Neither segmentation nor density shows a tumour.
    """
    limits = thresholds or ImagingThresholds()
    candidates = []
    if patient.baseline.labels is not None:
        labels = patient.baseline.labels
        candidates += [labels.mask("enhancing", "necrosis"), labels.mask()]
    if patient.density is not None:
        candidates += [patient.density.values > limits.enhancing, patient.density.values > limits.edema]
    for mask in candidates:
        if mask.any():
            return np.asarray(mask)
    raise InputError(
        f"patient {patient.id}: expected a tumour to aim at, found none in the segmentation or the density of day 0."
        " Give a dose file instead of a target."
    )


def clinical_target(recipe: str, gross: BoolArray, tissue: TissueMap) -> BoolArray:
    """Grow the gross tumour to the clinical target, through brain tissue only.

    Parameters
    ----------
    recipe
        A key of `TARGET_MARGINS`.
    gross
        Gross tumour, shape ``tissue.grid.shape``; it is part of the target wherever it lies.
    tissue
        Where brain is; its affine gives the distances, mm.

    Raises
    ------
    InputError
        Unknown recipe, empty gross tumour, or a mask of another shape.
    """
    if recipe not in TARGET_MARGINS:
        raise InputError(f"target: expected one of {', '.join(TARGET_MARGINS)}, got {recipe!r}.")
    return grow_within(gross, tissue.parenchyma, tissue.grid, TARGET_MARGINS[recipe])


def grow_within(mask: BoolArray, domain: BoolArray, grid: Grid, margin: float) -> BoolArray:
    """Return `mask` and the voxels of `domain` within `margin` mm of it, straight and by a way inside the domain.

    The straight distance is exact. The way through the domain is first-order accurate and is therefore allowed a voxel
    diagonal more.
    """
    _require_mask(mask, grid, "gross tumour")
    reach = np.ceil(margin / grid.voxel_size).astype(int) + 1
    box = tuple(
        slice(max(0, part.start - int(r)), part.stop + int(r))
        for part, r in zip(ndimage.find_objects(mask.astype(np.uint8))[0], reach, strict=True)
    )
    seed, room = mask[box], domain[box] | mask[box]
    straight = ndimage.distance_transform_edt(~seed, sampling=grid.voxel_size)
    near = room & (straight <= margin)
    way = path_length(seed, near, grid.voxel_size, margin + float(np.linalg.norm(grid.voxel_size)))
    result = np.zeros_like(mask)
    result[box] = seed | (near & np.isfinite(way))
    return result


def path_length(seed: BoolArray, room: BoolArray, voxel_size: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Return the length of the shortest way from `seed` inside `room`, mm; infinite beyond `limit`.

    Solves |∇T| = 1 by upwind differences, updating only voxels whose neighbours changed (the fast iterative method of
    Jeong and Whitaker, SIAM J. Sci. Comput. 2008). First order in the voxel size.
    """
    inside = np.pad(room | seed, 1)
    shape = inside.shape
    time = np.where(np.pad(seed, 1), 0.0, np.inf).ravel()
    steps = [shape[1] * shape[2], shape[2], 1]
    free = inside.ravel() & (time > 0)
    changed = np.flatnonzero(time == 0)
    while changed.size:
        around = np.unique(np.concatenate([changed + sign * step for step in steps for sign in (-1, 1)]))
        active = around[free[around]]
        upwind = np.stack([np.minimum(time[active - step], time[active + step]) for step in steps])
        arrival = _eikonal_update(upwind, voxel_size)
        better = (arrival < time[active] - 1e-9) & (arrival <= limit)
        changed = active[better]
        time[changed] = arrival[better]
    return time.reshape(shape)[1:-1, 1:-1, 1:-1]


def _eikonal_update(upwind: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return T with Σ_i max(0, (T − a_i)/h_i)² = 1, for arrival times a (3, n) of the upwind neighbours."""
    order = np.argsort(upwind, axis=0)
    a = np.take_along_axis(upwind, order, axis=0)
    w = 1 / h[order] ** 2
    result = a[0] + 1 / np.sqrt(w[0])
    for m in (2, 3):
        more = result > a[m - 1]
        first, weight = a[:m, more] - a[0, more], w[:m, more]
        p, q, r = weight.sum(0), (weight * first).sum(0), (weight * first**2).sum(0) - 1
        result[more] = a[0, more] + (q + np.sqrt(np.maximum(q**2 - p * r, 0))) / p
    return np.asarray(result)


def relative_dose(
    target: BoolArray, tissue: TissueMap, *, margin: float = PLANNING_MARGIN, falloff: float = FALL_OFF
) -> NDArray[np.float64]:
    """Return the dose around a clinical target as a fraction of the prescription, in [0, 1].

    Parameters
    ----------
    target
        Clinical target.
    tissue
        Where the head is, and the grid.
    margin
        p, from the clinical to the planning target, mm.
    falloff
        ℓ, length over which the dose falls by a factor e, mm.

    Raises
    ------
    InputError
        An empty target or one of another shape, a negative margin, a fall-off that is not positive.
    """
    _require_mask(target, tissue.grid, "clinical target")
    if margin < 0 or falloff <= 0:
        raise InputError(f"dose: expected a margin ≥ 0 mm and a fall-off > 0 mm, got {margin:g} and {falloff:g}.")
    distance = ndimage.distance_transform_edt(~target, sampling=tissue.grid.voxel_size)
    return np.asarray(np.where(tissue.head | target, np.exp(-np.maximum(distance - margin, 0) / falloff), 0.0))


def conformal_dose(
    target: BoolArray,
    tissue: TissueMap,
    prescription: float,
    *,
    margin: float = PLANNING_MARGIN,
    falloff: float = FALL_OFF,
) -> DoseMap:
    """Return a synthetic conformal dose around a clinical target, linear in the prescription; see `relative_dose`.

    Parameters
    ----------
    prescription
        Total dose in the planning target, Gy.

    Raises
    ------
    InputError
        As `relative_dose`, and for a prescription that is negative or implausible.
    """
    shape = relative_dose(target, tissue, margin=margin, falloff=falloff)
    return DoseMap((prescription * shape).astype(np.float32), tissue.grid)


def dose_from_nifti(
    path: Path | str, grid: Grid, unit: str | None, *, tumour: BoolArray | None = None, brain: BoolArray | None = None
) -> DoseMap:
    """Read the total dose of a course and resample it by affine to a grid; 0 where the file does not reach.

    Parameters
    ----------
    unit
        ``Gy`` or ``cGy``. Compulsory: NIfTI does not say.
    tumour, brain
        Masks on `grid` that the file has to cover, but for 1 % of the tumour and 10 % of the brain.

    Raises
    ------
    InputError
        As `Scan.load`; no or another unit, negative or implausible dose, a file that does not cover the tumour or the
        brain.
    """
    if unit is None or unit not in DOSE_UNITS:
        raise InputError(f"{path}: expected the unit of the dose, Gy or cGy, got {unit!r}. State dose_unit.")
    scan = Scan.load(path)
    try:
        dose = DoseMap(np.asarray(scan.values * DOSE_UNITS[unit], np.float32), scan.grid)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    for name, mask, share in (("tumour", tumour, 0.01), ("brain", brain, 0.10)):
        if mask is not None and (missed := 1 - dose.grid.share_inside(grid.world(np.argwhere(mask)))) > share:
            raise InputError(
                f"{path}: expected a dose grid that covers the {name}, {missed:.1%} of it lies outside."
                " Check that dose and scans are registered, or export the dose on a larger grid."
            )
    return DoseMap(np.asarray(resample(dose.values, dose.grid, grid), np.float32), grid)


def _require_mask(mask: BoolArray, grid: Grid, name: str) -> None:
    if mask.shape != grid.shape:
        raise InputError(f"{name}: expected a mask of the grid's shape {grid.shape}, got {mask.shape}.")
    if not mask.any():
        raise InputError(f"{name}: expected at least one voxel, got an empty mask.")
