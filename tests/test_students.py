"""Students in use: a file is sampled as it was trained, and the laws of the refiner hold in one and two evaluations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_evaluation import GRID, SHAPE, TINY, ball, small_baseline, small_patient, small_refiner
from torch import Tensor, nn

from hybridtumor.errors import InputError, ResourceError
from hybridtumor.evaluation.problems import real_case
from hybridtumor.follow_up import FollowUp
from hybridtumor.forecast import Forecast
from hybridtumor.models.conditioning import IMAGE_CHANNELS
from hybridtumor.models.contrast import POPULATION
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.refine import Refiner
from hybridtumor.refiner_weights import save_weights
from hybridtumor.scan import MODALITIES
from hybridtumor.solvers.guidance import GuidanceOptions, Mode
from hybridtumor.solvers.place_noise import PlaceNoise
from hybridtumor.solvers.sampling import SIGMA_MIN, START
from hybridtumor.students import CONSISTENCY_LEVEL, PUSHES, TEACHER_STEPS
from hybridtumor.therapy import UNTREATED, DoseMap, Fractionation, TherapyPlan
from hybridtumor.train_options import STUDENTS

FEW = ("one-step", "consistency")
ZERO, ONE = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)


def saved(folder: Path, stage: str | None) -> Path:
    """Weights of tiny networks that have learnt nothing, said to come from a stage of training."""
    path, weights = folder / f"student_{stage}.safetensors", small_refiner().weights
    regression, denoiser = (dict(n.named_parameters()) for n in (weights.regression, weights.denoiser))
    save_weights(path, regression, denoiser, TINY, POPULATION, {} if stage is None else {"stage": stage})
    return path


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refiner]:
    folder = tmp_path_factory.mktemp("students")
    return {stage: Refiner.load(saved(folder, stage)) for stage in STUDENTS}


def grown(now: NDArray[np.float32] | None = None, log_kill: NDArray[np.float32] = ZERO, day: float = 60.0) -> Forecast:
    before = ball(0.97, 9)
    return Forecast(
        GRID, (0.0, day), (before, ball(0.97, 12) if now is None else now), (ZERO, log_kill), np.zeros((2, 2))
    )


def images(
    refiner: Refiner, forecast: Forecast, plan: TherapyPlan = UNTREATED, samples: int = 2, mode: Mode = "both"
) -> FollowUp:
    steered = replace(refiner, guidance=replace(refiner.guidance, mode=mode))
    return steered.refine(forecast, small_patient(), plan, untreated=grown(), samples=samples, days=(60.0,))


@pytest.fixture(scope="module")
def untreated(students: dict[str, Refiner]) -> dict[str, FollowUp]:
    return {stage: images(students[stage], grown()) for stage in FEW}


def dose(where: NDArray[np.float32]) -> TherapyPlan:
    return TherapyPlan.of(Fractionation(DoseMap(where, GRID), 30, 14))


def same(a: FollowUp, b: FollowUp) -> bool:
    (x,), (y,) = a.visits, b.visits
    return np.array_equal(x.labels.values, y.labels.values) and all(
        np.array_equal(getattr(x, k)[m], getattr(y, k)[m]) for k in ("images", "mean", "std") for m in MODALITIES
    )


class Listening:
    """What a denoiser is asked and what it answers."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.asked: list[tuple[Tensor, float]] = []
        self.answers: list[Tensor] = []
        self.hook = denoiser.register_forward_hook(self.note)

    def note(self, _module: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        self.asked.append((given[0], float(given[1])))
        self.answers.append(answer)


@pytest.mark.parametrize(
    ("stage", "levels"),
    [("one-step", (START,)), ("consistency", (START, CONSISTENCY_LEVEL)), ("half-width", TEACHER_STEPS)],
)
def test_a_file_is_sampled_as_its_stage_says(
    students: dict[str, Refiner], stage: str, levels: tuple[int, ...] | int
) -> None:
    refiner = students[stage]
    scene = real_case("onset", small_baseline(), POPULATION, ImagingThresholds()).scene
    listening, told = Listening(refiner.weights.denoiser), []
    own = PlaceNoise(3, 1, IMAGE_CHANNELS, scene.box)
    refiner.sample(scene, [own], lambda *done: told.append(done))
    listening.hook.remove()
    seen = [sigma for _, sigma in listening.asked]
    assert told[-1] == (len(seen), len(seen))
    if isinstance(levels, int):
        assert len(seen) == levels
    else:
        assert seen == pytest.approx(levels)
    assert torch.allclose(listening.asked[0][0], own.start(START)[None], atol=1e-5)
    if stage == "consistency":  # its noise is that of the place, so arms and days share it and pairs stay pairs
        put_back = listening.asked[1][0] - listening.answers[0]
        assert torch.allclose(put_back, (CONSISTENCY_LEVEL**2 - SIGMA_MIN**2) ** 0.5 * own.white(1), atol=1e-5)


def test_levels_of_a_consistency_student_are_a_choice(students: dict[str, Refiner]) -> None:
    refiner = replace(students["consistency"], steps=3, last_level=0.1)
    scene = real_case("onset", small_baseline(), POPULATION, ImagingThresholds()).scene
    listening = Listening(refiner.weights.denoiser)
    refiner.sample(scene, [PlaceNoise(0, 0, IMAGE_CHANNELS, scene.box)])
    listening.hook.remove()
    seen = [sigma for _, sigma in listening.asked]
    assert (len(seen), seen[0], seen[-1]) == (3, pytest.approx(START), pytest.approx(0.1))


def test_students_push_the_more_often_the_fewer_their_evaluations(students: dict[str, Refiner], tmp_path: Path) -> None:
    repeats = [students[stage].guidance.repeats for stage in ("half-width", "consistency", "one-step")]
    assert repeats == [1, PUSHES["consistency"], PUSHES["one-step"]] == sorted(set(repeats))
    for stage in (None, "diffusion"):
        teacher = Refiner.load(saved(tmp_path, stage))
        assert (teacher.steps, teacher.sampler, teacher.guidance) == (TEACHER_STEPS, "dpmpp_2m", GuidanceOptions())


@pytest.mark.law("images", "Outside the mask the image of a student is the scan, bit for bit")
@pytest.mark.parametrize("stage", FEW)
def test_outside_the_mask_a_students_image_is_the_scan(untreated: dict[str, FollowUp], stage: str) -> None:
    (visit,) = untreated[stage].visits
    outside, inside = visit.mask == 0, visit.mask == 1
    assert outside.any()
    for name, scan in small_patient().baseline.scans.items():
        assert np.array_equal(visit.images[name][outside], scan.values[outside])
        assert np.array_equal(visit.mean[name][outside], scan.values[outside])
        assert not visit.std[name][outside].any()
        assert visit.std[name][inside].any()
        assert np.isfinite(visit.images[name]).all()


@pytest.mark.law("images", "A student's image under 0 Gy, or without kill, is the untreated one, bit for bit")
@pytest.mark.parametrize("mode", ["condition", "source", "both"])
@pytest.mark.parametrize("stage", FEW)
def test_zero_dose_and_zero_kill_are_no_treatment(
    students: dict[str, Refiner], untreated: dict[str, FollowUp], stage: str, mode: Mode
) -> None:
    for plan in (dose(ZERO), dose(60 * ONE)):
        assert same(images(students[stage], grown(), plan, mode=mode), untreated[stage])


@pytest.mark.law("images", "Dose beside the tumour changes no bit of a student's image")
@pytest.mark.parametrize("stage", FEW)
def test_dose_beside_the_tumour_changes_nothing(
    students: dict[str, Refiner], untreated: dict[str, FollowUp], stage: str
) -> None:
    beside = ZERO.copy()
    beside[:4] = 60  # far from every cell
    assert same(images(students[stage], grown(log_kill=beside / 12), dose(beside)), untreated[stage])


@pytest.mark.parametrize("mode", ["source", "both"])
@pytest.mark.parametrize("stage", FEW)
def test_the_source_term_moves_a_students_image_towards_fewer_cells(
    students: dict[str, Refiner], stage: str, mode: Mode
) -> None:
    """FLAIR is brighter in tumour, so what therapy has killed is darker than without the source term."""
    now = ball(0.97, 12)
    killed = (now * np.exp(-3)).astype(np.float32)
    treated, plan = grown(killed, 3 * ONE), dose(60 * ONE)
    plain = replace(students[stage], strength=1.0)
    off = replace(plain, guidance=GuidanceOptions(gamma=1e-9))
    pair = [images(r, treated, plan, mode=mode).at(60).mean["FLAIR"] for r in (off, plain)]
    lost = (now > 0.3) & (killed < 0.05)
    assert float((pair[1] - pair[0])[lost].mean()) < -0.5


@pytest.mark.parametrize("stage", FEW)
def test_a_sample_depends_on_its_seed_and_number_alone(
    students: dict[str, Refiner], untreated: dict[str, FollowUp], stage: str
) -> None:
    one = images(students[stage], grown(), samples=1).at(60)
    assert all(np.array_equal(one.images[name], untreated[stage].at(60).images[name]) for name in MODALITIES)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert same(images(students[stage], grown()), untreated[stage])
    finally:
        torch.set_num_threads(threads)


def test_what_does_not_belong_together_is_refused(students: dict[str, Refiner], tmp_path: Path) -> None:
    for stage, way in (("consistency", "dpmpp_2m"), ("one-step", "consistency")):
        with pytest.raises(InputError, match="sampler consistency for a consistency student"):
            replace(students[stage], sampler=way)
    with pytest.raises(ResourceError, match="one of one-step, consistency, half-width, got 'guess'"):
        Refiner.load(saved(tmp_path, "guess"))
    low = replace(students["consistency"], last_level=0.03)
    with pytest.raises(InputError, match=r"levels above 0\.05"):
        images(low, grown())
