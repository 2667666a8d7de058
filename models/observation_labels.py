r"""What a segmentation says about the tumour cell density: a border drawn by hand is a level of density, blurred.

A voxel is drawn into the tumour the more surely, the more its density n exceeds the threshold τ of the image:

    P(inside) = σ((n − τ)/w),   −ln L = (1/m) Σ ln(1 + e^z) − y z,   z = (n − τ)/w

with y = 1 inside the mask, once for the whole tumour (FLAIR, τ_e) and once for the core (T1ce: enhancement and
necrosis, τ_c); a Bernoulli product over the two masks after Lipková et al., IEEE Trans. Med. Imaging 2019. The
thresholds are unknowns of the term's own. m as in `hybridtumor.models.observation`.

The error is one of density here, the same at a sharp border and at a blurred one. Where masks are drawn wrong by some
millimetres, `hybridtumor.models.observation_borders` is the term whose intervals hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

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
    voxels_per_datum,
)
from hybridtumor.scan import LabelMap

THRESHOLD_EDEMA, THRESHOLD_ENHANCING = "threshold_edema", "threshold_enhancing"

WIDTH = 0.05
"""w, density. Across the front of default width, 2.3 mm, density changes by n(1 − n)/2.3 = 0.07 to 0.1 per mm at the
thresholds 0.2 and 0.6; the logistic's standard deviation 1.8 w is then about one voxel of 1 mm, which is how well a
border is known that is drawn by hand. A convention, not a measurement.
"""

MARGIN = 5.0
"""mm. Voxels farther from the tumour are left out; see `Segmentation.from_labels`."""

CORRELATION_LENGTH = 2.0
"""ℓ, mm, of the errors of a border: two voxels of 1 mm. A convention, not a measurement."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Whole tumour, and core if it is known, as they were drawn.

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
    width
        w, in units of density.
    voxels_per_datum
        m ≥ 1; see `voxels_per_datum`.

    Raises
    ------
    InputError
        Arrays that do not fit together, a core that leaves the tumour, a width that is not positive or m < 1.
    """

    day: float
    voxels: Voxels
    whole: BoolArray
    core: BoolArray | None = None
    width: float = WIDTH
    voxels_per_datum: float = 1.0

    def __post_init__(self) -> None:
        check_term("segmentation", self.day, self.voxels, self.voxels_per_datum)
        check_masks(self.voxels, self.whole, self.core)
        if not 0 < self.width < 1:
            raise InputError(f"segmentation: expected a width between 0 and 1 (density), got {self.width:g}.")

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
        width: float = WIDTH,
        correlation_length: float = CORRELATION_LENGTH,
    ) -> "Segmentation":
        """Take the voxels of the brain in the tumour and within a margin around it.

        Voxels far outside hold no cells in any sensible model and say nothing about growth. They would still draw the
        threshold: at n = 0 the model draws σ(−τ/w) = 2 % of them into the tumour, nobody ever does, and the more of
        them there are, the higher τ rises. For spherical fronts 1.5 to 7 mm wide whose borders are drawn 1 mm wrong,
        the most likely τ_e is 0.21 to 0.22 with a margin of 5 mm and 0.25 to 0.31 with 60 mm, where 0.20 is true.

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
        width
            w, in units of density.
        correlation_length
            ℓ of the errors, mm.

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
            width,
            voxels_per_datum(correlation_length, labels.grid.voxel_size),
        )

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the thresholds."""
        return (THRESHOLD_EDEMA,) if self.core is None else (THRESHOLD_EDEMA, THRESHOLD_ENHANCING)

    def misfit(self, density: Array, own: Mapping[str, float]) -> Misfit:
        """Return minus the log-likelihood of a density (k,) and its slopes."""
        value, slope, thresholds = 0.0, np.zeros(self.voxels.size), {}
        for name, mask in self._masks():
            z = self._excess(density, own, name)
            part = (special.expit(z) - mask) / (self.width * self.voxels_per_datum)
            value += float(np.sum(np.logaddexp(0, np.where(mask, -z, z)))) / self.voxels_per_datum
            slope += part
            thresholds[name] = -float(part.sum())
        return Misfit(value, slope, thresholds)

    def information(self, density: Array, own: Mapping[str, float], jacobian: Array, names: Sequence[str]) -> Array:
        """Return the Fisher information (p, p) of the parameters `names`; see `DataTerm`."""
        growth = growth_rows(jacobian, names, self.own, self.voxels.size)
        result = np.zeros((len(names), len(names)))
        for name, _ in self._masks():
            z = self._excess(density, own, name)
            rows = growth.copy()
            rows[[i for i, n in enumerate(names) if n == name]] = -1.0
            weight = special.expit(z) * special.expit(-z) / (self.width**2 * self.voxels_per_datum)
            result += (rows * weight) @ rows.T
        return result

    def _masks(self) -> list[tuple[str, BoolArray]]:
        """Return each mask with the name of its threshold."""
        masks = {THRESHOLD_EDEMA: self.whole, THRESHOLD_ENHANCING: self.core}
        return [(name, mask) for name, mask in masks.items() if mask is not None]

    def _excess(self, density: Array, own: Mapping[str, float], name: str) -> Array:
        """Return z = (n − τ)/w."""
        return (check_density(density, self.voxels.size) - own_value(own, name)) / self.width


def drawn_voxels(labels: LabelMap, brain: BoolArray, around: BoolArray | None, margin: float) -> Voxels:
    """Return flat numbers of the voxels of the brain in a tumour or region and within a margin (mm) around it.

    Raises
    ------
    InputError
        As `Segmentation.from_labels`.
    """
    region = labels.mask() if around is None else labels.mask() | _fitting(around, labels.grid.shape, "region")
    inside = _fitting(brain, labels.grid.shape, "brain")
    if not margin >= 0:
        raise InputError(f"segmentation: expected a margin that is not negative, got {margin:g} mm.")
    if not (region & inside).any():
        raise InputError(
            "segmentation: expected a tumour inside the brain, found none. Say around which region to look."
        )
    distance = ndimage.distance_transform_edt(~region, sampling=labels.grid.voxel_size)
    return np.flatnonzero((distance <= margin) & inside).astype(np.int64)


def check_masks(voxels: Voxels, whole: BoolArray, core: BoolArray | None) -> None:
    """Refuse masks that do not fit voxels, or a core that leaves the tumour."""
    for name, mask in (("tumour", whole), ("core", core)):
        if mask is not None and (mask.shape != voxels.shape or mask.dtype != np.bool_):
            raise InputError(
                f"segmentation: expected one truth value of the {name} for each of {voxels.size} voxels,"
                f" got {mask.dtype} of shape {mask.shape}."
            )
    if core is not None and (core & ~whole).any():
        raise InputError("segmentation: expected the core inside the whole tumour. Mend the masks.")


def _fitting(mask: BoolArray, shape: tuple[int, int, int], name: str) -> BoolArray:
    if mask.shape != shape:
        raise InputError(f"{name}: expected a mask of the grid's shape {shape}, got {mask.shape}.")
    return np.asarray(mask, np.bool_)
