"""Training of the refiner: regression, then diffusion, then students, each resumable.

After every checkpoint the averaged weights are written with their header, so a run stopped at any time leaves usable
weights: ``refiner.safetensors``, and ``student_<kind>.safetensors`` with the same regression. Started by ``torchrun``,
every process takes its share of each batch.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hybridtumor.models.denoiser import Denoiser, MeanAndScale, NetworkSizes
from hybridtumor.refiner_weights import load_weights, save_weights
from hybridtumor.solvers.distillation import (
    ConsistencyDenoiser,
    PairMaker,
    consistency_loss,
    discretisation,
    frozen,
    one_step_loss,
    student_of,
)
from hybridtumor.solvers.pruning import half_width, widths_of
from hybridtumor.solvers.ranks import Ranks, joined
from hybridtumor.solvers.training import (
    Batch,
    TrainingOptions,
    averaged_weights,
    diffusion_loss,
    fit,
    new_networks,
    regression_loss,
)
from hybridtumor.teacher import population_contrast
from hybridtumor.train_data import Lessons, Say, case_weights, prepare_lessons
from hybridtumor.train_options import TrainOptions

LOG_EVERY = 25
STAGES = ("regression", "diffusion", "one-step", "consistency", "half-width")
"""In order; the place of a stage is part of the seed of its examples."""


def train(options: TrainOptions, *, say: Say | None = None) -> Path:
    """Train all stages that the recipe asks for, from where they stopped, and return the path of the weights.

    Raises
    ------
    InputError
        There is nothing to train on, or the folder holds a run with other options.
    ConvergenceError
        A loss is not finite.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    with joined(options.recipe.device) as (ranks, device):
        tell = say if say is not None and ranks.first else lambda _text: None
        options = replace(options, recipe=replace(options.recipe, device=device))
        run = Run(options, _lessons(options, ranks, tell), ranks, tell)
        networks = _first_networks(options)
        regression = run.regression(networks[0])
        denoiser = run.diffusion(regression, networks[1])
        for student in options.students:
            run.student(student, regression, denoiser)
    return options.out / "refiner.safetensors"


def prepare(options: TrainOptions, *, say: Say | None = None) -> Lessons:
    """Prepare cases and phantoms into the cache, where they are not there yet."""
    return prepare_lessons(options.data, options.cache, options.recipe.phantoms, options.hold_out, say=say)


@dataclass(frozen=True, eq=False)
class Run:
    """The stages of one training run."""

    options: TrainOptions
    lessons: Lessons
    ranks: Ranks
    say: Say

    def regression(self, network: MeanAndScale) -> MeanAndScale:
        """Train the regression; return it for use."""
        recipe = self.options.recipe
        if recipe.regression_steps:
            how = self._how("regression", recipe.regression_steps)
            averaged = fit(
                network,
                regression_loss,
                self._batches("regression"),
                how,
                self._path("regression"),
                validation=self._validation(),
                progress=self._progress("regression", how, lambda: None),
            )
            network.load_state_dict(averaged)
        return frozen(network.to(recipe.device))

    def diffusion(self, regression: MeanAndScale, network: Denoiser) -> Denoiser:
        """Train the denoiser; return it for use."""
        recipe = self.options.recipe
        if recipe.diffusion_steps:
            how = self._how("diffusion", recipe.diffusion_steps)
            self._fine_tune("diffusion", regression, network, how)
        elif self.ranks.first:
            self._export("diffusion", regression, network.state_dict(), widths_of(network.net), 0)
        return frozen(network.to(recipe.device))

    def student(self, kind: str, regression: MeanAndScale, teacher: Denoiser) -> None:
        """Train a student of the denoiser."""
        recipe, widths = self.options.recipe, widths_of(teacher.net)
        how = replace(self._how(kind, recipe.student_steps), learning_rate=recipe.learning_rate / 3)
        if kind == "half-width":
            narrow = half_width(teacher)
            self._fine_tune(kind, regression, narrow.requires_grad_(), replace(how, learning_rate=recipe.learning_rate))
        elif kind == "one-step":
            self._one_step(regression, teacher, student_of(teacher, Denoiser, widths), how)
        else:
            self._consistency(regression, teacher, student_of(teacher, ConsistencyDenoiser, widths), how)

    def _fine_tune(self, stage: str, regression: MeanAndScale, network: Denoiser, how: TrainingOptions) -> None:
        averaged = fit(
            network,
            diffusion_loss(regression, how),
            self._batches(stage),
            how,
            self._path(stage),
            validation=self._validation(),
            progress=self._exporting(stage, regression, network, how),
        )
        network.load_state_dict(averaged)

    def _one_step(self, regression: MeanAndScale, teacher: Denoiser, network: Denoiser, how: TrainingOptions) -> None:
        folder = self.options.out / "pairs"
        maker = PairMaker(regression, teacher, self._batches("one-step"), folder, self.options.recipe.pairs)
        fit(
            network,
            one_step_loss(regression),
            maker.pairs_of,
            how,
            self._path("one-step"),
            progress=self._exporting("one-step", regression, network, how),
        )

    def _consistency(
        self, regression: MeanAndScale, teacher: Denoiser, network: ConsistencyDenoiser, how: TrainingOptions
    ) -> None:
        average: dict[str, Tensor] = {}
        fit(
            network,
            consistency_loss(regression, teacher, network, average, discretisation()),
            self._batches("consistency"),
            how,
            self._path("consistency"),
            validation=self._validation(),
            average=average,
            progress=self._exporting("consistency", regression, network, how),
        )

    def _batches(self, stage: str) -> Callable[[int], Batch]:
        recipe, seed = self.options.recipe, self.options.seed * len(STAGES) + STAGES.index(stage)
        made = (0.0, 0.0) if stage == "regression" else (recipe.phantom_share, recipe.repainted)
        return self.lessons.source(recipe.crop, recipe.batch, seed, *made).batch_of

    def _validation(self) -> list[Batch]:
        return self.lessons.validation(self.options.recipe.crop, self.options.recipe.validation)

    def _path(self, name: str) -> Path:
        return self.options.out / f"{name}.safetensors"

    def _how(self, stage: str, steps: int) -> TrainingOptions:
        recipe = self.options.recipe
        return TrainingOptions(
            steps,
            recipe.batch,
            recipe.learning_rate,
            seed=self.options.seed * len(STAGES) + STAGES.index(stage),
            objective=recipe.objective,
            device=recipe.device,
            bf16=recipe.bf16,
            compiled=recipe.compiled,
            recompute=recipe.recompute,
            accumulate=recipe.accumulate,
            save_every=recipe.save_every,
            validate_every=recipe.validate_every,
        )

    def _exporting(
        self, stage: str, regression: MeanAndScale, network: Denoiser, how: TrainingOptions
    ) -> Callable[[int, float], None]:
        def export() -> None:
            weights, steps = averaged_weights(self._path(stage))
            self._export(stage, regression, weights, widths_of(network.net), steps)

        return self._progress(stage, how, export)

    def _progress(self, stage: str, how: TrainingOptions, export: Callable[[], None]) -> Callable[[int, float], None]:
        def note(step: int, loss: float) -> None:
            if step % LOG_EVERY == 0 or step == how.steps:
                self.say(f"{stage} step {step} of {how.steps}: loss {loss:.4f}")
            if step % how.save_every == 0 or step == how.steps:
                export()

        return note

    def _export(
        self, stage: str, regression: MeanAndScale, weights: dict[str, Tensor], widths: tuple[int, ...], steps: int
    ) -> None:
        """Write weights and header of the denoiser or of a student."""
        options, cases = self.options, self.lessons.cases
        about = {
            "stage": stage,
            "steps": steps,
            "real_cases": [case.name for case in cases],
            "case_weights": [round(weight, 4) for weight in case_weights(cases)],
            "held_out": [case.name for case in self.lessons.held],
            "phantom_pairs": len(self.lessons.phantoms),
            "recipe": asdict(options.recipe),
            "ranks": self.ranks.size,
            "seed": options.seed,
            "started_from": None if options.init is None else load_weights(options.init).header["training"],
        }
        name = "refiner" if stage == "diffusion" else f"student_{stage}"
        sizes = NetworkSizes(widths_of(regression.net), widths)
        population = population_contrast(cases)
        save_weights(self._path(name), dict(regression.named_parameters()), weights, sizes, population, about)


def _lessons(options: TrainOptions, ranks: Ranks, tell: Say) -> Lessons:
    """Return the lessons; the first rank prepares what is missing while the others wait."""
    if not ranks.first:
        ranks.wait()
    lessons = prepare(options, say=tell)
    if ranks.first:
        ranks.wait()
    tell(
        f"{len(lessons.cases)} real cases, {len(lessons.held)} held out, {len(lessons.phantoms)} phantom pairs,"
        f" {torch.get_num_threads()} threads, {ranks.size} processes"
    )
    return lessons


def _first_networks(options: TrainOptions) -> tuple[MeanAndScale, Denoiser]:
    if options.init is not None:
        first = load_weights(options.init)
        return first.regression, first.denoiser
    sizes = NetworkSizes()
    return new_networks(sizes.mean, sizes.denoiser, options.seed)
