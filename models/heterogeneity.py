r"""Heterogeneity of tumours: random regions with borders, not clouds.

Residuals of real tumours on their label means have a power spectrum that falls as k⁻⁴ (`hybridtumor.models.spectrum`),
which is the law of sharp interfaces in three dimensions (Porod, Kolloid-Zeitschrift 1951). A Gaussian field of that
spectrum is a rough cloud; cysts, necroses, lobules and septa have borders. Here they are cuts of smooth Gaussian fields
g_j of width ℓ_j,

    h_m = Σ_j a_jm φ_j,    φ_j = tanh((g_j − q_j)/w_j)  or, for thin walls,  exp(−((g_j − q_j)/w_j)²)

with random level q, steepness 1/w and amplitude a ~ N(0, ℓ/(J ℓ_max)), correlated between modalities: what is small is
faint. Borders are as sharp as a scan, and every h_m has zero mean. Training examples are painted with h, and the
reverse process starts from it (`hybridtumor.solvers.place_noise`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.models.resolution import interpolate
from hybridtumor.scan import MODALITIES

Array = NDArray[np.float32]

REGIONS = (2, 7)
"""Number of cuts J, half open."""

WIDTH = (1.8, 14.0)
"""mm. Range of ℓ, log-uniform."""

STEEPNESS = (0.04, 0.8)
"""Range of w in units of the deviation of g, log-uniform: from a wall to a slope."""

THIN = 0.25
"""Share of cuts that are thin walls."""

DEVIATION = 0.45
"""⟨h²⟩^½ over draws and places (2000 draws)."""

SOFTNESS = 0.6
"""mm. Standard deviation of the blur of borders."""

COMMON = 0.6
"""Share of the amplitude's variance that all modalities have in common, up to its sign."""


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> Array:
    """Return Gaussian noise smoothed over `width` voxels, zero mean and unit variance; wide ones from fewer nodes."""
    factor = max(1, int(width / 2))
    nodes = [-(-n // factor) + 2 for n in shape]
    field = ndimage.gaussian_filter(rng.standard_normal(nodes, np.float32), width / factor, mode="wrap")
    field = (field - field.mean()) / max(float(field.std()), 1e-6)
    return interpolate(field, factor, shape) if factor > 1 else field[: shape[0], : shape[1], : shape[2]]


@dataclass(frozen=True)
class Cut:
    """How one Gaussian field g is cut: at level q, with steepness 1/w, into two regions or, `thin`, a wall."""

    level: float
    steepness: float
    thin: bool

    def of(self, g: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return φ."""
        x = (g - self.level) / self.steepness
        return np.exp(-(x**2)) if self.thin else np.tanh(x)

    def mean(self) -> float:
        """Return the mean of φ for standard normal g."""
        g = np.linspace(-6, 6, 4001)
        return float(np.average(self.of(g), weights=np.exp(-0.5 * g**2)))


def _cuts(
    rng: np.random.Generator, smooth: Callable[[float], Array], spacing: float
) -> Iterator[tuple[NDArray[np.float64], Cut, Array]]:
    """Yield amplitude (4,), cut and field of every cut; `smooth` gives standard normal noise of a width in voxels."""
    signs = rng.choice([-1.0, 1.0], len(MODALITIES))
    count = int(rng.integers(*REGIONS))
    for _ in range(count):
        width = float(np.exp(rng.uniform(*np.log(WIDTH))))
        field = smooth(width / spacing)
        level = float(rng.normal(0, 0.7))
        steepness = float(np.exp(rng.uniform(*np.log(STEEPNESS))))
        cut = Cut(level, steepness, bool(rng.random() < THIN))
        shared = COMMON**0.5 * rng.standard_normal() * signs
        amplitude = shared + (1 - COMMON) ** 0.5 * rng.standard_normal(len(MODALITIES))
        yield amplitude * (width / (count * WIDTH[1])) ** 0.5, cut, field


def heterogeneity(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> Array:
    """Return h for every modality, (4, X, Y, Z).

    Parameters
    ----------
    shape
        (X, Y, Z).
    spacing
        mm, edge of a voxel.
    """
    total = np.zeros((len(MODALITIES), *shape), np.float32)
    for amplitude, cut, field in _cuts(rng, lambda width: smooth_noise(rng, shape, width), spacing):
        regions = cut.of(field)
        total += _times(amplitude, ndimage.gaussian_filter(regions - regions.mean(), SOFTNESS / spacing))
    return total


def remainder(rng: np.random.Generator, smooth: Callable[[float], Array], spacing: float) -> Array:
    """Return h/⟨h²⟩^½ for every modality, (4, X, Y, Z): of unit variance over all draws and places.

    Parameters
    ----------
    rng
        Of the cuts.
    smooth
        Width in voxels to standard normal noise of that width, (X, Y, Z), another one at every call.
    spacing
        mm, edge of a voxel.
    """
    parts = [
        _times(amplitude, ndimage.gaussian_filter(cut.of(field) - cut.mean(), SOFTNESS / spacing))
        for amplitude, cut, field in _cuts(rng, smooth, spacing)
    ]
    return np.asarray(sum(parts) / np.float32(DEVIATION), np.float32)


def _times(amplitude: NDArray[np.float64], regions: NDArray[np.floating]) -> Array:
    return np.asarray(amplitude.astype(np.float32)[:, None, None, None] * regions.astype(np.float32), np.float32)
