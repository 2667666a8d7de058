"""The refiner's weights on disk (`hybridtumor.weights_file`).

The header holds the schema version, channel names and network sizes, the population's tumour contrast and what the
weights were trained on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hybridtumor import models
from hybridtumor.models.conditioning import FIELDS, VECTOR_SIZE
from hybridtumor.models.contrast import CONTRAST_SHAPE
from hybridtumor.models.denoiser import Denoiser, MeanAndScale, NetworkSizes
from hybridtumor.models.resolution import WORKING_SPACING
from hybridtumor.scan import LABELS, MODALITIES
from hybridtumor.weights_file import read_weights, write_weights

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
        "schema_version": SCHEMA_VERSION,
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
    header = {
        **interface(),
        "sizes": sizes.as_dict(),
        "population_contrast": np.round(population.astype(float), 4).tolist(),
        "training": training,
    }
    write_weights(path, tensors, header)


def load_weights(path: Path = SHIPPED) -> RefinerWeights:
    """Read and check weights.

    Raises
    ------
    ResourceError
        Weights or header are missing, damaged, not finite, or made for another version of the program.
    """
    weights = read_weights(path, "refiner weights", interface(), _sizes_and_population)
    sizes, population = weights.facts
    regression, denoiser = MeanAndScale(sizes.mean), Denoiser(sizes.denoiser)
    weights.fill(regression, "regression.")
    weights.fill(denoiser, "denoiser.")
    return RefinerWeights(regression.eval(), denoiser.eval(), population, weights.header)


def _sizes_and_population(header: dict[str, Any]) -> tuple[NetworkSizes, NDArray[np.float32]]:
    """Return what builds the networks, and the population's contrast."""
    sizes = NetworkSizes(**{k: tuple(v) for k, v in header["sizes"].items()})
    population = np.array(header["population_contrast"], np.float32)
    if population.shape != CONTRAST_SHAPE:
        raise ValueError(f"expected a population contrast of shape {CONTRAST_SHAPE}, got {population.shape}")
    return sizes, population
