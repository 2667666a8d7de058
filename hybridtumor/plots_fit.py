"""What a calibrated tumour looks like beside what was drawn: borders of both on three planes, a row for each visit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridtumor.grid import BoolArray, FloatArray, Grid
from hybridtumor.pictures_frame import contour, name_sides
from hybridtumor.plots_frame import png
from hybridtumor.slices import PLANES, Section, centre_of_mass

WHOLE, CORE = "#56b4e9", "#e69f00"
"""Colours that colour-blind people tell apart (Okabe and Ito)."""

INCH, MOST_ROWS = 2.6, 8


@dataclass(frozen=True, eq=False)
class Overlay:
    """One visit.

    Parameters
    ----------
    title
        Day and overlap.
    background
        Scan on the patient's grid.
    density
        Visible density of the fit.
    thresholds
        Densities at the borders of oedema and core.
    whole, core
        What was drawn; None: nothing was.
    """

    title: str
    background: FloatArray
    density: FloatArray
    thresholds: tuple[float, float | None]
    whole: BoolArray | None
    core: BoolArray | None


def overlays(visits: Sequence[Overlay], grid: Grid, brain: BoolArray) -> bytes:
    """Return the picture as PNG; of more than `MOST_ROWS` visits the first and the last ones.

    Parameters
    ----------
    visits
        In order of time.
    grid
        The patient's grid.
    brain
        What is shown of it, shape ``grid.shape``.
    """
    shown = [*visits[: MOST_ROWS // 2], *visits[-MOST_ROWS // 2 :]] if len(visits) > MOST_ROWS else list(visits)
    figure = Figure(figsize=(INCH * len(PLANES), INCH * len(shown) + 0.45), layout="constrained", facecolor="white")
    axes = np.atleast_2d(figure.subplots(len(shown), len(PLANES), squeeze=False))
    for row, visit in zip(axes, shown, strict=True):
        weight = visit.density if visit.whole is None else visit.whole.astype(np.float64)
        through = centre_of_mass(weight, grid, 0.5)
        for axis, plane in zip(row, PLANES, strict=True):
            section = Section(plane, grid, through).cropped_to(brain)
            _draw(axis, visit, section)
            name_sides(axis, plane)
        row[0].set_title(visit.title, loc="left", fontsize=8)
    lines = [
        Line2D([], [], color=colour, alpha=alpha, lw=width, label=f"{what}, {who}")
        for what, colour in (("whole tumour", WHOLE), ("core", CORE))
        for who, alpha, width in (("drawn", 0.5, 3.6), ("fitted", 1.0, 1.2))
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return png(figure)


def _draw(axis: Axes, visit: Overlay, section: Section) -> None:
    image = section.of(visit.background)
    low, high = np.percentile(visit.background[visit.background > 0], [1, 99.5]) if visit.background.any() else (0, 1)
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=section.aspect)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_frame_on(False)
    for mask, colour in ((visit.whole, WHOLE), (visit.core, CORE)):
        if mask is not None:
            contour(axis, section.of(mask.astype(np.float32)), 0.5, colour + "80", width=3.6)
    for level, colour in zip(visit.thresholds, (WHOLE, CORE), strict=True):
        if level is not None:
            contour(axis, section.of(visit.density), level, colour, width=1.2)
