"""The command line: one subcommand per arrow of the line from images to report.

Commands import what they need when they run, so that ``--help`` costs nothing. Exit codes: 0 done, 2 bad input, 3 not
converged, 4 resources missing, 130 interrupted, 1 a defect of hybridtumor.
"""

import errno
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

import hybridtumor
from hybridtumor import cli_clinic, terminal
from hybridtumor.calibrate_command import calibrate
from hybridtumor.errors import HybridTumorError, InputError, ResourceError
from hybridtumor.evaluation.command import evaluate
from hybridtumor.optimize_command import optimize_dose
from hybridtumor.synthesize import synthesize
from hybridtumor.train_command import train

INTERRUPTED, TERMINATED, DEFECT = 130, 143, 1
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

app = App(
    name="hybridtumor",
    help="What will this tumour look like, on MRI, if we give that dose? Research use only.",
    version=hybridtumor.__version__,
    error_console=Console(stderr=True),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

Run = Annotated[Path, Parameter(help="Run folder, as made by demo, simulate or compare.")]
Out = Annotated[Path, Parameter(help="Run folder to make: new or empty.")]
PatientReference = Annotated[
    str, Parameter(help="mni152 (the embedded brain), a BraTS folder, or a folder with patient.yaml.")
]
ScenarioFile = Annotated[Path, Parameter(help="YAML file with patient, biology and arms.")]
Resume = Annotated[bool, Parameter(help="Go on with a run that was stopped.", negative="")]
Overwrite = Annotated[bool, Parameter(help="Delete an earlier run in that folder first.", negative="")]
CalibrationFile = Annotated[
    Path | None,
    Parameter(help="calibration.json or its folder: its estimate is used, whatever else is stated of growth."),
]
CellSize = Annotated[str, Parameter(help="Edge length of the cells at the tumour's front, with its unit, or auto.")]


@app.command
def demo(
    *,
    out: Out = Path("run/demo"),
    fast: Annotated[bool, Parameter(help="Smoke test: coarse cells, 60 days, one image per day.", negative="")] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare three treatment arms on the embedded brain, from scan to report."""
    from hybridtumor.demo import demo_scenario

    scenario, cell_size = demo_scenario(fast=fast)
    _compare(scenario, out, cell_size, resume=resume, overwrite=overwrite)


@app.command
def compare(
    scenario: ScenarioFile,
    /,
    *,
    out: Out,
    resume: Resume = False,
    overwrite: Overwrite = False,
    cell_size: CellSize = "auto",
    images: Annotated[
        bool, Parameter(help="Generate the follow-up images too; hybridtumor refine adds them later.")
    ] = True,
    calibration: CalibrationFile = None,
    draws: Annotated[
        int, Parameter(help="Run every arm for so many draws of the calibration's posterior too, without images.")
    ] = 0,
    seed: Annotated[int, Parameter(help="Of the draws.")] = 0,
    workers: Annotated[
        int | None, Parameter(help="Processes that share the draws; default: as processors and memory allow.")
    ] = None,
) -> None:
    """Run all arms of a scenario file, with images and report; with draws, say how often one plan beats another."""
    from hybridtumor.scenario import Scenario

    _compare(
        Scenario.load(scenario),
        out,
        cell_size,
        resume=resume,
        overwrite=overwrite,
        images=images,
        calibration=calibration,
        draws=(draws, seed, workers),
    )


@app.command
def simulate(
    patient: PatientReference,
    /,
    *,
    out: Out,
    plan: Annotated[
        Path | None, Parameter(help="YAML list of treatments, as under an arm of a scenario; without it: no treatment.")
    ] = None,
    days: Annotated[float, Parameter(help="How far to look ahead.")] = 180,
    every: Annotated[float, Parameter(help="Days between two reports.")] = 60,
    baseline_date: Annotated[
        str | None, Parameter(help="Date of the baseline scan, such as 2024-03-01: the plan may then give dates.")
    ] = None,
    mechanics: Annotated[bool, Parameter(help="Let the tumour push the tissue aside.", negative="")] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    cell_size: CellSize = "auto",
    calibration: CalibrationFile = None,
) -> None:
    """Simulate the growth of one patient's tumour under a plan, beside no treatment; fields only (see refine)."""
    from hybridtumor.demo import single_plan_scenario

    _compare(
        single_plan_scenario(patient, plan, days, every, mechanics=mechanics, baseline_date=baseline_date),
        out,
        cell_size,
        resume=resume,
        overwrite=overwrite,
        images=False,
        calibration=calibration,
    )
    if terminal.is_root():
        print(f"images: hybridtumor refine {out}")  # noqa: T201


@app.command
def refine(
    run: Run,
    /,
    *,
    samples: Annotated[int | None, Parameter(help="Images in the ensemble; default: as the scenario says.")] = None,
    seed: Annotated[int | None, Parameter(help="Of the random numbers; default: as the scenario says.")] = None,
) -> None:
    """Generate the follow-up images of a simulated run, anew if there are any."""
    from hybridtumor.run_images import refine_run

    with terminal.progress() as tell:
        folder = refine_run(run, samples=samples, seed=seed, progress=tell)
    _print_summary(folder.load_summary(), folder.report_path)


@app.command
def mesh(
    patient: PatientReference,
    /,
    *,
    cell_size: CellSize = "auto",
    days: Annotated[float, Parameter(help="Horizon: the mesh is fine where the front can be until then.")] = 180,
    out: Annotated[Path | None, Parameter(help="File to write, .vtu; without it only the figures are shown.")] = None,
    method: Annotated[
        Literal["lattice", "tetwild"], Parameter(help="tetwild: a smooth boundary; needs the extra `mesh`.")
    ] = "lattice",
    file: Annotated[
        Path | None, Parameter(name="--from", help="Use the mesh of this file: .vtu, .vtk, .msh, .mesh, .xdmf …")
    ] = None,
    unit: Annotated[str, Parameter(help="Length unit of that file: mm, cm, m or um.")] = "mm",
    frame: Annotated[Literal["RAS", "LPS"], Parameter(help="Its frame: RAS+ as NIfTI, LPS+ as DICOM.")] = "RAS",
    labels: Annotated[str | None, Parameter(help="Its array of regions; default: one of the usual names.")] = None,
    tissue: Annotated[
        list[str] | None, Parameter(help="What a region is, such as 2=white: white, grey or csf.", negative="")
    ] = None,
) -> None:
    """Mesh a patient's brain, or take a mesh from a file, and tell its size and quality."""
    from hybridtumor.mesh_choice import MeshSource, parse_tissues
    from hybridtumor.mesh_command import mesh_patient

    source = MeshSource(method, file, unit, frame, labels, parse_tissues(tissue or []))
    with terminal.progress() as tell:
        rows = mesh_patient(patient, cell_size, days, out, source, progress=tell)
    terminal.print_table("Mesh", ("", ""), rows)


app.command(calibrate)
app.command(optimize_dose)
app.command(train)
app.command(evaluate)
app.command(synthesize)
app.command(cli_clinic.import_dicom)
app.command(cli_clinic.export_dicom)
app.command(cli_clinic.export_bids)


@app.command
def report(run: Run, /) -> None:
    """Draw pictures and report of a run anew."""
    from hybridtumor.run_report import rewrite_report

    with terminal.progress() as tell:
        path = rewrite_report(run, progress=lambda share: tell("report", share))
    print(path)  # noqa: T201


@app.command
def view(
    run: Run,
    /,
    *,
    screenshot: Annotated[
        Path | None, Parameter(help="PNG file to write instead of opening a window; needs no display.")
    ] = None,
) -> None:
    """Look at the mesh and the densities: arms side by side, time slider, clip plane."""
    from hybridtumor.view import view_run

    view_run(run, screenshot=screenshot)


@app.command
def doctor() -> int:
    """Check what hybridtumor needs on this machine."""
    from hybridtumor.doctor import examine

    findings = examine()
    terminal.print_table(
        "hybridtumor doctor", ("", "check", "finding"), [(_mark(f.state), f.name, f.text) for f in findings]
    )
    return ResourceError.exit_code if any(f.state == "missing" for f in findings) else 0


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(help="Show the traceback of an error.", negative="")] = False,
) -> Any:
    del debug  # read by `main` before parsing, so that it also covers errors of the parser
    return app(tokens, exit_on_error=False)


app.meta.suppress_keyboard_interrupt = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    _end_orderly_when_terminated()
    try:
        result = app.meta(tokens, exit_on_error=False)
    except BaseException as error:  # noqa: BLE001  every way to end becomes an exit code
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        if "--debug" in tokens:
            traceback.print_exc()
        code, message = explain(error)
        if message:
            terminal.say(message)
        _stop_other_ranks(error, code)
        return code
    return result if isinstance(result, int) else 0


def _end_orderly_when_terminated() -> None:
    """Let SIGTERM end the process as an exit does, so that locks go and no file stays half-written."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an error and what to say about it."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; what is finished stays, go on with --resume"
    if isinstance(error, CycloptsError):
        return InputError.exit_code, ""  # the parser has already said it
    if isinstance(error, HybridTumorError):
        return error.exit_code, f"error: {error}"
    if isinstance(error, MemoryError):
        return (
            ResourceError.exit_code,
            "error: expected enough memory, there was none left. Use larger cells (--cell-size) or fewer report days.",
        )
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return ResourceError.exit_code, (
            f"error: {error.filename or 'disk'}: expected room to write, there is none left ({error.strerror})."
            " Free some, or choose another disk."
        )
    if isinstance(error, OSError):
        name = error.filename or "file system"
        return InputError.exit_code, f"error: {name}: expected to read or write it, got: {error.strerror or error}."
    return (
        DEFECT,
        f"error: a defect of hybridtumor: {type(error).__name__}: {error}. Run again with --debug and report it.",
    )


def _stop_other_ranks(error: BaseException, code: int) -> None:
    """Under MPI, a defect on one rank stops all of them; an error that is ours has been raised on every rank."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and not isinstance(error, HybridTumorError) and mpi.Is_initialized() and mpi.COMM_WORLD.size > 1:
        mpi.COMM_WORLD.Abort(code)


def _compare(
    scenario: Any,
    out: Path,
    cell_size: str,
    *,
    resume: bool,
    overwrite: bool,
    images: bool = True,
    calibration: Path | None = None,
    draws: tuple[int, int, int | None] = (0, 0, 1),
) -> None:
    from hybridtumor.compare import compare as run_compare
    from hybridtumor.draws import DrawOptions
    from hybridtumor.draws_pool import usual_workers

    _end_orderly_when_terminated()  # PETSc has taken the signal when it was loaded
    count, seed, workers = draws
    with terminal.progress() as tell:
        folder = run_compare(
            scenario,
            out,
            resume=resume,
            overwrite=overwrite,
            images=images,
            cell_size=cell_size,
            calibration=calibration,
            draws=DrawOptions(count, seed, usual_workers() if workers is None else workers),
            progress=tell,
        )
    if terminal.is_root():
        _print_summary(folder.load_summary(), folder.report_path)


def _print_summary(summary: dict[str, Any], report_path: Path) -> None:
    """Show the figures of all arms on their last day, and where the report is."""
    rows = []
    for name, arm in summary["arms"].items():
        volumes = [f"{arm['volume_mm3'][label][-1] / 1000:.1f}" for label in ("enhancing", "edema", "necrosis")]
        dose = f"{arm['dose']['prescribed_Gy']:g}" if arm["dose"] else "–"
        rows.append((name, dose, f"{arm['burden_mm3'][-1] / 1000:.1f}", *volumes))
    terminal.print_table(
        f"day {summary['horizon_days']:g}", ("arm", "Gy", "burden ml", "enhancing ml", "oedema ml", "necrosis ml"), rows
    )
    for note in summary.get("calibration", {}).get("notes", ()):
        print(note)  # noqa: T201
    if "draws" in summary:
        _print_draws(summary["draws"])
    print(f"report: {report_path}")  # noqa: T201


def _print_draws(figures: dict[str, Any]) -> None:
    """Show what the draws come to: intervals of every arm, and how often one plan beats another."""
    from hybridtumor import report_draws as words

    terminal.print_table(words.caption(figures), words.ARM_COLUMNS, words.arm_rows(figures))
    terminal.print_table("P(plan beats the other)", words.PAIR_COLUMNS, words.pair_rows(figures))
    for statement in (figures["statement"], *figures["notes"]):
        print(statement)  # noqa: T201


def _mark(state: str) -> str:
    return {"ok": "ok", "weak": "!", "missing": "MISSING"}[state]
