r"""What the refiner's two networks are trained to make small.

Stage 1, the regression, fits mean and local scale of the residual e = x − R by β-weighted Gaussian likelihood
(Seitzer et al., ICLR 2022), β = 1/2:

    ℓ₁ = E_M [ s^{2β} ( ((e − μ)² + κ μ²) / (2 s²) + ln s ) ],   the factor s^{2β} held constant in the gradient

with a prior that the render is right, worth κ times the data: μ is 1/(1 + κ) of what least squares says.

Stage 2, the diffusion, fits the denoiser of r = (e − μ)/s (Karras et al., NeurIPS 2022):

    ℓ₂ = E_{σ, ε} [ (0.1 + M) · w(σ) (D(r + σ ε; σ) − r)² ]   where M > 0

with σ and w(σ) of an objective (`hybridtumor.solvers.objectives`); ``edm`` is ln σ normal, w = 1/e(σ)².

A loss is the mean over the examples of a batch, and the noise of an example depends on its number alone: how a batch
is cut into parts, in time or over processes, changes nothing but round-off.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from hybridtumor.models.conditioning import FIELDS
from hybridtumor.models.denoiser import MeanAndScale
from hybridtumor.solvers.objectives import Objective, edm, objective

MEAN_PRIOR = 1.0
"""κ. On left-out training cases half of a least-squares mean gains as much as all of it (0.0 to 0.2 dB)."""

REMAINDER_LIMIT = 5.0
"""|r| beyond this is cut off in training: the tails of a residual are misregistration."""

LEAST_SHARE = 1e-3
"""An example with less support than this share of its window counts in proportion: a few voxels are no lesson."""

GOLDEN = 11400714819323198485
"""2⁶⁴/φ, odd: its multiples modulo 2⁶⁴ are spread evenly."""

SUPPORT = FIELDS.index("support")


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples for the networks.

    Parameters
    ----------
    baseline, render, target
        (B, 7, X, Y, Z) modalities and soft labels.
    fields
        (B, len(FIELDS), X, Y, Z); see `hybridtumor.models.conditioning`.
    vector
        (B, VECTOR_SIZE).
    present
        (B, 7) 1 for channels that exist in the target.
    """

    baseline: Tensor
    render: Tensor
    target: Tensor
    fields: Tensor
    vector: Tensor
    present: Tensor

    def __len__(self) -> int:
        """Return B."""
        return len(self.target)

    def to(self, device: str) -> Self:
        """Return the batch on a device."""
        return type(self)(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    @property
    def support(self) -> Tensor:
        """M, (B, 1, X, Y, Z)."""
        return self.fields[:, SUPPORT, None]

    @property
    def weight(self) -> Tensor:
        """0.1 + M where M > 0 and the channel exists, else 0, (B, 7, X, Y, Z)."""
        return (self.support > 0) * (0.1 + self.support) * self.present[:, :, None, None, None]


class Examples(Protocol):
    """What a loss is shown: a batch that knows its size and moves between devices."""

    def __len__(self) -> int: ...
    def to(self, device: str) -> Self: ...  # noqa: D102


Loss = Callable[[Callable[..., Any], Batch, torch.Generator], Tensor]
"""Mean loss over a batch of a network, called as a function; example i draws from the generator's seed + i."""


class NoiseOptions(Protocol):
    """The part of the training options that says which objective to take."""

    @property
    def objective(self) -> str: ...  # noqa: D102
    @property
    def sigma_log_mean(self) -> float: ...  # noqa: D102
    @property
    def sigma_log_std(self) -> float: ...  # noqa: D102


def objective_of(options: NoiseOptions) -> Objective:
    """Return the objective that the options name; see `hybridtumor.solvers.objectives`."""
    if options.objective == "edm":
        return edm(options.sigma_log_mean, options.sigma_log_std)
    return objective(options.objective)


def draw_sigma(choice: Objective, sources: list[torch.Generator]) -> Tensor:
    """Return a noise level per example, (B,): quantiles u = ½ + k/φ mod 1 for seed k, φ the golden ratio.

    Consecutive examples, in one batch or in many, are spread evenly over the distribution, which quietens the gradient.
    """
    shares = [((g.initial_seed() * GOLDEN + 2**63) % 2**64) / 2**64 for g in sources]
    return choice.quantile(torch.tensor(shares, dtype=torch.float64)).float()


def generators(first: torch.Generator, count: int) -> list[torch.Generator]:
    """Return a generator for each of `count` examples, of the seed of `first` and those that follow."""
    return [torch.Generator().manual_seed(first.initial_seed() + i) for i in range(count)]


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over examples of the weighted mean of (B, C, X, Y, Z) in each."""
    least = LEAST_SHARE * values[0].numel()
    each = (weight * values).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp_min(least)
    return each.mean()


def regression_loss(network: Callable[..., Any], batch: Batch, _generator: torch.Generator) -> Tensor:
    """Return ℓ₁ of a `MeanAndScale` network."""
    mean, scale = network(batch.baseline, batch.render, batch.fields, batch.vector)
    error = (batch.target - batch.render - mean) ** 2 + MEAN_PRIOR * mean**2
    misfit = error / (2 * scale**2) + scale.log()
    return weighted_mean(scale.detach() * misfit, batch.weight)


def remainder_of(regression: MeanAndScale, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return r, R + M μ and ln s of a batch, each (B, 7, X, Y, Z), without gradient."""
    with torch.no_grad():
        mean, scale = regression(batch.baseline, batch.render, batch.fields, batch.vector)
        remainder = ((batch.target - batch.render - mean) / scale).clamp(-REMAINDER_LIMIT, REMAINDER_LIMIT)
        remainder = torch.where(batch.support > 0, remainder, 0.0)
        return remainder, batch.render + batch.support * mean, scale.log()


def noise_like(image: Tensor, sources: list[torch.Generator]) -> Tensor:
    """Return white noise of the shape of `image` (B, …), each example from its own generator."""
    return torch.stack([torch.randn(image.shape[1:], generator=g) for g in sources]).to(image)


def diffusion_loss(regression: MeanAndScale, options: NoiseOptions) -> Loss:
    """Return ℓ₂ of a `Denoiser` around a trained regression."""
    choice = objective_of(options)

    def loss(network: Callable[..., Any], batch: Batch, generator: torch.Generator) -> Tensor:
        remainder, mean_image, log_scale = remainder_of(regression, batch)
        sources = generators(generator, len(remainder))
        sigma = draw_sigma(choice, sources).to(remainder)
        noised = remainder + sigma[:, None, None, None, None] * noise_like(remainder, sources)
        estimate = network(noised, sigma, mean_image, log_scale, batch.fields, batch.vector)
        by_level = choice.weight(sigma)[:, None, None, None, None]
        return weighted_mean(by_level * (estimate - remainder) ** 2, batch.weight)

    return loss
