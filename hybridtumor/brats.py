"""BraTS folders: one glioma patient per folder, four modalities and a segmentation, as the challenge hands them out.

Names of 2021 and before (``BraTS2021_00001_t1ce.nii.gz`` or plain ``t1ce.nii.gz``) and of 2023 and after
(``BraTS-GLI-00001-000-t1c.nii.gz``) are understood; enhancing tumour is label 4 in the former, 3 in the latter.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import LabelMap, Scan

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "T1w": ("t1", "t1n"),
    "T1ce": ("t1ce", "t1c", "t1gd"),
    "T2w": ("t2", "t2w"),
    "FLAIR": ("flair", "t2f"),
    "seg": ("seg",),
}
"""How BraTS calls each image at the end of its file name."""

MAX_SHARE = 0.6
"""Largest share of the brain that a segmentation may mark: more is a mask of the brain, or labels turned inside out."""

_NAME = re.compile(r"(?:.*[_-])?(?P<suffix>[A-Za-z0-9]+)\.nii(?:\.gz)?", re.DOTALL)
_KIND = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}


def is_brats_folder(folder: Path | str) -> bool:
    """Tell whether a folder holds at least a T1-weighted image under one of the names of BraTS."""
    return Path(folder).is_dir() and "T1w" in _images(Path(folder))


def load_brats(folder: Path | str) -> Patient:
    """Read a BraTS folder as a patient with one visit; the folder's name is the patient's id.

    Raises
    ------
    InputError
        A modality or the segmentation is missing, present twice, unreadable or empty; grids differ; labels unknown.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a BraTS folder, found none.")
    images = _images(folder)
    missing = [kind for kind in SUFFIXES if kind not in images]
    if missing:
        wanted = "; ".join(f"{kind} as *{' or *'.join(SUFFIXES[kind])}.nii.gz" for kind in missing)
        raise InputError(f"{folder}: expected a BraTS folder, found no {wanted}.")
    scans = {kind: Scan.load(path) for kind, path in images.items() if kind != "seg"}
    labels = LabelMap.load(images["seg"])
    if not labels.mask().any():
        raise InputError(f"{images['seg']}: expected a tumour, every voxel is 0. Segment the tumour first.")
    for kind, scan in scans.items():
        if not scan.values.any():
            raise InputError(f"{images[kind]}: expected an image, every voxel is 0.")
        scans["T1w"].grid.require_same(scan.grid, str(images[kind]))
    scans["T1w"].grid.require_same(labels.grid, str(images["seg"]))
    require_part(labels.mask(), scans["T1w"].values != scans["T1w"].values[0, 0, 0], images["seg"])
    grid = scans["T1w"].grid  # one object for all: the files' affines may differ in their last digit
    return Patient(
        id=folder.resolve().name,
        visits=(
            Visit(
                day=0,
                scans={kind: Scan(scan.values, grid) for kind, scan in scans.items()},
                labels=LabelMap(labels.values, grid, labels.codes),
            ),
        ),
    )


def require_part(tumour: BoolArray, brain: BoolArray, path: Path, what: str = "labels") -> None:
    """Refuse a tumour that is more than `MAX_SHARE` of the brain; both are masks of one shape."""
    share = float(np.count_nonzero(tumour & brain)) / max(int(np.count_nonzero(brain)), 1)
    if share > MAX_SHARE:
        raise InputError(
            f"{path}: expected a tumour, which is a part of the brain, got {what} on {share:.0%} of it."
            f" Check that these are the {what} of a tumour and that 0 is everything else."
        )


def _images(folder: Path) -> dict[str, Path]:
    """Return the image file of each kind, in the order of `SUFFIXES`."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        kind = _KIND.get(match["suffix"].lower()) if match else None
        if kind is None or path.name.startswith("."):
            continue
        if kind in found:
            raise InputError(f"{folder}: expected one {kind} image, found {found[kind].name} and {path.name}.")
        found[kind] = path
    return {kind: found[kind] for kind in SUFFIXES if kind in found}
