"""Refiner: from the growth layer's fields to follow-up MRI, with labels and spread.

    x = R + M · (μ + s · r)

R is the physics render at the patient's resolution, on the baseline scan carried along with the tissue where mechanics
has moved it (`hybridtumor.models.carry`), M the support in which the tumour may look different, μ and s the regression
and r a sample of the diffusion, on the 1 mm working grid (`hybridtumor.models.denoiser`; interpolated trilinearly where
the patient's own grid is finer). Where M is 0 the result is the carried scan, and the patient's own bit for bit where
nothing has moved; day 0 is the baseline scan. Noise belongs to the place, the seed and the sample: arms and days share
it, so differences between arms come from the dose, and a tumour keeps its texture from one day to the next.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridtumor.baseline import Baseline, read_baseline
from hybridtumor.cavity import with_cavity
from hybridtumor.errors import InputError
from hybridtumor.follow_up import FollowUp, FollowUpVisit
from hybridtumor.forecast import Forecast
from hybridtumor.models.carry import carried
from hybridtumor.models.conditioning import IMAGE_CHANNELS, Condition, TherapyState
from hybridtumor.models.contrast import CONTRAST_SHAPE, draw_contrast
from hybridtumor.models.resolution import Box, block_mean
from hybridtumor.models.texture import draw_strength
from hybridtumor.models.warp import Origins, counterparts, find_origins
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient
from hybridtumor.refiner_scene import DayFields, Scene, changed_box
from hybridtumor.refiner_weights import SHIPPED, RefinerWeights, load_weights
from hybridtumor.scan import LABELS, MODALITIES, LabelMap
from hybridtumor.scene_view import SceneView
from hybridtumor.solvers.distillation import ConsistencyDenoiser
from hybridtumor.solvers.guidance import GuidanceOptions
from hybridtumor.solvers.place_noise import PlaceNoise
from hybridtumor.solvers.samplers import CONSISTENCY, sampler
from hybridtumor.solvers.sampling import START, noise_levels
from hybridtumor.students import TEACHER_STEPS, as_trained
from hybridtumor.therapy import UNTREATED, TherapyPlan

LEAST_SUPPORT = 1e-3
"""M below which nothing is written that anyone could see."""

LAST_LEVEL, LEVEL_RATIO = 0.03, 40.0
"""Last positive noise level, and ρ: levels nearly even in ln σ, which DPM-Solver++ likes best."""

Array = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Refiner:
    """The image layer with trained weights.

    Parameters
    ----------
    weights
        From `hybridtumor.refiner_weights.load_weights`.
    thresholds
        Densities at which the tumour shows.
    steps, sampler
        Noise levels, and the way down them: one of `hybridtumor.solvers.samplers.SAMPLERS`, or ``consistency`` for a
        consistency student.
    first_level, last_level
        Noise level of the start (`hybridtumor.solvers.place_noise`), and the last positive one where there are more.
    guidance
        How therapy enters the sampler.
    strength
        How strong texture is drawn; 1 is as `hybridtumor.models.texture.draw_strength` says, 0 none.

    Raises
    ------
    InputError
        A consistency student is not sampled as one, or another denoiser is.
    """

    weights: RefinerWeights
    thresholds: ImagingThresholds = field(default_factory=ImagingThresholds)
    steps: int = TEACHER_STEPS
    sampler: str = "dpmpp_2m"
    first_level: float = START
    last_level: float = LAST_LEVEL
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    strength: float = 1.0

    def __post_init__(self) -> None:
        if (self.sampler == CONSISTENCY.name) != isinstance(self.weights.denoiser, ConsistencyDenoiser):
            raise InputError(
                f"refiner: expected the sampler {CONSISTENCY.name} for a consistency student and for no other denoiser,"
                f" got {self.sampler} for a {type(self.weights.denoiser).__name__}. Leave out `sampler`."
            )

    @classmethod
    def load(cls, path: Path | str | None = None) -> "Refiner":
        """Load the weights at `path`, by default those that come with the package; a student is sampled as one.

        Raises
        ------
        ResourceError
            The weights are missing or damaged, or of a stage of training that is not known.
        """
        weights, options = as_trained(load_weights(SHIPPED if path is None else Path(path)))
        return cls(weights, **options)

    def refine(
        self,
        forecast: Forecast,
        patient: Patient,
        plan: TherapyPlan = UNTREATED,
        *,
        untreated: Forecast | None = None,
        samples: int = 4,
        seed: int = 0,
        days: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> FollowUp:
        """Return follow-up scans at the report days of a forecast.

        Parameters
        ----------
        forecast
            Of this patient under `plan`.
        patient
            With tissue, density and at least one scan on day 0.
        plan
            What was given.
        untreated
            Forecast of the same patient without therapy, for the fields therapy has changed.
        samples, seed
            Size of the ensemble; seed of its noise.
        days
            Some of the forecast's days; all by default.
        progress
            Called with steps done and steps in all.

        Raises
        ------
        InputError
            Forecast and patient do not belong together, no sample is asked for, or a day is not in the forecast.
        """
        visits = self.visits(
            forecast, patient, plan, untreated=untreated, samples=samples, seed=seed, days=days, progress=progress
        )
        return FollowUp(patient.grid, tuple(visits))

    def visits(
        self,
        forecast: Forecast,
        patient: Patient,
        plan: TherapyPlan = UNTREATED,
        *,
        untreated: Forecast | None = None,
        samples: int = 4,
        seed: int = 0,
        days: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[FollowUpVisit]:
        """Yield the visits of `refine` one by one: a day of four modalities at 1 mm takes about half a gigabyte."""
        if samples < 1:
            raise InputError(f"refine: expected at least one sample, got {samples}.")
        patient.grid.require_same(forecast.grid, "forecast")
        treated = not plan.gives_nothing
        if treated and untreated is None:
            raise InputError(
                "refine: expected the untreated forecast beside a treated one, got none."
                " Simulate the patient without a plan for the same days and pass it as `untreated`."
            )
        wanted = forecast.days if days is None else tuple(days)
        baseline = self.baseline(patient)
        for index, day in enumerate(wanted):
            if progress is not None:
                progress(index * self.steps, len(wanted) * self.steps)

            def step(done: int, _all: int, before: int = index * self.steps) -> None:
                if progress is not None:
                    progress(before + done, len(wanted) * self.steps)

            today = (baseline, forecast, untreated if treated else None, patient, day, plan.cavity_on(day))
            yield self._visit(*_today(*today), day, plan, samples, seed, step)  # no second baseline stays in memory
        if progress is not None:
            progress(len(wanted) * self.steps, len(wanted) * self.steps)

    def baseline(self, patient: Patient) -> Baseline:
        """Return the prepared baseline of a patient; the last one is kept for the next arm."""
        return _baseline_of(patient, self.weights.population.tobytes(), self.thresholds)

    def _visit(
        self,
        baseline: Baseline,
        fields: DayFields,
        day: float,
        plan: TherapyPlan,
        samples: int,
        seed: int,
        step: Progress,
    ) -> FollowUpVisit:
        """Return the visit of one day; `baseline` is where its tissue is on that day."""
        given = TherapyState() if fields.spares_the_tumour else TherapyState.on(plan, day)
        condition = Condition(day, baseline.contrast, baseline.available, given, baseline.levels)
        box = changed_box(fields.density_day0, fields.density, baseline)
        scene = None if box is None else Scene.cut(baseline, fields, box, condition, self.thresholds)
        if scene is not None and self.guidance.mode == "source":
            scene = scene.told_nothing(baseline, fields, self.thresholds)
        if box is None or scene is None or not scene.drawn.support.any():
            return with_cavity(_unchanged(baseline, day), baseline, fields.cavity)
        noise = [PlaceNoise(seed, k, IMAGE_CHANNELS, box) for k in range(samples)]
        images, labels = scene.compose(self.sample(scene, noise, step))
        visit = _composed(baseline, day, scene, images, labels.mean(axis=0))
        return with_cavity(visit, baseline, fields.cavity)

    def regression_mean(self, scene: Scene) -> Array:
        """Return μ on the working grid, (7, X, Y, Z): what is added on average."""
        mean: Array = SceneView.of(scene, self.weights, self.thresholds).mean[0].numpy()
        return mean

    def sample(self, scene: Scene, noise: Sequence[PlaceNoise], step: Progress | None = None) -> Array:
        """Return μ + s r on the working grid for every sample, (samples, 7, X, Y, Z).

        Every sample is computed by one thread, as many at a time as torch may use: a sample does not depend on the
        size of the ensemble or the number of threads, and cores that others use too are not waited for at every layer.

        Parameters
        ----------
        scene
            What the networks are told.
        noise
            Of every sample, in the scene's box.
        step
            Called with the steps done, averaged over the samples, and the steps of a sample.
        """
        done = count(1)
        way = sampler(self.sampler)

        def note(_done: int, steps: int) -> None:
            if step is not None:
                step(next(done) // len(noise), steps)

        with _one_thread_each() as threads, ThreadPoolExecutor(min(threads, len(noise))) as pool:

            @torch.no_grad()
            def draw(own: PlaceNoise) -> Tensor:
                change = draw_contrast(scene.contrast_error, own.seed, own.sample)
                strength = np.float32(self.strength) * draw_strength(own.seed, own.sample)
                view = SceneView.of(scene.coloured(change), self.weights, self.thresholds, strength)
                denoise = view.denoiser(self.guidance)
                levels = noise_levels(self.steps, self.first_level, self.last_level, LEVEL_RATIO)
                copies = (view.copies(self.guidance), 1, 1, 1, 1)
                start = own.start(self.first_level).repeat(copies)
                clean = way(denoise, start, levels, fresh=lambda k: own.white(k).repeat(copies), progress=note)[:1]
                return view.added(clean) + _per_support(scene, change)

            added: Array = torch.cat(list(pool.map(draw, noise))).numpy()
        return added


def _per_support(scene: Scene, change: Array) -> Tensor:
    """Return what a change of contrast adds to the channels, divided by M: (1, 7, X, Y, Z)."""
    support = scene.working_support
    added = np.zeros((IMAGE_CHANNELS, *support.shape), np.float32)
    painted = block_mean(scene.drawn.coloured(change), scene.factor)
    np.divide(painted, support, out=added[: len(MODALITIES)], where=support > LEAST_SUPPORT)
    return torch.from_numpy(added)[None]


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Let torch compute with one thread per caller; give back how many threads it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _baseline_of(patient: Patient, population: bytes, thresholds: ImagingThresholds) -> Baseline:
    return read_baseline(
        patient, population=np.frombuffer(population, np.float32).reshape(CONTRAST_SHAPE), thresholds=thresholds
    )


def _today(
    baseline: Baseline,
    forecast: Forecast,
    untreated: Forecast | None,
    patient: Patient,
    day: float,
    cavity: Array | None,
) -> tuple[Baseline, DayFields]:
    """Return the baseline and the fields of a day, both where the tissue is on that day."""
    if forecast.displacement is None or day not in forecast.days:
        return baseline, replace(_fields_of(forecast, untreated, patient, day, None), cavity=cavity)
    origins = find_origins(forecast.displacement[forecast.days.index(day)], forecast.grid)
    if cavity is not None:
        cavity = carried(cavity, origins, order=0)
    return baseline.carried(origins), replace(_fields_of(forecast, untreated, patient, day, origins), cavity=cavity)


def _fields_of(
    forecast: Forecast, untreated: Forecast | None, patient: Patient, day: float, origins: Origins | None
) -> DayFields:
    """Return the fields of a day where the tissue is on that day.

    The forecast's own day 0 is the density nothing has changed from. The untreated density is that of the same tissue,
    which in the untreated arm may have been pushed elsewhere.
    """
    now, (_, log_kill) = forecast.visible(day), forecast.at(day)
    moved = None
    if origins is not None and forecast.displacement is not None:
        size = np.linalg.norm(forecast.displacement[forecast.days.index(day)], axis=0)
        moved = carried(size.astype(np.float32), origins, order=1)
    before = (
        forecast.visible(0) if 0 in forecast.days else patient.density.values if patient.density is not None else now
    )
    spared = now if untreated is None else untreated.visible(day)
    if origins is not None:
        before = carried(before, origins, order=3)
    if origins is not None and untreated is not None and untreated.displacement is not None:
        elsewhere = counterparts(origins, untreated.displacement[untreated.days.index(day)])
        spared = carried(spared, elsewhere, order=3)
    return DayFields(before, now, spared, log_kill, displacement=moved)


def _unchanged(baseline: Baseline, day: float) -> FollowUpVisit:
    """Return the baseline visit as the visit of a day on which the tumour looks the same."""
    zero = np.zeros(baseline.grid.shape, np.float32)
    spread = dict.fromkeys(baseline.scans, zero)
    return FollowUpVisit(day, baseline.scans, baseline.scans, spread, baseline.labels, zero, baseline.moved)


def _composed(baseline: Baseline, day: float, scene: Scene, images: Array, soft: Array) -> FollowUpVisit:
    """Return a visit in scanner units on the patient's grid; what lies outside the support is the baseline."""
    box, support = scene.box.scaled(scene.factor), scene.drawn.support
    parts: dict[str, dict[str, Array]] = {"images": {}, "mean": {}, "std": {}}
    sampled = np.stack([baseline.scale.restore(sample) for sample in images])
    for index, name in enumerate(MODALITIES):
        if name not in baseline.scans:
            continue
        scan = baseline.scans[name]
        own = box.take(scan)
        ensemble = np.maximum(sampled[:, index], scan.min())  # magnitude images have no value below their background
        parts["images"][name] = _inserted(scan, box, np.where(support > 0, ensemble[0], own))
        parts["mean"][name] = _inserted(scan, box, np.where(support > 0, ensemble.mean(axis=0), own))
        parts["std"][name] = _inserted(np.zeros_like(scan), box, np.where(support > 0, ensemble.std(axis=0), 0))
    codes = np.array([baseline.labels.codes[name] for name in LABELS], np.uint8)
    chosen = np.where(soft.sum(axis=0) > 0.5, codes[soft.argmax(axis=0)], 0)
    labels = baseline.labels.values.copy()
    box.put(np.where(support > 0, chosen, box.take(labels)).astype(np.uint8), labels)
    mask = np.zeros(baseline.grid.shape, np.float32)
    box.put(support, mask)
    return FollowUpVisit(
        day,
        parts["images"],
        parts["mean"],
        parts["std"],
        LabelMap(labels, baseline.grid, baseline.labels.codes),
        mask,
        baseline.moved,
    )


def _inserted(whole: Array, box: Box, part: NDArray[np.floating]) -> Array:
    """Return a copy of `whole` with `part` in the box."""
    result = whole.copy()
    box.put(part.astype(np.float32), result)
    return result
