r"""Power spectrum of the remainder r, and the linear denoiser that follows from it.

Residuals of a tumour image are smooth over several millimetres. Averaged over the training cases their spectrum is

    S(k) = A (1 + |k|²/k₀²)^{−p},    A such that r has unit variance

(k in cycles per working voxel; a Matérn covariance). A Gaussian field of this spectrum seen in white noise σ is
estimated best by Wiener's filter

    W_σ(k) = S / (S + σ²),    with mean squared error  e(σ)² = ⟨ S σ² / (S + σ²) ⟩_k

which is what the preconditioning of Karras et al. becomes for coloured data: the network has only to add what no
linear filter can know.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

CORNER = 0.05
"""k₀, cycles per working voxel: structures of about 6 mm. Fitted to the residuals of the training cases."""

EXPONENT = 1.9
"""p. Fitted likewise."""

QUADRATURE = 32
"""Points per axis for means over k."""


def spectrum(squared_frequency: Tensor) -> Tensor:
    """Return S for |k|², of unit mean over the cube of representable frequencies."""
    return _shape(squared_frequency) / _mean_shape()


def filtered(image: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the Fourier transform of the last three axes of `image` by `gain`(S), S of shape (X, Y, Z/2 + 1)."""
    extents = image.shape[-3:]
    k2 = _squared_frequency(*extents).to(device=image.device, dtype=image.dtype)
    bands = torch.fft.rfftn(image, dim=(-3, -2, -1)) * gain(spectrum(k2))
    result: Tensor = torch.fft.irfftn(bands, s=extents, dim=(-3, -2, -1))
    return result


def wiener(image: Tensor, sigma: Tensor) -> Tensor:
    """Return W_σ applied to (B, C, X, Y, Z) with noise levels (B,)."""
    level = sigma.reshape(-1, 1, 1, 1, 1) ** 2
    return filtered(image, lambda s: s / (s + level))


def wiener_error(sigma: Tensor) -> Tensor:
    """Return e(σ), the root mean square error of Wiener's filter, shape of `sigma`."""
    s = spectrum(_squared_frequency(QUADRATURE, QUADRATURE, QUADRATURE, full=True)).ravel().to(sigma)
    level = sigma[..., None] ** 2
    return (s * level / (s + level)).mean(dim=-1).sqrt()


def _shape(squared_frequency: Tensor) -> Tensor:
    return (1 + squared_frequency / CORNER**2) ** -EXPONENT


@cache
def _mean_shape() -> float:
    return float(_shape(_squared_frequency(64, 64, 64, full=True)).mean())


@cache
def _squared_frequency(x: int, y: int, z: int, *, full: bool = False) -> Tensor:
    kx, ky = (torch.fft.fftfreq(n, dtype=torch.float64) for n in (x, y))
    kz = torch.fft.fftfreq(z, dtype=torch.float64) if full else torch.fft.rfftfreq(z, dtype=torch.float64)
    squared: Tensor = kx[:, None, None] ** 2 + ky[None, :, None] ** 2 + kz[None, None, :] ** 2
    return squared
