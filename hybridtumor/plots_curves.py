"""The curves of a report: burden and visible volumes over time, and below them the days of treatment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridtumor.plots_frame import label, plain, png
from hybridtumor.plots_style import GREY, ArmStyle, key, schedule
from hybridtumor.story import ArmStory, Story, core_volume, visible_volume
from hybridtumor.therapy import TherapyPlan

FEW_LINES = 8
"""Arms up to which a line needs no dashes to be told apart, and up to which the imaged burden is drawn beside it."""

MOST_STRIPS = 12
"""Strips of treatment days that are drawn."""

Days = tuple[tuple[float, ...], tuple[float, ...]]


def curves(story: Story, plans: Mapping[str, TherapyPlan], styles: Mapping[str, ArmStyle]) -> bytes:
    """Draw burden and visible volumes of all arms over time, with the days of treatment below; returns PNG.

    Where killed cells wait for clearance, the burden of living cells is a full line and that of what is imaged, living
    and damaged cells, a dashed one, as long as the arms are few. The visible volumes are those of what is imaged.
    """
    panels: tuple[tuple[str, Callable[[ArmStory], tuple[Any, Any]]], ...] = (
        (
            "tumour burden ∫u dx, ml",
            lambda arm: (arm.figures["burden_curve"]["days"], arm.figures["burden_curve"]["burden_mm3"]),
        ),
        ("visible tumour (all labels), ml", lambda arm: (arm.days, visible_volume(arm.figures))),
        ("tumour core (enhancing and necrosis), ml", lambda arm: (arm.days, core_volume(arm.figures))),
    )
    strips = _strips(story, plans)
    many = len(story.arms) > FEW_LINES
    figure = Figure(figsize=(11, (4.6 if many else 3.4) + 0.22 * len(strips)), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, height_ratios=(3.0, max(0.22 * len(strips), 0.01)))
    for column, (title, curve) in enumerate(panels):
        for arm in story.arms:
            _line(axes[0, column], curve(arm), styles[arm.name], many=many, marked=column > 0)
            imaged = None if column or many else arm.figures["burden_curve"].get("imaged_burden_mm3")
            if imaged is not None:
                days = arm.figures["burden_curve"]["days"]
                axes[0, 0].plot(days, np.asarray(imaged) / 1000, color=styles[arm.name].colour, lw=1.4, ls=(0, (4, 2)))
        axes[0, column].set_title(title, fontsize=10, loc="left")
        axes[0, column].set_ylim(bottom=0)
        plain(axes[0, column])
        _draw_strips(axes[1, column], story, strips, styles, names=column == 0)
    _legend(figure, story, styles, many=many)
    return png(figure)


def _legend(figure: Figure, story: Story, styles: Mapping[str, ArmStyle], *, many: bool) -> None:
    """Name the lines above the panels, in full columns."""
    handles = key([arm.name for arm in story.arms], styles, dashed=many)
    if not many and any("imaged_burden_mm3" in arm.figures["burden_curve"] for arm in story.arms):
        handles.append(Line2D([], [], color="0.3", lw=1.4, ls=(0, (4, 2)), label="imaged: with damaged cells"))
    widest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), 6, 150 // (widest + 9)))
    if many:
        handles.sort(key=lambda handle: handle.get_color() == GREY)
        handles += [Line2D([], [], ls="", label=" ") for _ in range(-len(handles) % columns)]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=9 if many else 10,
        handlelength=4.0 if many else 2.0,
    )


def _line(axis: Axes, curve: tuple[Any, Any], style: ArmStyle, *, many: bool, marked: bool) -> None:
    """Draw one arm's curve, mm³ over days, in ml; `marked` shows the days on which it is known."""
    axis.plot(
        curve[0],
        np.asarray(curve[1]) / 1000,
        color=style.colour,
        lw=1.5 if many else 2,
        ls=style.dashes if many else "-",
        marker=style.marker if marked else "",
        ms=4,
    )


def _treatment_days(plan: TherapyPlan) -> Days:
    """Return days of fractions and days of drug."""
    radiation = tuple(day for course in plan.active.courses for day in course.fraction_days)
    return radiation, tuple(day for day, _ in plan.active.drug_doses)


def _strips(story: Story, plans: Mapping[str, TherapyPlan]) -> dict[Days, list[str]]:
    """Return the days of treatment that occur, each with the arms that are treated on them."""
    found: dict[Days, list[str]] = {}
    for arm in story.arms:
        days = _treatment_days(plans[arm.name])
        if any(days):
            found.setdefault(days, []).append(arm.name)
    few = len(found) <= MOST_STRIPS
    named = {days: names if len(names) == 1 else [schedule(plans[names[0]]), *names] for days, names in found.items()}
    return named if few else dict(list(named.items())[:MOST_STRIPS])


def _draw_strips(
    axis: Axes, story: Story, strips: Mapping[Days, Sequence[str]], styles: Mapping[str, ArmStyle], *, names: bool
) -> None:
    """Mark the days of radiation (tall) and drug (short) under a curve; arms with the same days share a strip."""
    last = max(arm.days[-1] for arm in story.arms)
    lines = list(strips.items())[::-1]
    for height, ((radiation, drug), who) in enumerate(lines):
        colour = styles[who[0]].colour if len(who) == 1 else "0.35"
        axis.vlines([d for d in drug if d <= last], height - 0.42, height - 0.12, color=colour, lw=1.0, alpha=0.6)
        axis.vlines([d for d in radiation if d <= last], height - 0.05, height + 0.42, color=colour, lw=1.4)
    axis.set_ylim(-0.6, max(len(lines), 1) - 0.4)
    axis.set_yticks(range(len(lines)), [label(who[0]) if names else "" for _, who in lines], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.set_xticks(sorted({day for arm in story.arms for day in arm.days}))
    axis.set_xlabel("days since the baseline scan", fontsize=8)
    plain(axis, grid=False)
    axis.spines["left"].set_visible(False)
