r"""Training objectives: at which noise levels the denoiser learns, and what an error there weighs.

All train the same network D(y; σ) ≈ E[r | y = r + σ ε] by

    ℓ = E_{σ, r, ε} [ w(σ) |D(r + σ ε; σ) − r|² ],

so every sampler works with every objective; they differ in p(σ) and w(σ) only.

edm (Karras et al., NeurIPS 2022), ln σ ~ N(m, s²). A network that adds nothing shall have the loss 1 at every level.
    It leaves D = W_σ y, Wiener's filter, with the mean squared error e(σ)² (`hybridtumor.models.spectrum`), hence
    w = 1/e²; for white data of unit variance e² = σ²/(σ² + 1), and w is theirs, 1/c_out².

ddpm (Ho et al., NeurIPS 2020), t ~ U(0, 1), x = √ᾱ r + √(1 − ᾱ) ε, loss |ε̂ − ε|². With y = x/√ᾱ, σ² = (1 − ᾱ)/ᾱ,
    ε̂ = (y − D)/σ and ε = (y − r)/σ, hence |ε̂ − ε|² = |D − r|²/σ² and w = 1/σ². Schedules, as functions of t:
    cosine (Nichol & Dhariwal, ICML 2021)          ᾱ = cos²(π/2 · (t + δ)/(1 + δ)) / cos²(π/2 · δ/(1 + δ)), δ = 0.008
    linear (in the limit of small steps: Song et al., ICLR 2021)   ᾱ = exp(−β₀ t − ½ (β₁ − β₀) t²), β₀ = 0.1, β₁ = 20
    t is drawn where σ lies in the levels that sampling can meet (`LEVELS`): σ → ∞ for t → 1 teaches nothing.

flow (rectified flow, Liu et al., ICLR 2023), x = (1 − t) r + t ε, logit t ~ N(m, s²) (Esser et al., ICML 2024), loss
    |v̂ − v|² with v = ε − r = (x − r)/t and v̂ = (x − D)/t, hence |v̂ − v|² = |D − r|²/t². With y = x/(1 − t),
    σ = t/(1 − t): w = ((1 + σ)/σ)², and ln σ = logit t ~ N(m, s²), as in edm.

As e² ≤ σ², w e² stays bounded for σ → 0 in all of them. Levels of one batch are stratified: each has the distribution
above, and together they spread over it (Kingma et al., NeurIPS 2021), which quietens the gradient at no cost.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from hybridtumor.errors import InputError
from hybridtumor.models.spectrum import wiener_error
from hybridtumor.solvers.sampling import SIGMA_MAX

LEVELS = (0.01, 1.5 * SIGMA_MAX)
"""Least and largest σ in training with a VP schedule: from below the last level of sampling to above its first."""

OFFSET = 0.008
"""δ of the cosine schedule."""

BETA = (0.1, 20.0)
"""β₀ and β₁ of the linear schedule."""


@dataclass(frozen=True)
class Objective:
    """Distribution of the noise levels in training and the weight of an error there.

    Parameters
    ----------
    name
        Key in `OBJECTIVES`.
    quantile
        u in (0, 1) to σ.
    weight
        σ (B,) to w (B,), what (D − r)² is multiplied with.
    """

    name: str
    quantile: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]

    def draw_sigma(self, generator: torch.Generator, n: int) -> Tensor:
        """Return n noise levels (n,), float32, stratified over their distribution."""
        first = torch.rand(1, generator=generator, dtype=torch.float64)
        u = (first + torch.arange(n, dtype=torch.float64) / n) % 1
        tiny = torch.finfo(torch.float32).eps
        return self.quantile(tiny + (1 - 2 * tiny) * u).float()


def edm(mean: float = 0.0, std: float = 1.3) -> Objective:
    """Return the objective of Karras et al. with ln σ ~ N(mean, std²)."""
    return Objective("edm", _lognormal(mean, std), lambda sigma: wiener_error(sigma) ** -2)


def flow(mean: float = 0.0, std: float = 1.0) -> Objective:
    """Return the objective of rectified flow with logit t ~ N(mean, std²)."""
    return Objective("flow", _lognormal(mean, std), lambda sigma: ((1 + sigma) / sigma) ** 2)


def ddpm(schedule: Literal["cosine", "linear"] = "cosine", levels: tuple[float, float] = LEVELS) -> Objective:
    """Return the ε-objective of a variance-preserving schedule, t uniform where σ lies within `levels`.

    Raises
    ------
    InputError
        The schedule is unknown, or the levels are not 0 < least < largest.
    """
    if schedule not in _SCHEDULES:
        raise InputError(f"schedule: expected one of {', '.join(_SCHEDULES)}, got {schedule!r}. Choose one of these.")
    if not 0 < levels[0] < levels[1] < math.inf:
        raise InputError(f"levels: expected 0 < least < largest, got {levels}. Give a least and a largest σ.")
    sigma_at, time_of = _SCHEDULES[schedule]
    least, largest = (time_of(level) for level in levels)
    return Objective(f"ddpm_{schedule}", lambda u: sigma_at(least + (largest - least) * u), lambda sigma: sigma**-2)


def _lognormal(mean: float, std: float) -> Callable[[Tensor], Tensor]:
    return lambda u: torch.exp(mean + std * torch.special.ndtri(u))


def _cosine_sigma(t: Tensor) -> Tensor:
    """σ = √(1/ᾱ − 1)."""
    quarter = math.pi / 2 / (1 + OFFSET)
    return ((math.cos(quarter * OFFSET) / torch.cos(quarter * (t + OFFSET))) ** 2 - 1).sqrt()


def _cosine_time(sigma: float) -> float:
    quarter = math.pi / 2 / (1 + OFFSET)
    return math.acos(math.cos(quarter * OFFSET) / math.sqrt(1 + sigma**2)) / quarter - OFFSET


def _linear_sigma(t: Tensor) -> Tensor:
    """σ = √(1/ᾱ − 1)."""
    return torch.expm1(BETA[0] * t + (BETA[1] - BETA[0]) * t**2 / 2).sqrt()


def _linear_time(sigma: float) -> float:
    """Solve ½ (β₁ − β₀) t² + β₀ t = ln(1 + σ²)."""
    rise = BETA[1] - BETA[0]
    return (math.sqrt(BETA[0] ** 2 + 2 * rise * math.log1p(sigma**2)) - BETA[0]) / rise


_SCHEDULES: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[float], float]]] = {
    "cosine": (_cosine_sigma, _cosine_time),
    "linear": (_linear_sigma, _linear_time),
}

_ALL = (edm(), ddpm("cosine"), ddpm("linear"), flow())

OBJECTIVES: Mapping[str, Objective] = MappingProxyType({each.name: each for each in _ALL})
"""Objectives by name, with their published distributions (edm: that of the shipped weights)."""


def objective(name: str) -> Objective:
    """Return the objective of a name.

    Raises
    ------
    InputError
        There is none.
    """
    if name not in OBJECTIVES:
        raise InputError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {name!r}. Choose one of these.")
    return OBJECTIVES[name]
