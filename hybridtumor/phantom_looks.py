r"""Looks of phantoms: what the scans of a tumour show and its cell density does not say.

The labels that show are those of perturbed densities, one perturbation for each border:

    visible = S(n + ℓ + o; τ_e),   core = S(n + ℓ; τ_c),   dead = S(n + ℓ + r; τ_n),   core ≤ visible, dead ≤ core

ℓ lobules, r patches of necrosis and a rim of varying width, o = a · white · (G_σ ∗ core) oedema that follows the white
matter beyond what the density says. Uptake of contrast agent, vessels near the rim, mottle and gliosis have fields of
their own. All fields belong to the place: baseline and follow-ups share them, and tissue that moves takes them along.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.models.carry import carried
from hybridtumor.models.heterogeneity import heterogeneity, smooth_noise
from hybridtumor.models.visibility import label_fractions
from hybridtumor.models.warp import Origins
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABEL_CONVENTIONS, LABELS, MODALITIES
from hybridtumor.tissue import TissueMap

Array = NDArray[np.float32]

ENHANCING = 0.85
"""Share of the phantoms whose tumour takes up contrast agent."""

VESSELS, VESSEL_LENGTH = (2, 9), (15, 60)
"""How many vessels, and how long, mm."""

POST_OPERATIVE_RIM = 0.6
"""Share of the cavities with an enhancing wall."""

WALL = 1.2
"""mm. Thickness of that wall."""

MOTTLE = (0.06, 0.3)
"""Relative amplitude of the heterogeneity of a tumour, log-uniform, in each modality."""


@dataclass(frozen=True, eq=False)
class Looks:
    """What the scans of one phantom show beside its density; fields are (X, Y, Z).

    Parameters
    ----------
    lobules, necrosis
        Added to the density where borders are drawn.
    soak, soak_reach
        Strength a of the oedema along white matter, and how far it reaches, mm.
    uptake
        Of contrast agent in enhancing tumour, 1 on average.
    mottle
        (4, X, Y, Z) relative texture of the tumour (`hybridtumor.models.heterogeneity`); a part of it is in healthy
        tissue too.
    vessels
        In [0, 1].
    gliosis
        Share of the oedema's signal that stays where tumour has gone.
    wall
        Uptake of the wall of a cavity.
    enhances
        Whether the tumour takes up contrast agent.
    """

    lobules: Array
    necrosis: Array
    soak: Array
    soak_reach: float
    uptake: Array
    mottle: Array
    vessels: Array
    gliosis: float
    wall: float
    enhances: bool

    def carried(self, origins: Origins | None) -> "Looks":
        """Return the looks where their tissue is on a later day."""
        if origins is None:
            return self
        moved: dict[str, Any] = {
            f.name: carried(value, origins, order=1)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), np.ndarray)
        }
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Scenery:
    """What there is to see on one day, where the tissue is on that day.

    Parameters
    ----------
    tissue
        Without the tumour.
    texture
        Relative departure of healthy tissue from its mean.
    labels
        (3, X, Y, Z) soft fractions of what shows.
    scar
        Gliosis, in [0, 1].
    cavity
        Share taken out, in [0, 1], with a soft edge.
    wall
        Share of enhancing wall around it.
    """

    tissue: TissueMap
    texture: Array
    labels: Array
    scar: Array
    cavity: Array
    wall: Array

    @property
    def segmentation(self) -> NDArray[np.uint8]:
        """What a reader would draw, codes of BraTS 2021."""
        left = self.labels * (1 - np.round(self.cavity))
        codes = np.array([LABEL_CONVENTIONS["brats2021"][name] for name in LABELS], np.uint8)
        return np.asarray(np.where(left.sum(axis=0) > 0.5, codes[left.argmax(axis=0)], 0), np.uint8)


def random_looks(rng: np.random.Generator, density: Array, tissue: TissueMap) -> Looks:
    """Draw the looks of a phantom whose density on day 0 is given, shape ``tissue.grid.shape``."""
    shape, size = tissue.grid.shape, float(np.cbrt(tissue.grid.voxel_volume))

    def smooth(width: float) -> Array:
        return smooth_noise(rng, shape, width / size)

    lobules = rng.uniform(0.03, 0.10) * smooth(3.0) + rng.uniform(0.03, 0.10) * smooth(7.0)
    necrosis = rng.uniform(0.02, 0.06) * smooth(2.0) + rng.uniform(0.02, 0.08) * smooth(5.0) + rng.uniform(-0.05, 0.08)
    uptake = np.exp(rng.uniform(0.1, 0.35) * smooth(6.0) + rng.uniform(0.05, 0.15) * smooth(1.5))
    soak = rng.uniform(0.0, 1.2) * np.clip(1 + 0.5 * smooth(12.0), 0, 2)
    fine = rng.uniform(0.01, 0.04)
    faint, strong = np.log(MOTTLE)
    amplitude = np.exp(rng.uniform(faint, strong, (len(MODALITIES), 1, 1, 1)))
    mottle = amplitude * heterogeneity(rng, shape, size) + fine * np.stack([smooth(0.8) for _ in MODALITIES])
    return Looks(
        lobules=lobules.astype(np.float32),
        necrosis=necrosis.astype(np.float32),
        soak=soak.astype(np.float32),
        soak_reach=float(rng.uniform(5, 11)),
        uptake=np.clip(uptake, 0.4, 2.0).astype(np.float32),
        mottle=mottle.astype(np.float32),
        vessels=random_vessels(rng, density, tissue),
        gliosis=float(rng.uniform(0, 0.6)),
        wall=float(rng.uniform(0.3, 0.9)) if rng.random() < POST_OPERATIVE_RIM else 0.0,
        enhances=bool(rng.random() < ENHANCING),
    )


def random_vessels(rng: np.random.Generator, density: Array, tissue: TissueMap) -> Array:
    """Return thin winding tubes that start near the border of the tumour's core, (X, Y, Z) in [0, 1]."""
    size = float(np.cbrt(tissue.grid.voxel_volume))
    core = density > min(0.6, 0.7 * float(density.max()))
    shell = np.argwhere(ndimage.binary_dilation(core, iterations=max(1, round(3 / size))) & ~core)
    lines = np.zeros(density.shape, np.float32)
    for _ in range(int(rng.integers(*VESSELS)) if len(shell) else 0):
        steps = int(rng.uniform(*VESSEL_LENGTH) / size * 2)
        turns = np.cumsum(rng.standard_normal((steps, 3)) * 0.18, axis=0) + rng.standard_normal(3)
        path = shell[rng.integers(len(shell))] + np.cumsum(
            0.5 * turns / np.linalg.norm(turns, axis=1, keepdims=True), axis=0
        )
        index = np.rint(path).astype(int)
        inside = ((index >= 0) & (index < density.shape)).all(axis=1)
        lines[tuple(index[inside].T)] = rng.uniform(0.5, 1.0)
    tubes = ndimage.gaussian_filter(lines, 0.55 / size)
    return np.asarray(np.clip(tubes / 0.45, 0, 1) * tissue.head, np.float32)


def shown_labels(density: Array, looks: Looks, tissue: TissueMap, thresholds: ImagingThresholds) -> Array:
    """Return the soft labels that show, (3, X, Y, Z)."""
    envelope = np.clip(density / 0.15, 0, 1)
    lumpy = density + looks.lobules * envelope

    def steps(n: Array) -> Array:
        dead, oedema, rim = label_fractions(np.clip(n, 0, 2), thresholds)
        return np.stack([dead + oedema + rim, dead + rim, dead])

    core = steps(lumpy)[1]
    reach = looks.soak_reach / tissue.grid.voxel_size
    soaked = looks.soak * tissue.white * ndimage.gaussian_filter(core, reach)
    visible = np.maximum(steps(lumpy + soaked)[0], core)
    if not looks.enhances:
        return np.stack([core, visible - core, np.zeros_like(core)])
    dead = np.minimum(steps(lumpy + looks.necrosis * envelope)[2], core)
    return np.stack([dead, visible - core, core - dead])


def scenery(
    tissue: TissueMap,
    texture: Array,
    density: Array,
    before: Array,
    cavity: Array | None,
    looks: Looks,
    thresholds: ImagingThresholds,
) -> Scenery:
    """Return what there is to see on one day.

    Parameters
    ----------
    tissue, texture
        The anatomy, where it is on that day.
    density, before
        Of the day, and of day 0 where its tissue is now, (X, Y, Z).
    cavity
        Share taken out, (X, Y, Z), or None.
    looks
        Carried to that day.
    thresholds
        Densities at which the tumour shows.
    """
    now, then = (shown_labels(n, looks, tissue, thresholds) for n in (density, before))
    scar = looks.gliosis * np.maximum(then.sum(axis=0) - now.sum(axis=0), 0)
    nothing = np.zeros_like(scar)
    if cavity is None or not cavity.any():
        return Scenery(tissue, texture, now, scar, nothing, nothing)
    size = tissue.grid.voxel_size
    soft = np.asarray(ndimage.gaussian_filter(np.round(cavity), 0.7 / size), np.float32)
    outside = ndimage.distance_transform_edt(cavity < 0.5, sampling=size)
    brain = np.clip(tissue.white + tissue.grey, 0, 1)
    wall = looks.wall * np.exp(-((outside / WALL) ** 2)) * (1 - soft) * brain
    return Scenery(tissue, texture, now, scar, soft, wall.astype(np.float32))
