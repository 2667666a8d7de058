r"""Growth of an infiltrating glioma: reaction and diffusion of the tumour cell density.

    ∂u/∂t = ∇·(D ∇u) + ρ g(u) − k u   in Ω,      D ∇u·n = 0   on ∂Ω

u(x, t) ∈ [0, 1] is the cell density as a fraction of carrying capacity, D = D_w·white + D_g·grey the
diffusivity (mm²/day) by the volume fractions of white and grey matter, ρ the proliferation rate (1/day), k
the kill rate of therapy (1/day) and Ω the brain parenchyma: ventricles and outer CSF are barriers. g(u) is
logistic, u (1 − u), or Gompertz, u ln(1/u) (Swanson et al., Cell Prolif. 2000; Lipková et al., IEEE Trans.
Med. Imaging 2019).

Without diffusion both laws have closed-form flows over a step Δt with log-kill L = ∫ k dt spread evenly over
it:

    logistic  u ↦ u e^z / (1 + ρ Δt u φ(z)),           z = ρ Δt − L
    Gompertz  u ↦ u^E exp(−L φ(−ρ Δt)),                E = e^{−ρ Δt}

with φ(z) = (e^z − 1)/z. They map [0, 1] into itself, rise with u, fall with L, and leave u = 0 at 0.
"""

from typing import Any

import numpy as np
import ufl
from numpy.typing import NDArray

from hybridtumor.parameters import GrowthLaw

Array = NDArray[np.float64]


def diffusion_form(
    u: Any, v: Any, white: Any, grey: Any, diffusion_white: Any, diffusion_grey: Any, fraction: Any
) -> Any:
    """Return the UFL form ∫ φ D ∇u·∇v dx.

    Parameters
    ----------
    u, v
        Trial and test function.
    white, grey
        Volume fractions of the tissues in each cell.
    diffusion_white, diffusion_grey
        D of the tissues, mm²/day.
    fraction
        φ, the share of each cell that is parenchyma.
    """
    diffusivity = diffusion_white * white + diffusion_grey * grey
    return fraction * diffusivity * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx


def logistic_flow(u: Array, rate: float, duration: float, log_kill: float = 0.0) -> Array:
    """Return the solution of u' = ρ u (1 − u) − (L/Δt) u after Δt, exactly.

    Parameters
    ----------
    u
        Density, any shape, in [0, 1].
    rate
        ρ, 1/day.
    duration
        Δt, days.
    log_kill
        L ≥ 0 over the step.
    """
    z = rate * duration - log_kill
    decay = np.exp(-abs(z))
    crowding = rate * duration * _phi(-abs(z)) * u
    grown = u / (decay + crowding) if z >= 0 else u * decay / (1 + crowding)
    return np.asarray(grown)


def gompertz_flow(u: Array, rate: float, duration: float, log_kill: float = 0.0) -> Array:
    """Return the solution of u' = ρ u ln(1/u) − (L/Δt) u after Δt, exactly; arguments as for `logistic_flow`."""
    return np.asarray(u ** np.exp(-rate * duration) * np.exp(-log_kill * _phi(-rate * duration)))


def reaction_flow(law: GrowthLaw, u: Array, rate: float, duration: float, log_kill: float = 0.0) -> Array:
    """Return the density after growth by `law` and kill; arguments as for `logistic_flow`."""
    flow = logistic_flow if law == "logistic" else gompertz_flow
    return flow(u, rate, duration, log_kill)


def surviving(u: Array, log_kill: Array | float) -> Array:
    """Return u e^{−L}: what an event of log-kill L, such as a fraction of radiation, leaves."""
    return np.asarray(u * np.exp(-np.asarray(log_kill)))


def _phi(z: float) -> float:
    """Return (e^z − 1)/z, 1 at z = 0."""
    return float(np.expm1(z) / z) if z != 0 else 1.0
