"""The dose of a course from a file, on the patient's grid: NIfTI with its unit, or DICOM, which says its own.

    d(x) = n q d_file(A_file⁻¹ A x)

A and A_file are the affines of the patient and of the file, q the size of the unit in Gy, and n the number of fractions
when the file holds the dose of one fraction, else 1. Trilinear; 0 where the file does not reach.
"""

from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid, resample
from hybridtumor.scan import Scan
from hybridtumor.therapy import DoseMap

DOSE_UNITS = MappingProxyType({"Gy": 1.0, "cGy": 0.01})
"""Units a dose file may be in, and their size in Gy."""

MAY_MISS = MappingProxyType({"tumour": 0.01, "brain": 0.10})
"""Share of the voxels that may lie outside a dose grid."""


def dose_from_file(
    path: Path | str,
    grid: Grid,
    unit: str | None = None,
    *,
    tumour: BoolArray | None = None,
    brain: BoolArray | None = None,
    fractions: int | None = None,
    quantity: Literal["total", "fraction"] = "total",
) -> DoseMap:
    """Read the total dose of a course from NIfTI or DICOM and resample it by affine to a grid.

    Parameters
    ----------
    path
        A NIfTI file, a DICOM file (``.dcm``, or any file with the DICOM prefix), or a folder of DICOM files, such as
        one per beam.
    grid
        The patient's grid.
    unit
        ``Gy`` or ``cGy``, compulsory with NIfTI, which does not say. DICOM says its own: then None or ``Gy``.
    tumour, brain
        Masks on `grid` that the file has to cover, but for the shares `MAY_MISS`.
    fractions
        Number of fractions; needed for a file of the dose of one.
    quantity
        What a NIfTI file holds: the ``total`` dose of the course, or that of one ``fraction``. DICOM says it itself.

    Raises
    ------
    InputError
        As `dose_from_nifti` and `hybridtumor.dicom.dose.load_dose`; a unit or a quantity that a DICOM file is to
        settle itself.
    """
    if not _is_dicom(Path(path)):
        return dose_from_nifti(path, grid, unit, tumour=tumour, brain=brain, fractions=fractions, quantity=quantity)
    from hybridtumor.dicom.dose import load_dose  # needs the extra [dicom]

    if unit not in (None, "Gy") or quantity != "total":
        raise InputError(
            f"{path}: expected no unit and no quantity with a DICOM dose, which says both itself, got"
            f" {unit!r} and {quantity!r}. Remove them."
        )
    dose, _ = load_dose(Path(path), fractions=fractions)
    return _on_grid(path, dose, grid, tumour, brain)


def dose_from_nifti(
    path: Path | str,
    grid: Grid,
    unit: str | None,
    *,
    tumour: BoolArray | None = None,
    brain: BoolArray | None = None,
    fractions: int | None = None,
    quantity: Literal["total", "fraction"] = "total",
) -> DoseMap:
    """Read the dose of a course from NIfTI and resample it by affine to a grid; parameters as `dose_from_file`.

    Raises
    ------
    InputError
        As `Scan.load`; no or another unit, negative or implausible dose, the dose of one fraction without the number
        of fractions, a file that does not cover the tumour or the brain.
    """
    if unit is None or unit not in DOSE_UNITS:
        raise InputError(f"{path}: expected the unit of the dose, Gy or cGy, got {unit!r}. State dose_unit.")
    factor = DOSE_UNITS[unit] * _fractions_in_total(path, quantity, fractions)
    scan = Scan.load(path)
    try:
        dose = DoseMap(np.asarray(scan.values * factor, np.float32), scan.grid)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return _on_grid(path, dose, grid, tumour, brain)


def _fractions_in_total(path: Path | str, quantity: str, fractions: int | None) -> int:
    """Return how many times the dose of the file is given."""
    if quantity == "total":
        return 1
    if quantity != "fraction":
        raise InputError(f"{path}: expected the quantity total or fraction, got {quantity!r}.")
    if fractions is None or fractions < 1:
        raise InputError(
            f"{path}: expected the number of fractions with the dose of one fraction, got {fractions}. State fractions."
        )
    return fractions


def _is_dicom(path: Path) -> bool:
    """Tell whether a path is a folder, is called .dcm, or starts as DICOM files do: 128 bytes, then DICM."""
    if path.is_dir() or path.suffix.lower() == ".dcm":
        return True
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read: {error.strerror}.") from error


def _on_grid(path: Path | str, dose: DoseMap, grid: Grid, tumour: BoolArray | None, brain: BoolArray | None) -> DoseMap:
    """Return the dose on `grid`, refused where it misses too much of the tumour or the brain."""
    for name, mask in (("tumour", tumour), ("brain", brain)):
        missed = 0.0 if mask is None else 1 - dose.grid.share_inside(grid.world(np.argwhere(mask)))
        if missed > MAY_MISS[name]:
            raise InputError(
                f"{path}: expected a dose grid that covers the {name}, {missed:.1%} of it lies outside."
                " Check that dose and scans are registered, or export the dose on a larger grid."
            )
    return DoseMap(np.asarray(resample(dose.values, dose.grid, grid), np.float32), grid)
