"""Names beside points, so that none lies on another name or on a point."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from hybridtumor.plots_frame import DPI, label

RADII, DIRECTIONS = (9.0, 16.0, 24.0, 36.0, 50.0, 70.0, 95.0, 130.0), 16
"""Distances, pixels, and number of directions in which a place is looked for; near ones first."""

POINT, STROKE = 7.0, 3.0
"""Half the size of a point and of a piece of line, pixels."""

INK = "0.2"

_HALO = [withStroke(linewidth=2.5, foreground="white")]


@dataclass(frozen=True)
class Box:
    """A rectangle, pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: "Box") -> bool:
        """Tell whether two boxes share an inner point."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def inside(self, other: "Box") -> bool:
        """Tell whether this box lies within another."""
        return other.x0 <= self.x0 and self.x1 <= other.x1 and other.y0 <= self.y0 and self.y1 <= other.y1


def places(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    room: Box,
    avoid: Sequence[tuple[float, float]] = (),
) -> list[Box | None]:
    """Return a box of the given size for each point, or None where there is no room: points that come first choose.

    No box meets another box or a point, and all lie in the room. A point of size (0, 0) wants no box.

    Parameters
    ----------
    points, sizes
        Centres of the points, and width and height of the boxes, pixels.
    room
        Where boxes may lie.
    avoid
        Points of lines, on which a box lies only where there is no other room.
    """
    marks = [_around(point, POINT) for point in points]
    lines = [_around(point, STROKE) for point in avoid]
    taken: list[Box] = []
    found: list[Box | None] = []
    for point, size in zip(points, sizes, strict=True):
        free = [b for b in _candidates(point, size) if b.inside(room) and not _meets_any(b, [*marks, *taken])]
        best = next((box for box in free if not _meets_any(box, lines)), free[0] if free else None)
        found.append(best if size[0] > 0 else None)
        taken += [box for box in found[-1:] if box is not None]
    return found


def name_points(figure: Figure, axis: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]) -> int:
    """Write the names beside points, off the lines that are in the axes so far; returns how many found room.

    Points are in the units of the axes, whose limits have to be final. A point without a name is kept free of others.
    """
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    texts = [
        axis.annotate(label(name), (0, 0), xycoords="figure pixels", fontsize=8, color=INK, path_effects=_HALO)
        for name in names
    ]
    extents = [text.get_window_extent(canvas.get_renderer()) for text in texts]  # type: ignore[no-untyped-call]
    frame = axis.get_window_extent()
    pixels = [(float(x), float(y)) for x, y in axis.transData.transform(np.asarray(points, float))]
    sizes = [(e.width + 3, e.height + 2) if name else (0.0, 0.0) for e, name in zip(extents, names, strict=True)]
    found = places(pixels, sizes, Box(frame.x0, frame.y0, frame.x1, frame.y1), _strokes(axis))
    for text, extent, point, box in zip(texts, extents, pixels, found, strict=True):
        if box is None:
            text.set_visible(False)
            continue
        text.set_position((box.x0 + 1.5 - extent.x0, box.y0 + 1 - extent.y0))
        _leader(axis, point, box)
    return sum(box is not None for box in found)


def _around(point: tuple[float, float], half: float) -> Box:
    return Box(point[0] - half, point[1] - half, point[0] + half, point[1] + half)


def _meets_any(box: Box, others: Sequence[Box]) -> bool:
    return any(box.meets(other) for other in others)


def _strokes(axis: Axes) -> list[tuple[float, float]]:
    """Return points of the lines in axes, a few pixels apart, pixels."""
    found = []
    for line in axis.get_lines():
        ends = line.get_transform().transform(np.column_stack(line.get_data()).astype(float))
        for start, stop in pairwise(ends):
            count = max(int(np.hypot(*(stop - start)) / STROKE), 1)
            found += [(float(x), float(y)) for x, y in np.linspace(start, stop, count)]
    return found


def _candidates(point: tuple[float, float], size: tuple[float, float]) -> Iterator[Box]:
    """Return boxes around a point whose nearest edge is at each of the distances: right, above, left, below first."""
    width, height = size
    angles = sorted(np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS, key=lambda angle: round(abs(np.sin(2 * angle)), 6))
    for radius in RADII:
        for angle in angles:
            x = point[0] + np.cos(angle) * (radius + width / 2)
            y = point[1] + np.sin(angle) * (radius + height / 2)
            yield Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _leader(axis: Axes, point: tuple[float, float], box: Box) -> None:
    """Join a point with a name that is not right beside it."""
    x, y = float(np.clip(point[0], box.x0, box.x1)), float(np.clip(point[1], box.y0 + 2, box.y1 - 2))
    if np.hypot(x - point[0], y - point[1]) > RADII[1]:
        line = {"arrowstyle": "-", "color": INK, "lw": 0.6, "alpha": 0.7, "shrinkA": 0, "shrinkB": 3}
        axis.annotate("", point, (x, y), xycoords="figure pixels", textcoords="figure pixels", arrowprops=line)
