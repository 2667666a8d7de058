r"""The smooth boundary of the brain.

The mask χ of the parenchyma is smoothed and cut,

    f = G_σ ∗ χ,    Ω = {f > 1/2},    σ = h_s / 2,

with the spacing h_s of the surface, sampled every h_s along the world's axes. Ω keeps its largest piece and loses the
bubbles that cells of edge h_s cannot show. Its boundary is closed, also where the image cuts the brain.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, FloatArray, Grid, resample
from hybridtumor.tissue import TissueMap

SMALLEST_BUBBLE = 8.0
"""Holes and islands below this many h_s³ are closed."""

FINEST_SURFACE = 4.0
"""mm. The boundary is never finer than this, whatever the cells: what is thinner is noise of the segmentation."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed surface of triangles.

    Parameters
    ----------
    points
        Vertices, (n, 3), world RAS+ mm.
    triangles
        Their numbers, (f, 3), counter-clockwise seen from outside.
    spacing
        Length h_s on which it was smoothed and sampled, mm.
    """

    points: NDArray[np.float64]
    triangles: NDArray[np.int64]
    spacing: float

    @property
    def volume(self) -> float:
        """Enclosed volume ∮ x·n/3, mm³."""
        centred = self.points - self.points.mean(0)  # far from the origin the terms would cancel
        a, b, c = (centred[self.triangles[:, k]] for k in range(3))
        return float(np.einsum("fd,fd->", a, np.cross(b, c)) / 6)

    @property
    def open_edges(self) -> int:
        """Number of directed edges whose opposite is not there exactly once; 0 for a closed, oriented surface."""
        tail, head = self.triangles.ravel(), np.roll(self.triangles, -1, axis=1).ravel()
        n = len(self.points)
        forth, back = np.sort(tail * n + head), np.sort(head * n + tail)
        return int(np.count_nonzero(forth != back)) + int(np.count_nonzero(np.diff(forth) == 0))


def smooth_brain_surface(tissue: TissueMap, spacing_mm: float = FINEST_SURFACE) -> Surface:
    """Return the boundary of the smoothed parenchyma: the outer one and those of the ventricles.

    Parameters
    ----------
    tissue
        Tissue fractions on the patient's grid.
    spacing_mm
        Length h_s on which it is smoothed and sampled.

    Raises
    ------
    InputError
        No positive spacing, or nothing of the brain is left at it.
    """
    if not 0 < spacing_mm < np.inf:
        raise InputError(f"surface: expected a positive spacing, got {spacing_mm:g} mm.")
    mask, grid = tissue.parenchyma, tissue.grid
    coarse = _world_grid(grid, mask, spacing_mm)
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), spacing_mm / 2 / grid.voxel_size, mode="constant")
    values = resample(smooth, grid, coarse)
    inside = _without_bubbles(values > 0.5)
    if not inside.any():
        raise InputError(
            f"surface: expected a brain thicker than {spacing_mm:g} mm, found nothing left of it. Choose smaller cells."
        )
    return _contour(np.where(inside, np.maximum(values, 0.501), np.minimum(values, 0.499)), coarse, spacing_mm)


def _world_grid(grid: Grid, mask: BoolArray, spacing: float) -> Grid:
    """Return an isotropic grid along the world's axes around a mask."""
    centres = grid.world(np.argwhere(mask))
    low, high = centres.min(0) - 3 * spacing, centres.max(0) + 3 * spacing
    counts = np.ceil((high - low) / spacing).astype(int) + 1
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    return Grid((int(counts[0]), int(counts[1]), int(counts[2])), affine)


def _without_bubbles(inside: BoolArray) -> BoolArray:
    """Keep the largest piece, and fill the holes in it that are too small to matter."""
    pieces, count = ndimage.label(inside)
    if count == 0:
        return inside
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    holes, _ = ndimage.label(pieces != sizes.argmax())
    sizes = np.bincount(holes.ravel())
    sizes[0] = 0
    return np.asarray((holes == 0) | (sizes < SMALLEST_BUBBLE)[holes])


def _contour(values: FloatArray, grid: Grid, spacing: float) -> Surface:
    """Return the surface on which an array on a grid along the world's axes is 1/2."""
    import pyvista as pv  # VTK costs a second

    image = pv.ImageData(dimensions=grid.shape)
    image["inside"] = np.asarray(values, np.float64).ravel(order="F")
    contour = image.contour([0.5], scalars="inside", method="flying_edges").clean(tolerance=0.0)
    points, triangles = grid.world(contour.points), contour.faces.reshape(-1, 4)[:, 1:].astype(np.int64)
    surface = Surface(points, triangles, spacing)
    return surface if surface.volume > 0 else Surface(points, triangles[:, ::-1], spacing)
