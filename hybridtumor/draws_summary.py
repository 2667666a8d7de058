r"""What draws come to: medians, intervals, and how often one plan beats another.

    P(B beats A) = (1/K) #{k : burden_B⁽ᵏ⁾ < burden_A⁽ᵏ⁾ on the last day}

with the interval of Wilson (J. Am. Stat. Assoc. 1927) for the error of K draws, and the quantiles of the paired
difference burden_B⁽ᵏ⁾ − burden_A⁽ᵏ⁾. All intervals are of 90 %: from the 5 % to the 95 % quantile.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.draws import ArmDraw, Draw, DrawSetting

LEVELS = (0.05, 0.5, 0.95)
NAMES = ("low", "median", "high")

NORMAL_95 = 1.6448536269514722
"""95 % quantile of the normal distribution."""

STATEMENT = (
    "The intervals hold the uncertainty of the calibrated parameters alone, given the model, its priors and the day-0"
    " density: neither errors of the model, of the images or of the plan, nor the chances of a course of disease."
    " Research use only."
)

STEEP = 0.5
"""Width of a front over that of the estimate's below which the estimate's mesh is called too coarse for a draw."""

Figures = dict[str, Any]


def draws_figures(draws: Sequence[Draw], setting: DrawSetting, seed: int) -> Figures:
    """Return what ``draws.json`` holds: per arm quantiles of burden, volume and progression; every pair of arms.

    Parameters
    ----------
    draws
        At least one.
    setting
        What they have in common.
    seed
        Of the draws.
    """
    arms = {name: [arms[name] for _, arms in draws] for name in setting.plans}
    return {
        "draws": len(draws),
        "seed": seed,
        "interval": 0.9,
        "statement": STATEMENT,
        "notes": _notes(draws, setting),
        "days": list(setting.days),
        "arms": {name: _arm(found, setting) for name, found in arms.items()},
        "pairs": [_pair(a, arms[a], b, arms[b]) for a, b in combinations(arms, 2)],
    }


def quantiles(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return the quantiles over draws, the first axis."""
    return {name: _rounded(found) for name, found in zip(NAMES, np.quantile(values, LEVELS, axis=0), strict=True)}


def times(days: Sequence[float | None]) -> dict[str, float | None]:
    """Return the quantiles of days over draws, where None is a day that has not come: each is one of the days."""
    known = np.quantile([math.inf if day is None else day for day in days], LEVELS, method="inverted_cdf")
    return {name: None if math.isinf(day) else round(float(day), 4) for name, day in zip(NAMES, known, strict=True)}


def wilson(successes: int, trials: int, z: float = NORMAL_95) -> tuple[float, float]:
    """Return Wilson's interval of a probability; z = 1.645 for 90 %."""
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _notes(draws: Sequence[Draw], setting: DrawSetting) -> list[str]:
    """Return what there is to say against the mesh, which is the estimate's for all draws."""
    least = STEEP * setting.growth.front_width
    steep = sum(setting.calibration.growth(setting.growth, values).front_width < least for values, _ in draws)
    if not steep:
        return []
    note = (
        f"{steep} of {len(draws)} draws have a front less than half as wide as the estimate's, for which the cells may"
        " be too large and the burden too high by some percent, in all arms alike. State smaller ones (--cell-size)."
    )
    return [note]


def _arm(draws: Sequence[ArmDraw], setting: DrawSetting) -> Figures:
    progression = [draw.progression for draw in draws]
    return {
        "burden_mm3": quantiles(np.array([draw.burden for draw in draws])),
        "volume_mm3": quantiles(np.array([draw.volume for draw in draws])),
        "time_to_progression_days": times(progression),
        "progressed": round(sum(day is not None for day in progression) / len(draws), 4),
        "burden_curve": {"days": _rounded(setting.curve_days), **quantiles(np.array([draw.curve for draw in draws]))},
    }


def _pair(first: str, of_first: Sequence[ArmDraw], second: str, of_second: Sequence[ArmDraw]) -> Figures:
    """Compare two arms draw by draw on the last day: the one that wins more often with the other."""
    difference = np.array([b.burden[-1] - a.burden[-1] for a, b in zip(of_first, of_second, strict=True)])
    less, more = int((difference < 0).sum()), int((difference > 0).sum())
    if more > less:
        return _pair(second, of_second, first, of_first)
    return {
        "arm": second,
        "against": first,
        "beats": round(less / len(difference), 4),
        "interval": [round(end, 4) for end in wilson(less, len(difference))],
        "beaten": round(more / len(difference), 4),
        "difference_mm3": quantiles(difference),
    }


def _rounded(values: NDArray[np.float64] | np.floating[Any]) -> Any:
    return np.round(values, 4).tolist()
