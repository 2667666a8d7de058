"""Scene: everything the refiner needs about one day, cut to the box in which the image may change."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.baseline import Baseline
from hybridtumor.models.conditioning import Condition, FieldStack
from hybridtumor.models.denoiser import STRIDE
from hybridtumor.models.render import FADE, Rendering, render
from hybridtumor.models.resolution import Box, block_mean, interpolate, working_factor
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABELS, MODALITIES

INVISIBLE = 0.05
"""Density below which no label fraction can change visibly."""

CONTEXT = 3
"""Working voxels around the support that the networks see."""

SMALLEST_BOX = 32
"""Working voxels. Edge of the boxes the networks were trained on."""

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DayFields:
    """What the growth layer says of one day, (X, Y, Z) each, on the patient's grid, where the tissue is on that day.

    Densities are those that MRI sees: living and damaged cells. `cavity` is the share that surgery has taken out,
    (X, Y, Z), or None.
    """

    density_day0: Array
    density: Array
    density_untreated: Array
    log_kill: Array
    cavity: Array | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything about one day inside one box: at the patient's resolution and on the working grid.

    Parameters
    ----------
    box, factor
        Box on the working grid; patient voxels per working voxel.
    baseline, labels
        (4, x, y, z) normalised scans and (3, x, y, z) labels of day 0, where their tissue is now, patient resolution.
    drawn
        The render, patient resolution.
    fields
        (9, X, Y, Z) fields on the working grid.
    condition
        The condition.
    """

    box: Box
    factor: int
    baseline: Array
    labels: Array
    drawn: Rendering
    fields: Array
    condition: Condition

    @classmethod
    def cut(
        cls, baseline: Baseline, fields: DayFields, box: Box, condition: Condition, thresholds: ImagingThresholds
    ) -> "Scene":
        """Cut a box out of the patient, render it and pool its fields."""
        factor = working_factor(baseline.grid)
        fine = box.scaled(factor)
        white, grey, csf = (fine.take(t) for t in (baseline.tissue.white, baseline.tissue.grey, baseline.tissue.csf))
        before, now = fine.take(fields.density_day0), fine.take(fields.density)
        images, labels = fine.take(baseline.images), fine.take(baseline.soft_labels)
        drawn = render(
            images,
            fine.take(baseline.healthy),
            labels,
            before,
            now,
            condition.contrast,
            fine.take(baseline.head),
            baseline.grid.voxel_size,
            thresholds,
            enhances=baseline.enhances,
        )
        stack = FieldStack(
            density=now,
            density_untreated=fine.take(fields.density_untreated),
            log_kill=fine.take(fields.log_kill),
            displacement=np.zeros_like(now),  # 0 in training, so 0 here too: images are carried before they are refined
            white=white,
            grey=grey,
            csf=csf,
            support=drawn.support,
            density_day0=before,
        ).stack()
        return cls(box, factor, images, labels, drawn, block_mean(stack, factor), condition)

    @property
    def working_support(self) -> Array:
        """M on the working grid."""
        return block_mean(self.drawn.support, self.factor)

    def inputs(self) -> dict[str, Array]:
        """Return what the networks read, on the working grid."""
        seen = np.array([*self.condition.available, *[True] * len(LABELS)], np.float32)[:, None, None, None]
        return {
            "baseline": seen * block_mean(np.concatenate([self.baseline, self.labels]), self.factor),
            "render": seen * block_mean(np.concatenate([self.drawn.images, self.drawn.labels]), self.factor),
            "fields": self.fields,
            "vector": self.condition.vector(),
        }

    def compose(self, added: Array) -> tuple[Array, Array]:
        """Return R + M·added at the patient's resolution.

        Images are (samples, 4, x, y, z), soft labels the mean over the samples, (3, x, y, z).
        """
        support = self.drawn.support
        fine = interpolate(added, self.factor, support.shape) * support
        split = len(MODALITIES)
        images = np.where(support > 0, self.drawn.images + fine[:, :split], self.drawn.images)
        labels = np.clip(self.drawn.labels + fine[:, split:], 0, 1).mean(axis=0)
        return images, np.where(support > 0, labels, self.drawn.labels)


def changed_box(before: Array, now: Array, baseline: Baseline) -> Box | None:
    """Return the box on the working grid around every place where the tumour may look different, or None."""
    changed = ((before > INVISIBLE) | (now > INVISIBLE)) & (before != now) & baseline.head
    if not changed.any():
        return None
    factor = working_factor(baseline.grid)
    coarse = block_mean(changed.astype(np.float32), factor) > 0
    margin = int(np.ceil(FADE / (factor * float(baseline.grid.voxel_size.min())))) + CONTEXT
    tight = Box.around(coarse, 1)
    start = [s - margin for s in tight.start]
    extent = [max(SMALLEST_BOX, -(-(e + 2 * margin) // STRIDE) * STRIDE) for e in tight.extent]
    start = [s - (e - t - 2 * margin) // 2 for s, e, t in zip(start, extent, tight.extent, strict=True)]
    return Box((start[0], start[1], start[2]), (extent[0], extent[1], extent[2]))
