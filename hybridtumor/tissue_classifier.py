r"""Tissue fractions of a real brain from its T1-weighted scan.

Bias field: N4 (Tustison et al., IEEE Trans. Med. Imaging 2010) on the brain without the tumour. Classes: a hidden
Markov random field of three Gaussian classes (Zhang, Brady and Smith, IEEE Trans. Med. Imaging 2001), whose posterior
p_k is found by expectation maximisation in the mean-field approximation (Celeux, Forbes and Peyrard, Pattern
Recognition 2003),

    p_k(x) ∝ N(y(x); μ_k, σ_k²) exp(β Σ_{x' next to x} p_k(x')),

and taken for the volume fraction. On T1 the order of the means is CSF < grey < white. What the scan does not tell,
the tissue under the tumour and where there is no signal, is continued from the tissue around it: white and grey
matter, never CSF, because a dark necrosis is no ventricle.
"""

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.scan import Scan
from hybridtumor.tissue import TissueMap

Float32 = NDArray[np.float32]

SMOOTHNESS = 0.5
"""β, the weight of each of the six neighbours."""

BIAS_SPACING = 4.0
"""mm. The bias field is fitted to an image of about this voxel size."""

BIAS_ITERATIONS = (40, 40, 40, 40)
"""Iterations at each level; every level halves the distance of the control points."""

MAX_ITERATIONS = 20
TOLERANCE = 1e-3
"""The expectation maximisation ends when no mean moves by more than this share of their range."""

NO_SIGNAL = 0.03
"""Voxels below this share of the bright tissue's intensity lie outside the scanner's field of view."""

MAX_HEAD = 2.5e6
"""mm³. More than any brain: the skull has not been removed."""

_REACHES = (2.0, 5.0, 12.0)
"""mm. Standard deviations of the Gaussians with which the surroundings of an unknown voxel are weighed."""

_FAINT = 0.05
"""Weight of the surroundings at which the next larger Gaussian has as much say."""


def head_mask(scan: Scan) -> BoolArray:
    """Return where a skull-stripped scan shows the brain: the largest piece that is not background, holes filled.

    The background is the value most frequent on the six faces of the image (0, or −1 in images scaled to [−1, 1]).

    Raises
    ------
    InputError
        Nothing but background, or a piece larger than `MAX_HEAD`.
    """
    v = scan.values
    faces = np.concatenate([np.take(v, i, axis).ravel() for axis in range(3) for i in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    pieces, count = ndimage.label(v != values[counts.argmax()])
    if count == 0:
        raise InputError("scan: expected a brain, every voxel has the same value.")
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    volume = float(sizes.max()) * scan.grid.voxel_volume
    if volume > MAX_HEAD:
        raise InputError(
            f"scan: expected a skull-stripped brain on a uniform background, got {volume / 1e6:.1f} litres that are"
            " not background. Remove the skull, or put tissue fractions into the patient folder."
        )
    return np.asarray(ndimage.binary_fill_holes(pieces == sizes.argmax()))


def classify(scan: Scan, tumour: BoolArray) -> TissueMap:
    """Return the tissue fractions of a brain.

    Parameters
    ----------
    scan
        T1-weighted, skull-stripped.
    tumour
        Segmented tumour, shape ``scan.grid.shape``; the tissue there is continued from around it.

    Raises
    ------
    InputError
        The scan is not skull-stripped, or shows too little tissue to tell three classes apart.
    """
    head = head_mask(scan)
    box = ndimage.find_objects(head.astype(np.uint8))[0]
    inside, seen = head[box], head[box] & ~tumour[box]
    if np.count_nonzero(seen) < 1000:
        raise InputError("scan: expected a brain with some tissue outside the tumour, found fewer than 1000 voxels.")
    signal = scan.values[box] - scan.values[box][inside].min()
    bright = np.percentile(signal[seen], 99.5)
    seen &= signal > NO_SIGNAL * bright
    y = _unbias(np.clip(signal, NO_SIGNAL * bright, bright), seen, scan.grid.voxel_size)
    posterior = _classes(np.minimum(y / np.float32(np.percentile(y[seen], 99.5)), 1), seen)
    fractions = np.zeros((3, *head.shape), np.float32)
    fractions[(slice(None), *box)] = posterior
    csf, grey, white = fractions
    return fill(TissueMap(white, grey, csf, scan.grid), head & ~_paste(seen, head.shape, box))


def fill(tissue: TissueMap, region: BoolArray) -> TissueMap:
    """Return the tissue with white and grey matter in `region`, in the proportion in which they surround it."""
    if not region.any():
        return tissue
    reach = 3 * _REACHES[-1] / tissue.grid.voxel_size
    found = ndimage.find_objects(region.astype(np.uint8))[0]
    box = tuple(slice(max(0, int(s.start - r)), int(s.stop + r) + 1) for s, r in zip(found, reach, strict=True))
    unknown = region[box]
    white, grey = np.where(unknown, 0, tissue.white[box]), np.where(unknown, 0, tissue.grey[box])
    share = np.full(unknown.shape, 0.5, np.float32)
    for reach_mm in reversed(_REACHES):  # the nearest surroundings are asked last and have the last word
        sigma = reach_mm / tissue.grid.voxel_size
        w, g = (ndimage.gaussian_filter(part, sigma, truncate=3, mode="constant") for part in (white, grey))
        share = (w + _FAINT * share) / (w + g + _FAINT)
    result = {name: np.array(getattr(tissue, name)) for name in ("white", "grey", "csf")}
    for name, part in (("white", share), ("grey", 1 - share), ("csf", np.zeros_like(share))):
        result[name][box][unknown] = part[unknown]
    return TissueMap(grid=tissue.grid, **result)


def _paste(values: BoolArray, shape: tuple[int, ...], box: tuple[slice, ...]) -> BoolArray:
    whole = np.zeros(shape, bool)
    whole[box] = values
    return whole


def _unbias(values: Float32, mask: BoolArray, voxel_size: NDArray[np.float64]) -> Float32:
    """Return the values divided by the smooth bias field that N4 finds in the mask."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values, np.float32))
    region = SimpleITK.GetImageFromArray(np.ascontiguousarray(mask, np.uint8))
    for part in (image, region):
        part.SetSpacing([float(size) for size in voxel_size[::-1]])
    shrink = [max(1, round(BIAS_SPACING / float(size))) for size in voxel_size[::-1]]
    n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)  # the same image gives the same field on every machine
    n4.SetMaximumNumberOfIterations(list(BIAS_ITERATIONS))
    n4.SetConvergenceThreshold(1e-4)
    n4.Execute(SimpleITK.Shrink(image, shrink), SimpleITK.Shrink(region, shrink))
    log_bias = SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))
    return np.asarray(values * np.exp(-log_bias), np.float32)


def _classes(image: Float32, mask: BoolArray) -> Float32:
    """Return the posterior of the three classes, by rising mean, (3, *image.shape), 0 outside the mask."""
    y = image[mask]
    mean, deviation = _first_guess(y)
    field, prior = np.zeros((3, *image.shape), np.float32), np.zeros((3, y.size), np.float32)
    for _ in range(MAX_ITERATIONS):
        z = (y - mean[:, None]) / deviation[:, None]
        logarithm = prior - np.log(deviation)[:, None] - z * z / 2
        p = np.exp(logarithm - logarithm.max(axis=0))
        p /= p.sum(axis=0)
        field[:, mask] = p
        weight = p.sum(axis=1, dtype=np.float64)
        before, mean = mean, ((p * y).sum(axis=1, dtype=np.float64) / weight).astype(np.float32)
        variance = (p * (y - mean[:, None]) ** 2).sum(axis=1, dtype=np.float64) / weight
        deviation = np.sqrt(np.maximum(variance, 1e-6)).astype(np.float32)
        if np.abs(mean - before).max() < TOLERANCE * np.ptp(mean):
            break
        prior = SMOOTHNESS * _neighbours(field)[:, mask]
    if not np.isfinite(mean).all() or np.any(np.diff(mean) <= 0):
        raise InputError("scan: expected three tissues on T1, CSF darker than grey darker than white matter.")
    return field


def _first_guess(y: Float32) -> tuple[Float32, Float32]:
    """Return mean and standard deviation of three classes by k-means on the histogram."""
    count, edges = np.histogram(y, 512)
    centre = (edges[1:] + edges[:-1]) / 2
    mean = np.quantile(y, [0.05, 0.4, 0.8])
    for _ in range(100):
        nearest = np.abs(centre[:, None] - mean).argmin(axis=1)
        mean = np.array([np.average(centre[nearest == k], weights=count[nearest == k] + 1e-9) for k in range(3)])
    nearest = np.abs(y[:, None] - mean).argmin(axis=1)
    deviation = np.array([y[nearest == k].std() for k in range(3)])
    return mean.astype(np.float32), np.maximum(deviation, 1e-3).astype(np.float32)


def _neighbours(field: Float32) -> Float32:
    """Return the sum over the six neighbours, (3, nx, ny, nz)."""
    total = np.zeros_like(field)
    for axis in (1, 2, 3):
        lower = (slice(None),) * axis + (slice(None, -1),)
        upper = (slice(None),) * axis + (slice(1, None),)
        total[upper] += field[lower]
        total[lower] += field[upper]
    return total
