"""The picture of mass effect: the scan carried along with the tissue, and how far the tissue has moved."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hybridtumor.pictures_frame import contour, mosaic, scale_beside, scan_word, show
from hybridtumor.plots_frame import png
from hybridtumor.slices import AXES, Plane, Section
from hybridtumor.story import ArmStory, Image, Story

MOVED: tuple[Plane, ...] = ("axial", "coronal")
"""Planes in which the displacement is drawn."""

RULING, SEEN, VENTRICLE = 10.0, 0.3, "#56B4E9"
"""mm between the lines of a deformed grid; mm from which an arrow is drawn; colour of arrows and of ventricles."""


def mass_effect(story: Story, arm: ArmStory) -> bytes | None:
    """Draw how far the tissue has moved on the last day of one arm; None when nothing has moved.

    Columns: the baseline; the baseline carried along, with lines that were straight on day 0 and the ventricles' edge;
    the displacement, with arrows that end where the tissue is.
    """
    moved = arm.moved
    if moved is None:
        return None
    top = max(float(_length(one.moved.shift[p]).max()) for one in story.arms if one.moved is not None for p in MOVED)
    figure, axes = mosaic(story, len(MOVED), 3, planes=MOVED, lines=2, beside=0.9, inch=3.0)
    for row, plane in enumerate(MOVED):
        shift, origin = moved.shift[plane], moved.origin[plane]
        show(axes[row][0], story, story.baseline[story.background][plane], story.background, plane, letters=True)
        show(axes[row][1], story, moved.scan[plane], story.background, plane)
        _rulings(axes[row][0], origin + shift, plane)
        _rulings(axes[row][1], origin, plane)
        contour(axes[row][0], moved.before[plane], 0.5, VENTRICLE, style="--")
        contour(axes[row][1], moved.before[plane], 0.5, VENTRICLE, style="--", width=0.8)
        contour(axes[row][1], moved.now[plane], 0.5, VENTRICLE)
        aspect = story.sections[plane].aspect
        map_ = axes[row][2].imshow(_length(shift), cmap="magma", vmin=0, vmax=top, aspect=aspect)
        contour(axes[row][2], story.head[plane], 0.5, "0.6", width=0.8)
        _arrows(axes[row][2], shift, story.sections[plane])
    titles = (f"{scan_word(story)}\nday 0", f"carried along\nday {moved.day:g}", "displacement")
    for column, title in enumerate(titles):
        axes[0][column].set_title(title, fontsize=10)
    bar = figure.colorbar(map_, cax=scale_beside(figure, axes))
    bar.set_label("displacement, mm", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return png(figure)


def _length(vectors: Image) -> Image:
    return np.asarray(np.linalg.norm(vectors, axis=-1))


def _rulings(axis: Axes, coordinates: Image, plane: Plane) -> None:
    """Draw lines of equal world coordinate, (rows, columns, 3), every `RULING` mm in both directions of a plane."""
    for direction in AXES[plane][1:]:
        values = coordinates[..., direction]
        levels = np.arange(np.ceil(values.min() / RULING), np.floor(values.max() / RULING) + 1) * RULING
        axis.contour(values, levels=levels, colors=["#E69F00"], linestyles="solid", linewidths=[0.5], alpha=0.7)


def _arrows(axis: Axes, shift: Image, section: Section) -> None:
    """Draw displacements (rows, columns, 3) as arrows 8 mm apart, twice as long as they are, that end at the tissue."""
    height, width = section.pixel
    _, down, along = AXES[section.plane]
    y, x = (np.arange(0, n, max(1, round(8 / size))) for n, size in zip(shift.shape, section.pixel, strict=False))
    columns, rows = np.meshgrid(x, y)
    some = shift[rows, columns]
    seen = _length(some) > SEEN
    right, below = -some[seen][:, along] / width, -some[seen][:, down] / height  # world axes run to the left and up
    style: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 0.5, "pivot": "tip", "width": 0.004}
    axis.quiver(columns[seen], rows[seen], right, below, color=VENTRICLE, **style)
