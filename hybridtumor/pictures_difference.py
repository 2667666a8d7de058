"""Maps of difference: where a plan leaves fewer or more tumour cells than no treatment.

Δu(x) = u_plan(x) − u_untreated(x)       on the last day, one diverging scale for all plans
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hybridtumor.pictures_frame import contour, mosaic, name_sides, scale_beside
from hybridtumor.plots_frame import label, png
from hybridtumor.plots_style import GREY, ArmStyle
from hybridtumor.slices import PLANES, Plane
from hybridtumor.story import ArmStory, Image, Story

MOST, THREE_PLANES, PER_ROW = 20, 4, 5
"""Plans that are drawn; up to how many are drawn in three planes; how many stand in a row."""

FAINT = 0.05
"""|Δu| from which a difference has its full colour; below, the brain shows through."""


def difference(
    story: Story, styles: Mapping[str, ArmStyle], plans: Sequence[str], reference: str | None
) -> bytes | None:
    """Draw the maps of difference of plans, given by name; None without an arm to compare with or without a plan."""
    arms = {arm.name: arm for arm in story.arms}
    drawn = [arms[name] for name in plans[:MOST]]
    if reference is None or not drawn:
        return None
    planes = PLANES if len(drawn) <= THREE_PLANES else ("axial",)
    maps = {
        (arm.name, plane): difference_map(_last(arm)[plane], _last(arms[reference])[plane])
        for arm in drawn
        for plane in planes
    }
    top = max(max(float(np.abs(values).max()) for values in maps.values()), 0.01)
    columns = min(len(drawn), PER_ROW)
    rows = len(planes) if len(planes) > 1 else -(-len(drawn) // columns)
    between = 0.0 if len(planes) > 1 else 0.2
    figure, axes = mosaic(story, rows, columns, planes=planes, beside=0.9, legend=True, between=between)
    for axis in (axis for line in axes for axis in line):
        axis.set_visible(False)
    for number, arm in enumerate(drawn):
        for row, plane in enumerate(planes):
            axis = axes[row][number] if len(planes) > 1 else axes[number // columns][number % columns]
            axis.set_visible(True)
            _draw(axis, story, plane, maps[arm.name, plane], top)
            contour(axis, _last(arms[reference])[plane], story.thresholds.edema, GREY, style="--", width=1.0)
            contour(axis, _last(arm)[plane], story.thresholds.edema, "black", width=1.0)
            if row == 0:
                axis.set_title(label(arm.name), fontsize=10, color=styles[arm.name].colour)
            if number == 0:
                name_sides(axis, plane, "0.2")
    bar = figure.colorbar(axes[0][0].images[-1], cax=scale_beside(figure, axes))
    bar.set_label("cell density − density without treatment", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    handles = [
        Line2D([], [], color="black", lw=1.2, label="visible tumour, this plan"),
        Line2D([], [], color=GREY, lw=1.2, ls="--", label="visible tumour, no treatment"),
    ]
    figure.legend(handles=handles, loc="lower left", ncols=2, frameon=False, fontsize=8)
    return png(figure)


def _last(arm: ArmStory) -> dict[Plane, Image]:
    return arm.density[arm.days[-1]]


def difference_map(plan: Image, untreated: Image) -> Image:
    """Return Δu: negative where the plan leaves fewer cells than no treatment."""
    return np.asarray(plan, np.float64) - untreated


def _draw(axis: Axes, story: Story, plane: Plane, values: Image, top: float) -> None:
    """Draw a pale scan and the difference on it, ±`top` at the ends of the scale."""
    low, high = story.window[story.background]
    aspect = story.sections[plane].aspect
    scan = np.where(story.head[plane] > 0.5, story.baseline[story.background][plane], high)
    axis.imshow(scan, cmap="gray", vmin=low - 1.5 * (high - low), vmax=high, aspect=aspect, interpolation="bilinear")
    opacity = np.clip(np.abs(values) / FAINT, 0, 1)
    axis.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top, alpha=opacity, aspect=aspect, interpolation="nearest")
