r"""Calibration of an ensemble x_1 … x_K against what was seen, y: voxel by voxel, then averaged by the caller.

    CRPS     = ⟨|x_i − y|⟩_i − ½ ⟨|x_i − x_j|⟩_{i≠j}                      fair: its mean does not depend on K
    spread²  = (K−1)/K s² + 2 v,   skill² = ⟨(x̄ − y)²⟩                    ratio 1 when calibrated
    coverage = P(x_(i) ≤ y ≤ x_(K+1−i)),  nominal (K + 1 − 2i)/(K + 1)
    rank     = number of members below y,  uniform on 0 … K when calibrated

(Ferro, Q. J. R. Meteorol. Soc. 2014, fair CRPS; Fortin et al., J. Hydrometeorol. 2014, spread and skill). s² is the
variance over the members (divided by K − 1), v the variance of the ensemble's mean; independent members have v = s²/K,
which gives spread² = (K+1)/K s².

*Antithetic pairs.* When members 2k and 2k+1 were drawn with opposite noise they are not independent: only differences
of members of different pairs enter the spread term of the CRPS, v is the variance of the pairs' means over K/2, and
coverage and ranks are those of the two halves {0, 2, 4 …} and {1, 3, 5 …}, which hold independent members, averaged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Coverage:
    """How often what was seen lies in an interval of the ensemble.

    Parameters
    ----------
    level
        The level that was asked for.
    nominal
        The level that order statistics of this many members have: nearest to the one asked for.
    observed
        Share of voxels inside.
    """

    level: float
    nominal: float
    observed: float


def crps(ensemble: Array, observed: Array, *, antithetic: bool = False) -> NDArray[np.float64]:
    """Return the fair continuous ranked probability score, shape of `observed`, in the unit of the image.

    Parameters
    ----------
    ensemble
        (K, …), K ≥ 2.
    observed
        (…).
    antithetic
        Members 2k and 2k+1 are a pair; then K has to be even and at least 4.

    Raises
    ------
    InputError
        Too few members, or shapes that do not match.
    """
    members = _members(ensemble, observed, antithetic=antithetic)
    error = np.abs(members - observed).mean(axis=0)
    return np.asarray(error - 0.5 * mean_difference(members, antithetic=antithetic), np.float64)


def mean_difference(members: Array, *, antithetic: bool = False) -> NDArray[np.float64]:
    """Return E|x − x'| over independent members x, x' of (K, …)."""
    k = len(members)
    ordered = np.sort(members, axis=0)
    rising = np.arange(1 - k, k, 2, dtype=ordered.dtype)
    total, count = np.tensordot(rising, ordered, 1), k * (k - 1) / 2
    if antithetic:
        total, count = total - np.abs(members[0::2] - members[1::2]).sum(axis=0), count - k / 2
    return np.asarray(total / count, np.float64)


def spread_skill(ensemble: Array, observed: Array, *, antithetic: bool = False) -> float:
    """Return the spread/skill ratio over all voxels: above 1 the ensemble is too wide, below 1 too narrow.

    Parameters and errors as in `crps`. Infinite where the mean is perfect.
    """
    members = _members(ensemble, observed, antithetic=antithetic)
    k = len(members)
    centre = members.mean(axis=0)
    variance = members.var(axis=0, ddof=1)
    pairs = 0.5 * (members[0::2] + members[1::2]) if antithetic else members
    of_mean = pairs.var(axis=0, ddof=1) / len(pairs)
    expected = float(((k - 1) / k * variance + 2 * of_mean).mean())
    error = float(((centre - observed) ** 2).mean())
    return float("inf") if error == 0 else float(np.sqrt(expected / error))


def nominal_coverage(members: int, level: float) -> tuple[int, float]:
    """Return i and the nominal coverage (K + 1 − 2i)/(K + 1) of [x_(i), x_(K+1−i)] nearest to `level`.

    No symmetric interval of K members covers more than (K − 1)/(K + 1): 0.78 for K = 8.
    """
    if members < 2 or not 0 < level < 1:
        raise InputError(f"coverage: expected at least 2 members and a level in (0, 1), got {members} and {level:g}.")
    choices = [(i, (members + 1 - 2 * i) / (members + 1)) for i in range(1, members // 2 + 1)]
    return min(choices, key=lambda choice: abs(choice[1] - level))


def coverage(ensemble: Array, observed: Array, level: float, *, antithetic: bool = False) -> Coverage:
    """Return how often the interval of a level covers what was seen; parameters and errors as in `crps`."""
    halves = _independent(_members(ensemble, observed, antithetic=antithetic), antithetic=antithetic)
    rank, nominal = nominal_coverage(len(halves[0]), level)
    shares = []
    for half in halves:
        ordered = np.sort(half, axis=0)
        shares.append(float(((ordered[rank - 1] <= observed) & (observed <= ordered[-rank])).mean()))
    return Coverage(level, nominal, float(np.mean(shares)))


def rank_histogram(ensemble: Array, observed: Array, *, antithetic: bool = False, seed: int = 0) -> NDArray[np.float64]:
    """Return the share of voxels at each rank, (K + 1,), or (K/2 + 1,) for antithetic pairs; ties fall at random."""
    rng = np.random.default_rng(seed)
    halves = _independent(_members(ensemble, observed, antithetic=antithetic), antithetic=antithetic)
    counts = np.zeros(len(halves[0]) + 1)
    for half in halves:
        below, equal = (half < observed).sum(axis=0), (half == observed).sum(axis=0)
        ranks = below + np.floor(rng.random(below.shape) * (equal + 1)).astype(int)
        counts += np.bincount(np.ravel(ranks), minlength=len(counts))
    return np.asarray(counts / counts.sum(), np.float64)


def unevenness(histogram: NDArray[np.float64]) -> float:
    """Return Σ|f_r − 1/(K+1)| of a rank histogram: 0 when flat, towards 2 when all is at one rank."""
    return float(np.abs(histogram - 1 / len(histogram)).sum())


def _independent(members: Array, *, antithetic: bool) -> list[Array]:
    return [members[0::2], members[1::2]] if antithetic else [members]


def _members(ensemble: Array, observed: Array, *, antithetic: bool) -> Array:
    """Return the members as an array after checking their number and shape."""
    k, least = len(ensemble), 4 if antithetic else 2
    if k < least or (antithetic and k % 2):
        wanted = "an even number of at least 4 members" if antithetic else "at least 2 members"
        raise InputError(f"ensemble: expected {wanted}, got {k}. Draw more samples.")
    if ensemble.shape[1:] != observed.shape or not observed.size:
        raise InputError(
            f"ensemble: expected members of the shape of what was seen, not empty; got {ensemble.shape[1:]} and"
            f" {observed.shape}."
        )
    return ensemble
