"""Oracles: the growth equation by plain explicit finite differences, sharing only the equation with the solver.

u' = ∇·(D ∇u) + ρ u (1 − u),  no flux where the domain ends

`grow` is what a careful person writes in numpy at the voxels' own spacing; `reference` is the same equation on voxels
cut into k³, with the flux between two voxels by the harmonic mean of their D, the exact one for D constant in each.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float32]
Domain = NDArray[np.bool_]


def stable_steps(days: float, diffusivity: Array, spacing: float) -> int:
    """The fewest steps with which the explicit methods are stable: Δt ≤ h²/(6 D)."""
    return int(np.ceil(days * 6 * float(diffusivity.max()) / spacing**2))


def grow(
    u: Array,
    diffusivity: Array,
    domain: Domain,
    rate: float,
    days: float,
    steps: int,
    method: Literal["euler", "heun"] = "heun",
) -> Array:
    """Density after `days` on voxels of 1 mm; D of a face is the mean of its voxels, 0 beyond `domain`."""
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(domain))
    inside, voxels = domain[box], np.where(domain, diffusivity, 0)[box].astype(np.float32)
    if steps < stable_steps(days, voxels, 1.0):
        raise ValueError("the steps are too long to be stable")
    conductance = []
    for axis in range(3):
        low, high = _sides(axis)
        both = inside[low] & inside[high]
        conductance.append(np.where(both, 0.5 * (voxels[low] + voxels[high]), 0).astype(np.float32))

    def derivative(v: Array) -> Array:
        change = np.float32(rate) * v * (1 - v)
        for axis in range(3):
            low, high = _sides(axis)
            flux = conductance[axis] * (v[high] - v[low])
            change[low] += flux
            change[high] -= flux
        return change

    v, dt = np.where(inside, u[box], 0).astype(np.float32), np.float32(days / steps)
    for _ in range(steps):
        first = derivative(v)
        v = v + (dt * first if method == "euler" else dt / 2 * (first + derivative(v + dt * first)))
    result = np.zeros_like(u, np.float32)
    result[box] = v
    return result


def reference(
    u: Array, diffusivity: Array, domain: Domain, rate: float, days: float, *, cut: int = 2, reach: int = 32
) -> Array:
    """Density after `days`, mean over every voxel of 1 mm, by Heun's method on voxels cut into `cut`³.

    Computed in the box that reaches `reach` voxels beyond where the density is 0.01 at first.
    """
    seen = np.argwhere(np.where(domain, u, 0) > 1e-2)
    low = np.maximum(seen.min(0) - reach, 0)
    high = np.minimum(seen.max(0) + reach + 1, u.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    d, v = (_cut(np.where(domain, field, 0)[box].astype(np.float32), cut) for field in (diffusivity, u))
    spacing = 1 / cut
    conductance = []
    for axis in range(3):
        a, b = d.narrow(axis, 0, d.shape[axis] - 1), d.narrow(axis, 1, d.shape[axis] - 1)
        conductance.append(2 * a * b / (a + b).clamp(min=1e-30) / spacing**2)

    def derivative(v: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        torch.mul(v, 1 - v, out=out).mul_(rate)
        for axis, c in enumerate(conductance):
            n = v.shape[axis] - 1
            flux = c * (v.narrow(axis, 1, n) - v.narrow(axis, 0, n))
            out.narrow(axis, 0, n).add_(flux)
            out.narrow(axis, 1, n).sub_(flux)
        return out

    steps = int(np.ceil(1.05 * stable_steps(days, diffusivity, spacing)))
    dt, first, second = days / steps, torch.empty_like(v), torch.empty_like(v)
    for _ in range(steps):
        derivative(v, first)
        derivative(v + dt * first, second)
        v.add_(first.add_(second), alpha=dt / 2)
    result = np.zeros(u.shape, np.float32)
    n = high - low
    result[box] = v.reshape(n[0], cut, n[1], cut, n[2], cut).mean((1, 3, 5)).numpy()
    return result


def _cut(values: Array, cut: int) -> torch.Tensor:
    return torch.from_numpy(values.repeat(cut, 0).repeat(cut, 1).repeat(cut, 2))


def _sides(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The voxels that have a neighbour above along an axis, and those neighbours."""
    every = [slice(None)] * 3
    low, high = list(every), list(every)
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return tuple(low), tuple(high)
