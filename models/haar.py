r"""Orthonormal Haar transform of 3-D images, one level, as one 8×8 matrix.

    ŷ = (h ⊗ h ⊗ h) y,   h = 1/√2 [[1, 1], [1, −1]]

on every block y of 2×2×2 voxels. The matrix is orthogonal and symmetric, so the inverse is the same matrix, energy is
kept and white noise stays white: noise levels, masks and guidance may live in voxel space while the network works on
half the grid.
"""

from functools import cache

import torch
from torch import Tensor


@cache
def _matrix() -> Tensor:
    h = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    return torch.kron(torch.kron(h, h), h)


def transform(image: Tensor) -> Tensor:
    """Map (B, C, X, Y, Z) with even extents to (B, 8 C, X/2, Y/2, Z/2)."""
    b, c, x, y, z = image.shape
    blocks = image.reshape(b, c, x // 2, 2, y // 2, 2, z // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    blocks = blocks.reshape(b, c, 8, -1)
    return (_matrix().to(image) @ blocks).reshape(b, 8 * c, x // 2, y // 2, z // 2)


def inverse(bands: Tensor) -> Tensor:
    """Map (B, 8 C, X, Y, Z) back to (B, C, 2 X, 2 Y, 2 Z)."""
    b, c, x, y, z = bands.shape
    blocks = _matrix().to(bands) @ bands.reshape(b, c // 8, 8, -1)
    blocks = blocks.reshape(b, c // 8, 2, 2, 2, x, y, z).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return blocks.reshape(b, c // 8, 2 * x, 2 * y, 2 * z)
