r"""Therapy as a source term of the reverse process.

    dy/dσ = −σ [ s_θ(y, σ | c) + b ],    b = −∇_D U,    in code  D' = D + σ² b

s_θ = (D − y)/σ² is the network's score, D its estimate of the clean remainder, x(D) = R + M (μ + s D) the image that D
stands for and S_A the density which that image implies (`hybridtumor.models.density_estimator`). With the densities n_t
with and n_u without treatment, both as S_A sees their renders, the kill that the PDE has accumulated is Δ = n_t − n_u,
and the drift is the adjoint of S_A applied to a residual ρ:

    b ∝ P Jᵀ W ρ,    J = ∂S_A(x(D))/∂D,    W = P = 1[the density differs between treated and untreated]

    source     ρ = Δ            the difference of the drifts towards n_t and towards n_u, linear in the kill; the
                                network is told the untreated state
    both       ρ = n_t − S_A    at most |Δ|: what the network, told the treated state, still lacks
    condition  ρ = 0            the network alone

Only D is differentiated, never the network: a drift costs one gradient of S_A.

Steps. *annealed*: b = P Jᵀ W ρ / (σ_S² + Γ σ²), the posterior drift of a measurement of variance σ_S². *polyak*:
D' = D + γ α P Jᵀ W ρ, α = ⟨ρ, Wρ⟩ / |Jᵀ W ρ|², free of scale: γ is the share of ρ gone in one evaluation. One α for all
would let dose at a distant place change the image here, so both sums run over a window around each voxel: b depends
on what lies within three reaches of S_A. P makes `source` additive only for kills of one support. `source` pushes at
every evaluation, so its polyak residual fades once S_A has passed n_t, and its effect grows with γ and the number of
levels: γ = 0.2 suits twelve levels of Heun's method on a white Gaussian (4 settings tried on that toy alone). A
sampler of few evaluations pushes several times at each (`repeats`): S_A bends, and one long step along its slope would
not follow.

Classifier-free guidance (Ho and Salimans 2022) with a scale for the tumour and one for its therapy:

    D = D_none + w_tumour (D_untreated − D_none) + w_therapy (D_treated − D_untreated)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as nnf
from torch import Tensor

from hybridtumor.errors import InputError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""D(y, σ) for y (B, C, X, Y, Z) and σ (B,)."""

Mode = Literal["condition", "source", "both"]
Step = Literal["polyak", "annealed"]


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
        γ, share of the residual that one polyak step closes.
    density_error
        σ_S, standard deviation of the density estimate.
    annealing
        Γ.
    overshoot
        Density by which the polyak step of ``source`` may pass its target.
    smallest_slope
        |J| below which an image hardly depends on density; the polyak step does not grow beyond it.
    w_tumour, w_therapy
        Scales of classifier-free guidance; 1 is none.
    repeats
        Pushes at each evaluation of the network, each along the slope of S_A where the one before has led to.

    Raises
    ------
    InputError
        An unknown mode or step, or a number that is not positive.
    """

    mode: Mode = "both"
    step: Step = "polyak"
    gamma: float = 0.2
    density_error: float = 0.1
    annealing: float = 1.0
    overshoot: float = 0.1
    smallest_slope: float = 0.1
    w_tumour: float = 1.0
    w_therapy: float = 1.0
    repeats: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, get_args(Mode)), ("step", self.step, get_args(Step))):
            if value not in known:
                raise InputError(f"guidance {name}: expected one of {', '.join(known)}, got {value!r}. Choose one.")
        for name in ("gamma", "density_error", "annealing", "overshoot", "smallest_slope", "repeats"):
            if not getattr(self, name) > 0:
                raise InputError(f"guidance {name}: expected a positive number, got {getattr(self, name)}.")


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
        x(D): maps D (B, C, X, Y, Z) to the channels the estimator reads; differentiable.
    estimator
        S_A.
    treated, untreated
        Densities (1, 1, X, Y, Z) with and without therapy, equal bit for bit where therapy changes nothing.
    window
        Part of D, along X, Y and Z, that all of the above are cut to; the whole by default. It has to reach as far
        beyond the place where therapy changes something as the estimator does.
    """

    to_image: Callable[[Tensor], Tensor]
    estimator: Estimator
    treated: Tensor
    untreated: Tensor
    window: tuple[slice, slice, slice] = (slice(None),) * 3

    @property
    def changed(self) -> Tensor:
        """P: 1 where treatment has changed the density, (1, 1, X, Y, Z)."""
        return (self.treated != self.untreated).to(self.treated)


def guided(conditions: Conditions, options: GuidanceOptions, sources: Sequence[Source] = ()) -> Denoise:
    """Return D'(y, σ) for any sampler.

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
        A mode or a scale needs a condition that is not there.
    """
    base = told(conditions, options)
    active = [s for s in sources if bool((s.treated != s.untreated).any())]
    if options.mode == "condition" or not active:
        return base
    pushes = [_push(source, options) for source in active]

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        clean = base(y, sigma)
        for _ in range(options.repeats):
            clean = sum((push(clean, sigma) for push in pushes), clean)
        return clean

    return denoise


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


def _push(source: Source, options: GuidanceOptions) -> Denoise:
    """Return σ² b as a function of D and σ."""
    changed, reach = source.changed, source.estimator.reach
    with torch.no_grad():
        goal = source.estimator.seen(source.treated)
        kill = changed * (goal - source.estimator.seen(source.untreated))

    def push(clean: Tensor, sigma: Tensor) -> Tensor:
        where = (slice(None), slice(None), *source.window)
        with torch.enable_grad():
            variable = clean[where].detach().requires_grad_()
            implied = source.estimator(source.to_image(variable))
            residual = _residual(implied.detach(), goal, kill, options)
            (lifted,) = torch.autograd.grad(implied, variable, residual)
        lifted = changed * lifted
        if options.step == "annealed":
            level = sigma[:, None, None, None, None] ** 2
            gain = level / (options.density_error**2 + options.annealing * level)
        else:
            gain = options.gamma * _length(residual, lifted, reach, options.smallest_slope)
        result = torch.zeros_like(clean)
        result[where] = gain * lifted
        return result

    return push


def _residual(implied: Tensor, goal: Tensor, kill: Tensor, options: GuidanceOptions) -> Tensor:
    """Return W ρ, (B, 1, X, Y, Z); 0 where the kill is 0 and never larger."""
    if options.mode == "both":
        return torch.clamp(goal - implied, -kill.abs(), kill.abs())
    if options.step == "annealed":
        return kill.expand_as(implied)
    passed = (implied - goal) * kill.sign() / options.overshoot
    return kill * (1 - passed).clamp(0, 1)


def _length(residual: Tensor, lifted: Tensor, reach: int, smallest_slope: float) -> Tensor:
    """Return the field α, (B, 1, X, Y, Z), from sums over the window that the estimator reaches."""
    energy = _window((residual**2).sum(dim=1, keepdim=True), reach)
    slope = _window((lifted**2).sum(dim=1, keepdim=True), reach)
    return torch.where(energy > 0, energy / (slope + smallest_slope**2 * energy).clamp_min(1e-30), 0.0)


def _window(field: Tensor, reach: int) -> Tensor:
    """Return means over cubes of 2 reach + 1 voxels, axis by axis: no far voxel enters, not even by rounding."""
    for axis in range(3):
        size, pad = [1, 1, 1], [0, 0, 0]
        size[axis], pad[axis] = 2 * reach + 1, reach
        field = nnf.avg_pool3d(field, size, stride=1, padding=pad)
    return field
