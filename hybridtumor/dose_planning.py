r"""Synthetic dose around clinical targets: one shape, phases, and an integrated boost.

    shape:    s(x) = 1 for r ≤ p,   e^{−(r − p)/ℓ} beyond,   0 outside the head;   r = |x − T|
    course:   d(x) = D s(x);   of phases: d(x) = Σ_k D w_k s_k(x);   with a boost: s(x) = max(s_T(x), b s_B(x))

T is the clinical target, p the margin of the planning target, ℓ the fall-off length, D the prescription in Gy, w_k the
share of phase k, B and b the target and the level of the boost. The dose, being physical, ignores barriers. With ℓ = 15
mm a prescription of 60 Gy falls by 4 Gy/mm at the edge. The dose is a stated shape, not the result of a treatment
planning system.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.margins import require_mask
from hybridtumor.targets import RECIPES, TargetPhase, split_fractions
from hybridtumor.therapy import DoseMap
from hybridtumor.tissue import TissueMap

PLANNING_MARGIN = 3.0
"""mm from the clinical to the planning target, for set-up errors.

ESTRO-EANO 2023 (Niyazi et al., Radiother. Oncol. 2023) wants no more than 3 mm, ESTRO-ACROP 2016 had 3 to 5 mm.
"""

FALL_OFF = 15.0
"""mm over which the dose outside the planning target falls by a factor e; a stated default, not measured."""

TARGET_MARGINS = MappingProxyType({name: RECIPES[name].phases[-1].margin for name in RECIPES if name != "gtv"})
"""mm from the gross to the clinical target, of the last phase of a recipe."""


def relative_dose(
    target: BoolArray,
    tissue: TissueMap,
    *,
    margin: float = PLANNING_MARGIN,
    falloff: float = FALL_OFF,
    shown: BoolArray | None = None,
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
    shown
        Where there is a dose at all, shape ``tissue.grid.shape``; None: in the head. The target is always part of it.

    Raises
    ------
    InputError
        An empty target or one of another shape, a negative margin, a fall-off that is not positive.
    """
    require_mask(target, tissue.grid, "clinical target")
    if margin < 0 or falloff <= 0:
        raise InputError(f"dose: expected a margin ≥ 0 mm and a fall-off > 0 mm, got {margin:g} and {falloff:g}.")
    distance = ndimage.distance_transform_edt(~target, sampling=tissue.grid.voxel_size)
    where = (tissue.head if shown is None else shown) | target
    return np.asarray(np.where(where, np.exp(-np.maximum(distance - margin, 0) / falloff), 0.0))


def dose_around(
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


@dataclass(frozen=True, eq=False)
class PhaseDose:
    """What one phase of a course gives: total dose of the phase, Gy, in so many fractions, and its prescription, Gy."""

    phase: TargetPhase
    dose: DoseMap
    fractions: int
    prescription: float


def phase_doses(
    targets: Sequence[tuple[TargetPhase, BoolArray]],
    tissue: TissueMap,
    prescription: float,
    fractions: int,
    *,
    shape: Callable[[BoolArray, TissueMap], NDArray[np.float64]] = relative_dose,
) -> tuple[PhaseDose, ...]:
    """Return the dose of every phase that gets a fraction, all at the same prescribed dose per fraction.

    Parameters
    ----------
    targets
        From `hybridtumor.targets.clinical_targets`.
    prescription, fractions
        Of the whole course: total dose, Gy, and number of fractions.
    shape
        Maps a target to the dose around it as a fraction of the prescription.

    Raises
    ------
    InputError
        As `relative_dose`; fewer than one fraction.
    """
    result = []
    counts = split_fractions(fractions, [phase for phase, _ in targets])
    for (phase, target), count in zip(targets, counts, strict=True):
        if count:
            part = prescription * (count / fractions)
            dose = DoseMap((part * shape(target, tissue)).astype(np.float32), tissue.grid)
            result.append(PhaseDose(phase, dose, count, part))
    return tuple(result)


def summed_relative_dose(
    targets: Sequence[tuple[TargetPhase, BoolArray]],
    tissue: TissueMap,
    *,
    margin: float = PLANNING_MARGIN,
    falloff: float = FALL_OFF,
) -> NDArray[np.float64]:
    """Return the total dose of all phases as a fraction of the prescription: Σ_k w_k s_k, in [0, 1]."""
    total = np.zeros(tissue.grid.shape)
    for phase, target in targets:
        total += phase.share * relative_dose(target, tissue, margin=margin, falloff=falloff)
    return total


def integrated_boost(base: NDArray[np.float64], boost: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Return the shape of a course with a simultaneous integrated boost: the larger of both shapes in every voxel.

    Parameters
    ----------
    base, boost
        Relative doses around the target and around that of the boost, 1 inside; see `relative_dose`.
    ratio
        Dose in the boost over the prescription, at least 1.

    Raises
    ------
    InputError
        Shapes that differ, a ratio below 1.
    """
    if base.shape != boost.shape:
        raise InputError(f"boost: expected a base of the boost's shape {boost.shape}, got {base.shape}.")
    if not (ratio >= 1 and np.isfinite(ratio)):
        raise InputError(f"boost: expected at least the prescription, got {ratio:g} times it.")
    return np.asarray(np.maximum(base, ratio * boost))
