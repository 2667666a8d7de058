r"""Therapy as a source term of the reverse process.

    dy/dσ = −σ [ s_θ(y, σ | c) + b ],    b = −∇_D U,    in code  D' = D + σ² b

s_θ = (D − y)/σ² is the network's score, D its estimate of the clean remainder, x(D) = R + M (μ + s D) the image that D
stands for and S_A the density which that image implies (`hybridtumor.models.density_estimator`). With the densities n_t
with and n_u without treatment, both as S_A sees their renders, the kill that the PDE has accumulated is Δ = n_t − n_u,
and the drift is the adjoint of S_A applied to a residual ρ:

    b ∝ P Jᵀ W ρ,    J = ∂S_A(x(D))/∂D,    W = P = 1[the density differs between treated and untreated]

    source     ρ = S_A(x(D_0)) + Δ(D_0) − S_A(x(D)),    Δ(D_0) = S_A(x(D_0) + δR) − S_A(x(D_0))
                                what of the kill is still missing against D_0, the same sample that is not pushed; δR is
                                what the kill changes in the physics render. Both are told the untreated state
    both       ρ = n_t − S_A    what the network, told the treated state, still lacks
    condition  ρ = 0            the network alone

ρ is at most as large as the kill that S_A sees, |Δ|. `source` reads it off the patient's own image: S_A is not linear,
and what it sees of a kill in the render of a density alone was 1.3 to 1.6 times what the network told of it makes it
see (three training cases). Reckoning against D_0 leaves its texture to the sample and closes the loop: a network that
pulls back, and a sampler of any number of levels, leave nothing missing after the last push. It costs a second sample,
so `guided` works on pairs there: D' of (y, y_0) is (D', D_0).

Only D is differentiated, never the network: a drift costs one gradient of S_A.

Steps. *annealed*: b = P Jᵀ W ρ / (σ_S² + Γ σ²), the posterior drift of a measurement of variance σ_S². *polyak*:
D' = D + γ α P Jᵀ W ρ, α = ⟨ρ, Wρ⟩ / |Jᵀ W ρ|², free of scale: γ is the share of ρ gone in one evaluation. One α for all
would let dose at a distant place change the image here, so both sums run over a window around each voxel: b depends
on what lies within three reaches of S_A. *annealed* does not close a loop in mode `source`: ρ = Δ(D_0), linear in the
kill where S_A is, and additive for kills of one support (P). γ = 0.2 in mode `both` suits twelve levels of Heun's
method on a white Gaussian (4 settings tried on that toy alone). Where evaluations are few there are several pushes at
each (`repeats`): S_A bends, and one long step along its slope would not follow.

Classifier-free guidance (Ho and Salimans 2022) with a scale for the tumour and one for its therapy:

    D = D_none + w_tumour (D_untreated − D_none) + w_therapy (D_treated − D_untreated)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from hybridtumor.errors import InputError
from hybridtumor.models.smoothing import window_mean

Denoise = Callable[[Tensor, Tensor], Tensor]
"""D(y, σ) for y (B, C, X, Y, Z) and σ (B,)."""

Mode = Literal["condition", "source", "both"]
Step = Literal["polyak", "annealed"]


@dataclass(frozen=True)
class Pace:
    """How polyak steps are sized: γ, the slope |J| that counts as none, and pushes per evaluation and repeat."""

    gamma: float
    smallest_slope: float
    pushes: int


PACES: Mapping[Mode, Pace] = MappingProxyType({
    "condition": Pace(0.2, 0.1, 1),
    "source": Pace(1.0, 0.03, 4),
    "both": Pace(0.2, 0.1, 1),
})  # fmt: skip
"""By mode. That of ``source`` was chosen on three training cases (decision 15)."""


Aim = tuple[Tensor, Tensor]
"""Density to reach, and the kill that limits a step there, (B, 1, X, Y, Z) each."""


class Estimator(Protocol):
    """A differentiable density estimator."""

    @property
    def reach(self) -> int:
        """Voxels that the estimate at a voxel may depend on, along each axis and either way."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the implied density, (B, 1, X, Y, Z)."""

    def seen(self, density: Tensor) -> Tensor:
        """Return the implied density of the render of `density`, (B, 1, X, Y, Z)."""


@dataclass(frozen=True)
class GuidanceOptions:
    """How therapy enters the sampler.

    Parameters
    ----------
    mode
        ``condition``, ``source`` or ``both``.
    step
        ``polyak`` or ``annealed``.
    gamma
        γ, share of the residual that one polyak step closes; by default that of the mode (`PACES`).
    density_error
        σ_S, standard deviation of the density estimate.
    annealing
        Γ.
    smallest_slope
        |J| below which an image hardly depends on density; the polyak step does not grow beyond it. By default that of
        the mode.
    w_tumour, w_therapy
        Scales of classifier-free guidance; 1 is none.
    repeats
        Pushes at each evaluation of the network, each along the slope of S_A where the one before has led to; in mode
        ``source`` times those of `PACES`.

    Raises
    ------
    InputError
        An unknown mode or step, or a number that is not positive.
    """

    mode: Mode = "both"
    step: Step = "polyak"
    gamma: float | None = None
    density_error: float = 0.1
    annealing: float = 1.0
    smallest_slope: float | None = None
    w_tumour: float = 1.0
    w_therapy: float = 1.0
    repeats: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, get_args(Mode)), ("step", self.step, get_args(Step))):
            if value not in known:
                raise InputError(f"guidance {name}: expected one of {', '.join(known)}, got {value!r}. Choose one.")
        for name in ("gamma", "density_error", "annealing", "smallest_slope", "repeats"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"guidance {name}: expected a positive number, got {value}.")

    @property
    def pace(self) -> Pace:
        """How the polyak steps of this mode are sized."""
        usual = PACES[self.mode]
        return Pace(
            usual.gamma if self.gamma is None else self.gamma,
            usual.smallest_slope if self.smallest_slope is None else self.smallest_slope,
            usual.pushes * self.repeats,
        )


@dataclass(frozen=True)
class Conditions:
    """The same denoiser told different things, in the same coordinates (R, M, μ, s).

    Parameters
    ----------
    treated
        Told everything.
    untreated
        Told the state without therapy.
    none
        Told nothing about the tumour.
    """

    treated: Denoise
    untreated: Denoise | None = None
    none: Denoise | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """What therapy has changed, and how an image shows it.

    Parameters
    ----------
    to_image
        x(D): maps those `channels` of D, (B, C, X, Y, Z), to what the estimator reads; differentiable.
    estimator
        S_A.
    treated, untreated
        Densities (1, 1, X, Y, Z) with and without therapy, equal bit for bit where therapy changes nothing.
    window
        Part of D, along X, Y and Z, that all of the above are cut to; the whole by default. It has to reach as far
        beyond the place where therapy changes something as the estimator does.
    channels
        Of D, all by default.
    shown
        δR, (1, C, X, Y, Z): by how much the treated render differs from the untreated one, for mode ``source``. By
        default the kill is what the estimator sees of the two densities.
    """

    to_image: Callable[[Tensor], Tensor]
    estimator: Estimator
    treated: Tensor
    untreated: Tensor
    window: tuple[slice, slice, slice] = (slice(None),) * 3
    channels: slice = slice(None)
    shown: Tensor | None = None

    @property
    def changed(self) -> Tensor:
        """P: 1 where treatment has changed the density, (1, 1, X, Y, Z)."""
        return (self.treated != self.untreated).to(self.treated)


def copies(options: GuidanceOptions, sources: Sequence[Source] = ()) -> int:
    """Return how many copies of a start `guided` works on: 2 where it compares a sample with the one not pushed."""
    return 2 if options.mode == "source" and _active(sources) else 1


def guided(conditions: Conditions, options: GuidanceOptions, sources: Sequence[Source] = ()) -> Denoise:
    """Return D'(y, σ) for any sampler.

    Where `copies` is 2, y is (2B, C, X, Y, Z) with the copies that are pushed first and those that are not after them,
    of the same start and fresh noise.

    Parameters
    ----------
    conditions
        The network.
    options
        Mode, step and scales.
    sources
        Potentials, one for each group of channels that implies a density of its own; none where nothing is treated.

    Raises
    ------
    InputError
        A mode or a scale needs a condition that is not there; or, when it is called, y is not made of copies.
    """
    base = told(conditions, options)
    active = _active(sources)
    if options.mode == "condition" or not active:
        return base
    targets = [_target(source, options) for source in active]

    def pushed(clean: Tensor, free: Tensor, sigma: Tensor) -> Tensor:
        aims = [target(free) for target in targets]
        for _ in range(options.pace.pushes):
            moves = [_move(*place, clean, sigma, options) for place in zip(active, aims, strict=True)]
            clean = clean.clone()
            for source, move in zip(active, moves, strict=True):
                clean[_place(source)] += move
        return clean

    def driven(y: Tensor, sigma: Tensor) -> Tensor:
        if len(y) % 2:
            raise InputError(f"guidance: expected a batch of copies for mode source, got {len(y)}. See `copies`.")
        clean, free = (base(part, level) for part, level in zip(y.chunk(2), sigma.chunk(2), strict=True))
        return torch.cat([pushed(clean, free, sigma.chunk(2)[0]), free])

    def corrected(y: Tensor, sigma: Tensor) -> Tensor:
        clean = base(y, sigma)
        return pushed(clean, clean, sigma)

    return driven if options.mode == "source" else corrected


def _active(sources: Sequence[Source]) -> list[Source]:
    return [s for s in sources if bool((s.treated != s.untreated).any())]


def _place(source: Source) -> tuple[slice, ...]:
    """Return the part of D that an image and its estimate are made of."""
    return (slice(None), source.channels, *source.window)


def told(conditions: Conditions, options: GuidanceOptions) -> Denoise:
    """Return the network's D by classifier-free guidance, with no evaluation whose weight is 0.

    In mode ``source`` the network is told nothing of the therapy.
    """
    w_therapy = 0.0 if options.mode == "source" else options.w_therapy
    parts = [
        ("treated", conditions.treated, w_therapy),
        ("untreated", conditions.untreated, options.w_tumour - w_therapy),
        ("none", conditions.none, 1.0 - options.w_tumour),
    ]
    used: list[tuple[Denoise, float]] = []
    for name, part, weight in parts:
        if weight != 0 and part is None:
            raise InputError(
                f"guidance: expected the denoiser of condition '{name}' for mode {options.mode!r} and scales"
                f" {options.w_tumour}, {options.w_therapy}, got none. Pass it, or leave both scales at 1."
            )
        if weight != 0 and part is not None:
            used.append((part, weight))
    if len(used) == 1 and used[0][1] == 1:
        return used[0][0]
    return lambda y, sigma: torch.stack([weight * part(y, sigma) for part, weight in used]).sum(dim=0)


def _target(source: Source, options: GuidanceOptions) -> Callable[[Tensor], Aim]:
    """Return density to reach and kill, both as the estimator sees them, as a function of D_0."""
    changed, estimator, shown = source.changed, source.estimator, source.shown

    @torch.no_grad()
    def rendered() -> Aim:
        goal = estimator.seen(source.treated)
        return goal, changed * (goal - estimator.seen(source.untreated))

    @torch.no_grad()
    def beside(free: Tensor) -> Aim:
        image = source.to_image(free[_place(source)])
        here = estimator(image)
        lost = kill if shown is None else changed * (estimator(image + shown) - here)
        return here + lost, lost.expand_as(here)

    if options.mode == "source" and shown is not None:
        return beside
    goal, kill = rendered()
    return beside if options.mode == "source" else lambda _: (goal, kill)


def _move(source: Source, aim: Aim, clean: Tensor, sigma: Tensor, options: GuidanceOptions) -> Tensor:
    """Return σ² b in the place of a source."""
    changed = source.changed
    with torch.enable_grad():
        variable = clean[_place(source)].detach().requires_grad_()
        implied = source.estimator(source.to_image(variable))
        residual = _residual(implied.detach(), *aim, options)
        (lifted,) = torch.autograd.grad(implied, variable, residual)
    lifted = changed * lifted
    if options.step == "annealed":
        level = sigma[:, None, None, None, None] ** 2
        return level / (options.density_error**2 + options.annealing * level) * lifted
    pace = options.pace
    return pace.gamma * _length(residual, lifted, source.estimator.reach, pace.smallest_slope) * lifted


def _residual(implied: Tensor, goal: Tensor, kill: Tensor, options: GuidanceOptions) -> Tensor:
    """Return W ρ, (B, 1, X, Y, Z); 0 where the kill is 0 and never larger."""
    if options.mode == "source" and options.step == "annealed":
        return kill
    return torch.clamp(goal - implied, -kill.abs(), kill.abs())


def _length(residual: Tensor, lifted: Tensor, reach: int, smallest_slope: float) -> Tensor:
    """Return the field α, (B, 1, X, Y, Z), from sums over the window that the estimator reaches.

    Sums go axis by axis: no far voxel enters, not even by rounding.
    """
    squares = torch.cat([field.square().sum(dim=1, keepdim=True) for field in (residual, lifted)], dim=1)
    energy, slope = torch.split(window_mean(squares, reach), 1, 1)
    return torch.where(energy > 0, energy / (slope + smallest_slope**2 * energy).clamp_min(1e-30), 0.0)
