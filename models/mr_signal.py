r"""Which intensity a mixture of tissues has on MRI.

Spin echo after an optional inversion, magnitude image:

    S = PD · |1 − 2 e^{−TI/T1} + e^{−TR/T1}| · e^{−TE/T2}        with inversion (TI, TR, TE in ms)
    S = PD · (1 − e^{−TR/T1}) · e^{−TE/T2}                        without

T1, T2 (ms) and PD (relative to water) are values in common use at 3 T for white matter, grey matter and CSF, and of
the usual order for glioma: vasogenic oedema, viable tumour whose T1 gadolinium shortens, and necrosis. The signal of
a voxel is the sum over its tissues by volume fraction; where tumour is visible its labels
(`hybridtumor.models.visibility`) take the place of the healthy tissue.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.models.visibility import label_fractions
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABELS
from hybridtumor.tissue import TissueMap

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Relaxation:
    """Relaxation times (ms) and proton density of a tissue; `t1_gadolinium` is T1 after contrast agent."""

    t1: float
    t2: float
    pd: float
    t1_gadolinium: float


@dataclass(frozen=True)
class Sequence:
    """Timings of a sequence, ms; without inversion `ti` is None. `gadolinium`: after contrast agent."""

    tr: float
    te: float
    ti: float | None = None
    gadolinium: bool = False


TISSUES: Mapping[str, Relaxation] = {
    "white": Relaxation(850, 75, 0.70, 830),
    "grey": Relaxation(1350, 95, 0.82, 1290),
    "csf": Relaxation(4200, 1900, 1.00, 4200),
    "necrosis": Relaxation(2400, 300, 0.95, 2200),
    "edema": Relaxation(1450, 160, 0.86, 1400),
    "enhancing": Relaxation(1500, 130, 0.88, 640),
}

SEQUENCES: Mapping[str, Sequence] = {
    "T1w": Sequence(tr=2000, te=10, ti=900),
    "T1ce": Sequence(tr=2000, te=10, ti=900, gadolinium=True),
    "T2w": Sequence(tr=4000, te=100),
    "FLAIR": Sequence(tr=9000, te=110, ti=2450),
}
"""Of each of `hybridtumor.scan.MODALITIES`. The inversion time of FLAIR nulls CSF: e^{−TI/T1} = ½(1 + e^{−TR/T1})."""

EDEMA_WEIGHT = 0.75
"""Share of the signal that oedema takes where it shows; the tissue it soaks keeps the rest."""

SCALE = 1000.0
"""Intensity of pure water without any relaxation, in scanner units."""


def signal(tissue: Relaxation, sequence: Sequence) -> float:
    """Return the signal S of a pure tissue, relative to water without any relaxation."""
    t1 = tissue.t1_gadolinium if sequence.gadolinium else tissue.t1
    recovered = 1 - np.exp(-sequence.tr / t1)
    if sequence.ti is not None:
        recovered = abs(1 - 2 * np.exp(-sequence.ti / t1) + np.exp(-sequence.tr / t1))
    return float(tissue.pd * recovered * np.exp(-sequence.te / tissue.t2))


def texture_of(t1: NDArray[np.floating], tissue: TissueMap, *, limit: float = 0.3) -> Float32:
    """Return by which share a T1-weighted image departs from the mean intensity of its tissues.

    t = y / Σ_k p_k m_k − 1 with m_k the least-squares mean of tissue k, smoothly limited to ±`limit`; 0 outside the
    head.
    """
    inside = tissue.head
    fractions = np.stack([tissue.white[inside], tissue.grey[inside], tissue.csf[inside]]).astype(np.float64)
    y = t1[inside].astype(np.float64)
    means = np.linalg.solve(fractions @ fractions.T, fractions @ y)
    texture = np.zeros(t1.shape, np.float32)
    texture[inside] = limit * np.tanh((y / np.maximum(means @ fractions, 1e-6 * y.max()) - 1) / limit)
    return texture


def simulate_scans(
    tissue: TissueMap, texture: Float32, density: NDArray[np.floating], thresholds: ImagingThresholds
) -> dict[str, Float32]:
    """Return the four modalities of a brain with a tumour that enhances, in scanner units, 0 outside the head.

    Parameters
    ----------
    tissue
        Volume fractions of the brain without the tumour.
    texture
        Multiplies every signal by 1 + texture; shape ``tissue.grid.shape``.
    density
        Tumour cell density, fraction of carrying capacity, same shape.
    thresholds
        Densities at which the tumour shows.
    """
    labels = dict(zip(LABELS, label_fractions(density, thresholds), strict=True))
    labels["edema"] = np.float32(EDEMA_WEIGHT) * labels["edema"]
    healthy = 1 - sum(labels.values(), np.zeros(tissue.grid.shape, np.float32))
    parts = {name: healthy * getattr(tissue, name) for name in ("white", "grey", "csf")}
    head = tissue.white + tissue.grey + tissue.csf
    parts |= {name: label * head for name, label in labels.items()}
    scans = {}
    for modality, sequence in SEQUENCES.items():
        total = np.zeros(tissue.grid.shape, np.float32)
        for name, share in parts.items():
            total += np.float32(SCALE * signal(TISSUES[name], sequence)) * share
        scans[modality] = np.maximum(total * (1 + texture), 0)
    return scans


def add_noise(scan: Float32, deviation: float, generator: np.random.Generator) -> Float32:
    """Return a scan with Rician noise, |S + complex Gaussian noise|, where it is not 0."""
    real = scan + generator.normal(0, deviation, scan.shape).astype(np.float32)
    imaginary = generator.normal(0, deviation, scan.shape).astype(np.float32)
    return np.where(scan > 0, np.hypot(real, imaginary), 0).astype(np.float32)
