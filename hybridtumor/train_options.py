"""What the ``train`` command is told: folders, the recipe (two presets), and what to change of it."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hybridtumor.errors import InputError

STUDENTS = ("one-step", "consistency", "half-width")
"""Students of the trained denoiser; see `hybridtumor.solvers.distillation` and `hybridtumor.solvers.pruning`."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Parameters
    ----------
    regression_steps, diffusion_steps, student_steps
        Steps of the stages; 0 leaves a stage out that has been done before.
    batch, accumulate, crop
        Examples per batch, batches per step and process, edge of the windows in working voxels (a multiple of 16).
    learning_rate
        Peak rate; students get a third of it.
    phantoms, phantom_share
        Phantoms to make and the share of the diffusion's examples drawn from them.
    repainted
        Share of the diffusion's examples of growth whose tumour is painted anew. The regression sees neither.
    validation
        Validation batches, where cases are held out or phantoms are made.
    pairs
        Pairs that the teacher makes for the one-step student.
    objective
        See `hybridtumor.solvers.objectives`.
    device, bf16, compiled, recompute
        As in `hybridtumor.solvers.training_options.TrainingOptions`.
    save_every, validate_every
        Steps between checkpoints, and between looks at the validation batches.
    """

    regression_steps: int = 300
    diffusion_steps: int = 7000
    student_steps: int = 1000
    batch: int = 2
    accumulate: int = 1
    crop: int = 48
    learning_rate: float = 1e-3
    phantoms: int = 24
    phantom_share: float = 0.25
    repainted: float = 0.5
    validation: int = 16
    pairs: int = 128
    objective: str = "edm"
    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False
    recompute: bool = False
    save_every: int = 100
    validate_every: int = 250

    def but(self, **changes: Any) -> "Recipe":
        """Return the recipe with those changes that are not None.

        Raises
        ------
        InputError
            A number is not possible.
        """
        new = replace(self, **{name: value for name, value in changes.items() if value is not None})
        whole = [f.name for f in fields(new) if f.type is int and f.name not in MAY_BE_ZERO]
        small = [name for name in whole if getattr(new, name) < 1]
        if small or new.crop % 16 or not 0 <= new.phantom_share <= 1 or not 0 <= new.repainted <= 1:
            raise InputError(
                "training: expected positive numbers, a crop that is a multiple of 16 and shares in [0, 1],"
                f" got {small or (new.crop, new.phantom_share, new.repainted)}. Change them."
            )
        return new


MAY_BE_ZERO = {"regression_steps", "diffusion_steps", "student_steps", "phantoms", "validation"}

PRESETS = {
    "cpu": Recipe(),
    "gpu": Recipe(
        regression_steps=4000,
        diffusion_steps=60_000,
        student_steps=20_000,
        batch=8,
        crop=96,
        learning_rate=5e-4,
        phantoms=400,
        validation=32,
        pairs=2000,
        device="cuda",
        bf16=True,
        compiled=True,
        save_every=500,
        validate_every=1000,
    ),
}
"""`cpu`: about an hour on two cores. `gpu`: a day on one GPU, less on several (torchrun)."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of the ``train`` command.

    Parameters
    ----------
    cache
        Folder of prepared cases and phantoms.
    out
        Folder of checkpoints, losses and weights; a run that is there goes on.
    data
        Folder with ``train/patients``; HYBRIDTUMOR_DATA by default.
    init
        Weights to start from.
    recipe
        How.
    seed
        Of weights, examples and noise.
    hold_out
        Names of cases to validate on.
    students
        Of `STUDENTS`, trained after the denoiser.
    threads
        0 leaves torch's choice.
    """

    cache: Path
    out: Path
    data: Path | None = None
    init: Path | None = None
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    hold_out: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    threads: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.students) - set(STUDENTS))
        if unknown:
            raise InputError(
                f"students: expected of {', '.join(STUDENTS)}, got {', '.join(unknown)}. Choose from these."
            )
