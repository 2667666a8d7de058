r"""Smoothing by a Gaussian that is cut off, and running means, of fields (B, C, X, Y, Z), axis by axis.

    (G f)_i = Σ_{|k| ≤ q} w_k f_{i+k},    beyond an edge f is that of the edge (`smoothed`) or 0 (`window_mean`)

Every voxel is a sum in one order, whatever field is cut out around it, and no voxel farther than q enters, not even by
rounding: what depends on a smoothed field stays local bit for bit. Sums are built in place and the adjoint,
Σ_k w_k (Gᵀ g)_{i−k} with what fell beyond an edge added to it, is written out, as automatic differentiation would keep
a field for each of the 2q + 1 shifts.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

KERNEL_REACH = 3.0
"""The kernel is cut off at this many standard deviations."""

AXES = (2, 3, 4)


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Return images (B, C, X, Y, Z) convolved with a Gaussian of `sigma` voxels that is cut off; edges repeat.

    Differentiable once.
    """
    reach = math.ceil(KERNEL_REACH * sigma)
    if reach == 0:
        return images
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    result: Tensor = _Smoothing.apply(images, tuple((kernel / kernel.sum()).tolist()))
    return result


def window_mean(field: Tensor, reach: int) -> Tensor:
    """Return means over cubes of 2 `reach` + 1 voxels of a field (B, C, X, Y, Z) that is 0 beyond its edges."""
    weights = (1 / (2 * reach + 1),) * (2 * reach + 1)
    for axis in AXES:
        field = _along(_padded(field, axis, reach, "constant"), weights, axis)
    return field


class _Smoothing(torch.autograd.Function):
    """G with its adjoint."""

    @staticmethod
    def forward(context: Any, images: Tensor, weights: Sequence[float]) -> Tensor:
        context.weights = weights
        for axis in AXES:
            images = _along(_padded(images, axis, len(weights) // 2, "replicate"), weights, axis)
        return images

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, None]:
        weights = context.weights  # symmetric
        reach = len(weights) // 2
        for axis in reversed(AXES):
            wide = _along(_padded(slope, axis, 2 * reach, "constant"), weights, axis)
            extent = slope.shape[axis]
            slope = wide.narrow(axis, reach, extent).clone()
            slope.select(axis, 0).add_(wide.narrow(axis, 0, reach).sum(axis))
            slope.select(axis, -1).add_(wide.narrow(axis, reach + extent, reach).sum(axis))
        return slope, None


def _padded(field: Tensor, axis: int, reach: int, how: str) -> Tensor:
    pad = [0] * 6
    pad[2 * (4 - axis)] = pad[2 * (4 - axis) + 1] = reach
    return nnf.pad(field, pad, mode=how)


def _along(wide: Tensor, weights: Sequence[float], axis: int) -> Tensor:
    """Return Σ_k w_k f_{i+k} of a field that is wider by the reach at both ends of the axis."""
    extent = wide.shape[axis] - len(weights) + 1
    found = wide.narrow(axis, 0, extent) * weights[0]
    for k, weight in enumerate(weights[1:], start=1):
        found.add_(wide.narrow(axis, k, extent), alpha=weight)
    return found
