"""Images carried along with the tissue: B_t(x) = B_0(X(x)), X(x) from `hybridtumor.models.warp`.

Voxels that have not moved are copied bit for bit. MR images are interpolated by cubic B-splines, which keep texture
that trilinear interpolation would blur, and limited to the range of the eight voxels around each origin, so that no
edge overshoots and no background turns negative (Thévenaz, Blu and Unser, IEEE Trans. Med. Imaging 2000, compare
interpolations of medical images).
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.models.warp import Origins, bounds_of

THREADS = 2
"""Channels interpolated at the same time."""

SPLINE_REACH = 12
"""Voxels over which a cubic B-spline coefficient depends on its neighbours to float32's precision."""


def carried(values: NDArray[Any], origins: Origins, *, order: int) -> NDArray[Any]:
    """Return an image of day 0 where its tissue is now.

    Parameters
    ----------
    values
        (…, X, Y, Z), any leading axes.
    origins
        From `hybridtumor.models.warp.find_origins`. Voxels that have not moved are copied bit for bit.
    order
        0: nearest voxel, for labels. 1: trilinear, for fractions and masks. 3: cubic B-spline limited to the range of
        the eight voxels around the origin, for MR images and densities.

    Returns
    -------
    NDArray
        Of the same shape and type; every value lies within the range of its neighbours on day 0.
    """
    if values.shape[-3:] != origins.grid.shape:
        raise InputError(f"image: expected the grid's shape {origins.grid.shape}, got {values.shape[-3:]}.")
    if order not in {0, 1, 3}:
        raise InputError(f"carried: expected order 0, 1 or 3, got {order}.")
    result = values.copy()
    if origins.moved.size:
        index = origins.index[:, origins.moved]
        channels = result.reshape(-1, *origins.grid.shape)
        with ThreadPoolExecutor(THREADS) as pool:
            parts = pool.map(lambda source: _sampled(source, index, order), values.reshape(channels.shape))
            for channel, part in zip(channels, parts, strict=True):
                channel[origins.box][origins.moved] = part
    return result


def _sampled(values: NDArray[Any], index: NDArray[np.float32], order: int) -> NDArray[Any]:
    """Return `values` (X, Y, Z) at fractional indices (3, n); beyond the edge the nearest voxel counts."""
    result = np.zeros(index.shape[1], values.dtype)
    used = bounds_of(values != 0)
    if used is None:
        return result
    reached = np.ones(index.shape[1], bool)
    for coordinate, (low, high), n in zip(index, used, values.shape, strict=True):
        reached &= (coordinate > low - 1) | (low == 0)  # where all neighbours are 0 so is the result
        reached &= (coordinate < high) | (high == n)
    if not reached.any():
        return result
    wanted = index[:, reached]
    reach = SPLINE_REACH if order == 3 else 1
    low = np.maximum(np.floor(wanted.min(axis=1)).astype(int) - reach, 0)
    high = np.minimum(np.ceil(wanted.max(axis=1)).astype(int) + reach + 1, values.shape)
    low = np.minimum(low, np.array(values.shape) - 1)
    part = values[tuple(slice(a, b) for a, b in zip(low, np.maximum(high, low + 1), strict=True))]
    result[reached] = _interpolate(part, wanted - low[:, None].astype(np.float32), order)
    return result


def _interpolate(part: NDArray[Any], index: NDArray[np.float32], order: int) -> NDArray[Any]:
    """Return `part` at fractional indices of its own."""
    last = np.array(part.shape)[:, None] - 1
    if order == 0:
        i, j, k = np.clip(np.rint(index).astype(np.int64), 0, last)
        return np.asarray(part[i, j, k])
    inside = np.clip(index, 0, last)
    values = np.asarray(ndimage.map_coordinates(part, inside, order=order, mode="nearest", output=np.float32))
    if order == 3:
        i, j, k = np.floor(inside).astype(np.int64)
        pairs = {"size": 2, "origin": -1, "mode": "nearest"}  # voxels i and i + 1
        low, high = (f(part, **pairs)[i, j, k] for f in (ndimage.minimum_filter, ndimage.maximum_filter))
        np.clip(values, low, high, out=values)
    return values
