"""The trade-off: burden on the last day against the mean dose to the normal brain, one point per plan."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridtumor.plots_frame import plain, png
from hybridtumor.plots_labels import name_points
from hybridtumor.plots_style import GREY, ArmStyle
from hybridtumor.report_outcomes import Outcome, pareto, reference

WIDE_RANGE = 20.0
"""Ratio of the largest to the smallest burden from which the axis is logarithmic."""

BELOW = 1e-3
"""ml. Smaller burdens stand at the foot of a logarithmic axis."""


def trade_off(arms: Sequence[Outcome], styles: Mapping[str, ArmStyle]) -> bytes | None:
    """Draw the plans whose dose to the brain is known, and join those that no other beats; None for less than two.

    Nor is there a trade-off when no plan irradiates the brain.
    """
    drawn = [arm for arm in arms if arm.treated and arm.brain is not None]
    if len(drawn) < 2 or not any(arm.brain for arm in drawn):
        return None
    figure = Figure(figsize=(9, 5.2 if len(drawn) <= 8 else 6.4))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.93, bottom=0.1)
    axis = figure.subplots()
    joined = pareto(drawn)
    points = {arm.name: (arm.brain or 0.0, height(arm)) for arm in drawn}
    axis.plot(*zip(*(points[arm.name] for arm in joined), strict=True), color="0.75", lw=4, zorder=1)
    for arm in drawn:
        style = styles[arm.name]
        axis.plot(*points[arm.name], marker=style.marker, color=style.colour, ms=8, ls="", zorder=3)
    free = reference(arms)
    burden_axis(axis, [*drawn, *([] if free is None else [free])])
    axis.set_xlabel("mean EQD2 of the normal brain, Gy (α/β 3 Gy)", fontsize=9)
    plain(axis)
    axis.margins(x=0.12)
    names = [arm.name for arm in drawn]
    handles = [Line2D([], [], color="0.75", lw=4, label="no plan has both less burden and less dose to the brain")]
    handles += untreated_line(axis, free)
    figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, fontsize=9)
    name_points(figure, axis, [points[name] for name in names], names)
    return png(figure)


def height(arm: Outcome) -> float:
    """Return where an arm stands on an axis of burden, ml."""
    return max(arm.burden / 1000, BELOW)


def burden_axis(axis: Axes, arms: Sequence[Outcome]) -> None:
    """Let the vertical axis show the burdens of arms on their last day, logarithmically when they lie far apart."""
    heights = [height(arm) for arm in arms]
    if max(heights) > WIDE_RANGE * min(heights):
        axis.set_yscale("log")
        axis.set_ylim(min(heights) / 1.6, max(heights) * 1.6)
    else:
        axis.set_ylim(0, 1.12 * max(heights))
    axis.set_ylabel(f"tumour burden on day {arms[0].day:g}, ml", fontsize=9)


def untreated_line(axis: Axes, free: Outcome | None) -> list[Line2D]:
    """Draw the burden without treatment across the axis; returns what a legend shows for it."""
    if free is None:
        return []
    axis.axhline(height(free), color=GREY, lw=1.2, ls="--", zorder=2)
    return [Line2D([], [], color=GREY, lw=1.2, ls="--", label="no treatment")]
