"""Which cerebrospinal fluid is ventricular: what lies deep and is closed off.

The ventricles are the pieces of CSF that do not come near the surface of the head. Sulci, fissures and cisterns are
part of the CSF around the brain, so a piece that reaches the shell of depth `SHELL`·R under the head's surface is none
(R the radius of the ball of the head's volume: 15 mm in an adult). Partial volumes can join a ventricle with a cistern
by a thread; CSF thinner than 2·`THREAD` therefore joins nothing, and is given back afterwards to the piece it touches.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.grid import BoolArray, Grid
from hybridtumor.tissue import TissueMap

SHELL = 0.2
"""Depth of the shell that holds no ventricle, as a share of the head's radius."""

THREAD = 1.0
"""Half the thickness of CSF that does not count as a connection, mm."""

SMALLEST = 0.03
"""Pieces smaller than this share of the largest are pits of sulci, or noise."""


def ventricles(tissue: TissueMap) -> BoolArray:
    """Mark the ventricles.

    Deep closed fluid that is no ventricle, such as a cavity of resection, cannot be told apart: give the tissue of day
    0.

    Parameters
    ----------
    tissue
        Tissue fractions on the patient's grid.

    Returns
    -------
    BoolArray
        Mask of the grid's shape; empty where no CSF is closed off.
    """
    head = ndimage.binary_fill_holes(tissue.head)
    fluid = (tissue.csf > 0.5) & head
    if not fluid.any():
        return np.zeros(tissue.grid.shape, bool)
    radius = (3 * np.count_nonzero(head) * tissue.grid.voxel_volume / (4 * np.pi)) ** (1 / 3)
    depth = _depth(head, tissue.grid)
    thick = fluid & (_depth(fluid, tissue.grid) > THREAD)
    pieces, _ = ndimage.label(thick)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    sizes[np.unique(pieces[depth < SHELL * radius])] = 0
    core = np.isin(pieces, np.flatnonzero((sizes > 0) & (sizes >= SMALLEST * sizes.max())))
    given_back = int(np.ceil(THREAD / tissue.grid.voxel_size.min()))
    return np.asarray(ndimage.binary_dilation(core, iterations=given_back, mask=fluid)) if core.any() else core


def _depth(mask: BoolArray, grid: Grid) -> NDArray[np.float64]:
    """Return the distance of every voxel of a mask from the nearest one that is not in it, mm; 0 outside the mask.

    Beyond the grid nothing is in the mask.
    """
    padded = np.pad(mask, 1)
    return np.asarray(ndimage.distance_transform_edt(padded, sampling=grid.voxel_size)[1:-1, 1:-1, 1:-1])
