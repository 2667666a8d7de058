"""Patient folders: ``patient.yaml`` beside NIfTI files; BraTS folders are understood as they are.

::

    schema_version: 1
    id: "007"
    synthetic: false
    visits:                          # in order of time; the first is the baseline, day 0
      - day: 0                       # or date: 2024-03-01, in every visit
        scans: {T1w: t1.nii.gz, T1ce: t1ce.nii.gz, T2w: t2.nii.gz, FLAIR: flair.nii.gz}
        labels: {file: seg.nii.gz, convention: brats2021}
    tissue: {white: white.nii.gz, grey: grey.nii.gz, csf: csf.nii.gz}      # optional, as all that follows
    density: density.nii.gz
    dose: {file: dose.nii.gz, unit: Gy}
    diffusion_tensor: {file: tensor.nii.gz, order: mrtrix}        # hybridtumor.diffusion_tensor; fitted from DWI
    structures: {Brainstem: brainstem.nii.gz, OpticChiasm: chiasm.nii.gz}      # masks, 0 and 1
    oxygen: {file: po2.nii.gz, unit: mmHg}
    radiosensitivity: sensitivity.nii.gz                          # factor on α and β

Everything is brought to the grid of one baseline scan, T1w if there is one, else the next in `SCAN_NAMES`: an image
on another grid is resampled by its affine (labels to the nearest voxel) when its field of view holds `MIN_OVERLAP` of
the brain, and refused otherwise.
"""

import datetime
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError, field_validator
from pydantic_core import ErrorDetails

from hybridtumor import units
from hybridtumor.bids import is_bids_subject, load_bids
from hybridtumor.brats import is_brats_folder, load_brats, require_part
from hybridtumor.diffusion_tensor import Axes, DiffusionTensor, Order
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray, Grid, resample
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import STRUCTURE_NAME, Patient, Visit
from hybridtumor.scan import LABEL_CONVENTIONS, SYNTHETIC_NOTICE, LabelMap, Scan, write_bytes, write_nifti
from hybridtumor.therapy import DoseMap
from hybridtumor.tissue import TissueMap
from hybridtumor.yaml_file import load_yaml

FILE_NAME = "patient.yaml"

MIN_OVERLAP = 0.9
"""Share of the brain (what is not background in that scan) that an image on another grid has to show."""

MAX_UNCOVERED = 0.01
"""Share of the tumour that a dose grid may leave out."""

MAX_UNCOVERED_TENSOR = 0.1
"""Share of the brain that a diffusion tensor may leave out."""

ScanName = Literal["T1w", "T1ce", "T2w", "FLAIR", "ADC", "PET", "CT"]
SCAN_NAMES = get_args(ScanName)
FileName = Annotated[StrictStr, Field(min_length=1, max_length=255)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _LabelsEntry(_Entry):
    file: FileName
    convention: Literal["brats2021", "brats2023"] | None = None


class _VisitEntry(_Entry):
    day: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    date: datetime.date | None = None

    @field_validator("date", mode="before")
    @classmethod
    def _calendar_day(cls, date: object) -> object:
        """Refuse clock times: visits are days apart, and a time zone could move one to the next day."""
        if isinstance(date, datetime.datetime) or not isinstance(date, datetime.date | str | None):
            raise InputError("expected a calendar day such as 2024-03-01 without a clock time")
        return date

    scans: dict[ScanName, FileName] = Field(default_factory=dict)
    labels: _LabelsEntry | None = None


class _TissueEntry(_Entry):
    white: FileName
    grey: FileName
    csf: FileName


class _DoseEntry(_Entry):
    file: FileName
    unit: Literal["Gy", "cGy"]


class _TensorEntry(_Entry):
    file: FileName
    order: Order | None = None
    axes: Axes | None = None


class _OxygenEntry(_Entry):
    file: FileName
    unit: Literal["mmHg"]


class _PatientFile(_Entry):
    """The contents of patient.yaml."""

    schema_version: Literal[1]
    id: Annotated[StrictStr, Field(pattern=r"^[^/\\\x00-\x1f]{1,64}$")]
    synthetic: bool = False
    visits: Annotated[list[_VisitEntry], Field(min_length=1, max_length=200)]
    tissue: _TissueEntry | None = None
    density: FileName | None = None
    dose: _DoseEntry | None = None
    diffusion_tensor: _TensorEntry | None = None
    structures: dict[Annotated[StrictStr, Field(pattern=f"^{STRUCTURE_NAME}$")], FileName] = Field(default_factory=dict)
    oxygen: _OxygenEntry | None = None
    radiosensitivity: FileName | None = None


def load(folder: Path | str) -> Patient:
    """Read a patient folder, or a BraTS folder; see `hybridtumor.patient.Patient.load`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a patient folder, found none.")
    if not (folder / FILE_NAME).is_file():
        if is_brats_folder(folder):
            return load_brats(folder)
        if is_bids_subject(folder):
            return load_bids(folder, _build)
        raise InputError(
            f"{folder}: expected a patient folder with {FILE_NAME}, a BraTS folder or a BIDS subject (sub-…); it is"
            " neither."
        )
    return _build(folder, folder / FILE_NAME, load_yaml(folder / FILE_NAME))


def _build(folder: Path, source: Path, contents: object) -> Patient:
    """Build the patient that the contents of a patient.yaml describe; `source` is what messages call them."""
    try:
        file = _PatientFile.model_validate(contents)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error)}") from error
    days = _days(source, file.visits)
    if not file.visits[0].scans:
        raise InputError(f"{source}: expected at least one scan on day 0.")
    first = file.visits[0].scans
    reader = _Reader.of(folder, first[min(first, key=SCAN_NAMES.index)])
    visits = tuple(reader.visit(day, entry) for day, entry in zip(days, file.visits, strict=True))
    return Patient(
        id=file.id,
        visits=visits,
        tissue=None if file.tissue is None else reader.tissue(file.tissue),
        density=None if file.density is None else reader.density(file.density),
        dose=None if file.dose is None else reader.dose(file.dose, visits[0].labels),
        diffusion_tensor=None if file.diffusion_tensor is None else reader.tensor(file.diffusion_tensor),
        structures={name: reader.mask(entry) for name, entry in file.structures.items()},
        oxygen=None if file.oxygen is None else reader.scan(file.oxygen.file),
        radiosensitivity=None if file.radiosensitivity is None else reader.scan(file.radiosensitivity, outside=1),
        synthetic=file.synthetic,
    )


def save(patient: Patient, folder: Path | str) -> None:
    """Write a patient folder; see `hybridtumor.patient.Patient.save`."""
    folder = Path(folder)
    note = SYNTHETIC_NOTICE if patient.synthetic else ""
    sidecar = {"notice": SYNTHETIC_NOTICE} if patient.synthetic else None
    contents: dict[str, object] = {"schema_version": 1, "id": patient.id, "synthetic": patient.synthetic}
    visits: list[dict[str, object]] = []
    for visit in patient.visits:
        stem = f"day{visit.day:g}"
        entry: dict[str, object] = {"day": visit.day, "scans": {n: f"{stem}_{n}.nii.gz" for n in visit.scans}}
        for name, scan in visit.scans.items():
            scan.save(folder / f"{stem}_{name}.nii.gz", description=note, sidecar=sidecar)
        if visit.labels is not None:
            convention = next(n for n, codes in LABEL_CONVENTIONS.items() if dict(codes) == dict(visit.labels.codes))
            visit.labels.save(folder / f"{stem}_seg.nii.gz", description=note, sidecar=sidecar)
            entry["labels"] = {"file": f"{stem}_seg.nii.gz", "convention": convention}
        visits.append(entry)
    contents["visits"] = visits
    if patient.tissue is not None:
        for name in ("white", "grey", "csf"):
            Scan(getattr(patient.tissue, name), patient.grid).save(folder / f"{name}.nii.gz", description=note)
        contents["tissue"] = {name: f"{name}.nii.gz" for name in ("white", "grey", "csf")}
    if patient.density is not None:
        patient.density.save(folder / "density.nii.gz", description=SYNTHETIC_NOTICE)
        contents["density"] = "density.nii.gz"
    if patient.dose is not None:
        Scan(patient.dose.values, patient.grid).save(folder / "dose.nii.gz")
        contents["dose"] = {"file": "dose.nii.gz", "unit": "Gy"}
    if patient.diffusion_tensor is not None:
        patient.diffusion_tensor.save(folder / "tensor.nii.gz")
        contents["diffusion_tensor"] = {"file": "tensor.nii.gz", "order": "fsl", "axes": "world"}
    if patient.structures:
        for name, mask in patient.structures.items():
            write_nifti(folder / f"structure_{name}.nii.gz", mask.astype(np.uint8), patient.grid)
        contents["structures"] = {name: f"structure_{name}.nii.gz" for name in patient.structures}
    if patient.oxygen is not None:
        patient.oxygen.save(folder / "oxygen.nii.gz")
        contents["oxygen"] = {"file": "oxygen.nii.gz", "unit": "mmHg"}
    if patient.radiosensitivity is not None:
        patient.radiosensitivity.save(folder / "radiosensitivity.nii.gz")
        contents["radiosensitivity"] = "radiosensitivity.nii.gz"
    _PatientFile.model_validate(contents)
    write_bytes(folder / FILE_NAME, yaml.safe_dump(contents, sort_keys=False, allow_unicode=True).encode())


@dataclass(frozen=True)
class _Reader:
    """Reads the images of one folder onto the grid of its first baseline scan."""

    folder: Path
    grid: Grid
    brain: FloatArray
    """(n, 3) world coordinates of voxels of the brain, mm."""

    shown: BoolArray
    """Voxels of that scan that are not background."""

    @classmethod
    def of(cls, folder: Path, reference: str) -> "_Reader":
        first = Scan.load(_inside(folder, reference))
        shown = first.values != first.values[0, 0, 0]
        index = np.argwhere(shown)
        if not len(index):
            raise InputError(f"{folder / reference}: expected an image, every voxel has the same value.")
        return cls(folder, first.grid, first.grid.world(index[:: max(1, len(index) // 20000)]), shown)

    def path(self, name: str) -> Path:
        """Return the file of that name, which has to lie inside the folder."""
        return _inside(self.folder, name)

    def scan(self, name: str, *, outside: float | None = None) -> Scan:
        """Read an image; where its field of view ends the values are `outside`, by default their minimum."""
        scan = Scan.load(self.path(name))
        fill = float(scan.values.min()) if outside is None else outside
        return Scan(self._on_grid(scan.values, scan.grid, name, order=1, outside=fill), self.grid)

    def density(self, name: str) -> Scan:
        """Read a cell density, of which no more than a part of the brain may show."""
        density = self.scan(name)
        require_part(density.values > ImagingThresholds().edema, self.shown, self.path(name), "visible cell densities")
        return density

    def labels(self, entry: _LabelsEntry) -> LabelMap:
        labels = LabelMap.load(self.path(entry.file), convention=entry.convention)
        if not labels.mask().any():
            raise InputError(
                f"{self.path(entry.file)}: expected a tumour, every voxel is 0. Leave `labels` out if there is none."
            )
        values = self._on_grid(labels.values.astype(np.float32), labels.grid, entry.file, order=0, outside=0)
        moved = LabelMap(values.astype(np.uint8), self.grid, labels.codes)
        require_part(moved.mask(), self.shown, self.path(entry.file))
        return moved

    def mask(self, name: str) -> BoolArray:
        """Read a mask of 0 and 1."""
        scan = Scan.load(self.path(name))
        if not np.isin(scan.values, (0, 1)).all():
            raise InputError(f"{self.path(name)}: expected a mask of 0 and 1, got values up to {scan.values.max():g}.")
        return np.asarray(self._on_grid(scan.values, scan.grid, name, order=0, outside=0) > 0.5)

    def visit(self, day: float, entry: _VisitEntry) -> Visit:
        order = sorted(entry.scans, key=SCAN_NAMES.index)
        scans: dict[str, Scan] = {name: self.scan(entry.scans[name]) for name in order}
        return Visit(day, scans, None if entry.labels is None else self.labels(entry.labels))

    def tissue(self, entry: _TissueEntry) -> TissueMap:
        white, grey, csf = (self.scan(name, outside=0).values for name in (entry.white, entry.grey, entry.csf))
        with _named(self.folder):
            return TissueMap(white, grey, csf, self.grid)

    def dose(self, entry: _DoseEntry, labels: LabelMap | None) -> DoseMap:
        field_of_view = Scan.load(self.path(entry.file)).grid
        tumour = np.empty((0, 3)) if labels is None else self.grid.world(np.argwhere(labels.mask()))
        if len(tumour) and (missed := 1 - field_of_view.share_inside(tumour)) > MAX_UNCOVERED:
            raise InputError(
                f"{self.path(entry.file)}: expected a dose grid that covers the tumour, {missed:.1%} of it is outside."
                " Check that dose and scans are registered, or export the dose on a larger grid."
            )
        values = self.scan(entry.file, outside=0).values * np.float32(units.magnitude(f"1 {entry.unit}", "Gy"))
        with _named(self.path(entry.file)):
            return DoseMap(values, self.grid)

    def tensor(self, entry: _TensorEntry) -> DiffusionTensor:
        tensor = DiffusionTensor.load(self.path(entry.file), order=entry.order, axes=entry.axes)
        if (missed := 1 - tensor.grid.share_inside(self.brain)) > MAX_UNCOVERED_TENSOR:
            raise InputError(
                f"{self.path(entry.file)}: expected a tensor image that covers the brain, {missed:.0%} of it is"
                " outside. Check that tensor and scans are registered."
            )
        return tensor

    def _on_grid(self, values: FloatArray, grid: Grid, name: str, *, order: int, outside: float) -> FloatArray:
        if self.grid.same_as(grid):
            return values
        seen = grid.share_inside(self.brain)
        if seen < MIN_OVERLAP:
            raise InputError(
                f"{self.path(name)}: expected an image that shows at least {MIN_OVERLAP:.0%} of the brain of the first"
                f" baseline scan, got {seen:.0%}. Register it to that scan, or check its affine."
            )
        return resample(values, grid, self.grid, order=order, outside=outside)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the path before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file of the folder; refuse one that leads out of it, by name or by link."""
    path = folder / name
    try:
        within = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a link that leads to itself, a name no file system takes
        within = False
    if not within or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(
            f"{folder / FILE_NAME}: expected files inside the folder, got {name!r}. Copy the file into it."
        )
    return path


def _days(path: Path, visits: list[_VisitEntry]) -> list[float]:
    """Return the day of every visit, from days or from dates."""
    by_day = [visit.day for visit in visits if visit.day is not None]
    by_date = [visit.date for visit in visits if visit.date is not None]
    if len(by_day) == len(visits) and not by_date:
        return by_day
    if len(by_date) == len(visits) and not by_day:
        for number, (earlier, later) in enumerate(pairwise(by_date), start=2):
            if later <= earlier:
                raise InputError(
                    f"{path}: expected visits in order of time, each on a day of its own, got visit {number}"
                    f" {'on the same day as' if later == earlier else 'before'} the one before it. Sort the visits, the"
                    " baseline first, and put scans of one day into one visit."
                )
        return [float((date - by_date[0]).days) for date in by_date]
    raise InputError(f"{path}: expected either `day` in every visit or `date` in every visit. Choose one of them.")


_WORDS = (
    ("Input should be ", "expected "),
    ("Field required", "expected this key, it is missing. Add it"),
    ("Extra inputs are not permitted", "expected a known key. Remove or rename it"),
    ("Value error, ", ""),
)
"""The validator's words, and ours."""


def _explain(error: ValidationError) -> str:
    """Say where a file departs from its schema, one clause per place."""
    return "; ".join(_clause(detail) for detail in error.errors(include_url=False)[:5]) + "."


def _clause(detail: ErrorDetails) -> str:
    where = ".".join(map(str, detail["loc"])) or "the file"
    what = re.sub("^(String|List|Dictionary|Value|Keys?) should ", "expected to ", detail["msg"])
    for theirs, ours in _WORDS:
        what = what.replace(theirs, ours)
    if not what.startswith("expected"):
        what = f"expected another value: {what}"
    return f"{where}: {what} (got {str(detail['input'])[:60]!r})"
