r"""Training of the density net S_B: least squares of the tumour cell density n, and of a window's burden B = ∫n.

    ℓ = Σ w (S_B − n)² / Σ w + κ ⟨ ln² ( (B_S + B_0) / (B + B_0) ) ⟩,    w = 1 where n > 0.02, else 1/4

The minimiser of the first term is the mean of n given the image, so the net's answer between two labels is a mean, not
a guess. Errors that a whole tumour shares, and a faint background, cost the first term little and a burden much: hence
the second. It is a logarithm, because a relative error of the burden is least for an answer that is too small; and κ
rises from 0 over the first half of the steps. With a squared relative error from the first step on, κ = 0.03, the one
net that was tried read nothing anywhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.models.density_estimator import BLOCK, DensityNet

SMALL_BURDEN = 2000.0
"""B_0, mm³: errors of smaller tumours count absolutely."""

WARM_UP = 30
"""Steps until the peak rate."""


@dataclass(frozen=True)
class DensityRecipe:
    """How to train.

    Parameters
    ----------
    steps, batch
        Steps of the optimiser, and examples per step.
    rate
        Peak learning rate.
    burden_weight
        κ.
    phantom_share
        Share of the examples drawn from phantoms, where there are any.
    """

    steps: int = 1000
    batch: int = 2
    rate: float = 2e-3
    burden_weight: float = 0.01
    phantom_share: float = 0.3

    def but(self, **changes: Any) -> "DensityRecipe":
        """Return the recipe with those changes that are not None.

        Raises
        ------
        InputError
            A number is not possible.
        """
        new = replace(self, **{name: value for name, value in changes.items() if value is not None})
        if min(new.steps, new.batch) < 1 or new.rate <= 0 or not 0 <= new.phantom_share <= 1:
            raise InputError(
                f"density net: expected positive steps, batch and rate and a share in [0, 1], got {new}. Change them."
            )
        return new


@dataclass(frozen=True, eq=False)
class DensityExamples:
    """Examples for S_B on blocks of 2 mm: images, healthy (B, 4, …), present (B, 4) and density (B, 1, X, Y, Z)."""

    images: Tensor
    healthy: Tensor
    present: Tensor
    density: Tensor


def density_loss(net: DensityNet, examples: DensityExamples, burden_weight: float = 0.0) -> Tensor:
    """Return ℓ; tissue that tumour cells have reached weighs four times as much as the rest."""
    estimate = net.on_blocks(examples.images, examples.healthy, examples.present)
    weight = 0.25 + 0.75 * (examples.density > 0.02)
    local = (weight * (estimate - examples.density) ** 2).sum() / weight.sum()
    found, true = (SMALL_BURDEN + BLOCK**3 * n.sum(dim=(1, 2, 3, 4)) for n in (estimate, examples.density))
    return local + burden_weight * ((found / true).log() ** 2).mean()


def train_density_net(
    batch_of: Callable[[int], DensityExamples],
    recipe: DensityRecipe,
    seed: int = 0,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> DensityNet:
    """Return a trained S_B, in evaluation mode: AdamW, warm-up, cosine decay.

    Parameters
    ----------
    batch_of
        Examples of a step; the same step always gives the same.
    recipe
        How.
    seed
        Of the first weights.
    progress
        Called with the number of steps done and the loss of the last.

    Raises
    ------
    ConvergenceError
        The loss is not finite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = DensityNet().to(memory_format=torch.channels_last_3d)  # a third faster on CPUs
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=1e-3)
    for step in range(recipe.steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * decay)
        ramp = min(1.0, 2 * step / recipe.steps)
        loss = density_loss(net, batch_of(step), ramp * recipe.burden_weight)
        if not bool(torch.isfinite(loss)):
            raise ConvergenceError(f"density net: expected a finite loss, got {loss} at step {step}. Lower the rate.")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if progress is not None:
            progress(step + 1, float(loss.detach()))
    return net.to(memory_format=torch.contiguous_format).eval()
