"""Phantoms: virtual patients on whom the growth solver ran, treated and untreated, as lessons for the refiner.

    anatomy (phantom_anatomy) → growth and plan (phantom_growth, phantom_plan) → what shows (phantom_looks)
            → scans (phantom_scanner) → baseline and pairs (here)

The scans come from the signal equation with what the render lacks, so that learning the residual is not learning the
render. A phantom is made from its number alone: numbers from 0 on are for training, from `FIRST_TEST` on for tests.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridtumor.atlas import Atlas, mni152
from hybridtumor.baseline import Baseline, read_baseline
from hybridtumor.forecast import Forecast
from hybridtumor.models.carry import carried
from hybridtumor.models.conditioning import TherapyState
from hybridtumor.models.resolution import Box, block_mean, working_factor
from hybridtumor.models.warp import Origins, counterparts, find_origins
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient, Visit
from hybridtumor.phantom_anatomy import Anatomy, phantom_anatomy
from hybridtumor.phantom_growth import Story, grow_story
from hybridtumor.phantom_looks import Looks, Scenery, random_looks, scenery
from hybridtumor.phantom_scanner import Scanner, random_scanner, scanned
from hybridtumor.scan import LABELS, MODALITIES, LabelMap, Scan
from hybridtumor.teacher import PhantomPair
from hybridtumor.therapy import UNTREATED
from hybridtumor.tissue import TissueMap

Array = NDArray[np.float32]

STREAM = 7702
"""Seed that sets the random numbers of phantoms apart from all others."""

PLACES = 8
"""Multiple of which the extents of a pair are, working voxels."""

CONTEXT = 10.0
"""mm kept around everything that shows."""


@dataclass(frozen=True, eq=False)
class Moment:
    """One arm on one day, (X, Y, Z) each, where the tissue is on that day.

    `before` is the density of day 0, `spared` the untreated one, both of the tissue that is there now; `origins` says
    where it was, None where nothing moves; `displacement` is how far it has moved, mm.
    """

    density: Array
    before: Array
    spared: Array
    log_kill: Array
    cavity: Array | None
    origins: Origins | None
    displacement: Array


@dataclass(frozen=True, eq=False)
class Phantom:
    """A virtual patient: what became of the tumour, how it looks, and how it is scanned."""

    number: int
    story: Story
    looks: Looks
    scanner: Scanner
    thresholds: ImagingThresholds


def make_phantoms(numbers: Iterable[int], cache: Path, *, progress: Callable[[str], None] | None = None) -> None:
    """Make phantoms and write their pairs into the cache; those that are there stay.

    Parameters
    ----------
    numbers
        Of the phantoms. Several processes may work on different numbers at the same time.
    cache
        Folder of ``phantom_NNNN_*.safetensors``; a phantom whose ``phantom_NNNN.done`` is there is whole.
    progress
        Called with what has been done.
    """
    atlas: Atlas | None = None
    for number in numbers:
        done = cache / f"phantom_{number:04d}.done"
        if done.is_file():
            continue
        atlas = atlas or mni152()
        for pair in phantom_pairs(number, atlas):
            pair.save(cache / f"{pair.name}.safetensors")
        cache.mkdir(parents=True, exist_ok=True)
        done.touch()
        if progress is not None:
            progress(f"phantom {number}")


def phantom_pairs(number: int, atlas: Atlas) -> Iterator[PhantomPair]:
    """Yield the training pairs of one phantom: the treated arm on all days, the untreated one on one of them."""
    phantom, rng = random_phantom(number, phantom_anatomy(number, atlas))
    baseline = read_baseline(phantom_patient(phantom, rng), thresholds=phantom.thresholds)
    story = phantom.story
    lonely = float(rng.choice(story.days))
    for arm, day in [("treated", day) for day in story.days] + [("untreated", lonely)]:
        moment = moment_of(story, arm, day)
        scene, looks = scenery_of(phantom, moment)
        name = f"phantom_{number:04d}_{arm}_{day:03.0f}"
        therapy = TherapyState.on(story.plan if arm == "treated" else UNTREATED, day)
        here = baseline if moment.origins is None else baseline.carried(moment.origins)
        yield _pair(name, here, moment, scene, scanned(scene, looks, phantom.scanner, rng), day, therapy)


def random_phantom(
    number: int, brain: Anatomy, *, whole: bool = False, follow_ups: int = 2
) -> tuple[Phantom, np.random.Generator]:
    """Return the phantom of a number in a brain, and the generator that goes on with its noise.

    Parameters
    ----------
    number
        Seed of everything random but the anatomy.
    brain
        Of the whole head.
    whole, follow_ups
        As `hybridtumor.phantom_growth.grow_story`.
    """
    rng = np.random.default_rng([STREAM, number])
    story = grow_story(rng, brain, whole=whole, follow_ups=follow_ups)
    tissue = story.anatomy.tissue
    looks = random_looks(rng, story.density, tissue)
    scanner = random_scanner(rng, tissue.grid.shape, float(np.cbrt(tissue.grid.voxel_volume)))
    return Phantom(number, story, looks, scanner, ImagingThresholds()), rng


def phantom_patient(phantom: Phantom, rng: np.random.Generator) -> Patient:
    """Return the phantom as a patient with the visit of day 0; `rng` gives the noise."""
    story, grid = phantom.story, phantom.story.anatomy.tissue.grid
    scene = scenery(
        story.anatomy.tissue,
        story.anatomy.texture,
        story.density,
        story.density,
        None,
        phantom.looks,
        phantom.thresholds,
    )
    images = scanned(scene, phantom.looks, phantom.scanner, rng)
    visit = Visit(0, {name: Scan(image, grid) for name, image in images.items()}, LabelMap(scene.segmentation, grid))
    tissue, density = story.anatomy.tissue, Scan(story.density, grid)
    return Patient(f"phantom-{phantom.number}", (visit,), tissue, density, synthetic=True)


def moment_of(story: Story, arm: str, day: float) -> Moment:
    """Return what the growth layer says of an arm (``treated`` or ``untreated``) on a day."""
    forecast: Forecast = getattr(story, arm)
    now, (_, log_kill) = forecast.visible(day), forecast.at(day)
    before, spared = story.density, story.untreated.visible(day)
    cavity = story.cavities.get(day) if arm == "treated" else None
    if forecast.displacement is None or story.untreated.displacement is None:
        return Moment(now, before, spared, log_kill, cavity, None, np.zeros_like(now))
    index = forecast.days.index(day)
    origins = find_origins(forecast.displacement[index], forecast.grid)
    if arm == "treated":
        spared = carried(spared, counterparts(origins, story.untreated.displacement[index]), order=3)
    return Moment(
        now,
        carried(before, origins, order=3),
        spared,
        log_kill,
        None if cavity is None else carried(cavity, origins, order=0),
        origins,
        distance_moved(origins),
    )


def distance_moved(origins: Origins) -> Array:
    """Return how far the tissue has moved that is now at each voxel, mm, (X, Y, Z)."""
    result = np.zeros(origins.grid.shape, np.float32)
    start = np.array([part.start for part in origins.box])[:, None, None, None]
    steps = np.indices(origins.index.shape[1:], np.float32) + start - origins.index
    result[origins.box] = np.linalg.norm(np.tensordot(origins.grid.affine[:3, :3], steps, 1), axis=0)
    return result


def scenery_of(phantom: Phantom, moment: Moment) -> tuple[Scenery, Looks]:
    """Return what there is to see at a moment, and the looks where their tissue is."""
    brain, origins = phantom.story.anatomy, moment.origins
    tissue, texture, looks = brain.tissue, brain.texture, phantom.looks.carried(origins)
    if origins is not None:
        white, grey, csf = carried(np.stack([tissue.white, tissue.grey, tissue.csf]), origins, order=1)
        tissue, texture = TissueMap(white, grey, csf, tissue.grid), carried(texture, origins, order=1)
    return scenery(tissue, texture, moment.density, moment.before, moment.cavity, looks, phantom.thresholds), looks


def _pair(
    name: str,
    baseline: Baseline,
    moment: Moment,
    scene: Scenery,
    scans: dict[str, Array],
    day: float,
    therapy: TherapyState,
) -> PhantomPair:
    """Return a pair cut to what shows; `baseline` is where its tissue is on that day."""
    factor = working_factor(baseline.grid)
    labels = replace(baseline.labels, values=scene.segmentation)
    cavity = np.zeros_like(moment.density) if moment.cavity is None else moment.cavity
    shown = (scene.labels.sum(axis=0) > 0.1) | baseline.labels.mask() | (cavity > 0.5)
    shown |= np.maximum.reduce([moment.before, moment.spared, moment.density]) > 0.1
    box = _box_of(shown, baseline, factor)
    tissue, head = baseline.tissue, baseline.head

    def cut(values: NDArray[np.floating]) -> Array:
        return block_mean(box.take(values), factor)

    return PhantomPair(
        name=name,
        baseline=cut(baseline.images),
        healthy=cut(baseline.healthy),
        texture=cut(baseline.texture),
        baseline_labels=cut(baseline.soft_labels),
        target=cut(baseline.scale.normalise(np.stack([scans[m] for m in MODALITIES])) * head),
        target_labels=cut(np.stack([labels.mask(label) for label in LABELS]).astype(np.float32)),
        density_day0=cut(moment.before),
        density=cut(moment.density),
        density_untreated=cut(moment.spared),
        log_kill=cut(moment.log_kill),
        tissue=cut(np.stack([tissue.white, tissue.grey, tissue.csf])),
        displacement=cut(moment.displacement),
        cavity=cut(cavity),
        contrast=baseline.contrast,
        levels=baseline.levels,
        enhances=bool(baseline.enhances),
        spacing=float(factor * np.cbrt(baseline.grid.voxel_volume)),
        day=day,
        therapy=therapy,
    )


def _box_of(shown: NDArray[np.bool_], baseline: Baseline, factor: int) -> Box:
    """Return the box, patient voxels, of what shows and its context."""
    margin = int(np.ceil(CONTEXT / (factor * np.cbrt(baseline.grid.voxel_volume))))
    tight = Box.around(block_mean(shown.astype(np.float32), factor) > 0, 1)
    extent = [-(-(e + 2 * margin) // PLACES) * PLACES for e in tight.extent]
    start = [s - (wide - e) // 2 for s, e, wide in zip(tight.start, tight.extent, extent, strict=True)]
    return Box((start[0], start[1], start[2]), (extent[0], extent[1], extent[2])).scaled(factor)
