"""The pictures of a report, drawn with matplotlib from the sections of a story.

One colour per arm throughout (Okabe and Ito's palette, which colour-blind readers can tell apart), one grey scale per
modality, one colour scale per quantity; the same section in every picture.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from hybridtumor.slices import AXES, LETTERS, PLANES, Plane, Section
from hybridtumor.story import TELLING, ArmStory, Image, Story, core_volume, visible_volume
from hybridtumor.therapy import UNTREATED, TherapyPlan

ARM_COLOURS = ("#4d4d4d", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LEVEL_COLOURS = {"edema": "#56B4E9", "enhancing": "#E69F00", "necrosis": "#F0E442"}
LEVEL_NAMES = {"edema": "oedema", "enhancing": "enhancement", "necrosis": "necrosis"}
LEVELS_WITHOUT_ENHANCEMENT = {"edema": "oedema", "enhancing": "non-enhancing core"}
ISODOSES = ((0.95, "#F0E442"), (0.80, "#E69F00"), (0.50, "#D55E00"), (0.20, "#CC79A7"))
MOVED: tuple[Plane, ...] = ("axial", "coronal")
"""Planes in which the displacement is drawn."""

RULING, SEEN, VENTRICLE = 10.0, 0.3, "#56B4E9"
"""mm between the lines of a deformed grid; mm from which an arrow is drawn; colour of arrows and of ventricles."""

INCH, MARGIN, GAP = 2.15, 0.28, 0.04
"""Width of a section, room for a line of text, and space between two sections, inches."""


def curves(story: Story, plans: dict[str, TherapyPlan]) -> bytes:
    """Draw burden and visible volumes of all arms over time, with the days of treatment below; returns PNG.

    Where killed cells wait for clearance, the burden of living cells is a full line and that of what is imaged, living
    and damaged cells, a dashed one. The visible volumes are those of what is imaged.
    """
    panels: tuple[tuple[str, Callable[[ArmStory], tuple[Any, Any]]], ...] = (
        (
            "tumour burden ∫u dx, ml",
            lambda arm: (arm.figures["burden_curve"]["days"], arm.figures["burden_curve"]["burden_mm3"]),
        ),
        ("visible tumour (all labels), ml", lambda arm: (arm.days, visible_volume(arm.figures))),
        ("tumour core (enhancing and necrosis), ml", lambda arm: (arm.days, core_volume(arm.figures))),
    )
    treated = [arm for arm in story.arms if _treatment_days(plans.get(arm.name, UNTREATED))]
    figure = Figure(figsize=(11, 3.4 + 0.22 * len(treated)), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, height_ratios=(3.0, max(0.22 * len(treated), 0.01)))
    for column, (title, curve) in enumerate(panels):
        axis = axes[0, column]
        for number, arm in enumerate(story.arms):
            days, volume = curve(arm)
            axis.plot(
                days,
                np.asarray(volume) / 1000,
                color=arm_colour(number),
                lw=2,
                marker="o" if column else "",
                ms=4,
                label=arm.name,
            )
            imaged = None if column else arm.figures["burden_curve"].get("imaged_burden_mm3")
            if imaged is not None:
                axis.plot(days, np.asarray(imaged) / 1000, color=arm_colour(number), lw=1.4, ls=(0, (4, 2)))
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_ylim(bottom=0)
        _plain(axis)
        _treatment_strip(axes[1, column], story, treated, plans, names=column == 0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if any("imaged_burden_mm3" in arm.figures["burden_curve"] for arm in story.arms):
        handles.append(Line2D([], [], color="0.3", lw=1.4, ls=(0, (4, 2))))
        labels.append("imaged: with damaged cells")
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=min(len(handles), 6),
        frameon=False,
        fontsize=10,
    )
    return _png(figure)


def comparison(story: Story) -> bytes | None:
    """Draw the last day of every arm beside the baseline, in T1ce and FLAIR; None without images."""
    arms = [arm for arm in story.arms if arm.scans]
    if not arms:
        return None
    rows: list[str] = [name for name in TELLING if name in story.baseline]
    rows = rows or [story.background]
    figure, axes = _mosaic(story, len(rows), 1 + len(arms), lines=2)
    for row, modality in enumerate(rows):
        _show(axes[row][0], story, story.baseline[modality]["axial"], modality, letters=row == 0)
        axes[row][0].set_ylabel(modality, fontsize=10)
        for column, arm in enumerate(arms, start=1):
            last = max(arm.scans)
            _show(axes[row][column], story, arm.scans[last][modality], modality)
            if row == 0:
                axes[row][column].set_title(
                    f"{arm.name}\nday {last:g}", fontsize=10, color=arm_colour(story.arms.index(arm))
                )
    axes[0][0].set_title(f"{_scan_word(story)}\nday 0", fontsize=10)
    return _png(figure)


def follow_up(story: Story, arm: ArmStory) -> bytes | None:
    """Draw the modalities of one arm (rows) at its report days (columns), baseline first; None without images."""
    if not arm.scans:
        return None
    days = sorted(arm.scans)
    figure, axes = _mosaic(story, len(story.modalities), 1 + len(days))
    for row, modality in enumerate(story.modalities):
        _show(axes[row][0], story, story.baseline[modality]["axial"], modality, letters=row == 0)
        axes[row][0].set_ylabel(modality, fontsize=10)
        for column, day in enumerate(days, start=1):
            _show(axes[row][column], story, arm.scans[day][modality], modality)
            if row == 0:
                axes[row][column].set_title(f"day {day:g}", fontsize=10)
    axes[0][0].set_title(f"day 0 ({_scan_word(story)})", fontsize=10)
    return _png(figure)


def density(story: Story, arm: ArmStory) -> bytes:
    """Draw the predicted cell density of one arm over the baseline scan: planes in rows, report days in columns."""
    figure, axes = _mosaic(story, len(PLANES), len(arm.days), planes=PLANES, legend=True)
    for row, plane in enumerate(PLANES):
        for column, day in enumerate(arm.days):
            axis = axes[row][column]
            _show(axis, story, story.baseline[story.background][plane], story.background, plane, letters=column == 0)
            _wash(axis, story, arm.density[day][plane], plane, maximum=1.0)
            _contours(axis, story, arm.density[day][plane])
            if row == 0:
                axis.set_title(f"day {day:g}", fontsize=10)
    handles = [
        Line2D([], [], color=LEVEL_COLOURS[name], lw=1.6, label=f"u = {getattr(story.thresholds, name):.2f} ({seen})")
        for name, seen in _levels(story).items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=9)
    return _png(figure)


def dose(story: Story, arm: ArmStory) -> bytes | None:
    """Draw the dose of one arm with isodose lines over the baseline scan, in three planes; None without radiation."""
    if arm.dose is None or arm.dose_maximum <= 0:
        return None
    prescribed = float((arm.figures.get("dose") or {}).get("prescribed_Gy") or arm.dose_maximum)
    figure, axes = _mosaic(story, 1, 3, planes=PLANES, legend=True, inch=3.0)
    for column, plane in enumerate(PLANES):
        axis = axes[0][column]
        _show(axis, story, story.baseline[story.background][plane], story.background, plane, letters=True)
        _wash(axis, story, arm.dose[plane], plane, maximum=arm.dose_maximum, floor=0.1 * prescribed)
        for share, colour in ISODOSES:
            _contour(axis, arm.dose[plane], share * prescribed, colour)
        _contour(axis, arm.density[arm.days[0]][plane], story.thresholds.edema, "white", style="--")
        axis.set_title(plane, fontsize=10)
    handles = [Line2D([], [], color=c, lw=1.6, label=f"{s * prescribed:.0f} Gy ({s:.0%})") for s, c in ISODOSES]
    handles.append(Line2D([], [], color="0.5", lw=1.2, ls="--", label="visible tumour, day 0"))
    figure.legend(handles=handles, loc="lower center", ncols=5, frameon=False, fontsize=8)
    return _png(figure)


def mass_effect(story: Story, arm: ArmStory) -> bytes | None:
    """Draw how far the tissue has moved on the last day of one arm; None when nothing has moved.

    Columns: the baseline; the baseline carried along, with lines that were straight on day 0 and the ventricles' edge;
    the displacement, with arrows that end where the tissue is.
    """
    moved = arm.moved
    if moved is None:
        return None
    top = max(float(_length(one.moved.shift[p]).max()) for one in story.arms if one.moved is not None for p in MOVED)
    figure, axes = _mosaic(story, len(MOVED), 3, planes=MOVED, lines=2, beside=0.9, inch=3.0)
    for row, plane in enumerate(MOVED):
        shift, origin = moved.shift[plane], moved.origin[plane]
        _show(axes[row][0], story, story.baseline[story.background][plane], story.background, plane, letters=True)
        _show(axes[row][1], story, moved.scan[plane], story.background, plane)
        _rulings(axes[row][0], origin + shift, plane)
        _rulings(axes[row][1], origin, plane)
        _contour(axes[row][0], moved.before[plane], 0.5, VENTRICLE, style="--")
        _contour(axes[row][1], moved.before[plane], 0.5, VENTRICLE, style="--", width=0.8)
        _contour(axes[row][1], moved.now[plane], 0.5, VENTRICLE)
        aspect = story.sections[plane].aspect
        map_ = axes[row][2].imshow(_length(shift), cmap="magma", vmin=0, vmax=top, aspect=aspect)
        _contour(axes[row][2], story.head[plane], 0.5, "0.6", width=0.8)
        _arrows(axes[row][2], shift, story.sections[plane])
    for column, title in enumerate(
        (f"{_scan_word(story)}\nday 0", f"carried along\nday {moved.day:g}", "displacement")
    ):
        axes[0][column].set_title(title, fontsize=10)
    edge = max(line[-1].get_position().x1 for line in axes)
    place = figure.add_axes((edge + 0.12 / figure.get_figwidth(), 0.15, 0.14 / figure.get_figwidth(), 0.7))
    bar = figure.colorbar(map_, cax=place)
    bar.set_label("displacement, mm", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return _png(figure)


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
    style: dict[str, Any] = {
        "angles": "xy",
        "scale_units": "xy",
        "scale": 0.5,
        "pivot": "tip",
        "width": 0.004,
        "color": VENTRICLE,
    }
    axis.quiver(columns[seen], rows[seen], right, below, **style)


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
    figure, axes = _mosaic(story, len(rows), len(days), beside=0.9)
    for row, modality in enumerate(rows):
        for column, day in enumerate(days):
            axis = axes[row][column]
            picture = axis.imshow(
                _share(story, arm, modality, day),
                cmap="inferno",
                norm=norm,
                aspect=story.sections["axial"].aspect,
                interpolation="nearest",
            )
            _contour(axis, story.head["axial"], 0.5, "0.45", width=0.8)
            _contour(axis, arm.density[day]["axial"], story.thresholds.edema, "white", style="--", width=0.8)
            if row == 0:
                axis.set_title(f"day {day:g}", fontsize=10)
        axes[row][0].set_ylabel(modality, fontsize=10)
    box = axes[-1][-1].get_position()
    place = figure.add_axes((box.x1 + 0.12 / figure.get_figwidth(), 0.15, 0.14 / figure.get_figwidth(), 0.7))
    bar = figure.colorbar(picture, cax=place)
    bar.set_label("standard deviation / grey scale", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return _png(figure)


def _share(story: Story, arm: ArmStory, modality: str, day: float) -> Image:
    """Return the spread of a modality on a day as a share of its grey scale."""
    low, high = story.window[modality]
    return np.asarray(arm.spread[day][modality] / (high - low))


def _mosaic(
    story: Story,
    rows: int,
    columns: int,
    *,
    planes: Sequence[Plane] = ("axial",),
    lines: int = 1,
    legend: bool = False,
    beside: float = 0.0,
    inch: float = INCH,
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
    """
    sizes = [_size(story, plane) for plane in planes]
    scale = inch / max(width for _, width in sizes)
    in_one_row = len(planes) == columns and rows == 1
    cells = [[sizes[c if in_one_row else r % len(sizes)] for c in range(columns)] for r in range(rows)]
    heights = [scale * max(height for height, _ in line) for line in cells]
    widths = [scale * max(line[c][1] for line in cells) for c in range(columns)]
    top, bottom = MARGIN * (0.3 + 0.7 * lines), MARGIN * 1.3 if legend else 0.02
    total = (MARGIN + sum(widths) + GAP * columns + beside, top + sum(heights) + GAP * rows + bottom)
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
        upper -= height + GAP
    return figure, axes


def _size(story: Story, plane: Plane) -> tuple[float, float]:
    """Return height and width of a section, mm."""
    height, width = story.baseline[story.background][plane].shape
    section = story.sections[plane]
    return height * section.pixel[0], width * section.pixel[1]


def _show(
    axis: Axes, story: Story, image: Image, modality: str, plane: Plane = "axial", *, letters: bool = False
) -> None:
    low, high = story.window[modality]
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=story.sections[plane].aspect, interpolation="bilinear")
    if letters:
        for x, align, letter in ((0.02, "left", LETTERS[plane][0]), (0.98, "right", LETTERS[plane][1])):
            axis.text(
                x,
                0.5,
                letter,
                transform=axis.transAxes,
                color="white",
                ha=align,
                va="center",
                fontsize=9,
                path_effects=_halo(),
            )


def _wash(axis: Axes, story: Story, values: Image, plane: Plane, *, maximum: float, floor: float = 0.02) -> None:
    """Colour an image where a field is above a floor, more strongly where it is larger."""
    share = np.clip(np.asarray(values, float) / maximum, 0, 1)
    alpha = np.where(values > floor, 0.10 + 0.25 * share, 0.0)
    axis.imshow(
        share, cmap="plasma", vmin=0, vmax=1, alpha=alpha, aspect=story.sections[plane].aspect, interpolation="bilinear"
    )


def _contours(axis: Axes, story: Story, values: Image) -> None:
    for name in _levels(story):
        _contour(axis, values, getattr(story.thresholds, name), LEVEL_COLOURS[name])


def _contour(axis: Axes, values: Image, level: float, colour: str, *, style: str = "-", width: float = 1.2) -> None:
    if values.min() < level < values.max():
        axis.contour(values, levels=[level], colors=[to_rgba(colour)], linestyles=[style], linewidths=width)


def _levels(story: Story) -> dict[str, str]:
    """Return threshold to what the tumour shows as above it."""
    return LEVEL_NAMES if story.enhances else LEVELS_WITHOUT_ENHANCEMENT


def _treatment_days(plan: TherapyPlan) -> tuple[list[float], list[float]] | None:
    """Return days of fractions and days of drug, or None when nothing is given."""
    radiation = [day for course in plan.active.courses for day in course.fraction_days]
    drug = [day for day, _ in plan.active.drug_doses]
    return (radiation, drug) if radiation or drug else None


def _treatment_strip(
    axis: Axes, story: Story, treated: list[ArmStory], plans: dict[str, TherapyPlan], *, names: bool
) -> None:
    """Mark the days of radiation (tall) and drug (short) of every treated arm under a curve."""
    last = max(arm.days[-1] for arm in story.arms)
    for line, arm in enumerate(reversed(treated)):
        radiation, drug = _treatment_days(plans[arm.name]) or ([], [])
        colour = arm_colour(story.arms.index(arm))
        axis.vlines([d for d in drug if d <= last], line - 0.42, line - 0.12, color=colour, lw=1.0, alpha=0.6)
        axis.vlines([d for d in radiation if d <= last], line - 0.05, line + 0.42, color=colour, lw=1.4)
    axis.set_ylim(-0.6, max(len(treated), 1) - 0.4)
    axis.set_yticks(
        range(len(treated)), [arm.name for arm in reversed(treated)] if names else [""] * len(treated), fontsize=8
    )
    axis.tick_params(axis="y", length=0)
    axis.set_xticks(sorted({day for arm in story.arms for day in arm.days}))
    axis.set_xlabel("days since the baseline scan", fontsize=8)
    _plain(axis, grid=False)
    axis.spines["left"].set_visible(False)


def _plain(axis: Axes, *, grid: bool = True) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.01)
    if grid:
        axis.grid(axis="y", color="0.9", lw=0.8)
        axis.set_axisbelow(True)


def _scan_word(story: Story) -> str:
    return "virtual scan" if story.synthetic else "scan"


NOTICE = "model output by hybridtumor · follow-up images are synthetic · research use only"
"""Stands under every picture, because pictures travel without their report."""


DPI, STRIP = 110, 18
"""Pixels per inch of a picture, and pixels of the strip that holds the notice."""


def arm_colour(number: int) -> str:
    """Return the colour of an arm, the same in every picture."""
    return ARM_COLOURS[number % len(ARM_COLOURS)]


def _halo() -> list[withStroke]:
    return [withStroke(linewidth=2, foreground="black")]


def _png(figure: Figure) -> bytes:
    """Draw a figure, with the notice in a strip below it."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    height, width = pixels.shape[0] + STRIP, pixels.shape[1]
    framed = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    framed.figimage(pixels, 0, STRIP)
    framed.text(1 - 6 / width, 5 / height, NOTICE, ha="right", va="bottom", fontsize=7, color="0.45")
    FigureCanvasAgg(framed)
    buffer = BytesIO()
    framed.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
