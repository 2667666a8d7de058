"""Phantoms: virtual patients on whom the growth solver ran, treated and untreated, as lessons for the refiner.

A Gaussian seed at a random place in white matter grows with random D, ρ and is irradiated or not. The scans come from
the signal equation with what the render lacks, so that learning the residual is not learning the render: a density
that the image shows with random lobules and with oedema that prefers white matter, mottle in the tumour, the look of
different scanners (gain curves), a bias field, Rician noise and a random amount of gliosis where tumour was killed.
Texture and lobules belong to the place: baseline and follow-up share them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.atlas import Atlas, mni152
from hybridtumor.baseline import Baseline, read_baseline
from hybridtumor.dose_planning import dose_around
from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models import mr_signal
from hybridtumor.models.conditioning import TherapyState
from hybridtumor.models.render import GLIOSIS
from hybridtumor.models.resolution import Box, block_mean, working_factor
from hybridtumor.models.visibility import label_fractions, label_map
from hybridtumor.parameters import GrowthParameters, ImagingThresholds, TreatmentResponse
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import LABELS, MODALITIES, LabelMap, Scan
from hybridtumor.targets import TumourMasks, clinical_targets
from hybridtumor.teacher import PhantomPair
from hybridtumor.therapy import UNTREATED, Chemotherapy, Fractionation, TherapyPlan
from hybridtumor.tissue import TissueMap

Array = NDArray[np.float32]

CELL_SIZE = "3 mm"
SEED_RADIUS = 3.0
"""mm."""

AGES = tuple(float(age) for age in range(60, 301, 20))
"""Days since the seed among which day 0 is chosen."""

VISIBLE_VOLUME = (4e3, 45e3)
"""mm³. Range of the visible volume on day 0."""

FOLLOW_UP = ((20.0, 80.0), (90.0, 200.0))
"""Days after day 0: one follow-up in each range."""

CONTEXT = 6
"""Working voxels kept around the tumour."""


@dataclass(frozen=True, eq=False)
class Looks:
    """What makes the scans of one phantom its own; fields are (X, Y, Z) and the same on all days.

    Parameters
    ----------
    lobules
        Change of the density that shows.
    mottle
        Relative texture inside the tumour.
    bias
        Multiplies every modality.
    gamma
        Exponent of the gain curve of each modality.
    noise
        Rician noise, scanner units.
    gliosis
        Multiple of the render's gliosis.
    """

    lobules: Array
    mottle: Array
    bias: Array
    gamma: NDArray[np.float64]
    noise: float
    gliosis: float


def make_phantoms(count: int, cache: Path, *, first: int = 0, progress: Callable[[str], None] | None = None) -> None:
    """Make `count` phantoms from number `first` on and write their pairs into the cache; those that are there stay."""
    atlas = mni152()
    for number in range(first, first + count):
        if any(cache.glob(f"phantom_{number:03d}_*.safetensors")):
            continue
        for pair in phantom_pairs(number, atlas):
            pair.save(cache / f"{pair.name}.safetensors")
        if progress is not None:
            progress(f"phantom {number}")


def phantom_pairs(number: int, atlas: Atlas) -> Iterator[PhantomPair]:
    """Yield the training pairs of one phantom: two follow-ups, treated and untreated."""
    rng = np.random.default_rng([77, number])
    thresholds = ImagingThresholds()
    simulation = _seeded(rng, atlas.tissue)
    ages = simulation.run(days=AGES)
    volumes = [np.count_nonzero(n > thresholds.edema) * atlas.tissue.grid.voxel_volume for n in ages.density]
    fitting = [i for i, v in enumerate(volumes) if VISIBLE_VOLUME[0] <= v <= VISIBLE_VOLUME[1]]
    index = int(rng.choice(fitting)) if fitting else int(np.abs(np.array(volumes) - VISIBLE_VOLUME[1]).argmin())
    age, before = AGES[index], ages.density[index]
    looks = _looks(rng, atlas.tissue)
    patient = _patient(number, atlas, before, looks, thresholds, rng)
    baseline = read_baseline(patient, thresholds=thresholds)
    days = tuple(float(np.round(rng.uniform(*span))) for span in FOLLOW_UP)
    untreated = simulation.run(days=(age, *(age + d for d in days)))
    plan = _plan(rng, before > thresholds.enhancing, atlas.tissue, age)
    response = TreatmentResponse(alpha=f"{rng.uniform(0.008, 0.06):.4f} 1/Gy")
    treated = simulation.run(plan, untreated.days, response)
    for arm, forecast, given in (("untreated", untreated, UNTREATED), ("treated", treated, plan)):
        for day in days:
            scans = _scans(atlas, forecast.at(age + day)[0], looks, thresholds, rng)
            therapy = TherapyState.on(given, age + day)
            name = f"phantom_{number:03d}_{arm}_{day:03.0f}"
            yield _pair(name, baseline, scans, (before, forecast, untreated), age, day, therapy, looks, thresholds)


def _seeded(rng: np.random.Generator, tissue: TissueMap) -> GrowthSimulation:
    """Return a simulation of a seed at a random place with random growth."""
    deep = ndimage.distance_transform_edt(tissue.parenchyma) > 5
    places = np.argwhere(deep & (tissue.white > 0.6))
    world = tissue.grid.world(places[rng.integers(len(places))])
    distance2 = ((tissue.grid.world(np.argwhere(tissue.parenchyma)) - world) ** 2).sum(axis=1)
    values = np.zeros(tissue.grid.shape, np.float32)
    values[tissue.parenchyma] = np.where(distance2 < 144, 0.7 * np.exp(-distance2 / (2 * SEED_RADIUS**2)), 0)
    white, rate = 10 ** rng.uniform(-1.2, -0.6), 10 ** rng.uniform(-1.8, -1.3)
    growth = GrowthParameters(
        diffusion_white=f"{white:.4f} mm^2/day",
        diffusion_grey=f"{white / rng.uniform(5, 15):.4f} mm^2/day",
        proliferation=f"{rate:.4f} 1/day",
    )
    horizon = AGES[-1] + FOLLOW_UP[-1][1]
    return GrowthSimulation.prepare(
        tissue, Scan(values, tissue.grid), growth, horizon, cell_size=CELL_SIZE, comm=MPI.COMM_SELF
    )


def _looks(rng: np.random.Generator, tissue: TissueMap) -> Looks:
    """Draw what makes the scans of a phantom its own."""
    shape = tissue.grid.shape

    def smooth(width: float) -> Array:
        coarse = rng.standard_normal([max(2, -(-n // 2)) for n in shape]).astype(np.float32)
        field = ndimage.gaussian_filter(coarse, width / 2)
        stretched = np.repeat(np.repeat(np.repeat(field, 2, 0), 2, 1), 2, 2)[: shape[0], : shape[1], : shape[2]]
        return np.asarray(stretched / field.std(), np.float32)

    lobules = rng.uniform(0.04, 0.12) * smooth(3.0) + rng.uniform(0.04, 0.12) * smooth(7.0)
    lobules += np.float32(rng.uniform(0.0, 0.15)) * (tissue.white - tissue.grey)
    mottle = rng.uniform(0.05, 0.12) * smooth(2.0) + rng.uniform(0.03, 0.08) * smooth(5.0)
    bias = np.exp(rng.uniform(0.0, 0.08) * smooth(40.0))
    return Looks(
        lobules.astype(np.float32),
        mottle.astype(np.float32),
        bias.astype(np.float32),
        rng.uniform(0.75, 1.3, len(MODALITIES)),
        float(rng.uniform(3, 10)),
        float(rng.uniform(0, 2)),
    )


def shown_density(density: Array, looks: Looks) -> Array:
    """Return the density as the image shows it: with lobules where there is tumour, in [0, 1]."""
    envelope = np.clip(density / 0.15, 0, 1) * np.clip((1.02 - density) / 0.1, 0, 1)
    return np.asarray(np.clip(density + looks.lobules * envelope, 0, 1), np.float32)


def _scans(
    atlas: Atlas, density: Array, looks: Looks, thresholds: ImagingThresholds, rng: np.random.Generator
) -> dict[str, Array]:
    """Return the four modalities of one day, scanner units."""
    shown = shown_density(density, looks)
    visible = label_fractions(shown, thresholds).sum(axis=0)
    texture = (1 - visible) * mr_signal.texture_of(atlas.t1.values, atlas.tissue) + visible * looks.mottle
    scans = mr_signal.simulate_scans(atlas.tissue, texture, shown, thresholds)
    result = {}
    for (name, values), gamma in zip(scans.items(), looks.gamma, strict=True):
        noisy = mr_signal.add_noise(values * looks.bias, looks.noise, rng)
        result[name] = np.asarray(mr_signal.SCALE * (noisy / mr_signal.SCALE) ** gamma, np.float32)
    return result


def _patient(
    number: int, atlas: Atlas, density: Array, looks: Looks, thresholds: ImagingThresholds, rng: np.random.Generator
) -> Patient:
    grid = atlas.tissue.grid
    scans = {name: Scan(values, grid) for name, values in _scans(atlas, density, looks, thresholds, rng).items()}
    labels = LabelMap(label_map(shown_density(density, looks), thresholds), grid)
    return Patient(f"phantom-{number}", (Visit(0, scans, labels),), atlas.tissue, Scan(density, grid), synthetic=True)


def _plan(rng: np.random.Generator, gross: NDArray[np.bool_], tissue: TissueMap, age: float) -> TherapyPlan:
    """Return a random course that starts soon after `age`."""
    fractions, start = int(rng.choice([5, 15, 30])), age + float(rng.integers(3, 15))
    ((_, target),) = clinical_targets("estro-eano-2023", TumourMasks(gross), tissue)
    dose = dose_around(target, tissue, float(rng.uniform(20, 65)))
    radiation = Fractionation(dose, fractions, start)
    if rng.random() < 0.5:
        return TherapyPlan.of(radiation)
    return TherapyPlan.of(radiation, Chemotherapy.temozolomide(start))


def _pair(
    name: str,
    baseline: Baseline,
    scans: dict[str, Array],
    story: tuple[Array, Forecast, Forecast],
    age: float,
    day: float,
    therapy: TherapyState,
    looks: Looks,
    thresholds: ImagingThresholds,
) -> PhantomPair:
    before, forecast, untreated = story
    density, log_kill = forecast.at(age + day)
    spared = untreated.at(age + day)[0]
    factor = working_factor(baseline.grid)
    region = np.maximum(np.maximum(before, spared), density) > 0.1
    tight = Box.around(block_mean(region.astype(np.float32), factor) > 0, 8)
    start, extent = (tuple(s - CONTEXT for s in tight.start), tuple(e + 2 * CONTEXT for e in tight.extent))
    box = Box((start[0], start[1], start[2]), (extent[0], extent[1], extent[2])).scaled(factor)
    head = box.take(baseline.head)
    target = baseline.scale.normalise(np.stack([box.take(scans[m]) for m in MODALITIES])) * head
    then, now = (label_fractions(shown_density(n, looks), thresholds) for n in (before, density))
    lost = box.take(np.maximum(then.sum(axis=0) - now.sum(axis=0), 0))
    scar = looks.gliosis * (GLIOSIS * baseline.contrast[LABELS.index("edema")])[:, None, None, None] * lost

    def coarse(values: NDArray[np.floating]) -> Array:
        return block_mean(values, factor)

    tissue = baseline.tissue
    return PhantomPair(
        name=name,
        baseline=coarse(box.take(baseline.images)),
        healthy=coarse(box.take(baseline.healthy)),
        baseline_labels=coarse(box.take(baseline.soft_labels)),
        target=coarse(target + scar),
        target_labels=coarse(box.take(now)),
        density_day0=coarse(box.take(before)),
        density=coarse(box.take(density)),
        density_untreated=coarse(box.take(spared)),
        log_kill=coarse(box.take(log_kill)),
        tissue=coarse(np.stack([box.take(t) for t in (tissue.white, tissue.grey, tissue.csf)])),
        contrast=baseline.contrast,
        enhances=baseline.enhances,
        spacing=float(factor * baseline.grid.voxel_volume ** (1 / 3)),
        day=day,
        therapy=therapy,
    )
