r"""What a plan may achieve and what it may cost: tumour control, complications, response, coverage.

    surviving cells   N = c Σ_voxels u₀ e^{−L} V,         TCP = e^{−N}
    complications     NTCP = Φ((gEUD − TD50) / (m TD50)),  gEUD with a = 1/n, of EQD2 with α/β = 3 Gy

u₀ is the density of day 0 as a fraction of the carrying capacity c, L the log-kill of everything given, V the volume of
a voxel; cells that grow in between are not counted, so that N is what is left of the cells of day 0. Poisson model of
control: Munro & Gilbert, Br. J. Radiol. 1961. Complications: Lyman, Radiat. Res. Suppl. 1985, with the reduction of
Kutcher & Burman, Int. J. Radiat. Oncol. Biol. Phys. 1989. Response categories and times are those of the model's tumour
volume, never a clinical RANO assessment; coverage at equal volume after PREDICT-GBM (arXiv 2509.13360).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy.special import ndtr

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray

Category = Literal["CR", "PR", "SD", "PD"]

CARRYING_CAPACITY = 7.5e5
"""cells/mm³ at density 1; value in common use."""

LATE_REPAIR_HALF_TIME = 4 / 24
"""days. Half-time of repair in late-responding tissue where repair is accounted for at all; a value in common use."""

LATE_ALPHA_BETA = 3.0
"""Gy. α/β of late effects in normal brain (QUANTEC: Lawrence et al., Int. J. Radiat. Oncol. Biol. Phys. 2010)."""

PROGRESSION_GROWTH = 1.4
"""Volume over its smallest so far that counts as progression: +40 %, the volumetric threshold of RANO 2.0."""

RESPONSE_SHRINKAGE = 0.65
"""Loss of the volume of day 0 that counts as partial response: −65 %, the volumetric threshold of RANO 2.0."""

MEASURABLE_VOLUME = 1000.0
"""mm³. A smaller tumour does not count as progression: a cube of 10 mm, after RANO's 10 mm × 10 mm."""


@dataclass(frozen=True)
class Tolerance:
    """How an organ tolerates dose in 2 Gy fractions.

    Parameters
    ----------
    n
        Volume effect: 0 the hottest point counts, 1 the mean dose.
    m
        Width of the rise with dose, relative to `td50`.
    td50
        Dose to the whole organ that harms half of the patients, Gy.
    endpoint
        The complication.
    """

    n: float
    m: float
    td50: float
    endpoint: str


TOLERANCES = MappingProxyType(
    {
        "Brain": Tolerance(0.25, 0.15, 60.0, "necrosis or infarction"),
        "Brainstem": Tolerance(0.16, 0.14, 65.0, "necrosis or infarction"),
        "OpticChiasm": Tolerance(0.25, 0.14, 65.0, "blindness"),
        "OpticNrv": Tolerance(0.25, 0.14, 65.0, "blindness"),
        "Lens": Tolerance(0.30, 0.27, 18.0, "cataract that needs surgery"),
        "Retina": Tolerance(0.20, 0.19, 65.0, "blindness"),
    }
)
"""TG-263 name without its side to the fit of Burman et al., Int. J. Radiat. Oncol. Biol. Phys. 21:123, 1991.

They fit the clinicians' estimates of Emami et al. (same issue), which are older than conformal radiotherapy; QUANTEC
finds the brain more tolerant. n and m of the retina: value in common use.
"""


def surviving_cells(
    density: FloatArray, log_kill: FloatArray, voxel_volume: float, capacity: float = CARRYING_CAPACITY
) -> float:
    """Return how many of the cells of day 0 survive a log-kill.

    Parameters
    ----------
    density
        Of day 0, fraction of carrying capacity.
    log_kill
        L of everything given, same shape, not negative.
    voxel_volume
        mm³.
    capacity
        Carrying capacity, cells/mm³.

    Raises
    ------
    InputError
        Shapes that differ.
    """
    if density.shape != log_kill.shape:
        raise InputError(f"control: expected arrays of one shape, got {density.shape} and {log_kill.shape}.")
    where = density > 0
    left = density[where].astype(np.float64) * np.exp(-log_kill[where].astype(np.float64))
    return float(left.sum() * voxel_volume * capacity)


def tcp(density: FloatArray, log_kill: FloatArray, voxel_volume: float, capacity: float = CARRYING_CAPACITY) -> float:
    """Return the probability that no cell of day 0 survives, in [0, 1]; parameters as `surviving_cells`."""
    return float(np.exp(-surviving_cells(density, log_kill, voxel_volume, capacity)))


def tolerance_of(structure: str) -> Tolerance | None:
    """Return the tolerance of a structure by its TG-263 name, None where there is no parameter for it.

    A side (``_L``, ``_R``), capitals and what a target is cut out of (``Brain-GTV``) make no difference. A planning
    organ-at-risk volume (``Brainstem_PRV03``) is not the organ, nor is the eye the retina: they have none.
    """
    name = re.sub(r"-(gtv|ctv|ptv)\w*$|_[lr]$", "", structure.lower())
    return next((tolerance for organ, tolerance in TOLERANCES.items() if organ.lower() == name), None)


def ntcp(equivalent_dose: float, tolerance: Tolerance) -> float:
    """Return the probability of the complication, in [0, 1], at a gEUD with a = 1/n of EQD2, Gy."""
    return float(ndtr((equivalent_dose - tolerance.td50) / (tolerance.m * tolerance.td50)))


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
        if _progressed(volumes, i):
            before, after = volumes[i - 1], volumes[i]
            share = max(0.0, (_threshold(volumes, i) - before) / (after - before))
            return float(days[i - 1] + share * (days[i] - days[i - 1]))
    return None


def response_categories(volumes: Sequence[float]) -> list[Category]:
    """Return the volumetric category of every day after the first: a model output, not a clinical RANO assessment.

    ``PD``: 1.4 times the smallest volume before that day, day 0 included, and at least `MEASURABLE_VOLUME`; ``CR``:
    nothing left to see; ``PR``: at most 35 % of the volume of day 0; ``SD``: else. Every day is judged by itself, so
    that a swelling by damaged cells which recedes is not progression for good; the first ``PD`` is the one that
    `time_to_progression` dates.

    Parameters
    ----------
    volumes
        Tumour volume on the days, the first of them day 0, mm³.
    """
    return [_category(volumes, i) for i in range(1, len(volumes))]


def coverage(recurrence: BoolArray, target: BoolArray) -> float | None:
    """Return which share of a recurrence lies in a target, in [0, 1]; None when nothing has recurred."""
    if recurrence.shape != target.shape:
        raise InputError(f"coverage: expected masks of one shape, got {recurrence.shape} and {target.shape}.")
    total = np.count_nonzero(recurrence)
    return float(np.count_nonzero(recurrence & target) / total) if total else None


def iso_volume_region(score: FloatArray, voxels: int, domain: BoolArray) -> BoolArray:
    """Return the voxels of a domain with the highest score, as many as asked for.

    Parameters
    ----------
    score
        What the region follows, such as the model's density.
    voxels
        How many; of voxels with the same score the first in the order of the array are taken.
    domain
        Where the region may lie.

    Raises
    ------
    InputError
        The domain has fewer voxels, or another shape.
    """
    places = np.flatnonzero(domain)
    if score.shape != domain.shape or not 0 <= voxels <= places.size:
        raise InputError(
            f"coverage: expected at most the {places.size} voxels of a domain of the score's shape {score.shape},"
            f" got {voxels} voxels in shape {domain.shape}."
        )
    region = np.zeros(domain.shape, bool)
    if voxels:
        values = score.ravel()[places]
        least = np.partition(values, values.size - voxels)[values.size - voxels]
        above, ties = places[values > least], places[values == least]
        region.ravel()[np.concatenate([above, ties[: voxels - above.size]])] = True
    return region


def _threshold(volumes: Sequence[float], i: int) -> float:
    return max(PROGRESSION_GROWTH * min(volumes[:i]), MEASURABLE_VOLUME)


def _progressed(volumes: Sequence[float], i: int) -> bool:
    return volumes[i] > min(volumes[:i]) and volumes[i] >= _threshold(volumes, i)


def _category(volumes: Sequence[float], i: int) -> Category:
    if _progressed(volumes, i):
        return "PD"
    if volumes[i] == 0:
        return "CR"
    return "PR" if volumes[i] <= (1 - RESPONSE_SHRINKAGE) * volumes[0] else "SD"
