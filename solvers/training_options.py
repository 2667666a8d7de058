"""How the refiner's networks are trained, and what of it the result depends on."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from hybridtumor.solvers.ranks import Ranks


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Parameters
    ----------
    steps, batch, accumulate
        Steps of the optimiser, examples in each batch, batches in each step.
    learning_rate, warmup, weight_decay, clip
        AdamW: peak rate, steps of linear warm-up, decay, largest gradient norm.
    ema
        Decay of the moving average of the weights.
    seed
        Of the first weights, the batches and the noise.
    objective, sigma_log_mean, sigma_log_std
        Noise levels and weights of stage 2; the latter two are the distribution of ln σ of ``edm``.
    device, bf16, compiled, recompute
        ``cpu`` or ``cuda…``; autocast to bfloat16 (GPUs only: slow on CPUs); torch.compile; blocks are computed
        again in the backward pass instead of kept, for memory.
    prefetch, workers
        Batches made ahead, and threads that make them.
    save_every, log_every, validate_every
        Steps between checkpoints, rows of the history and looks at the validation batches.
    """

    steps: int
    batch: int = 2
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 1e-2
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    objective: str = "edm"
    sigma_log_mean: float = 0.3
    sigma_log_std: float = 1.6
    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False
    recompute: bool = False
    accumulate: int = 1
    prefetch: int = 2
    workers: int = 1
    save_every: int = 100
    log_every: int = 25
    validate_every: int = 250

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then cosine decay to 2 % of the peak."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        return self.learning_rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    def settings(self, ranks: int = 1) -> dict[str, Any]:
        """Return what the result of a run depends on; more steps are allowed, to go on with a run that is done."""
        names = ("learning_rate", "warmup", "weight_decay", "clip", "ema", "seed", "objective", "sigma_log_mean",
                 "sigma_log_std", "batch", "bf16")  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"batches_per_step": self.accumulate * ranks}

    def autocast(self) -> Any:
        """Return the context in which losses are computed."""
        return torch.autocast(self.device.split(":")[0], torch.bfloat16) if self.bf16 else nullcontext()

    def numbers(self, start: int, ranks: Ranks) -> Iterator[int]:
        """Yield the numbers of the batches of this rank from step `start` on."""
        parts = self.accumulate * ranks.size
        return (k * parts + i for k in range(start, self.steps) for i in range(ranks.rank, parts, ranks.size))
