r"""Training of the refiner's networks, resumable bit for bit.

Step k of AdamW with linear warm-up and cosine decay follows the mean gradient of a loss (`hybridtumor.solvers.losses`)
over its examples; an exponential moving average of the weights is what is shipped:

    w̄ ← d w̄ + (1 − d) w,    d = min(ema, (1 + k)/(10 + k))

The examples of a step are cut into parts, one after another (accumulation) and over processes (ranks): part i of rank
p in step k is the batch of number (k·accumulate + i)·ranks + p. Batch and noise depend on seed and number alone, so a
run that was stopped goes on exactly as if it had not been, and cutting changes nothing but round-off.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as recomputed

from hybridtumor.errors import ConvergenceError
from hybridtumor.models.denoiser import Denoiser, MeanAndScale
from hybridtumor.solvers.checkpoints import State, averaged_weights, restore_state, save_state
from hybridtumor.solvers.loss_history import History, Row
from hybridtumor.solvers.losses import Batch, Examples, Loss, diffusion_loss, regression_loss
from hybridtumor.solvers.prefetch import prefetched
from hybridtumor.solvers.ranks import Ranks
from hybridtumor.solvers.training_options import TrainingOptions

__all__ = [
    "Batch", "Loss", "TrainingOptions", "averaged_weights", "diffusion_loss", "fit", "new_networks", "regression_loss",
]  # fmt: skip

VALIDATION_SEED = 2**40
"""Of the noise of the validation batches: the same in every run, and none of any training example."""


def fit[B: Examples](
    network: nn.Module,
    loss: Callable[[Callable[..., Any], B, torch.Generator], Tensor],
    batch_of: Callable[[int], B],
    options: TrainingOptions,
    checkpoint: Path,
    *,
    validation: Sequence[B] = (),
    average: dict[str, Tensor] | None = None,
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
        Number to batch, called in a background thread; the same number gives the same batch. Without accumulation
        and ranks the number is the step.
    options
        How.
    checkpoint
        File the state is written to every ``options.save_every`` steps and at the end; the losses go beside it into
        ``<checkpoint>_losses.csv`` and ``….png``.
    validation
        Batches on which the averaged weights are looked at, with the same noise every time.
    average
        Filled with the averaged weights, which change as training goes on: for losses that aim at them.
    progress
        Called on the first rank with the step and a running mean of the loss.

    Raises
    ------
    ConvergenceError
        The loss or its gradient is not finite.
    InputError
        The checkpoint belongs to another network, or to a run with other options.
    """
    ranks = Ranks.current()
    network.to(options.device).train()
    state = _fresh_state(network, options)
    if checkpoint.is_file():
        restore_state(checkpoint, state, options.settings(ranks.size))
    if average is not None:
        average.update(state.average)
    ranks.wait()
    with ExitStack() as stack:
        if options.recompute:
            stack.enter_context(_recomputing(network))
        numbers = options.numbers(state.step, ranks)
        made = partial(_numbered, batch_of, options)
        batches = stack.enter_context(prefetched(made, numbers, options.prefetch, options.workers))
        writer = Writer(
            checkpoint, state, options, ranks, partial(_validation_loss, network, loss, validation, options)
        )
        stack.callback(writer.close)
        model = _wrapped(network, options, ranks)
        for step in range(state.step, options.steps):
            value = _step(model, loss, batches, options, state, ranks)
            writer.after(value, options.rate(step))
            if progress is not None and ranks.first:
                progress(state.step, state.running)
    ranks.wait()
    return state.average


class Writer:
    """What the first rank writes: checkpoints, and the history with validation losses."""

    def __init__(
        self,
        checkpoint: Path,
        state: State,
        options: TrainingOptions,
        ranks: Ranks,
        validate: Callable[[dict[str, Tensor]], float | None],
    ) -> None:
        self._checkpoint, self._state, self._options, self._validate = checkpoint, state, options, validate
        self._settings = options.settings(ranks.size)
        self._history = History(checkpoint, state.step) if ranks.first else None
        self._since = time.monotonic()

    def after(self, loss: float, rate: float) -> None:
        """Take note of a step: a row, a look at the validation batches, a checkpoint, where they are due."""
        state, options = self._state, self._options
        now = time.monotonic()
        state.seconds, self._since = state.seconds + now - self._since, now
        if self._history is None:
            return
        last = state.step == options.steps
        seen = self._validate(state.average) if last or state.step % options.validate_every == 0 else None
        if seen is not None or last or state.step % options.log_every == 0:
            self._history.add(Row(state.step, loss, state.running, seen, rate, state.seconds))
        if last or state.step % options.save_every == 0:
            save_state(self._checkpoint, state, self._settings)
            self._history.draw()

    def close(self) -> None:
        """Close the history."""
        if self._history is not None:
            self._history.close()


def _fresh_state(network: nn.Module, options: TrainingOptions) -> State:
    parameters = dict(network.named_parameters())
    average = {name: p.detach().clone() for name, p in parameters.items()}
    optimiser = torch.optim.AdamW(
        parameters.values(), options.learning_rate, (0.9, 0.99), weight_decay=options.weight_decay
    )
    return State(parameters, average, optimiser)


def _numbered[B: Examples](
    batch_of: Callable[[int], B], options: TrainingOptions, number: int
) -> tuple[B, torch.Generator]:
    """Return a batch and the generator of its first example."""
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + number * options.batch)
    return batch_of(number), generator


def _step[B: Examples](
    model: Callable[..., Any],
    loss: Callable[[Callable[..., Any], B, torch.Generator], Tensor],
    batches: Iterator[tuple[B, torch.Generator]],
    options: TrainingOptions,
    state: State,
    ranks: Ranks,
) -> float:
    """Do one step of the optimiser and return its loss."""
    for group in state.optimiser.param_groups:
        group["lr"] = options.rate(state.step)
    state.optimiser.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64)
    for part in range(options.accumulate):
        batch, generator = next(batches)
        alone = isinstance(model, DistributedDataParallel) and part + 1 < options.accumulate
        with model.no_sync() if alone else nullcontext():  # type: ignore[attr-defined]
            with options.autocast():
                value = loss(model, batch.to(options.device), generator) / options.accumulate
            value.backward()  # type: ignore[no-untyped-call]
        total += value.detach().double().cpu()
    now = float(ranks.mean(total))
    norm = float(nn.utils.clip_grad_norm_(state.parameters.values(), options.clip))
    if not (math.isfinite(now) and math.isfinite(norm)):
        raise ConvergenceError(
            f"training: expected a finite loss and gradient, got {now} and {norm} at step {state.step}."
            " Lower the learning rate."
        )
    state.optimiser.step()
    state.blend(min(options.ema, (1 + state.step) / (10 + state.step)))
    state.note(now)
    return now


def _validation_loss[B: Examples](
    network: nn.Module,
    loss: Callable[[Callable[..., Any], B, torch.Generator], Tensor],
    batches: Sequence[B],
    options: TrainingOptions,
    average: dict[str, Tensor],
) -> float | None:
    """Return the mean loss of the averaged weights over the validation batches, None without batches."""

    def averaged(*inputs: Tensor) -> Any:
        return torch.func.functional_call(network, average, inputs)

    values, first = [], VALIDATION_SEED
    network.eval()
    for batch in batches:
        with torch.no_grad(), options.autocast():
            value = loss(averaged, batch.to(options.device), torch.Generator().manual_seed(first))
        values.append(float(value))
        first += len(batch)
    network.train()
    return sum(values) / len(values) if values else None


def _wrapped(network: nn.Module, options: TrainingOptions, ranks: Ranks) -> Callable[..., Any]:
    """Return the network as it is called in training: over ranks, compiled."""
    model: Callable[..., Any] = network
    if ranks.size > 1:
        model = DistributedDataParallel(network)
    return torch.compile(model) if options.compiled else model


@contextmanager
def _recomputing(network: nn.Module) -> Iterator[None]:
    """Let the members of the network's lists of modules be computed again in the backward pass."""
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList)]
    inner = {id(m) for outer in lists for m in outer.modules() if m is not outer}
    blocks = [block for outer in lists if id(outer) not in inner for block in outer]
    for block in blocks:
        block.forward = partial(recomputed, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def new_networks(mean: tuple[int, ...], denoiser: tuple[int, ...], seed: int) -> tuple[MeanAndScale, Denoiser]:
    """Return untrained networks with weights drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MeanAndScale(mean), Denoiser(denoiser)
