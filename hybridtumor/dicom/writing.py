"""What every DICOM file that leaves here has in common: identity, UIDs, dates, modules, and a whole file or none.

Nothing is copied from any source data set; every attribute is written anew.

*Identity.* Name and number of the patient are the pseudonym. `PatientIdentityRemoved` is YES.

*Dates.* None is real: a file of day d carries 1900-01-01 plus d days. Viewers sort studies by date and the interval
between two visits is what a follow-up is about, so the interval is kept and the date is not
(`LongitudinalTemporalInformationModified` is MODIFIED).

*UIDs.* Under 2.25, from a SHA-256 of what the file holds: the same run gives the same files, byte for byte, with
the same version of hybridtumor and its libraries, and other content never travels under a UID that is taken.
"""

import datetime
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from hybridtumor.grid import Grid
from hybridtumor.patient import Patient
from hybridtumor.scan import SYNTHETIC_NOTICE, write_bytes

EPOCH = datetime.datetime(1900, 1, 1, tzinfo=datetime.UTC)
"""Dummy date of day 0."""

RESEARCH_USE = "research use only, not for treatment"
DEIDENTIFICATION = "written anew by hybridtumor; nothing copied from source files"
MAKER = "hybridtumor"
LONG_STRING = 64
"""Characters that a DICOM LO holds."""

DECIMAL_STRING = 16
"""Characters that a DICOM DS holds."""

SERIAL_NUMBER = "none"
"""No machine made these files; some information objects ask for the number all the same."""

IMPLEMENTATION = UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_DNS, MAKER).int}")


@dataclass(frozen=True)
class Identity:
    """Whose files these are: the same in all files of an export.

    Parameters
    ----------
    pseudonym
        Becomes name and number of the patient.
    study, frame
        StudyInstanceUID and FrameOfReferenceUID.
    """

    pseudonym: str
    study: str
    frame: str

    @classmethod
    def of(cls, patient: Patient) -> "Identity":
        """Return the identity of a patient: pseudonym and day-0 images decide the UIDs."""
        images = [fingerprint(scan.values, scan.grid) for scan in patient.baseline.scans.values()]
        return cls(
            patient.id,
            make_uid("study", version(), patient.id, *images),
            make_uid("frame of reference", patient.id, *images),
        )


@dataclass(frozen=True)
class Series:
    """A series to be written.

    Parameters
    ----------
    identity
        Of the export it belongs to.
    label
        What it shows, such as ``stupp day060 T1w``; the description a viewer lists.
    number
        Within the study.
    content
        Fingerprints of everything the series depends on; they decide its UIDs.
    day
        Days since the baseline scan.
    synthetic
        True when no scanner or planning system made it.
    remark
        What else has to be known of it, such as ``one of 4 samples``.
    """

    identity: Identity
    label: str
    number: int
    content: tuple[str, ...]
    day: float = 0.0
    synthetic: bool = True
    remark: str = ""

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        content = (*self.content, self.remark) if self.remark else self.content
        return make_uid("series", self.identity.study, self.label, str(self.number), str(self.day), *content)

    def instance_uid(self, number: int = 1) -> str:
        """SOPInstanceUID of the file of that number, from 1."""
        return make_uid("instance", self.uid, str(number))

    @property
    def notice(self) -> str:
        """What a reader has to know before anything else."""
        return SYNTHETIC_NOTICE if self.synthetic else "written by hybridtumor; research use only"

    @property
    def about(self) -> str:
        """The label, and the remark where there is one."""
        return f"{self.label}, {self.remark}" if self.remark else self.label

    @property
    def description(self) -> str:
        """SeriesDescription: the label, cut where it has to be, and the notice, whole."""
        room = LONG_STRING - len(self.notice) - 2
        return f"{self.label[:room].rstrip()}: {self.notice}"


def make_uid(*parts: str) -> str:
    """Return a UID under 2.25 (a UUID of version 8, RFC 9562) from the SHA-256 of the parts."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()[:16]
    number = int.from_bytes(digest) & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62)
    return f"2.25.{number}"


def fingerprint(values: NDArray[np.generic], grid: Grid) -> str:
    """Return the SHA-256 of an array and its place in the world."""
    digest = hashlib.sha256(f"{values.shape}{values.dtype.str}".encode())
    digest.update(np.ascontiguousarray(grid.affine).tobytes())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def version() -> str:
    """Return the version of hybridtumor."""
    return metadata.version("hybridtumor")


def date_and_time(day: float) -> tuple[str, str]:
    """Return the dummy date and time of a day, as DICOM writes them."""
    moment = EPOCH + datetime.timedelta(seconds=round(86400 * day))
    return moment.strftime("%Y%m%d").zfill(8), moment.strftime("%H%M%S")


def decimals(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """Write numbers as DICOM decimal strings; those below 1e-12, which are rounding, as 0."""
    return [decimal(0.0 if abs(value) < 1e-12 else float(value)) for value in values]


def decimal(value: float) -> str:
    """Write a number as a DICOM decimal string: as exact as 16 characters allow."""
    return next(text for digits in range(16, 0, -1) if len(text := f"{value:.{digits}g}") <= DECIMAL_STRING)


def new_dataset(
    sop_class: str, series: Series, modality: str, *, number: int = 1, syntax: UID = ExplicitVRLittleEndian
) -> FileDataset:
    """Return a data set with the modules that all objects share: patient, study, series, equipment, frame, SOP.

    Parameters
    ----------
    sop_class
        SOP class UID.
    number
        Of the file within its series, from 1.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(series.instance_uid(number))
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = MAKER.upper()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.InstanceNumber = modality, number
    data.SeriesInstanceUID, data.SeriesNumber = series.uid, series.number
    data.StudyInstanceUID, data.FrameOfReferenceUID = series.identity.study, series.identity.frame
    data.PositionReferenceIndicator = ""
    data.Manufacturer, data.ManufacturerModelName, data.SoftwareVersions = MAKER, MAKER, version()
    add_identity(data, series)
    return data


def add_identity(data: Dataset, series: Series) -> None:
    """Fill in who, when and what kind of file this is; also over what a library has filled in."""
    pseudonym, (date, time) = series.identity.pseudonym, date_and_time(series.day)
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientID = pseudonym
    data.PatientName = pseudonym.translate({ord(mark): "_" for mark in "^="})  # they part a name's components
    data.PatientBirthDate, data.PatientSex = "", ""
    data.PatientIdentityRemoved, data.DeidentificationMethod = "YES", DEIDENTIFICATION
    data.LongitudinalTemporalInformationModified = "MODIFIED"
    data.StudyDate, data.StudyTime = date_and_time(0)
    data.SeriesDate, data.SeriesTime = date, time
    data.InstanceCreationDate, data.InstanceCreationTime = date, time
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
    data.StudyDescription = f"hybridtumor: {RESEARCH_USE}"
    data.SeriesDescription = series.description


def items(*contents: Mapping[str, object]) -> list[Dataset]:
    """Return the items of a sequence, one for each mapping of keyword to value."""
    made = []
    for content in contents:
        item = Dataset()
        for keyword, value in content.items():
            setattr(item, keyword, value)
        made.append(item)
    return made


def reference(data: Dataset) -> list[Dataset]:
    """Return a sequence of one item that points to a data set."""
    return items({"ReferencedSOPClassUID": data.SOPClassUID, "ReferencedSOPInstanceUID": data.SOPInstanceUID})


def write_dataset(data: Dataset, path: Path) -> None:
    """Write a DICOM file, whole or not at all."""
    buffer = BytesIO()
    dcmwrite(buffer, data, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())
