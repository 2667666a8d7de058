"""The fan of an ensemble: burden over time, and on the last day, as median and 90 % band of every arm."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridtumor.plots_frame import label, plain, png
from hybridtumor.plots_style import ArmStyle, key

MOST_BANDS = 6
"""Arms up to which bands can be told apart; of more, the medians alone are drawn over time."""

OPACITY = 0.16


def fan(figures: Mapping[str, Any], styles: Mapping[str, ArmStyle]) -> bytes:
    """Draw the figures of draws (``draws.json``) of all arms; returns PNG."""
    arms: Mapping[str, Any] = figures["arms"]
    figure = Figure(figsize=(11, 3.9 + 0.22 * max(len(arms) - 6, 0)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _curves(left, arms, styles)
    left.set_xticks(figures["days"])
    _last_day(right, arms, styles, float(figures["days"][-1]))
    figure.legend(
        handles=key(list(arms), styles), loc="outside upper left", ncols=min(len(arms), 5), frameon=False, fontsize=10
    )
    return png(figure)


def _curves(axis: Axes, arms: Mapping[str, Any], styles: Mapping[str, ArmStyle]) -> None:
    banded = len(arms) <= MOST_BANDS
    for name, arm in arms.items():
        curve, style = arm["burden_curve"], styles[name]
        low, median, high = (np.asarray(curve[edge]) / 1000 for edge in ("low", "median", "high"))
        if banded:
            axis.fill_between(curve["days"], low, high, color=style.colour, alpha=OPACITY, lw=0)
            for edge in (low, high):
                axis.plot(curve["days"], edge, color=style.colour, lw=0.7, alpha=0.7)
        axis.plot(curve["days"], median, color=style.colour, lw=2)
    band = "median and 90 % band" if banded else "median"
    axis.set_title(f"tumour burden ∫u dx, ml: {band}", fontsize=10, loc="left")
    axis.set_xlabel("days since the baseline scan", fontsize=8)
    axis.set_ylim(bottom=0)
    plain(axis)


def _last_day(axis: Axes, arms: Mapping[str, Any], styles: Mapping[str, ArmStyle], day: float) -> None:
    """Draw a bar from the 5 % to the 95 % quantile of every arm, and its median."""
    rows = list(arms)[::-1]
    for row, name in enumerate(rows):
        low, median, high = (arms[name]["burden_mm3"][edge][-1] / 1000 for edge in ("low", "median", "high"))
        axis.plot([low, high], [row, row], color=styles[name].colour, lw=5, alpha=0.35, solid_capstyle="butt")
        axis.plot(median, row, color=styles[name].colour, marker=styles[name].marker, ms=8)
    axis.set_yticks(range(len(rows)), [label(name) for name in rows], fontsize=8)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlim(left=0)
    axis.set_title(f"burden on day {day:g}, ml: median and 90 % interval", fontsize=10, loc="left")
    plain(axis, grid=False)
    axis.grid(axis="x", color="0.9", lw=0.8)
