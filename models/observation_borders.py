r"""What a segmentation says about the tumour cell density when its borders are drawn wrong by some millimetres.

A border that is drawn δ mm too far out is an error of δ |∇s| in any function s of the density. Near a front, which is
close to a logistic of width λ, the logit falls evenly with the distance, |∇s| = 1/λ, so that is taken:

    P(inside) = σ(z),   z = (s(n) − s(τ))/√((w |∇s|)² + f²),   s(n) = ln (n + ε)/(1 − n + ε),   w = √3 δ/π

once for the whole tumour (τ_e) and once for the core (τ_c), both thresholds unknowns of the term's own. z is the
distance to the level n = τ in units of w, however steep the front is: without f data speak of where borders lie and of
nothing else. With a blur that is fixed in density, or in its logit, or that is one unknown for all visits, they also
speak of λ through the raggedness of the masks, and wrongly where treatment has changed the slopes
(docs/decisions/0017). f keeps flat regions near the threshold from being sure. Voxels far outside count for nothing.

The distance is of first order, too long inside a core that is flat on top: of 40 twins, 90 % intervals held D in 72 %,
the core's threshold in 78 % and everything else in 88 to 98 %.

Errors of a border are alike within a correlation length ℓ along it and, being shifts, all across it. One datum is the
patch 2πℓ² times the depth πδ/√3 over which voxels are uncertain: then the information on where a straight border lies,
∫ p (1 − p) dx / w² = π/(√3 δ) per area from voxels, is that of one shift, 1/δ², per patch.

    m = 2πℓ² · π δ/√3 / (volume of a voxel),        at least 1
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse, special

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
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

BORDER_ERROR = 1.0
"""δ, mm. About one voxel, which is how well a border is known that is drawn by hand. A convention, not measured."""

FAINT, FULL = 1e-3, 1e-2
"""ε. Fractions of cells and of room that make no difference; the logit stays finite. Cells and damaged cells together
may pass 1: 1 − n + ε is then FULL ln(1 + e^{(1 − n)/FULL}), which is the same below.
"""

FLAT = 0.05
"""f, logit of density: 0.01 around n = 0.3. Small against w/λ = 0.24 of a front of default width."""

SLACK, MOST = 1e-2, 2.0
"""Density may be negative by so much, which is taken for 0, and reach so much with the damaged cells."""

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
    differences
        Along each axis of the grid what makes ∂n/∂x, 1/mm, of values at the voxels, (k, k); see `differences_of`.
    border_error
        δ, mm.
    voxels_per_datum
        m ≥ 1; see `border_voxels_per_datum`.
    flat
        f, in the logit of density.

    Raises
    ------
    InputError
        Arrays that do not fit together, a core that leaves the tumour, errors that are not positive, or m < 1.
    """

    day: float
    voxels: Voxels
    whole: BoolArray
    core: BoolArray | None
    differences: tuple[sparse.csr_array, ...]
    border_error: float = BORDER_ERROR
    voxels_per_datum: float = 1.0
    flat: float = FLAT

    def __post_init__(self) -> None:
        check_term("segmentation", self.day, self.voxels, self.voxels_per_datum)
        check_masks(self.voxels, self.whole, self.core)
        if any(D.shape != (self.voxels.size,) * 2 for D in self.differences):
            raise InputError(f"segmentation: expected differences between {self.voxels.size} voxels.")
        if not (math.isfinite(self.border_error) and self.border_error > 0 and self.flat > 0):
            raise InputError(
                f"segmentation: expected positive errors, got {self.border_error:g} mm and {self.flat:g} of the logit."
            )

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
        flat: float = FLAT,
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
        flat
            f, in the logit of density.

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
            differences_of(voxels, labels.grid),
            border_error,
            border_voxels_per_datum(correlation_length, border_error, labels.grid.voxel_volume),
            flat,
        )

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the thresholds."""
        return (THRESHOLD_EDEMA,) if self.core is None else (THRESHOLD_EDEMA, THRESHOLD_ENHANCING)

    def misfit(self, density: Array, own: Mapping[str, float]) -> Misfit:
        """Return minus the log-likelihood of a density (k,) and its slopes."""
        front = self._front(density)
        value, by_logit, found = 0.0, np.zeros(self.voxels.size), {}
        for name, mask in self._masks():
            level = logit(np.array([own_value(own, name)]))
            z = (front.s - level.value) / front.v
            error = (special.expit(z) - mask) / self.voxels_per_datum
            value += float(np.sum(np.logaddexp(0, np.where(mask, -z, z)))) / self.voxels_per_datum
            by_logit += front.pulled(error, z)
            found[name] = -float(np.sum(error / front.v) * level.slope[0])
        return Misfit(value, by_logit * front.rise, found)

    def information(self, density: Array, own: Mapping[str, float], jacobian: Array, names: Sequence[str]) -> Array:
        """Return the Fisher information (p, p) of the parameters `names`; see `hybridtumor.models.observation`."""
        front = self._front(density)
        growth = growth_rows(jacobian, names, self.own, self.voxels.size) * front.rise
        result = np.zeros((len(names), len(names)))
        for name, _ in self._masks():
            level = logit(np.array([own_value(own, name)]))
            z = (front.s - level.value) / front.v
            rows = front.pushed(growth, z)
            rows[[i for i, n in enumerate(names) if n == name]] = -level.slope[0] / front.v
            weight = special.expit(z) * special.expit(-z) / self.voxels_per_datum
            result += (rows * weight) @ rows.T
        return result

    def _masks(self) -> list[tuple[str, BoolArray]]:
        """Return each mask with the name of its threshold."""
        masks = {THRESHOLD_EDEMA: self.whole, THRESHOLD_ENHANCING: self.core}
        return [(name, mask) for name, mask in masks.items() if mask is not None]

    def _front(self, density: Array) -> "_Front":
        """Return s(n), v and what they depend on."""
        n = check_density(density, self.voxels.size)
        if n.min() < -SLACK or n.max() > MOST:
            raise InputError(f"density: expected values in [0, {MOST:g}], got {n.min():.4g} to {n.max():.4g}.")
        s, w = logit(n), math.sqrt(3) / math.pi * self.border_error
        steep = tuple(w * (D @ s.value) for D in self.differences)
        v = np.sqrt(self.flat**2 + sum((part**2 for part in steep), np.zeros_like(n)))
        return _Front(s.value, s.slope, v, steep, tuple(w * D for D in self.differences))


@dataclass(frozen=True, eq=False)
class _Front:
    """s, ds/dn and v = √(f² + Σ (w ∂s)²) at k voxels, and what z = (s − s(τ))/v makes of slopes."""

    s: Array
    rise: Array
    v: Array
    steep: tuple[Array, ...]
    differences: tuple[sparse.csr_array, ...]

    def pulled(self, by_z: Array, z: Array) -> Array:
        """Return ∂/∂s, (k,), of what has the slope ∂/∂z."""
        result = by_z / self.v
        for D, part in zip(self.differences, self.steep, strict=True):
            result = result - D.T @ (by_z * z * part / self.v**2)
        return result

    def pushed(self, rows: Array, z: Array) -> Array:
        """Return ∂z/∂θ, (p, k), from ∂s/∂θ."""
        result = rows / self.v
        for D, part in zip(self.differences, self.steep, strict=True):
            result = result - (D @ rows.T).T * (z * part / self.v**2)
        return np.asarray(result)


@dataclass(frozen=True, eq=False)
class Logit:
    """s(n) and ds/dn."""

    value: Array
    slope: Array


def logit(density: Array) -> Logit:
    """Return s(n) = ln (n + ε)/(1 − n + ε) and its slope."""
    n = np.maximum(density, 0.0)
    room = (1 + FAINT - n) / FULL
    left = FULL * np.logaddexp(0, room)
    return Logit(np.log((n + FAINT) / left), 1 / (n + FAINT) + special.expit(room) / left)


def differences_of(voxels: Voxels, grid: Grid) -> tuple[sparse.csr_array, ...]:
    """Return along each axis of a grid what makes ∂/∂x, 1/mm, of values at k of its voxels, (k, k).

    Differences are central where both neighbours are among the voxels, else to the one that is; 0 where none is.
    """
    here = np.arange(voxels.size)
    number = np.full(math.prod(grid.shape), -1)
    number[voxels] = here
    places = np.stack(np.unravel_index(voxels, grid.shape))
    result = []
    for axis, size in enumerate(grid.voxel_size):
        ends = []
        for step in (-1, 1):
            there = places.copy()
            there[axis] = np.clip(there[axis] + step, 0, grid.shape[axis] - 1)
            found = number[np.ravel_multi_index(tuple(there), grid.shape)]
            ends.append(np.where(found >= 0, found, here))
        apart = sum((end != here).astype(float) for end in ends)
        weight = 1 / (np.maximum(apart, 1) * size)
        entries = (np.concatenate([-weight, weight]), (np.tile(here, 2), np.concatenate(ends)))
        result.append(sparse.csr_array(entries, shape=(voxels.size,) * 2))
    return tuple(result)


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
