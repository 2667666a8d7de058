"""The refiner's weights on disk: one safetensors file and a JSON header that says what they are.

The header holds the schema version, channel names and network sizes, the population's tumour contrast, what the
weights were trained on and the SHA-256 of the safetensors file. Nothing is unpickled, and weights that do not match
their header are refused.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn

from hybridtumor import models
from hybridtumor.errors import ResourceError
from hybridtumor.models.conditioning import FIELDS, VECTOR_SIZE
from hybridtumor.models.contrast import CONTRAST_SHAPE
from hybridtumor.models.denoiser import Denoiser, MeanAndScale, NetworkSizes
from hybridtumor.models.resolution import WORKING_SPACING
from hybridtumor.scan import LABELS, MODALITIES, write_bytes

SCHEMA_VERSION = 2
SHIPPED = Path(models.__path__[0]) / "weights" / "refiner.safetensors"
"""The weights that come with the package."""


@dataclass(frozen=True, eq=False)
class RefinerWeights:
    """Two networks ready for use, and what they were trained with.

    Parameters
    ----------
    regression, denoiser
        In evaluation mode.
    population
        (3, 4) contrast of a typical glioma among the training cases.
    header
        The JSON header.
    """

    regression: MeanAndScale
    denoiser: Denoiser
    population: NDArray[np.float32]
    header: dict[str, Any]


def interface() -> dict[str, Any]:
    """Return what networks and program have to agree on."""
    return {
        "modalities": list(MODALITIES),
        "labels": list(LABELS),
        "fields": list(FIELDS),
        "vector_size": VECTOR_SIZE,
        "working_spacing_mm": WORKING_SPACING,
        "normalisation": "(intensity - median) / (q98 - q2) over healthy brain",
    }


def save_weights(
    path: Path,
    regression: dict[str, Tensor],
    denoiser: dict[str, Tensor],
    sizes: NetworkSizes,
    population: NDArray[np.float32],
    training: dict[str, Any],
) -> None:
    """Write averaged weights in half precision, and their header beside them.

    Parameters
    ----------
    regression, denoiser
        Parameter name to tensor.
    training
        Data, steps and options, for the header.
    """
    tensors = {f"regression.{k}": v for k, v in regression.items()} | {f"denoiser.{k}": v for k, v in denoiser.items()}
    payload = save({k: v.detach().cpu().to(torch.float16).contiguous() for k, v in tensors.items()})
    header = {
        "schema_version": SCHEMA_VERSION,
        **interface(),
        "sizes": sizes.as_dict(),
        "population_contrast": np.round(population.astype(float), 4).tolist(),
        "training": training,
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    write_bytes(path, payload)
    write_bytes(path.with_suffix(".json"), (json.dumps(header, indent=2, sort_keys=True) + "\n").encode())


def load_weights(path: Path = SHIPPED) -> RefinerWeights:
    """Read and check weights.

    Raises
    ------
    ResourceError
        Weights or header are missing, damaged, not finite, or made for another version of the program.
    """
    header_path = path.with_suffix(".json")
    missing = [str(p) for p in (path, header_path) if not p.is_file()]
    if missing:
        raise ResourceError(
            f"refiner weights: expected {' and '.join(missing)}, found none. Reinstall the package or train them."
        )
    payload = path.read_bytes()
    try:
        header: dict[str, Any] = json.loads(header_path.read_text())
        sizes = NetworkSizes(**{k: tuple(v) for k, v in header["sizes"].items()})
        population = np.array(header["population_contrast"], np.float32)
        digest, version = header["sha256"], header["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResourceError(
            f"{header_path}: expected the header of refiner weights, it is damaged ({error}). Reinstall the package."
        ) from error
    if hashlib.sha256(payload).hexdigest() != digest:
        raise ResourceError(
            f"{path}: expected the SHA-256 of its header, the file is damaged or was replaced. Reinstall the package."
        )
    different = sorted(k for k, v in interface().items() if header.get(k) != v)
    if version != SCHEMA_VERSION or different or population.shape != CONTRAST_SHAPE:
        raise ResourceError(
            f"{path}: expected weights of schema {SCHEMA_VERSION}, got {version} (differs: {different})."
            " Train or install matching weights."
        )
    tensors = load(payload)
    regression, denoiser = MeanAndScale(sizes.mean), Denoiser(sizes.denoiser)
    for prefix, network in (("regression.", regression), ("denoiser.", denoiser)):
        _fill(path, network, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return RefinerWeights(regression.eval(), denoiser.eval(), population, header)


def _fill(path: Path, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors into a network after checking names, shapes and values."""
    wanted = {name: tuple(p.shape) for name, p in network.named_parameters()}
    if wanted != {name: tuple(t.shape) for name, t in tensors.items()}:
        raise ResourceError(
            f"{path}: expected the tensors of the network in its header, names or shapes differ. Reinstall the package."
        )
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise ResourceError(f"{path}: expected finite weights, got NaN or infinity. Reinstall the package.")
    network.load_state_dict({name: t.float() for name, t in tensors.items()})
