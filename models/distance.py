"""Distance to a region, computed only near it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.grid import BoolArray


def distance_near(region: BoolArray, voxel_size: NDArray[np.float64], reach: float) -> NDArray[np.float32]:
    """Return the distance to `region`, mm, (X, Y, Z): 0 inside, infinite where it exceeds `reach` along an axis."""
    distance = np.full(region.shape, np.inf, np.float32)
    if not region.any():
        return distance
    pad = np.ceil(reach / voxel_size).astype(int) + 1
    found = ndimage.find_objects(region.view(np.uint8))[0]
    box = tuple(slice(max(0, s.start - p), s.stop + p) for s, p in zip(found, pad, strict=True))
    distance[box] = ndimage.distance_transform_edt(~region[box], sampling=voxel_size)
    return distance
