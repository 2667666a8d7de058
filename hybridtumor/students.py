r"""Students in use: how weights of each stage of training are sampled.

    diffusion     the teacher: `Refiner`'s defaults
    half-width    a narrower denoiser, likewise
    one-step      f(y, σ_max) is the sample: one step of any sampler
    consistency   a consistency function and the sampler of its own: σ_max, then `CONSISTENCY_LEVEL`

(`hybridtumor.solvers.distillation`, `hybridtumor.solvers.pruning`.) Therapy as a source term pushes several times at
each of so few evaluations (`hybridtumor.solvers.guidance`).
"""

from dataclasses import replace
from typing import Any

from hybridtumor.errors import ResourceError
from hybridtumor.refiner_weights import RefinerWeights
from hybridtumor.solvers.distillation import ConsistencyDenoiser, student_of
from hybridtumor.solvers.guidance import GuidanceOptions
from hybridtumor.solvers.pruning import widths_of
from hybridtumor.solvers.samplers import CONSISTENCY
from hybridtumor.train_options import STUDENTS

TEACHER, TEACHER_STEPS = "diffusion", 6
"""Stage of the trained denoiser, and the noise levels it is sampled at."""

CONSISTENCY_LEVEL = 0.15
"""Second level of a consistency student: half-way between first and last, in ln σ."""

PUSHES = {"one-step": 4, "consistency": 2}
"""Times as many pushes of the source term at each evaluation: it gets as far as the teacher's on a white Gaussian."""


def stage_of(weights: RefinerWeights) -> str:
    """Return the stage of training that weights come from: `TEACHER`, or one of `STUDENTS`.

    Raises
    ------
    ResourceError
        It is another one.
    """
    stage = str(weights.header.get("training", {}).get("stage", TEACHER))
    if stage not in (TEACHER, *STUDENTS):
        raise ResourceError(
            f"refiner weights: expected the stage {TEACHER} or one of {', '.join(STUDENTS)}, got {stage!r}."
            " Train or install matching weights."
        )
    return stage


def as_trained(weights: RefinerWeights) -> tuple[RefinerWeights, dict[str, Any]]:
    """Return weights whose denoiser is called as it was trained, and the options of `Refiner` that sample it."""
    stage = stage_of(weights)
    if stage == "one-step":
        return weights, {"steps": 1, "guidance": GuidanceOptions(repeats=PUSHES[stage])}
    if stage == "consistency":
        function = student_of(weights.denoiser, ConsistencyDenoiser, widths_of(weights.denoiser.net)).eval()
        way = {"steps": 2, "sampler": CONSISTENCY.name, "last_level": CONSISTENCY_LEVEL}
        return replace(weights, denoiser=function), way | {"guidance": GuidanceOptions(repeats=PUSHES[stage])}
    return weights, {}
