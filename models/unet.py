"""A 3-D U-Net whose blocks are modulated by a vector (FiLM), used for both the regression mean and the denoiser.

Each block is GroupNorm → SiLU → 3×3×3 convolution, twice, with a skip; before the second activation a per-channel
scale and shift computed from the conditioning vector is applied (Perez et al., AAAI 2018). The last convolution of
every block and of the network starts at zero, so an untrained network returns zero.
"""

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

GROUPS = 8
EMBEDDING = 64


class Block(nn.Module):
    """Residual block (B, c_in, …) → (B, c_out, …), modulated by an embedding (B, EMBEDDING)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, c_in)
        self.conv1 = nn.Conv3d(c_in, c_out, 3, padding=1)
        self.film = nn.Linear(EMBEDDING, 2 * c_out)
        self.norm2 = nn.GroupNorm(GROUPS, c_out)
        self.conv2 = nn.Conv3d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv3d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return the block's output."""
        scale, shift = self.film(embedding)[:, :, None, None, None].chunk(2, dim=1)
        h = self.conv1(nnf.silu(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        out: Tensor = self.skip(x) + self.conv2(nnf.silu(h))
        return out


class UNet(nn.Module):
    """U-Net (B, c_in, X, Y, Z) → (B, c_out, X, Y, Z); extents are multiples of 2^(levels − 1).

    Parameters
    ----------
    c_in, c_out
        Channels in and out.
    vector
        Size of the conditioning vector.
    widths
        Channels per level, multiples of 8.
    last
        Edge of the last convolution's kernel, odd.
    """

    def __init__(self, c_in: int, c_out: int, vector: int, widths: tuple[int, ...], last: int = 3) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(vector, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU())
        self.enter = nn.Conv3d(c_in, widths[0], 1)
        self.down = nn.ModuleList(Block(a, b) for a, b in zip((widths[0], *widths[:-1]), widths, strict=True))
        self.middle = Block(widths[-1], widths[-1])
        below = (*widths[1:], widths[-1])
        self.up = nn.ModuleList(Block(a + b, b) for a, b in reversed(list(zip(below, widths, strict=True))))
        self.norm = nn.GroupNorm(GROUPS, widths[0])
        self.leave = nn.Conv3d(widths[0], c_out, last, padding=last // 2)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Return the network's output for images `x` and conditioning vectors `vector` (B, vector)."""
        embedding = self.embed(vector)
        h = self.enter(x)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            h = block(nnf.avg_pool3d(h, 2) if level else h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for level, block in enumerate(self.up):
            h = nnf.interpolate(h, scale_factor=2.0, mode="nearest") if level else h
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        out: Tensor = self.leave(nnf.silu(self.norm(h)))
        return out


def noise_features(log_sigma: Tensor, count: int = 8) -> Tensor:
    """Return sines and cosines of ln σ / 4 at `count` octaves, (B, 2 count)."""
    angle = log_sigma[:, None] / 4 * 2.0 ** torch.arange(count, device=log_sigma.device) * (math.pi / 4)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
