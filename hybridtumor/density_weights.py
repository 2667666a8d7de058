"""The density net's weights on disk (`hybridtumor.weights_file`).

The header holds the schema version, the modalities, the widths of the net and what it was trained on.
"""

from pathlib import Path
from typing import Any

from hybridtumor import models
from hybridtumor.models.density_estimator import BLOCK, DensityNet
from hybridtumor.scan import MODALITIES
from hybridtumor.weights_file import read_weights, write_weights

SCHEMA_VERSION = 1
SHIPPED = Path(models.__path__[0]) / "weights" / "density.safetensors"
"""The weights that come with the package."""


def interface() -> dict[str, Any]:
    """Return what net and program have to agree on."""
    return {
        "schema_version": SCHEMA_VERSION,
        "modalities": list(MODALITIES),
        "block_mm": BLOCK,
        "normalisation": "(intensity - median) / (q98 - q2) over healthy brain",
    }


def save_density_net(path: Path, net: DensityNet, training: dict[str, Any]) -> None:
    """Write a net in half precision and its header beside it; `training` says on what and how it was trained."""
    write_weights(path, net.state_dict(), {**interface(), "widths": list(net.widths), "training": training})


def load_density_net(path: Path = SHIPPED) -> DensityNet:
    """Read and check a net; it comes back in evaluation mode.

    Raises
    ------
    ResourceError
        Weights or header are missing, damaged, not finite, or made for another version of the program.
    """
    weights = read_weights(path, "a density net", interface(), _widths)
    net = DensityNet(weights.facts)
    weights.fill(net)
    return net.eval()


def _widths(header: dict[str, Any]) -> tuple[int, int, int]:
    """Return the widths of the net."""
    a, b, c = (int(width) for width in header["widths"])
    if min(a, b, c) < 1:
        raise ValueError(f"expected widths of at least 1, got {a}, {b}, {c}")
    return a, b, c
