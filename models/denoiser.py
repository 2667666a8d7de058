r"""The refiner's networks: what is added to the physics render, and how sure that is.

    x = R + M · (μ + s · r),    r ~ p(r | R, μ, fields, vector)

R is the render, M ∈ [0, 1] the soft support, μ the mean of the residual and s its local scale, both predicted at once,
and r the normalised remainder, of unit variance, that the diffusion draws (a regression mean and a diffusion of the
rest, as Mardani et al. 2023 do for weather). The denoiser estimates r from y = r + σ ε as Wiener's filter plus what the
network knows better, the preconditioning of Karras et al. (NeurIPS 2022) for data of spectrum S
(`hybridtumor.models.spectrum`):

    D(y; σ) = 1[M > 0] · ( W_σ y + e(σ) F(W_σ y, c_in y, …; ln σ) ),    c_in = 1/√(σ² + 1)

F is a U-Net behind an orthonormal Haar transform; the fields enter it pooled to the coarser grid.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from hybridtumor.models import haar
from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS, VECTOR_SIZE
from hybridtumor.models.spectrum import wiener, wiener_error
from hybridtumor.models.unet import UNet, noise_features

NOISE_FEATURES = 16
LOG_SCALE_RANGE = (-4.0, 1.5)
"""Bounds of ln s, approached smoothly: from 2 % to 450 % of the healthy intensity range."""

STRIDE = 8
"""Extents of every image are multiples of this: one Haar level and two poolings."""


@dataclass(frozen=True)
class NetworkSizes:
    """Channels per level of the two U-Nets."""

    mean: tuple[int, ...] = (24, 48, 64)
    denoiser: tuple[int, ...] = (32, 64, 96)

    def as_dict(self) -> dict[str, list[int]]:
        """Return the sizes as JSON holds them."""
        return {name: list(widths) for name, widths in asdict(self).items()}


class MeanAndScale(nn.Module):
    """The regression: residual mean μ and local scale s, both (B, 7, X, Y, Z)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.net = UNet(8 * IMAGE_CHANNELS * 2 + len(FIELDS), 9 * IMAGE_CHANNELS, VECTOR_SIZE, widths)

    def forward(self, baseline: Tensor, render: Tensor, fields: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and s for a baseline and a render (B, 7, …), fields (B, 9, …) and vectors (B, VECTOR_SIZE)."""
        bands = torch.cat([haar.transform(baseline), haar.transform(render), nnf.avg_pool3d(fields, 2)], dim=1)
        mean_bands, raw = self.net(bands, vector).split([8 * IMAGE_CHANNELS, IMAGE_CHANNELS], dim=1)
        low, high = LOG_SCALE_RANGE
        log_scale = low + (high - low) * torch.sigmoid(raw)
        smooth = nnf.interpolate(log_scale, scale_factor=2.0, mode="trilinear", align_corners=False)
        return haar.inverse(mean_bands), torch.exp(smooth)


class Denoiser(nn.Module):
    """The diffusion: D(y; σ) of the normalised remainder, (B, 7, X, Y, Z)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.net = UNet(
            8 * IMAGE_CHANNELS * 3 + IMAGE_CHANNELS + len(FIELDS),
            8 * IMAGE_CHANNELS,
            NOISE_FEATURES + VECTOR_SIZE,
            widths,
        )

    def forward(
        self, y: Tensor, sigma: Tensor, mean_image: Tensor, log_scale: Tensor, fields: Tensor, vector: Tensor
    ) -> Tensor:
        """Return the denoised remainder.

        Parameters
        ----------
        y
            (B, 7, X, Y, Z) remainder plus noise.
        sigma
            (B,) noise levels.
        mean_image
            R + M μ, as `y`.
        log_scale
            ln s, as `y`.
        fields
            (B, 9, X, Y, Z); channel `support` is M.
        vector
            (B, VECTOR_SIZE).
        """
        level = sigma[:, None, None, None, None]
        smooth = wiener(y, sigma)
        images = [haar.transform(part) for part in (smooth, y / (level**2 + 1).sqrt(), mean_image)]
        bands = torch.cat([*images, nnf.avg_pool3d(log_scale, 2), nnf.avg_pool3d(fields, 2)], dim=1)
        estimate = haar.inverse(self.net(bands, torch.cat([noise_features(sigma.log()), vector], dim=1)))
        support = fields[:, FIELDS.index("support"), None] > 0
        return torch.where(support, smooth + wiener_error(level) * estimate, 0.0)
