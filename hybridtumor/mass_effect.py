r"""Mass effect: what the growing tumour does to the brain around it, in the figures radiologists read off a scan.

    largest displacement   max |v(X)|
    ventricle volume       V_t = ∫_{V_0} det(I + ∇v) dX
    midline shift          max |v_x(X)| over the midline structures of day 0

V_0 are the ventricles of day 0 (`hybridtumor.models.ventricles`). The midsagittal plane is x = x_m, x_m the median over
all lines along the RAS x axis of the midpoint between the first and the last voxel of the head; lines shorter than half
of the longest do not count. Midline structures are head voxels within 1.5 mm of that plane and between the front,
back, top and bottom of the ventricles: septum, fornix, third ventricle and what lies between, the brainstem included.

Limits: a head that is turned or tilted in the scanner by α loses the factor cos α of the shift and is cut obliquely; a
head that is not symmetric, or cut off by the field of view, has x_m beside its midline; there is no falx that would
hold the midline; and a tumour that lies in the midline itself pushes structures out to both sides, which counts too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.grid import BoolArray, FloatArray, Grid
from hybridtumor.models.carry import carried
from hybridtumor.models.ventricles import ventricles
from hybridtumor.models.warp import Origins, bounds_of, find_origins, jacobian
from hybridtumor.slices import Plane, Section
from hybridtumor.tissue import TissueMap

HALF_THICKNESS = 1.5
"""mm on either side of the midsagittal plane in which midline structures are looked for."""

BIN = 2.0
"""mm. Spacing of the lines along which the middle of the head is measured."""


@dataclass(frozen=True)
class MassEffect:
    """Figures of one day.

    Parameters
    ----------
    max_displacement
        mm.
    ventricle_volume
        mm³; 0 where no ventricle was found.
    midline_shift
        mm.
    """

    max_displacement: float
    ventricle_volume: float
    midline_shift: float


@dataclass(frozen=True, eq=False)
class MovedSections:
    """Plane sections of a day with mechanics, for pictures; every dictionary is by plane.

    Parameters
    ----------
    day
        The day.
    scan
        The background scan carried along.
    origin
        (rows, columns, 3) world coordinates, mm RAS+, of where the tissue at each pixel was on day 0.
    shift
        (rows, columns, 3) displacement of the tissue at each pixel, mm RAS+.
    before, now
        Share of ventricle on day 0 and on the day.
    """

    day: float
    scan: dict[Plane, FloatArray]
    origin: dict[Plane, FloatArray]
    shift: dict[Plane, FloatArray]
    before: dict[Plane, FloatArray]
    now: dict[Plane, FloatArray]


def mass_effect(tissue: TissueMap, displacement: NDArray[np.floating[Any]]) -> MassEffect:
    """Return the figures of a displacement.

    Parameters
    ----------
    tissue
        Tissue fractions of day 0.
    displacement
        v(X), (3, X, Y, Z), mm RAS+.
    """
    return MassEffect(
        max_displacement=float(np.sqrt(np.einsum("c...,c...->...", displacement, displacement).max())),
        ventricle_volume=volume_after(_ventricles(tissue), displacement, tissue.grid),
        midline_shift=float(np.abs(displacement[0][midline(tissue)]).max(initial=0.0)),
    )


def figures(tissue: TissueMap, displacements: Sequence[NDArray[np.floating[Any]]]) -> dict[str, list[float]]:
    """Return the figures of every day as ``summary.json`` holds them beside the largest displacement."""
    days = [mass_effect(tissue, displacement) for displacement in displacements]
    return {
        "ventricle_volume_mm3": [round(day.ventricle_volume, 4) for day in days],
        "midline_shift_mm": [round(day.midline_shift, 4) for day in days],
    }


def volume_after(region: BoolArray, displacement: NDArray[np.floating[Any]], grid: Grid) -> float:
    """Return the volume, mm³, of a region of day 0 (X, Y, Z) after a displacement: ∫ det(I + ∇v) dX."""
    bounds = bounds_of(region)
    if bounds is None:
        return 0.0
    box = tuple(slice(max(low - 1, 0), high + 1) for low, high in bounds)
    inside = region[box]
    part = Grid((inside.shape[0], inside.shape[1], inside.shape[2]), grid.affine)
    return float(jacobian(displacement[:, *box], part)[inside].sum()) * grid.voxel_volume


def midsagittal(head: BoolArray, grid: Grid) -> float:
    """Return x_m of a head (X, Y, Z), mm RAS."""
    x, y, z = grid.world(np.argwhere(head)).T
    rows, columns = (np.floor((c - c.min()) / BIN).astype(int) for c in (y, z))
    line = rows * (columns.max() + 1) + columns
    first, last = np.full(line.max() + 1, np.inf), np.full(line.max() + 1, -np.inf)
    np.minimum.at(first, line, x)
    np.maximum.at(last, line, x)
    length = last - first  # −∞ where a line meets no head
    long = length >= 0.5 * length.max()
    return float(np.median(first[long] + last[long])) / 2


def midline(tissue: TissueMap) -> BoolArray:
    """Mark the midline structures, (X, Y, Z); without ventricles all of the head in the midsagittal plane."""
    head, grid = tissue.head, tissue.grid
    if not head.any():
        return head
    middle = midsagittal(head, grid)
    found = np.argwhere(head)
    world = grid.world(found)
    near = np.abs(world[:, 0] - middle) <= max(HALF_THICKNESS, float(grid.voxel_size.max()) / 2)
    inner = _ventricles(tissue)
    if inner.any():
        level = grid.world(np.argwhere(inner))[:, 1:]
        near &= ((world[:, 1:] >= level.min(axis=0)) & (world[:, 1:] <= level.max(axis=0))).all(axis=1)
    structures = np.zeros(grid.shape, bool)
    structures[tuple(found[near].T)] = True
    return structures


def moved_sections(
    tissue: TissueMap,
    scan: NDArray[np.float32],
    day: float,
    displacement: NDArray[np.floating[Any]],
    sections: dict[Plane, Section],
) -> MovedSections:
    """Cut a scan (X, Y, Z) that a displacement (3, X, Y, Z) carries along, and what goes with it.

    Raises
    ------
    ConvergenceError
        The displacement has no inverse.
    """
    origins = find_origins(displacement, tissue.grid)
    share = _ventricles(tissue).astype(np.float32)
    after, filled = carried(scan, origins, order=3), carried(share, origins, order=1)
    origin, shift = {}, {}
    for plane, section in sections.items():
        origin[plane], shift[plane] = _origin(origins, section)
    return MovedSections(
        day=day,
        scan={plane: section.of(after).copy() for plane, section in sections.items()},
        origin=origin,
        shift=shift,
        before={plane: section.of(share).copy() for plane, section in sections.items()},
        now={plane: section.of(filled).copy() for plane, section in sections.items()},
    )


def _origin(origins: Origins, section: Section) -> tuple[FloatArray, FloatArray]:
    """Return origins and displacements of the tissue at each pixel of a section, (rows, columns, 3) each, mm RAS+."""
    here, index = [], []
    for axis, n in enumerate(origins.grid.shape):
        shape = [1, 1, 1]
        shape[axis] = n
        own = np.broadcast_to(np.arange(n, dtype=np.float32).reshape(shape), origins.grid.shape)
        came = own.copy()
        came[origins.box] = origins.index[axis]
        here.append(section.of(own))
        index.append(section.of(came))
    origin = origins.grid.world(np.stack(index, axis=-1))
    return origin, origins.grid.world(np.stack(here, axis=-1)) - origin


@lru_cache(maxsize=1)
def _ventricles(tissue: TissueMap) -> BoolArray:
    return ventricles(tissue)
