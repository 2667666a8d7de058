r"""From a tumour to its clinical targets: gross tumour, whole tumour, and the margins of a named recipe, by phases.

    T = {x in the brain : dist(x, G) ≤ m and the way to x through the brain is no longer},   D_k = D n_k / n

G is the core of the tumour or all that shows of it, each with the cavity of a resection; m the margin of the phase, mm.
Phase k takes n_k of the n fractions, and so the dose per fraction is the same in all phases. Ventricles and outer CSF
are barriers: cells migrate through tissue, so a target does not reach across them. Falx and tentorium are barriers only
where the tissue map shows CSF.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isclose
from types import MappingProxyType
from typing import Literal

import numpy as np

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.margins import grow_within, require_margin, require_mask
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient
from hybridtumor.tissue import TissueMap


@dataclass(frozen=True)
class TargetPhase:
    """One phase of a recipe: a target, and what share of the course it gets.

    Parameters
    ----------
    name
        As the recipe calls the target.
    around
        What the margin starts from: the ``core`` (enhancing and necrotic tumour) or the ``whole`` (with the oedema),
        each with the cavity of a resection.
    margin
        To the clinical target, mm.
    margin_without_oedema
        The margin where no oedema shows, mm; None: the same.
    share
        Of the prescribed dose and of the fractions, in (0, 1].
    """

    name: str
    around: Literal["core", "whole"]
    margin: float
    margin_without_oedema: float | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How a guideline builds clinical targets; its phases follow each other in time.

    Raises
    ------
    InputError
        Shares that do not add up to 1, a negative margin.
    """

    name: str
    phases: tuple[TargetPhase, ...]
    source: str

    def __post_init__(self) -> None:
        shares = [phase.share for phase in self.phases]
        if not isclose(sum(shares), 1) or min(shares) <= 0:
            raise InputError(f"recipe {self.name}: expected shares above 0 that add up to 1, got {shares}.")
        for phase in self.phases:
            require_margin(phase.margin)
            require_margin(phase.margin if phase.margin_without_oedema is None else phase.margin_without_oedema)


_RTOG = (
    TargetPhase("CTV1", "whole", 20.0, margin_without_oedema=25.0, share=46 / 60),
    TargetPhase("CTV2", "core", 20.0, share=14 / 60),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                "estro-eano-2023",
                (TargetPhase("CTV", "core", 15.0),),
                "ESTRO-EANO 2023: Niyazi et al., Radiother. Oncol. 184, 2023",
            ),
            Recipe(
                "eortc-2016",
                (TargetPhase("CTV", "core", 20.0),),
                "ESTRO-ACROP 2016, as in the EORTC trials: Niyazi et al., Radiother. Oncol. 118, 2016",
            ),
            Recipe(
                "rtog",
                _RTOG,
                "RTOG, 23 × 2 Gy and 7 × 2 Gy; margins as tabulated in Radiol. Oncol. 2018, doi 10.2478/raon-2018-0023",
            ),
            Recipe("gtv", (TargetPhase("GTV", "core", 0.0),), "the gross tumour itself, for boosts"),
        )
    }
)
"""Recipes by name. The cavity and the residual enhancement are the start of all; RTOG adds the oedema in phase one."""


@dataclass(frozen=True, eq=False)
class TumourMasks:
    """What shows of a tumour on day 0: its core, and its oedema; boolean arrays of one shape.

    A tumour that shows nothing but oedema has it for a core.
    """

    core: BoolArray
    oedema: BoolArray | None = None

    @property
    def whole(self) -> BoolArray:
        """Core and oedema."""
        return self.core if self.oedema is None else self.core | self.oedema


def tumour_masks(patient: Patient, thresholds: ImagingThresholds | None = None) -> TumourMasks:
    """Return the tumour of day 0 on the patient's grid, by the segmentation or else by the density.

    The core is the labels enhancing and necrosis (which BraTS shares with non-enhancing tumour) of the baseline
    segmentation, the rest of the labels oedema; without a segmentation, the density exceeds the threshold of
    enhancement in the core and that of oedema in all that shows.

    Raises
    ------
    InputError
        Neither segmentation nor density shows a tumour.
    """
    limits = thresholds or ImagingThresholds()
    candidates = []
    if patient.baseline.labels is not None:
        labels = patient.baseline.labels
        candidates.append((labels.mask("enhancing", "necrosis"), labels.mask()))
    if patient.density is not None:
        density = patient.density.values
        candidates.append((density > limits.enhancing, density > limits.edema))
    for core, whole in candidates:
        if core.any():
            return TumourMasks(np.asarray(core), np.asarray(whole & ~core))
        if whole.any():
            return TumourMasks(np.asarray(whole), np.asarray(whole))
    raise InputError(
        f"patient {patient.id}: expected a tumour to aim at, found none in the segmentation or the density of day 0."
        " Give a dose file instead of a target."
    )


def gross_tumour(patient: Patient, thresholds: ImagingThresholds | None = None) -> BoolArray:
    """Return the core of the tumour of day 0, or all that shows of a tumour without core; see `tumour_masks`."""
    return tumour_masks(patient, thresholds).core


def whole_tumour(patient: Patient, thresholds: ImagingThresholds | None = None) -> BoolArray:
    """Return all that shows of the tumour on day 0, oedema included; see `tumour_masks`."""
    return tumour_masks(patient, thresholds).whole


def clinical_targets(
    recipe: str,
    tumour: Patient | TumourMasks,
    tissue: TissueMap,
    *,
    margin: float | None = None,
    cavity: BoolArray | None = None,
) -> tuple[tuple[TargetPhase, BoolArray], ...]:
    """Return the phases of a recipe and their clinical targets, grown through brain tissue only.

    Parameters
    ----------
    recipe
        A key of `RECIPES`.
    tumour
        A patient, or the masks of a tumour, shape ``tissue.grid.shape``; they are part of the target wherever they lie.
    tissue
        Where brain is; its affine gives the distances, mm.
    margin
        Instead of every margin of the recipe, mm.
    cavity
        What a resection took out, shape ``tissue.grid.shape``; it counts with the tumour.

    Returns
    -------
    tuple
        Each phase, with the margin that was used, and its target, shape ``tissue.grid.shape``.

    Raises
    ------
    InputError
        Unknown recipe, no tumour, a mask of another shape, a negative margin.
    """
    if recipe not in RECIPES:
        raise InputError(f"target: expected one of {', '.join(RECIPES)}, got {recipe!r}.")
    masks = tumour if isinstance(tumour, TumourMasks) else tumour_masks(tumour)
    core, whole, oedema = _with_cavity(masks, cavity, tissue.grid)
    result = []
    for phase in RECIPES[recipe].phases:
        reach = phase.margin if oedema or phase.margin_without_oedema is None else phase.margin_without_oedema
        reach = reach if margin is None else margin
        start = core if phase.around == "core" else whole
        target = grow_within(start, tissue.parenchyma, tissue.grid, reach)
        result.append((replace(phase, margin=reach, margin_without_oedema=None), target))
    return tuple(result)


def split_fractions(fractions: int, phases: Sequence[TargetPhase]) -> tuple[int, ...]:
    """Return how many of the fractions each phase gets: 23 and 7 of 30 for RTOG.

    Whole numbers by the method of the largest remainder, ties to the earlier phase. A phase may get none: it is
    dropped.

    Raises
    ------
    InputError
        Fewer than one fraction.
    """
    if fractions < 1:
        raise InputError(f"fractions: expected at least one, got {fractions}.")
    quotas = [fractions * phase.share for phase in phases]
    counts = [floor(quota + 1e-9) for quota in quotas]
    behind = sorted(range(len(quotas)), key=lambda k: (-round(quotas[k] - counts[k], 9), k))
    for k in behind[: fractions - sum(counts)]:
        counts[k] += 1
    return tuple(counts)


def _with_cavity(masks: TumourMasks, cavity: BoolArray | None, grid: Grid) -> tuple[BoolArray, BoolArray, bool]:
    """Return core and whole tumour, each with the cavity, and whether oedema is left outside the cavity."""
    require_mask(masks.core, grid, "gross tumour", empty=True)
    oedema = np.zeros(grid.shape, bool) if masks.oedema is None else masks.oedema
    require_mask(oedema, grid, "oedema", empty=True)
    if cavity is None:
        return masks.core, masks.core | oedema, bool(oedema.any())
    require_mask(cavity, grid, "cavity", empty=True)
    return masks.core | cavity, masks.core | oedema | cavity, bool((oedema & ~cavity).any())
