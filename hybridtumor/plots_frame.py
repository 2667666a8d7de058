"""What every figure of a report has in common: how it becomes a PNG with its notice, how axes and names are set."""

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

NOTICE = "model output by hybridtumor · follow-up images are synthetic · research use only"
"""Stands under every picture, because pictures travel without their report."""

DPI, STRIP = 110, 18
"""Pixels per inch of a picture, and pixels of the strip that holds the notice."""

LONGEST_NAME = 28
"""Characters of a name that a picture shows."""


def label(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name as matplotlib should draw it: letter by letter, on one line, not too long.

    A dollar would begin a formula, an underscore at the start would keep the name out of legends.
    """
    text = " ".join(name.split())
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def plain(axis: Axes, *, grid: bool = True) -> None:
    """Draw an axis without a box, with small figures and faint lines at the heights of its ticks."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.01)
    if grid:
        axis.grid(axis="y", color="0.9", lw=0.8)
        axis.set_axisbelow(True)


def png(figure: Figure) -> bytes:
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
