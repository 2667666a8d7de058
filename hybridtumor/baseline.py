"""Baseline: the day-0 scans as the image layer sees them, normalised, with healthy fill and tumour contrast."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.models.carry import carried
from hybridtumor.models.contrast import POPULATION, contrast_error, measure_contrast
from hybridtumor.models.distance import distance_near
from hybridtumor.models.healthy_fill import fill_weight, healthy_fill
from hybridtumor.models.initial_density import enhances as labels_enhance
from hybridtumor.models.intensity import IntensityScale
from hybridtumor.models.texture import LEVELS_SHAPE, TYPICAL_LEVEL, texture_levels
from hybridtumor.models.visibility import label_map
from hybridtumor.models.warp import Origins
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient
from hybridtumor.scan import LABELS, MODALITIES, LabelMap
from hybridtumor.tissue import TissueMap

NEAR_TUMOUR = 6.0
"""mm around the tumour that do not count as healthy when intensities are normalised."""

VISIBLE_TAIL = 0.1
"""Density from which tissue is filled although no label covers it."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """The baseline visit of one patient, every array on the patient's grid.

    Parameters
    ----------
    scans
        Modality to scan, scanner units.
    images
        (4, X, Y, Z) normalised scans, 0 outside the head and for a missing modality.
    healthy, texture
        (4, X, Y, Z) mean of their healthy fill and what to add for a textured one (`hybridtumor.models.healthy_fill`).
    labels
        The patient's segmentation, or what the density shows where there is none.
    density
        n_0.
    tissue
        Tissue fractions.
    scale
        Between scanner units and normalised intensity.
    contrast, contrast_error
        (3, 4) contrast of the tumour and how unsure it is (`hybridtumor.models.contrast`).
    available
        One flag per modality.
    enhances
        Whether the tumour enhances.
    levels
        (4, 2) strength of texture in healthy white matter (`hybridtumor.models.texture`).
    moved
        Where the tissue is not where it was on day 0, (X, Y, Z), in a baseline that mechanics has carried along.
    filled
        Where `images` are a fill and not a scan, (X, Y, Z) in [0, 1], in a baseline whose tumour has been taken out.
    """

    scans: Mapping[str, NDArray[np.float32]]
    images: NDArray[np.float32]
    healthy: NDArray[np.float32]
    texture: NDArray[np.float32]
    labels: LabelMap
    density: NDArray[np.float32]
    tissue: TissueMap
    scale: IntensityScale
    contrast: NDArray[np.float32]
    contrast_error: NDArray[np.float32]
    available: tuple[bool, ...]
    enhances: bool
    levels: NDArray[np.float32]
    moved: BoolArray | None = None
    filled: NDArray[np.float32] | None = None

    @property
    def grid(self) -> Grid:
        """The patient's grid."""
        return self.tissue.grid

    @cached_property
    def head(self) -> BoolArray:
        """Where there is head, (X, Y, Z)."""
        return self.tissue.head

    @cached_property
    def soft_labels(self) -> NDArray[np.float32]:
        """The segmentation as (3, X, Y, Z) of zeros and ones."""
        return np.stack([self.labels.mask(name) for name in LABELS]).astype(np.float32)

    def carried(self, origins: Origins) -> "Baseline":
        """Return the baseline with its tissue where it is on a later day, bit for bit the same where nothing moved.

        Scans, their fill and density are carried by cubic splines, tissue fractions trilinearly, labels by the nearest
        voxel.
        """
        moved = origins.mask
        if not moved.any():
            return replace(self, moved=moved)
        white, grey, csf = carried(np.stack([self.tissue.white, self.tissue.grey, self.tissue.csf]), origins, order=1)
        tissue = replace(self.tissue, white=white, grey=grey, csf=csf)
        absent = np.zeros(self.grid.shape, np.float32)
        scans = carried(np.stack([self.scans.get(name, absent) for name in MODALITIES]), origins, order=3)
        images = np.where(moved, self.scale.normalise(scans) * tissue.head, self.images)
        return replace(
            self,
            scans={name: scan for name, scan in zip(MODALITIES, scans, strict=True) if name in self.scans},
            images=images,
            healthy=carried(self.healthy, origins, order=3),
            texture=carried(self.texture, origins, order=3),
            labels=replace(self.labels, values=carried(self.labels.values, origins, order=0)),
            density=carried(self.density, origins, order=3),
            tissue=tissue,
            moved=moved,
        )


def without_tumour(real: Baseline) -> Baseline:
    """Return a baseline from before the tumour: its scans with the mean of their fill, no label, no cells.

    Its contrast is still the patient's own: replace it where the question is what can be known beforehand.
    """
    weight = fill_weight(real.labels.mask() | (real.density > VISIBLE_TAIL), real.tissue)
    nothing = LabelMap(np.zeros(real.grid.shape, np.uint8), real.grid, real.labels.codes)
    return replace(
        real,
        images=real.images + weight * (real.healthy - real.images),
        labels=nothing,
        density=np.zeros_like(real.density),
        contrast_error=contrast_error(np.zeros(len(LABELS))),
        filled=weight,
    )


def read_baseline(
    patient: Patient, *, population: NDArray[np.float32] = POPULATION, thresholds: ImagingThresholds | None = None
) -> Baseline:
    """Prepare a patient's baseline visit for the image layer.

    Parameters
    ----------
    patient
        With tissue and density.
    population
        Contrast of a typical glioma; see `hybridtumor.models.contrast`.
    thresholds
        Densities at which the tumour shows; used where the visit has no segmentation.

    Raises
    ------
    InputError
        Tissue or density is missing, or no MRI is there.
    """
    if patient.tissue is None or patient.density is None:
        raise InputError(
            f"patient {patient.id}: expected tissue and density."
            " Load it with hybridtumor.load_patient, which derives them."
        )
    visit, head, density = patient.baseline, patient.tissue.head, patient.density.values
    available = tuple(name in visit.scans for name in MODALITIES)
    if not any(available):
        raise InputError(f"patient {patient.id}: expected at least one of {', '.join(MODALITIES)} on day 0, got none.")
    labels = visit.labels or LabelMap(label_map(density, thresholds or ImagingThresholds()), patient.grid)
    tumour = labels.mask() | (density > VISIBLE_TAIL)
    near = distance_near(tumour, patient.grid.voxel_size, NEAR_TUMOUR) <= NEAR_TUMOUR
    scans = np.stack([visit.scans[name].values for name, there in zip(MODALITIES, available, strict=True) if there])
    scale = IntensityScale.of(scans, head & ~near)
    present = np.array(available)
    images = np.zeros((len(MODALITIES), *patient.grid.shape), np.float32)
    images[present] = scale.normalise(scans) * head
    healthy, texture = np.zeros_like(images), np.zeros_like(images)
    fill = healthy_fill(images[present], tumour, patient.tissue)
    healthy[present], texture[present] = fill.mean, fill.texture
    full = IntensityScale(np.zeros(len(MODALITIES), np.float32), np.ones(len(MODALITIES), np.float32))
    full.median[present], full.width[present] = scale.median, scale.width
    soft = np.stack([labels.mask(name) for name in LABELS]).astype(np.float32)
    contrast = measure_contrast(images, healthy, soft, patient.grid.voxel_volume, population)
    contrast[:, ~present] = population[:, ~present]
    levels = texture_levels(images, patient.tissue.white, head & ~near, patient.grid.voxel_size)
    if levels is None:
        levels = np.full(LEVELS_SHAPE, TYPICAL_LEVEL, np.float32)
    levels[~present] = TYPICAL_LEVEL
    return Baseline(
        {name: visit.scans[name].values for name, there in zip(MODALITIES, available, strict=True) if there},
        images,
        healthy,
        texture,
        labels,
        density,
        patient.tissue,
        full,
        contrast,
        contrast_error(soft.sum(axis=(1, 2, 3)) * patient.grid.voxel_volume),
        available,
        bool(labels_enhance(labels)),
        levels,
    )
