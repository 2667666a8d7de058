"""Structures of a patient, and from them the tumour of day 0: clinics send contours instead of a segmentation.

Gross tumour volumes are the tumour core, of which contours seldom tell the enhancing rim from the necrosis inside:
label ``necrosis``. Structures named Edema, Enhancing and Necrosis say more, and come back so from an export. Drawn
volumes contain each other, so the later of oedema, gross tumour, enhancing tumour and necrosis counts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hybridtumor.dicom.assembling import FORECAST, Images, Row, is_synthetic
from hybridtumor.dicom.series import Series
from hybridtumor.dicom.structures import load_structures
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.scan import LABEL_CONVENTIONS, LabelMap

GROSS_TUMOUR = "GTV"

_PAINTED = (("Edema", "edema"), (GROSS_TUMOUR, "necrosis"), ("Enhancing", "enhancing"), ("Necrosis", "necrosis"))


def gather_structures(
    series: Sequence[Series], images: Images, frame: str | None, rows: list[Row]
) -> dict[str, BoolArray]:
    """Return the masks of all structure sets; contours of forecasts are not laid over images of a scanner."""
    masks: dict[str, BoolArray] = {}
    for one in (s for s in series if s.kind == "structures"):
        for path in one.files:
            try:
                if is_synthetic(path, one.name) and not images.synthetic:
                    raise InputError(FORECAST)
                found = load_structures(path, images.grid, frame_of_reference=frame)
            except InputError as error:
                rows.append(Row(one.name, None, str(error).removeprefix("structures: ").rstrip(".")))
                continue
            kept = {_free(name, masks): mask for name, mask in found.masks.items()}
            masks |= kept
            why = {reason: [n for n, r in found.left_out.items() if r == reason] for reason in found.left_out.values()}
            said = [", ".join(kept) or "none", *(f"{', '.join(n)} left out: {r}" for r, n in why.items())]
            rows.append(Row(one.name, "structures" if kept else None, "; ".join(said)))
    return masks


def _free(name: str, taken: Mapping[str, BoolArray]) -> str:
    """Return the name, with a number where another structure set has it too."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name}~{number}", number + 1
    return free


def tumour_structures(structures: Mapping[str, BoolArray]) -> tuple[str, ...]:
    """Return the names of the structures that show the tumour, in the order in which they are painted."""
    return tuple(
        name
        for kind, _ in _PAINTED
        for name in structures
        if name == kind or (kind == GROSS_TUMOUR and name.startswith(kind))
    )


def drawn_labels(structures: Mapping[str, BoolArray], grid: Grid) -> LabelMap | None:
    """Return the segmentation that structures on `grid` draw, or None when none of them shows a tumour."""
    names = tumour_structures(structures)
    if not names:
        return None
    codes, label_of = LABEL_CONVENTIONS["brats2021"], dict(_PAINTED)
    values = np.zeros(grid.shape, np.uint8)
    for name in names:
        values[structures[name]] = codes[label_of.get(name, label_of[GROSS_TUMOUR])]
    return LabelMap(values, grid, codes)


def beside_labels(structures: Mapping[str, BoolArray], labels: LabelMap | None) -> dict[str, BoolArray]:
    """Return the structures without those that are one of the labels, voxel by voxel: an export draws the labels."""
    if labels is None:
        return dict(structures)
    shown = {kind: labels.mask(label) for kind, label in _PAINTED if kind != GROSS_TUMOUR}
    return {name: m for name, m in structures.items() if name not in shown or not np.array_equal(m, shown[name])}
