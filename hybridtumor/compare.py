"""compare: all arms of a scenario on one patient, from the scans to the report, in a run folder.

    patient → mesh → growth of every arm → fields on the grid → follow-up MRI → figures, pictures, report

Every stage writes whole files and is recorded, so that a run which is stopped anywhere goes on where it was. The arms
share the mesh, the operators and the random numbers of the image layer; the untreated course is always among them,
because it is what a treatment is compared with. With a calibration, the arms are those of its estimate, and may be run
again for draws of its posterior (`hybridtumor.draws`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from hybridtumor import draws_file, mesh_file
from hybridtumor.calibrated import CalibrationSource, thresholds_of
from hybridtumor.calibration_file import Values
from hybridtumor.draws import DrawOptions, DrawSetting
from hybridtumor.draws_pool import run_draws
from hybridtumor.draws_summary import draws_figures
from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import GrowthSimulation, require_tumour
from hybridtumor.manifest import Manifest, hash_of, input_hashes
from hybridtumor.mesh_size import CELL_SIZE, require_size
from hybridtumor.models.oxygen import local_response
from hybridtumor.patient import Patient
from hybridtumor.plan_file import map_name
from hybridtumor.prepare import load_patient
from hybridtumor.rundir import RunFolder, check_target, opened
from hybridtumor.scenario import EMBEDDED_PATIENT, Scenario
from hybridtumor.solvers.petsc import MPI, on_root
from hybridtumor.summary import arm_figures, mesh_figures
from hybridtumor.therapy import TherapyPlan
from hybridtumor.treatments import Treatment

Progress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, in [0, 1]."""

NO_DRAWS = DrawOptions()

REFERENCE_NAMES = ("untreated", "no-treatment", "reference-untreated")


def compare(
    scenario: Scenario,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    images: bool = True,
    cell_size: str = CELL_SIZE,
    calibration: Path | str | None = None,
    draws: DrawOptions = NO_DRAWS,
    progress: Progress | None = None,
) -> RunFolder:
    """Run all arms of a scenario and write the run folder.

    Parameters
    ----------
    scenario
        Patient, biology and arms. An untreated arm is added when there is none.
    out
        The run folder: new or empty, or that of an earlier run with `resume` or `overwrite`.
    resume
        Go on with a run of the same scenario, inputs and version; what is finished is not done again.
    overwrite
        Delete an earlier run first.
    images
        Generate follow-up images too; without them the run holds the fields, `hybridtumor.run_images` adds them.
    cell_size
        Edge length of the cells at the tumour's front.
    calibration
        ``calibration.json`` or its folder: its estimate takes the place of what the scenario states of growth and
        response, its density of day 0, if it has one, that of the patient's.
    draws
        How many draws of its posterior are simulated too, every arm for every draw; no images are made of them.
    progress
        Told how far each stage is.

    Returns
    -------
    RunFolder
        The folder with everything in it. Under MPI every rank returns the same, rank 0 alone writes.

    Raises
    ------
    InputError
        The scenario, the calibration, the patient or the folder cannot be used, or there are draws without a
        calibration; then nothing has been written.
    ConvergenceError
        A solver failed; the finished stages stay.
    ResourceError
        Memory, disk, a compiler or the weights are missing.
    """
    comm, root = MPI.COMM_WORLD, Path(out)
    tell = progress or (lambda _stage, _share: None)
    source = None if calibration is None else CalibrationSource.load(calibration)
    parameters = _draws(source, draws)
    stated = with_reference(scenario)
    scenario = stated if source is None else source.applied(stated)
    on_root(comm, lambda: check_target(root, resume=resume, overwrite=overwrite))
    manifest = on_root(comm, lambda: describe(scenario, str(cell_size), comm.size, source, draws))
    if images:
        on_root(comm, _require_weights)
    start = monotonic()
    prepared = on_root(
        comm, lambda: _prepared(scenario, root, source, resume=resume, progress=_most_of(tell, "patient"))
    )
    patient, plans = prepared
    seconds = monotonic() - start
    require_size(cell_size)
    if patient.tissue is not None and patient.density is not None:
        require_tumour(patient.tissue, patient.density)
    local_response(patient, scenario.response)  # refused now, not after the folder is made
    with ExitStack() as stack:
        folder = on_root(comm, lambda: stack.enter_context(opened(root, manifest, resume=resume, overwrite=overwrite)))
        if source is not None:
            on_root(comm, lambda: _save_calibration(folder, source, stated, patient))
        patient = on_root(comm, lambda: _save_inputs(folder, scenario, patient, plans, seconds))
        tell("patient", 1.0)
        simulation = _simulate(folder, scenario, patient, plans, comm, cell_size, tell, drawn=bool(parameters))
        if simulation is not None and source is not None and parameters:
            setting = DrawSetting.of(simulation, patient, scenario, plans, source.content)
            _simulate_draws(folder, simulation, setting, parameters, draws, tell)
        if comm.rank == 0:
            folder.save_summary(folder.summarise())
            _finish(folder, patient, images=images, tell=tell)
    return folder


def _draws(source: CalibrationSource | None, draws: DrawOptions) -> tuple[Values, ...]:
    """Return the parameters of the draws."""
    if draws.count == 0:
        return ()
    if source is None:
        raise InputError(
            "draws: expected a calibration, whose posterior they are drawn from, got none. Add --calibration FILE"
            " (`hybridtumor calibrate` makes it)."
        )
    return source.content.draw(draws.count, draws.seed)


def with_reference(scenario: Scenario) -> Scenario:
    """Return the scenario with an untreated arm first, unless one of its arms gives nothing."""
    if any(not treatments for treatments in scenario.arms.values()):
        return scenario
    name = next((name for name in REFERENCE_NAMES if name not in scenario.arms), None)
    if name is None:
        raise InputError(
            f"arms: expected an arm without treatment, found none and no free name for one."
            f" Rename {REFERENCE_NAMES[0]}."
        )
    return scenario.model_copy(update={"arms": {name: (), **scenario.arms}})


def describe(
    scenario: Scenario,
    cell_size: str,
    ranks: int = 1,
    source: CalibrationSource | None = None,
    draws: DrawOptions = NO_DRAWS,
) -> Manifest:
    """Return the manifest of a run that has not begun: input files by name and hash, seeds, versions."""
    inputs = {} if scenario.patient == EMBEDDED_PATIENT else input_hashes(scenario.patient)
    files = {f"file of {arm}, treatment {k + 1}": hash_of(path) for (arm, k), path in _files(scenario).items()}
    content = _portable(scenario, {}).model_dump(mode="json", exclude={"refine"}) | {
        "patient": Path(scenario.patient).name,
        "cell_size": cell_size,
        "files": files,
    }
    calibration = {} if source is None else source.inputs
    if source is not None:  # a run without is described as before there were any
        content |= {"calibration": calibration, "draws": draws.count}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Manifest(
        digest,
        inputs | files | calibration,
        patient=Path(scenario.patient).name,
        horizon_days=scenario.horizon,
        seeds={"refine": scenario.refine.seed} | ({"draws": draws.seed} if draws.count else {}),
        samples=scenario.refine.samples,
        mpi_size=ranks,
    )


def _prepared(
    scenario: Scenario,
    root: Path,
    source: CalibrationSource | None,
    *,
    resume: bool,
    progress: Callable[[float], None],
) -> tuple[Patient, dict[str, TherapyPlan]]:
    """Prepare the patient and the plans, or read them back where an earlier run has prepared them."""
    if resume and (root / "manifest.json").exists():
        folder = RunFolder.open(root)
        if folder.finished("patient"):
            known = folder.load_patient()
            return known, {name: folder.load_plan(name, known.grid) for name in scenario.arms}
    progress(0.0)
    patient = load_patient(scenario.patient, scenario.growth, check=scenario.require, progress=progress)
    patient = patient if source is None else source.of(patient)
    return patient, scenario.plans(patient)


def _require_weights() -> None:
    """Fail now, not after minutes of growth, when the image layer has no weights."""
    from hybridtumor.run_images import require_weights

    require_weights()


def _save_calibration(folder: RunFolder, source: CalibrationSource, stated: Scenario, patient: Patient) -> None:
    """Write the calibration and what there is to say of it, before anything is computed with it."""
    if "calibration" not in folder.manifest.figures:
        source.copy_to(folder.root)
        folder.manifest.figures["calibration"] = source.told(stated, patient)
        folder.save_manifest()


def _save_inputs(
    folder: RunFolder, scenario: Scenario, patient: Patient, plans: dict[str, TherapyPlan], seconds: float
) -> Patient:
    """Write patient, plans and scenario, so that the folder needs nothing else; returns the patient as it is on disk.

    NIfTI holds the affine in single precision: a run that goes on later starts from that, so this one does too.
    """
    if folder.finished("patient"):
        return patient
    with folder.stage("patient", before=seconds):
        folder.manifest.patient = patient.id
        patient.save(folder.patient_path)
        for name, plan in plans.items():
            folder.save_plan(name, plan)
        for note in scenario.notes(plans):
            folder.warn(note)
        _portable(scenario, _copies(scenario)).model_copy(update={"patient": "patient"}).save(folder.scenario_path)
        exact = np.array_equal(patient.grid.affine, patient.grid.affine.astype(np.float32))
        return patient if exact else folder.load_patient()


def _simulate(
    folder: RunFolder,
    scenario: Scenario,
    patient: Patient,
    plans: dict[str, TherapyPlan],
    comm: MPI.Intracomm,
    cell_size: str,
    tell: Progress,
    *,
    drawn: bool,
) -> GrowthSimulation | None:
    """Run the growth layer for every arm that is not finished; returns its mesh where draws have to be simulated."""
    todo = [name for name in plans if not folder.finished(f"simulate {name}")]
    drawn = drawn and not folder.finished("draws")
    if not todo and not drawn:
        return None
    if patient.tissue is None or patient.density is None:
        raise InputError(
            f"patient {patient.id}: expected tissue fractions and a day-0 density after preparation, got none."
        )
    tell("mesh", 0.0)
    with folder.stage("mesh", save=comm.rank == 0):
        simulation = GrowthSimulation.prepare(
            patient.tissue,
            patient.density,
            scenario.growth,
            scenario.horizon,
            mechanics=scenario.mechanics,
            tensor=patient.diffusion_tensor,
            cell_size=cell_size,
            surgery=any(plan.resections for plan in plans.values()),
        )
        local = local_response(patient, scenario.response)
        steps = simulation.shared_steps(plans.values(), scenario.report_days) if todo else ()
    tell("mesh", 1.0)
    thresholds = thresholds_of(folder.root)
    for name in todo:
        stage = f"simulate {name}"
        with folder.stage(stage, save=comm.rank == 0):
            forecast = simulation.run(
                plans[name],
                scenario.report_days,
                scenario.response,
                local=local,
                steps=steps,
                progress=_most_of(tell, stage),
            )
            figures = partial(arm_figures, patient, forecast, plans[name], scenario.response, thresholds)
            on_root(comm, partial(_save_arm, folder, name, forecast, plans[name], figures))
        tell(stage, 1.0)
    return simulation if drawn else None


def _simulate_draws(
    folder: RunFolder,
    simulation: GrowthSimulation,
    setting: DrawSetting,
    parameters: Sequence[Values],
    options: DrawOptions,
    tell: Progress,
) -> None:
    """Run every arm for every draw, and write what comes of it."""
    comm = simulation.domain.comm
    tell("draws", 0.0)
    with folder.stage("draws", save=comm.rank == 0):
        found = run_draws(setting, parameters, options.workers, simulation, _most_of(tell, "draws"))
        figures = draws_figures(found, setting, options.seed)
        on_root(comm, lambda: draws_file.save_draws(folder.root, found, setting, figures))
    tell("draws", 1.0)


def _most_of(tell: Progress, stage: str) -> Callable[[float], None]:
    """Return what tells a stage's own progress; the last tenth is for writing."""
    return lambda share: tell(stage, 0.9 * share)


def _save_arm(
    folder: RunFolder, name: str, forecast: Forecast, plan: TherapyPlan, figures: Callable[[], dict[str, Any]]
) -> None:
    folder.save_forecast(name, forecast, plan, figures())
    if forecast.mesh is not None:
        mesh_file.add_arm(folder.mesh_path, name, forecast.mesh)
    folder.manifest.figures["mesh"] = mesh_figures(forecast)
    solver = folder.manifest.figures.setdefault("solver", {})
    solver[name] = {key: round(value, 6) for key, value in forecast.figures.items()}


def _finish(folder: RunFolder, patient: Patient, *, images: bool, tell: Progress) -> None:
    """Add images and report; both layers load only now what they need."""
    from hybridtumor.run_report import write_report

    if images:
        from hybridtumor.run_images import add_images

        add_images(folder, patient, progress=tell)
    write_report(folder, patient, progress=partial(tell, "report"))


def _files(scenario: Scenario) -> dict[tuple[str, int], Path]:
    """Return the files that the arms name, of doses and cavities, by arm and number of the treatment."""
    return {
        (arm, number): Path(treatment.file)
        for arm, treatments in scenario.arms.items()
        for number, treatment in enumerate(treatments)
        if treatment.file is not None
    }


def _copies(scenario: Scenario) -> dict[tuple[str, int], str]:
    """Return where the run folder keeps its copies of these files, on the patient's grid (`plan_file`)."""
    copies = {}
    for arm, treatments in scenario.arms.items():
        courses = 0
        cuts = [(t.resection.day, number) for number, t in enumerate(treatments) if t.resection is not None]
        place = {number: k for k, (_, number) in enumerate(sorted(cuts), start=1)}  # a plan keeps them in order of time
        for number, treatment in enumerate(treatments):
            courses += 0 if treatment.radiation is None else treatment.radiation.phases
            if treatment.file is not None:
                kind, count = ("cavity", place[number]) if number in place else ("course", courses)
                copies[arm, number] = f"plans/{map_name(arm, kind, count)}"
    return copies


def _portable(scenario: Scenario, copies: Mapping[tuple[str, int], str]) -> Scenario:
    """Return the scenario with every file replaced by the run's own copy, or by nothing that names it without one."""

    def moved(arm: str, number: int, treatment: Treatment) -> Treatment:
        if treatment.file is None:
            return treatment
        copy = copies.get((arm, number))
        return treatment.with_file("a file") if copy is None else treatment.with_copy(copy)

    return scenario.model_copy(
        update={
            "arms": {
                name: tuple(moved(name, number, treatment) for number, treatment in enumerate(treatments))
                for name, treatments in scenario.arms.items()
            }
        }
    )
