"""RTDOSE becomes a DoseMap: the total absorbed dose of one plan, Gy, on the grid of the file.

DoseSummationType (DICOM PS3.3, C.8.8.3.1): PLAN and MULTI_PLAN are totals; BEAM doses of one plan add up to its total.
FRACTION is the dose of one fraction group by the standard and that of one fraction in practice: the number of fractions
it has to be multiplied by is asked for. Doses of a session are no total. `hybridtumor.dicom.dose_grid` reads one file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridtumor.dicom.dose_grid import LABEL, dose_of_file
from hybridtumor.dicom.reading import read
from hybridtumor.dicom.series import frame_of_reference as frame_of
from hybridtumor.dicom.series import same_frame, sort_folder
from hybridtumor.dicom.values import Dataset, guarded, text
from hybridtumor.errors import InputError
from hybridtumor.grid import resample
from hybridtumor.therapy import DoseMap

TOTALS = ("PLAN", "MULTI_PLAN")
"""Summation types that are the dose of a whole course."""

MAX_BEAM_OUTSIDE = 0.01
"""Share of the voxels with dose of one beam that may lie outside the grid of the first."""


@dataclass(frozen=True)
class DoseFacts:
    """What a dose says about itself.

    Attributes
    ----------
    summation
        DoseSummationType of the files.
    files, beams
        How many files were added up, and how many beams they name (files, where they name none).
    fractions
        What a dose of one fraction was multiplied by; None for a total.
    left_out
        Doses of single beams that were left out because the total is there.
    frame_of_reference, plan
        UIDs of the frame of reference and of the plan, empty when not stated.
    """

    summation: str
    files: int
    beams: int
    fractions: int | None
    left_out: int
    frame_of_reference: str = field(repr=False)
    plan: str = field(repr=False)


@dataclass(frozen=True)
class _Part:
    """One file: header, and what it is of."""

    path: Path
    header: Dataset = field(repr=False)
    summation: str
    plan: str = field(repr=False)
    beams: tuple[str, ...]
    frame: str = field(repr=False)


def load_dose(
    source: Path | str | Iterable[Path | str],
    *,
    fractions: int | None = None,
    frame_of_reference: str | None = None,
    allow_other_frame: bool = False,
) -> tuple[DoseMap, DoseFacts]:
    """Read the total dose of one plan, on its own grid, RAS+.

    Parameters
    ----------
    source
        A file, several files, or a folder (anything in it that is no RTDOSE is passed over).
    fractions
        What the dose of a file of summation type FRACTION is multiplied by: the number of fractions, or 1 when the
        file holds the whole course. Not used for other types.
    frame_of_reference
        UID of the frame of reference of the images; None: not checked.
    allow_other_frame
        Accept a dose in another frame of reference: its positions are then taken as they are.

    Raises
    ------
    InputError
        No RTDOSE; units other than Gy; an effective dose; a summation type that is no total; doses of several plans;
        another frame of reference; planes unevenly spaced; a doubtful file.
    """
    files, refused = _files(source)
    parts = [_part(path) for path in files]
    if not parts:
        raise InputError(f"{LABEL}: expected an RTDOSE file, found none.")
    chosen = _choose(parts)
    if refused and chosen[0].summation == "BEAM":
        raise InputError(
            f"{LABEL}: expected all beams of a plan, got {len(chosen)} in a folder with {refused} damaged files, which"
            " may be beams too. Give the files."
        )
    known = all(same_frame(part.frame, frame_of_reference or "") for part in chosen)
    if frame_of_reference is not None and not known and not allow_other_frame:
        raise InputError(
            f"{LABEL}: expected the frame of reference of the images, got another. Register images and dose first, or"
            " allow another frame if their coordinates are known to agree."
        )
    first, *others = [dose_of_file(part.path, part.header) for part in chosen]
    values = first.values if not others else _sum(first, others)
    times = _times(chosen[0].summation, fractions)
    facts = DoseFacts(
        summation=chosen[0].summation,
        files=len(chosen),
        beams=max(len(chosen), sum(len(part.beams) for part in chosen)),
        fractions=times,
        left_out=len(parts) - len(chosen),
        frame_of_reference=chosen[0].frame,
        plan=chosen[0].plan,
    )
    return DoseMap(values * np.float32(times or 1), first.grid), facts


def _files(source: Path | str | Iterable[Path | str]) -> tuple[list[Path], int]:
    """Return the files a dose is to be read from, and how many of the folder are damaged."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_dir():
            return [path], 0
        found = sort_folder(path)
        refused = sum(count for _, count in found.refused)
        return [file for series in found.series if series.kind == "dose" for file in series.files], refused
    return [Path(path) for path in source], 0


def _part(path: Path) -> _Part:
    """Read a header and refuse what cannot be part of a physical dose in Gy."""
    header = read(path, label=LABEL)
    with guarded(LABEL):
        if text(header, "Modality") != "RTDOSE":
            raise InputError(f"{LABEL}: expected an RTDOSE file, got another modality.")
        _check_units(header)
        plan = next(iter(header.get("ReferencedRTPlanSequence") or []), Dataset())
        beams = [
            text(beam, "ReferencedBeamNumber")
            for group in plan.get("ReferencedFractionGroupSequence") or []
            for beam in group.get("ReferencedBeamSequence") or []
        ]
        return _Part(
            path,
            header,
            text(header, "DoseSummationType").upper(),
            text(plan, "ReferencedSOPInstanceUID"),
            tuple(sorted(beams)),
            frame_of(header),
        )


def _check_units(header: Dataset) -> None:
    """Refuse doses that are not absorbed dose in Gy."""
    units, kind = text(header, "DoseUnits").upper(), text(header, "DoseType").upper()
    if units == "RELATIVE":
        raise InputError(
            f"{LABEL}: expected DoseUnits GY, got RELATIVE: a share of an unknown dose. Export the dose in Gy."
        )
    if units != "GY":
        raise InputError(f"{LABEL}: expected DoseUnits GY, got {'none' if not units else 'others'}. Export it in Gy.")
    if kind == "EFFECTIVE":
        raise InputError(
            f"{LABEL}: expected the physical dose, got DoseType EFFECTIVE: a dose already weighted for its effect (such"
            " as EQD2), which the response model would weight again. Export the physical dose."
        )
    if kind != "PHYSICAL":
        raise InputError(f"{LABEL}: expected DoseType PHYSICAL, got {'none' if not kind else 'another'}.")


def _choose(parts: Sequence[_Part]) -> list[_Part]:
    """Return the parts that make the total: one total, or all beams of one plan."""
    totals = [part for part in parts if part.summation in TOTALS]
    if len(totals) == 1:
        return totals
    if totals:
        raise InputError(
            f"{LABEL}: expected one total dose, got {len(totals)} of whole plans. Give the one to use; several phases"
            " are several courses."
        )
    kinds = {part.summation for part in parts}
    if kinds == {"FRACTION"} and len(parts) == 1:
        return list(parts)
    if kinds == {"BEAM"}:
        return _beams(parts)
    known = ("FRACTION", "BEAM", "BRACHY", "FRACTION_SESSION", "BEAM_SESSION", "BRACHY_SESSION", "CONTROL_POINT")
    got = ", ".join(sorted(kind if kind in known else "one not known" for kind in kinds))
    raise InputError(
        f"{LABEL}: expected the dose of a whole plan (PLAN), all its beams (BEAM) or one FRACTION, got {len(parts)} of"
        f" the summation type {got}. Export the dose of the plan."
    )


def _beams(parts: Sequence[_Part]) -> list[_Part]:
    """Return the doses of beams, in order; all have to be of one plan, none twice."""
    if len({part.plan for part in parts}) > 1 or len({part.frame for part in parts}) > 1:
        raise InputError(f"{LABEL}: expected beams of one plan, got beams of several. Give the files of one plan.")
    named = [part.beams for part in parts if part.beams]
    if len(set(named)) < len(named):
        raise InputError(f"{LABEL}: expected each beam once, got one of them several times.")
    return sorted(parts, key=lambda part: [int(n) if n.isdigit() else 0 for n in part.beams])


def _times(summation: str, fractions: int | None) -> int | None:
    """Return what the dose has to be multiplied by to be a total; None when it is one."""
    if summation != "FRACTION":
        return None
    if fractions is None or fractions < 1:
        raise InputError(
            f"{LABEL}: expected a total dose, got DoseSummationType FRACTION: some systems write the dose of one"
            " fraction so, others that of all fractions of a group. State the number of fractions to multiply by (1 if"
            " it is the total)."
        )
    return fractions


def _sum(first: DoseMap, others: Iterable[DoseMap]) -> NDArray[np.float32]:
    """Return the sum on the grid of the first."""
    total = first.values.astype(np.float64)
    for other in others:
        if first.grid.same_as(other.grid):
            total += other.values
            continue
        dosed = np.argwhere(other.values > 0.01 * other.values.max(initial=0))
        if 1 - first.grid.share_inside(other.grid.world(dosed)) > MAX_BEAM_OUTSIDE:
            raise InputError(
                f"{LABEL}: expected beams on one grid, got one that gives dose outside the grid of another."
            )
        total += resample(other.values, other.grid, first.grid)
    return total.astype(np.float32)
