"""Images of a folder become the visits of a patient, all on one grid.

Images of one study date are one visit; days count from the first date that has an MR image (or any image, when there
is no MR). The grid is that of the MR image of day 0 whose longest voxel edge is shortest; images on other grids in the
same frame of reference are resampled by affine, and left out when they show too little of the head.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hybridtumor.dicom.contrast import guess_contrast
from hybridtumor.dicom.reading import read
from hybridtumor.dicom.series import Series, same_frame
from hybridtumor.dicom.values import guarded, text
from hybridtumor.dicom.volume import load_volume
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid, resample
from hybridtumor.patient import Visit
from hybridtumor.patient_folder import MIN_OVERLAP, SCAN_NAMES
from hybridtumor.scan import MODALITIES, SYNTHETIC_NOTICE, Scan

LEAVE_OUT = "none"
"""Name that leaves a series out."""

FOREGROUND = 0.1
"""Voxels above this share of the range between the minimum and the 99th percentile show the head."""

FORECAST = "a simulation made it, no scanner did"
"""Why an exported forecast is left out where images of a scanner are there."""

REASON_FRAME = "in another frame of reference: register it first, or allow another frame if coordinates agree"


@dataclass(frozen=True)
class Row:
    """One line of the report: a series, what it was taken as (None: left out), and how or why."""

    name: str
    taken_as: str | None
    detail: str


@dataclass(frozen=True, eq=False)
class _Image:
    series: Series
    scan_name: str
    scan: Scan
    why: str
    stated: bool
    synthetic: bool


@dataclass(frozen=True, eq=False)
class Images:
    """Visits on one grid, whether no scanner made their images, and the frame of reference of that grid."""

    visits: tuple[Visit, ...]
    grid: Grid
    synthetic: bool
    frame_of_reference: str = field(repr=False)


def check_names(series: Sequence[Series], names: Mapping[str, str]) -> None:
    """Refuse names for series that are not there, and names that no scan can have."""
    images = [s.name for s in series if s.kind == "image"]
    for key, name in names.items():
        if key not in images or name not in {*SCAN_NAMES, LEAVE_OUT}:
            raise InputError(
                f"names: expected a series among {', '.join(images) or 'none'} and a name among"
                f" {', '.join(SCAN_NAMES)}, {LEAVE_OUT}, got {key[:20]!r}: {name[:20]!r}."
            )


def assemble(series: Sequence[Series], names: Mapping[str, str], rows: list[Row], *, allow_other_frame: bool) -> Images:
    """Read the images of all series and bring them to one grid; append a row for each to the report.

    Raises
    ------
    InputError
        No series could be read as an image.
    """
    images = [image for s in series if s.kind == "image" and (image := _image(s, names, rows)) is not None]
    synthetic = all(image.synthetic for image in images)
    dated = _dated([image for image in images if image.synthetic == synthetic], rows)
    if not dated:
        others = ", ".join(s.name for s in series if s.kind != "image")
        none = f"none but {others}" if others else "none"
        raise InputError(
            f"DICOM: expected at least one CT, MR or PET series that can be read, found {none}."
            + "".join(f" {row.name}: {row.detail}." for row in rows[:20] if row.taken_as is None)
            + " Put the images into the same folder."
        )
    day_zero = min(day for day, image in dated if _is_baseline(image, dated))
    first = [image for day, image in dated if day == day_zero]
    reference = min(first, key=lambda i: (i.scan_name not in MODALITIES, i.scan.grid.voxel_size.max().round(3)))
    visits: dict[int, dict[str, Scan]] = {0: {}}
    frame = reference.series.frame_of_reference
    for day, image in sorted(dated, key=lambda pair: (pair[0], not pair[1].stated, pair[1].scan.grid.voxel_size.max())):
        reason = "before the first MR image" if day < day_zero else None
        taken = visits.get(day - day_zero, {})
        if image.scan_name in taken:
            reason = f"another {image.scan_name} of the same day is finer, was named or comes first"
        if reason is None and image is not reference and not same_frame(image.series.frame_of_reference, frame):
            reason = None if allow_other_frame else REASON_FRAME
        scan = None if reason else _on_grid(image.scan, reference.scan)
        if scan is None:
            reason = reason or f"it shows less than {MIN_OVERLAP:.0%} of the head of the first image"
            rows.append(Row(image.series.name, None, f"{reason}; would be {image.scan_name}"))
            continue
        visits.setdefault(day - day_zero, {})[image.scan_name] = scan
        rows.append(Row(image.series.name, f"{image.scan_name}, day {day - day_zero}", _describe(image)))
    rows += [Row(image.series.name, None, FORECAST) for image in images if image.synthetic and not synthetic]
    return Images(
        tuple(Visit(float(day), _in_order(scans)) for day, scans in sorted(visits.items())),
        reference.scan.grid,
        synthetic,
        frame,
    )


def is_synthetic(path: Path, label: str) -> bool:
    """Tell whether a file is an image or a contour that hybridtumor has computed and exported."""
    header = read(path, label=label)
    with guarded(label):
        return SYNTHETIC_NOTICE in text(header, "SeriesDescription")


def _image(series: Series, names: Mapping[str, str], rows: list[Row]) -> _Image | None:
    """Read one series, or say in the report why not."""
    try:
        name, why = _scan_name(series, names)
        if name is None:
            rows.append(Row(series.name, None, why))
            return None
        scan = load_volume(series.files, label=series.name)
        synthetic = is_synthetic(series.files[0], series.name)
        return _Image(series, name, scan, why, series.name in names, synthetic)
    except InputError as error:
        rows.append(Row(series.name, None, str(error).removeprefix(f"{series.name}: ").rstrip(".")))
        return None


def _scan_name(series: Series, names: Mapping[str, str]) -> tuple[str | None, str]:
    """Return what a series is called in a patient folder and why, or None and why it is left out."""
    if series.name in names:
        stated = names[series.name]
        return (None, "left out as asked") if stated == LEAVE_OUT else (stated, "as stated")
    if series.modality == "MR":
        name, why = guess_contrast(read(series.files[0], label=series.name))
        return name, why if name else f"{why}; name it if it is a scan to use"
    return {"CT": "CT", "PT": "PET"}[series.modality], "by modality"


def _dated(images: Sequence[_Image], rows: list[Row]) -> list[tuple[int, _Image]]:
    """Return each image with its day, counted from an arbitrary one."""
    if not any(image.series.date for image in images):
        if len({image.series.study for image in images}) > 1:
            raise InputError("DICOM: expected StudyDate in images of several studies, found none in any of them.")
        return [(0, image) for image in images]
    start = datetime.date.min
    rows += [Row(i.series.name, None, "no date of the study") for i in images if i.series.date is None]
    return [((image.series.date - start).days, image) for image in images if image.series.date is not None]


def _is_baseline(image: _Image, dated: Sequence[tuple[int, _Image]]) -> bool:
    """Tell whether an image can be of day 0: an MR image where there is one."""
    return image.scan_name in MODALITIES or not any(other.scan_name in MODALITIES for _, other in dated)


def _on_grid(scan: Scan, reference: Scan) -> Scan | None:
    """Return a scan on the grid of another, or None where it shows too little of what that one shows."""
    grid = reference.grid
    if grid.same_as(scan.grid):
        return Scan(scan.values, grid)
    low, high = float(reference.values.min()), float(np.percentile(reference.values, 99))
    head = np.argwhere(reference.values > low + FOREGROUND * (high - low))
    if scan.grid.share_inside(grid.world(head[:: max(1, len(head) // 20000)])) < MIN_OVERLAP:
        return None
    return Scan(resample(scan.values, scan.grid, grid, outside=float(scan.values.min())), grid)


def _in_order(scans: Mapping[str, Scan]) -> dict[str, Scan]:
    return {name: scans[name] for name in sorted(scans, key=SCAN_NAMES.index)}


def _describe(image: _Image) -> str:
    """Say how an image was recognised and what its voxels are."""
    grid = image.scan.grid
    shape, edges = "×".join(map(str, grid.shape)), "×".join(f"{edge:.3g}" for edge in grid.voxel_size)
    step = grid.affine[:3, 2] / grid.voxel_size[2]
    normal = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    tilt = np.degrees(np.arccos(min(1.0, abs(step @ normal) / np.linalg.norm(normal))))
    sheared = f", gantry tilted by {tilt:.3g}°" if tilt > 0.1 else ""
    return f"{image.why}; {shape} voxels of {edges} mm{sheared}"
