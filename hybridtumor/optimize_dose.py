"""optimize-dose: redistribute the dose of a plan for one patient, within limits, for the least expected burden.

patient, uniform plan, limits, draws → dose map, plan file, gain with its interval, where one more Gray helps most
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from scipy import ndimage

from hybridtumor import __version__, dose_report, pictures_dose
from hybridtumor.calibrated import CalibrationSource
from hybridtumor.dose_biology import BiologyDraws, biology_draws
from hybridtumor.dose_control import DoseControl, steepness
from hybridtumor.dose_limits import LimitedDose
from hybridtumor.dose_objective import ExpectedBurden
from hybridtumor.dose_optimisation import OptimisedDose, Perturbations, optimise, perturbed
from hybridtumor.dose_options import DoseOptions
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.mesh_size import CELL_SIZE, require_size, size_for
from hybridtumor.models.oxygen import local_response
from hybridtumor.patient import Patient
from hybridtumor.prepare import load_patient
from hybridtumor.scan import write_bytes
from hybridtumor.scenario import Scenario
from hybridtumor.solvers.petsc import MPI, on_root
from hybridtumor.story import ArmSource, tell
from hybridtumor.targets import clinical_targets, gross_tumour
from hybridtumor.therapy import TherapyPlan
from hybridtumor.tissue import TissueMap
from hybridtumor.treatments import Treatment

Progress = Callable[[str, float], None]

USUAL_DRAWS = 8
TARGET = "estro-eano-2023"
"""Recipe of the clinical target where the plan names none: its dose is a file."""


@dataclass(frozen=True, eq=False)
class DoseCase:
    """One patient and one plan to improve."""

    scenario: Scenario
    patient: Patient
    tissue: TissueMap
    plan: TherapyPlan
    treatments: tuple[Treatment, ...]
    draws: BiologyDraws

    def objective(self, cell_size: str) -> tuple[ExpectedBurden, GrowthSimulation]:
        """Return the expected burden on a mesh of such cells."""
        patient, scenario = self.patient, self.scenario
        if patient.density is None:
            raise InputError(f"patient {patient.id}: expected a day-0 density after preparation, got none.")
        simulation = GrowthSimulation.prepare(
            self.tissue,
            patient.density,
            scenario.growth,
            scenario.horizon,
            tensor=patient.diffusion_tensor,
            cell_size=cell_size,
            surgery=bool(self.plan.resections),
        )
        local = local_response(patient, scenario.response)
        return ExpectedBurden.of(simulation, self.plan, scenario.horizon, self.draws.biology, local), simulation


def optimize_plan(
    scenario: Scenario,
    out: Path | str,
    *,
    arm: str | None = None,
    options: DoseOptions | None = None,
    calibration: Path | str | None = None,
    draws: int = USUAL_DRAWS,
    seed: int = 0,
    cell_size: str = CELL_SIZE,
    overwrite: bool = False,
    progress: Progress = lambda _stage, _share: None,
) -> dict[str, Any]:
    """Optimise the dose of one arm and write what `hybridtumor.dose_report` lists.

    Parameters
    ----------
    scenario
        Patient, biology, horizon and arms.
    out
        Folder to make.
    arm
        Whose dose; None: the only arm with radiation.
    options
        Limits and effort; None: the defaults.
    calibration
        ``calibration.json`` or its folder, whose posterior the draws are from; None: the prior.
    draws, seed
        How many; 0: the parameters alone.
    cell_size
        Of the mesh on which the dose is sought. The gain is told on the default mesh too.
    overwrite
        Replace the files of an earlier call.
    progress
        Told how far each stage is.

    Returns
    -------
    dict
        The content of ``optimization.json``.

    Raises
    ------
    InputError
        Patient, plan, limits or folder cannot be used, or no dose keeps the limits.
    """
    comm, folder, start = MPI.COMM_WORLD, Path(out), perf_counter()
    wanted, seconds = options or DoseOptions(), dict[str, float]()
    require_size(cell_size)
    on_root(comm, lambda: _require_free(folder, overwrite=overwrite))
    case = on_root(comm, lambda: prepare_case(scenario, arm, calibration, draws, seed, partial(progress, "patient")))
    progress("patient", 1.0)
    seconds["patient"] = perf_counter() - start
    limited = limited_dose(case, wanted)
    progress("mesh", 0.0)
    objective, simulation = case.objective(cell_size)
    progress("mesh", 1.0)
    start = perf_counter()
    found = optimise(objective, limited, iterations=wanted.iterations, progress=partial(progress, "optimise"))
    seconds["optimise"] = perf_counter() - start
    start = perf_counter()
    around = perturbed(
        objective, limited, found, count=wanted.perturbations, seed=seed, progress=partial(progress, "perturb")
    )
    progress("perturb", 1.0)
    seconds["perturb"] = perf_counter() - start
    figures = _figures(case, limited, found, around, simulation, cell_size)
    surgery = bool(case.plan.resections)
    sizes = (size_for(size, scenario.growth, scenario.horizon, surgery=surgery) for size in (cell_size, CELL_SIZE))
    if len(set(sizes)) > 1:
        start = perf_counter()
        progress("default mesh", 0.0)
        fine, _ = case.objective(CELL_SIZE)
        burdens = [fine.burdens(plan) for plan in (case.plan, found.plan)]
        figures["gain_on_default_mesh"] = dose_report.gain_figures(burdens[0], burdens[1])
        progress("default mesh", 1.0)
        seconds["default mesh"] = perf_counter() - start
    seconds["all, of processors"] = process_time()
    figures["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    progress("write", 0.0)
    on_root(comm, lambda: _write(folder, case, limited, found, figures))
    progress("write", 1.0)
    return figures


def prepare_case(
    scenario: Scenario,
    arm: str | None,
    calibration: Path | str | None,
    draws: int,
    seed: int,
    progress: Callable[[float], None] = lambda _share: None,
) -> DoseCase:
    """Return the patient, the plan of the arm and the draws; arguments and errors as for `optimize_plan`."""
    source = None if calibration is None else CalibrationSource.load(calibration)
    scenario = scenario if source is None else source.applied(scenario)
    if scenario.mechanics is not None and scenario.mechanics.two_way:
        raise InputError(
            "optimise: expected growth that mechanics does not act back on, got a two-way coupling. Leave it out."
        )
    name = _arm_of(scenario, arm)
    scenario = scenario.model_copy(update={"arms": {name: scenario.arms[name]}})
    drawn = biology_draws(scenario.growth, scenario.response, None if source is None else source.content, draws, seed)
    patient = load_patient(scenario.patient, scenario.growth, check=scenario.require, progress=progress)
    patient = patient if source is None else source.of(patient)
    if patient.tissue is None:
        raise InputError(f"patient {patient.id}: expected tissue fractions after preparation, got none.")
    plan = scenario.plans(patient)[name]
    if not plan.active.courses:
        raise InputError(f"arm {name}: expected a plan with radiation, got no dose. State a course.")
    return DoseCase(scenario, patient, patient.tissue, plan, scenario.arms[name], drawn)


def limited_dose(case: DoseCase, options: DoseOptions) -> LimitedDose:
    """Return the control around the clinical target and the limits, in numbers."""
    grid, plan = case.patient.grid, case.plan.active
    dose = plan.total_dose(grid).astype(np.float64)
    target = _target(case)
    seen = target & (dose > 0)
    if not seen.any():
        raise InputError("optimise: expected a dose in the clinical target, got none. Check the plan.")
    distance = ndimage.distance_transform_edt(~target, sampling=grid.voxel_size)
    control = DoseControl.around(distance <= options.reach, dose, grid, options.spacing)
    prescription = float(sum(course.prescribed_dose for course in plan.courses))
    steep = float(steepness(dose, grid).max())
    limits = options.limits(prescription, float(dose.max()), float(dose[seen].min()), steep)
    return LimitedDose(control, case.plan, limits, target, case.tissue.parenchyma | target)


def _target(case: DoseCase) -> BoolArray:
    """Return the clinical target of the last phase that the plan names, by its recipe and margin."""
    given = [t.radiation for t in case.treatments if t.radiation is not None and t.radiation.target is not None]
    recipe, margin = (str(given[-1].target), given[-1].ctv_margin) if given else (TARGET, None)
    first = min(day for course in case.plan.active.courses for day in course.fraction_days)
    taken = case.plan.cavity_on(first)
    cavity = None if taken is None else np.asarray(taken > 0)
    return clinical_targets(recipe, case.patient, case.tissue, margin=margin, cavity=cavity)[-1][1]


def _arm_of(scenario: Scenario, arm: str | None) -> str:
    """Return the arm whose dose is optimised."""
    irradiated = [name for name, given in scenario.arms.items() if any(t.radiation is not None for t in given)]
    if arm is None and len(irradiated) == 1:
        return irradiated[0]
    if arm not in irradiated:
        raise InputError(
            f"arm: expected one with radiation, of {', '.join(irradiated) or 'which there is none'}, got"
            f" {arm or 'no name'}. Name it (--arm), or give a plan with a course (--plan)."
        )
    return arm


def _figures(
    case: DoseCase,
    limited: LimitedDose,
    found: OptimisedDose,
    around: Perturbations,
    simulation: GrowthSimulation,
    cell_size: str,
) -> dict[str, Any]:
    limits, control = limited.limits, limited.control
    integral = limited.spent(control.dose)
    stated = {
        "integral_Gy_ml": integral,
        "maximum_Gy": limits.maximum,
        "target_minimum_Gy": limits.minimum,
        "steepest_Gy_per_mm": limits.steepest,
    }
    attained = limited.attained(found.plan)
    return {
        "hybridtumor": __version__,
        "patient": case.patient.id,
        "horizon_days": case.scenario.horizon,
        "objective": "mean over draws of the living tumour cells at the horizon, mm³ at carrying capacity",
        "gain": dose_report.gain_figures(found.uniform.burdens, found.optimised.burdens),
        "limits": {
            "quantity_of_the_integral": limits.quantity,
            "fractions": [course.fractions for course in case.plan.active.courses],
            "all_kept": limited.kept(attained, integral),
            **dose_report.limit_figures(stated, limited.attained(case.plan), attained),
        },
        "perturbations": {
            "tried": around.tried,
            "best_relative_change": float(f"{around.best:.4g}"),
            "worst_relative_change": float(f"{around.worst:.4g}"),
            "rms_Gy": round(around.rms, 3),
            "optimum_confirmed": around.tried > 0 and around.best >= 0,
        },
        "search": {
            "iterations": found.iterations,
            "reason": found.reason,
            "expected_burden_mm3": [round(value, 3) for value in found.history],
            "nodes": control.size,
            "node_spacing_mm": [round(size, 3) for size in control.spacing],
            "cell_size": cell_size,
            "cells": int(simulation.figures["cells"]),
        },
        "draws": {"source": case.draws.source, "count": len(case.draws.biology), "parameters": case.draws.told},
    }


def _write(folder: Path, case: DoseCase, limited: LimitedDose, found: OptimisedDose, figures: dict[str, Any]) -> None:
    """Write everything; the figures come last, so that they never speak of a missing file."""
    folder.mkdir(parents=True, exist_ok=True)
    patient, grid, target = case.patient, case.patient.grid, limited.target
    uniform, optimised = (plan.active.total_dose(grid) for plan in (case.plan, found.plan))
    dose_report.save_maps(optimised, found.uniform.slope, grid, folder)
    dose_report.save_plan(found.plan, case.treatments, folder)
    core = gross_tumour(patient)
    structures = {"gross tumour": core, "clinical target": target, "brain without target": limited.brain & ~target}
    table = dose_report.histograms(uniform, optimised, {name: mask for name, mask in structures.items() if mask.any()})
    dose_report.save_histograms(table, folder / "dvh.csv")
    write_bytes(folder / "dvh.png", pictures_dose.histogram_picture(table))
    density = np.zeros(grid.shape, np.float32) if patient.density is None else patient.density.values
    day0 = ArmSource({"days": [0.0]}, lambda _d: density, lambda _m, _d: None, lambda _m, _d: None, lambda: None)
    story = tell(patient, density, {"day 0": day0})
    prescription = float(sum(course.prescribed_dose for course in case.plan.active.courses))
    picture = pictures_dose.dose_change(story, uniform, optimised, found.uniform.slope, target, prescription)
    write_bytes(folder / "dose.png", picture)
    dose_report.save_json(figures, folder / dose_report.JSON)


def _require_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder with something in it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, got a file. Choose another name.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder}: expected a new or empty folder, it holds files. Choose another, or --overwrite.")
