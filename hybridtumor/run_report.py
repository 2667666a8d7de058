"""The report of a run folder: pictures, page, and the mesh cut open."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hybridtumor import mesh_file, scene
from hybridtumor.calibrated import thresholds_of
from hybridtumor.errors import InputError, ResourceError
from hybridtumor.follow_up import Statistic
from hybridtumor.patient import Patient
from hybridtumor.report import compose, require_scans
from hybridtumor.report_outcomes import outcomes, shown_in_full
from hybridtumor.run_lock import run_lock
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import Scan, write_bytes
from hybridtumor.story import READERS, ArmSource, Image, Story, tell


def write_report(
    folder: RunFolder, patient: Patient | None = None, *, progress: Callable[[float], None] | None = None
) -> Path:
    """Draw the pictures of a run and write its report.

    Parameters
    ----------
    folder
        A run with at least one simulated arm.
    patient
        Its prepared patient; None: read from the folder.
    progress
        Told the share that is done.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    InputError
        Something the report needs is missing in the folder.
    """
    done = progress or (lambda _share: None)
    patient = folder.load_patient() if patient is None else patient
    require_scans(patient)
    summary = folder.load_summary()
    done(0.0)
    with folder.stage("report"):
        arms = folder.arms()
        first = folder.load_field(arms[0], "density", float(folder.figures(arms[0])["days"][0]))
        with ThreadPoolExecutor(READERS) as pool:
            plans = dict(zip(arms, pool.map(lambda name: folder.load_plan(name, patient.grid), arms), strict=True))
        in_full = shown_in_full(outcomes({name: summary["arms"][name] for name in arms}, plans))
        done(0.1)
        sources = {name: source(folder, name, summary["arms"][name]) for name in arms}
        story = tell(patient, first, sources, in_full, thresholds_of(folder.root))
        done(0.5)
        mesh = draw_mesh(folder, story)
        done(0.8)
        report = compose(
            story, plans, summary, mesh_picture=mesh, warnings=folder.manifest.warnings, facts=facts(folder)
        )
        for old in folder.pictures.glob("*.png"):
            if old.name not in report.pictures:
                old.unlink()
        for name, png in report.pictures.items():
            write_bytes(folder.pictures / name, png)
        report.save(folder.report_path)
    done(1.0)
    return folder.report_path


def rewrite_report(run: Path | str, *, progress: Callable[[float], None] | None = None) -> Path:
    """Draw pictures and report of a run folder anew; arguments and errors as for `write_report`."""
    folder = RunFolder.open(run)
    if not folder.arms():
        raise InputError(f"{folder.root}: expected a simulated run, found no finished arm. Go on with --resume.")
    with run_lock(folder.root):
        folder.manifest.warnings.clear()
        folder.save_summary(folder.summarise())
        return write_report(folder, progress=progress)


def source(folder: RunFolder, arm: str, figures: Mapping[str, Any]) -> ArmSource:
    """Return where the images of an arm lie in a run folder."""

    def image(modality: str, day: float, statistic: Statistic = "sample") -> Image | None:
        path = folder.scan_path(arm, modality, day, statistic)
        return Scan.load(path).values if path.exists() else None

    return ArmSource(
        figures=figures,
        density=lambda day: folder.load_field(arm, "density", day),
        scan=image,
        spread=lambda modality, day: image(modality, day, "std"),
        dose=lambda: folder.load_dose(arm),
        displacement=lambda day: folder.load_displacement(arm, day),
    )


def draw_mesh(folder: RunFolder, story: Story) -> bytes | None:
    """Draw the mesh cut open at the tumour, on day 0 and on the last day of the arms that are told in full.

    None without a mesh; None and a warning without OpenGL.
    """
    if not folder.mesh_path.exists():
        return None
    told = [arm for arm in story.arms if arm.in_full]
    first = told[0]
    fields = {f"day {first.days[0]:g}": mesh_file.field_name(first.name, first.days[0])}
    fields |= {f"{arm.name}, day {arm.days[-1]:g}": mesh_file.field_name(arm.name, arm.days[-1]) for arm in told}
    out = folder.pictures / "mesh.png"
    try:
        scene.picture(folder.mesh_path, fields, story.centre, out)
    except ResourceError as error:
        folder.warn(f"The picture of the mesh is missing: {error}")
        return None
    return out.read_bytes()


def facts(folder: RunFolder) -> list[tuple[str, str]]:
    """Return what the foot of the report says of the computation."""
    manifest = folder.manifest
    seconds = [(f"Seconds: {name}", f"{value:.1f}") for name, value in manifest.stages.items() if name != "report"]
    versions = ", ".join(
        f"{name} {manifest.libraries[name]}"
        for name in ("dolfinx-solver-real", "torch", "numpy")
        if name in manifest.libraries
    )
    seeds = ", ".join(f"{name} {seed}" for name, seed in manifest.seeds.items())
    return [
        *seconds,
        ("Ranks", str(manifest.mpi_size)),
        ("Seeds", seeds),
        ("Python", manifest.python),
        ("Libraries", versions),
    ]
