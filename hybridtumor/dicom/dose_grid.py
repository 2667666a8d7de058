"""One RTDOSE file: dose = pixel · DoseGridScaling, Gy, and where its frames lie.

RescaleSlope and RescaleIntercept have no meaning in an RTDOSE and are ignored. Frames lie at GridFrameOffsetVector:
offsets along the normal from ImagePositionPatient when the first is 0, z coordinates when the first is the z of
ImagePositionPatient (DICOM PS3.3, C.8.8.3.2). Offsets may descend.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

from hybridtumor.dicom.geometry import ROUNDING, Vector, affine_ras, check_spacing, even_step, plane_axes
from hybridtumor.dicom.reading import frame_shape, pixels
from hybridtumor.dicom.values import Dataset, guarded, number, numbers
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.scan import MAX_BYTES, MAX_VOXELS
from hybridtumor.therapy import DoseMap

LABEL = "dose"


def dose_of_file(path: Path, header: Dataset) -> DoseMap:
    """Return the dose of one RTDOSE file on its own grid, RAS+.

    Raises
    ------
    InputError
        One plane alone, planes unevenly spaced, offsets or a scaling that cannot be.
    """
    with guarded(LABEL):
        grid = dose_grid(header)
        scaling = number(header, "DoseGridScaling", LABEL)
        if scaling <= 0:
            raise InputError(f"{LABEL}: expected a positive DoseGridScaling, got {scaling:g}.")
        if 4 * int(np.prod(grid.shape, dtype=object)) > min(MAX_BYTES, 4 * MAX_VOXELS):
            raise InputError(f"{LABEL}: expected at most {MAX_BYTES // 4} voxels, got shape {grid.shape}.")
        stored = pixels(path, header, label=LABEL)
        values = np.empty(grid.shape, np.float32, order="F")
        for k, plane in enumerate(stored):
            values[:, :, k] = plane.T * scaling
        return DoseMap(values, grid)


def dose_grid(header: Dataset) -> Grid:
    """Return the grid of an RTDOSE, RAS+; arrays are (column, row, frame)."""
    frames, rows, columns = frame_shape(header, LABEL)
    position = numbers(header, "ImagePositionPatient", 3, LABEL)
    x, y, normal = plane_axes(numbers(header, "ImageOrientationPatient", 6, LABEL), LABEL)
    spacing = check_spacing(numbers(header, "PixelSpacing", 2, LABEL), LABEL)
    if frames == 1:
        raise InputError(f"{LABEL}: expected a dose in three dimensions, got one plane. Export the dose of the volume.")
    offsets = numbers(header, "GridFrameOffsetVector", frames, LABEL)
    positions = _positions(position, normal, offsets)
    descending = (positions[1] - positions[0]) @ normal < 0
    step = even_step(positions, -normal if descending else normal, LABEL)
    return Grid((columns, rows, frames), affine_ras(positions[0], x, y, spacing, step, LABEL))


def _positions(position: Vector, normal: Vector, offsets: Vector) -> Vector:
    """Return the position of every frame, (frames, 3), LPS."""
    if any(a == b for a, b in pairwise(offsets)):
        raise InputError(f"{LABEL}: expected GridFrameOffsetVector of different planes, got one twice.")
    if offsets[0] == 0:
        return np.asarray(position + offsets[:, None] * normal)
    if abs(offsets[0] - position[2]) > ROUNDING or abs(abs(normal[2]) - 1) > 1e-6:
        raise InputError(
            f"{LABEL}: expected GridFrameOffsetVector that starts with 0, or in axial planes with the z of"
            f" ImagePositionPatient, got {offsets[0]:g}."
        )
    positions = np.tile(position, (len(offsets), 1))
    positions[:, 2] = offsets
    return positions
