r"""MONAI's diffusion U-Net behind the interface of ours (`hybridtumor.models.unet.UNet`), for comparison.

    out = F(x, v),    F: residual blocks whose embedding is τ(0) + E v

F is `DiffusionModelUNet` (MONAI, Apache-2.0; Pinaya et al., MICCAI workshop DGM4MICCAI 2022): per level one residual
block down and two up, strided convolutions between levels, two blocks around an attention in the middle, no attention
elsewhere. Its own time is left at 0 (τ(0) is a learned bias), since the noise level is part of the vector v, as for our
U-Net; v enters through MONAI's embedding of classes, in whose place a perceptron E stands, so every residual block is
shifted by it. (Ours also scales: FiLM.) An untrained network returns zero, as ours.
"""

from torch import Tensor, nn

from hybridtumor.errors import ResourceError

GROUPS = 8


class MonaiUNet(nn.Module):
    """U-Net (B, c_in, X, Y, Z) → (B, c_out, X, Y, Z); extents are multiples of 2^(levels − 1).

    Parameters
    ----------
    c_in, c_out
        Channels in and out.
    vector
        Size of the conditioning vector.
    widths
        Channels per level, multiples of 8.

    Raises
    ------
    ResourceError
        MONAI, or einops which its attention needs, is not installed.
    """

    def __init__(self, c_in: int, c_out: int, vector: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.net = _diffusion_unet(c_in, c_out, widths)
        size = 4 * widths[0]
        self.net.class_embedding = nn.Sequential(nn.Linear(vector, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Return the network's output for images `x` and conditioning vectors `vector` (B, vector)."""
        out: Tensor = self.net(x, timesteps=x.new_zeros(len(x)), class_labels=vector)
        return out


def _diffusion_unet(c_in: int, c_out: int, widths: tuple[int, ...]) -> nn.Module:
    try:
        from monai.networks.nets import DiffusionModelUNet

        made: nn.Module = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=c_in,
            out_channels=c_out,
            channels=widths,
            num_res_blocks=1,
            attention_levels=(False,) * len(widths),
            norm_num_groups=GROUPS,
            num_head_channels=GROUPS,
            num_class_embeds=1,
        )
    except ImportError as error:
        raise ResourceError(
            "MONAI's backbone: expected the packages monai and einops, got an error on import. "
            "Install them, or use our U-Net."
        ) from error
    return made
