r"""Training of the refiner's two networks, resumable bit for bit.

Stage 1, the regression, fits mean and local scale of the residual e = x − R by β-weighted Gaussian likelihood
(Seitzer et al., ICLR 2022), β = 1/2:

    ℓ₁ = E_M [ s^{2β} ( (e − μ)² / (2 s²) + ln s ) ],   the factor s^{2β} held constant in the gradient

Stage 2, the diffusion, fits the denoiser of r = (e − μ)/s (Karras et al., NeurIPS 2022), ln σ ~ N(0, 1.3²):

    ℓ₂ = E_{σ, ε} [ (0.1 + M) · (D(r + σ ε; σ) − r)² / e(σ)² ]   where M > 0

Both by AdamW with warm-up and cosine decay; an exponential moving average of the weights is what is shipped. The
batch and the noise of step k depend on the seed and k alone, so a run that was stopped goes on exactly as if it had
not been.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.models.conditioning import FIELDS
from hybridtumor.models.denoiser import Denoiser, MeanAndScale
from hybridtumor.models.spectrum import wiener_error
from hybridtumor.scan import write_bytes

REMAINDER_LIMIT = 5.0
"""|r| beyond this is cut off in training: the tails of a residual are misregistration."""

SUPPORT = FIELDS.index("support")


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Parameters
    ----------
    steps, batch
        Steps of the optimiser, examples in each.
    learning_rate, warmup, weight_decay, clip
        AdamW: peak rate, steps of linear warm-up, decay, largest gradient norm.
    ema
        Decay of the moving average of the weights.
    seed
        Of the first weights, the batches and the noise.
    sigma_log_mean, sigma_log_std
        Distribution of ln σ in stage 2.
    device, bf16, compiled
        ``cpu`` or ``cuda…``; autocast to bfloat16 (GPUs only: slow on CPUs); torch.compile.
    save_every
        Steps between checkpoints.
    """

    steps: int
    batch: int = 2
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 1e-2
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    sigma_log_mean: float = 0.0
    sigma_log_std: float = 1.3
    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False
    save_every: int = 100

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then cosine decay to 2 % of the peak."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        return self.learning_rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples for the networks.

    Parameters
    ----------
    baseline, render, target
        (B, 7, X, Y, Z) modalities and soft labels.
    fields
        (B, 9, X, Y, Z); see `hybridtumor.models.conditioning`.
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

    def to(self, device: str) -> "Batch":
        """Return the batch on a device."""
        return Batch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    @property
    def support(self) -> Tensor:
        """M, (B, 1, X, Y, Z)."""
        return self.fields[:, SUPPORT, None]


Loss = Callable[[Callable[..., Any], Batch, torch.Generator], Tensor]
"""Loss of a network, called as a function, on a batch, with the generator of this step."""


def regression_loss(network: Callable[..., Any], batch: Batch, _generator: torch.Generator) -> Tensor:
    """Return ℓ₁ of a `MeanAndScale` network."""
    mean, scale = network(batch.baseline, batch.render, batch.fields, batch.vector)
    misfit = (batch.target - batch.render - mean) ** 2 / (2 * scale**2) + scale.log()
    weight = (batch.support > 0) * (0.1 + batch.support) * batch.present[:, :, None, None, None]
    total: Tensor = (weight * scale.detach() * misfit).sum() / weight.sum().clamp_min(1)
    return total


def diffusion_loss(regression: MeanAndScale, options: TrainingOptions) -> Loss:
    """Return ℓ₂ of a `Denoiser` around a trained regression."""

    def loss(network: Callable[..., Any], batch: Batch, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            mean, scale = regression(batch.baseline, batch.render, batch.fields, batch.vector)
            remainder = ((batch.target - batch.render - mean) / scale).clamp(-REMAINDER_LIMIT, REMAINDER_LIMIT)
            remainder = torch.where(batch.support > 0, remainder, 0.0)
            mean_image = batch.render + batch.support * mean
        normal = torch.randn(len(remainder), generator=generator)
        sigma = torch.exp(options.sigma_log_mean + options.sigma_log_std * normal).to(remainder)
        noise = torch.randn(remainder.shape, generator=generator).to(remainder)
        noised = remainder + sigma[:, None, None, None, None] * noise
        estimate = network(noised, sigma, mean_image, scale.log(), batch.fields, batch.vector)
        weight = (batch.support > 0) * (0.1 + batch.support) * batch.present[:, :, None, None, None]
        by_level = wiener_error(sigma)[:, None, None, None, None] ** -2
        total: Tensor = (weight * by_level * (estimate - remainder) ** 2).sum() / weight.sum().clamp_min(1)
        return total

    return loss


def fit(
    network: nn.Module,
    loss: Loss,
    batch_of: Callable[[int], Batch],
    options: TrainingOptions,
    checkpoint: Path,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, Tensor]:
    """Train a network, from its checkpoint when there is one, and return the averaged weights.

    Parameters
    ----------
    network
        Its weights are trained in place.
    loss
        `regression_loss` or the result of `diffusion_loss`.
    batch_of
        Step number to batch; the same step gives the same batch.
    options
        How.
    checkpoint
        File the state is written to every ``options.save_every`` steps and at the end.
    progress
        Called with the step and a running mean of the loss.

    Raises
    ------
    ConvergenceError
        The loss is not finite.
    InputError
        The checkpoint belongs to another network.
    """
    network.to(options.device).train()
    parameters = dict(network.named_parameters())
    average = {name: p.detach().clone() for name, p in parameters.items()}
    optimiser = torch.optim.AdamW(
        parameters.values(), options.learning_rate, (0.9, 0.99), weight_decay=options.weight_decay
    )
    start, running = 0, math.nan
    if checkpoint.is_file():
        start, running = _restore(checkpoint, parameters, average, optimiser)
    model: Callable[..., Any] = torch.compile(network) if options.compiled else network
    for step in range(start, options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate(step)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        precision = torch.autocast(options.device.split(":")[0], torch.bfloat16) if options.bf16 else nullcontext()
        with precision:
            value = loss(model, batch_of(step).to(options.device), generator)
        if not torch.isfinite(value):
            raise ConvergenceError(
                f"training: expected a finite loss, got {value.item()} at step {step}. Lower the learning rate."
            )
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters.values(), options.clip)
        optimiser.step()
        decay = min(options.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, p in parameters.items():
                average[name].lerp_(p, 1 - decay)
        now = float(value.detach())
        running = now if math.isnan(running) else 0.99 * running + 0.01 * now
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            _save(checkpoint, step + 1, running, parameters, average, optimiser, options)
        if progress is not None:
            progress(step + 1, running)
    return average


def _save(
    path: Path,
    step: int,
    running: float,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    options: TrainingOptions,
) -> None:
    """Write everything a run needs to go on."""
    tensors = {f"average.{name}": t for name, t in average.items()}
    for name, p in parameters.items():
        state = optimiser.state[p]
        tensors |= {
            f"weight.{name}": p.detach(),
            f"first.{name}": state["exp_avg"],
            f"second.{name}": state["exp_avg_sq"],
        }
    about = {
        "step": step,
        "running": running,
        "options": asdict(options),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    write_bytes(path, save({k: v.contiguous().cpu() for k, v in tensors.items()}, {"training": json.dumps(about)}))


def _restore(
    path: Path, parameters: dict[str, nn.Parameter], average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> tuple[int, float]:
    """Load what `_save` wrote; return the step to go on with and the running loss."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["training"])
    wanted = {f"weight.{name}": tuple(p.shape) for name, p in parameters.items()}
    if wanted != {k: tuple(v.shape) for k, v in tensors.items() if k.startswith("weight.")}:
        raise InputError(
            f"{path}: expected the checkpoint of this network, got another one. Choose another checkpoint folder."
        )
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(tensors[f"weight.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
            optimiser.state[p] = {
                "step": torch.tensor(float(about["step"])),
                "exp_avg": tensors[f"first.{name}"].to(p.device),
                "exp_avg_sq": tensors[f"second.{name}"].to(p.device),
            }
    return int(about["step"]), float(about["running"])


def averaged_weights(checkpoint: Path) -> tuple[dict[str, Tensor], int]:
    """Return the averaged weights in a checkpoint and the number of steps they took.

    Raises
    ------
    InputError
        There is no checkpoint.
    """
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: expected a training checkpoint, found none. Train first.")
    with safe_open(checkpoint, "pt") as file:
        about = json.loads(file.metadata()["training"])
    tensors = load_file(checkpoint)
    return {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}, int(about["step"])


def new_networks(mean: tuple[int, ...], denoiser: tuple[int, ...], seed: int) -> tuple[MeanAndScale, Denoiser]:
    """Return untrained networks with weights drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MeanAndScale(mean), Denoiser(denoiser)
