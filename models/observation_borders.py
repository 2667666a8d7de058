r"""What a segmentation says about the tumour cell density when its borders are drawn wrong by some millimetres.

The front of a wave is close to a logistic, so the logit of its density falls evenly with the distance, by 1/λ per mm.
A border that is drawn δ mm too far out is then an error of δ/λ in the logit, everywhere along a front:

    P(inside) = σ((s(n) − s(τ))/w),      s(n) = ln (n + ε)/(1 − n + ε)

once for the whole tumour (τ_e, w_e) and once for the core (τ_c, w_c). A logistic error of the border with the
standard deviation δ has w = √3 δ/(π λ). Both thresholds and both blurs are unknowns of the term's own: a blur that is
fixed would make the data speak of λ through the raggedness of the masks. In a model of spherical fronts, intervals of
90 % held D, ρ and the thresholds in 98 to 100 % of 60 twins whose borders wandered by 1 mm, and in 92 to 100 % of 40
with 0.5 mm; with the blur fixed in density, and the same m, D in 35 % and τ_e in 10 % of 20 twins. Voxels far outside
count for nothing, σ(s(0) − s(τ)) ≈ 0.

Errors of a border are alike within a correlation length ℓ along it and, being shifts, all across it. One datum is the
patch 2πℓ² times the depth πδ/√3 over which voxels are uncertain: then the information on where a straight border lies,
∫ p (1 − p) ds / (w λ)² = π/(√3 δ) per area from voxels, is that of one shift, 1/δ², per patch.

    m = 2πℓ² · π δ/√3 / (volume of a voxel),        at least 1
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.models.observation import (
    Array,
    Misfit,
    Voxels,
    check_density,
    check_term,
    growth_rows,
    own_value,
)
from hybridtumor.models.observation_labels import (
    CORRELATION_LENGTH,
    THRESHOLD_EDEMA,
    THRESHOLD_ENHANCING,
    check_masks,
    drawn_voxels,
)
from hybridtumor.scan import LabelMap

BLUR_EDEMA, BLUR_ENHANCING = "blur_edema", "blur_enhancing"

BORDER_ERROR = 1.0
"""δ, mm. About one voxel, which is how well a border is known that is drawn by hand. A convention, not measured."""

FAINT = 1e-3
"""ε. Fractions of cells and of room that make no difference; the logit stays finite."""

SLACK = 1e-2
"""Density may leave [0, 1] by so much, which is taken for 0 or 1."""

MARGIN = 10.0
"""mm. Voxels farther from the tumour are left out; they would count for nothing."""


@dataclass(frozen=True, eq=False)
class Borders:
    """Whole tumour, and core if it is known, with borders that are off by some millimetres.

    Parameters
    ----------
    day
        Day of the scan.
    voxels
        Flat numbers (C order) of the k voxels in the patient's grid, (k,).
    whole
        Whether a voxel is in the tumour, (k,).
    core
        Whether it is in the core, (k,); None: not known.
    voxels_per_datum
        m ≥ 1; see `border_voxels_per_datum`.

    Raises
    ------
    InputError
        Arrays that do not fit together, a core that leaves the tumour, or m < 1.
    """

    day: float
    voxels: Voxels
    whole: BoolArray
    core: BoolArray | None = None
    voxels_per_datum: float = 1.0

    def __post_init__(self) -> None:
        check_term("segmentation", self.day, self.voxels, self.voxels_per_datum)
        check_masks(self.voxels, self.whole, self.core)

    @classmethod
    def from_labels(
        cls,
        labels: LabelMap,
        brain: BoolArray,
        day: float,
        *,
        core: bool = True,
        around: BoolArray | None = None,
        margin: float = MARGIN,
        border_error: float = BORDER_ERROR,
        correlation_length: float = CORRELATION_LENGTH,
    ) -> "Borders":
        """Take the voxels of the brain in the tumour and within a margin around it.

        Parameters
        ----------
        labels
            Segmentation on the patient's grid.
        brain
            Where cells can live, shape ``labels.grid.shape``.
        day
            Day of the scan.
        core
            Whether the labels tell the core: enhancing and necrosis.
        around
            Region that counts as well, and around which there is the same margin: where the tumour was on another
            day, so that a tumour that went away is seen as gone.
        margin
            mm.
        border_error
            δ, mm.
        correlation_length
            ℓ of the errors along the border, mm.

        Raises
        ------
        InputError
            Arrays that do not fit, a margin that is negative, or no tumour and no region around which to look.
        """
        voxels = drawn_voxels(labels, brain, around, margin)
        return cls(
            float(day),
            voxels,
            labels.mask().ravel()[voxels],
            labels.mask("necrosis", "enhancing").ravel()[voxels] if core else None,
            border_voxels_per_datum(correlation_length, border_error, labels.grid.voxel_volume),
        )

    @property
    def own(self) -> tuple[str, ...]:
        """Names of thresholds and blurs."""
        whole = (THRESHOLD_EDEMA, BLUR_EDEMA)
        return whole if self.core is None else (*whole, THRESHOLD_ENHANCING, BLUR_ENHANCING)

    def misfit(self, density: Array, own: Mapping[str, float]) -> Misfit:
        """Return minus the log-likelihood of a density (k,) and its slopes."""
        s, rise = self._logit(density)
        value, slope, found = 0.0, np.zeros(self.voxels.size), {}
        for threshold, blur, mask in self._masks():
            τ, w = own_value(own, threshold), own_value(own, blur)
            z = (s - float(logit(τ))) / w
            error = (special.expit(z) - mask) / self.voxels_per_datum
            value += float(np.sum(np.logaddexp(0, np.where(mask, -z, z)))) / self.voxels_per_datum
            slope += error / w * rise
            found[threshold] = -float(error.sum()) / w * float(logit_slope(τ))
            found[blur] = -float(error @ z) / w
        return Misfit(value, slope, found)

    def information(self, density: Array, own: Mapping[str, float], jacobian: Array, names: Sequence[str]) -> Array:
        """Return the Fisher information (p, p) of the parameters `names`; see `hybridtumor.models.observation`."""
        s, rise = self._logit(density)
        growth = growth_rows(jacobian, names, self.own, self.voxels.size) * rise
        result = np.zeros((len(names), len(names)))
        for threshold, blur, _ in self._masks():
            τ, w = own_value(own, threshold), own_value(own, blur)
            z = (s - float(logit(τ))) / w
            rows = growth.copy()
            for i, name in enumerate(names):
                if name == threshold:
                    rows[i] = -float(logit_slope(τ))
                elif name == blur:
                    rows[i] = -z
            weight = special.expit(z) * special.expit(-z) / (w**2 * self.voxels_per_datum)
            result += (rows * weight) @ rows.T
        return result

    def _masks(self) -> list[tuple[str, str, BoolArray]]:
        """Return each mask with the names of its threshold and its blur."""
        masks = ((THRESHOLD_EDEMA, BLUR_EDEMA, self.whole), (THRESHOLD_ENHANCING, BLUR_ENHANCING, self.core))
        return [(threshold, blur, mask) for threshold, blur, mask in masks if mask is not None]

    def _logit(self, density: Array) -> tuple[Array, Array]:
        """Return s(n) and its slope."""
        n = check_density(density, self.voxels.size)
        if n.min() < -SLACK or n.max() > 1 + SLACK:
            raise InputError(f"density: expected values in [0, 1], got {n.min():.4g} to {n.max():.4g}.")
        within = np.clip(n, 0, 1)
        return logit(within), logit_slope(within)


def logit(density: Array | float) -> Array:
    """Return s(n) = ln (n + ε)/(1 − n + ε)."""
    n = np.asarray(density, np.float64)
    return np.log((n + FAINT) / (1 - n + FAINT))


def logit_slope(density: Array | float) -> Array:
    """Return ds/dn."""
    n = np.asarray(density, np.float64)
    return 1 / (n + FAINT) + 1 / (1 - n + FAINT)


def border_voxels_per_datum(correlation_length: float, border_error: float, voxel_volume: float) -> float:
    """Return m = 2πℓ² π δ/√3 over the volume of a voxel, at least 1.

    Parameters
    ----------
    correlation_length
        ℓ along the border, mm.
    border_error
        δ, mm.
    voxel_volume
        mm³ (`Grid.voxel_volume`).

    Raises
    ------
    InputError
        A length or an error that is negative, or a volume that is not positive.
    """
    if not (correlation_length >= 0 and border_error >= 0 and voxel_volume > 0):
        raise InputError(
            "border: expected lengths that are not negative and a positive volume,"
            f" got {correlation_length:g} mm, {border_error:g} mm and {voxel_volume:g} mm³."
        )
    patch, depth = 2 * math.pi * correlation_length**2, math.pi / math.sqrt(3) * border_error
    return max(1.0, patch * depth / voxel_volume)
