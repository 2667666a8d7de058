r"""Texture inside a region, without any trained weights: spectrum, Haar bands, patches.

    P_b = ⟨|F[h (1_region x)]|²⟩ over |k| ∈ [b, b+1)/20 per voxel, b = 1 … 9        h: Hann window on the region's box
    spectrum distance = ⟨|ln P_b − ln P'_b|⟩ over bands and modalities
    E_b = ⟨w²⟩, κ_b = ⟨w⁴⟩/⟨w²⟩² of the Haar coefficients w of band b whose whole block lies inside
    sliced Wasserstein = ⟨W₁(θ·p, θ·p')⟩ over random directions θ, |θ| = 1, p: 7×7×7 voxels of all modalities

ln P is a natural logarithm: a distance of 0.69 is a factor of two in power. Mean brightness and the region's outline
are part of the masked spectrum; the Haar bands see neither. A smooth image has little power at high k, small E_b and,
where a few edges remain, a large κ_b (a Gaussian texture has 3).
(Rabin et al., Scale Space and Variational Methods 2011, for the sliced distance.)
"""

from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.models.haar import transform

BANDS = range(1, 10)
"""Bands of the spectrum, each 0.05 per voxel wide."""

PATCH = 7
"""Voxels across a patch."""

FEWEST = 16
"""Coefficients below which a Haar band has no statistics."""

SMALLEST = 1e-12
"""Power and energy below this are those of a constant image: their logarithm stops there."""

Array = NDArray[np.floating[Any]]


def log_spectrum(images: Array, mask: BoolArray) -> NDArray[np.float64]:
    """Return the log of the radial power spectrum inside a mask, (m, bands); NaN in a band without a frequency.

    Parameters
    ----------
    images
        (m, x, y, z).
    mask
        (x, y, z).
    """
    box = _box(mask)
    part = np.where(mask[box], images[(slice(None), *box)], 0)
    window = np.einsum("i,j,k->ijk", *[np.hanning(n) for n in part.shape[1:]])
    half = np.fft.rfftn(part * window, axes=(1, 2, 3))
    frequencies = [np.fft.fftfreq(n) for n in part.shape[1:3]] + [np.fft.rfftfreq(part.shape[3])]
    k = np.sqrt(sum(q**2 for q in np.meshgrid(*frequencies, indexing="ij")))
    doubled = np.full(part.shape[3] // 2 + 1, 2.0)  # the half that a real transform leaves out
    doubled[0] = 1
    if part.shape[3] % 2 == 0:
        doubled[-1] = 1
    weight = np.broadcast_to(doubled, k.shape).ravel()
    band = np.minimum((k * 20).astype(int), len(BANDS) + 1).ravel()
    count = np.bincount(band, weight, len(BANDS) + 2)
    power = [np.bincount(band, weight * np.abs(p).ravel() ** 2, len(BANDS) + 2) for p in half]
    with np.errstate(invalid="ignore"):
        mean = np.array(power)[:, 1:-1] / count[1:-1]
    return np.asarray(np.log(np.maximum(mean, SMALLEST)), np.float64)


def spectrum_distance(images: Array, reference: Array, mask: BoolArray) -> float:
    """Return the mean absolute difference of two log spectra inside a mask; 0 for equal images."""
    difference = log_spectrum(images, mask) - log_spectrum(reference, mask)
    if np.isnan(difference).all():
        raise InputError(f"spectrum: expected a region several voxels wide, got a box of {_sides(mask)}.")
    return float(np.nanmean(np.abs(difference)))


def haar_statistics(images: Array, mask: BoolArray, levels: int = 2) -> NDArray[np.float64]:
    """Return log energy and kurtosis of every detail band, (2, m, 7 levels), finest level first.

    NaN in bands that hold fewer than `FEWEST` coefficients inside the mask. Shapes as in `log_spectrum`.
    """
    smooth, inside = np.asarray(images, np.float64), mask
    rows = []
    for _ in range(levels):
        smooth, inside = _even(smooth), _even(inside)
        packed = transform(torch.from_numpy(smooth)[None])[0].numpy()
        bands, inside = packed.reshape(len(images), 8, *packed.shape[1:]), _whole_blocks(inside)
        rows += [_moments(bands[:, index][:, inside]) for index in range(1, 8)]
        smooth = bands[:, 0]
    return np.stack(rows, axis=-1)


def haar_distance(images: Array, reference: Array, mask: BoolArray, levels: int = 2) -> tuple[float, float]:
    """Return the mean absolute differences of log energy and of log kurtosis over all Haar bands; 0 for equal images.

    Raises
    ------
    InputError
        No band has enough coefficients inside the mask.
    """
    found, wanted = haar_statistics(images, mask, levels), haar_statistics(reference, mask, levels)
    energy, kurtosis = np.abs(found[0] - wanted[0]), np.abs(np.log(found[1]) - np.log(wanted[1]))
    if np.isnan(energy).all():
        raise InputError(f"Haar bands: expected at least {FEWEST} whole blocks in the region, got fewer.")
    return float(np.nanmean(energy)), float(np.nanmean(kurtosis))


def sliced_wasserstein(
    images: Array,
    reference: Array,
    mask: BoolArray,
    *,
    patches: int = 1024,
    projections: int = 128,
    seed: int = 0,
) -> float:
    """Return the sliced Wasserstein distance of the patches inside a mask; 0 for equal images.

    Patches lie wholly inside the mask where it has room for any, else they are centred in it; both images are looked
    at in the same places, the distance compares the two sets and not pair by pair.

    Parameters
    ----------
    patches, projections
        How many patches and random directions.
    seed
        Of places and directions.
    """
    rng = np.random.default_rng(seed)
    places = _places(mask, rng, patches)
    found, wanted = _patches(images, places), _patches(reference, places)
    directions = rng.standard_normal((found.shape[1], projections)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    return float(np.abs(np.sort(found @ directions, axis=0) - np.sort(wanted @ directions, axis=0)).mean())


def _box(mask: BoolArray) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise InputError("texture: expected a region of at least one voxel, got an empty one.")
    return tuple(found[0])


def _sides(mask: BoolArray) -> tuple[int, ...]:
    return tuple(side.stop - side.start for side in _box(mask))


def _even(values: NDArray[Any]) -> NDArray[Any]:
    """Return the largest part with even extents."""
    x, y, z = (n // 2 * 2 for n in values.shape[-3:])
    return np.ascontiguousarray(values[..., :x, :y, :z])


def _whole_blocks(mask: BoolArray) -> BoolArray:
    found = np.ones(tuple(n // 2 for n in mask.shape), bool)
    for x, y, z in product((0, 1), repeat=3):
        found &= mask[x::2, y::2, z::2]
    return found


def _moments(coefficients: Array) -> NDArray[np.float64]:
    """Return log energy and kurtosis of each modality, (2, m)."""
    if coefficients.shape[1] < FEWEST:
        return np.full((2, len(coefficients)), np.nan)
    energy = np.maximum((coefficients**2).mean(axis=1), SMALLEST)
    return np.stack([np.log(energy), np.maximum((coefficients**4).mean(axis=1) / energy**2, 1)])


def _places(mask: BoolArray, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return the first voxels of `count` patches, (count, 3), drawn with replacement."""
    half = PATCH // 2
    if min(mask.shape) < PATCH:
        raise InputError(f"patches: expected an image of at least {PATCH} voxels a side, got {mask.shape}.")
    inner = ndimage.minimum_filter(mask.astype(np.uint8), size=PATCH, mode="constant") > 0
    room = tuple(slice(half, n - half) for n in mask.shape)
    centres = np.argwhere(inner[room] if inner.any() else mask[room])
    if not len(centres):
        raise InputError("patches: expected a region away from the image's border, got none.")
    return np.asarray(centres[rng.integers(len(centres), size=count)])


def _patches(images: Array, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return patches of all modalities as rows, (count, m · 343)."""
    windows = sliding_window_view(np.asarray(images, np.float32), (PATCH,) * 3, axis=(1, 2, 3))
    x, y, z = places.T
    return np.ascontiguousarray(windows[:, x, y, z].swapaxes(0, 1)).reshape(len(places), -1)
