"""The density net's weights on disk: one safetensors file and a JSON header that says what they are.

The header holds the schema version, the modalities, the widths of the net, what it was trained on and the SHA-256 of
the safetensors file. Nothing is unpickled, and weights that do not match their header are refused.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from hybridtumor import models
from hybridtumor.errors import ResourceError
from hybridtumor.models.density_estimator import BLOCK, DensityNet
from hybridtumor.scan import MODALITIES, write_bytes

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
    payload = save({k: v.detach().cpu().to(torch.float16).contiguous() for k, v in net.state_dict().items()})
    header = {
        **interface(),
        "widths": list(net.widths),
        "training": training,
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    write_bytes(path, payload)
    write_bytes(path.with_suffix(".json"), (json.dumps(header, indent=2, sort_keys=True) + "\n").encode())


def load_density_net(path: Path = SHIPPED) -> DensityNet:
    """Read and check a net; it comes back in evaluation mode.

    Raises
    ------
    ResourceError
        Weights or header are missing, damaged, not finite, or made for another version of the program.
    """
    header = _header(path)
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != header["sha256"]:
        raise ResourceError(
            f"{path}: expected the SHA-256 of its header, the file is damaged or was replaced. Reinstall the package."
        )
    tensors = load(payload)
    net = DensityNet(header["widths"])
    wanted = {name: p.shape for name, p in net.state_dict().items()}
    if wanted != {name: t.shape for name, t in tensors.items()}:
        raise ResourceError(
            f"{path}: expected the tensors of the net in its header, names or shapes differ. Reinstall the package."
        )
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise ResourceError(f"{path}: expected finite weights, got NaN or infinity. Reinstall the package.")
    net.load_state_dict({name: t.float() for name, t in tensors.items()})
    return net.eval()


def _header(path: Path) -> dict[str, Any]:
    """Return the checked header of the weights at `path`."""
    header_path = path.with_suffix(".json")
    missing = [str(p) for p in (path, header_path) if not p.is_file()]
    if missing:
        raise ResourceError(
            f"density net: expected {' and '.join(missing)}, found none. Reinstall the package or train it."
        )
    try:
        header: dict[str, Any] = json.loads(header_path.read_text())
        a, b, c = (int(width) for width in header["widths"])
        digest = str(header["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResourceError(
            f"{header_path}: expected the header of a density net, it is damaged ({error}). Reinstall the package."
        ) from error
    different = sorted(k for k, v in interface().items() if header.get(k) != v)
    if different or min(a, b, c) < 1:
        raise ResourceError(
            f"{path}: expected a density net for this version, it differs in {', '.join(different) or 'widths'}."
            " Train or install a matching one."
        )
    return {**header, "widths": (a, b, c), "sha256": digest}
