"""A dose map as RTDOSE: Gy, physical, of a whole plan.

    dose = stored × DoseGridScaling,     DoseGridScaling = maximum / largest stored value

32 bits, unsigned, the upper half left empty, so that a reader that takes them for signed ones is right too: a value is
off by 2.4e-10 of the maximum. 16 bits for software that reads no others (the validator dciodvfy of Debian 12 stops at
32): a value is off by 7.7e-6 of the maximum, 0.5 mGy of 60 Gy.

Frame f lies GridFrameOffsetVector[f] mm along the frames' normal from the first one, ascending from 0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.tag import Tag
from pydicom.uid import RTDoseStorage

from hybridtumor.dicom.write_geometry import Frames
from hybridtumor.dicom.writing import (
    Series,
    date_and_time,
    decimal,
    decimals,
    new_dataset,
    reference,
    write_dataset,
)
from hybridtumor.therapy import DoseMap

Bits = Literal[16, 32]

LARGEST: Mapping[int, int] = {16: 2**16 - 2, 32: 2**31 - 2}
"""Bits to the largest stored value; one step is left for the rounding of the scaling as text."""


def write_dose(dose: DoseMap, plan: FileDataset, series: Series, path: Path, *, bits: Bits = 32) -> FileDataset:
    """Write a dose map.

    Parameters
    ----------
    plan
        The RTPLAN the dose belongs to: the dose of a plan has to name it.
    bits
        Of a stored value.

    Returns
    -------
    The data set without its pixels.

    Raises
    ------
    InputError
        The voxel axes are not at right angles.
    """
    frames = Frames.of(dose.grid)
    data = new_dataset(RTDoseStorage, series, "RTDOSE")
    data.OperatorsName = ""
    data.ContentDate, data.ContentTime = date_and_time(series.day)
    _place(data, frames, bits)
    scaling = decimal(max(float(dose.values.max(initial=0.0)), 1e-6) / LARGEST[bits])
    data.DoseGridScaling = scaling
    data.DoseUnits, data.DoseType, data.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    data.DoseComment = series.notice
    data.ReferencedRTPlanSequence = reference(plan)
    stored = np.rint(frames.stack(dose.values).astype(np.float64) / float(scaling))
    data.PixelData = stored.astype(f"<u{bits // 8}").tobytes()
    write_dataset(data, path)
    del data.PixelData
    return data


def _place(data: FileDataset, frames: Frames, bits: Bits) -> None:
    """Fill in where the frames lie and how their pixels are stored."""
    data.ImagePositionPatient = decimals(frames.origin)
    data.ImageOrientationPatient = decimals(frames.orientation)
    data.PixelSpacing = decimals(frames.pixel_spacing)
    data.SliceThickness = decimals(frames.spacing[2:])[0]
    data.Columns, data.Rows, data.NumberOfFrames = frames.shape
    data.FrameIncrementPointer = Tag("GridFrameOffsetVector")
    data.GridFrameOffsetVector = decimals(np.arange(frames.shape[2]) * frames.spacing[2])
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
