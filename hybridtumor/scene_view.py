"""SceneView: a scene as torch sees it: the regression's answer, and the denoiser told about it, steered by therapy."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS, THERAPY_ENTRIES, THERAPY_FIELDS
from hybridtumor.models.density_estimator import SMOOTHING, DensityTemplates
from hybridtumor.models.smoothing import KERNEL_REACH
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.refiner_scene import Scene
from hybridtumor.refiner_weights import RefinerWeights
from hybridtumor.scan import LABELS, MODALITIES
from hybridtumor.solvers.guidance import Conditions, GuidanceOptions, Source, copies, guided
from hybridtumor.solvers.sampling import Denoise

IMAGES = len(MODALITIES)


@dataclass(frozen=True, eq=False)
class SceneView:
    """Everything a sampler needs of one scene, on the working grid, with a leading axis of 1.

    Parameters
    ----------
    scene
        The scene.
    weights, thresholds
        Of the refiner.
    inputs
        What the networks read.
    mean, scale
        μ and s, (1, 7, X, Y, Z).
    strength
        What s is multiplied by in the image, (1, 7, 1, 1, 1): how strong texture is drawn.
    """

    scene: Scene
    weights: RefinerWeights
    thresholds: ImagingThresholds
    inputs: dict[str, Tensor]
    mean: Tensor
    scale: Tensor
    strength: Tensor

    @classmethod
    def of(
        cls,
        scene: Scene,
        weights: RefinerWeights,
        thresholds: ImagingThresholds,
        strength: NDArray[np.float32] | None = None,
    ) -> "SceneView":
        """Ask the regression; `strength` is (7,), 1 by default."""
        inputs = {name: torch.from_numpy(np.ascontiguousarray(values))[None] for name, values in scene.inputs().items()}
        with torch.no_grad():
            mean, scale = weights.regression(inputs["baseline"], inputs["render"], inputs["fields"], inputs["vector"])
        drawn = torch.ones(IMAGE_CHANNELS) if strength is None else torch.from_numpy(strength)
        return cls(scene, weights, thresholds, inputs, mean, scale, drawn[None, :, None, None, None])

    @property
    def support(self) -> Tensor:
        """M, (1, 1, X, Y, Z)."""
        return self.inputs["fields"][:, FIELDS.index("support"), None]

    def added(self, clean: Tensor) -> Tensor:
        """Return μ + s r, with r as strong as it is drawn, (B, 7, X, Y, Z)."""
        return self.mean + self.strength * self.scale * clean

    def denoiser(self, options: GuidanceOptions) -> Denoise:
        """Return D(y, σ), steered as `options` say."""
        fields, vector = self.inputs["fields"], self.inputs["vector"]
        bare, nothing = fields.clone(), fields.clone()
        bare[:, list(THERAPY_FIELDS)] = 0
        nothing[:, [i for i, name in enumerate(FIELDS) if name != "support"]] = 0
        without = vector.clone()
        without[:, THERAPY_ENTRIES] = 0
        told = Conditions(self._told(fields, vector), self._told(bare, without), self._told(nothing, without))
        if options.mode == "source":  # its scene is the untreated one already
            told = Conditions(told.treated, told.treated, told.none)
        return guided(told, options, self._sources())

    def copies(self, options: GuidanceOptions) -> int:
        """Return how many copies of a start `denoiser` works on (`hybridtumor.solvers.guidance.copies`)."""
        return copies(options, self._sources()) if options.mode == "source" else 1

    def _told(self, fields: Tensor, vector: Tensor) -> Denoise:
        mean_image = self.inputs["render"] + self.support * self.mean
        known = (mean_image, self.scale.log(), fields, vector)
        return lambda y, sigma: self.weights.denoiser(y, sigma, *known)

    def _sources(self) -> list[Source]:
        """Return the potentials of the scans and of the soft labels; none where therapy has changed nothing."""
        changed = self.scene.spared != 0
        if not changed.any():
            return []
        here = _around(changed, math.ceil(KERNEL_REACH * SMOOTHING))
        treated = torch.from_numpy(self.scene.density[here])[None, None]
        untreated = treated + torch.from_numpy(self.scene.spared[here])[None, None]
        healthy = torch.from_numpy(self.scene.healthy[(slice(None), *here)])
        condition, enhances = self.scene.condition, self.scene.enhances
        asked = (treated != untreated)[0, 0]
        scans = DensityTemplates(
            healthy, condition.contrast, self.thresholds, enhances, condition.available, within=asked
        )
        blank = torch.zeros((len(LABELS), *healthy.shape[1:]))
        labels = DensityTemplates(blank, np.eye(len(LABELS), dtype=np.float32), self.thresholds, enhances, within=asked)
        return [
            self._source(estimator, treated, untreated, here, channels)
            for estimator, channels in ((scans, slice(0, IMAGES)), (labels, slice(IMAGES, None)))
        ]

    def _source(
        self, estimator: DensityTemplates, treated: Tensor, untreated: Tensor, here: tuple[slice, ...], own: slice
    ) -> Source:
        part = (slice(None), own, *here)
        support = self.support[(slice(None), slice(None), *here)]
        still = self.inputs["render"][part] + support * self.mean[part]
        gain = support * (self.strength[:, own] * self.scale[part])
        killed = self.scene.killed()
        shown = None if killed is None else torch.from_numpy(killed)[None][part]
        return Source(lambda clean: still + gain * clean, estimator, treated, untreated, here, own, shown)  # type: ignore[arg-type]


def _around(mask: NDArray[np.bool_], reach: int) -> tuple[slice, slice, slice]:
    """Return the bounding box of a mask, wider by `reach` voxels."""
    x, y, z = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - reach), s.stop + reach) for s in (x, y, z))  # type: ignore[return-value]
