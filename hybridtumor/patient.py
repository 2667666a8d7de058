"""Patient: dated visits of named scans, and what is known of the brain they show.

Every array of a patient lies on one grid, that of the baseline visit (day 0).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hybridtumor.diffusion_tensor import DiffusionTensor
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.scan import LabelMap, Scan
from hybridtumor.therapy import DoseMap
from hybridtumor.tissue import TissueMap

STRUCTURE_NAME = r"[A-Za-z0-9][-_+~A-Za-z0-9]{0,63}"
"""What a structure may be called; it becomes part of a file name. TG-263 names fit."""


@dataclass(frozen=True, eq=False)
class Visit:
    """The scans of one day.

    Parameters
    ----------
    day
        Days since the baseline scan.
    scans
        Name (a key of `hybridtumor.scan.MODALITIES`, or ADC, PET, CT) to image.
    labels
        Tumour segmentation, if there is one.
    """

    day: float
    scans: Mapping[str, Scan] = field(default_factory=dict)
    labels: LabelMap | None = None


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient.

    Parameters
    ----------
    id
        A pseudonym; it appears in file names and reports.
    visits
        In order of time; the first is the baseline, day 0, and fixes the grid.
    tissue
        Tissue fractions; None until they are classified (`hybridtumor.prepare`).
    density
        Tumour cell density on day 0, fraction of carrying capacity; None until it is derived from the segmentation.
    dose
        Planned total dose, if the folder holds one.
    diffusion_tensor
        Of water, on its own grid, for growth along the tracts.
    structures
        Name (TG-263 where there is one, such as ``Brainstem``) to the voxels of a contoured structure, shape
        ``grid.shape``.
    oxygen
        Partial pressure of oxygen, mmHg, for hypoxia.
    radiosensitivity
        Factor on α and β, 1 where the tissue responds as `hybridtumor.parameters.TreatmentResponse` says.
    synthetic
        True when no scanner saw this patient.

    Raises
    ------
    InputError
        No baseline visit, visits out of order, scans on different grids.
    """

    id: str
    visits: tuple[Visit, ...]
    tissue: TissueMap | None = None
    density: Scan | None = None
    dose: DoseMap | None = None
    diffusion_tensor: DiffusionTensor | None = None
    structures: Mapping[str, BoolArray] = field(default_factory=dict)
    oxygen: Scan | None = None
    radiosensitivity: Scan | None = None
    synthetic: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^/\\\x00-\x1f]{1,64}", self.id):
            raise InputError(f"patient: expected an id of 1 to 64 characters without slashes, got {self.id[:80]!r}.")
        days = [visit.day for visit in self.visits]
        if not days or days[0] != 0 or days != sorted(set(days)):
            raise InputError(
                f"patient {self.id}: expected visits in order of time, the first on day 0, got days {days}."
            )
        grid = self.grid
        for visit in self.visits:
            for name, scan in visit.scans.items():
                grid.require_same(scan.grid, f"patient {self.id}, day {visit.day:g}, {name}")
            if visit.labels is not None:
                grid.require_same(visit.labels.grid, f"patient {self.id}, day {visit.day:g}, segmentation")
        parts = {
            "tissue": self.tissue,
            "density": self.density,
            "dose": self.dose,
            "oxygen": self.oxygen,
            "radiosensitivity": self.radiosensitivity,
        }
        for name, part in parts.items():
            if part is not None:
                grid.require_same(part.grid, f"patient {self.id}, {name}")
        for name, field_map in (("oxygen", self.oxygen), ("radiosensitivity", self.radiosensitivity)):
            if field_map is not None and not (low := float(field_map.values.min())) >= 0:
                raise InputError(f"patient {self.id}: expected {name} that is not negative, got {low:g}.")
        for name, mask in self.structures.items():
            if not re.fullmatch(STRUCTURE_NAME, name) or mask.shape != grid.shape or not mask.any():
                raise InputError(
                    f"patient {self.id}: expected structures with a name of letters, digits, '_', '+', '-' and '~', on"
                    f" the patient's grid and not empty, got {name[:80]!r} of shape {mask.shape}."
                )

    @classmethod
    def load(cls, folder: Path | str) -> "Patient":
        """Read a patient folder (`hybridtumor.patient_folder`), or a BraTS folder (`hybridtumor.brats`).

        Raises
        ------
        InputError
            The folder is neither, a file is missing or damaged, leads out of the folder, or shows too little of the
            brain that the first baseline scan shows.
        """
        from hybridtumor import patient_folder  # it builds patients, this method is its front door

        return patient_folder.load(folder)

    def save(self, folder: Path | str) -> None:
        """Write a patient folder that `load` reads back: the same float32 arrays, the affine in float32.

        Every file is written whole or not at all, ``patient.yaml`` last.
        """
        from hybridtumor import patient_folder

        patient_folder.save(self, folder)

    @property
    def baseline(self) -> Visit:
        """The visit of day 0."""
        return self.visits[0]

    @property
    def grid(self) -> Grid:
        """The grid of the baseline visit."""
        first = self.visits[0]
        if first.scans:
            return next(iter(first.scans.values())).grid
        if first.labels is not None:
            return first.labels.grid
        raise InputError(f"patient {self.id}: expected at least one scan or a segmentation on day 0.")
