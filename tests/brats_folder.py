"""A small glioma in the layout of BraTS: an ellipsoidal head with ventricle, three tissues and a tumour with a rim."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridtumor.grid import Grid
from hybridtumor.scan import LABEL_CONVENTIONS, LabelMap, Scan

GRID = Grid((48, 56, 44), np.array([[-2.0, 0, 0, 47], [0, -2, 0, 55], [0, 0, 2, -43], [0, 0, 0, 1]]))
NAMES_2021 = {"T1w": "t1", "T1ce": "t1ce", "T2w": "t2", "FLAIR": "flair"}
NAMES_2023 = {"T1w": "t1n", "T1ce": "t1c", "T2w": "t2w", "FLAIR": "t2f"}


def radius(centre: tuple[float, float, float], axes: tuple[float, float, float] = (1, 1, 1)) -> NDArray[np.float64]:
    """Scaled distance of every voxel of GRID from a world point, mm."""
    world = GRID.world(np.moveaxis(np.indices(GRID.shape), 0, -1))
    return np.asarray(np.linalg.norm((world - centre) / axes, axis=-1))


HEAD = radius((0, 0, 0), (1, 1.2, 0.9)) < 40
VENTRICLE = radius((-4, 5, 0), (0.6, 1.4, 0.7)) < 8
WHITE = (radius((0, 0, 0), (1, 1.2, 0.9)) < 28) & ~VENTRICLE
RIM_CSF = HEAD & (radius((0, 0, 0), (1, 1.2, 0.9)) > 37)
TUMOUR_CENTRE = (17.0, -6.0, 2.0)


def labels(convention: str = "brats2021", centre: tuple[float, float, float] = TUMOUR_CENTRE) -> LabelMap:
    """Necrosis, a rim and oedema around `centre`."""
    codes, r = LABEL_CONVENTIONS[convention], radius(centre)
    values = np.zeros(GRID.shape, np.uint8)
    values[(r < 13) & ~VENTRICLE] = codes["edema"]
    values[r < 9] = codes["enhancing"]
    values[r < 5] = codes["necrosis"]
    return LabelMap(values, GRID, codes)


def t1(*, bias: float = 0.0, noise: float = 8.0) -> Scan:
    """A T1-weighted image with a dark tumour, noise and a smooth bias from left to right."""
    values = np.where(WHITE, 400.0, 300.0)
    values[VENTRICLE | RIM_CSF] = 120
    values[labels().mask()] = 200
    values += np.random.default_rng(0).normal(0, noise, GRID.shape)
    world = GRID.world(np.moveaxis(np.indices(GRID.shape), 0, -1))
    return Scan(np.where(HEAD, np.round(values * (1 + bias * world[..., 0] / 40)), 0).astype(np.float32), GRID)


def write(folder: Path, *, year: int = 2021, prefix: str | None = None) -> Path:
    """Write the folder as one of the two conventions names it, and return it."""
    names, convention = (NAMES_2021, "brats2021") if year == 2021 else (NAMES_2023, "brats2023")
    stem = {2021: "BraTS2021_00001_", 2023: "BraTS-GLI-00001-000-"}[year] if prefix is None else prefix
    for suffix in names.values():
        t1().save(folder / f"{stem}{suffix}.nii.gz")
    labels(convention).save(folder / f"{stem}seg.nii.gz")
    return folder
