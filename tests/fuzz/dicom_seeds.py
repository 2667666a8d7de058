"""Sound DICOM objects to be damaged: images, dose, structures and plans, in several transfer syntaxes."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "RTPLAN": "1.2.840.10008.5.1.4.1.1.481.5",
}
SECRETS = ("Doe", "0815", "20240301")
"""Who the patient is, in every object, and when they were there."""


def _file(modality: str, **values: Any) -> FileDataset:
    """An object with what every object has."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(CLASSES[modality]), UID("1.2.3.4.5")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    found.SOPClassUID, found.SOPInstanceUID, found.Modality = CLASSES[modality], "1.2.3.4.5", modality
    found.StudyInstanceUID, found.SeriesInstanceUID, found.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.9"
    found.PatientName, found.PatientID, found.StudyDate, found.SeriesNumber = "Doe^Jane", "0815", "20240301", 3
    return _with(found, **values)


def _with(dataset: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def _item(**values: Any) -> Dataset:
    return _with(Dataset(), **values)  # type: ignore[no-any-return]


def _picture(bits: int, frames: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    values = rng.integers(0, 2**15, (frames, 11, 12)).astype(f"<u{bits // 8}")
    return {
        "Rows": 11,
        "Columns": 12,
        "PixelSpacing": [2.0, 2.5],
        "ImagePositionPatient": [-12.0, -11.0, -9.0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SliceThickness": 3.0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": values.tobytes(),
    }


def _structures() -> FileDataset:
    turn = np.linspace(0, 2 * np.pi, 17)[:-1]
    rings = [np.column_stack([9 * np.cos(turn), 9 * np.sin(turn), np.full(16, z)]) for z in (-3.0, 0.0, 3.0)]
    contours = [
        _item(
            ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=16, ContourData=[f"{v:.3f}" for v in r.ravel()]
        )
        for r in rings
    ]
    return _file(
        "RTSTRUCT",
        StructureSetLabel="a",
        ReferencedFrameOfReferenceSequence=Sequence([_item(FrameOfReferenceUID="1.2.9")]),
        StructureSetROISequence=Sequence(
            [_item(ROINumber=1, ReferencedFrameOfReferenceUID="1.2.9", ROIName="Brainstem")]
        ),
        ROIContourSequence=Sequence([_item(ReferencedROINumber=1, ContourSequence=Sequence(contours))]),
        RTROIObservationsSequence=Sequence([_item(ReferencedROINumber=1, RTROIInterpretedType="ORGAN")]),
    )


def _plan() -> FileDataset:
    beams = [_item(ReferencedBeamNumber=n, BeamDose=1.0, BeamMeterset=100.0) for n in (1, 2)]
    group = _item(
        FractionGroupNumber=1, NumberOfFractionsPlanned=30, NumberOfBeams=2, NumberOfBrachyApplicationSetups=0
    )
    group.ReferencedBeamSequence = Sequence(beams)
    target = _item(DoseReferenceType="TARGET", DoseReferenceStructureType="VOLUME", TargetPrescriptionDose=60.0)
    return _file("RTPLAN", FractionGroupSequence=Sequence([group]), DoseReferenceSequence=Sequence([target]))


def seeds() -> list[FileDataset]:
    """One or two objects of every modality."""
    offsets = [0.0, 3.0, 6.0, 9.0]
    dose = {"DoseUnits": "GY", "DoseType": "PHYSICAL", "DoseSummationType": "PLAN", "DoseGridScaling": 1e-3}
    dose |= {"GridFrameOffsetVector": offsets, "NumberOfFrames": 4, "FrameIncrementPointer": 0x3004000C}
    packed = _file("CT", **_picture(16), RescaleSlope=1, RescaleIntercept=-1024)
    packed.compress(RLELossless)
    whole = _file("MR", **_picture(16, 4), NumberOfFrames=4)
    frames = [_item(PlanePositionSequence=Sequence([_item(ImagePositionPatient=[-12.0, -11.0, z])])) for z in offsets]
    whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
    whole.SharedFunctionalGroupsSequence = Sequence(
        [
            _item(
                PlaneOrientationSequence=Sequence([_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]),
                PixelMeasuresSequence=Sequence([_item(PixelSpacing=[2.0, 2.5], SliceThickness=3.0)]),
            )
        ]
    )
    found = [
        _file("RTDOSE", **_picture(32, 4), **dose),
        _file("RTDOSE", **_picture(16, 4), **dose),
        _file("CT", **_picture(16), RescaleSlope=1, RescaleIntercept=-1024),
        _file("MR", **_picture(16)),
        packed,
        whole,
        _structures(),
        _plan(),
    ]
    for index, syntax in ((1, ImplicitVRLittleEndian), (7, ImplicitVRLittleEndian)):
        found[index].file_meta.TransferSyntaxUID = syntax
    return found


def in_file(dataset: FileDataset) -> bytes:
    """The file of an object."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
