"""A folder of DICOM files becomes a patient folder, without anything that tells who the patient is.

Structures that show the tumour are its segmentation on day 0 (`hybridtumor.dicom.import_structures`), so that the
patient can be simulated. A dose of a plan becomes the patient's dose, and the plan a list of treatments, ``plan.yaml``,
as an arm of a scenario states them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hybridtumor import units
from hybridtumor.dicom.assembling import Row, assemble, check_names
from hybridtumor.dicom.dose import DoseFacts, load_dose
from hybridtumor.dicom.import_folder import check_target, write_patient
from hybridtumor.dicom.import_structures import beside_labels, drawn_labels, gather_structures, tumour_structures
from hybridtumor.dicom.plan import PlanFacts, load_plan
from hybridtumor.dicom.series import Series, Sorted, sort_folder
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid, resample
from hybridtumor.patient import Patient
from hybridtumor.patient_folder import MAX_UNCOVERED
from hybridtumor.scan import LabelMap
from hybridtumor.therapy import DoseMap

PLAN_FILE = "plan.yaml"

FIRST_DAY = 14
"""Day of the first fraction in `PLAN_FILE`: DICOM plans state none."""

PLAUSIBLE_MAXIMUM = (0.5, 1.5)
"""Largest dose over the prescription: outside this range plan and dose do not belong together."""


@dataclass(frozen=True)
class ImportReport:
    """What became of a folder of DICOM files; nothing in it tells who the patient is.

    Attributes
    ----------
    folder
        The patient folder.
    id
        Of the patient.
    days
        Of the visits.
    rows
        One for each series or kind of file: its name, what it was taken as (None: left out), and how or why.
    treatments
        Whether `PLAN_FILE` was written.
    """

    folder: Path
    id: str
    days: tuple[float, ...]
    rows: tuple[Row, ...]
    treatments: bool


def import_dicom(
    source: Path | str,
    out: Path | str,
    *,
    identity: str | None = None,
    names: Mapping[str, str] | None = None,
    overwrite: bool = False,
    fractions: int | None = None,
    allow_other_frame: bool = False,
) -> ImportReport:
    """Turn a folder of DICOM files of one patient into a patient folder.

    Parameters
    ----------
    source
        Folder of files in any order, with subfolders.
    out
        The patient folder to write, whole or not at all.
    identity
        Id of the patient; the name of `out` by default.
    names
        Series (``MR2``) to scan name (``T1ce``), where the guess is wrong; ``none`` leaves a series out.
    overwrite
        Replace a patient folder that is there.
    fractions
        Of a dose of summation type FRACTION, see `hybridtumor.dicom.dose.load_dose`.
    allow_other_frame
        Take the coordinates of all frames of reference as one.

    Raises
    ------
    InputError
        Nothing there that can be read as an image, files of several patients, `out` exists, names that fit nothing.
    """
    source, out = Path(source), Path(out)
    identity = out.resolve().name if identity is None else identity
    check_target(source, out, identity, overwrite=overwrite)
    found = sort_folder(source)
    if len({series.patient for series in found.series} - {""}) > 1:
        raise InputError("DICOM: expected the files of one patient, got several. Put each patient into a folder.")
    _require_series(found)
    check_names(found.series, names or {})
    rows: list[Row] = []
    images = assemble(found.series, names or {}, rows, allow_other_frame=allow_other_frame)
    frame = None if allow_other_frame else images.frame_of_reference
    structures = gather_structures(found.series, images, frame, rows)
    labels = drawn_labels(structures, images.grid)
    dose, facts = _dose(found.series, images.grid, frame, labels, fractions, rows)
    plan = _plan(found.series, facts, dose, rows)
    if plan is None and dose is not None and facts is not None and facts.summation == "BEAM":
        rows.append(Row("dose", "dose", "sum of the beams found; no plan tells whether these are all"))
    visits = (replace(images.visits[0], labels=labels), *images.visits[1:])
    patient = Patient(
        identity, visits, dose=dose, structures=beside_labels(structures, labels), synthetic=images.synthetic
    )
    write_patient(patient, [] if plan is None else [_course(plan)], PLAN_FILE, out)
    rows += [*_other_rows(found), *_simulation_rows(patient, tumour_structures(structures))]
    return ImportReport(out, identity, tuple(v.day for v in patient.visits), tuple(rows), plan is not None)


def _require_series(found: Sorted) -> None:
    """Refuse a folder without a DICOM file that could be read, and say what is there instead."""
    if not found.series:
        there = [f"{row.name}: {row.detail}" for row in _other_rows(found)]
        raise InputError(f"DICOM: expected DICOM files that can be read, found {'; '.join(there) or 'none'}.")


def _dose(
    series: Sequence[Series],
    grid: Grid,
    frame: str | None,
    labels: LabelMap | None,
    fractions: int | None,
    rows: list[Row],
) -> tuple[DoseMap | None, DoseFacts | None]:
    """Return the total dose on the patient's grid, if there is one that can be used."""
    files = [path for one in series if one.kind == "dose" for path in one.files]
    if not files:
        return None, None
    name = "dose"
    try:
        dose, facts = load_dose(files, fractions=fractions, frame_of_reference=frame)
        missed = 0.0 if labels is None else 1 - dose.grid.share_inside(grid.world(np.argwhere(labels.mask())))
        if missed > MAX_UNCOVERED:
            raise InputError(f"expected a dose grid that covers the tumour, {missed:.1%} of it is outside.")
        values = resample(dose.values, dose.grid, grid)
        if not values.any():
            raise InputError("expected a dose inside the images, got none there.")
    except InputError as error:
        rows.append(Row(name, None, str(error).removeprefix(f"{name}: ").rstrip(".")))
        return None, None
    many = f"sum of {facts.files} files" if facts.files > 1 else "one file"
    scaled = "" if facts.fractions is None else f", times {facts.fractions} fractions"
    spare = f", {facts.left_out} of single beams left out" if facts.left_out else ""
    detail = f"{facts.summation}, {many}{scaled}{spare}; maximum {dose.values.max():.4g} Gy"
    rows.append(Row(name, "dose", detail))
    return DoseMap(values, grid), facts


def _plan(series: Sequence[Series], facts: DoseFacts | None, dose: DoseMap | None, rows: list[Row]) -> PlanFacts | None:
    """Return the plan that the dose is of, if there is one that can be used."""
    taken = None
    for one in (s for s in series if s.kind == "plan"):
        for path in one.files:
            try:
                plan = load_plan(path)
                _check_plan(plan, facts, dose, taken)
            except InputError as error:
                rows.append(Row(one.name, None, str(error).removeprefix("plan: ").rstrip(".")))
                continue
            taken = plan
            beams = f", {plan.beams} beams" if plan.beams else ""
            detail = f"{plan.prescription:g} Gy in {plan.fractions} fractions{beams}; first day {FIRST_DAY}"
            rows.append(Row(one.name, PLAN_FILE, f"{detail} (plans state none: change it if it is known)"))
    return taken


def _course(plan: PlanFacts) -> dict[str, object]:
    """Return the course as an entry of a scenario's arm states it."""
    prescription = units.format_quantity(plan.prescription or 0.0, "Gy")
    return {
        "radiation": {
            "prescription": prescription,
            "fractions": plan.fractions,
            "first_day": FIRST_DAY,
            "dose": "patient",
        }
    }


def _check_plan(plan: PlanFacts, facts: DoseFacts | None, dose: DoseMap | None, taken: PlanFacts | None) -> None:
    """Refuse a plan that no treatment can be made of."""
    what = f"{plan.fractions} fractions" + ("" if plan.prescription is None else f", {plan.prescription:g} Gy")
    if facts is None or dose is None:
        raise InputError(f"plan: expected a dose to go with it, there is none that can be used ({what}).")
    if taken is not None or (facts.plan and facts.plan != plan.plan):
        raise InputError(f"plan: expected the plan that the dose is of, got another ({what}).")
    if plan.prescription is None:
        raise InputError(f"plan: expected a prescribed dose, the plan states none ({what}).")
    if facts.summation == "BEAM" and facts.beams < plan.beams:
        raise InputError(f"plan: expected the dose of all {plan.beams} beams, got {facts.beams} ({what}).")
    low, high = (share * plan.prescription for share in PLAUSIBLE_MAXIMUM)
    if not low <= (top := float(dose.values.max())) <= high:
        raise InputError(f"plan: expected a dose that reaches about the prescription, got up to {top:.4g} Gy ({what}).")


def _other_rows(found: Sorted) -> list[Row]:
    """Return rows for what is no image, structure, plan or dose."""
    rows = [Row(s.name, None, "objects of this kind are not read") for s in found.series if s.kind == "other"]
    counts: tuple[tuple[int, str], ...] = (
        (found.not_dicom, "not DICOM"),
        (found.outside, "links that lead outside"),
        (found.copies, "copies"),
    )
    counts += tuple((n, why.removeprefix("DICOM file: ").rstrip(".")) for why, n in found.refused)
    return rows + [Row(f"{n} file{'s' if n > 1 else ''}", None, why) for n, why in counts if n]


def _simulation_rows(patient: Patient, drawn: Sequence[str]) -> list[Row]:
    """Return rows for the structures that became labels, and for what a simulation of this patient still lacks."""
    rows = [Row(", ".join(drawn), "labels", "drawn structures are the tumour of day 0")] if drawn else []
    if patient.synthetic:
        rows.append(Row("images", "synthetic", "a simulation made all of them: no measurement of a patient"))
    lacks = []
    if "T1w" not in patient.baseline.scans:
        lacks.append("a T1w image on day 0 (if a series is one, name it, such as --name MR2=T1w)")
    if patient.baseline.labels is None:
        lacks.append("the tumour (send a structure GTV, or add labels to patient.yaml)")
    return [*rows, Row("simulation", "not yet", f"it lacks {'; and '.join(lacks)}")] if lacks else rows
