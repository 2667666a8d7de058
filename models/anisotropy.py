r"""Diffusion along white-matter tracts: a full tensor in place of a scalar.

    ∂u/∂t = ∇·(D ∇u) + …,      D = D_w·white·T̂ + D_g·grey·I

D_w and D_g are the diffusivities in white and grey matter (mm²/day), T̂ the tensor of water diffusion
normalised to unit mean diffusivity, tr T̂ = 3: the water tells directions and their ratios, not how fast cells move. A
unit tensor gives the scalar D back. Cells may follow tracts more strictly than water does: the eigenvalues λ₁ ≥ λ₂ ≥ λ₃
of T̂ are scaled by a factor r ≥ 1 and T̂ is normalised again,

    λ₁ (r c_l + r c_p + c_s),   λ₂ (c_l + r c_p + c_s),   λ₃,

with the linear, planar and spherical shares c_l = (λ₁ − λ₂)/tr T̂, c_p = 2 (λ₂ − λ₃)/tr T̂, c_s = 3 λ₃/tr T̂
(Jbabdi et al., Magn. Reson. Med. 2005). r = 1 leaves the tensor as measured, and where it is isotropic every r does.

In tissue that moves with deformation gradient F, J = det F, cells are counted where the tissue was on day 0. The
conserved quantity is J u, and the diffusion of u there has the tensor

    D₀ = J F⁻¹ D F⁻ᵀ,

with D in the axes of the moved tissue: J ∂u/∂t = Div(D₀ Grad u). It stays symmetric and positive semi-definite.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import ufl
from numpy.typing import NDArray

from hybridtumor.diffusion_tensor import COMPONENTS, symmetric, unit_mean
from hybridtumor.errors import InputError

__all__ = ["COMPONENTS", "pulled_back", "sharpened", "symmetric", "tensor_form", "tissue_tensor", "unit_mean"]

Array = NDArray[np.float64]


def tensor_form(u: Any, v: Any, components: Sequence[Any], fraction: Any) -> Any:
    """Return the UFL form ∫ φ ∇u·(D ∇v) dx.

    Parameters
    ----------
    u, v
        Trial and test function.
    components
        D xx, xy, xz, yy, yz, zz, mm²/day, constant in each cell.
    fraction
        φ, the share of each cell that is parenchyma.
    """
    xx, xy, xz, yy, yz, zz = components
    tensor = ufl.as_matrix([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return fraction * ufl.inner(ufl.grad(u), ufl.dot(tensor, ufl.grad(v))) * ufl.dx


def tissue_tensor(white: Array, grey: Array, diffusion: tuple[float, float], tensor: Array) -> Array:
    """Return D = D_w·white·T̂ + D_g·grey·I, (m, 3, 3), mm²/day.

    Parameters
    ----------
    white, grey
        Volume fractions of the tissues in each cell, (m,).
    diffusion
        D in white and in grey matter, mm²/day.
    tensor
        Tensor of water diffusion in each cell, (m, 3, 3), any unit; zero where it is not known.
    """
    in_white, in_grey = (np.asarray(d * f)[:, None, None] for d, f in zip(diffusion, (white, grey), strict=True))
    return np.asarray(in_white * unit_mean(tensor) + in_grey * np.eye(3))


def sharpened(tensor: Array, factor: float) -> Array:
    """Return T̂ with its anisotropy scaled by r, (..., 3, 3); unit tensors where `tensor` is zero.

    Parameters
    ----------
    tensor
        Symmetric and positive semi-definite, (..., 3, 3).
    factor
        r ≥ 1.
    """
    if not 1 <= factor < np.inf:
        raise InputError(f"anisotropy: expected a factor of at least 1, got {factor:g}.")
    ascending, vectors = np.linalg.eigh(unit_mean(tensor))
    third, second, first = np.moveaxis(ascending, -1, 0)
    linear, planar, spherical = (first - second) / 3, 2 * (second - third) / 3, third
    scaled = [third, second * (linear + factor * planar + spherical), first * (factor * (linear + planar) + spherical)]
    return unit_mean(vectors * np.stack(scaled, -1)[..., None, :] @ vectors.swapaxes(-1, -2))


def pulled_back(diffusion: Array, deformation: Array) -> Array:
    """Return D₀ = J F⁻¹ D F⁻ᵀ, (m, 3, 3), mm²/day.

    Parameters
    ----------
    diffusion
        D in each cell in the axes of the moved tissue, (m, 3, 3), or a scalar for each, (m,); mm²/day.
    deformation
        F = ∂x/∂X in each cell, (m, 3, 3).

    Raises
    ------
    InputError
        F turns a cell inside out.
    """
    volume = np.linalg.det(deformation)
    if not volume.min(initial=1.0) > 0:
        raise InputError(
            f"anisotropy: expected a deformation with positive volumes, got det F down to {volume.min():.3g}."
            " Use smaller mechanical steps or less growth strain."
        )
    inverse = np.linalg.inv(deformation)
    moved = diffusion[:, None, None] * inverse if diffusion.ndim == 1 else inverse @ diffusion
    result = volume[:, None, None] * (moved @ inverse.swapaxes(1, 2))
    return np.asarray((result + result.swapaxes(1, 2)) / 2)
