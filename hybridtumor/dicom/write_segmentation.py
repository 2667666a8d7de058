"""A segmentation as DICOM SEG: one bit per voxel and label, with coded meanings, by highdicom.

Necrosis and oedema are SNOMED CT's own words. For enhancing tumour there is none; it is coded as the primary neoplasm
and its label says which part.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from hybridtumor.dicom.write_geometry import Frames
from hybridtumor.dicom.writing import (
    IMPLEMENTATION,
    MAKER,
    SERIAL_NUMBER,
    Series,
    add_identity,
    date_and_time,
    make_uid,
    version,
    write_dataset,
)
from hybridtumor.scan import LABELS, LabelMap

CATEGORY = Code("49755003", "SCT", "Morphologically Altered Structure")

MEANINGS: Mapping[str, tuple[str, Code]] = {
    "necrosis": ("necrosis", codes.SCT.Necrosis),
    "edema": ("oedema", codes.SCT.Edema),
    "enhancing": ("enhancing lesion", codes.SCT.NeoplasmPrimary),
}
"""Label to the segment's name and its SNOMED CT code."""


def write_segmentation(labels: LabelMap, images: Sequence[FileDataset], series: Series, path: Path) -> FileDataset:
    """Write the labels that are present, one segment each, in the order of `hybridtumor.scan.LABELS`.

    Parameters
    ----------
    images
        The series on the same grid that `hybridtumor.dicom.write_images` wrote.

    Raises
    ------
    InputError
        The voxel axes are not at right angles.
    """
    names = [name for name in LABELS if labels.mask(name).any()]
    frames = Frames.of(labels.grid)
    pixels = np.stack([frames.stack(labels.mask(name)) for name in names], axis=-1).astype(np.uint8)
    with warnings.catch_warnings():  # a pseudonym has no family name and given name
        warnings.filterwarnings("ignore", message=".*unlikely to represent the intended person name")
        data = _object(pixels, names, images, series)
    _settle(data, series)
    write_dataset(data, path)
    return data


def _object(
    pixels: NDArray[np.uint8], names: Sequence[str], images: Sequence[FileDataset], series: Series
) -> Segmentation:
    """Return the segmentation as highdicom builds it: pixels are (frames, rows, columns, segments)."""
    return Segmentation(
        source_images=list(images),
        pixel_array=pixels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, name, series) for number, name in enumerate(names, start=1)],
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uid=series.instance_uid(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=version(),
        device_serial_number=SERIAL_NUMBER,
        content_label="TUMOUR",
        content_description=series.notice,
        content_creator_name="",
        series_description=series.description,
    )


def _segment(number: int, name: str, series: Series) -> SegmentDescription:
    label, code = MEANINGS[name]
    if series.synthetic:
        how, author = SegmentAlgorithmTypeValues.AUTOMATIC, MAKER
    else:  # a person or a program made it before it came here; DICOM asks for one word
        how, author = SegmentAlgorithmTypeValues.SEMIAUTOMATIC, "unknown: segmentation as it was handed in"
    algorithm = AlgorithmIdentificationSequence(author, codes.DCM.ArtificialIntelligence, version())
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=CATEGORY,
        segmented_property_type=code,
        algorithm_type=how,
        algorithm_identification=algorithm,
        anatomic_regions=[codes.SCT.Brain],
    )


def _settle(data: Segmentation, series: Series) -> None:
    """Put dummy dates for the clock's, and UIDs made from the content for random ones."""
    add_identity(data, series)
    data.ContentDate, data.ContentTime = date_and_time(series.day)
    data.file_meta.ImplementationClassUID, data.file_meta.ImplementationVersionName = IMPLEMENTATION, MAKER.upper()
    for contribution in data.get("ContributingEquipmentSequence", ()):  # highdicom's own mark
        contribution.ContributionDateTime = "".join(date_and_time(series.day))
    organisation = make_uid("dimensions", series.uid)
    for sequence in (data.DimensionOrganizationSequence, data.DimensionIndexSequence):
        for item in sequence:
            item.DimensionOrganizationUID = organisation
