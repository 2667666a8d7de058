"""Twins: patients whose parameters are known, since the forward simulation made them, and scans of them with errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from hybridtumor.calibration.problem import Problem
from hybridtumor.calibration.start import Start
from hybridtumor.calibration.unknowns import Priors
from hybridtumor.forecast import Forecast
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.growth_gradient import GrowthGradient
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models.observation import DataTerm
from hybridtumor.models.observation_borders import Borders
from hybridtumor.models.observation_maps import Cellularity
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.scan import LabelMap, Scan
from hybridtumor.therapy import Chemotherapy, DoseMap, Fractionation, TherapyPlan
from hybridtumor.tissue import TissueMap

Values = Mapping[str, float]

CODES = {"necrosis": 1, "edema": 2, "enhancing": 4}

GROWTH = ("diffusion_white", "proliferation", "alpha", "temozolomide")

THRESHOLDS = ("threshold_edema", "threshold_enhancing")


def distance(grid: Grid, point: Sequence[float]) -> np.ndarray:
    """Distance of every voxel from a point, mm."""
    return np.linalg.norm(grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - np.asarray(point), axis=-1)


def centred_grid(shape: tuple[int, int, int], voxel: Sequence[float]) -> Grid:
    """A grid around the origin."""
    affine = np.diag([*voxel, 1.0])
    affine[:3, 3] = -np.asarray(voxel) * (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def round_brain(grid: Grid, radius: float) -> TissueMap:
    """A ball: white matter, a grey shell of a sixth of the radius, 2 mm of CSF around."""
    r = distance(grid, (0, 0, 0))
    white = (r < radius * 5 / 6).astype(np.float32)
    grey = ((r >= radius * 5 / 6) & (r < radius)).astype(np.float32)
    csf = ((r >= radius) & (r < radius + 2)).astype(np.float32)
    return TissueMap(white, grey, csf, grid)


def round_tumour(tissue: TissueMap, place: Sequence[float], radius: float, width: float = 2.0) -> Scan:
    """A ball of cells with the profile of a front."""
    u = 1 / (1 + np.exp((distance(tissue.grid, place) - radius) / width))
    return Scan(np.where(tissue.parenchyma & (u > 1e-4), u, 0).astype(np.float32), tissue.grid)


def sequential(grid: Grid, place: Sequence[float], first_day: float = 14.0) -> TherapyPlan:
    """20 × 2 Gy to a region that leaves out part of the tumour, then three cycles of temozolomide: separable."""
    dose = 40 * np.exp(-((distance(grid, place) / 16) ** 4))
    course = Fractionation(DoseMap(dose.astype(np.float32), grid), 20, first_day, prescription=40.0)
    return TherapyPlan.of(course, Chemotherapy.temozolomide(first_day + 42, concurrent_days=0, adjuvant_cycles=3))


def concurrent(grid: Grid, first_day: float = 14.0) -> TherapyPlan:
    """30 × 2 Gy everywhere and temozolomide on the same days: what of it killed nobody can tell."""
    course = Fractionation(DoseMap(np.full(grid.shape, 60, np.float32), grid), 30, first_day)
    return TherapyPlan.of(course, Chemotherapy(tuple((day, 75.0) for day in course.fraction_days)))


@dataclass(frozen=True, eq=False)
class Setting:
    """What all twins of an experiment share; `visits` are the days of their scans, day 0 is known."""

    tissue: TissueMap
    density: Scan
    plan: TherapyPlan
    visits: tuple[float, ...]
    cell_size: str
    later: tuple[float, ...] = ()

    @property
    def days(self) -> tuple[float, ...]:
        return (0.0, *self.visits, *self.later)

    @cached_property
    def simulation(self) -> GrowthSimulation:
        """The mesh, with the default parameters."""
        return self.prepared(self.cell_size)

    def prepared(self, cell_size: str) -> GrowthSimulation:
        return GrowthSimulation.prepare(self.tissue, self.density, None, self.days[-1], cell_size=cell_size)

    @cached_property
    def gradient(self) -> GrowthGradient:
        return GrowthGradient(self.simulation, self.plan, self.days, TreatmentResponse())

    def forecast(self, truth: Values, simulation: GrowthSimulation | None = None) -> Forecast:
        """The twin itself: the forward simulation, with steps of its own."""
        base = self.simulation if simulation is None else simulation
        return base.with_growth(growth(truth)).run(self.plan, self.days, response(truth))

    def drawn(
        self, densities: Mapping[float, np.ndarray], truth: Values, seed: int | None, error: float, length: float
    ) -> dict[float, LabelMap]:
        """Labels of every day; seed None: without error."""
        rng = None if seed is None else np.random.default_rng(seed)
        return {day: drawn(n, self.tissue, truth, rng, error, length) for day, n in densities.items()}

    def problem(self, terms: Sequence[DataTerm], priors: Priors, start: Start | None = None, **fixed: float) -> Problem:
        return Problem(self.gradient, tuple(terms), priors, fixed, start)

    def to_nodes(self, density: np.ndarray) -> np.ndarray:
        """A density on the grid to the nodes."""
        return self.simulation.domain.local(self.simulation.brain.transfer.nodal_values(density))


def growth(values: Values) -> GrowthParameters:
    default = GrowthParameters()
    white = values["diffusion_white"]
    return default.model_copy(
        update={
            "diffusion_white": white,
            "diffusion_grey": white * default.diffusion_grey / default.diffusion_white,
            "proliferation": values["proliferation"],
        }
    )


def response(values: Values) -> TreatmentResponse:
    return TreatmentResponse().model_copy(update={name: values[name] for name in ("alpha", "temozolomide")})


def smooth_field(grid: Grid, rng: np.random.Generator, length: float) -> np.ndarray:
    """A Gaussian field of variance 1 with the correlation exp(−r²/2ℓ²)."""
    if length == 0:
        return rng.standard_normal(grid.shape)
    sigma = length / np.sqrt(2) / grid.voxel_size
    one = np.zeros(grid.shape)
    one[tuple(n // 2 for n in grid.shape)] = 1
    scale = np.sqrt((ndimage.gaussian_filter(one, sigma, mode="wrap") ** 2).sum())
    return np.asarray(ndimage.gaussian_filter(rng.standard_normal(grid.shape), sigma, mode="wrap") / scale)


def displaced(density: np.ndarray, grid: Grid, displacement: np.ndarray) -> np.ndarray:
    """The density moved along its own gradient, mm."""
    spacing, density = grid.voxel_size, density.astype(np.float64)
    slope = np.stack(np.gradient(density, *spacing))
    normal = slope / np.maximum(np.linalg.norm(slope, axis=0), 1e-9)
    index = np.indices(grid.shape) + displacement * normal / spacing[:, None, None, None]
    return np.asarray(ndimage.map_coordinates(density, index, order=1, mode="nearest"))


def drawn(
    density: np.ndarray, tissue: TissueMap, truth: Values, rng: np.random.Generator | None, error: float, length: float
) -> LabelMap:
    """Whole tumour and core as someone draws them, each border displaced by a smooth field of standard deviation mm.

    The surface of the brain is no border of the tumour: it is seen, and stays.
    """
    grid, brain = tissue.grid, tissue.parenchyma
    nearest = ndimage.distance_transform_edt(~brain, return_distances=False, return_indices=True)
    beyond = density[tuple(nearest)]
    labels = np.zeros(grid.shape, np.uint8)
    for name, code in zip(THRESHOLDS, (CODES["edema"], CODES["enhancing"]), strict=True):
        moved = density if rng is None else displaced(beyond, grid, error * smooth_field(grid, rng, length))
        labels[(moved > truth[name]) & brain & ((labels > 0) | (code == CODES["edema"]))] = code
    return LabelMap(labels, grid, CODES)


def segmentations(
    setting: Setting,
    densities: Mapping[float, np.ndarray],
    truth: Values,
    seed: int | None,
    *,
    error: float = 1.0,
    length: float = 2.0,
    **how: float,
) -> list[Borders]:
    """What is drawn at every visit; seed None: without error."""
    maps = setting.drawn(densities, truth, seed, error, length)
    ever = np.any([labels.mask() for labels in maps.values()], axis=0) | (setting.density.values > 0.2)
    brain = setting.tissue.parenchyma
    return [Borders.from_labels(labels, brain, day, around=ever, **how) for day, labels in maps.items()]


def cellularities(
    setting: Setting, densities: Mapping[float, np.ndarray], region: BoolArray, seed: int | None, error: float
) -> list[Cellularity]:
    """ADC of every visit in a region, with independent errors; seed None: without."""
    rng = None if seed is None else np.random.default_rng(seed)
    voxels = np.flatnonzero(region & setting.tissue.parenchyma)
    noise = [0 if rng is None else error * rng.standard_normal(voxels.size) for _ in densities]
    return [
        Cellularity(day, voxels, n.ravel()[voxels].astype(np.float64) + e, error)
        for (day, n), e in zip(densities.items(), noise, strict=True)
    ]


def region_of(setting: Setting, densities: Mapping[float, np.ndarray], margin: float = 4.0) -> BoolArray:
    """Where tumour is seen on any day, and a margin around, mm."""
    ever = np.any([n > 0.2 for n in densities.values()], axis=0) | (setting.density.values > 0.2)
    away = ndimage.distance_transform_edt(~ever, sampling=setting.tissue.grid.voxel_size)
    return np.asarray(away <= margin)


def concordance(a: np.ndarray, b: np.ndarray) -> float:
    """Lin's concordance correlation coefficient."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))
