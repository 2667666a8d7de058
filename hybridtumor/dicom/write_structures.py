"""Masks as an RTSTRUCT: closed planar contours (`hybridtumor.dicom.write_contours`), slice by slice on an image series.

The file is little endian with implicit types, since an explicit type leaves a contour no more than 65534 bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from hybridtumor.dicom.write_contours import outlines
from hybridtumor.dicom.write_geometry import Frames
from hybridtumor.dicom.writing import RESEARCH_USE, Series, date_and_time, items, new_dataset, reference, write_dataset
from hybridtumor.grid import BoolArray, Grid

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: what a structure set calls the study it refers to."""

COLOURS = (
    (230, 75, 53),
    (77, 187, 213),
    (0, 160, 135),
    (60, 84, 136),
    (243, 155, 127),
    (132, 145, 180),
    (145, 209, 194),
)
"""Of the structures, in turn; RGB."""


def write_structures(
    masks: Mapping[str, BoolArray], grid: Grid, images: Sequence[FileDataset], series: Series, path: Path
) -> FileDataset:
    """Write a structure set.

    Parameters
    ----------
    masks
        Name to voxels, shape ``grid.shape``; an empty mask becomes a structure without contours.
    images
        The series on the same grid that `hybridtumor.dicom.write_images` wrote: contours point to its slices.

    Raises
    ------
    InputError
        The voxel axes are not at right angles.
    """
    frames = Frames.of(grid)
    data = new_dataset(RTStructureSetStorage, series, "RTSTRUCT", syntax=ImplicitVRLittleEndian)
    data.OperatorsName = ""
    data.StructureSetLabel = "hybridtumor"
    data.StructureSetName = series.label[:64]
    data.StructureSetDescription = f"{series.notice}. {series.about}. {RESEARCH_USE}"
    data.StructureSetDate, data.StructureSetTime = date_and_time(series.day)
    data.ApprovalStatus = "UNAPPROVED"
    data.ReferencedFrameOfReferenceSequence = _frame_of_reference(images)
    data.StructureSetROISequence = items(
        *(_structure(number, name, series) for number, name in enumerate(masks, start=1))
    )
    data.ROIContourSequence = [
        _contours(number, mask, frames, images) for number, mask in enumerate(masks.values(), start=1)
    ]
    data.RTROIObservationsSequence = items(
        *(
            {"ObservationNumber": n, "ReferencedROINumber": n, "RTROIInterpretedType": "", "ROIInterpreter": ""}
            for n in range(1, len(masks) + 1)
        )
    )
    write_dataset(data, path)
    return data


def _frame_of_reference(images: Sequence[FileDataset]) -> list[Dataset]:
    """Return the frame of reference, and in it study, series and slices that the contours are drawn on."""
    first = images[0]
    slices = [reference(image)[0] for image in images]
    series = items({"SeriesInstanceUID": first.SeriesInstanceUID, "ContourImageSequence": slices})
    study = {
        "ReferencedSOPClassUID": STUDY_CLASS,
        "ReferencedSOPInstanceUID": first.StudyInstanceUID,
        "RTReferencedSeriesSequence": series,
    }
    return items({"FrameOfReferenceUID": first.FrameOfReferenceUID, "RTReferencedStudySequence": items(study)})


def _structure(number: int, name: str, series: Series) -> dict[str, object]:
    return {
        "ROINumber": number,
        "ReferencedFrameOfReferenceUID": series.identity.frame,
        "ROIName": name,
        "ROIDescription": series.notice,
        "ROIGenerationAlgorithm": "AUTOMATIC" if series.synthetic else "",
    }


def _contours(number: int, mask: BoolArray, frames: Frames, images: Sequence[FileDataset]) -> Dataset:
    """Return all contours of one structure."""
    contours = []
    for index, pixels in enumerate(frames.stack(mask)):
        for polygon in outlines(pixels) if pixels.any() else ():
            contour = {
                "ContourImageSequence": reference(images[index]),
                "ContourGeometricType": "CLOSED_PLANAR",
                "NumberOfContourPoints": len(polygon),
                "ContourData": [f"{value:.4f}" for value in frames.points(polygon, index).ravel()],
            }
            contours.append(contour)
    item = {"ReferencedROINumber": number, "ROIDisplayColor": list(COLOURS[(number - 1) % len(COLOURS)])}
    return items(item | ({"ContourSequence": items(*contours)} if contours else {}))[0]
