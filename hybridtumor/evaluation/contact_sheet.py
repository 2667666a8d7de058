"""A blind contact sheet: real and generated tumour crops mixed, four modalities each, and the key in a file of its own.

Sections go through the tumour of the fields, evenly spaced along the axis of the head, so nobody has chosen them. Each
is shown once, real or generated, half of each case's sections either way: no crop stands beside its own twin. Grey
scales are those of the case's baseline.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hybridtumor.evaluation.cases import EvaluationCase
from hybridtumor.plots_frame import png
from hybridtumor.scan import MODALITIES
from hybridtumor.slices import Section, centre_of_mass

SECTIONS, SPACING, EDGE = 6, 5.0, 72.0
"""Sections of a case; mm between them; mm across a crop."""

COLUMNS, INCH = 2, 1.7
"""Crops in a row of the sheet, and width of one modality, inches."""

Image = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Tile:
    """One crop: what it is, and its modalities with their grey scales."""

    case: str
    origin: str
    section_mm: float
    images: Sequence[Image]
    windows: Sequence[tuple[float, float]]


def tiles_of(case: EvaluationCase, members: Image, rng: np.random.Generator) -> list[Tile]:
    """Return the crops of a case, half of them real or, of a phantom, of the simulated scanner.

    Parameters
    ----------
    members
        (K, 4, x, y, z) generated images, which are taken in turn.
    rng
        Decides which sections are generated.
    """
    origins = rng.permutation(np.arange(SECTIONS) % 2 == 0)
    offsets = SPACING * (np.arange(SECTIONS) - (SECTIONS - 1) / 2)
    windows = [_window(case.warped[m][case.head]) for m in case.present]
    first = int(rng.integers(len(members)))
    tiles: list[Tile] = []
    for number, (offset, real) in enumerate(zip(offsets, origins, strict=True)):
        source = case.target_images if real else members[(first + number) % len(members)]
        section = _section(case, float(offset))
        images = [
            section.of(_whole(case, np.where(case.head, source[m], low), low))
            for m, (low, _) in zip(case.present, windows, strict=True)
        ]
        tiles.append(Tile(case.name, case.kind if real else "generated", float(offset), images, windows))
    return tiles


def contact_sheet(tiles: Sequence[Tile], seed: int = 0) -> tuple[bytes, dict[str, dict[str, object]]]:
    """Return the sheet as PNG, and the key: number of a crop to what it is.

    Parameters
    ----------
    seed
        Of the order.
    """
    order = np.random.default_rng(seed).permutation(len(tiles))
    rows = -(-len(tiles) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * (len(MODALITIES) * INCH + 0.25), rows * (INCH + 0.2) + 0.1))
    key = {}
    for number, index in enumerate(order, start=1):
        tile = tiles[index]
        row, column = divmod(number - 1, COLUMNS)
        _draw(figure, tile, number, (row, column))
        key[str(number)] = {k: v for k, v in asdict(tile).items() if k in ("case", "origin", "section_mm")}
    return png(figure), key


def _draw(figure: Figure, tile: Tile, number: int, place: tuple[int, int]) -> None:
    width, height = figure.get_size_inches()
    left = place[1] * (len(MODALITIES) * INCH + 0.25) + 0.1
    bottom = height - 0.05 - (place[0] + 1) * (INCH + 0.2)
    figure.text(left / width, (bottom + INCH + 0.03) / height, str(number), fontsize=8)
    for m, (image, (low, high)) in enumerate(zip(tile.images, tile.windows, strict=True)):
        box = ((left + m * INCH) / width, bottom / height, 0.98 * INCH / width, 0.98 * INCH / height)
        axis = figure.add_axes(box, xticks=[], yticks=[], frame_on=False)
        axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")


def _section(case: EvaluationCase, offset: float) -> Section:
    """Return an axial section through the fields' tumour, moved along the axis of the head, as large as a crop."""
    grid = case.baseline.grid
    x, y, z = centre_of_mass(_whole(case, case.fields.density), grid, 0.2)
    whole = Section("axial", grid, (x, y, z + offset))
    points = [grid.world(np.array(index)) for index in ((0, 0, 0), np.array(grid.shape) - 1)]
    high = np.maximum(*points)  # a section begins in front and at the patient's right
    top, left = (high[1] - y) / whole.pixel[0], (high[0] - x) / whole.pixel[1]
    half = [EDGE / 2 / size for size in whole.pixel]
    window = tuple(
        (max(0, round(centre - h)), max(1, round(centre + h))) for centre, h in zip((top, left), half, strict=True)
    )
    return Section("axial", grid, (x, y, z + offset), (window[0], window[1]))


def _whole(case: EvaluationCase, values: Image, beyond: float = 0.0) -> Image:
    """Return an array of the box on the whole grid, `beyond` outside the box."""
    result = np.full(case.baseline.grid.shape, beyond, np.float32)
    case.scene.box.scaled(case.scene.factor).put(values, result)
    return result


def _window(values: Image) -> tuple[float, float]:
    low, high = np.percentile(values, [1, 99])
    return float(low), float(high + 0.5 * (high - low))
