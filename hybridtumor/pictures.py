"""The sections of a report: scans, tumour cell density, dose and spread of each arm, the arms beside one another.

One colour per arm throughout, one grey scale per modality, one colour scale per quantity; the same section in every
picture.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.lines import Line2D

from hybridtumor.pictures_frame import contour, mosaic, scale_beside, scan_word, show, wash
from hybridtumor.plots_frame import label, png
from hybridtumor.plots_style import ArmStyle
from hybridtumor.slices import PLANES
from hybridtumor.story import TELLING, ArmStory, Image, Story

LEVEL_COLOURS = {"edema": "#56B4E9", "enhancing": "#E69F00", "necrosis": "#F0E442"}
LEVEL_NAMES = {"edema": "oedema", "enhancing": "enhancement", "necrosis": "necrosis"}
LEVELS_WITHOUT_ENHANCEMENT = {"edema": "oedema", "enhancing": "non-enhancing core"}
ISODOSES = ((0.95, "#F0E442"), (0.80, "#E69F00"), (0.50, "#D55E00"), (0.20, "#CC79A7"))


def comparison(story: Story, styles: Mapping[str, ArmStyle]) -> bytes | None:
    """Draw a sample of the last day of every arm beside the baseline, in T1ce and FLAIR; None without images."""
    arms = [arm for arm in story.arms if arm.scans]
    if not arms:
        return None
    rows: list[str] = [name for name in TELLING if name in story.baseline]
    rows = rows or [story.background]
    figure, axes = mosaic(story, len(rows), 1 + len(arms), lines=2)
    for row, modality in enumerate(rows):
        show(axes[row][0], story, story.baseline[modality]["axial"], modality, letters=row == 0)
        axes[row][0].set_ylabel(modality, fontsize=10)
        for column, arm in enumerate(arms, start=1):
            last = max(arm.scans)
            show(axes[row][column], story, arm.scans[last][modality], modality)
            if row == 0:
                title = f"{label(arm.name)}\nday {last:g}"
                axes[row][column].set_title(title, fontsize=10, color=styles[arm.name].colour)
    axes[0][0].set_title(f"{scan_word(story)}\nday 0", fontsize=10)
    return png(figure)


def follow_up(story: Story, arm: ArmStory) -> bytes | None:
    """Draw a sample of one arm, modalities in rows, report days in columns, baseline first; None without images."""
    if not arm.scans:
        return None
    days = sorted(arm.scans)
    figure, axes = mosaic(story, len(story.modalities), 1 + len(days))
    for row, modality in enumerate(story.modalities):
        show(axes[row][0], story, story.baseline[modality]["axial"], modality, letters=row == 0)
        axes[row][0].set_ylabel(modality, fontsize=10)
        for column, day in enumerate(days, start=1):
            show(axes[row][column], story, arm.scans[day][modality], modality)
            if row == 0:
                axes[row][column].set_title(f"day {day:g}", fontsize=10)
    axes[0][0].set_title(f"day 0 ({scan_word(story)})", fontsize=10)
    return png(figure)


def density(story: Story, arm: ArmStory) -> bytes:
    """Draw the predicted cell density of one arm over the baseline scan: planes in rows, report days in columns."""
    figure, axes = mosaic(story, len(PLANES), len(arm.density), planes=PLANES, legend=True)
    levels = LEVEL_NAMES if story.enhances else LEVELS_WITHOUT_ENHANCEMENT
    for row, plane in enumerate(PLANES):
        for column, (day, cuts) in enumerate(arm.density.items()):
            axis = axes[row][column]
            show(axis, story, story.baseline[story.background][plane], story.background, plane, letters=column == 0)
            wash(axis, story, cuts[plane], plane, maximum=1.0)
            for name in levels:
                contour(axis, cuts[plane], getattr(story.thresholds, name), LEVEL_COLOURS[name])
            if row == 0:
                axis.set_title(f"day {day:g}", fontsize=10)
    handles = [
        Line2D([], [], color=LEVEL_COLOURS[name], lw=1.6, label=f"u = {getattr(story.thresholds, name):.2f} ({seen})")
        for name, seen in levels.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=9)
    return png(figure)


def dose(story: Story, arm: ArmStory) -> bytes | None:
    """Draw the dose of one arm with isodose lines over the baseline scan, in three planes; None without radiation."""
    if arm.dose is None or arm.dose_maximum <= 0:
        return None
    prescribed = float((arm.figures.get("dose") or {}).get("prescribed_Gy") or arm.dose_maximum)
    figure, axes = mosaic(story, 1, 3, planes=PLANES, legend=True, inch=3.0)
    for column, plane in enumerate(PLANES):
        axis = axes[0][column]
        show(axis, story, story.baseline[story.background][plane], story.background, plane, letters=True)
        wash(axis, story, arm.dose[plane], plane, maximum=arm.dose_maximum, floor=0.1 * prescribed)
        for share, colour in ISODOSES:
            contour(axis, arm.dose[plane], share * prescribed, colour)
        contour(axis, arm.density[arm.days[0]][plane], story.thresholds.edema, "white", style="--")
        axis.set_title(plane, fontsize=10)
    handles = [Line2D([], [], color=c, lw=1.6, label=f"{s * prescribed:.0f} Gy ({s:.0%})") for s, c in ISODOSES]
    handles.append(Line2D([], [], color="0.5", lw=1.2, ls="--", label="visible tumour, day 0"))
    figure.legend(handles=handles, loc="lower center", ncols=5, frameon=False, fontsize=8)
    return png(figure)


def spread(story: Story, arm: ArmStory) -> bytes | None:
    """Draw the standard deviation over the ensemble, as a share of the grey scale; None without an ensemble."""
    days = sorted(arm.spread)
    rows = [name for name in TELLING if name in story.baseline]
    if not days or not rows:
        return None
    top = max(
        float(np.percentile(_share(story, one, m, d), 99.9)) for one in story.arms for d in one.spread for m in rows
    )
    if top <= 0:
        return None
    norm = PowerNorm(0.5, 0, top)
    figure, axes = mosaic(story, len(rows), len(days), beside=0.9)
    for row, modality in enumerate(rows):
        for column, day in enumerate(days):
            axis, values = axes[row][column], _share(story, arm, modality, day)
            aspect = story.sections["axial"].aspect
            picture = axis.imshow(values, cmap="inferno", norm=norm, aspect=aspect, interpolation="nearest")
            contour(axis, story.head["axial"], 0.5, "0.45", width=0.8)
            contour(axis, arm.density[day]["axial"], story.thresholds.edema, "white", style="--", width=0.8)
            if row == 0:
                axis.set_title(f"day {day:g}", fontsize=10)
        axes[row][0].set_ylabel(modality, fontsize=10)
    bar = figure.colorbar(picture, cax=scale_beside(figure, axes))
    bar.set_label("standard deviation / grey scale", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return png(figure)


def _share(story: Story, arm: ArmStory, modality: str, day: float) -> Image:
    """Return the spread of a modality on a day as a share of its grey scale."""
    low, high = story.window[modality]
    return np.asarray(arm.spread[day][modality] / (high - low))
