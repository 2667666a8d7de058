"""Intervals over patients: percentile bootstrap of a mean (Efron & Tibshirani 1993, ch. 13).

Patients are drawn with replacement, not voxels and not scans: scans of one patient are averaged first. With n patients
there are only (2n−1)!/(n!(n−1)!) different resamples, 10 for n = 3, so the interval of a few patients is hardly more
than their range and of little worth; it is given, and marked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridtumor.errors import InputError

FEW = 10
"""Patients below which an interval is marked as of little worth."""


@dataclass(frozen=True)
class Interval:
    """Mean over patients with its interval.

    Parameters
    ----------
    mean, low, high
        Mean and the ends of the interval; equal for one patient, who has none.
    patients, cases
        How many patients, and how many cases of them.
    """

    mean: float
    low: float
    high: float
    patients: int
    cases: int

    @property
    def of_little_worth(self) -> bool:
        """Whether there are too few patients for the interval to mean much."""
        return self.patients < FEW


def interval(
    values: Mapping[str, Sequence[float]], *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Interval:
    """Return the mean over patients and its percentile bootstrap interval.

    Parameters
    ----------
    values
        Patient to the figures of his cases.
    level
        Level of the interval.
    resamples, seed
        How many resamples, and the seed that draws them: the same for every figure of as many patients.

    Raises
    ------
    InputError
        There is no patient, or a figure is not finite.
    """
    if not values or not all(len(found) for found in values.values()):
        raise InputError("bootstrap: expected at least one patient with a figure each, got none.")
    means = np.array([np.mean(found) for found in values.values()], float)
    if not np.isfinite(means).all():
        raise InputError("bootstrap: expected finite figures, got NaN or infinity. Leave out where it is not defined.")
    n = len(means)
    drawn = means[np.random.default_rng(seed).integers(n, size=(resamples, n))].mean(axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(means.mean()), float(low), float(high), n, sum(len(found) for found in values.values()))
