"""Sections of the patient side by side: axes at one scale, scans in grey, fields as tints and lines on them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from hybridtumor.slices import LETTERS, Plane
from hybridtumor.story import Image, Story

INCH, MARGIN, GAP = 2.15, 0.28, 0.04
"""Width of a section, room for a line of text, and space between two sections, inches."""


def mosaic(
    story: Story,
    rows: int,
    columns: int,
    *,
    planes: Sequence[Plane] = ("axial",),
    lines: int = 1,
    legend: bool = False,
    beside: float = 0.0,
    inch: float = INCH,
    between: float = 0.0,
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of sections side by side, all at one scale; several planes fill one row, or else one row each.

    Parameters
    ----------
    lines
        Lines of text above the columns.
    legend
        Leave room for a legend below.
    beside
        Room to leave on the right, inches.
    inch
        Width of the widest section, inches.
    between
        Room to leave above every row but the first, inches.
    """
    sizes = [_size(story, plane) for plane in planes]
    scale = inch / max(width for _, width in sizes)
    in_one_row = len(planes) == columns and rows == 1
    cells = [[sizes[c if in_one_row else r % len(sizes)] for c in range(columns)] for r in range(rows)]
    heights = [scale * max(height for height, _ in line) for line in cells]
    widths = [scale * max(line[c][1] for line in cells) for c in range(columns)]
    top, bottom = MARGIN * (0.3 + 0.7 * lines), MARGIN * 1.3 if legend else 0.02
    room = (GAP + between) * rows - between
    total = (MARGIN + sum(widths) + GAP * columns + beside, top + sum(heights) + room + bottom)
    figure = Figure(figsize=total)
    axes: list[list[Axes]] = []
    upper = total[1] - top
    for height, line in zip(heights, cells, strict=True):
        axes.append([])
        left = MARGIN
        for width, size in zip(widths, line, strict=True):
            h, w = scale * size[0], scale * size[1]
            box = (left + (width - w) / 2, upper - (height + h) / 2, w, h)
            shares = (box[0] / total[0], box[1] / total[1], w / total[0], h / total[1])
            axes[-1].append(figure.add_axes(shares, xticks=[], yticks=[], frame_on=False))
            left += width + GAP
        upper -= height + GAP + between
    return figure, axes


def scale_beside(figure: Figure, axes: list[list[Axes]]) -> Axes:
    """Return axes for a colour scale in the room that was left on the right of a mosaic."""
    edge = max(line[-1].get_position().x1 for line in axes)
    width = figure.get_figwidth()
    height = min(0.7, 3.2 / figure.get_figheight())
    return figure.add_axes((edge + 0.12 / width, 0.5 - height / 2, 0.14 / width, height))


def show(
    axis: Axes, story: Story, image: Image, modality: str, plane: Plane = "axial", *, letters: bool = False
) -> None:
    """Draw a section of a scan on the grey scale of its modality; `letters` name its sides."""
    low, high = story.window[modality]
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=story.sections[plane].aspect, interpolation="bilinear")
    if letters:
        name_sides(axis, plane)


def name_sides(axis: Axes, plane: Plane, colour: str = "white") -> None:
    """Write the letters of the patient's sides to the left and right of a section."""
    halo = [withStroke(linewidth=2, foreground="black")] if colour == "white" else None
    for x, align, letter in ((0.02, "left", LETTERS[plane][0]), (0.98, "right", LETTERS[plane][1])):
        axis.text(
            x, 0.5, letter, transform=axis.transAxes, color=colour, ha=align, va="center", fontsize=9, path_effects=halo
        )


def wash(axis: Axes, story: Story, values: Image, plane: Plane, *, maximum: float, floor: float = 0.02) -> None:
    """Colour an image where a field is above a floor, more strongly where it is larger."""
    share = np.clip(np.asarray(values, float) / maximum, 0, 1)
    alpha = np.where(values > floor, 0.10 + 0.25 * share, 0.0)
    axis.imshow(
        share, cmap="plasma", vmin=0, vmax=1, alpha=alpha, aspect=story.sections[plane].aspect, interpolation="bilinear"
    )


def contour(axis: Axes, values: Image, level: float, colour: str, *, style: str = "-", width: float = 1.2) -> None:
    """Draw the line on which an image has a value, where there is any."""
    if values.min() < level < values.max():
        axis.contour(values, levels=[level], colors=[to_rgba(colour)], linestyles=[style], linewidths=width)


def scan_word(story: Story) -> str:
    """Return what the baseline is called."""
    return "virtual scan" if story.synthetic else "scan"


def _size(story: Story, plane: Plane) -> tuple[float, float]:
    """Return height and width of a section, mm."""
    height, width = story.baseline[story.background][plane].shape
    section = story.sections[plane]
    return height * section.pixel[0], width * section.pixel[1]
