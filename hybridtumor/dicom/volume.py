"""A series of CT, MR or PET images becomes one Scan: slices in order of their position along the normal.

value = slope · pixel + intercept, with the slope and intercept of each slice. The number of an image in its series
says nothing: only ImagePositionPatient and ImageOrientationPatient (`hybridtumor.dicom.geometry`) place it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridtumor.dicom.geometry import Vector, affine_ras, check_spacing, even_step, plane_axes
from hybridtumor.dicom.reading import frame_shape, pixels, read
from hybridtumor.dicom.values import Dataset, guarded, number, numbers, text
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.scan import MAX_BYTES, MAX_VOXELS, Scan


@dataclass(frozen=True, eq=False)
class _Frame:
    """One plane of pixels, and where its first pixel is (LPS, mm)."""

    file: int
    index: int
    position: Vector
    orientation: Vector
    spacing: Vector
    thickness: float
    scaling: tuple[float, float]
    shape: tuple[int, int]


def load_volume(files: Sequence[Path], *, label: str = "series") -> Scan:
    """Read the images of one series, single-frame or multi-frame, as one scan.

    Parameters
    ----------
    files
        All files of the series, in any order.
    label
        What messages call the series.

    Raises
    ------
    InputError
        A file is doubtful (`hybridtumor.dicom.reading.read`), planes differ in orientation, spacing or extent, lie at
        the same position, are missing or unevenly spaced, or are too many.
    """
    if not files:
        raise InputError(f"{label}: expected at least one file, got none.")
    with guarded(label):
        headers = [read(path, label=label) for path in files]
        frames = [frame for i, header in enumerate(headers) for frame in _frames(header, i, label)]
        _check_alike(frames, label)
        x, y, normal = plane_axes(frames[0].orientation, label)
        frames.sort(key=lambda frame: float(frame.position @ normal))
        step = _step(frames, normal, label)
        rows, columns = frames[0].shape
        grid = Grid((columns, rows, len(frames)), affine_ras(frames[0].position, x, y, frames[0].spacing, step, label))
        return Scan(_values(files, headers, frames, grid, label), grid)


def _values(
    files: Sequence[Path], headers: Sequence[Dataset], frames: Sequence[_Frame], grid: Grid, label: str
) -> NDArray[np.float32]:
    """Return the scaled values of all planes, float32 of shape ``grid.shape``, one file in memory at a time."""
    voxels = int(np.prod(grid.shape, dtype=object))
    if voxels > MAX_VOXELS or 4 * voxels > MAX_BYTES:
        raise InputError(f"{label}: expected at most {min(MAX_VOXELS, MAX_BYTES // 4)} voxels, got shape {grid.shape}.")
    values = np.empty(grid.shape, np.float32, order="F")
    planes: dict[int, list[int]] = {}
    for k, frame in enumerate(frames):
        planes.setdefault(frame.file, []).append(k)
    for file, indices in planes.items():
        stored = pixels(files[file], headers[file], label=label)
        for k in indices:
            slope, intercept = frames[k].scaling
            values[:, :, k] = slope * stored[frames[k].index].T.astype(np.float64) + intercept
    if not np.isfinite(values).all():
        raise InputError(f"{label}: expected finite values after rescaling, got others. Slope or intercept are wrong.")
    return values


def _frames(header: Dataset, file: int, label: str) -> Iterator[_Frame]:
    """Yield the planes of one file."""
    count, rows, columns = frame_shape(header, label)
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    if "MOSAIC" in text(header, "ImageType"):
        raise InputError(f"{label}: expected one plane in each image, got a mosaic. Export it as multi-frame images.")
    if count > 1 and len(per_frame) != count:
        raise InputError(f"{label}: expected the position of each of {count} frames, got {len(per_frame)}.")
    if text(header, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{label}: expected grey images, got another photometric interpretation.")
    for index in range(count):
        place = _Place(header, per_frame[index] if per_frame else None)
        spacing = numbers(place.of("PixelMeasuresSequence", "PixelSpacing"), "PixelSpacing", 2, label)
        scaling = place.of("PixelValueTransformationSequence", "RescaleSlope")
        slope = number(scaling, "RescaleSlope", label, 1)
        if slope == 0:
            raise InputError(f"{label}: expected a rescale slope that is not 0.")
        yield _Frame(
            file,
            index,
            numbers(place.of("PlanePositionSequence", "ImagePositionPatient"), "ImagePositionPatient", 3, label),
            numbers(
                place.of("PlaneOrientationSequence", "ImageOrientationPatient"), "ImageOrientationPatient", 6, label
            ),
            check_spacing(spacing, label),
            _thickness(place, label),
            (slope, number(scaling, "RescaleIntercept", label, 0)),
            (rows, columns),
        )


@dataclass(frozen=True)
class _Place:
    """Where the attributes of one frame are: in its own group, in the shared one, or in the image itself."""

    header: Dataset
    own: Dataset | None

    def of(self, group: str, keyword: str) -> Dataset:
        """Return the data set that holds a tag of a functional group."""
        shared = self.header.get("SharedFunctionalGroupsSequence") or []
        for item in (self.own, *shared[:1]):
            for macro in (item.get(group) or [])[:1] if item is not None else []:
                if keyword in macro:
                    return macro
        return self.header


def _thickness(place: _Place, label: str) -> float:
    """Return the thickness of a plane, mm; 0 when it is not stated."""
    return number(place.of("PixelMeasuresSequence", "SliceThickness"), "SliceThickness", label, 0)


def _check_alike(frames: Sequence[_Frame], label: str) -> None:
    """Refuse planes that cannot be of one volume."""
    first = frames[0]
    for frame in frames:
        if np.abs(frame.orientation - first.orientation).max() > 1e-3:
            raise InputError(
                f"{label}: expected planes of one orientation, got several (a localizer?). Leave the series out or"
                " separate it."
            )
        if frame.shape != first.shape or np.abs(frame.spacing / first.spacing - 1).max() > 1e-3:
            raise InputError(f"{label}: expected planes of one extent and pixel spacing, got several.")


def _step(frames: Sequence[_Frame], normal: Vector, label: str) -> Vector:
    """Return the step between planes, LPS, mm; a single plane is as thick as it says."""
    if len(frames) > 1:
        return even_step(np.array([frame.position for frame in frames]), normal, label)
    if frames[0].thickness <= 0:
        raise InputError(f"{label}: expected several planes, or one with its SliceThickness, got one without.")
    return frames[0].thickness * normal
