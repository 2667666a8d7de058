r"""What a follow-up scan shows where surgery took tissue out: fluid.

    I ← (1 − c) I + c F_m

in scanner units, c the cavity with an edge as soft as the scan's own, F_m the median of the patient's CSF in modality
m. No texture, no blood products, no rim of postoperative enhancement: the growth model knows of none.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.baseline import Baseline
from hybridtumor.follow_up import FollowUpVisit

Array = NDArray[np.float32]

EDGE = 0.7
"""mm. Standard deviation of the edge of a cavity."""

PURE = 0.95
"""Share of CSF from which a voxel's intensity counts as that of fluid."""


def with_cavity(visit: FollowUpVisit, baseline: Baseline, cavity: Array | None) -> FollowUpVisit:
    """Return a visit with fluid in a cavity; the visit itself without one.

    Parameters
    ----------
    visit
        Where the tissue is on its day.
    baseline
        The baseline carried to that day, of which the brightness of fluid is taken.
    cavity
        Share of every voxel that has been taken out, where its tissue would be on that day, shape
        ``baseline.grid.shape``.
    """
    if cavity is None or not cavity.any():
        return visit
    soft = ndimage.gaussian_filter(cavity, EDGE / baseline.grid.voxel_size)
    share = np.where(soft > 0.01, soft, 0).astype(np.float32)
    fluid = fluid_level(baseline)

    def filled(images: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.asarray(image + share * (fluid[name] - image), np.float32) for name, image in images.items()}

    return replace(
        visit,
        images=filled(visit.images),
        mean=filled(visit.mean),
        std={name: (1 - share) * spread for name, spread in visit.std.items()},
        labels=replace(visit.labels, values=np.where(cavity > 0.5, 0, visit.labels.values).astype(np.uint8)),
        mask=np.maximum(visit.mask, share),
    )


def fluid_level(baseline: Baseline) -> dict[str, float]:
    """Return the median of every scan in CSF, scanner units: in its inside where there is one."""
    fluid = baseline.tissue.csf > PURE
    inside = ndimage.binary_erosion(fluid)
    where = next((mask for mask in (inside, fluid, ~baseline.head) if mask.any()), np.ones_like(fluid))
    return {name: float(np.median(scan[where])) for name, scan in baseline.scans.items()}
