r"""Orthonormal Haar packets of 3-D images: blocks of 2^L voxels, one matrix.

    ŷ = (h_L ⊗ h_L ⊗ h_L) y,   h_1 = 1/√2 [[1, 1], [1, −1]],   h_L = h_1 ⊗ h_{L−1}

on every block y of 2^L × 2^L × 2^L voxels: the Haar transform, applied L times to all of its bands. The matrix is
orthogonal and symmetric, so the inverse is the same matrix, energy is kept and white noise stays white: noise levels,
masks and guidance may live in voxel space while the network works on a grid coarser by 2^L.
"""

from functools import cache

import torch
from torch import Tensor


@cache
def filters(levels: int) -> Tensor:
    """Return h_L, (2^L, 2^L): one filter in every row, the mean first."""
    h = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    result = h
    for _ in range(levels - 1):
        result = torch.kron(h, result)
    return result


@cache
def _matrix(levels: int) -> Tensor:
    h = filters(levels)
    return torch.kron(torch.kron(h, h), h)


def transform(image: Tensor, levels: int = 1) -> Tensor:
    """Map (B, C, X, Y, Z), extents multiples of 2^levels, to (B, 8^levels C, X/2^levels, …)."""
    b, c, x, y, z = image.shape
    e = 2**levels
    blocks = image.reshape(b, c, x // e, e, y // e, e, z // e, e).permute(0, 1, 3, 5, 7, 2, 4, 6)
    blocks = blocks.reshape(b, c, e**3, -1)
    return (_matrix(levels).to(image) @ blocks).reshape(b, e**3 * c, x // e, y // e, z // e)


def inverse(bands: Tensor, levels: int = 1) -> Tensor:
    """Map (B, 8^levels C, X, Y, Z) back to (B, C, 2^levels X, …)."""
    b, c, x, y, z = bands.shape
    e = 2**levels
    blocks = _matrix(levels).to(bands) @ bands.reshape(b, c // e**3, e**3, -1)
    blocks = blocks.reshape(b, c // e**3, e, e, e, x, y, z).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return blocks.reshape(b, c // e**3, e * x, e * y, e * z)
