r"""Samplers of the remainder r, from one denoiser D(y; σ) = E[r | y = r + σ ε], all called in one way.

With n̂ = (y − D(y; σ))/σ the noise that the denoiser sees, a step from σ to σ' < σ is

    euler         y' = y + (σ' − σ) n̂                                        the ODE dy/dσ = n̂, first order
    ddim          √ᾱ' y' = √ᾱ' D + √(1 − ᾱ') n̂,   ᾱ = 1/(1 + σ²)              Song et al., ICLR 2021, η = 0
    flow_euler    x' = x + (t' − t) v,   x = (1 − t) y,   v = (x − D)/t         Liu et al., ICLR 2023, σ = t/(1 − t)
    heun          euler, then n̂ averaged over both ends                        Karras et al., NeurIPS 2022, Alg. 1
    flow_heun     flow_euler, then v averaged over both ends
    dpmpp_2m      y' = (σ'/σ) y + (1 − σ'/σ) D̄,   D̄ = D + ½ (h/h₋) (D − D₋)    Lu et al., 2022, 2M; h = ln(σ/σ')
    heun_churn    noise up to σ(1 + γ), then heun                              Karras et al., Alg. 2
    ddpm          y' = D + (σ'/σ)² (y − D) + σ' √(1 − σ'²/σ²) z                 Ho et al., NeurIPS 2020, η = 1
    consistency   y' = f + √(σ'² − σ_min²) z                                    Song et al., ICML 2023, Alg. 1

D₋ and h₋ belong to the step before. The first three are one map in three variables (y' = D + σ' n̂: D and n̂ held, r and
ε go along a straight line) and differ by rounding only; all are kept, as all three names are in use and tests hold the
identity. In the step to σ' = 0 every sampler returns D, so a sample's finest detail is what D restores at the last
positive level, and one step of any sampler is the one-step sample. The last one takes not a denoiser but a consistency
function f(y, σ), which gives the end of the ODE through y (`hybridtumor.solvers.distillation`): an exact f errs in no
number of steps.

The data have a spectrum S (`hybridtumor.models.spectrum`) and the start is drawn from S + σ_max² and not from σ_max².
The ODE's samplers only carry the start along and need nothing else. The stochastic ones add *white* noise, whatever
the spectrum of the data, as σ ε is white at every level; it belongs to a place in the patient like the start, so the
caller cuts it out (`hybridtumor.solvers.place_noise`).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor

from hybridtumor.errors import InputError
from hybridtumor.solvers.sampling import SIGMA_MAX, SIGMA_MIN, Denoise, Fresh, checked_levels, heun_step

Path = Callable[[Denoise, Tensor, list[float], Fresh], Iterator[Tensor]]
"""Yields y after each step along the levels."""


@dataclass(frozen=True)
class Sampler:
    """A way from noise to a sample.

    Parameters
    ----------
    name
        What `sampler` finds it by.
    order
        Order of the global error in the step size; 0 where there is none.
    per_step
        Evaluations of the denoiser in a step to a positive level; one in the step to 0.
    stochastic
        Whether it takes fresh noise.
    path
        Its steps.
    """

    name: str
    order: int
    per_step: int
    stochastic: bool
    path: Path

    def __call__(
        self,
        denoise: Denoise,
        start: Tensor,
        levels: Tensor,
        *,
        fresh: Fresh | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Carry a start to a sample.

        Parameters
        ----------
        denoise
            D(y, σ) with y (B, …) and σ (B,).
        start
            (B, …) of the distribution of r + σ_max ε, σ_max the first level.
        levels
            Descending noise levels (steps + 1,), from `noise_levels`; the last is 0, or positive to stop on the way.
        fresh
            Number of the step, from 1, to white noise of unit variance, shaped like `start` and independent of it.
            Called by stochastic samplers only.
        progress
            Called with steps done and steps in all.

        Raises
        ------
        InputError
            The levels do not descend, or a stochastic sampler has no noise or noise of another shape.
        """
        ladder = checked_levels(levels)
        y = start
        for done, y in enumerate(self.path(denoise, start, ladder, self._noise(fresh, start)), start=1):  # noqa: B007
            if progress is not None:
                progress(done, len(ladder) - 1)
        return y

    def evaluations(self, steps: int) -> int:
        """Return the evaluations of the denoiser in `steps` steps, the last one to level 0."""
        return self.per_step * (steps - 1) + 1

    def steps_within(self, evaluations: int) -> int:
        """Return the most steps that `evaluations` evaluations pay for, at least one."""
        return 1 + max(0, evaluations - 1) // self.per_step

    def _noise(self, fresh: Fresh | None, like: Tensor) -> Fresh:
        if self.stochastic and fresh is None:
            raise InputError(f"sampler {self.name}: expected fresh noise, got none. Give fresh, or choose dpmpp_2m.")

        def noise(step: int) -> Tensor:
            white = torch.empty(0) if fresh is None else fresh(step)
            got, expected = tuple(white.shape), tuple(like.shape)
            if got != expected:
                raise InputError(f"sampler {self.name}: expected noise {expected}, got {got}. Cut it as the start.")
            return white.to(like)

        return noise


@dataclass(frozen=True)
class Churn:
    """How much noise `heun_churn` puts back (Karras et al. 2022, Alg. 2).

    Parameters
    ----------
    amount
        S_churn: γ is this over the number of steps, at most √2 − 1.
    lowest, highest
        S_tmin and S_tmax: levels between which noise is put back; the network has to know levels of `highest` (1 + γ).
    inflation
        S_noise: 1 keeps the distribution exactly when D is exact.
    """

    amount: float = 2.0
    lowest: float = 0.1
    highest: float = SIGMA_MAX / 2
    inflation: float = 1.0

    def raised(self, level: float, steps: int) -> float:
        """Return σ(1 + γ)."""
        inside = self.lowest <= level <= self.highest
        return level * (1 + (min(self.amount / steps, 2**0.5 - 1) if inside else 0.0))


def _at(denoise: Denoise, y: Tensor, level: float) -> Tensor:
    return denoise(y, y.new_full((len(y),), level))


def _euler(denoise: Denoise, y: Tensor, levels: list[float], _fresh: Fresh) -> Iterator[Tensor]:
    for here, there in pairwise(levels):
        y = y + (there - here) * (y - _at(denoise, y, here)) / here
        yield y


def _ddim(denoise: Denoise, y: Tensor, levels: list[float], _fresh: Fresh) -> Iterator[Tensor]:
    for here, there in pairwise(levels):
        kept, kept_there = 1 / (1 + here**2), 1 / (1 + there**2)
        x, clean = kept**0.5 * y, _at(denoise, y, here)
        noise = (x - kept**0.5 * clean) / (1 - kept) ** 0.5
        y = (kept_there**0.5 * clean + (1 - kept_there) ** 0.5 * noise) / kept_there**0.5
        yield y


def _flow(denoise: Denoise, y: Tensor, levels: list[float], _fresh: Fresh, *, trapezoidal: bool) -> Iterator[Tensor]:
    """Integrate dx/dt = v, v = E[ε − r | x] = (x − D)/t, in x = (1 − t) r + t ε = (1 − t) y."""
    for here, there in pairwise(levels):
        t, t_there = here / (1 + here), there / (1 + there)
        x = (1 - t) * y
        v = (x - _at(denoise, y, here)) / t
        ahead = x + (t_there - t) * v
        if trapezoidal and t_there > 0:
            v_ahead = (ahead - _at(denoise, ahead / (1 - t_there), there)) / t_there
            ahead = x + (t_there - t) * (v + v_ahead) / 2
        y = ahead / (1 - t_there)
        yield y


def _dpmpp_2m(denoise: Denoise, y: Tensor, levels: list[float], _fresh: Fresh) -> Iterator[Tensor]:
    """Extrapolate D linearly in ln σ from the last two; in the first step and in the one to 0 there is D alone."""
    before, clean_before = 0.0, y
    for here, there in pairwise(levels):
        clean = estimate = _at(denoise, y, here)
        if before > 0 and there > 0:
            estimate = clean + math.log(here / there) / math.log(before / here) / 2 * (clean - clean_before)
        y = (there / here) * y + (1 - there / here) * estimate
        before, clean_before = here, clean
        yield y


def _ddpm(denoise: Denoise, y: Tensor, levels: list[float], fresh: Fresh) -> Iterator[Tensor]:
    """Draw from p(y' | y, r) with D in the place of r."""
    for step, (here, there) in enumerate(pairwise(levels), start=1):
        clean, fall = _at(denoise, y, here), (there / here) ** 2
        y = clean + fall * (y - clean)
        if there > 0:
            y = y + there * (1 - fall) ** 0.5 * fresh(step)
        yield y


def _consistency(function: Denoise, y: Tensor, levels: list[float], fresh: Fresh) -> Iterator[Tensor]:
    """Go to the end, put noise back to the next level, and go to the end again."""
    if any(0 < level <= SIGMA_MIN for level in levels):
        raise InputError(f"sampler consistency: expected levels above {SIGMA_MIN}, got {levels}. Raise the last one.")
    for step, (here, there) in enumerate(pairwise(levels), start=1):
        y = _at(function, y, here)
        if there > 0:
            y = y + (there**2 - SIGMA_MIN**2) ** 0.5 * fresh(step)
        yield y


def heun_churn(churn: Churn | None = None) -> Sampler:
    """Return Heun's sampler with churn; `SAMPLERS` holds the default, and that with no churn as `heun`."""
    dose = churn or Churn()

    def path(denoise: Denoise, y: Tensor, levels: list[float], fresh: Fresh) -> Iterator[Tensor]:
        for step, (here, there) in enumerate(pairwise(levels), start=1):
            raised = dose.raised(here, len(levels) - 1)
            if raised > here:
                y = y + dose.inflation * (raised**2 - here**2) ** 0.5 * fresh(step)
            y = heun_step(denoise, y, raised, there)
            yield y

    return Sampler("heun_churn", 2, 2, True, path)


_ALL = (
    Sampler("euler", 1, 1, False, _euler),
    Sampler("ddim", 1, 1, False, _ddim),
    Sampler("flow_euler", 1, 1, False, partial(_flow, trapezoidal=False)),
    replace(heun_churn(Churn(amount=0.0)), name="heun", stochastic=False),
    Sampler("flow_heun", 2, 2, False, partial(_flow, trapezoidal=True)),
    Sampler("dpmpp_2m", 2, 1, False, _dpmpp_2m),
    heun_churn(),
    Sampler("ddpm", 1, 1, True, _ddpm),
)

SAMPLERS: Mapping[str, Sampler] = MappingProxyType({each.name: each for each in _ALL})
"""Samplers of a denoiser by name."""

CONSISTENCY = Sampler("consistency", 0, 1, True, _consistency)
"""The sampler of a consistency function."""


def sampler(name: str) -> Sampler:
    """Return the sampler of a name.

    Raises
    ------
    InputError
        There is none.
    """
    known = {**SAMPLERS, CONSISTENCY.name: CONSISTENCY}
    if name not in known:
        raise InputError(f"sampler: expected one of {', '.join(known)}, got {name!r}. Choose one of these.")
    return known[name]


def evaluations(name: str, steps: int) -> int:
    """Return the evaluations of the denoiser by the sampler of a name in `steps` steps, the last one to level 0."""
    return sampler(name).evaluations(steps)
