"""A scan as a DICOM series: MR or CT Image Storage, one file per slice, 16 bits with a rescale for the whole series.

    value = RescaleSlope × stored + RescaleIntercept

The slope is 1 where the values are whole numbers that fit; else the range of the series over 65535, so that a value is
off by half a slope at most. All images are derived and secondary: whatever they were before, they have been through a
patient folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import CTImageStorage, MRImageStorage

from hybridtumor.dicom.write_geometry import Frames
from hybridtumor.dicom.writing import (
    RESEARCH_USE,
    Series,
    add_identity,
    date_and_time,
    decimal,
    decimals,
    new_dataset,
    write_dataset,
)
from hybridtumor.scan import Scan

LARGEST = 2**16 - 1


@dataclass(frozen=True)
class Kind:
    """The storage class of a scan, and what that class wants to know."""

    storage: str
    modality: str
    facts: Mapping[str, object]


_RESEARCH_SEQUENCE = {
    "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
    "ScanningSequence": "RM",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "",
    "RepetitionTime": None,
    "EchoTime": None,
    "EchoTrainLength": None,
}
_CT = {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "KVP": None, "AcquisitionNumber": None, "RescaleType": "HU"}
_MR = Kind(MRImageStorage, "MR", _RESEARCH_SEQUENCE)

KINDS: Mapping[str, Kind] = dict.fromkeys(("T1w", "T1ce", "T2w", "FLAIR", "ADC"), _MR) | {
    "CT": Kind(CTImageStorage, "CT", _CT)
}
"""What scan becomes what; of a PET too little is known for its storage class (tracer, dose, decay)."""


def write_images(scan: Scan, name: str, series: Series, folder: Path) -> list[FileDataset]:
    """Write a scan as ``NNNN.dcm`` files, in the order of their position along the frames' normal.

    Parameters
    ----------
    name
        What is shown: a key of `KINDS`.
    series
        What it is called and numbered.
    folder
        Of this series alone.

    Returns
    -------
    The data sets without their pixels, for others to point to.

    Raises
    ------
    InputError
        The voxel axes are not at right angles.
    """
    frames = Frames.of(scan.grid)
    slope, intercept = rescale(scan.values)
    stored = np.rint((frames.stack(scan.values).astype(np.float64) - float(intercept)) / float(slope))
    shared = _shared(scan, name, series, frames)
    shared.RescaleSlope, shared.RescaleIntercept = slope, intercept
    written = []
    for index, pixels in enumerate(stored.astype("<u2")):
        data = _slice(shared, KINDS[name], series, frames, index)
        data.PixelData = pixels.tobytes()
        write_dataset(data, folder / f"{index + 1:04d}.dcm")
        del data.PixelData
        written.append(data)
    return written


def rescale(values: NDArray[np.float32]) -> tuple[str, str]:
    """Return slope and intercept, as the decimal strings that are written, for which every value fits 16 bits."""
    low, high = float(values.min()), float(values.max())
    if high - low <= LARGEST and abs(low) < 2**24 and (values == np.rint(values)).all():
        return "1", decimal(low)
    intercept = decimal(low)
    spread = max(high - float(intercept), 1e-6 * max(abs(low), 1e-30))
    return decimal(spread / (LARGEST - 1)), intercept  # one step is left for the rounding of the text


def _shared(scan: Scan, name: str, series: Series, frames: Frames) -> Dataset:
    """Return the attributes that are the same in all slices."""
    data = Dataset()
    for keyword, value in KINDS[name].facts.items():
        setattr(data, keyword, value)
    data.ProtocolName = name
    data.DerivationDescription = f"{series.notice}; {series.about}"
    data.ImageComments = f"{series.notice}. {series.about}. {RESEARCH_USE}"
    data.BurnedInAnnotation = "NO"
    data.BodyPartExamined = "BRAIN"
    data.PatientPosition = "HFS"  # asked for; no reader derives geometry from it when the orientation is given
    data.PatientOrientation = ""
    data.ImageOrientationPatient = decimals(frames.orientation)
    data.PixelSpacing = decimals(frames.pixel_spacing)
    data.SliceThickness = decimals(frames.spacing[2:])[0]
    data.Columns, data.Rows = frames.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    low, high = np.percentile(scan.values, (1, 99.5))
    data.WindowCenter, data.WindowWidth = decimals([(low + high) / 2, max(high - low, 1.0)])
    return data


def _slice(shared: Dataset, kind: Kind, series: Series, frames: Frames, index: int) -> FileDataset:
    """Return the data set of one slice, without pixels."""
    data = new_dataset(kind.storage, series, kind.modality, number=index + 1)
    data.update(shared)
    data.AcquisitionDate, data.AcquisitionTime = date_and_time(series.day)
    data.ContentDate, data.ContentTime = date_and_time(series.day)
    data.ImagePositionPatient = decimals(frames.position(index))
    data.SliceLocation = decimals([index * frames.spacing[2]])[0]
    if kind.modality == "MR":
        data.SpacingBetweenSlices = shared.SliceThickness
    add_identity(data, series)
    return data
