"""A set of DICOM files that belong together: numbered series of one patient, each with a row that says what it is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydicom.dataset import FileDataset

from hybridtumor.dicom import write_images, write_plan
from hybridtumor.dicom.write_dose import Bits, write_dose
from hybridtumor.dicom.write_segmentation import write_segmentation
from hybridtumor.dicom.write_structures import write_structures
from hybridtumor.dicom.writing import Identity, Series, fingerprint
from hybridtumor.follow_up import told
from hybridtumor.grid import BoolArray
from hybridtumor.patient import Visit
from hybridtumor.rundir import day_label
from hybridtumor.scan import LABELS, write_bytes
from hybridtumor.therapy import DoseMap, Fractionation

INDEX = "export.json"

DRAWN_ON = ("T1ce", "T1w", "FLAIR", "T2w", "ADC", "CT")
"""Segmentations and contours point to the first of these series that there is."""


@dataclass(frozen=True)
class Written:
    """One row: a series of files, or why there is none.

    Parameters
    ----------
    kind
        MR, CT, SEG, RTSTRUCT, RTDOSE or RTPLAN; ``-`` for what was left out.
    label
        What it shows.
    file
        File or folder below the export's, with ``/``; empty for what was left out.
    files
        How many.
    note
        Why it was left out.
    """

    kind: str
    label: str
    file: str = ""
    files: int = 0
    note: str = ""


@dataclass
class FileSet:
    """An export on its way; the one mutable thing here, kept equal to ``export.json`` by `save_index`.

    Attributes
    ----------
    out
        Its folder.
    identity
        Whose files these are.
    dose_bits
        Of a stored dose.
    rows
        What has been written.
    structures
        The first structure set, that of day 0: plans point to it.
    """

    out: Path
    identity: Identity
    dose_bits: Bits = 16
    rows: list[Written] = field(default_factory=list)
    structures: FileDataset | None = None
    last_number: int = 0

    def add_visit(
        self,
        folder: Path,
        prefix: str,
        visit: Visit,
        structures: Mapping[str, BoolArray],
        *,
        synthetic: bool,
        samples: int | None = None,
    ) -> None:
        """Write the images of a day, its segmentation, and contours of this and of `structures`.

        `samples` is the size of the ensemble that images and segmentation come from; None where there is none.
        """
        stem = f"{prefix}{day_label(visit.day)}"
        image, mean = ("", "") if samples is None else (told("sample", samples), told("mean", samples))
        made = {name: self._images(folder, stem, name, visit, image, synthetic=synthetic) for name in visit.scans}
        images = next((made[name] for name in DRAWN_ON if made.get(name)), None)
        masks = {} if visit.labels is None else {name: visit.labels.mask(name) for name in LABELS}
        drawn = {name: mask for name, mask in (masks | dict(structures)).items() if mask.any()}
        if drawn and images is None:
            self.leave_out(f"{stem} segmentation", "there is no image series to point to")
        elif drawn and images is not None:
            self._segmentation(folder, stem, visit, images, mean, synthetic=synthetic)
            self._contours(folder, stem, visit, drawn, images, mean, synthetic=synthetic)

    def add_dose(
        self, folder: Path, prefix: str, dose: DoseMap, courses: Sequence[Fractionation], *, synthetic: bool
    ) -> None:
        """Write a dose, and before it the plan it belongs to."""
        content = [*write_plan.content_of(courses), fingerprint(dose.values, dose.grid)]
        content += [] if self.structures is None else [self.structures.SOPInstanceUID]
        series = self._series(f"{prefix}plan", content, 0, synthetic=synthetic)
        plan = write_plan.write_plan(courses, series, folder / "plan.dcm", structures=self.structures)
        self._add("RTPLAN", series, folder / "plan.dcm")
        series = self._series(f"{prefix}dose", [*content, f"{self.dose_bits} bits"], 0, synthetic=synthetic)
        write_dose(dose, plan, series, folder / "dose.dcm", bits=self.dose_bits)
        self._add("RTDOSE", series, folder / "dose.dcm")

    def leave_out(self, label: str, why: str) -> None:
        """Record what was not written."""
        self.rows.append(Written("-", label, note=why))

    def save_index(self, *, finished: bool) -> None:
        """Write ``export.json``."""
        content = {"schema_version": 1, "finished": finished, "written": [asdict(row) for row in self.rows]}
        write_bytes(self.out / INDEX, (json.dumps(content, indent=1) + "\n").encode())

    def _images(
        self, folder: Path, stem: str, name: str, visit: Visit, remark: str, *, synthetic: bool
    ) -> list[FileDataset]:
        """Write one scan, if there is a storage class for it."""
        label, path, scan = f"{stem} {name}", folder / f"{day_label(visit.day)}_{name}", visit.scans[name]
        if name not in write_images.KINDS:
            self.leave_out(label, f"no DICOM storage class for {name} can be filled from what is known of it")
            return []
        content = [fingerprint(scan.values, scan.grid)]
        series = self._series(label, content, visit.day, synthetic=synthetic, remark=remark)
        written = write_images.write_images(scan, name, series, path)
        self._add(write_images.KINDS[name].modality, series, path, len(written))
        return written

    def _segmentation(
        self, folder: Path, stem: str, visit: Visit, images: Sequence[FileDataset], remark: str, *, synthetic: bool
    ) -> None:
        if visit.labels is None or not visit.labels.mask().any():
            return
        content = [fingerprint(visit.labels.values, visit.labels.grid), str(images[0].SeriesInstanceUID)]
        content += [f"{name} {code}" for name, code in visit.labels.codes.items()]
        series = self._series(f"{stem} segmentation", content, visit.day, synthetic=synthetic, remark=remark)
        path = folder / f"{day_label(visit.day)}_seg.dcm"
        write_segmentation(visit.labels, images, series, path)
        self._add("SEG", series, path)

    def _contours(
        self,
        folder: Path,
        stem: str,
        visit: Visit,
        masks: Mapping[str, BoolArray],
        images: Sequence[FileDataset],
        remark: str,
        *,
        synthetic: bool,
    ) -> None:
        grid = next(iter(visit.scans.values())).grid
        content = [f"{name} {fingerprint(mask, grid)}" for name, mask in masks.items()]
        content += [str(images[0].SeriesInstanceUID)]
        series = self._series(f"{stem} contours", content, visit.day, synthetic=synthetic, remark=remark)
        path = folder / f"{day_label(visit.day)}_structures.dcm"
        written = write_structures(masks, grid, images, series, path)
        self.structures = written if self.structures is None else self.structures
        self._add("RTSTRUCT", series, path)

    def _series(self, label: str, content: Sequence[str], day: float, *, synthetic: bool, remark: str = "") -> Series:
        """Return the next series of the study."""
        self.last_number += 1
        return Series(self.identity, label, self.last_number, tuple(content), day, synthetic, remark)

    def _add(self, kind: str, series: Series, path: Path, files: int = 1) -> None:
        """Record what was written."""
        self.rows.append(Written(kind, series.label, path.relative_to(self.out).as_posix(), files))
