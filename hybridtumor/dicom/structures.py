"""RTSTRUCT becomes masks on a grid: names that are safe to keep, contours filled by `hybridtumor.dicom.contours`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hybridtumor.dicom.contours import Points, contour_normal, rasterise, typical_gap
from hybridtumor.dicom.geometry import FARTHEST, TO_RAS
from hybridtumor.dicom.reading import read
from hybridtumor.dicom.series import frame_of_reference as frame_of
from hybridtumor.dicom.series import same_frame
from hybridtumor.dicom.structure_names import clean_names
from hybridtumor.dicom.values import Dataset, guarded, numbers, text
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid

LABEL = "structures"

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Contour types that enclose something."""

MAX_POINTS = 20_000_000
"""Most points of one structure set."""


@dataclass(frozen=True, eq=False)
class Contoured:
    """The structures of one set, drawn on nothing yet.

    Attributes
    ----------
    contours
        Safe name to closed contours, (n, 3) points each, RAS+, mm; none for a structure that was never drawn.
    passed_over
        Contours that enclose nothing: points and open lines.
    frame_of_reference
        UID of the frame that the points are in.
    """

    contours: Mapping[str, Sequence[Points]]
    passed_over: int
    frame_of_reference: str = field(repr=False)


@dataclass(frozen=True, eq=False)
class Structures:
    """Masks on a grid, and the structures that have no voxel on it, each with the reason."""

    masks: Mapping[str, BoolArray]
    left_out: Mapping[str, str]


def load_structures(
    path: Path | str, grid: Grid, *, frame_of_reference: str | None = None, allow_other_frame: bool = False
) -> Structures:
    """Read an RTSTRUCT onto a grid.

    Parameters
    ----------
    grid
        Any grid; contours may lie between its slices or askew to them.
    frame_of_reference
        UID of the frame of reference of the images; None: not checked.
    allow_other_frame
        Accept structures in another frame; their positions are then taken as they are.

    Raises
    ------
    InputError
        Not an RTSTRUCT, no structure at all, another frame of reference, contours that are no planar polygons, a
        doubtful file.
    """
    found = read_contours(path)
    if frame_of_reference is not None and not (
        allow_other_frame or same_frame(found.frame_of_reference, frame_of_reference)
    ):
        raise InputError(
            f"{LABEL}: expected the frame of reference of the images, got another. Register the images first, or allow"
            " another frame if their coordinates are known to agree."
        )
    return draw(found, grid)


def draw(found: Contoured, grid: Grid) -> Structures:
    """Fill contours on a grid."""
    masks: dict[str, BoolArray] = {}
    left_out: dict[str, str] = {}
    gaps: list[float] = []
    ready = {}
    for name, contours in found.contours.items():
        normal = contour_normal(contours, f"{LABEL}, {name}") if contours else None
        if normal is None:
            left_out[name] = "no closed contour"
            continue
        gap = typical_gap(contours, normal)
        ready[name] = (contours, normal, gap)
        gaps += [] if gap is None else [gap]
    for name, (contours, normal, gap) in ready.items():
        usual = float(np.median(gaps)) if gaps else None
        mask = rasterise(contours, normal, usual if gap is None else gap, grid)
        if mask.any():
            masks[name] = mask
        else:
            left_out[name] = "outside the image, or smaller than a voxel"
    return Structures(masks, left_out)


def read_contours(path: Path | str) -> Contoured:
    """Read the closed contours of an RTSTRUCT; see `load_structures`."""
    header = read(path, label=LABEL)
    with guarded(LABEL):
        if text(header, "Modality") != "RTSTRUCT":
            raise InputError(f"{LABEL}: expected an RTSTRUCT file, got another modality.")
        regions = list(header.get("StructureSetROISequence") or [])
        if not regions:
            raise InputError(f"{LABEL}: expected at least one structure, found none.")
        kinds = {
            text(item, "ReferencedROINumber"): text(item, "RTROIInterpretedType")
            for item in header.get("RTROIObservationsSequence") or []
        }
        numbered = [text(region, "ROINumber") for region in regions]
        if len(set(numbered)) < len(numbered):
            raise InputError(f"{LABEL}: expected ROINumber that differ, got one twice.")
        frame = _one_frame(header, regions)
        stated = [(text(r, "ROIName"), kinds.get(n, "")) for r, n in zip(regions, numbered, strict=True)]
        drawn = {text(item, "ReferencedROINumber"): item for item in header.get("ROIContourSequence") or []}
        contours: dict[str, list[Points]] = {}
        passed = total = 0
        for name, number in zip(clean_names(stated), numbered, strict=True):
            contours[name] = []
            for item in drawn[number].get("ContourSequence") or [] if number in drawn else []:
                if text(item, "ContourGeometricType") not in CLOSED:
                    passed += 1
                    continue
                points = _points(item, name)
                total += len(points)
                if total > MAX_POINTS:
                    raise InputError(f"{LABEL}: expected at most {MAX_POINTS} points, got more.")
                contours[name] += [points] if len(points) > 2 else []
        return Contoured(contours, passed, frame)


def _one_frame(header: Dataset, regions: Sequence[Dataset]) -> str:
    """Return the frame of reference of all structures; InputError when they are in several."""
    frames = {text(region, "ReferencedFrameOfReferenceUID") for region in regions} - {""}
    if len(frames) > 1:
        raise InputError(f"{LABEL}: expected structures of one frame of reference, got {len(frames)}.")
    return frames.pop() if frames else frame_of(header)


def _points(contour: Dataset, name: str) -> Points:
    """Return the points of one contour, (n, 3), RAS+, mm."""
    label = f"{LABEL}, {name}"
    flat = numbers(contour, "ContourData", None, label)
    stated = text(contour, "NumberOfContourPoints")
    if flat.size % 3 or (stated.isdigit() and int(stated) != flat.size // 3):
        raise InputError(f"{label}: expected three coordinates for each point of a contour, got {flat.size} in all.")
    if np.abs(flat).max() > FARTHEST:
        raise InputError(f"{label}: expected points within {FARTHEST:g} mm of the origin, got others.")
    points: Points = flat.reshape(-1, 3) @ TO_RAS.T
    return points
