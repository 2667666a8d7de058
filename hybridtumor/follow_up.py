"""FollowUp: the predicted scans of one arm, day by day."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.scan import LabelMap

Array = NDArray[np.float32]

Statistic = Literal["sample", "mean", "std"]
"""What an image is of its ensemble: its first sample, the mean, or the standard deviation over all samples."""


def told(statistic: Statistic, samples: int) -> str:
    """Return in words what an image of an ensemble of that many samples is."""
    if statistic == "sample":
        return "the only sample" if samples == 1 else f"one of {samples} samples"
    of = "mean of" if statistic == "mean" else "standard deviation over"
    return f"{of} {samples} {'sample' if samples == 1 else 'samples'}"


@dataclass(frozen=True, eq=False)
class FollowUpVisit:
    """The predicted scans of one day, on the patient's grid, scanner units.

    Parameters
    ----------
    day
        Days since the baseline scan.
    images
        Modality to the first sample: what a scan could look like.
    mean, std
        Modality to mean and standard deviation over the samples; the standard deviation is 0 outside the mask and for
        one sample.
    labels
        Segmentation of the mean over the samples; outside the mask the patient's own, carried along.
    mask
        M in [0, 1]: where the tumour may look different, and where samples may differ.
    moved
        Where the tissue is not where it was on day 0; None without mechanics. Outside `mask` the images are the
        baseline scan carried along, and outside `mask` and `moved` they are the baseline scan bit for bit.
    """

    day: float
    images: Mapping[str, Array]
    mean: Mapping[str, Array]
    std: Mapping[str, Array]
    labels: LabelMap
    mask: Array
    moved: BoolArray | None = None


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Predicted visits of one arm, in order of time, on the patient's grid."""

    grid: Grid
    visits: tuple[FollowUpVisit, ...]

    @property
    def days(self) -> tuple[float, ...]:
        """The days of the visits."""
        return tuple(visit.day for visit in self.visits)

    def at(self, day: float) -> FollowUpVisit:
        """Return the visit of a day.

        Raises
        ------
        InputError
            There is no visit on that day.
        """
        for visit in self.visits:
            if visit.day == day:
                return visit
        raise InputError(f"follow-up: expected a day among {self.days}, got {day}.")
