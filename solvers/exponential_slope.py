r"""The slope of a diffusion step in the diffusivity of grey matter.

    ∂/∂ln D_g ⟨g, e^{−Δt A} u⟩ = −∫₀^Δt ⟨e^{−(Δt−s)A} (g/m), D_g ∂K̃/∂D_g e^{−sA} u⟩ ds

by Gauss and Legendre, with as many nodes as bring the error below `QUADRATURE`. The states at all nodes come from the
same powers of N as the step itself, with other weights (`hybridtumor.solvers.diffusion`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from hybridtumor.solvers.diffusion import Diffusion, poisson_weights
from hybridtumor.solvers.tissue_diffusion import TissueOperator

Array = NDArray[np.float64]

QUADRATURE = 1e-9
"""Relative error of the slope for the stiffest mode there can be."""


def through(operator: TissueOperator, u: Array, scaled: Array, span: float) -> tuple[Array, float]:
    """Return e^{−Δt A} (g/m), and −∫ ⟨e^{−(Δt−s)A} (g/m), K̃_g e^{−sA} u⟩ ds."""
    nodes, weights = gauss_nodes(span * operator.diffusion.rate)
    forward = _at_times(operator.diffusion, u, span, span * nodes)
    backward = _at_times(operator.diffusion, scaled, span, span * np.append(1 - nodes, 1.0))
    slope = -span * sum(
        weight * float(b @ operator.grey_slope(f)) for weight, f, b in zip(weights, forward, backward, strict=False)
    )
    return backward[-1], slope


def gauss_nodes(stiffness: float) -> tuple[Array, Array]:
    """Return nodes and weights on [0, 1] that integrate e^{±2 λ x}, λ = `stiffness`, to `QUADRATURE` of its largest.

    The error of q nodes is that of the Chebyshev coefficient of order 2q, e^{−λ} I_{2q}(λ).
    """
    count = 2
    while ive(2 * count, stiffness) > QUADRATURE:
        count += 1
    x, weights = np.polynomial.legendre.leggauss(count)
    return (x + 1) / 2, weights / 2


_BLOCK = 16
"""Powers that are added up at a time."""


def _at_times(diffusion: Diffusion, u: Array, span: float, times: Array) -> Array:
    """Return e^{−sA} u for every s of `times`, none above `span`: (len(times), n)."""
    tables = [poisson_weights(s * diffusion.rate) for s in times]
    highest = sum(np.shape(poisson_weights(span * diffusion.rate)[1])) + poisson_weights(span * diffusion.rate)[0]
    table = np.zeros((len(times), max(highest, max(first + len(w) for first, w in tables))))
    for row, (first, values) in zip(table, tables, strict=True):
        row[first : first + len(values)] = values
    result, block = np.zeros((len(times), u.size)), np.empty((_BLOCK, u.size))
    last = 0
    for k, power in diffusion.powers(u, span):
        block[k % _BLOCK], last = power, k
        if k % _BLOCK == _BLOCK - 1:
            result += table[:, k - _BLOCK + 1 : k + 1] @ block
    rest = last % _BLOCK + 1
    if rest < _BLOCK:
        result += table[:, last - rest + 1 : last + 1] @ block[:rest]
    return result
