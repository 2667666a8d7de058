r"""What generated images say of the tumour: extent of labels, implied density, response to dose.

    volume error = V/V_reference − 1
    correlation  = corr(S(x), n) inside the region
    Spearman     = rank correlation of dose and implied burden; −1 when more dose always leaves less
    violations   = share of dose steps over which the implied burden rises
    slope        = least squares of the implied burden on that of the fields; 1 when images say what the fields say
    relative slope = the same of both burdens over those of dose 0: what is left of it does not know how much of a
                   tumour S reads on the patient's own scan, which no dose has changed

S is any estimator of density from images, but never the one that steers them
(`hybridtumor.models.density_estimator`: S_B measures, S_A steers).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray

Array = NDArray[np.floating[Any]]
DensityEstimator = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Images (4, x, y, z), normalised → cell density (x, y, z)."""


@dataclass(frozen=True)
class DoseResponse:
    """A series of doses with the same noise; see the module's equations."""

    spearman: float
    violations: float
    slope: float
    relative_slope: float


def volume_error(mask: BoolArray, reference: BoolArray) -> float:
    """Return the relative error of a volume; NaN where the reference is empty."""
    there = np.count_nonzero(reference)
    return np.count_nonzero(mask) / there - 1 if there else float("nan")


def density_agreement(implied: Array, density: Array, mask: BoolArray) -> tuple[float, float]:
    """Return correlation and root-mean-square difference of two densities inside a mask.

    The correlation is NaN where one of them is constant.
    """
    a, b = (np.asarray(values[mask], np.float64) for values in (implied, density))
    if not a.size:
        raise InputError("density: expected a region of at least one voxel, got an empty one.")
    correlation = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")
    return correlation, float(np.sqrt(np.mean((a - b) ** 2)))


def dose_response(doses: Sequence[float], implied: Sequence[float], field: Sequence[float]) -> DoseResponse:
    """Return how the burden that images imply follows the dose and the burden of the fields.

    Parameters
    ----------
    doses
        Gy, strictly rising, at least three.
    implied, field
        Burden of the images and of the fields at each dose, in one unit.

    Raises
    ------
    InputError
        Fewer than three doses, doses that do not rise, or fields that do not respond.
    """
    d, seen, meant = (np.asarray(values, float) for values in (doses, implied, field))
    if not (d.shape == seen.shape == meant.shape) or d.size < 3 or (np.diff(d) <= 0).any():
        raise InputError("dose response: expected at least three rising doses with a burden each, got something else.")
    if np.ptp(meant) == 0:
        raise InputError("dose response: expected fields whose burden depends on the dose, got the same at every dose.")
    rank = float(stats.spearmanr(d, seen).statistic) if np.ptp(seen) > 0 else float("nan")
    slope = float(np.polyfit(meant, seen, 1)[0])
    relative = slope * meant[0] / seen[0] if seen[0] > 0 else float("nan")
    return DoseResponse(rank, float((np.diff(seen) > 0).mean()), slope, float(relative))
