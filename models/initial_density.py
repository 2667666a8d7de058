r"""Tumour cell density on day 0 from a segmentation.

The borders of the segmentation are taken for level sets of the density n: τ_e at the border of the whole tumour,
τ_c at the border of the core, τ_n at the border of the necrosis inside an enhancing core (imaging thresholds τ,
`hybridtumor.parameters.ImagingThresholds`). With signed distances in mm, a from the outer border of a layer
(positive inside it) and b to its inner one,

    outside   n = τ_e exp(−d/λ)                        tail of the travelling wave, λ = √(D/ρ)
    oedema    n = τ_e + (τ_c − τ_e) a / (a + b)
    core      n = τ_c + (τ_n − τ_c) a / (a + b)        enhancing; all of it when nothing enhances, up to τ_top
    necrosis  n = τ_n + (τ_top − τ_n) (1 − exp(−a/λ))

A layer without an inner border saturates, 1 − exp(−a/λ) in place of a/(a + b). Necrosis that touches the border of
the core is rim up to a depth λ: density rises continuously from the border inwards. (Level sets after Lipková et
al., IEEE Trans. Med. Imaging 2019; the exponential tail is that of the Fisher–Kolmogorov wave, Murray, Mathematical
Biology.)
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.parameters import GrowthParameters, ImagingThresholds
from hybridtumor.scan import LabelMap

TOP_DENSITY = 0.97
"""τ_top, the density that the innermost cells approach."""

MAX_WIDTH = 10.0
"""mm. Largest λ: without proliferation √(D/ρ) is infinite, the tail of a tumour is not."""

TAIL_WIDTHS = 6.0
"""The tail is cut off at this many λ, where n = τ_e e⁻⁶ ≈ 5·10⁻⁴."""

MIN_ENHANCING_SHARE = 0.1
"""Share of the core that has to be labelled as enhancing for the tumour to be one that enhances."""

MAX_SHARE_OUTSIDE = 0.2
"""Share of the tumour that may lie outside the brain; more means that segmentation and scans do not belong together."""


def enhances(labels: LabelMap | None) -> bool:
    """Tell whether a tumour takes up contrast: not if less than a tenth of its core carries the label `enhancing`.

    A tumour without a core, or without a segmentation, tells nothing; it counts as one that enhances.
    """
    core = 0 if labels is None else np.count_nonzero(labels.mask("necrosis", "enhancing"))
    return labels is None or core == 0 or bool(np.count_nonzero(labels.mask("enhancing")) > MIN_ENHANCING_SHARE * core)


def density_from_labels(
    labels: LabelMap,
    brain: BoolArray,
    growth: GrowthParameters,
    thresholds: ImagingThresholds,
) -> NDArray[np.float32]:
    """Return the tumour cell density that shows as the segmentation, in [0, `TOP_DENSITY`].

    Parameters
    ----------
    labels
        Segmentation on the patient's grid.
    brain
        Where cells can live, shape ``labels.grid.shape``: white and grey matter and the tumour itself, whose
        necrosis may look like CSF. The density is 0 everywhere else.
    growth
        Gives the width λ = √(D/ρ) in white matter, mm.
    thresholds
        Densities at the borders of the labels.

    Raises
    ------
    InputError
        No tumour in the segmentation, or more than `MAX_SHARE_OUTSIDE` of it outside the brain.
    """
    whole = labels.mask()
    if not whole.any():
        raise InputError("segmentation: expected a tumour, every voxel is 0. Segment the tumour first.")
    outside = np.count_nonzero(whole & ~brain) / np.count_nonzero(whole)
    if outside > MAX_SHARE_OUTSIDE:
        raise InputError(
            f"segmentation: expected the tumour inside the brain, {outside:.0%} of it lies outside."
            " Check that segmentation and scans belong to the same patient and have the right affine."
        )
    width = min(growth.front_width, MAX_WIDTH)
    density = np.zeros(labels.grid.shape, np.float32)
    box = _box(whole, labels.grid.voxel_size, TAIL_WIDTHS * width)
    core = labels.mask("necrosis", "enhancing")[box]
    necrosis = labels.mask("necrosis")[box] if enhances(labels) else None
    layers = _levels(whole[box], core, necrosis, labels.grid.voxel_size, width, thresholds)
    density[box] = _restrict(layers, whole[box], brain[box])
    return density


def _levels(
    whole: BoolArray,
    core: BoolArray,
    necrosis: BoolArray | None,
    voxel_size: NDArray[np.float64],
    width: float,
    thresholds: ImagingThresholds,
) -> NDArray[np.float64]:
    """Return the density by the four formulas; `necrosis` is None for a tumour that does not enhance."""
    depth_whole, depth_core = _depth(whole, voxel_size), _depth(core, voxel_size)
    dead = np.zeros_like(core) if necrosis is None else necrosis & (depth_core > width)
    depth_dead = _depth(dead, voxel_size)
    τ_e, τ_c, τ_n = thresholds.edema, thresholds.enhancing, thresholds.necrosis
    τ_core = TOP_DENSITY if necrosis is None else τ_n
    n = np.where(depth_whole >= -TAIL_WIDTHS * width, τ_e * np.exp(np.minimum(depth_whole, 0) / width), 0.0)
    n = np.where(whole, τ_e + (τ_c - τ_e) * _rise(depth_whole, depth_core, width), n)
    n = np.where(core, τ_c + (τ_core - τ_c) * _rise(depth_core, depth_dead, width), n)
    return np.where(dead, τ_n + (TOP_DENSITY - τ_n) * -np.expm1(-depth_dead / width), n)


def _depth(region: BoolArray, voxel_size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signed distance to the border of a region, mm, positive inside; −∞ if the region is empty.

    The border runs half a voxel from the centres on either side of it.
    """
    if not region.any():
        return np.full(region.shape, -np.inf)
    half = voxel_size.min() / 2
    inside = ndimage.distance_transform_edt(region, sampling=voxel_size) - half
    outside = ndimage.distance_transform_edt(~region, sampling=voxel_size) - half
    return np.asarray(np.where(region, inside, -outside), np.float64)


def _rise(outer: NDArray[np.float64], inner: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return the share of a layer's rise at depth `outer` below its outer border and −`inner` above its inner one."""
    depth = np.maximum(outer, 0)
    if np.isneginf(inner).all():
        return np.asarray(-np.expm1(-depth / width), np.float64)
    gap = np.maximum(-inner, 0)
    return np.asarray(depth / np.maximum(depth + gap, 1e-9), np.float64)


def _box(region: BoolArray, voxel_size: NDArray[np.float64], margin: float) -> tuple[slice, slice, slice]:
    """Return the bounding box of a region, widened by `margin` mm and at least by one voxel."""
    found = ndimage.find_objects(region.astype(np.uint8))[0]
    pad = np.ceil(margin / voxel_size).astype(int) + 1
    x, y, z = (slice(max(0, s.start - p), min(n, s.stop + p)) for s, p, n in zip(found, pad, region.shape, strict=True))
    return x, y, z


def _restrict(density: NDArray[np.float64], whole: BoolArray, brain: BoolArray) -> NDArray[np.float32]:
    """Confine a density to the part of the brain that the tumour reaches without leaving the brain."""
    reached = ndimage.binary_propagation(whole & brain, mask=brain & (density > 0))
    return np.where(reached, density, 0).astype(np.float32)
