r"""The refiner's networks: what is added to the physics render, and how sure that is.

    x = R + M · (μ + s · r),    r ~ p(r | R, μ, fields, vector)

R is the render on tissue means, M ∈ [0, 1] the soft support, μ the mean of the residual and s its local scale, both
predicted at once at half the resolution and interpolated, and r the normalised remainder, of unit variance, that the
diffusion draws at full resolution (a regression mean and a diffusion of the rest, as Mardani et al. 2023 do for
weather). The denoiser estimates r from y = r + σ ε as Wiener's filter plus what the network knows better, the
preconditioning of Karras et al. (NeurIPS 2022) for data of spectrum S (`hybridtumor.models.spectrum`), one scale per
band b of a Haar packet H (`LEVELS`):

    D(y; σ) = 1[M > 0] · H⁻¹( (1 + q_b g_b) (H W_σ y)_b + e_b F_b ),    q_b = min(1, e_b / v_b)

with e_b(σ) and v_b(σ) the deviations of Wiener's error and estimate: what the filter is sure of (q small, little noise)
is left alone. F and the local gains g, shared by bands of similar wavelength, come from one U-Net on blocks of 2³
voxels; the gains let texture be stronger here and weaker there. The fields enter pooled to the blocks. On blocks of 4³
voxels the same U-Net is three times cheaper and cannot draw a border: its samples are clouds.
"""

from dataclasses import asdict, dataclass
from functools import cache

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from hybridtumor.models import haar
from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS, VECTOR_SIZE
from hybridtumor.models.spectrum import band_variances, wiener
from hybridtumor.models.unet import UNet, noise_features

NOISE_FEATURES = 16
LOG_SCALE_RANGE = (-4.0, 1.5)
"""Bounds of ln s, approached smoothly: from 2 % to 450 % of the healthy intensity range."""

LEVELS = 1
"""Levels of the denoiser's Haar packet: it works on blocks of 2³ voxels."""

BLOCK = 2**LEVELS

BANDS = 8**LEVELS

GAINS = 4
"""Groups of bands that share a local gain, by wavelength."""

STRIDE = 16
"""Extents of every image are multiples of this: blocks of 2 voxels and three poolings."""


@dataclass(frozen=True)
class NetworkSizes:
    """Channels per level of the two U-Nets."""

    mean: tuple[int, ...] = (16, 32, 48)
    denoiser: tuple[int, ...] = (32, 48, 64, 96)

    def as_dict(self) -> dict[str, list[int]]:
        """Return the sizes as JSON holds them."""
        return {name: list(widths) for name, widths in asdict(self).items()}


class MeanAndScale(nn.Module):
    """The regression: residual mean μ and local scale s, both (B, 7, X, Y, Z), smooth over 2 voxels."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.net = UNet(8 * IMAGE_CHANNELS * 2 + len(FIELDS), 9 * IMAGE_CHANNELS, VECTOR_SIZE, widths)

    def forward(self, baseline: Tensor, render: Tensor, fields: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and s for a baseline and a render (B, 7, …), fields (B, 11, …) and vectors (B, VECTOR_SIZE)."""
        images = [haar.transform(nnf.avg_pool3d(image, 2)) for image in (baseline, render)]
        bands = torch.cat([*images, nnf.avg_pool3d(fields, 4)], dim=1)
        mean_bands, raw = self.net(bands, vector).split([8 * IMAGE_CHANNELS, IMAGE_CHANNELS], dim=1)
        low, high = LOG_SCALE_RANGE
        log_scale = low + (high - low) * torch.sigmoid(raw)
        return _finer(haar.inverse(mean_bands), 2), torch.exp(_finer(log_scale, 4))


def _finer(image: Tensor, factor: int) -> Tensor:
    return nnf.interpolate(image, scale_factor=float(factor), mode="trilinear", align_corners=False)


class Denoiser(nn.Module):
    """The diffusion: D(y; σ) of the normalised remainder, (B, 7, X, Y, Z)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.net = UNet(
            BANDS * IMAGE_CHANNELS * 3 + IMAGE_CHANNELS + len(FIELDS),
            (BANDS + GAINS) * IMAGE_CHANNELS,
            NOISE_FEATURES + VECTOR_SIZE,
            widths,
            last=1,
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
            (B, 11, X, Y, Z); channel `support` is M.
        vector
            (B, VECTOR_SIZE).
        """
        deviation = {k: _per_channel(v.sqrt()) for k, v in band_variances(sigma, LEVELS).items()}
        noisy_deviation = (deviation["data"] ** 2 + sigma[:, None, None, None, None] ** 2).sqrt()
        linear = haar.transform(wiener(y, sigma), LEVELS)
        images = [
            linear / deviation["estimate"],
            haar.transform(y, LEVELS) / noisy_deviation,
            haar.transform(mean_image, LEVELS) / deviation["data"],
        ]
        bands = torch.cat([*images, nnf.avg_pool3d(log_scale, BLOCK), nnf.avg_pool3d(fields, BLOCK)], dim=1)
        out = self.net(bands, torch.cat([noise_features(sigma.log()), vector], dim=1))
        gain, added = out.split([GAINS * IMAGE_CHANNELS, BANDS * IMAGE_CHANNELS], dim=1)
        unsure = (deviation["error"] / deviation["estimate"]).clamp_max(1)
        estimate = haar.inverse((1 + unsure * _to_bands(gain)) * linear + deviation["error"] * added, LEVELS)
        support = fields[:, FIELDS.index("support"), None] > 0
        return torch.where(support, estimate, 0.0)


def _per_channel(bands: Tensor) -> Tensor:
    """Repeat values per band (B, BANDS) for every image channel, (B, 7 BANDS, 1, 1, 1)."""
    return bands.repeat(1, IMAGE_CHANNELS)[:, :, None, None, None]


@cache
def _groups() -> Tensor:
    """Return the group of every band, (BANDS,): by how often the signs of its filter change, coarse to fine."""
    changes = (haar.filters(LEVELS).sign().diff(dim=1) != 0).sum(dim=1)
    total = (changes[:, None, None] + changes[:, None] + changes).ravel()
    return torch.clamp((total * GAINS) // int(total.max() + 1), max=GAINS - 1)


def _to_bands(gain: Tensor) -> Tensor:
    """Map one value per group (B, 7 GAINS, …) to one per band, (B, 7 BANDS, …)."""
    b, _, x, y, z = gain.shape
    return gain.reshape(b, IMAGE_CHANNELS, GAINS, x, y, z)[:, :, _groups().to(gain.device)].reshape(b, -1, x, y, z)
