"""Plans of phantoms: radiation with or without a boost, temozolomide, surgery, drawn at random."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.dose_planning import dose_around, integrated_boost, relative_dose
from hybridtumor.grid import BoolArray
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.targets import TumourMasks, clinical_targets
from hybridtumor.therapy import Chemotherapy, DoseMap, Fractionation, Resection, TherapyPlan, Treatment
from hybridtumor.tissue import TissueMap

RECIPES = ("estro-eano-2023", "eortc-2016")

COURSES = ((30, 60.0), (15, 40.0), (5, 25.0), (30, 50.0), (20, 30.0))
"""(fractions, Gy): schedules in use, and weaker ones for the dose-response."""

RADIATION, DRUG, SURGERY, BOOST = 0.9, 0.6, 0.35, 0.35
"""Shares of the plans that have each; a boost belongs to radiation."""

RECOVERY = (14, 28)
"""Days from surgery to radiation."""

SMALLEST_CAVITY = 500.0
"""mm³. Less is not operated on."""


def random_plan(
    rng: np.random.Generator, density: NDArray[np.float32], tissue: TissueMap, thresholds: ImagingThresholds
) -> TherapyPlan:
    """Return a plan for a tumour of day 0; it gives at least one thing.

    Parameters
    ----------
    density
        Of day 0, shape ``tissue.grid.shape``.
    """
    masks = _masks(density, thresholds)
    treatments: list[Treatment] = []
    start, cavity = float(rng.integers(2, 10)), None
    if rng.random() < SURGERY:
        cavity = random_cavity(rng, masks.core, tissue)
    if cavity is not None and cavity.any():
        day = float(rng.integers(1, 5))
        treatments.append(Resection(cavity, tissue.grid, day, residual=float(rng.choice([0.0, 0.02, 0.05]))))
        start = day + float(rng.integers(*RECOVERY))
    if rng.random() < RADIATION or not treatments:
        treatments += random_radiation(rng, masks, cavity, tissue, start)
    if rng.random() < DRUG:
        treatments.append(Chemotherapy.temozolomide(start))
    return TherapyPlan.of(*treatments)


def random_radiation(
    rng: np.random.Generator, masks: TumourMasks, cavity: BoolArray | None, tissue: TissueMap, start: float
) -> list[Fractionation]:
    """Return one course from day `start` on: plain, with an integrated boost, or with a second course as a boost."""
    fractions, gray = COURSES[rng.integers(len(COURSES))]
    gray *= float(rng.uniform(0.8, 1.1))
    ((_, target),) = clinical_targets(str(rng.choice(RECIPES)), masks, tissue, cavity=cavity)
    boost = rng.random() < BOOST
    if boost and rng.random() < 0.5:
        ratio = float(rng.uniform(1.1, 1.3))
        shape = integrated_boost(relative_dose(target, tissue), relative_dose(masks.core, tissue, margin=5.0), ratio)
        dose = DoseMap((gray * shape).astype(np.float32), tissue.grid)
        return [Fractionation(dose, fractions, start, prescription=gray, boost=gray * ratio)]
    first = Fractionation(dose_around(target, tissue, gray), fractions, start)
    if not boost:
        return [first]
    count = int(rng.integers(4, 9))
    dose = dose_around(masks.core, tissue, count * gray / fractions, margin=5.0)
    return [first, Fractionation(dose, count, float(np.ceil(first.fraction_days[-1])) + 3)]


def random_cavity(rng: np.random.Generator, core: BoolArray, tissue: TissueMap) -> BoolArray:
    """Return what is taken out: the core and a little more, sometimes less on one side; empty for a small core.

    Its border is smooth: tissue sinks into a cavity.
    """
    size, grown = tissue.grid.voxel_size, core
    distance = ndimage.distance_transform_edt(~core, sampling=size) - ndimage.distance_transform_edt(
        core, sampling=size
    )
    grown = distance <= rng.uniform(-1.0, 2.0)
    if rng.random() < 0.4 and core.any():
        index = np.argwhere(core)
        normal = rng.standard_normal(3)
        along = (np.moveaxis(np.indices(core.shape), 0, -1) - index.mean(axis=0)) @ (normal / np.linalg.norm(normal))
        grown &= along < np.quantile((index - index.mean(axis=0)) @ (normal / np.linalg.norm(normal)), 0.8)
    smooth = ndimage.gaussian_filter(grown.astype(np.float32), 1.5 / size) > 0.5
    cavity = np.asarray(smooth & (tissue.white + tissue.grey + tissue.csf > 0.5))
    return cavity if np.count_nonzero(cavity) * tissue.grid.voxel_volume >= SMALLEST_CAVITY else np.zeros_like(cavity)


def _masks(density: NDArray[np.float32], thresholds: ImagingThresholds) -> TumourMasks:
    """Return what shows; a tumour without a core has its oedema for one."""
    core, whole = density > thresholds.enhancing, density > thresholds.edema
    return TumourMasks(core, whole & ~core) if core.any() else TumourMasks(whole, whole)
