"""Oracle: the growth equation by plain explicit finite differences, sharing only the equation with the solver.

u' = ∇·(D ∇u) + ρ u (1 − u),  no flux where the domain ends;  Heun's method, which allows Δt ≤ h²/(6 D)
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def grow(
    u: Array, diffusivity: Array, domain: NDArray[np.bool_], spacing: float, rate: float, days: float, step: float
) -> Array:
    """Density after `days` on voxels of `spacing` mm; D of a face is the mean of its voxels, 0 beyond `domain`."""
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(domain))
    inside, voxels = domain[box], np.where(domain, diffusivity, 0)[box].astype(np.float32)
    conductance = []
    for axis in range(3):
        low, high = _sides(axis)
        both = inside[low] & inside[high]
        conductance.append(
            np.where(both, 0.5 * (voxels[low] + voxels[high]), 0).astype(np.float32) / np.float32(spacing**2)
        )
    steps = round(days / step)
    if abs(steps * step - days) > 1e-9 or step > spacing**2 / (6 * float(voxels.max())):
        raise ValueError("a whole number of stable steps is needed")

    def derivative(v: Array) -> Array:
        change = np.float32(rate) * v * (1 - v)
        for axis in range(3):
            low, high = _sides(axis)
            flux = conductance[axis] * (v[high] - v[low])
            change[low] += flux
            change[high] -= flux
        return change

    v, dt = np.where(inside, u[box], 0).astype(np.float32), np.float32(step)
    for _ in range(steps):
        first = derivative(v)
        v = v + dt / 2 * (first + derivative(v + dt * first))
    result = np.zeros_like(u, np.float32)
    result[box] = v
    return result


def _sides(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The voxels that have a neighbour above along an axis, and those neighbours."""
    every = [slice(None)] * 3
    low, high = list(every), list(every)
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return tuple(low), tuple(high)
