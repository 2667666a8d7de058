"""Training the refiner from the command line: ``python -m hybridtumor.train --cache DIR --out DIR``.

Prepares the teacher's cases once, trains the regression, then the diffusion, each resumable, and writes the averaged
weights with their header after every checkpoint, so that a run stopped at any time leaves usable weights.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cyclopts
import torch
from rich.console import Console

from hybridtumor.errors import InputError
from hybridtumor.models.denoiser import NetworkSizes
from hybridtumor.prepare import load_patient
from hybridtumor.refiner_weights import SHIPPED, load_weights, save_weights
from hybridtumor.solvers.training import (
    TrainingOptions,
    averaged_weights,
    diffusion_loss,
    fit,
    new_networks,
    regression_loss,
)
from hybridtumor.teacher import PhantomPair, RealCase, population_contrast, prepare_cases
from hybridtumor.training_pairs import PairSource

LOG_EVERY = 25


@dataclass(frozen=True)
class TrainOptions:
    """Options of the ``train`` command.

    Parameters
    ----------
    cache
        Folder of prepared cases and phantoms (``real_*.safetensors``, ``phantom_*.safetensors``).
    out
        Folder of checkpoints and of the weights.
    data
        Folder with ``train/patients``; HYBRIDTUMOR_DATA by default.
    init
        Weights to start from.
    regression_steps, diffusion_steps
        Steps of the two stages.
    learning_rate, batch, crop, seed
        As in `hybridtumor.solvers.training.TrainingOptions` and `hybridtumor.training_pairs.PairSource`.
    phantom_share
        Share of examples drawn from phantoms.
    hold_out
        Names of cases to keep for validation.
    phantoms
        Phantoms to make first where the cache lacks them (minutes each).
    device, bf16, compiled, threads
        Where and how to compute; 0 threads leaves torch's choice.
    """

    cache: Path
    out: Path
    data: Path | None = None
    init: Path | None = None
    regression_steps: int = 2000
    diffusion_steps: int = 6000
    learning_rate: float = 1e-3
    batch: int = 2
    crop: int = 40
    seed: int = 0
    phantom_share: float = 0.5
    hold_out: tuple[str, ...] = ()
    phantoms: int = 0
    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False
    threads: int = 0


def train(options: TrainOptions) -> Path:
    """Train both networks and return the path of the weights."""
    console = Console(stderr=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    cases = teacher_cases(options, console)
    if options.phantoms:
        from hybridtumor.phantoms import make_phantoms  # it loads the finite-element solver

        make_phantoms(options.phantoms, options.cache, progress=lambda name: console.log(f"{name} is ready"))
    phantoms = [PhantomPair.load(path) for path in sorted(options.cache.glob("phantom_*.safetensors"))]
    console.log(f"{len(cases)} real cases, {len(phantoms)} phantom pairs, {torch.get_num_threads()} threads")
    source = PairSource(cases, phantoms, options.crop, options.batch, options.seed, options.phantom_share)
    sizes = NetworkSizes()
    regression, denoiser = new_networks(sizes.mean, sizes.denoiser, options.seed)
    if options.init is not None:
        first = load_weights(options.init)
        regression, denoiser = first.regression, first.denoiser
    weights, population = options.out / "refiner.safetensors", population_contrast(cases)

    def export() -> None:
        parts = {name: options.out / f"{name}.safetensors" for name in ("regression", "diffusion")}
        mean, mean_steps = averaged_weights(parts["regression"])
        rest, rest_steps = (
            averaged_weights(parts["diffusion"]) if parts["diffusion"].is_file() else (denoiser.state_dict(), 0)
        )
        about = {
            "real_cases": [c.name for c in cases],
            "phantom_pairs": len(phantoms),
            "regression_steps": mean_steps,
            "diffusion_steps": rest_steps,
            "batch": options.batch,
            "crop": options.crop,
            "learning_rate": options.learning_rate,
            "seed": options.seed,
            "started_from": None if options.init is None else load_weights(options.init).header["training"],
        }
        save_weights(weights, mean, rest, sizes, population, about)

    def stage(name: str, every: int) -> "Progress":
        return Progress(console, name, every, export)

    first_stage = _options(options, options.regression_steps)
    averaged = fit(
        regression,
        regression_loss,
        source.batch_of,
        first_stage,
        options.out / "regression.safetensors",
        progress=stage("regression", first_stage.save_every),
    )
    regression.load_state_dict(averaged)
    regression.requires_grad_(requires_grad=False).eval()
    second_stage = _options(options, options.diffusion_steps)
    later = PairSource(cases, phantoms, options.crop, options.batch, options.seed + 1, options.phantom_share)
    fit(
        denoiser,
        diffusion_loss(regression, second_stage),
        later.batch_of,
        second_stage,
        options.out / "diffusion.safetensors",
        progress=stage("diffusion", second_stage.save_every),
    )
    export()
    return weights


def teacher_cases(options: TrainOptions, console: Console) -> list[RealCase]:
    """Return the real training cases, prepared or from the cache."""
    root = options.data or Path(os.environ.get("HYBRIDTUMOR_DATA", "../shared/data"))
    folders = sorted(
        p for p in (root / "train" / "patients").glob("*") if p.is_dir() and p.name not in options.hold_out
    )
    if not folders:
        raise InputError(f"{root}: expected BraTS folders in train/patients, found none. State the data folder.")
    return prepare_cases(
        folders, options.cache, load_patient, progress=lambda name: console.log(f"case {name} is ready")
    )


@dataclass(frozen=True, eq=False)
class Progress:
    """Log lines, and new weights after every checkpoint."""

    console: Console
    name: str
    every: int
    export: Callable[[], None]

    def __call__(self, step: int, loss: float) -> None:
        """Note a step."""
        if step % LOG_EVERY == 0:
            self.console.log(f"{self.name} step {step}: loss {loss:.4f}")
        if step % self.every == 0:
            self.export()


def _options(options: TrainOptions, steps: int) -> TrainingOptions:
    return TrainingOptions(
        steps,
        options.batch,
        options.learning_rate,
        seed=options.seed,
        device=options.device,
        bf16=options.bf16,
        compiled=options.compiled,
    )


def main() -> None:
    """Run ``python -m hybridtumor.train``."""
    app = cyclopts.App(help="Train the refiner. The shipped weights were made with this command; see the model card.")

    @app.default
    def run(options: Annotated[TrainOptions, cyclopts.Parameter(name="*")]) -> None:
        """Train and write weights.

        Parameters
        ----------
        options
            See `TrainOptions`.
        """
        path = train(options)
        Console(stderr=True).log(
            f"weights written to {path}; to ship them copy them and their header to {SHIPPED.parent}"
        )

    app()


if __name__ == "__main__":
    main()
