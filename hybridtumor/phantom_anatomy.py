r"""Anatomies of virtual patients: the MNI152 brain under a random smooth diffeomorphism, with sharper tissue borders.

    I'(x) = I(ψ(x)),   ψ = exp(V),   V(x) = A (x − x_c) + Σ noise ∗ G_18mm + s ∇φ/max|∇φ|,   p' = p^γ / Σ p^γ

ψ is the flow of the stationary velocity V (mm) for unit time, by scaling and squaring (Arsigny et al., MICCAI 2006), so
it is invertible: det ∇ψ > 0. A stretches the head, the smooth noise moves gyri and nuclei, and φ, the ventricles
smoothed over 8 mm, widens them (s > 0) or narrows them. p are the tissue probabilities of the average brain: blurred
over many heads; the power γ gives back the sharp borders of one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.atlas import Atlas
from hybridtumor.errors import ConvergenceError
from hybridtumor.grid import Grid
from hybridtumor.models.mr_signal import texture_of
from hybridtumor.models.resolution import block_mean, interpolate
from hybridtumor.models.ventricles import ventricles
from hybridtumor.models.warp import bounds_of, jacobian
from hybridtumor.tissue import TissueMap

Array = NDArray[np.float32]

FIRST_TEST = 1000
"""Phantoms from this number on are for tests: none of them has the anatomy of the atlas."""

STREAM = 7701
"""Seed that sets the random numbers of anatomy apart from those of growth and looks."""

NODE = 4
"""Voxels per node of the velocity."""

STRETCH = 0.06
"""Largest stretch of the head along any direction."""

WANDER, WANDER_WIDTH = (1.5, 3.5), 18.0
"""mm. Root mean square of the random velocity along each axis, and the width of its smoothing."""

WIDENING = (-1.5, 3.0)
"""mm by which the walls of the ventricles move outwards."""

VENTRICLE_WIDTH = 8.0
"""mm over which the motion of the walls fades."""

SQUARINGS = 6

SHARPNESS = (1.5, 3.0)
"""γ."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A brain without tumour: tissue fractions, and by which share its T1w intensity departs from their mean."""

    tissue: TissueMap
    texture: Array

    def within(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> "Anatomy":
        """Return the part [start, stop) of the brain, (3,) each, voxels."""
        part = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        white, grey, csf = (t[part].copy() for t in (self.tissue.white, self.tissue.grey, self.tissue.csf))
        return Anatomy(TissueMap(white, grey, csf, self.tissue.grid.crop(start, stop)), self.texture[part].copy())


def phantom_anatomy(number: int, atlas: Atlas) -> Anatomy:
    """Return the anatomy of a phantom: warped for every test phantom and every other one for training."""
    rng = np.random.default_rng([STREAM, number])
    gamma = float(rng.uniform(*SHARPNESS))
    if number >= FIRST_TEST or number % 2 == 1:
        atlas = warped(atlas, random_warp(rng, atlas.tissue))
    texture = texture_of(atlas.t1.values, atlas.tissue)
    return Anatomy(sharpened(atlas.tissue, gamma), texture)


def random_warp(rng: np.random.Generator, tissue: TissueMap) -> Array:
    """Draw a diffeomorphism: w(x) = ψ(x) − x, mm RAS, (3, X, Y, Z)."""
    grid = tissue.grid
    nodes = _block_grid(grid, NODE)
    world = np.moveaxis(nodes.world(np.moveaxis(np.indices(nodes.shape), 0, -1)), -1, 0)
    spacing = nodes.voxel_size
    centre = grid.world((np.array(grid.shape) - 1) / 2)
    stretch = np.diag(rng.uniform(-STRETCH, STRETCH, 3)) + rng.uniform(-STRETCH, STRETCH, (3, 3)) / 4
    velocity = np.tensordot(stretch, world - centre[:, None, None, None], 1)
    noise = rng.standard_normal(world.shape)
    for axis in range(3):
        smooth = ndimage.gaussian_filter(noise[axis], WANDER_WIDTH / spacing)
        velocity[axis] += rng.uniform(*WANDER) * smooth / smooth.std()
    velocity += rng.uniform(*WIDENING) * _towards_ventricles(tissue, spacing)
    return interpolate(_exponential(velocity, nodes), NODE, grid.shape)


def warped(atlas: Atlas, warp: Array) -> Atlas:
    """Return the atlas whose voxel x shows what was at x + w(x); fractions stay fractions.

    Parameters
    ----------
    atlas
        The brain.
    warp
        w, (3, X, Y, Z), mm RAS.
    """
    grid = atlas.tissue.grid
    moved = np.tensordot(np.linalg.inv(grid.affine[:3, :3]).astype(np.float32), warp, 1)
    low, high = np.array(bounds_of(atlas.tissue.head)).T
    reach = int(np.ceil(np.abs(moved).max())) + 1
    box = tuple(slice(max(a - reach, 0), b + reach) for a, b in zip(low, high, strict=True))
    start = np.array([s.start for s in box], np.float32)[:, None, None, None]
    index = moved[:, *box] + np.indices(moved[0][box].shape, np.float32) + start

    def sampled(values: Array) -> Array:
        result = np.zeros(grid.shape, np.float32)
        result[box] = ndimage.map_coordinates(values, index, order=1, output=np.float32)
        return result

    tissue = atlas.tissue
    parts = np.stack([sampled(t) for t in (tissue.white, tissue.grey, tissue.csf)])
    total = parts.sum(axis=0)
    head = total > 0.5
    white, grey, csf = np.where(head, parts / np.maximum(total, 0.5), 0).astype(np.float32)
    t1 = np.where(head, sampled(atlas.t1.values), 0)
    return Atlas(type(atlas.t1)(t1, grid), TissueMap(white, grey, csf, grid))


def sharpened(tissue: TissueMap, gamma: float) -> TissueMap:
    """Return the tissue with fractions p^γ / Σ p^γ."""
    fractions = np.maximum(np.stack([tissue.white, tissue.grey, tissue.csf]), 0)  # rounding leaves some at −1e-8
    powers = fractions ** np.float32(gamma)
    total = powers.sum(axis=0)
    white, grey, csf = np.where(tissue.head, powers / np.maximum(total, 1e-6), 0).astype(np.float32)
    return TissueMap(white, grey, csf, tissue.grid)


def _block_grid(grid: Grid, factor: int) -> Grid:
    """Return the grid of the centres of blocks of `factor` voxels."""
    affine = grid.affine @ np.diag([factor, factor, factor, 1.0])
    affine[:3, 3] = grid.world(np.full(3, (factor - 1) / 2))
    x, y, z = (-(-n // factor) for n in grid.shape)
    return Grid((x, y, z), affine)


def _coarser(tissue: TissueMap, factor: int) -> TissueMap:
    """Return block means of tissue."""
    white, grey, csf = (block_mean(np.maximum(t, 0), factor) for t in (tissue.white, tissue.grey, tissue.csf))
    return TissueMap(white, grey, csf, _block_grid(tissue.grid, factor))


def _towards_ventricles(tissue: TissueMap, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ∇φ/max|∇φ| at the nodes, (3, …), in world axes."""
    half = NODE // 2
    inner = block_mean(ventricles(_coarser(tissue, half)).astype(np.float32), half)
    phi = ndimage.gaussian_filter(inner, VENTRICLE_WIDTH / spacing)
    steps = np.stack(np.gradient(phi.astype(np.float64)))
    gradient = np.tensordot(np.linalg.inv(tissue.grid.affine[:3, :3]).T, steps, 1)
    return np.asarray(gradient / max(float(np.linalg.norm(gradient, axis=0).max()), 1e-12))


def _exponential(velocity: NDArray[np.float64], nodes: Grid) -> NDArray[np.float64]:
    """Return w of the flow of a velocity for unit time, mm, at the nodes."""
    to_index = np.linalg.inv(nodes.affine[:3, :3])
    own = np.indices(nodes.shape, np.float64)
    w = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        index = own + np.tensordot(to_index, w, 1)
        w = w + np.stack([ndimage.map_coordinates(c, index, order=1, mode="nearest") for c in w])
    if (smallest := float(jacobian(w, nodes).min())) <= 0:
        raise ConvergenceError(
            f"anatomy: expected a warp that keeps volumes positive, got a smallest Jacobian of {smallest:.2g}."
        )
    return np.asarray(w)
