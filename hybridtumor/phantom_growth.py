r"""Growth of phantoms: a seed, a tumour on day 0, a plan, and what becomes of the tumour with it and without.

    D = c w / 2,   ρ = c / (2 w)         front speed c = 2√(Dρ), mm/day, and front width w = √(D/ρ), mm, at random

The tumour grows from the seed on a crop of the brain until its visible volume is the one drawn; that is day 0. From
there both arms run on a crop around it that no front reaches the edge of within the follow-up, or in the whole head
where mechanics pushes the tissue aside. Every phantom has its own stream of random numbers.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models.resolution import block_mean
from hybridtumor.models.warp import bounds_of
from hybridtumor.parameters import GrowthParameters, ImagingThresholds, MechanicalParameters, TreatmentResponse
from hybridtumor.phantom_anatomy import Anatomy
from hybridtumor.phantom_plan import random_plan
from hybridtumor.scan import Scan
from hybridtumor.therapy import UNTREATED, TherapyPlan
from hybridtumor.tissue import TissueMap

Array = NDArray[np.float32]

CELL_SIZE = "2 mm"

TOLERANCE = 1e-3
SEED_RADIUS, SEED_PEAK = 3.0, 0.7
"""mm, and fraction of capacity: the Gaussian from which the tumour grows."""

SPEED, WIDTH = (0.05, 0.2), (1.0, 2.6)
"""mm/day and mm: ranges of c (log-uniform) and w."""

VISIBLE_VOLUME = (8e3, 60e3)
"""mm³. Range of the visible volume on day 0, log-uniform."""

FOLLOW_UP = (20.0, 200.0)
"""Days after day 0 between which the follow-ups lie."""

FARTHEST = 14.0
"""mm. A front moves no farther than this between day 0 and the last follow-up."""

REACH_FROM_SEED, REACH = 48.0, 28.0
"""mm from the seed, and from the tumour of day 0, to the edge of the crop."""

NEGLIGIBLE = 1e-5
"""Density below which there is no tumour."""

LOWEST = -25.0
"""mm, MNI. Seeds lie above: the cerebellum and the brain stem are no places of glioblastoma."""

PUSHING = 0.25
"""Share of phantoms with mass effect."""

GROWTH_STRAIN, ALPHA = (0.08, 0.25), (0.008, 0.05)
"""γ, and α in 1/Gy, log-uniform."""


@dataclass(frozen=True, eq=False)
class Story:
    """A phantom from day 0 on, every array on one grid around the tumour.

    Parameters
    ----------
    anatomy
        The brain on day 0, without its tumour.
    density
        Of day 0, (X, Y, Z).
    growth, response, mechanics
        How the tumour grows, what therapy does to it, what it does to the brain (None: nothing).
    plan, cavities
        What is given, its maps on the grid of the simulation; day to the share taken out, (X, Y, Z).
    days
        Of the follow-ups.
    untreated, treated
        Forecasts on the grid of `anatomy`, report days 0 and `days`.
    """

    anatomy: Anatomy
    density: Array
    growth: GrowthParameters
    response: TreatmentResponse
    mechanics: MechanicalParameters | None
    plan: TherapyPlan
    cavities: dict[float, Array]
    days: tuple[float, ...]
    untreated: Forecast
    treated: Forecast


@dataclass(frozen=True, eq=False)
class Onset:
    """A tumour on day 0, (X, Y, Z) on the grid of the whole anatomy, and how it grew."""

    density: Array
    growth: GrowthParameters


def grow_story(rng: np.random.Generator, brain: Anatomy, *, whole: bool = False, follow_ups: int = 2) -> Story:
    """Grow a tumour in a brain and treat it.

    Parameters
    ----------
    rng
        Everything random comes from here.
    brain
        Of the whole head.
    whole
        Whether the story is told on the grid of the whole head, and not around the tumour alone.
    follow_ups
        How many days after day 0.
    """
    onset = grow_onset(rng, brain)
    grid, size = brain.tissue.grid, brain.tissue.grid.voxel_size
    bounds = np.array(bounds_of(onset.density > 0.01)).T
    reach = np.ceil(REACH / size).astype(int)
    start, stop = np.maximum(bounds[0] - reach, 0), np.minimum(bounds[1] + reach, grid.shape)
    last = min(FOLLOW_UP[1], max(60.0, FARTHEST / onset.growth.front_speed))
    days = follow_up_days(rng, last, follow_ups)
    strain = float(rng.uniform(*GROWTH_STRAIN))
    mechanics = MechanicalParameters(growth_strain=strain) if rng.random() < PUSHING else None
    response = TreatmentResponse(alpha=f"{float(np.exp(rng.uniform(*np.log(ALPHA)))):.4f} 1/Gy")
    whole_grid = whole or mechanics is not None
    scene = brain if whole_grid else brain.within(start, stop)
    density = onset.density if whole_grid else _cut(onset.density, start, stop)
    plan = random_plan(rng, density, scene.tissue, ImagingThresholds())
    try:
        arms = _arms(scene.tissue, density, onset.growth, mechanics, plan, days, response)
    except ConvergenceError:  # pushed too far: the same tumour in a brain that does not move
        mechanics = None
        arms = _arms(scene.tissue, density, onset.growth, None, plan, days, response)
    cavities = {day: cavity for day in days if (cavity := plan.cavity_on(day)) is not None}
    if whole_grid and not whole:
        scene, density = brain.within(start, stop), _cut(onset.density, start, stop)
        arms = [_cropped(forecast, scene.tissue, start, stop) for forecast in arms]
        cavities = {day: _cut(cavity, start, stop) for day, cavity in cavities.items()}
    return Story(scene, density, onset.growth, response, mechanics, plan, cavities, days, *arms)


def follow_up_days(rng: np.random.Generator, last: float, count: int) -> tuple[float, ...]:
    """Return ascending days, one in each of `count` equal parts of the time until `last`."""
    edges = np.linspace(FOLLOW_UP[0], last, count + 1)
    return tuple(float(np.floor(rng.uniform(a + 1, b))) for a, b in pairwise(edges))


def grow_onset(rng: np.random.Generator, brain: Anatomy) -> Onset:
    """Grow a seed at a random place until the tumour shows with the volume drawn."""
    grid, size = brain.tissue.grid, brain.tissue.grid.voxel_size
    speed, width = float(np.exp(rng.uniform(*np.log(SPEED)))), float(rng.uniform(*WIDTH))
    growth = GrowthParameters(
        diffusion_white=f"{speed * width / 2:.4f} mm^2/day",
        diffusion_grey=f"{speed * width / 2 / rng.uniform(5, 15):.4f} mm^2/day",
        proliferation=f"{speed / (2 * width):.4f} 1/day",
    )
    volume = float(np.exp(rng.uniform(*np.log(VISIBLE_VOLUME))))
    place = random_place(rng, brain.tissue)
    reach = np.ceil(REACH_FROM_SEED / size).astype(int)
    start, stop = np.maximum(place - reach, 0), np.minimum(place + reach + 1, grid.shape)
    near = brain.within(start, stop).tissue
    horizon = (volume * 3 / (4 * np.pi)) ** (1 / 3) / speed
    ages = tuple(float(age) for age in np.round(horizon * np.linspace(0.4, 2.0, 9)))
    seeded = Scan(_seed(near, grid.world(place)), near.grid)
    simulation = GrowthSimulation.prepare(near, seeded, growth, ages[-1], cell_size=CELL_SIZE, comm=MPI.COMM_SELF)
    grown = simulation.run(days=ages, tolerance=TOLERANCE)
    seen = [np.count_nonzero(n > ImagingThresholds().edema) * grid.voxel_volume for n in grown.density]
    chosen = grown.density[int(np.abs(np.array(seen) - volume).argmin())]
    density = np.zeros(grid.shape, np.float32)
    density[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = np.where(chosen > NEGLIGIBLE, chosen, 0)
    return Onset(density, growth)


def random_place(rng: np.random.Generator, tissue: TissueMap, *, depth: float = 6.0) -> NDArray[np.int64]:
    """Return a voxel (3,) in white matter, `depth` mm or more from CSF as far as the brain is that thick."""
    factor = np.maximum(1, np.round(3.0 / tissue.grid.voxel_size)).astype(int)
    parenchyma = block_mean(tissue.white + tissue.grey, factor) > 0.5
    distance = ndimage.distance_transform_edt(parenchyma, sampling=factor * tissue.grid.voxel_size)
    blocks = np.argwhere((distance >= min(depth, float(distance.max()))) & (block_mean(tissue.white, factor) > 0.5))
    if not len(blocks):
        raise InputError("anatomy: expected white matter to put a tumour into, found none.")
    voxels = np.minimum(blocks * factor + factor // 2, np.array(tissue.grid.shape) - 1)
    above = voxels[tissue.grid.world(voxels)[:, 2] > LOWEST]
    voxels = above if len(above) else voxels
    return np.asarray(voxels[rng.integers(len(voxels))])


def _seed(tissue: TissueMap, place: NDArray[np.float64]) -> Array:
    """Return the density of a seed at a place (3,), mm RAS."""
    inside = np.argwhere(tissue.parenchyma)
    distance2 = ((tissue.grid.world(inside) - place) ** 2).sum(axis=1)
    values = np.zeros(tissue.grid.shape, np.float32)
    gaussian = SEED_PEAK * np.exp(-distance2 / (2 * SEED_RADIUS**2))
    values[tuple(inside.T)] = np.where(distance2 < (4 * SEED_RADIUS) ** 2, gaussian, 0)
    return values


def _arms(
    tissue: TissueMap,
    density: Array,
    growth: GrowthParameters,
    mechanics: MechanicalParameters | None,
    plan: TherapyPlan,
    days: tuple[float, ...],
    response: TreatmentResponse,
) -> list[Forecast]:
    """Return the forecasts without and with the plan, with the same time steps."""
    simulation = GrowthSimulation.prepare(
        tissue,
        Scan(density, tissue.grid),
        growth,
        days[-1],
        mechanics=mechanics,
        cell_size=CELL_SIZE,
        comm=MPI.COMM_SELF,
    )
    report = (0.0, *days)
    steps = simulation.shared_steps([plan], report, tolerance=TOLERANCE)
    arms = ((UNTREATED, None), (plan, response))
    return [simulation.run(p, report, r, tolerance=TOLERANCE, steps=steps) for p, r in arms]


def _cut(values: Array, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Array:
    a, b, c = (slice(int(i), int(j)) for i, j in zip(start, stop, strict=True))
    return values[..., a, b, c].copy()


def _cropped(forecast: Forecast, tissue: TissueMap, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Forecast:
    """Return a forecast on the grid of `tissue`, a part [start, stop) of its own."""

    def cut(fields: tuple[Array, ...] | None) -> tuple[Array, ...] | None:
        return None if fields is None else tuple(_cut(f, start, stop) for f in fields)

    return Forecast(
        tissue.grid,
        forecast.days,
        cut(forecast.density) or (),
        cut(forecast.log_kill) or (),
        forecast.burden_curve,
        cut(forecast.displacement),
        damaged=cut(forecast.damaged),
        damaged_curve=forecast.damaged_curve,
    )
