"""How large the cells of a patient's mesh are, and where they are fine: by the physics, or as the user says."""

import numpy as np
import pint

from hybridtumor import units
from hybridtumor.errors import InputError
from hybridtumor.parameters import GrowthParameters

CELL_SIZE = "auto"
"""Edge length of the cells where the front is and will be: as `auto_size` says."""

WIDTHS_PER_CELL, SHORT_RUN = 1.75, 4.5
"""Front widths √(D/ρ) per cell, for runs of up to ρT = 4.5; smaller cells for longer ones (docs/decisions/0008)."""

AUTO_SIZES = (2.0, 4.0)
"""mm. Smallest and largest cell that is chosen without being asked for."""

COARSEST = 16.0
"""mm. Largest cells, far from the tumour."""

LONGEST_MARGIN = 60.0
"""mm. Farther than this from today's tumour the cells are never fine."""


SURGERY_SIZE = 2.0
"""mm. The wall of a cavity is sharp: with cells of 4 mm 5 to 14 % too many cells were left, with these 1 to 2.5 %."""


def margin_mm(growth: GrowthParameters, horizon: float) -> float:
    """Return how far beyond today's tumour the mesh has to be fine, mm.

    The tumour begins where its density is 0.01, four front widths ahead of the front, so that 0.6 of the front's way,
    or of that of diffusion alone, is enough: more changed neither burden nor contours (docs/decisions/0008).
    """
    spread = np.sqrt(2 * growth.diffusion_white * horizon)
    return float(min(0.6 * max(growth.front_speed * horizon, spread) + 2.0, LONGEST_MARGIN))


def auto_size(growth: GrowthParameters, horizon: float) -> float:
    """Return the edge length of the cells that keeps the error of the burden at about 1 %, mm.

    The error grows with the cell size over the front width √(D/ρ), and with the number of widths the front travels.
    """
    shrink = min(1.0, np.sqrt(SHORT_RUN / max(growth.proliferation * horizon, SHORT_RUN)))
    return float(np.clip(WIDTHS_PER_CELL * growth.front_width * shrink, *AUTO_SIZES))


def size_for(cell_size: str | pint.Quantity, growth: GrowthParameters, horizon: float, *, surgery: bool) -> float:
    """Return the edge length of the cells at the front, mm; ``"auto"`` goes by the front, and by the edge of a cavity.

    Raises
    ------
    InputError
        As `require_size`.
    """
    stated = require_size(cell_size)
    if stated is not None:
        return stated
    size = auto_size(growth, horizon)
    return min(size, SURGERY_SIZE) if surgery else size


def require_size(cell_size: str | pint.Quantity) -> float | None:
    """Return a cell size in mm, None for ``"auto"``.

    Raises
    ------
    InputError
        It is neither a positive length nor ``"auto"``.
    """
    if isinstance(cell_size, str) and cell_size.strip() == "auto":
        return None
    size = units.magnitude(cell_size, "mm", name="cell size")
    if size <= 0:
        raise InputError(f"cell size: expected a positive length or 'auto', got {cell_size}.")
    return size
