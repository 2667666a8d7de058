r"""How the closed-form flows of growth depend on what goes into them: the adjoint's building stones.

With p = ρ Δt, z = p − L and φ(z) = (e^z − 1)/z, the flows v(u; p, L) of `hybridtumor.models.growth` have the slopes

    logistic     ∂v/∂u = e^z / (1 + p u φ)²,   ∂v/∂L = −v (1 − p u φ′/(1 + p u φ)),   ∂v/∂p = −∂v/∂L − v u φ/(1 + p u φ)
    Gompertz     ∂v/∂u = E v/u,                ∂v/∂L = −v φ(−p),                      ∂v/∂p = v (L φ′(−p) − E ln u)
    exponential  ∂v/∂u = e^z,                  ∂v/∂L = −v,                            ∂v/∂p = v

E = e^{−p}. Gompertz growth has no finite slope at u = 0, which it does not leave: 0 is returned there. The mean over
the step, κ = ∫ u dt / Δt, has

    logistic     κ = ln(1 + p u φ)/p,   ∂κ/∂u = φ/(1 + p u φ),   ∂κ/∂L = −u φ′/(1 + p u φ),
                 ∂κ/∂p = −∂κ/∂L + (u φ/(1 + p u φ) − κ)/p
    Gompertz     the logarithmic mean m(u, v) = (v − u)/r, r = ln(v/u): ∂m/∂u = (φ(r) − 1)/r, ∂m/∂v = (1 − φ(−r))/r
    exponential  κ = u φ
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.models.growth import STEEPEST, gompertz_flow, mean_density, phi
from hybridtumor.parameters import GrowthLaw

Array = NDArray[np.float64]

_SERIES = 1e-2
"""|z| below which φ′ is taken from its series: the formula cancels, the series is exact to 1e-11 there."""


_SMALL_GROWTH = 1e-7
"""p below which κ is taken from its series in p: the formula cancels, the series is exact to p there."""


@dataclass(frozen=True, eq=False)
class FlowSlopes:
    """Slopes of the density after a step: in the density before it, in p = ρ Δt and in L; shapes as `u`."""

    density: Array
    growth: Array
    log_kill: Array


def flow_slopes(law: GrowthLaw, u: Array, rate: float, duration: float, log_kill: float | Array = 0.0) -> FlowSlopes:
    """Return the slopes of `hybridtumor.models.growth.reaction_flow`; arguments as there, `rate` one for all."""
    growth = rate * duration
    z = growth - log_kill
    if law == "exponential":
        after = u * np.exp(z)
        return FlowSlopes(np.broadcast_to(np.exp(z), np.shape(u)), after, -after)
    if law == "gompertz":
        after, share = gompertz_flow(u, rate, duration, log_kill), np.exp(-min(growth, STEEPEST))
        alive = u > 0
        logarithm = np.log(np.where(alive, u, 1.0))
        ratio = np.divide(after, u, out=np.zeros_like(after), where=alive)
        slope = after * (log_kill * _slope_below(growth) - share * logarithm)
        return FlowSlopes(share * ratio, slope, -after * phi(-growth))
    # numerator and denominator both times e^{−max(z, 0)}: no exponential overflows
    size = np.abs(z)
    mean = phi(-size)
    whole = np.exp(-np.clip(z, 0, STEEPEST)) + growth * mean * u
    after = u * np.exp(np.minimum(z, 0)) / whole
    bend = np.where(z > 0, _slope_above(size), _slope_below(size))
    by_exponent = after * (1 - growth * u * bend / whole)
    return FlowSlopes(np.exp(-size) / whole**2, by_exponent - after * u * mean / whole, -by_exponent)


def mean_slopes(law: GrowthLaw, u: Array, rate: float, duration: float, log_kill: float | Array = 0.0) -> FlowSlopes:
    """Return the slopes of `hybridtumor.models.growth.mean_density`; arguments as for `flow_slopes`."""
    growth = rate * duration
    z = growth - log_kill
    if law == "gompertz":
        flow, alive = flow_slopes(law, u, rate, duration, log_kill), u > 0
        r = np.where(alive, -phi(-growth) * (growth * np.log(np.where(alive, u, 1.0)) + log_kill), 0.0)
        before, after = np.exp(np.maximum(r, 0)) * _excess(r), np.exp(np.maximum(-r, 0)) * _excess(-r)
        return FlowSlopes(
            np.where(alive, before + after * flow.density, 0.0), after * flow.growth, after * flow.log_kill
        )
    size = np.abs(z)
    bend = np.where(z > 0, _slope_above(size), _slope_below(size))
    if law == "exponential":
        scale = np.exp(np.maximum(z, 0))
        return FlowSlopes(np.broadcast_to(scale * phi(-size), np.shape(u)), u * scale * bend, -u * scale * bend)
    mean = phi(-size)
    whole = np.exp(-np.clip(z, 0, STEEPEST)) + growth * mean * u
    by_exponent, share = u * bend / whole, u * mean / whole
    if growth > _SMALL_GROWTH:
        crowding = (share - mean_density(law, u, rate, duration, log_kill)) / growth
    else:
        crowding = -(share**2) / 2
    return FlowSlopes(mean / whole, by_exponent + crowding, -by_exponent)


def _excess(r: Array) -> Array:
    """Return (φ(r) − 1)/r over e^r for r > 0, (φ(r) − 1)/r else."""
    safe = np.where(np.abs(r) < _SERIES, 1.0, r)
    series = 1 / 2 + r / 6 + r**2 / 24 + r**3 / 120
    value = np.where(safe > 0, (-np.expm1(-safe) / safe - np.exp(-np.maximum(safe, 0))) / safe, (phi(safe) - 1) / safe)
    return np.where(np.abs(r) < _SERIES, series * np.exp(-np.maximum(r, 0)), value)


def _slope_above(z: float | Array) -> Array:
    """Return e^{−z} φ′(z) for z ≥ 0."""
    safe = np.maximum(z, _SERIES)
    return np.where(
        z < _SERIES, 1 / 2 - z / 6 + np.square(z) / 24 - np.power(z, 3) / 120, (safe - 1 + np.exp(-safe)) / safe**2
    )


def _slope_below(a: float | Array) -> Array:
    """Return φ′(−a) for a ≥ 0."""
    safe = np.maximum(a, _SERIES)
    series = 1 / 2 - a / 3 + np.square(a) / 8 - np.power(a, 3) / 30
    return np.where(a < _SERIES, series, (1 - np.exp(-safe) * (1 + safe)) / safe**2)
