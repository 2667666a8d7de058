"""The state of a training run on disk: weights, their moving average, both moments of the optimiser, and where it is.

One safetensors file, written whole or not at all, with the options of the run in its metadata. A run goes on only
under the options that its result depends on; how it is computed (device, threads, what is written when) may change.
"""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hybridtumor.errors import InputError
from hybridtumor.scan import write_bytes


@dataclass(eq=False)
class State:
    """All that changes while a network is trained.

    Parameters
    ----------
    parameters, average
        Name to weight, and to its moving average.
    optimiser
        AdamW over the parameters.
    step, running, seconds
        Steps done, running mean of the loss, time spent.
    """

    parameters: dict[str, nn.Parameter]
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    running: float = math.nan
    seconds: float = 0.0

    def note(self, loss: float) -> None:
        """Count a step with its loss."""
        self.step += 1
        self.running = loss if math.isnan(self.running) else 0.99 * self.running + 0.01 * loss

    def blend(self, decay: float) -> None:
        """Move the average towards the weights."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                self.average[name].lerp_(p, 1 - decay)


def save_state(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Write everything a run needs to go on; `settings` is what its result depends on."""
    tensors = {f"average.{name}": t for name, t in state.average.items()}
    for name, p in state.parameters.items():
        moments = state.optimiser.state.get(p, {})
        tensors |= {
            f"weight.{name}": p.detach(),
            f"first.{name}": moments.get("exp_avg", torch.zeros_like(p)),
            f"second.{name}": moments.get("exp_avg_sq", torch.zeros_like(p)),
        }
    about = {
        "step": state.step,
        "running": state.running,
        "seconds": state.seconds,
        "settings": settings,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    write_bytes(path, save({k: v.contiguous().cpu() for k, v in tensors.items()}, {"training": json.dumps(about)}))


def restore_state(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Fill a fresh state with what `save_state` wrote.

    Raises
    ------
    InputError
        The file is damaged, holds another network, or a run under other settings.
    """
    tensors, about = _read(path)
    wanted = {f"weight.{name}": tuple(p.shape) for name, p in state.parameters.items()}
    if wanted != {k: tuple(v.shape) for k, v in tensors.items() if k.startswith("weight.")}:
        raise InputError(
            f"{path}: expected the checkpoint of this network, got another one. Choose another checkpoint folder."
        )
    _check_settings(path, about.get("settings", {}), settings)
    with torch.no_grad():
        for name, p in state.parameters.items():
            p.copy_(tensors[f"weight.{name}"])
            state.average[name].copy_(tensors[f"average.{name}"])
            state.optimiser.state[p] = {
                "step": torch.tensor(float(about["step"])),
                "exp_avg": tensors[f"first.{name}"].to(p.device),
                "exp_avg_sq": tensors[f"second.{name}"].to(p.device),
            }
    state.step, state.running, state.seconds = int(about["step"]), float(about["running"]), float(about["seconds"])


def averaged_weights(checkpoint: Path) -> tuple[dict[str, Tensor], int]:
    """Return the averaged weights in a checkpoint and the number of steps they took.

    Raises
    ------
    InputError
        There is no checkpoint, or it is damaged.
    """
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: expected a training checkpoint, found none. Train first.")
    tensors, about = _read(checkpoint)
    return {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}, int(about["step"])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["training"])
        return load_file(path), about
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a training checkpoint, got a damaged file ({error}). Delete it.") from error


def _check_settings(path: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if stored.get(name) != value:
            raise InputError(
                f"{path}: expected a run with {name} {value}, got one with {stored.get(name)}."
                " Keep the options of the run, or choose another checkpoint folder."
            )
