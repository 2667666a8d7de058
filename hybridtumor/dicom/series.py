"""A folder of DICOM files, as they come, sorted into series.

Files are told apart by what is in them, never by their names, and no name of a file, no date and no UID is shown.
"""

import datetime
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hybridtumor.dicom.reading import is_dicom, read
from hybridtumor.dicom.values import Dataset, guarded, number, text
from hybridtumor.errors import InputError

DUMMY_DATE = "19000101"
"""Study date of what hybridtumor exports."""

MAX_FILES = 50_000
"""Most files that are looked at in one folder."""

IMAGES = ("CT", "MR", "PT")
"""Modalities whose series become scans."""

Kind = Literal["image", "dose", "structures", "plan", "other"]
_KINDS: dict[str, Kind] = {"RTDOSE": "dose", "RTSTRUCT": "structures", "RTPLAN": "plan"}


@dataclass(frozen=True)
class Series:
    """Files of one series.

    Attributes
    ----------
    name
        Modality and a number, such as ``MR2``: what messages, reports and the user call it.
    modality
        DICOM's modality, such as ``MR``.
    kind
        What it is to hybridtumor.
    files
        The files, in order of their SOP instance UIDs.
    frame_of_reference
        UID of the frame its positions are in; empty when it states none.
    study, date, patient
        UID and date of the study, number of the patient: to tell them apart, never to be shown.
    """

    name: str
    modality: str
    kind: Kind
    files: tuple[Path, ...] = field(repr=False)
    frame_of_reference: str = field(repr=False)
    study: str = field(repr=False)
    date: datetime.date | None = field(repr=False)
    patient: str = field(repr=False)


@dataclass(frozen=True)
class Sorted:
    """What a folder holds: its series, how many files are no DICOM or lead outside, and why others were refused."""

    series: tuple[Series, ...]
    not_dicom: int
    outside: int
    copies: int
    refused: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Entry:
    path: Path
    modality: str
    series: str
    instance: str
    frame: str
    study: str
    date: datetime.date | None
    patient: str
    order: float


def sort_folder(folder: Path | str) -> Sorted:
    """Sort all files of a folder and its subfolders into series.

    Raises
    ------
    InputError
        There is no such folder, or it holds more than `MAX_FILES` files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("DICOM: expected a folder of DICOM files, found none.")
    root = folder.resolve()
    found: dict[tuple[str, str], _Entry] = {}
    counts, refused = Counter[str](), Counter[str]()
    for index, path in enumerate(_files(folder), 1):
        if index > MAX_FILES:
            raise InputError(f"DICOM: expected at most {MAX_FILES} files in the folder, got more. Give a subfolder.")
        if not path.resolve().is_relative_to(root):
            counts["outside"] += 1
        else:
            try:
                if not path.is_file() or not is_dicom(path):
                    counts["not DICOM"] += 1
                    continue
                entry = _entry(path)
            except OSError:
                refused["a file that may not be opened. Check its permissions."] += 1
                continue
            except InputError as error:
                refused[str(error)] += 1
                continue
            counts["copies"] += (entry.series, entry.instance) in found
            found.setdefault((entry.series, entry.instance), entry)
    series = tuple(_named(_grouped(list(found.values()))))
    return Sorted(series, counts["not DICOM"], counts["outside"], counts["copies"], tuple(sorted(refused.items())))


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder in a fixed order; links to folders are not followed."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            yield Path(parent) / name


def _entry(path: Path) -> _Entry:
    """Read what tells a file's series."""
    dataset = read(path)
    with guarded("DICOM file"):
        entry = _Entry(
            path=path,
            modality=text(dataset, "Modality"),
            series=text(dataset, "SeriesInstanceUID"),
            instance=text(dataset, "SOPInstanceUID"),
            frame=frame_of_reference(dataset),
            study=text(dataset, "StudyInstanceUID"),
            date=study_date(dataset),
            patient=text(dataset, "PatientID"),
            order=_series_number(dataset),
        )
    if not entry.series or not entry.instance:
        raise InputError("DICOM file: expected SeriesInstanceUID and SOPInstanceUID, found none.")
    return entry


def frame_of_reference(dataset: Dataset) -> str:
    """Return the UID of the frame that positions are in; structure sets state it in a sequence."""
    if found := text(dataset, "FrameOfReferenceUID"):
        return found
    for item in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        if found := text(item, "FrameOfReferenceUID"):
            return found
    return ""


def same_frame(first: str, second: str) -> bool:
    """Tell whether two frames of reference are known to be one; a frame that is not stated is no known one."""
    return bool(first) and first == second


def study_date(dataset: Dataset) -> datetime.date | None:
    """Return the date of the study, or None when none is stated or it is none."""
    stated = text(dataset, "StudyDate")
    if stated == DUMMY_DATE:  # of an export: one study, the day is that of the series
        stated = text(dataset, "SeriesDate") or stated
    stated = stated.replace(".", "").replace("-", "")
    try:
        return datetime.date(int(stated[:4]), int(stated[4:6]), int(stated[6:8])) if len(stated) == 8 else None
    except ValueError:
        return None


def _series_number(dataset: Dataset) -> float:
    try:
        return number(dataset, "SeriesNumber", default=0)
    except InputError:
        return 0.0


def _grouped(entries: list[_Entry]) -> list[list[_Entry]]:
    """Return the files of each series, series in order of date, series number and UID."""
    groups: dict[tuple[str, str], list[_Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.series, entry.modality), []).append(entry)
    day = datetime.date.max
    return sorted(
        (sorted(group, key=lambda e: e.instance) for group in groups.values()),
        key=lambda group: (group[0].date or day, group[0].order, group[0].series),
    )


def _named(groups: list[list[_Entry]]) -> Iterator[Series]:
    """Yield the series, numbered within their modality."""
    numbers = Counter[str]()
    for group in groups:
        first = group[0]
        modality = first.modality if first.modality.isalnum() and len(first.modality) <= 16 else "other"
        modality = modality if modality in {*IMAGES, *_KINDS, "SEG", "REG"} else "other"
        numbers[modality] += 1
        yield Series(
            name=f"{modality}{numbers[modality]}",
            modality=modality,
            kind="image" if modality in IMAGES else _KINDS.get(modality, "other"),
            files=tuple(entry.path for entry in group),
            frame_of_reference=first.frame,
            study=first.study,
            date=first.date,
            patient=first.patient,
        )
