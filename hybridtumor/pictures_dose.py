"""Two doses beside one another: uniform, optimised, their difference, and where one more Gray helps most.

−∂J/∂D per ml of tissue: what the expected burden would fall by, had a millilitre there one more Gray.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hybridtumor.grid import BoolArray
from hybridtumor.pictures import ISODOSES
from hybridtumor.pictures_frame import contour, mosaic, name_sides, show
from hybridtumor.plots_frame import plain, png
from hybridtumor.plots_style import COLOURS, GREY
from hybridtumor.slices import PLANES, Plane
from hybridtumor.story import Image, Story

Volume = NDArray[np.floating[Any]]

TITLES = ("uniform plan", "optimised plan", "difference", "where one more Gray helps")
CLEAR = 0.3
"""Share of the scale from which on a map has its full colour; below, the brain shows through."""

NOT_FOR_TREATMENT = "not for treatment"

BARS = 3
ROOM = 1.15
"""Inches on the right for the scales."""


def dose_change(
    story: Story, uniform: Volume, optimised: Volume, slope: Volume, target: BoolArray, prescription: float
) -> bytes:
    """Draw three planes of both doses (Gy), of their difference, and of ∂J/∂D (mm³/Gy and voxel) at the uniform plan.

    Parameters
    ----------
    story
        The patient: sections through the tumour.
    target
        Clinical target, whose edge is drawn.
    prescription
        Gy; isodoses are shares of it.
    """
    figure, axes = mosaic(story, len(PLANES), len(TITLES), planes=PLANES, beside=ROOM, legend=True)
    grid = story.sections["axial"].grid
    helps = -np.asarray(slope, np.float64) * 1000 / grid.voxel_volume
    change = np.asarray(optimised, np.float64) - uniform
    top = float(max(uniform.max(), optimised.max()))
    reach = max(float(np.abs(change).max()), 0.1)
    most = max(max(float(story.sections[plane].of(helps).max()) for plane in PLANES), 1e-12)
    density = story.arms[0].density[0.0] if story.arms else None
    for row, plane in enumerate(PLANES):
        cut = story.sections[plane].of
        for column, (title, values, colours, low, high) in enumerate(
            (
                (TITLES[0], cut(uniform), "plasma", 0.0, top),
                (TITLES[1], cut(optimised), "plasma", 0.0, top),
                (TITLES[2], cut(change), "RdBu_r", -reach, reach),
                (TITLES[3], cut(helps), "viridis", 0.0, most),
            )
        ):
            axis = axes[row][column]
            _draw(axis, story, plane, values, colours, low, high)
            contour(axis, cut(target.astype(np.float32)), 0.5, "#009E73", style="--", width=1.0)
            if density is not None:
                contour(axis, density[plane], story.thresholds.edema, "black" if column == 2 else "white", width=1.2)
            if column < 2:
                for share, colour in ISODOSES:
                    contour(axis, values, share * prescription, colour, width=0.8)
            if row == 0:
                axis.set_title(title, fontsize=10)
            if column == 0:
                name_sides(axis, plane)
    _scales(figure, axes, top, reach, most)
    handles = [Line2D([], [], color=c, lw=1.4, label=f"{s * prescription:.0f} Gy") for s, c in ISODOSES] + [
        Line2D([], [], color="0.6", lw=1.4, label="visible tumour, day 0"),
        Line2D([], [], color="#009E73", lw=1.4, ls="--", label="clinical target"),
    ]
    figure.legend(handles=handles, loc="lower left", ncols=6, frameon=False, fontsize=8)
    figure.text(0.995, 0.012, NOT_FOR_TREATMENT, ha="right", va="bottom", fontsize=8, color="0.3")
    return png(figure)


def histogram_picture(table: Mapping[str, NDArray[np.float64]]) -> bytes:
    """Draw the histograms of both plans: one colour for each structure, the uniform plan dashed."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axis = figure.subplots()
    structures = list(dict.fromkeys(name.rpartition(", ")[0] for name in table if name != "dose_Gy"))
    for structure, colour in zip(structures, COLOURS, strict=False):
        for plan, style in (("uniform", (0, (4, 2))), ("optimised", "-")):
            axis.plot(table["dose_Gy"], table[f"{structure}, {plan}"], color=colour, ls=style, lw=1.7)
    axis.set_xlabel("total dose, Gy", fontsize=9)
    axis.set_ylim(0, 1.03)
    axis.set_xlim(0, float(table["dose_Gy"][-1]))
    axis.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axis.set_ylabel("share of the structure with at least that dose", fontsize=9)
    plain(axis)
    handles = [Line2D([], [], color=c, lw=2, label=s) for s, c in zip(structures, COLOURS, strict=False)]
    handles += [
        Line2D([], [], color=GREY, lw=1.7, ls=(0, (4, 2)), label="uniform plan"),
        Line2D([], [], color=GREY, lw=1.7, label="optimised plan"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    axis.text(0.4, 0.6, NOT_FOR_TREATMENT, transform=axis.transAxes, fontsize=8, color="0.3")
    return png(figure)


def _draw(axis: Axes, story: Story, plane: Plane, values: Image, colours: str, low: float, high: float) -> None:
    """Draw a scan and a map on it, clear where the map has little to say."""
    show(axis, story, story.baseline[story.background][plane], story.background, plane)
    size = np.abs(values) / max(abs(low), abs(high))
    opacity = 0.75 * np.clip(size / CLEAR, 0, 1) * (story.head[plane] > 0.5)
    aspect = story.sections[plane].aspect
    axis.imshow(values, cmap=colours, vmin=low, vmax=high, alpha=opacity, aspect=aspect, interpolation="bilinear")


def _scales(figure: Figure, axes: list[list[Axes]], top: float, reach: float, most: float) -> None:
    """Put a colour scale for dose, difference and help on the right, one above the other."""
    width = figure.get_figwidth()
    left = max(line[-1].get_position().x1 for line in axes) + 0.14 / width
    entries = (
        ("plasma", 0.0, top, "dose, Gy"),
        ("RdBu_r", -reach, reach, "difference, Gy"),
        ("viridis", 0.0, most, "mm³ less burden\nper Gy in 1 ml"),
    )
    for number, (colours, low, high, words) in enumerate(entries):
        bottom = 0.08 + (BARS - 1 - number) * 0.30
        room = figure.add_axes((left, bottom, 0.13 / width, 0.24))
        bar = figure.colorbar(ScalarMappable(Normalize(low, high), colours), cax=room)
        bar.set_label(words, fontsize=8)
        bar.ax.tick_params(labelsize=7)
