"""Scene: everything the refiner needs about one day, cut to the box in which the image may change."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hybridtumor.baseline import Baseline
from hybridtumor.grid import BoolArray
from hybridtumor.models.conditioning import FIELDS, Condition, FieldStack, TherapyState
from hybridtumor.models.denoiser import STRIDE
from hybridtumor.models.render import FADE, Rendering, render
from hybridtumor.models.resolution import Box, block_mean, interpolate, working_factor
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABELS, MODALITIES

INVISIBLE = 0.05
"""Density below which no label fraction can change visibly."""

CONTEXT = 6
"""Working voxels around the support that the networks see."""

SMALLEST_BOX = 64
"""Working voxels. Edge of the boxes the networks were trained on."""

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DayFields:
    """What the growth layer says of one day, (X, Y, Z) each, on the patient's grid, where the tissue is on that day.

    Densities are those that MRI sees: living and damaged cells. `cavity` is the share that surgery has taken out and
    `displacement` how far the tissue has moved, mm, (X, Y, Z) each, or None.
    """

    density_day0: Array
    density: Array
    density_untreated: Array
    log_kill: Array
    cavity: Array | None = None
    displacement: Array | None = None

    @property
    def felt(self) -> BoolArray:
        """Where there would be visible tumour: what therapy does elsewhere, no image shows, (X, Y, Z)."""
        return np.maximum(self.density_day0, self.density_untreated) > INVISIBLE

    @property
    def spares_the_tumour(self) -> bool:
        """Whether therapy has left no trace in the tumour: dose beside it, or none at all."""
        killed = (self.log_kill[self.felt] > 0).any()
        cut = self.cavity is not None and self.cavity[self.felt].any()
        return not killed and not cut and np.array_equal(self.density, self.density_untreated)


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
        The render on tissue means, patient resolution.
    fields
        (11, X, Y, Z) fields on the working grid.
    condition
        The condition.
    healthy
        (4, X, Y, Z) mean of the healthy fill on the working grid.
    enhances
        Whether the tumour enhances.
    contrast_error
        (3, 4) how unsure the contrast is.
    density, spared
        (X, Y, Z) density and what therapy has spared of it, on the working grid: the source term's target.
    treated
        The render of the treated tumour, where the networks are told nothing of the therapy.
    """

    box: Box
    factor: int
    baseline: Array
    labels: Array
    drawn: Rendering
    fields: Array
    condition: Condition
    healthy: Array
    enhances: bool
    contrast_error: Array
    density: Array
    spared: Array
    treated: Rendering | None = None

    @classmethod
    def cut(
        cls, baseline: Baseline, fields: DayFields, box: Box, condition: Condition, thresholds: ImagingThresholds
    ) -> "Scene":
        """Cut a box out of the patient, render it and pool its fields."""
        factor = working_factor(baseline.grid)
        fine = box.scaled(factor)
        drawn = draw(baseline, fields, box, condition, thresholds)
        tissue = baseline.tissue
        white, grey, csf, before, now, untreated, log_kill = (
            fine.take(a)
            for a in (tissue.white, tissue.grey, tissue.csf, fields.density_day0, fields.density,
                      fields.density_untreated, np.where(fields.felt, fields.log_kill, 0))
        )  # fmt: skip
        absent = np.zeros_like(now)
        stack = FieldStack(
            density=now,
            density_untreated=untreated,
            log_kill=log_kill,
            displacement=absent if fields.displacement is None else fine.take(fields.displacement),
            white=white,
            grey=grey,
            csf=csf,
            support=drawn.support,
            density_day0=before,
            kept=drawn.kept if baseline.filled is None else drawn.kept * (1 - fine.take(baseline.filled)),
            cavity=absent if fields.cavity is None else fine.take(fields.cavity).astype(np.float32),
        ).stack()
        images, labels = fine.take(baseline.images), fine.take(baseline.soft_labels)
        healthy = block_mean(fine.take(baseline.healthy), factor)
        coarse = block_mean(stack, factor)
        density, spared = (coarse[FIELDS.index(name)] for name in ("density", "spared"))
        shown = (box, factor, images, labels, drawn, coarse, condition, healthy, baseline.enhances)
        return cls(*shown, baseline.contrast_error, density, spared)

    def told_nothing(self, baseline: Baseline, fields: DayFields, thresholds: ImagingThresholds) -> "Scene":
        """Return the scene of the untreated tumour where this one may be written: therapy enters in the sampler.

        The density and what therapy spared stay as they are, for the source term; the networks are shown neither.
        """
        none = replace(self.condition, therapy=TherapyState())
        spared = replace(fields, density=fields.density_untreated, log_kill=np.zeros_like(fields.log_kill), cavity=None)
        other = Scene.cut(baseline, spared, self.box, none, thresholds)
        support = np.maximum(other.drawn.support, self.drawn.support)
        shown = other.fields.copy()
        shown[FIELDS.index("support")] = block_mean(support, self.factor)
        drawn = replace(other.drawn, support=support)
        return replace(other, drawn=drawn, fields=shown, density=self.density, spared=self.spared, treated=self.drawn)

    def coloured(self, change: Array) -> "Scene":
        """Return the scene of a tumour whose contrast differs by `change`, (3, 4)."""
        condition = replace(self.condition, contrast=self.condition.contrast + change)

        def painted(rendering: Rendering) -> Rendering:
            return replace(rendering, images=rendering.images + rendering.coloured(change))

        treated = None if self.treated is None else painted(self.treated)
        return replace(self, drawn=painted(self.drawn), treated=treated, condition=condition)

    def killed(self) -> Array | None:
        """Return by how much therapy changes scans and labels of the render, (7, X, Y, Z) on the working grid.

        None where the networks are told of it.
        """
        if self.treated is None:
            return None
        pairs = ((self.treated.images, self.drawn.images), (self.treated.labels, self.drawn.labels))
        return block_mean(np.concatenate([with_it - without for with_it, without in pairs]), self.factor)

    @property
    def working_support(self) -> Array:
        """M on the working grid."""
        return block_mean(self.drawn.support, self.factor)

    def inputs(self) -> dict[str, Array]:
        """Return what the networks read, on the working grid: baseline, render, fields and vector."""
        seen = np.array([*self.condition.available, *[True] * len(LABELS)], np.float32)[:, None, None, None]
        return {
            "baseline": seen * block_mean(np.concatenate([self.baseline, self.labels]), self.factor),
            "render": seen * block_mean(np.concatenate([self.drawn.images, self.drawn.labels]), self.factor),
            "fields": self.fields,
            "vector": self.condition.vector(),
        }

    def compose(self, added: Array) -> tuple[Array, Array]:
        """Return R + M·added at the patient's resolution.

        Images are (samples, 4, x, y, z), soft labels (samples, 3, x, y, z).
        """
        support = self.drawn.support
        fine = interpolate(added, self.factor, support.shape) * support
        split = len(MODALITIES)
        images = np.where(support > 0, self.drawn.images + fine[:, :split], self.drawn.images)
        labels = np.clip(self.drawn.labels + fine[:, split:], 0, 1)
        return images, np.where(support > 0, labels, self.drawn.labels)


def draw(
    baseline: Baseline,
    fields: DayFields,
    box: Box,
    condition: Condition,
    thresholds: ImagingThresholds,
    *,
    textured: bool = False,
) -> Rendering:
    """Return the render in a box of the working grid, at the patient's resolution.

    On tissue means, which is what the networks add to, or `textured`, which is the best picture without them.
    """
    fine = box.scaled(working_factor(baseline.grid))
    healthy = fine.take(baseline.healthy)
    if textured:
        healthy = healthy + fine.take(baseline.texture)
    return render(
        fine.take(baseline.images),
        healthy,
        fine.take(baseline.soft_labels),
        fine.take(fields.density_day0),
        fine.take(fields.density),
        condition.contrast,
        fine.take(baseline.head),
        baseline.grid.voxel_size,
        thresholds,
        enhances=baseline.enhances,
    )


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
