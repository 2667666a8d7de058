"""What dose does: dose-volume histograms of all arms over one another, and burden against the dose to the tumour."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridtumor.plots_frame import label, plain, png
from hybridtumor.plots_labels import name_points
from hybridtumor.plots_style import ArmStyle, key
from hybridtumor.plots_tradeoff import burden_axis, height, untreated_line
from hybridtumor.report_outcomes import Outcome, reference

MOST_STRUCTURES = 11
"""Structures that get a panel of their own."""

Histogram = Mapping[str, Mapping[str, Sequence[float]]]


def dose_volume(figures: Mapping[str, Mapping[str, Any]], styles: Mapping[str, ArmStyle]) -> bytes | None:
    """Draw the histograms of all arms, given their figures by name; None when no arm has any.

    Tumour and brain share a panel, every other structure has its own. Arms with the same histograms share a line.
    """
    alike = _alike({name: entry["dvh"] for name, entry in figures.items() if entry.get("dvh")})
    if not alike:
        return None
    histograms: dict[str, Histogram] = {names[0]: figures[names[0]]["dvh"] for names in alike}
    others = list(dict.fromkeys(s for found in histograms.values() for s in found if s not in ("tumour", "brain")))
    panels = [("tumour and brain", ("tumour", "brain")), *((name, (name,)) for name in others[:MOST_STRUCTURES])]
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(8.0 if columns < 3 else 11, 3.9 if rows == 1 else 2.9 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, structures) in zip(axes.flat, panels, strict=False):
        for name, found in histograms.items():
            for structure in structures:
                _histogram(axis, found.get(structure), styles[name], dashed=structure == "brain")
        axis.set_title(label(title), fontsize=10, loc="left")
        axis.set_xlabel("dose, Gy", fontsize=8)
        axis.tick_params(labelbottom=True)
        axis.set_ylim(0, 1.03)
        axis.set_xlim(left=0)
        axis.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        plain(axis)
    handles = key([names[0] for names in alike], styles)
    for handle, names in zip(handles, alike, strict=True):
        handle.set_label(_names(names))
    handles += [Line2D([], [], color="0.3", ls=ls, label=of) for of, ls in (("tumour", "-"), ("brain", (0, (4, 2))))]
    widest = max(len(str(handle.get_label())) for handle in handles)
    ncols = max(1, min(len(handles), 6, (105 if columns < 3 else 150) // (widest + 9)))
    figure.legend(handles=handles, loc="outside upper left", ncols=ncols, frameon=False, fontsize=9)
    return png(figure)


def dose_response(arms: Sequence[Outcome], styles: Mapping[str, ArmStyle]) -> bytes | None:
    """Draw burden against BED, a line for each schedule; None unless three irradiated arms differ in BED."""
    drawn = [arm for arm in arms if arm.treated and arm.bed > 0]
    if len({round(arm.bed, 3) for arm in drawn}) < 3:
        return None
    figure = Figure(figsize=(9, 4.8 if len(drawn) <= 8 else 5.6))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.93, bottom=0.11)
    axis = figure.subplots()
    ordered = sorted(drawn, key=lambda arm: (arm.schedule, arm.bed))
    lines = {name: list(group) for name, group in groupby(ordered, key=lambda arm: arm.schedule)}
    for group in lines.values():
        axis.plot([arm.bed for arm in group], [height(arm) for arm in group], color="0.75", lw=1.6, zorder=1)
    for arm in drawn:
        style = styles[arm.name]
        axis.plot(arm.bed, height(arm), marker=style.marker, color=style.colour, ms=8, ls="", zorder=3)
    free = reference(arms)
    burden_axis(axis, [*drawn, *([] if free is None else [free])])
    axis.set_xlabel("BED of the prescription for the tumour, Gy", fontsize=9)
    plain(axis)
    axis.margins(x=0.1)
    handles = untreated_line(axis, free)
    if handles:
        figure.legend(handles=handles, loc="upper right", frameon=False, fontsize=9)
    ends = {group[-1].name for group in lines.values()}
    names = [arm.schedule if arm.name in ends else "" for arm in drawn]
    name_points(figure, axis, [(arm.bed, height(arm)) for arm in drawn], names)
    return png(figure)


def _histogram(axis: Axes, found: Mapping[str, Sequence[float]] | None, style: ArmStyle, *, dashed: bool) -> None:
    """Draw one cumulative histogram, with a few markers where another arm may have the same colour."""
    if not found or not found.get("dose_Gy"):
        return
    doses, shares = np.append(found["dose_Gy"], found["dose_Gy"][-1]), np.append(found["share"], 0.0)
    every = max(len(doses) // 8, 1)
    axis.plot(
        doses, shares, color=style.colour, lw=1.6, ls=(0, (4, 2)) if dashed else "-", alpha=0.9,
        marker=style.marker if style.kind else "", ms=4, markevery=every,
    )  # fmt: skip


def _alike(histograms: Mapping[str, Histogram]) -> list[list[str]]:
    """Return the arms in groups of the same histograms."""
    groups: dict[str, list[str]] = {}
    for name, found in histograms.items():
        groups.setdefault(json.dumps(found, sort_keys=True), []).append(name)
    return list(groups.values())


def _names(names: Sequence[str]) -> str:
    """Return what a legend says of arms that share a line."""
    return label(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
