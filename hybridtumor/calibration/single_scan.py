r"""One scan: where the tumour began, how old it is, and the density that shows as its segmentation.

Two stages. First a seed (`hybridtumor.calibration.start`): its place, the age T, D, ρ and the thresholds of the image.
A single scan of an untreated tumour knows D T and ρ T: a tumour twice as old and half as fast fits as well, and what T
itself is, the priors say. Then the density `lead` days before the scan as a field (`hybridtumor.calibration.field`),
for real tumours are no balls; `lead` is the time in which cells spread by `SPREAD` in white matter. What the seed says
of places outside the drawn tumour is cut to the tail of a front. The density of day 0 is that of the second stage.
"""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.calibration.field import FieldProblem, FittedField
from hybridtumor.calibration.fit import GRADIENT_COST, Fit, FitOptions, bound_notes, forward_solves, missed, visit_of
from hybridtumor.calibration.problem import Problem, rows_of
from hybridtumor.calibration.search import around, search
from hybridtumor.calibration.start import SEED_DAYS, SEED_DENSITY, SEED_NAMES, SEED_RADIUS, Seed
from hybridtumor.calibration.unknowns import Priors, Unknown
from hybridtumor.errors import InputError
from hybridtumor.growth_gradient import GrowthGradient
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models.initial_density import MAX_WIDTH
from hybridtumor.models.observation_labels import Segmentation
from hybridtumor.parameters import GrowthParameters
from hybridtumor.patient import Patient
from hybridtumor.scan import LabelMap, Scan

Array = NDArray[np.float64]

STEP_ERROR = 2e-3
"""Relative error of a time step: far below what a segmentation tells."""

SPREAD = 4.0
"""mm. √(2 D lead): the field is smooth over so much by the day of the scan."""

NEAR = 12.0
"""mm. The field may differ from the seed's within this of the tumour."""

CELLS_PER_RADIUS, SEED_CELLS = 6.0, (3.0, 6.0)
"""Cells of the seed's mesh per radius of the tumour, and the smallest and largest of them, mm: a seed explains the
border to some millimetres at best. The field has the cells that are asked for.
"""

LEAST_GAIN = 1e-3
"""Share of the first misfit that is not worth another step of the seed's descent."""

MESH_DAYS = 60.0
"""Days of growth that the mesh has room for beyond today's tumour."""

AGE_NAME = "age"

AMBIGUITY = (
    "One scan of an untreated tumour tells D·T and ρ·T alone: a tumour that is twice as old and grows half as fast"
    " looks the same. Its age T and its speed come from the priors."
)


def fit_single_scan(patient: Patient, growth: GrowthParameters | None = None, options: FitOptions | None = None) -> Fit:
    """Fit the segmentation of a patient's first visit.

    Parameters
    ----------
    patient
        With tissue, a segmentation on day 0 and a density (`hybridtumor.prepare.load_patient`).
    growth
        Parameters that the fit starts from; D in grey matter keeps its ratio to D in white matter.
    options
        How.

    Raises
    ------
    InputError
        No segmentation, or no tissue.
    ConvergenceError
        Growth could not be computed at the start.
    """
    start, how = time.perf_counter(), options or FitOptions()
    law = growth or GrowthParameters()
    if how.sample_steps:
        raise InputError("calibration: expected at most six unknowns to sample, one scan has more. Leave it out.")
    labels = patient.baseline.labels
    if labels is None or patient.tissue is None or patient.density is None:
        raise InputError(f"patient {patient.id}: expected a segmentation and tissue on day 0, got none. Prepare it.")
    problem = seed_problem(patient, labels, law)
    gain = max(how.tolerance, LEAST_GAIN * problem.objective(np.zeros(len(problem.priors)))[0])
    estimate, starts = search(problem, how, gain)
    posterior = around(problem, estimate)
    by_seed = problem.gradient.simulation.brain.transfer.to_grid(problem.densities(estimate.coordinates)[SEED_DAYS])
    fine = _simulation(patient, law, how.cell_size)
    field, lead = _field(problem, fine, estimate.values, labels)
    density = np.clip(fine.brain.transfer.to_grid(field.density), 0, 1)
    field_share = lead / estimate.values[AGE_NAME]
    seen, drawn = _thresholds(estimate.values), _thresholds(field.own)
    visits = (
        visit_of(0.0, "segmentation, by a field", field.misfit, density, labels, drawn),
        visit_of(0.0, "segmentation, by one seed", estimate.misfit, by_seed, labels, seen),
    )
    return Fit(
        patient=patient.id,
        estimate=estimate,
        posterior=posterior,
        fixed=problem.fixed,
        visits=visits,
        predicted={0.0: density.astype(np.float32)},
        thresholds=drawn,
        notes=(
            AMBIGUITY,
            f"The density of day 0 is grown from a field {lead:.3g} days before the scan that differs from the seed's.",
            *bound_notes([estimate]),
            *missed(visits[0]),
        ),
        forward_solves=forward_solves(problem.effort) + GRADIENT_COST * field.evaluations * field_share,
        seconds=time.perf_counter() - start,
        density=Scan(density.astype(np.float32), patient.grid),
        starts=starts,
    )


def seed_problem(patient: Patient, labels: LabelMap, growth: GrowthParameters) -> Problem:
    """Return the problem of a seed that grows to a segmentation."""
    tissue, grid = patient.tissue, patient.grid
    if tissue is None:
        raise InputError(f"patient {patient.id}: expected tissue on day 0, got none. Prepare it.")
    whole = labels.mask() & tissue.parenchyma
    radius = float(np.cbrt(3 * np.count_nonzero(labels.mask()) * grid.voxel_volume / (4 * np.pi)))
    core = labels.mask("necrosis", "enhancing") & tissue.parenchyma
    middle = grid.world(np.argwhere(core if core.any() else whole).mean(axis=0))
    age = radius / growth.front_speed + 2 / growth.proliferation
    priors = _priors(growth, age, middle, radius, core=bool(core.any()))
    simulation = _simulation(patient, growth, f"{np.clip(radius / CELLS_PER_RADIUS, *SEED_CELLS):.3g} mm")
    seed = Seed(simulation.brain.mesh.points[simulation.domain.vertices])
    voxels = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    there = SEED_DENSITY * np.exp(-((voxels - middle) ** 2).sum(axis=-1) / (2 * SEED_RADIUS**2))
    paced = simulation_of(simulation, paced_growth(growth, age / SEED_DAYS), np.where(tissue.parenchyma, there, 0))
    term = Segmentation.from_labels(labels, tissue.parenchyma, 0.0, core=bool(core.any()))
    return Problem(
        GrowthGradient(paced, days=(0, SEED_DAYS), tolerance=STEP_ERROR),
        (term,),
        priors,
        {"grey_ratio": growth.diffusion_grey / growth.diffusion_white},
        seed,
        span=SEED_DAYS,
    )


def _simulation(patient: Patient, growth: GrowthParameters, cell_size: str) -> GrowthSimulation:
    """Return mesh and operators with fine cells around today's tumour."""
    tissue, density = patient.tissue, patient.density
    if tissue is None or density is None:
        raise InputError(f"patient {patient.id}: expected tissue and a density on day 0, got none. Prepare it.")
    return GrowthSimulation.prepare(tissue, density, growth, MESH_DAYS, cell_size=cell_size)


def simulation_of(
    simulation: GrowthSimulation, growth: GrowthParameters, density: NDArray[np.floating]
) -> GrowthSimulation:
    """Return the simulation with other parameters and another density to begin with, on the same mesh."""
    return replace(simulation.with_growth(growth), density=np.clip(density, 0, 1).astype(np.float32))


def paced_growth(growth: GrowthParameters, pace: float) -> GrowthParameters:
    """Return growth that is `pace` times as fast."""
    names = ("diffusion_white", "diffusion_grey", "proliferation")
    return growth.model_copy(update={name: pace * getattr(growth, name) for name in names})


def _priors(growth: GrowthParameters, age: float, middle: Array, radius: float, *, core: bool) -> Priors:
    """Return the unknowns of a seed."""
    names = ["diffusion_white", "proliferation", "threshold_edema", *(["threshold_enhancing"] if core else [])]
    known = Priors.of(*names).changed("diffusion_white", median=growth.diffusion_white)
    known = known.changed("proliferation", median=growth.proliferation)
    source = "time that a front of default speed takes to the tumour's size; wide, for none is known"
    place = "middle of the core, ± half of the tumour's radius"
    return Priors(
        (
            *known.unknowns,
            Unknown(AGE_NAME, "day", "log", age, 0.7, 0.02 * age, 50 * age, source),
            *(
                Unknown(name, "mm", "linear", float(x), radius / 2, float(x - 2 * radius), float(x + 2 * radius), place)
                for name, x in zip(SEED_NAMES, middle, strict=True)
            ),
        )
    )


def _field(
    problem: Problem, fine: GrowthSimulation, values: Mapping[str, float], labels: LabelMap
) -> tuple[FittedField, float]:
    """Return the field on the fine mesh that explains the segmentation, and its days before the scan."""
    growth, age = problem.growth(values), values[AGE_NAME]
    lead = min(SPREAD**2 / (2 * growth.diffusion_white), age / 2)
    before = SEED_DAYS * (1 - lead / age)
    coarse = problem.gradient.simulation
    earlier = replace(problem, gradient=GrowthGradient(coarse, days=(0, before, SEED_DAYS), tolerance=STEP_ERROR))
    by_seed = coarse.brain.transfer.to_grid(earlier.visible(values)[before])
    distance = ndimage.distance_transform_edt(~labels.mask(), sampling=labels.grid.voxel_size)
    tail = values["threshold_edema"] * np.exp(-distance / min(growth.front_width, MAX_WIDTH))
    by_seed = np.where(distance > 0, np.minimum(by_seed, tail), by_seed)
    run = GrowthGradient(simulation_of(fine, growth, by_seed), days=(0, lead), tolerance=STEP_ERROR)
    domain, transfer = fine.domain, fine.brain.transfer
    near = domain.local(transfer.to_mesh((distance < NEAR).astype(np.float32))) > 0
    term = problem.terms[0]
    looked_for = Priors.of(*term.own)
    found = FieldProblem(run.adjoint(), run.smoothness(), term, rows_of(run, term.voxels), looked_for, near)
    return found.fit(run.initial, {name: values[name] for name in term.own}), lead


def _thresholds(values: Mapping[str, float]) -> tuple[float, float | None]:
    return values["threshold_edema"], values.get("threshold_enhancing")
