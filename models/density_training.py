r"""Training of the density net S_B: least squares of the tumour cell density n.

    ℓ = Σ w (S_B − n)² / Σ w,    w = 1 where n > 0.02, else 1/4

whose minimiser is the mean of n given the image, so the net's answer between two labels is a mean, not a guess.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybridtumor.errors import ConvergenceError
from hybridtumor.models.density_estimator import DensityNet


@dataclass(frozen=True, eq=False)
class DensityExamples:
    """Examples for S_B on blocks of 2 mm: images, healthy (B, 4, …), present (B, 4) and density (B, 1, X, Y, Z)."""

    images: Tensor
    healthy: Tensor
    present: Tensor
    density: Tensor


def density_loss(net: DensityNet, examples: DensityExamples) -> Tensor:
    """Return the squared error of n, tissue that tumour cells have reached weighing four times as much as the rest."""
    error = (net.on_blocks(examples.images, examples.healthy, examples.present) - examples.density) ** 2
    weight = 0.25 + 0.75 * (examples.density > 0.02)
    return (weight * error).sum() / weight.sum()


def train_density_net(
    batch_of: Callable[[int], DensityExamples],
    steps: int,
    seed: int = 0,
    *,
    rate: float = 3e-3,
    progress: Callable[[int, float], None] | None = None,
) -> DensityNet:
    """Return a trained S_B, in evaluation mode: AdamW, warm-up, cosine decay.

    Parameters
    ----------
    batch_of
        Examples of a step; the same step always gives the same.
    steps, seed
        Steps of the optimiser; seed of the first weights.
    rate
        Peak learning rate.
    progress
        Called with the step and its loss.

    Raises
    ------
    ConvergenceError
        The loss is not finite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = DensityNet()
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3)
    for step in range(steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 30) * (0.02 + 0.98 * decay)
        loss = density_loss(net, batch_of(step))
        if not bool(torch.isfinite(loss)):
            raise ConvergenceError(f"density net: expected a finite loss, got {loss} at step {step}. Lower the rate.")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if progress is not None:
            progress(step, float(loss.detach()))
    return net.eval()
