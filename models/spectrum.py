r"""Power spectrum of the remainder r, and the linear denoiser that follows from it.

Residuals of a tumour image are smooth over several millimetres. Averaged over the training cases their spectrum is

    S(k) = A (1 + |k|²/k₀²)^{−p},    A such that r has unit variance

(k in cycles per working voxel of 1 mm; a Matérn covariance). A Gaussian field of this spectrum seen in white noise σ is
estimated best by Wiener's filter

    W_σ(k) = S / (S + σ²),    with mean squared error  e(σ)² = ⟨ S σ² / (S + σ²) ⟩_k

which is what the preconditioning of Karras et al. becomes for coloured data: the network has only to add what no
linear filter can know. What reaches the band b of a Haar packet (`hybridtumor.models.haar`) with filter h_b is

    v_b = ⟨ f(S) |ĥ_b|² ⟩_k        for the variance of a field of spectrum f(S)
"""

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor

from hybridtumor.models.haar import filters

CORNER = 0.033
"""k₀, cycles per mm. Fitted to the residuals of six training cases and four modalities, which agree within ±0.3 in
log₁₀ S up to the Nyquist frequency.
"""

EXPONENT = 2.0
"""p. Fitted likewise (1.99)."""

QUADRATURE = 64
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


def band_variances(level: Tensor, levels: int) -> dict[str, Tensor]:
    """Return the variances of Haar bands of data, of Wiener's estimate and of its error, (B, 8^levels) each.

    Parameters
    ----------
    level
        Noise levels σ, (B,).
    levels
        Of the packet.
    """
    each = [_variances_at(float(sigma), levels) for sigma in level.detach()]
    return {name: torch.stack([one[name] for one in each]).to(level) for name in ("data", "estimate", "error")}


@lru_cache(maxsize=256)
def _variances_at(sigma: float, levels: int) -> dict[str, Tensor]:
    """Return the variances for one noise level, (8^levels,) each; a sampler asks for the same few again and again."""
    s = spectrum(_squared_frequency(QUADRATURE, QUADRATURE, QUADRATURE, full=True)).to(torch.float32)
    gain = s / (s + sigma**2)
    parts = {"data": s, "estimate": gain * s, "error": gain * sigma**2}
    h = _responses(levels)
    return {name: torch.einsum("ijk,ai,bj,ck->abc", f, h, h, h).ravel() / QUADRATURE**3 for name, f in parts.items()}


@cache
def _responses(levels: int) -> Tensor:
    """Return |ĥ(k)|² of every filter along one axis, (2^levels, QUADRATURE)."""
    h = filters(levels)
    phase = torch.outer(torch.arange(h.shape[1]), torch.fft.fftfreq(QUADRATURE, dtype=torch.float64))
    transform = h.to(torch.complex128) @ torch.exp(-2j * torch.pi * phase)
    return (transform.abs() ** 2).to(torch.float32)


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
