"""The outline of a mask in one slice, as polygons from which the mask comes back exactly.

Marching squares on the pixel centres: the outline crosses the line between the centre of a pixel inside and that of
its neighbour outside, `REACH` of the way. For any reader that asks which pixel centres are inside, the mask is exact;
and as every vertex rounds to a pixel of the mask, it is exact too for readers that round vertices to pixels and paint
what is on or inside the polygon (OpenCV's way). Halfway would be the unbiased place, but a half rounds either way.

Pixels that touch by a corner belong to separate polygons. A hole is joined to the outline around it by a channel of no
width (PS3.3 C.8.8.6.3, the keyhole technique): readers that unite the polygons of a slice, and those that take them
even–odd, then see the same.
"""

import numpy as np
from numpy.typing import NDArray

from hybridtumor.grid import BoolArray

REACH = 0.49
"""Of the way from a pixel's centre to its neighbour's."""

CHANNEL = 0.25
"""How far beside the pixel centres the channel to a hole runs, pixels: no centre lies on it."""

STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""(column, row) of a pixel's four neighbours, each a left turn after the one before."""

Vertex = tuple[int, int, int]
"""Column and row of a pixel inside, and which of its `STEPS` leads outside."""
Point = tuple[float, float]


def outlines(mask: BoolArray) -> list[NDArray[np.float64]]:
    """Return closed polygons around a mask.

    Parameters
    ----------
    mask
        (rows, columns).

    Returns
    -------
    Arrays (n, 2), n ≥ 4: (column, row) in pixels, pixel centres at whole numbers.
    """
    loops = _loops(np.pad(np.asarray(mask, bool), 1))
    outer = [loop for loop in loops if _area(loop) > 0]
    holes = [loop for loop in loops if _area(loop) < 0]
    return [_straightened(_points(polygon)) - 1.0 for polygon in _keyholes(outer, holes, mask)]


def _loops(mask: BoolArray) -> list[list[Vertex]]:
    """Follow every border with the inside on its left; outlines turn left as a whole, holes right."""
    remaining: dict[Vertex, None] = {}
    for side, (across, down) in enumerate(STEPS):
        outside = ~np.roll(mask, (-down, -across), axis=(0, 1))
        remaining.update(dict.fromkeys((int(c), int(r), side) for r, c in np.argwhere(mask & outside)))
    inside, loops = mask.tolist(), []
    while remaining:
        vertex, loop = next(iter(remaining)), []
        while vertex in remaining:
            del remaining[vertex]
            loop.append(vertex)
            vertex = _next(vertex, inside)
        loops.append(loop)
    return loops


def _next(vertex: Vertex, inside: list[list[bool]]) -> Vertex:
    """Return the vertex after this one: around a corner of the pixel, straight on, or into a corner outside."""
    column, row, side = vertex
    left = (side + 1) % 4
    across, down = STEPS[left]
    if not inside[row + down][column + across]:
        return column, row, left
    ahead = (column + across, row + down)
    out = STEPS[side]
    if not inside[ahead[1] + out[1]][ahead[0] + out[0]]:
        return (*ahead, side)
    return ahead[0] + out[0], ahead[1] + out[1], (left + 2) % 4


def _area(loop: list[Vertex]) -> float:
    """Return the signed area, pixels²; never 0, as a loop encloses a centre or a hole."""
    points = np.array(_points(loop))
    x, y = points[:, 0], points[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _points(loop: "list[Vertex] | list[Vertex | Point]") -> list[Point]:
    """Return where the vertices lie; points are left as they are."""
    return [(v[0] + REACH * STEPS[v[2]][0], v[1] + REACH * STEPS[v[2]][1]) if len(v) == 3 else v for v in loop]


def _keyholes(outer: list[list[Vertex]], holes: list[list[Vertex]], mask: BoolArray) -> list[list[Vertex | Point]]:
    """Join every hole to the border that lies to the right of it, rightmost holes first."""
    joined: dict[int, list[Vertex | Point]] = {number: list(loop) for number, loop in enumerate(outer)}
    owner = {vertex: number for number, loop in enumerate(outer) for vertex in loop}
    inside = np.pad(np.asarray(mask, bool), 1)
    starts = [max(vertex for vertex in hole if vertex[2] == 2) for hole in holes]
    for start, hole in sorted(zip(starts, holes, strict=True), reverse=True):
        first, row, _ = start
        last = first + int(np.argmin(inside[row, first:])) - 1
        border = owner[last, row, 0]
        ends = [(float(last), row + CHANNEL), (float(first), row + CHANNEL)]
        there: list[Vertex | Point] = ends[: 1 + (last > first)]  # type: ignore[assignment]
        turn, at = hole.index(start), joined[border].index((last, row, 0))
        ring = [*hole[turn:], *hole[:turn], start]
        joined[border][at + 1 : at + 1] = [*there, *ring, *reversed(there), (last, row, 0)]
        owner.update(dict.fromkeys(hole, border))
    return list(joined.values())


def _straightened(points: list[Point]) -> NDArray[np.float64]:
    """Leave out vertices on a straight line between their neighbours."""
    here = np.array(points)
    back, ahead = here - np.roll(here, 1, axis=0), np.roll(here, -1, axis=0) - here
    turns = np.abs(back[:, 0] * ahead[:, 1] - back[:, 1] * ahead[:, 0]) > 1e-9
    returns = (back * ahead).sum(axis=1) < 0
    kept: NDArray[np.float64] = here[turns | returns]
    return kept
