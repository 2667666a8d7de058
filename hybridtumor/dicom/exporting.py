"""A patient folder or a run folder as DICOM files that a clinic's software opens.

::

    OUT/
      export.json                       what was written; the mark of a folder that may be overwritten
      patient/day000_T1w/0001.dcm …     one folder per image series
      patient/day000_seg.dcm  patient/day000_structures.dcm
      patient/plan.dcm  patient/dose.dcm                if the patient folder holds a dose
      arms/NAME/plan.dcm  arms/NAME/dose.dcm            if the arm of the run is irradiated
      arms/NAME/day060_T1w/0001.dcm …                   one sample of the ensemble
      arms/NAME/day060_seg.dcm  arms/NAME/day060_structures.dcm

One patient is one study and one frame of reference, so that a viewer lays everything over everything.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridtumor.dicom.write_dose import Bits
from hybridtumor.dicom.write_geometry import Frames
from hybridtumor.dicom.write_set import INDEX, FileSet, Written
from hybridtumor.dicom.writing import Identity
from hybridtumor.errors import InputError
from hybridtumor.patient import Patient, Visit
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import MODALITIES, LabelMap, Scan
from hybridtumor.therapy import DoseMap


def export_dicom(
    run_or_patient: Path | str,
    out: Path | str,
    *,
    arm: str | None = None,
    day: float | None = None,
    dose_bits: Bits = 16,
    overwrite: bool = False,
) -> list[Written]:
    """Write a patient folder or a run as DICOM.

    Parameters
    ----------
    run_or_patient
        Run folder, patient folder or BraTS folder.
    out
        New or empty folder, or with `overwrite` that of an earlier export, whose files are deleted first.
    arm, day
        One arm, one day of follow-up; None: all. The baseline (day 0) always comes along.
    dose_bits
        Of a stored dose: at 16 the error is at most 1/131 070 of the maximum, and every reader and validator copes; 32
        for exactness.

    Returns
    -------
    One row per series or file, in the order in which they were written.

    Raises
    ------
    InputError
        The source is neither, the arm or the day is not in it, `out` holds files, or the grid is sheared.
    """
    source, out = Path(run_or_patient), Path(out)
    run = RunFolder.open(source) if (source / "manifest.json").is_file() else None
    arms = _arms(run, source, arm)
    patient = Patient.load(source) if run is None else run.load_patient()
    _require_day(run, arms, patient, source, day)
    Frames.of(patient.grid)  # a grid that DICOM cannot say is refused before anything is deleted
    _clear(out, overwrite=overwrite)
    export = FileSet(out, Identity.of(patient), dose_bits)
    with _whole_or_nothing(out):
        export.save_index(finished=False)
        _export_patient(export, patient, day, with_dose=run is None)
        for name in arms:
            _export_arm(export, run, name, patient, day)  # type: ignore[arg-type]  # without a run there are no arms
        export.save_index(finished=True)
    return export.rows


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[None]:
    """Take away what an export has written when it does not come to its end."""
    try:
        yield
    except BaseException:
        _remove(out)
        (out / INDEX).unlink(missing_ok=True)
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise


def _remove(out: Path) -> None:
    """Delete the images of an export; what else lies in its folder stays."""
    for folder in ("patient", "arms"):
        if (out / folder).is_dir():
            shutil.rmtree(out / folder)


def _export_patient(export: FileSet, patient: Patient, day: float | None, *, with_dose: bool) -> None:
    """Write what was handed in: the visits, and the dose unless a run has made doses of its own."""
    folder = export.out / "patient"
    for visit in patient.visits:
        if day is None or visit.day in {0, day}:
            structures = patient.structures if visit.day == 0 else {}
            export.add_visit(folder, "", visit, structures, synthetic=patient.synthetic)
    if with_dose and patient.dose is not None:
        export.add_dose(folder, "", patient.dose, (), synthetic=patient.synthetic)


def _export_arm(export: FileSet, run: RunFolder, arm: str, patient: Patient, day: float | None) -> None:
    """Write what a run has made of an arm: dose, plan and the follow-up after day 0.

    Images are samples: what a scan could look like. The means of the ensemble stay in the run folder.
    """
    folder, grid = export.out / "arms" / arm, patient.grid
    values = run.load_dose(arm)
    if values is not None:
        courses = run.load_plan(arm, grid).active.courses
        export.add_dose(folder, f"{arm} ", DoseMap(values, grid), courses, synthetic=True)
    for later in _follow_up(run, arm):
        if day is None or later == day:
            paths = {name: run.scan_path(arm, name, later) for name in MODALITIES}
            scans = {name: Scan(Scan.load(path).values, grid) for name, path in paths.items() if path.exists()}
            labels = LabelMap.load(run.labels_path(arm, later))
            samples = run.manifest.samples
            export.add_visit(folder, f"{arm} ", Visit(later, scans, labels), {}, synthetic=True, samples=samples)
    if not _follow_up(run, arm):
        export.leave_out(f"{arm} follow-up", "the run holds no follow-up images; `hybridtumor refine` makes them")


def _follow_up(run: RunFolder, arm: str) -> list[float]:
    """Return the days after day 0 of which an arm has images."""
    return [float(day) for day in run.image_figures(arm).get("days", ()) if day > 0]


def _arms(run: RunFolder | None, source: Path, arm: str | None) -> tuple[str, ...]:
    """Return the arms to write."""
    known = () if run is None else run.arms()
    if arm is None:
        return known
    if arm not in known:
        if not known:
            raise InputError(f"{source}: expected no --arm, as this is no simulated run, got {arm[:80]!r}. Remove it.")
        raise InputError(f"{source}: expected as --arm one of {', '.join(known)}, got {arm[:80]!r}.")
    return (arm,)


def _require_day(
    run: RunFolder | None, arms: tuple[str, ...], patient: Patient, source: Path, day: float | None
) -> None:
    """Refuse a day of which there are no images."""
    known = {visit.day for visit in patient.visits}
    if run is not None:
        known |= {later for arm in arms for later in _follow_up(run, arm)}
    if day is not None and day not in known:
        days = ", ".join(f"{known_day:g}" for known_day in sorted(known))
        raise InputError(f"{source}: expected as --day one with images ({days}), got {day:g}.")


def _clear(out: Path, *, overwrite: bool) -> None:
    """Make room: an earlier export is deleted when that is asked for, anything else is refused."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder for the export, found a file.")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise InputError(
            f"{out}: expected an empty or new folder for the export, found one that holds files."
            " Add --overwrite if it is an earlier export, or choose another folder."
        )
    if not (out / INDEX).is_file():
        raise InputError(f"{out}: expected an earlier export to overwrite, found no {INDEX}. Choose another folder.")
    _remove(out)
