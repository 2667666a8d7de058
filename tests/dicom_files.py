"""DICOM files that tests build: images, doses, structure sets and plans, with names of a patient in every place."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from hybridtumor.grid import Grid

CANARY = "CANARY"
FRAME = "1.2.826.0.1.3680043.8.498.777.1"
PLAN = "1.2.826.0.1.3680043.8.498.777.2"
STUDY = "1.2.826.0.1.3680043.8.498.777.3"
CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "RTPLAN": "1.2.840.10008.5.1.4.1.1.481.5",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
}
LPS = np.diag([-1.0, -1.0, 1.0])


def dataset(modality: str, series: str | None = None, **tags: object) -> Dataset:
    """A data set of one object, without its contents."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CLASSES[modality]
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality, ds.PatientName, ds.PatientID = modality, f"{CANARY}^Name", f"{CANARY}-ID"
    ds.PatientBirthDate, ds.AccessionNumber, ds.InstitutionName = "19340517", f"{CANARY}ACC", f"{CANARY} Hospital"
    ds.ReferringPhysicianName, ds.OperatorsName = f"{CANARY}^Doctor", f"{CANARY}^Operator"
    ds.StudyDescription, ds.SeriesDescription = f"{CANARY} study", f"{CANARY} series"
    ds.StudyDate, ds.StudyTime, ds.StudyID = "20230417", "101112", f"{CANARY}SID"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, series or generate_uid()
    ds.FrameOfReferenceUID = FRAME
    for key, value in tags.items():
        setattr(ds, key, value)
    return ds


def write(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def decimals(values: object) -> list[str]:
    """Numbers as a DICOM decimal string holds them: at most 16 characters."""
    return [f"{v:.9f}"[:16] for v in np.ravel(np.asarray(values, float))]


def set_pixels(ds: Dataset, stored: NDArray[np.generic]) -> None:
    """Put pixels, (frames, rows, columns) or (rows, columns), into a data set."""
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * stored.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(stored.dtype.kind == "i")
    if stored.ndim == 3:
        ds.NumberOfFrames = stored.shape[0]
    ds.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    if len(ds.PixelData) % 2:
        ds.PixelData += b"\0"
    ds["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 else "OB"


def planes(grid: Grid) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """ImageOrientationPatient, PixelSpacing and the position of each plane of a grid, (planes, 3), LPS."""
    axes = LPS @ grid.affine[:3, :3]
    size = np.linalg.norm(axes, axis=0)
    orientation = np.concatenate([axes[:, 0] / size[0], axes[:, 1] / size[1]])
    positions = LPS @ grid.affine[:3, 3] + np.arange(grid.shape[2])[:, None] * axes[:, 2]
    return decimals(orientation), decimals([size[1], size[0]]), positions


def image_series(
    folder: Path,
    stored: NDArray[np.generic],
    grid: Grid,
    modality: str = "MR",
    *,
    scaling: Sequence[tuple[float, float]] | None = None,
    seed: int = 0,
    **tags: object,
) -> list[Path]:
    """Write (column, row, plane) pixels as single-frame files, named and numbered in random order."""
    orientation, spacing, positions = planes(grid)
    order, series, paths = np.random.default_rng(seed).permutation(grid.shape[2]), generate_uid(), []
    for k in range(grid.shape[2]):
        ds = dataset(modality, series, ImageOrientationPatient=orientation, PixelSpacing=spacing, **tags)
        ds.ImagePositionPatient, ds.InstanceNumber = decimals(positions[k]), int(order[k]) + 1
        ds.SliceThickness = decimals(np.linalg.norm(grid.affine[:3, 2]))[0]
        if scaling is not None:
            ds.RescaleSlope, ds.RescaleIntercept = decimals(scaling[k])
        set_pixels(ds, np.ascontiguousarray(stored[:, :, k].T))
        paths.append(write(ds, folder / f"{CANARY}_{modality}{series[-8:]}_{order[k]:03d}.dcm"))
    return paths


def multiframe(folder: Path, stored: NDArray[np.generic], grid: Grid, slope: float = 1.0) -> Path:
    """Write the same as an enhanced MR image, frames in random order."""
    orientation, spacing, positions = planes(grid)
    order = np.random.default_rng(1).permutation(grid.shape[2])
    ds = dataset("MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1")
    shared, measures, direction, value = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, direction.ImageOrientationPatient = spacing, orientation
    value.RescaleSlope, value.RescaleIntercept = str(slope), "0"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [direction]
    shared.PixelValueTransformationSequence = [value]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], []
    for k in order:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = decimals(positions[k])
        frame.PlanePositionSequence = [place]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    set_pixels(ds, np.ascontiguousarray(stored.transpose(2, 1, 0)[order]))
    return write(ds, folder / f"{CANARY}_multiframe.dcm")


def dose_dataset(
    stored: NDArray[np.unsignedinteger],
    *,
    position: Sequence[float] = (-20.0, -30.0, 40.0),
    spacing: tuple[float, float] = (2.0, 3.0),
    offsets: Sequence[float] | None = None,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    scaling: float = 0.01,
    summation: str = "PLAN",
    beam: int | None = None,
    **tags: object,
) -> Dataset:
    """An RTDOSE; stored pixels are (frame, row, column)."""
    ds = dataset("RTDOSE", DoseUnits="GY", DoseType="PHYSICAL", DoseSummationType=summation)
    ds.ImagePositionPatient, ds.ImageOrientationPatient = decimals(position), decimals(orientation)
    ds.PixelSpacing, ds.DoseGridScaling = decimals(spacing), f"{scaling:.8g}"
    ds.GridFrameOffsetVector = decimals(4.0 * np.arange(len(stored)) if offsets is None else offsets)
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CLASSES["RTPLAN"], PLAN
    if beam is not None:
        group, one = Dataset(), Dataset()
        one.ReferencedBeamNumber = beam
        group.ReferencedFractionGroupNumber, group.ReferencedBeamSequence = 1, [one]
        reference.ReferencedFractionGroupSequence = [group]
    ds.ReferencedRTPlanSequence = [reference]
    set_pixels(ds, stored)
    for key, value in tags.items():
        setattr(ds, key, value)
    return ds


def structure_dataset(
    regions: Mapping[str, Sequence[NDArray[np.float64]]], kind: str = "CLOSED_PLANAR", frame: str = FRAME
) -> Dataset:
    """An RTSTRUCT of named regions; contours are (n, 3), RAS+, mm."""
    ds = dataset("RTSTRUCT", StructureSetLabel=f"{CANARY}SET")
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(regions.items(), 1):
        region, drawn, seen = Dataset(), Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name, frame
        region.ROIDescription = f"{CANARY} region"
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [f"{v:.5f}" for v in (points @ LPS).ravel()]
            drawn.ContourSequence.append(item)
        seen.ReferencedROINumber, seen.RTROIInterpretedType, seen.ROIInterpreter = number, "", f"{CANARY}^I"
        ds.StructureSetROISequence.append(region)
        ds.ROIContourSequence.append(drawn)
        ds.RTROIObservationsSequence.append(seen)
    return ds


def plan_dataset(
    fractions: int = 30, prescription: float | None = 60.0, beam_doses: Sequence[float] = (1.2, 0.8)
) -> Dataset:
    """An RTPLAN of one fraction group."""
    ds = dataset("RTPLAN", RTPlanLabel=f"{CANARY}PLAN", SOPInstanceUID=PLAN)
    group = Dataset()
    group.FractionGroupNumber, group.NumberOfFractionsPlanned = 1, fractions
    group.NumberOfBeams, group.NumberOfBrachyApplicationSetups = len(beam_doses), 0
    group.ReferencedBeamSequence = []
    for number, dose in enumerate(beam_doses, 1):
        beam = Dataset()
        beam.ReferencedBeamNumber, beam.BeamDose, beam.BeamMeterset = number, str(dose), "100"
        group.ReferencedBeamSequence.append(beam)
    ds.FractionGroupSequence = [group]
    if prescription is not None:
        reference = Dataset()
        reference.DoseReferenceType, reference.DoseReferenceStructureType = "TARGET", "SITE"
        reference.DoseReferenceDescription, reference.TargetPrescriptionDose = f"{CANARY} target", str(prescription)
        ds.DoseReferenceSequence = [reference]
    return ds
