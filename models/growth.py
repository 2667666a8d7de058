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

from hybridtumor.parameters import GrowthLaw, GrowthParameters

Array = NDArray[np.float64]

NO_GROWTH = 1e-30
"""ρ Δt below which crowding cannot be told from none in double precision."""

STEEPEST = 700.0
"""Largest exponent of growth over a step that is told apart: e^{−700} is still a number, so that 0 stays 0."""


def diffusivity(growth: GrowthParameters, white: Array, grey: Array) -> Array:
    """Return D = D_w·white + D_g·grey, mm²/day, of the volume fractions of white and grey matter, any shape."""
    return np.asarray(growth.diffusion_white * white + growth.diffusion_grey * grey)


def diffusion_form(u: Any, v: Any, diffusivity: Any, fraction: Any) -> Any:
    """Return the UFL form ∫ φ D ∇u·∇v dx.

    Parameters
    ----------
    u, v
        Trial and test function.
    diffusivity
        D in each cell, mm²/day.
    fraction
        φ, the share of each cell that is parenchyma.
    """
    return fraction * diffusivity * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx


def logistic_flow(u: Array, rate: float | Array, duration: float, log_kill: float | Array = 0.0) -> Array:
    """Return the solution of u' = ρ u (1 − u) − (L/Δt) u after Δt, exactly.

    Parameters
    ----------
    u
        Density, any shape, in [0, 1].
    rate
        ρ, 1/day, one for all or one per entry of `u`.
    duration
        Δt, days.
    log_kill
        L ≥ 0 over the step, one for all or one per entry of `u`.
    """
    growth = rate * duration
    z = growth - log_kill
    crowding = growth * phi(-np.abs(z)) * u
    # numerator and denominator both times e^{−max(z, 0)}: no exponential overflows
    return np.asarray(u * np.exp(np.minimum(z, 0)) / (np.exp(-np.clip(z, 0, STEEPEST)) + crowding))


def gompertz_flow(u: Array, rate: float | Array, duration: float, log_kill: float | Array = 0.0) -> Array:
    """Return the solution of u' = ρ u ln(1/u) − (L/Δt) u after Δt, exactly; arguments as for `logistic_flow`."""
    growth = rate * duration
    return np.asarray(u ** np.exp(-np.minimum(growth, STEEPEST)) * np.exp(-log_kill * phi(-growth)))


def exponential_flow(u: Array, rate: float | Array, duration: float, log_kill: float | Array = 0.0) -> Array:
    """Return the solution of u' = ρ u − (L/Δt) u after Δt, exactly; arguments as for `logistic_flow`.

    It may pass 1, and is infinite where it cannot be told any more.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(u * np.exp(rate * duration - log_kill))


FLOWS = {"logistic": logistic_flow, "gompertz": gompertz_flow, "exponential": exponential_flow}
"""Closed-form flow of each growth law."""


def reaction_flow(
    law: GrowthLaw, u: Array, rate: float | Array, duration: float, log_kill: float | Array = 0.0
) -> Array:
    """Return the density after growth by `law` and kill; arguments as for `logistic_flow`."""
    return FLOWS[law](u, rate, duration, log_kill)


def killed_cells(law: GrowthLaw, u: Array, rate: float | Array, duration: float, log_kill: float | Array) -> Array:
    """Return K = (L/Δt) ∫ u dt, the density of the cells killed over a step; arguments as for `logistic_flow`."""
    return np.asarray(log_kill * mean_density(law, u, rate, duration, log_kill))


def mean_density(law: GrowthLaw, u: Array, rate: float | Array, duration: float, log_kill: float | Array) -> Array:
    """Return ∫ u dt / Δt over a step; arguments as for `logistic_flow`.

    Exact for logistic and exponential growth, second order in Δt for Gompertz growth: there it is the logarithmic mean
    of the densities before and after.
    """
    growth = rate * duration
    z = growth - log_kill
    if law == "exponential":
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(u * np.exp(np.maximum(z, 0)) * phi(-np.abs(z)))
    if law == "gompertz":
        after = gompertz_flow(u, rate, duration, log_kill)
        change = -phi(-growth) * (growth * np.log(np.where(u > 0, u, 1.0)) + log_kill)
        return np.asarray(np.maximum(u, after) * phi(-np.abs(change)))
    mean = u * phi(-np.abs(z))
    with np.errstate(divide="ignore", invalid="ignore"):
        crowded = np.logaddexp(0.0, np.log(growth * mean) + np.maximum(z, 0)) / growth
    return np.where(growth > NO_GROWTH, crowded, mean)


def surviving(u: Array, log_kill: Array | float) -> Array:
    """Return u e^{−L}: what an event of log-kill L, such as a fraction of radiation, leaves."""
    return np.asarray(u * np.exp(-np.asarray(log_kill)))


def phi(z: float | Array) -> Array:
    """Return (e^z − 1)/z, 1 at z = 0."""
    return np.where(z == 0, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z))
