"""Pictures of a calibration: where descents ended, what the posterior looks like, and how far it moved from the prior.

Waterfall plot after Raue et al., PLoS ONE 2013: the ends of all descents, sorted; a flat start of the curve says that
many starts found the same minimum.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray
from scipy import stats

from hybridtumor.calibration.estimation import Multistart
from hybridtumor.calibration.posterior import Laplace
from hybridtumor.calibration.unknowns import Priors, Unknown
from hybridtumor.errors import InputError
from hybridtumor.plots_frame import label, plain, png
from hybridtumor.plots_style import COLOURS, GREY

Array = NDArray[np.float64]

BLUE, RED = COLOURS[0], COLOURS[1]

LEVELS = (0.5, 0.9)
"""Probabilities inside the ellipses of a corner plot."""

SAME = 0.5
"""Natural logarithms within which two ends are equally probable for practical purposes."""

SHOWN_DRAWS = 600
"""Draws that a panel of a corner plot shows."""

REACH = 2.8
"""Standard deviations that a panel shows on either side."""

TITLES: Mapping[str, str] = {
    "diffusion_white": "D white",
    "grey_ratio": "D grey / D white",
    "proliferation": "ρ",
    "alpha": "α",
    "temozolomide": "temozolomide kill",
    "threshold_edema": "threshold of oedema",
    "threshold_enhancing": "threshold of core",
}
"""Names of unknowns as pictures write them."""


def waterfall(found: Multistart) -> bytes:
    """Draw the ends of all descents above the best one, sorted; returns PNG.

    An end that did not converge is an open triangle, one that could not start stands at the top edge as a cross.
    """
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axis = figure.subplots()
    ends = sorted(found.ends, key=lambda end: end.value)
    above = np.array([end.value - found.best.value for end in ends])
    finite, sound = np.isfinite(above), np.array([end.converged for end in ends])
    top = max(10.0, 2.0 * float(above[finite].max()))
    rank, height = np.arange(1, len(ends) + 1), np.where(finite, above, top / 1.3)
    axis.set_yscale("symlog", linthresh=0.1, linscale=0.6)
    axis.set_ylim(-0.02, top)
    axis.axhspan(-0.02, SAME, color="0.93", lw=0)
    axis.plot(rank[finite], above[finite], color="0.8", lw=1, zorder=1)
    for mask, colour, marker, face in (
        (finite & sound, BLUE, "o", BLUE), (finite & ~sound, RED, "^", "none"), (~finite, GREY, "x", GREY),
    ):  # fmt: skip
        axis.plot(rank[mask], height[mask], ls="", marker=marker, ms=6, mec=colour, mfc=face, zorder=2)
    same = f"{found.share_at_best(SAME):.0%} within {SAME:g} of the best"
    axis.set_title(f"{len(ends)} descents, {found.evaluations} evaluations; {same}", fontsize=10, loc="left")
    axis.set_xlabel("descents, best first", fontsize=9)
    axis.set_ylabel("above the best, −ln posterior", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    counts = [int((finite & sound).sum()), int((finite & ~sound).sum()), int((~finite).sum())]
    handles = [
        Line2D([], [], ls="", marker="o", color=BLUE, label=f"converged ({counts[0]})"),
        Line2D([], [], ls="", marker="^", mfc="none", color=RED, label=f"not converged ({counts[1]})"),
        Line2D([], [], ls="", marker="x", color=GREY, label=f"could not start ({counts[2]})"),
    ]
    handles = [handle for handle, count in zip(handles, counts, strict=True) if count]
    band = Patch(color="0.93", label=f"within {SAME:g} of the best")
    axis.legend(handles=[*handles, band], fontsize=8, frameon=False, loc="upper left")
    plain(axis)
    axis.margins(x=0.04)
    axis.autoscale_view(scaley=False)
    return png(figure)


def corner(posterior: Laplace, *, draws: Array | None = None, seed: int = 0, names: Sequence[str] = ()) -> bytes:
    """Draw the posterior of all pairs of unknowns in physical units, with their correlation; returns PNG.

    Parameters
    ----------
    posterior
        Its ellipses hold `LEVELS` of the probability.
    draws
        Draws (n, p), coordinates, for the clouds (of walkers, say); None: draws of the posterior itself.
    seed
        Of those.
    names
        Unknowns to draw, in this order; none: all.

    Raises
    ------
    InputError
        A name of no unknown.
    """
    if not set(names) <= set(posterior.priors.names):
        raise InputError(f"corner plot: expected names among {', '.join(posterior.priors.names)}, got {list(names)}.")
    priors, x = posterior.priors, posterior.draws(4000, seed) if draws is None else draws
    picked = [priors.names.index(name) for name in names] or list(range(len(priors)))
    table, p = priors.physical(x), len(picked)
    figure = Figure(figsize=(1.0 + 1.9 * max(p, 2), 0.8 + 1.9 * max(p, 2)), layout="constrained")
    axes = figure.subplots(p, p, squeeze=False)
    for row, i in enumerate(picked):
        for column, j in enumerate(picked):
            axis = axes[row, column]
            if column > row:
                axis.set_axis_off()
            elif column == row:
                _marginal(axis, posterior, i, table[:, i])
            else:
                _pair(axis, posterior, (j, i), table)
            _corner_labels(axis, priors, (j, i), row=row, column=column, last=row == p - 1)
    figure.suptitle("posterior of pairs of unknowns", fontsize=11, x=0.01, ha="left")
    figure.legend(
        handles=[
            Line2D([], [], color=RED, lw=1.6, label="normal approximation, 50 and 90 %"),
            Line2D([], [], ls="", marker="o", ms=3, color=BLUE, label="draws"),
            Line2D([], [], color=GREY, lw=1.2, ls=(0, (4, 2)), label="prior"),
        ],
        loc="upper right", fontsize=9, frameon=False,
    )  # fmt: skip
    return png(figure)


def profiles(posterior: Laplace, *, columns: int = 4) -> bytes:
    """Draw prior and posterior of every unknown in physical units, with the interval of 90 %; returns PNG."""
    p = len(posterior.priors)
    rows = -(-p // columns)
    wide = -(-p // rows)
    figure = Figure(figsize=(2.9 * max(wide, 2), 0.5 + 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, wide, squeeze=False).ravel()
    intervals, informed = posterior.intervals(), posterior.informed
    for i, unknown in enumerate(posterior.priors.unknowns):
        axis, interval = axes[i], intervals[unknown.name]
        x = _range(posterior, i)
        value = unknown.value(x)
        axis.fill_between(value, _density(x, 0.0, 1.0, unknown), color="0.85", lw=0)
        mean, sd = float(posterior.mean[i]), float(posterior.deviations[i])
        axis.plot(value, _density(x, mean, sd, unknown), color=BLUE, lw=2)
        axis.axvspan(interval.low, interval.high, color=BLUE, alpha=0.12, lw=0)
        axis.axvline(interval.median, color=BLUE, lw=1, ls=(0, (4, 2)))
        axis.set_title(f"{_title(unknown)}: {interval}", fontsize=8, loc="left")
        axis.set_xlabel(f"{_title(unknown)}{_unit(unknown)}; {informed[unknown.name]:.0%} informed", fontsize=8)
        axis.set_xlim(value[0], value[-1])
        _scaled(axis, unknown, "x")
        axis.set_yticks([])
        axis.set_ylim(bottom=0)
        plain(axis, grid=False)
    for axis in axes[p:]:
        axis.set_axis_off()
    figure.legend(
        handles=[
            Patch(color="0.85", label="prior"),
            Line2D([], [], color=BLUE, lw=2, label="posterior"),
            Patch(color=BLUE, alpha=0.12, label="interval of 90 %"),
        ],
        loc="outside upper left", ncols=3, fontsize=9, frameon=False,
    )  # fmt: skip
    return png(figure)


def _marginal(axis: Axes, posterior: Laplace, i: int, values: Array) -> None:
    """Draw prior, posterior and the draws of one unknown."""
    unknown, x = posterior.priors.unknowns[i], _near(posterior, i)
    edges = unknown.value(np.linspace(x[0], x[-1], 31))
    heights, _ = np.histogram(unknown.coordinate(values), np.linspace(x[0], x[-1], 31), density=True)
    axis.stairs(heights, edges, color=BLUE, fill=True, alpha=0.35)
    axis.plot(unknown.value(x), _density(x, 0.0, 1.0, unknown), color=GREY, lw=1.2, ls=(0, (4, 2)))
    mean, sd = float(posterior.mean[i]), float(posterior.deviations[i])
    axis.plot(unknown.value(x), _density(x, mean, sd, unknown), color=RED, lw=1.6)
    axis.set_xlim(unknown.value(float(x[0])), unknown.value(float(x[-1])))
    _scaled(axis, unknown, "x")
    axis.set_yticks([])
    axis.set_ylim(bottom=0)


def _pair(axis: Axes, posterior: Laplace, pair: tuple[int, int], table: Array) -> None:
    """Draw the draws of two unknowns and the ellipses of the normal approximation."""
    (j, i), unknowns = pair, posterior.priors.unknowns
    shown = table[:: max(1, len(table) // SHOWN_DRAWS)]
    axis.plot(shown[:, j], shown[:, i], ls="", marker="o", ms=1.6, mew=0, color=BLUE, alpha=0.5, rasterized=True)
    C, angle = posterior.covariance[np.ix_([j, i], [j, i])], np.linspace(0, 2 * np.pi, 181)
    circle = np.linalg.cholesky(C) @ np.stack([np.cos(angle), np.sin(angle)])
    for level in LEVELS:
        ring = posterior.mean[[j, i]][:, None] + np.sqrt(stats.chi2.ppf(level, 2)) * circle
        axis.plot(unknowns[j].value(ring[0]), unknowns[i].value(ring[1]), color=RED, lw=1.4)
    for k, name in ((j, "x"), (i, "y")):
        ends = _near(posterior, k)[[0, -1]]
        limits = unknowns[k].value(float(ends[0])), unknowns[k].value(float(ends[1]))
        (axis.set_xlim if name == "x" else axis.set_ylim)(limits)
        _scaled(axis, unknowns[k], name)
    axis.set_title(f"r = {posterior.correlation[j, i]:+.2f}", fontsize=8, loc="right", pad=2)


def _corner_labels(axis: Axes, priors: Priors, pair: tuple[int, int], *, row: int, column: int, last: bool) -> None:
    """Name the axes of a corner plot on its left and lower edges only."""
    if last:
        unknown = priors.unknowns[pair[0]]
        axis.set_xlabel(_title(unknown) + _unit(unknown), fontsize=8)
    elif column <= row:
        axis.tick_params(labelbottom=False)
    if column == 0 and row > 0:
        unknown = priors.unknowns[pair[1]]
        axis.set_ylabel(_title(unknown) + _unit(unknown), fontsize=8)
    elif 0 < column < row:
        axis.tick_params(labelleft=False)
    if column <= row:
        plain(axis, grid=False)
        axis.tick_params(labelsize=7)


def _near(posterior: Laplace, i: int) -> Array:
    """Return coordinates across the posterior of an unknown, within its bounds."""
    low, high = posterior.priors.bounds[i]
    reach = REACH * float(posterior.deviations[i])
    return np.linspace(max(low, posterior.mean[i] - reach), min(high, posterior.mean[i] + reach), 201)


def _range(posterior: Laplace, i: int) -> Array:
    """Return coordinates across prior and posterior of an unknown, within its bounds."""
    near, (low, high) = _near(posterior, i), posterior.priors.bounds[i]
    return np.linspace(max(low, min(-REACH, near[0])), min(high, max(REACH, near[-1])), 801)


def _density(x: Array, mean: float, sd: float, unknown: Unknown) -> Array:
    """Return the density of a normal coordinate, cut off at the bounds."""
    low, high = unknown.bounds
    share = stats.norm.cdf(high, mean, sd) - stats.norm.cdf(low, mean, sd)
    return np.asarray(stats.norm.pdf(x, mean, sd) / share)


def _scaled(axis: Axes, unknown: Unknown, which: str) -> None:
    """Set the scale of an axis, with ticks at round values (1, 2, 5) that do not crowd."""
    kind = axis.xaxis if which == "x" else axis.yaxis
    low, high = axis.get_xlim() if which == "x" else axis.get_ylim()
    kind.set_minor_locator(NullLocator())
    if unknown.scale == "linear":
        kind.set_major_locator(MaxNLocator(4))
        return
    if which == "x":
        axis.set_xscale("log")
        axis.set_xlim(low, high)
    else:
        axis.set_yscale("log")
        axis.set_ylim(low, high)
    kind.set_major_locator(FixedLocator(_round_numbers(low, high)))
    kind.set_minor_locator(NullLocator())
    kind.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _round_numbers(low: float, high: float) -> list[float]:
    """Return two to four round numbers between two positive ones, for ticks on a logarithmic axis."""
    decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [float(d * digit) for d in decades for digit in digits if low <= d * digit <= high]
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // 4)]
    return [float(tick) for tick in MaxNLocator(3).tick_values(low, high) if low <= tick <= high]


def _title(unknown: Unknown) -> str:
    return TITLES.get(unknown.name, label(unknown.name))


def _unit(unknown: Unknown) -> str:
    return "" if unknown.unit in {"", "1"} else f", {label(unknown.unit)}"
