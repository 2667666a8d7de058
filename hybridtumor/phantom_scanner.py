r"""Scanners of phantoms: from what there is to see to four modalities in scanner units.

    S_m = Σ_k p_k S(T1_k, T2_k, PD_k; TR_m, TE_m, TI_m) (1 + t),    I_m = Γ_m( | b · (G_m ∗ S_m) + ε | )

S is the signal equation (`hybridtumor.models.mr_signal`) with relaxation times and timings that differ from phantom to
phantom, p_k the shares of tissue, tumour, scar and fluid, t the texture, G_m the blur of the acquisition (wider along
the slice), b a bias field, ε Rician noise and Γ_m a gain curve. One scanner makes all scans of a phantom.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.models import mr_signal
from hybridtumor.models.heterogeneity import smooth_noise
from hybridtumor.models.mr_signal import EDEMA_WEIGHT, SCALE, Relaxation, Sequence, signal
from hybridtumor.phantom_looks import Looks, Scenery
from hybridtumor.scan import MODALITIES

Array = NDArray[np.float32]

NON_ENHANCING = Relaxation(1700, 170, 0.88, 1650)
"""Core of a tumour that takes up no contrast agent."""

FLUID = Relaxation(3400, 1200, 1.0, 3400)
"""In a cavity: more protein than CSF has."""

SPREAD_HEALTHY, SPREAD_TUMOUR = 0.05, 0.15
"""Standard deviation of the logarithm of relaxation times."""

SPIN_ECHO = Sequence(tr=600, te=10)
"""The other way to weight by T1; some scanners take it."""

HEALTHY_SHARE = 0.25
"""Share of the tumour's mottle that healthy tissue has."""


@dataclass(frozen=True, eq=False)
class Scanner:
    """How one phantom is scanned.

    Parameters
    ----------
    tissues, sequences
        Relaxation by tissue, timings by modality.
    bias
        (X, Y, Z).
    blur
        (4, 3) standard deviation of each modality along each axis, voxels.
    noise, gamma
        (4,) standard deviation of the noise, scanner units, and exponent of the gain curve.
    grain
        Width of the noise, voxels.
    """

    tissues: Mapping[str, Relaxation]
    sequences: Mapping[str, Sequence]
    bias: Array
    blur: NDArray[np.float64]
    noise: NDArray[np.float64]
    gamma: NDArray[np.float64]
    grain: float


def random_scanner(rng: np.random.Generator, shape: tuple[int, int, int], spacing: float) -> Scanner:
    """Draw a scanner for images of a shape and spacing, mm."""
    known = {**mr_signal.TISSUES, "core": NON_ENHANCING, "fluid": FLUID}
    tissues = {name: _another(rng, t, name in ("white", "grey", "csf")) for name, t in known.items()}
    sequences = {name: _retimed(rng, s) for name, s in mr_signal.SEQUENCES.items()}
    if rng.random() < 0.4:
        sequences["T1w"] = _retimed(rng, SPIN_ECHO)
    if rng.random() < 0.25:
        sequences["T1ce"] = _retimed(rng, replace(SPIN_ECHO, gadolinium=True))
    blur = np.tile(rng.uniform(0.2, 0.6, (len(MODALITIES), 1)), 3)
    for m in range(len(MODALITIES)):
        if rng.random() < 0.5:
            blur[m, rng.integers(3)] = rng.uniform(0.6, 1.6)
    return Scanner(
        tissues,
        sequences,
        np.exp(rng.uniform(0.0, 0.08) * smooth_noise(rng, shape, 40.0 / spacing)).astype(np.float32),
        blur / spacing,
        rng.uniform(3, 12, len(MODALITIES)),
        rng.uniform(0.8, 1.25, len(MODALITIES)),
        float(rng.uniform(0, 0.7)),
    )


def scanned(scene: Scenery, looks: Looks, scanner: Scanner, rng: np.random.Generator) -> dict[str, Array]:
    """Return the four modalities, scanner units, 0 outside the head; `rng` gives the noise."""
    head = scene.tissue.head
    scans = {}
    for m, name in enumerate(MODALITIES):
        pure = ideal(scene, looks, scanner, m)
        sigma = scanner.blur[m]
        weight = np.maximum(ndimage.gaussian_filter(head.astype(np.float32), sigma), 1e-3)
        seen = np.where(head, ndimage.gaussian_filter(pure, sigma) / weight * scanner.bias, 0)
        noisy = _noisy(seen.astype(np.float32), float(scanner.noise[m]), scanner.grain, rng)
        scans[name] = np.asarray(np.where(head, SCALE * (noisy / SCALE) ** scanner.gamma[m], 0), np.float32)
    return scans


def ideal(scene: Scenery, looks: Looks, scanner: Scanner, m: int) -> Array:
    """Return modality `m` (its place in MODALITIES) without blur, bias, noise and gain, (X, Y, Z)."""
    modality = MODALITIES[m]
    sequence = scanner.sequences[modality]

    def level(name: str) -> np.float32:
        return np.float32(SCALE * signal(scanner.tissues[name], sequence))

    necrosis, oedema, rim = scene.labels
    tissue = scene.tissue
    wet = EDEMA_WEIGHT * (oedema + scene.scar * (1 - scene.labels.sum(axis=0)))
    healthy = 1 - necrosis - rim - wet
    visible = scene.labels.sum(axis=0)
    texture = (1 - visible) * (scene.texture + HEALTHY_SHARE * looks.mottle[m]) + visible * looks.mottle[m]
    taken_up, without = level("enhancing"), level("enhancing")
    if sequence.gadolinium:
        without = np.float32(SCALE * signal(scanner.tissues["enhancing"], replace(sequence, gadolinium=False)))
    enhancing = without + looks.uptake * (taken_up - without)
    total = healthy * (tissue.white * level("white") + tissue.grey * level("grey") + tissue.csf * level("csf"))
    total += wet * (tissue.white + tissue.grey) * level("edema") + wet * tissue.csf * level("csf")
    total += necrosis * level("necrosis" if looks.enhances else "core") + rim * enhancing
    total *= 1 + texture
    total += scene.wall * (enhancing - total) if sequence.gadolinium else 0
    total += _vessels(looks.vessels, modality, total, taken_up)
    total += scene.cavity * (level("fluid") - total)
    return np.asarray(np.maximum(total, 0) * tissue.head, np.float32)


def _vessels(vessels: Array, modality: str, total: Array, bright: np.float32) -> Array:
    """Return what vessels add to a modality: contrast agent makes them bright, flowing blood dark."""
    if modality == "T1ce":
        return np.asarray(vessels * np.maximum(1.15 * bright - total, 0))
    return np.asarray(-np.float32({"T1w": 0.15, "T2w": 0.6, "FLAIR": 0.4}[modality]) * vessels * total)


def _another(rng: np.random.Generator, tissue: Relaxation, healthy: bool) -> Relaxation:
    """Return a tissue with other relaxation times; gadolinium shortens T1 by a factor that varies too."""
    spread = SPREAD_HEALTHY if healthy else SPREAD_TUMOUR
    t1, t2, agent = np.exp(spread * rng.standard_normal(3) * (1, 1, 0.5))
    return Relaxation(tissue.t1 * t1, tissue.t2 * t2, tissue.pd, tissue.t1_gadolinium * t1 * (1 if healthy else agent))


def _retimed(rng: np.random.Generator, sequence: Sequence) -> Sequence:
    """Return a sequence with other timings; the inversion time keeps its place in the recovery."""
    return replace(sequence, tr=sequence.tr * rng.uniform(0.85, 1.15), te=sequence.te * rng.uniform(0.85, 1.15))


def _noisy(scan: Array, deviation: float, grain: float, rng: np.random.Generator) -> Array:
    """Return a scan with Rician noise of a grain, of the same deviation for every grain."""
    channels = []
    for _ in range(2):
        noise = rng.standard_normal(scan.shape, np.float32)
        if grain > 0.2:
            noise = ndimage.gaussian_filter(noise, grain)
            noise /= float(noise.std())
        channels.append(np.float32(deviation) * noise)
    return np.asarray(np.hypot(scan + channels[0], channels[1]), np.float32)
