"""The ``train`` command: it loads torch when it runs, not when the command line is parsed."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hybridtumor import terminal
from hybridtumor.errors import InputError


def train(
    *,
    out: Annotated[Path, Parameter(help="Folder of checkpoints, losses and weights; a run that is there goes on.")],
    cache: Annotated[Path, Parameter(help="Folder of prepared cases and phantoms.")] = Path("run/teacher"),
    data: Annotated[
        Path | None, Parameter(help="Folder with train/patients in BraTS layout; default: HYBRIDTUMOR_DATA.")
    ] = None,
    prepare: Annotated[bool, Parameter(help="Only prepare cases and phantoms, then stop.", negative="")] = False,
    preset: Annotated[
        Literal["cpu", "gpu"], Parameter(help="cpu: about an hour on two cores; gpu: a day on one, or torchrun.")
    ] = "cpu",
    phantoms: Annotated[int | None, Parameter(help="Phantoms to make where the cache has fewer.")] = None,
    regression_steps: Annotated[int | None, Parameter(help="Steps of the regression.")] = None,
    diffusion_steps: Annotated[int | None, Parameter(help="Steps of the diffusion.")] = None,
    student_steps: Annotated[int | None, Parameter(help="Steps of each student.")] = None,
    student: Annotated[
        tuple[Literal["one-step", "consistency", "half-width"], ...],
        Parameter(help="Few-step or smaller students to train after the denoiser.", negative=""),
    ] = (),
    hold_out: Annotated[
        tuple[str, ...], Parameter(help="Names of cases to validate on instead of training on them.", negative="")
    ] = (),
    init: Annotated[Path | None, Parameter(help="Weights to start from.")] = None,
    batch: Annotated[int | None, Parameter(help="Examples per batch.")] = None,
    accumulate: Annotated[int | None, Parameter(help="Batches per step and process.")] = None,
    crop: Annotated[int | None, Parameter(help="Edge of the windows, mm; a multiple of 16.")] = None,
    density: Annotated[
        bool, Parameter(help="Train the density net that measures images instead of the refiner.", negative="")
    ] = False,
    density_steps: Annotated[int | None, Parameter(help="Steps of the density net.")] = None,
    learning_rate: Annotated[float | None, Parameter(help="Peak learning rate.")] = None,
    phantom_share: Annotated[float | None, Parameter(help="Share of the examples drawn from phantoms.")] = None,
    objective: Annotated[str | None, Parameter(help="edm, ddpm_cosine, ddpm_linear or flow.")] = None,
    device: Annotated[str | None, Parameter(help="cpu or cuda.")] = None,
    bf16: Annotated[bool | None, Parameter(help="Compute in bfloat16; slow on CPUs.")] = None,
    compiled: Annotated[bool | None, Parameter(name="--compile", help="Use torch.compile.")] = None,
    recompute: Annotated[
        bool | None, Parameter(help="Compute blocks again instead of keeping them, for memory.")
    ] = None,
    seed: Annotated[int, Parameter(help="Of weights, examples and noise.")] = 0,
    threads: Annotated[int, Parameter(help="Threads of torch; 0 leaves its choice.")] = 0,
) -> None:
    """Train the refiner's networks, from where a run in that folder stopped; half of real examples enhance.

    With ``--density`` it is the net that measures images: minutes once cases and phantoms are
    prepared, and figures of the cases that are held out.
    """
    if density:
        refiners = {
            "prepare": prepare, "preset": preset != "cpu", "regression-steps": regression_steps, "init": init,
            "diffusion-steps": diffusion_steps, "student-steps": student_steps, "student": student, "crop": crop,
            "accumulate": accumulate, "objective": objective, "device": device, "bf16": bf16, "compile": compiled,
            "recompute": recompute,
        }  # fmt: skip
        _refuse([f"--{name}" for name, value in refiners.items() if value])
        from hybridtumor.models.density_training import DensityRecipe
        from hybridtumor.train_density import DensityOptions, train_density

        how = DensityRecipe().but(steps=density_steps, batch=batch, rate=learning_rate, phantom_share=phantom_share)
        what = DensityOptions(cache, out, data, how, 24 if phantoms is None else phantoms, seed, hold_out, threads)
        print(f"weights: {train_density(what, say=terminal.say)}")  # noqa: T201
        return
    from hybridtumor.train import prepare as run_prepare
    from hybridtumor.train import train as run_train
    from hybridtumor.train_options import PRESETS, TrainOptions

    recipe = PRESETS[preset].but(
        phantoms=phantoms,
        regression_steps=regression_steps,
        diffusion_steps=diffusion_steps,
        student_steps=student_steps,
        batch=batch,
        accumulate=accumulate,
        crop=crop,
        learning_rate=learning_rate,
        phantom_share=phantom_share,
        objective=objective,
        device=device,
        bf16=bf16,
        compiled=compiled,
        recompute=recompute,
    )
    options = TrainOptions(cache, out, data, init, recipe, seed, hold_out, student, threads)
    if prepare:
        lessons = run_prepare(options, say=terminal.say)
        terminal.say(f"{len(lessons.cases)} cases and {len(lessons.phantoms)} phantom pairs are in {cache}")
        return
    print(f"weights: {run_train(options, say=terminal.say)}")  # noqa: T201


def _refuse(options: list[str]) -> None:
    """Raise where options of the refiner were given for the density net."""
    if options:
        raise InputError(f"train --density: expected no {', '.join(options)}, they are the refiner's. Leave them out.")
