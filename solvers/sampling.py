r"""What all samplers of the remainder r share: noise levels and Heun's step.

    dy/dσ = (y − D(y; σ)) / σ,    σ_i = ( σ_max^{1/ρ} + i/(N−1) (σ_min^{1/ρ} − σ_max^{1/ρ}) )^ρ,    σ_N = 0

is the probability-flow ODE of Karras et al. (NeurIPS 2022). Its start is a Gaussian field of the spectrum of the noised
remainder, S + σ_max² (`hybridtumor.solvers.place_noise`), so a moderate σ_max is enough. The samplers themselves, and
the one way to call them all: `hybridtumor.solvers.samplers`.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from hybridtumor.errors import InputError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""D(y, σ) of y (B, …) and σ (B,)."""

Fresh = Callable[[int], Tensor]
"""White noise of a step of a sampler, shaped like y; steps count from 1, as step 0 is the noise of the start."""

SIGMA_MAX = 20.0
"""A level above the remainder at all wavelengths below 3 cm: the highest that anything is trained at."""

START = 0.4
"""Noise level at which samples start, from a draw of heterogeneity (`hybridtumor.solvers.place_noise`)."""

SIGMA_MIN = 0.05
"""Last level above 0, where nothing else is said; a consistency function returns there what it is given."""


def noise_levels(steps: int, sigma_max: float = SIGMA_MAX, sigma_min: float = SIGMA_MIN, rho: float = 7.0) -> Tensor:
    """Return the `steps` + 1 noise levels, descending, the last one 0.

    Parameters
    ----------
    steps
        Of the sampler.
    sigma_max, sigma_min
        First level and last positive one; what is finer than σ_min² allows is left to the denoiser alone.
    rho
        7 suits Heun's method (Karras et al. 2022); DPM-Solver++ likes levels nearly even in ln σ, that is 40.
    """
    ramp = torch.arange(steps, dtype=torch.float64) / max(1, steps - 1)
    levels = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def checked_levels(levels: Tensor) -> list[float]:
    """Return noise levels as numbers.

    Raises
    ------
    InputError
        They are fewer than two, do not descend, or are negative.
    """
    found: list[float] = levels.tolist()
    if len(found) < 2 or found[-1] < 0 or not all(there < here < math.inf for here, there in pairwise(found)):
        raise InputError(
            f"noise levels: expected at least two, descending, none negative, got {found}. Make them by noise_levels."
        )
    return found


def heun_step(denoise: Denoise, y: Tensor, here: float, there: float) -> Tensor:
    """Return y at the level `there` by the trapezoidal rule, or by Euler's, which gives D itself, where that is 0."""
    slope = (y - denoise(y, y.new_full((len(y),), here))) / here
    ahead = y + (there - here) * slope
    if there == 0:
        return ahead
    slope_ahead = (ahead - denoise(ahead, y.new_full((len(y),), there))) / there
    return y + (there - here) * (slope + slope_ahead) / 2
