r"""Memorisation: whether a generated crop is closer to a training crop than a real, unseen one is.

    d(q) = min over training crops t and mirror images m of  1 − corr(q, m t)
    ratio = median d(generated) / median d(held-out real), crops in the same places

with crops of `EDGE` voxels, averaged over 2×2×2 voxels, each modality less its mean. A network that repeats its
training cases has a ratio far below 1. Something below 1 is also what smooth images give, because a smooth crop
resembles many others: compare with the ratio of the render, which has seen no training image.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.models.resolution import block_mean

EDGE = 24
"""Voxels across a crop."""

STRIDE = 6
"""Voxels between neighbouring training crops."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Memorisation:
    """Median distance of the nearest training crop.

    Parameters
    ----------
    generated, held_out
        Of generated crops, and of real crops that were not trained on, in the same places.
    """

    generated: float
    held_out: float

    @property
    def ratio(self) -> float:
        """Generated over held-out."""
        return self.generated / self.held_out if self.held_out > 0 else float("nan")


def training_bank(images: Array, mask: BoolArray, *, stride: int = STRIDE) -> NDArray[np.float32]:
    """Return the crops of one training case as rows, centred in a mask, (n, features).

    Parameters
    ----------
    images
        (m, x, y, z), normalised.
    mask
        (x, y, z): where its tumour is.
    """
    return features(images, np.argwhere(mask[::stride, ::stride, ::stride]) * stride)


def places(mask: BoolArray, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Return up to `count` random voxels of a mask, (n, 3), for crops to be centred on."""
    found = np.argwhere(mask)
    if not len(found):
        raise InputError("memorisation: expected a region of at least one voxel, got an empty one.")
    chosen = np.random.default_rng(seed).choice(len(found), size=min(count, len(found)), replace=False)
    return np.asarray(found[chosen])


def features(images: Array, centres: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return crops around voxels as rows of unit length, each modality less its mean; 0 beyond the image."""
    half = EDGE // 2
    padded = np.pad(np.asarray(images, np.float32), [(0, 0), *[(half, half)] * 3])
    crops = np.zeros((len(centres), len(images), *(EDGE // 2,) * 3), np.float32)
    for row, (x, y, z) in zip(crops, centres, strict=True):
        row[:] = block_mean(padded[:, x : x + EDGE, y : y + EDGE, z : z + EDGE], 2)
    return _unit(crops)


def nearest(queries: NDArray[np.float32], bank: NDArray[np.float32], modalities: int) -> NDArray[np.float64]:
    """Return the distance of the nearest training crop, mirror images included, (n,), in [0, 2]."""
    if not len(bank):
        raise InputError("memorisation: expected at least one training crop, got none.")
    edge = EDGE // 2
    crops = queries.reshape(len(queries), modalities, edge, edge, edge)
    best = np.full(len(queries), -1.0)
    for flips in product((1, -1), repeat=3):
        a, b, c = flips
        mirrored = np.ascontiguousarray(crops[:, :, ::a, ::b, ::c]).reshape(len(queries), -1)
        best = np.maximum(best, (mirrored @ bank.T).max(axis=1))
    return np.asarray(1 - best, np.float64)


def memorisation(generated: Array, real: Array, centres: NDArray[np.int64], bank: NDArray[np.float32]) -> Memorisation:
    """Return how near generated and held-out real crops are to the training crops.

    Parameters
    ----------
    generated, real
        (m, x, y, z), normalised: of a case that was not trained on.
    centres
        From `places`.
    bank
        Rows of `training_bank` of all training cases, same modalities.
    """
    found = [float(np.median(nearest(features(images, centres), bank, len(images)))) for images in (generated, real)]
    return Memorisation(*found)


def _unit(crops: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = crops - crops.mean(axis=(2, 3, 4), keepdims=True)
    rows = centred.reshape(len(crops), -1)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)
