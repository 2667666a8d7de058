r"""Which density shows as what on MRI.

Necrosis, oedema and enhancement are where the tumour cell density n lies between the imaging thresholds τ:

    oedema τ_e < n ≤ τ_c,   enhancement τ_c < n ≤ τ_n,   necrosis n > τ_n

(Lipková et al., IEEE Trans. Med. Imaging 2019; Ezhov et al. 2022). A tumour that does not enhance shows its whole core
as non-enhancing tumour, the label that BraTS shares with necrosis. The soft fractions replace each step by a logistic
of width w, so that images change smoothly with n; they add up to the visibility, which is 0 for no tumour. No scan is
sharper than its resolution: what is seen of a fraction f in a head h is

    (G ∗ h f) / (G ∗ h)        inside the head, G a Gaussian
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.grid import BoolArray
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABEL_CONVENTIONS, LABELS

SOFTNESS = 0.03
"""Width w of the logistic steps, in units of density."""

RESOLUTION = 0.7
"""mm. Standard deviation of G. On the seven training cases it gains the render 0.02 to 0.19 dB, 0.10 on average, and
−0.001 to 0.017 in SSIM, 0.009 on average; 1 mm gains as much, 1.5 mm less.
"""

REACH = 3.0
"""G is cut off at this many standard deviations."""


def label_fractions(
    density: NDArray[np.floating],
    thresholds: ImagingThresholds,
    *,
    enhances: bool = True,
    softness: float = SOFTNESS,
) -> NDArray[np.float32]:
    """Return the soft fractions in [0, 1], (3, *density.shape), in the order of `hybridtumor.scan.LABELS`."""
    n = np.asarray(density, np.float32)

    def step(threshold: float) -> NDArray[np.float32]:
        at_zero = 1 / (1 + np.exp(threshold / softness))
        rise = 1 / (1 + np.exp(-(n - threshold) / softness))
        return np.asarray((rise - at_zero) / (1 - at_zero), np.float32)  # exactly 0 where there is no cell

    visible, core, dead = step(thresholds.edema), step(thresholds.enhancing), step(thresholds.necrosis)
    necrosis = dead if enhances else core
    return np.stack([necrosis, visible - core, core - necrosis])


def seen_fractions(
    density: NDArray[np.floating],
    thresholds: ImagingThresholds,
    head: BoolArray,
    voxel_size: NDArray[np.float64],
    *,
    enhances: bool = True,
) -> NDArray[np.float32]:
    """Return the soft fractions of (X, Y, Z) at the resolution of a scan, (3, X, Y, Z); 0 outside the head."""
    sigma = RESOLUTION / voxel_size

    def blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(ndimage.gaussian_filter(values * head, sigma, truncate=REACH, mode="constant"), np.float32)

    share = np.maximum(blurred(np.ones(head.shape, np.float32)), 1e-3)
    fractions = label_fractions(density, thresholds, enhances=enhances)
    return np.stack([blurred(fraction) / share * head for fraction in fractions])


def label_map(
    density: NDArray[np.floating],
    thresholds: ImagingThresholds,
    *,
    enhances: bool = True,
    convention: str = "brats2021",
) -> NDArray[np.uint8]:
    """Return the hard segmentation of a density, same shape, with the codes of a label convention."""
    codes = LABEL_CONVENTIONS[convention]
    core = "enhancing" if enhances else "necrosis"
    result = np.zeros(np.shape(density), np.uint8)
    result[density > thresholds.edema] = codes["edema"]
    result[density > thresholds.enhancing] = codes[core]
    result[density > thresholds.necrosis] = codes["necrosis"]
    return result


def visible_volumes(
    density: NDArray[np.floating],
    voxel_volume: float,
    thresholds: ImagingThresholds,
    *,
    enhances: bool = True,
) -> dict[str, float]:
    """Return the volume of each label in a density, mm³."""
    labels = label_map(density, thresholds, enhances=enhances)
    codes = LABEL_CONVENTIONS["brats2021"]
    return {name: float(np.count_nonzero(labels == codes[name])) * voxel_volume for name in LABELS}
