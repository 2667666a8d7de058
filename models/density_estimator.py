r"""Density estimators: the tumour cell density n that an image implies, read from the image alone.

**S_A** (`DensityTemplates`, for guidance) inverts the render (`hybridtumor.models.render`) by matching templates. The
contrast to the smooth healthy fill H, smoothed over a few millimetres (kernel G), is compared with what the render
paints for the densities n_k of a grid, t_k = Σ_l C_l f_l(n_k), in every modality m at hand:

    d = G ∗ (x − H),    p_k ∝ exp( −½ Σ_m (d_m − t_km)² / τ² ),    S_A = Σ_k p_k n_k

Since d² does not depend on k this is a softmax that is linear in d, Σ_m d_m t_km/τ² + const: smooth, cheap, and with
the gradient ∂S/∂d_m = Cov_p(n, t_m)/τ². A modality weighs by how far it sets the templates apart; one that is missing
weighs nothing. H knows the tissue, so S_A does.

**S_B** (`DensityNet`, for evaluation only) is a small convolutional network trained on examples
(`hybridtumor.models.density_training`, `hybridtumor.models.density_examples`). What steers the images never measures
them.

Both are differentiable. Images are normalised intensities, (B, 4, X, Y, Z); densities (B, 1, X, Y, Z) in [0, 1].
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridtumor.errors import InputError
from hybridtumor.models.smoothing import KERNEL_REACH, smoothed
from hybridtumor.models.visibility import label_fractions
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABELS, MODALITIES

SMOOTHING = 1.0
"""mm. Standard deviation of the kernel G (2.4 mm full width): finer than an enhancing rim, coarser than grain."""

TEMPLATE_NOISE = 0.12
"""τ: spread of the smoothed contrast around its template, in normalised intensity (training cases)."""

TEMPLATES = 25
"""Densities n_k, evenly spaced over [0, 1]."""

CHUNK = 8192
"""Voxels that are matched at a time."""

BLOCK = 2
"""mm. The net reads means over blocks of this edge."""


@dataclass(frozen=True, eq=False)
class DensityTemplates:
    """S_A for one patient.

    Parameters
    ----------
    healthy
        H, (channels, X, Y, Z): the smooth healthy fill; for soft labels 0.
    contrast
        C, (3, channels); for soft labels the identity.
    thresholds, enhances
        As in `hybridtumor.models.visibility.label_fractions`.
    available
        One flag per channel; all by default.
    spacing
        mm, edge of a voxel.
    smoothing
        mm, standard deviation of G.
    noise
        τ.
    within
        (X, Y, Z) where density is asked for, everywhere by default; elsewhere the answer is 0.
    """

    healthy: Tensor
    contrast: NDArray[np.float32]
    thresholds: ImagingThresholds
    enhances: bool = True
    available: tuple[bool, ...] | None = None
    spacing: float = 1.0
    smoothing: float = SMOOTHING
    noise: float = TEMPLATE_NOISE
    within: Tensor | None = None

    def __post_init__(self) -> None:
        channels = len(self.healthy)
        if self.contrast.shape != (len(LABELS), channels) or (self.available and len(self.available) != channels):
            raise InputError(
                f"density templates: expected a contrast ({len(LABELS)}, {channels}) and a flag for every channel of"
                f" the healthy fill, got {self.contrast.shape} and {self.available}. Pass arrays of one patient."
            )

    @property
    def reach(self) -> int:
        """Voxels over which G reaches: S_A at a voxel depends on nothing farther away along any axis."""
        return math.ceil(KERNEL_REACH * self.smoothing / self.spacing) if self.smoothing > 0 else 0

    def __call__(self, images: Tensor) -> Tensor:
        """Return S_A(x), (B, 1, X, Y, Z), for x (B, channels, X, Y, Z)."""
        return self._match(smoothed(images - self.healthy, self.smoothing / self.spacing))

    def seen(self, density: Tensor) -> Tensor:
        """Return S_A of the render of a density (B, 1, X, Y, Z): what is comparable with S_A of an image.

        The densities of one label look alike, and borders are smoothed; both are the same on both sides then.
        """
        values = density.detach().cpu().numpy()
        fractions = label_fractions(values, self.thresholds, enhances=self.enhances)  # (3, B, 1, X, Y, Z)
        painted = np.einsum("lm,lbxyz->bmxyz", self.contrast, fractions[:, :, 0])
        return self._match(smoothed(torch.from_numpy(painted).to(density), self.smoothing / self.spacing))

    def _match(self, difference: Tensor) -> Tensor:
        """Return Σ_k p_k n_k for the smoothed contrast d, (B, channels, X, Y, Z)."""
        grid = np.linspace(0, 1, TEMPLATES, dtype=np.float32)
        weight = np.array(self.available or [True] * len(self.healthy), np.float32) / self.noise**2
        templates = np.einsum(
            "lm,lk->km", self.contrast, label_fractions(grid, self.thresholds, enhances=self.enhances)
        )
        offset = -0.5 * (templates**2) @ weight
        slopes, offsets, nodes = (torch.from_numpy(a).to(difference) for a in (templates * weight, offset, grid))
        flat, shape = difference.flatten(2), (-1, 1, *difference.shape[-3:])
        if self.within is None:
            return _matched(flat, slopes, offsets, nodes).reshape(shape)
        (asked,) = self.within.flatten().nonzero(as_tuple=True)
        found = _matched(flat[..., asked], slopes, offsets, nodes)
        return torch.zeros_like(flat[:, :1]).index_copy(2, asked, found).reshape(shape)


def _matched(difference: Tensor, slopes: Tensor, offsets: Tensor, nodes: Tensor) -> Tensor:
    """Return Σ_k p_k n_k, (B, 1, voxels), of d (B, channels, voxels); differentiable once, in d."""
    found: Tensor = _Match.apply(difference, slopes, offsets, nodes)
    return found


class _Match(torch.autograd.Function):
    """Σ_k p_k n_k at every voxel, with ∂/∂d_m = Σ_k p_k (n_k − Σ_j p_j n_j) t_km/τ² found on the way.

    A few voxels at a time: what a chunk needs stays in the cache of a core. Sums over templates are products of
    matrices, which add in one order wherever in a chunk a voxel comes; `Tensor.softmax` does not.
    """

    @staticmethod
    def forward(context: Any, difference: Tensor, slopes: Tensor, offsets: Tensor, nodes: Tensor) -> Tensor:
        found, rises = torch.empty_like(difference[:, :1]), torch.empty_like(difference)
        moments = torch.stack([torch.ones_like(nodes), nodes])
        for d, n, rise in zip(*(torch.split(a, CHUNK, 2) for a in (difference, found, rises)), strict=True):
            p = slopes @ d + offsets[:, None]  # (B, templates, voxels)
            p.sub_(p.amax(dim=1, keepdim=True)).exp_()
            total, first = torch.split(moments @ p, 1, 1)
            n[:] = first / total
            if context.needs_input_grad[0]:
                rise[:] = slopes.T @ p.mul_(nodes[:, None] - n) / total
        context.save_for_backward(rises)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        (rises,) = context.saved_tensors
        return slope * rises, None, None, None


class DensityNet(nn.Module):
    """S_B: a small U-Net on 2 mm blocks that reads x − H and H.

    Parameters
    ----------
    widths
        Channels at 2, 4 and 8 mm.
    """

    def __init__(self, widths: tuple[int, int, int] = (12, 16, 24)) -> None:
        super().__init__()
        a, b, c = self.widths = widths
        self.enter = nn.Conv3d(3 * len(MODALITIES), a, 3, padding=1)
        self.middle = nn.Conv3d(a, b, 3, padding=1)
        self.deep = nn.Conv3d(b, c, 3, padding=1)
        self.wide = nn.Conv3d(c, c, 3, padding=2, dilation=2)
        self.rise = nn.Conv3d(b + c, b, 3, padding=1)
        self.leave = nn.Conv3d(a + b, a, 3, padding=1)
        self.read = nn.Conv3d(a, 1, 1)

    def forward(self, images: Tensor, healthy: Tensor, present: Tensor) -> Tensor:
        """Return n, (B, 1, X, Y, Z), at 1 mm.

        Parameters
        ----------
        images, healthy
            x and H, (B, 4, X, Y, Z); any extents.
        present
            (B, 4) one flag per modality.
        """
        extents = images.shape[-3:]
        pad = [p for n in reversed(extents) for p in (0, -n % (4 * BLOCK))]
        blocks, fill = (nnf.avg_pool3d(nnf.pad(image, pad, mode="replicate"), BLOCK) for image in (images, healthy))
        x, y, z = extents
        return _doubled(self.on_blocks(blocks, fill, present))[..., :x, :y, :z]

    def on_blocks(self, images: Tensor, healthy: Tensor, present: Tensor) -> Tensor:
        """Return n on the grid of blocks; arguments as in `forward`, extents multiples of 4."""
        flags = present.to(images)[:, :, None, None, None]
        told = [flags * (images - healthy), flags * healthy, flags.expand_as(images)]
        fine = nnf.silu(self.enter(torch.cat(told, 1)))
        coarse = nnf.silu(self.middle(nnf.avg_pool3d(fine, 2)))
        h = nnf.silu(self.deep(nnf.avg_pool3d(coarse, 2)))
        h = h + nnf.silu(self.wide(h))
        h = nnf.silu(self.rise(torch.cat([_doubled(h), coarse], 1)))
        h = nnf.silu(self.leave(torch.cat([_doubled(h), fine], 1)))
        estimate: Tensor = self.read(h).sigmoid()
        return estimate


def _doubled(h: Tensor) -> Tensor:
    return nnf.interpolate(h, scale_factor=2.0, mode="trilinear", align_corners=False)
