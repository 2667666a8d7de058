"""What a report tells, as plane sections: the patient on day 0, and every arm at its report days.

A story is gathered from a run folder or from objects in memory, image by image: a few 3-D images are held at a time.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.grid import BoolArray
from hybridtumor.mass_effect import MovedSections, moved_sections
from hybridtumor.models.initial_density import enhances
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient
from hybridtumor.scan import LABELS, MODALITIES
from hybridtumor.slices import PLANES, Plane, Section, centre_of_mass

Image = NDArray[np.floating[Any]]
Cuts = dict[Plane, Image]

WIDEST = 1.5
"""How much wider than the baseline's grey scale the common one may be."""

READERS = 2
"""Arms read at the same time."""

TELLING = ("T1ce", "FLAIR")
"""The modalities that show most of a tumour: its rim and its extent."""


@dataclass(frozen=True)
class ArmSource:
    """Where the images of an arm come from: each function reads one 3-D array, or None when there is none.

    Parameters
    ----------
    figures
        The arm's entry of ``summary.json``.
    density
        Day to tumour cell density.
    scan, spread
        Modality and day to follow-up image, one sample, and to the standard deviation over the ensemble.
    dose
        Total dose, Gy.
    displacement
        Day to displacement, (3, X, Y, Z), mm RAS+.
    """

    figures: Mapping[str, Any]
    density: Callable[[float], Image]
    scan: Callable[[str, float], Image | None]
    spread: Callable[[str, float], Image | None]
    dose: Callable[[], Image | None]
    displacement: Callable[[float], NDArray[np.float32] | None] = lambda _day: None


@dataclass(frozen=True)
class ArmStory:
    """Sections of one arm; every dictionary is by day, then by plane or modality. `moved` is the last day's.

    An arm that is not told in full has its density of the last day, and no other image.
    """

    name: str
    figures: Mapping[str, Any]
    days: tuple[float, ...]
    density: dict[float, Cuts]
    scans: dict[float, dict[str, Image]]
    spread: dict[float, dict[str, Image]]
    dose: Cuts | None
    dose_maximum: float
    moved: MovedSections | None = None
    in_full: bool = True


@dataclass(frozen=True)
class Story:
    """Everything the pictures need.

    Parameters
    ----------
    baseline
        Modality to sections of the day-0 scan.
    window
        Modality to the intensities shown as black and as white, the same in every picture.
    enhances
        Whether the tumour takes up contrast.
    head
        Sections of the head, 1 inside.
    sections
        The three planes, all through the tumour's centre of mass on day 0.
    """

    patient_id: str
    synthetic: bool
    baseline: dict[str, Cuts]
    window: dict[str, tuple[float, float]]
    head: Cuts
    sections: dict[Plane, Section]
    centre: tuple[float, float, float]
    arms: tuple[ArmStory, ...]
    enhances: bool
    thresholds: ImagingThresholds = field(default_factory=ImagingThresholds)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities the baseline has, in the usual order."""
        return tuple(name for name in MODALITIES if name in self.baseline)

    @property
    def background(self) -> str:
        """The modality that fields are drawn over."""
        return _background(tuple(self.baseline))


def tell(
    patient: Patient,
    density: Image,
    sources: Mapping[str, ArmSource],
    in_full: Collection[str] | None = None,
    thresholds: ImagingThresholds | None = None,
) -> Story:
    """Gather the sections of a patient and of all arms.

    Parameters
    ----------
    patient
        The prepared patient.
    density
        Tumour cell density on day 0, to place the sections.
    sources
        Name of each arm to its images.
    in_full
        Arms of which all images are read; None: all arms.
    thresholds
        Densities at which the tumour shows; None: the defaults.
    """
    thresholds = thresholds or ImagingThresholds()
    centre = centre_of_mass(density, patient.grid, thresholds.edema)
    head = _head(patient)
    sections: dict[Plane, Section] = {plane: Section(plane, patient.grid, centre).cropped_to(head) for plane in PLANES}
    images = {name: scan.values for name, scan in patient.baseline.scans.items() if name in MODALITIES}

    def arm(name: str) -> ArmStory:
        full = in_full is None or name in in_full
        return (_arm if full else _brief)(name, sources[name], sections, tuple(images), patient)

    with ThreadPoolExecutor(READERS) as pool:  # unpacking images leaves the interpreter free
        arms = list(pool.map(arm, sources))
    return Story(
        patient_id=patient.id,
        synthetic=patient.synthetic,
        baseline={name: _cut(values, sections) for name, values in images.items()},
        window={
            name: _window(values, head, [day[name] for arm in arms for day in arm.scans.values()])
            for name, values in images.items()
        },
        head=_cut(head.astype(np.float32), sections),
        sections=sections,
        centre=centre,
        arms=tuple(arms),
        enhances=enhances(patient.baseline.labels),
        thresholds=thresholds,
    )


def visible_volume(figures: Mapping[str, Any]) -> list[float]:
    """Return the volume of all labels of an arm at its days, mm³."""
    return [sum(volumes) for volumes in zip(*(figures["volume_mm3"][label] for label in LABELS), strict=True)]


def core_volume(figures: Mapping[str, Any]) -> list[float]:
    """Return the volume of enhancing tumour and necrosis (or non-enhancing core) of an arm at its days, mm³."""
    volumes = figures["volume_mm3"]
    return [a + b for a, b in zip(volumes["enhancing"], volumes["necrosis"], strict=True)]


def _arm(
    name: str, source: ArmSource, sections: dict[Plane, Section], modalities: tuple[str, ...], patient: Patient
) -> ArmStory:
    days, axial = tuple(float(day) for day in source.figures["days"]), sections["axial"]
    scans: dict[float, dict[str, Image]] = {}
    spread: dict[float, dict[str, Image]] = {}
    for day in days:
        if day == 0:
            continue
        telling = tuple(modality for modality in modalities if modality in TELLING)
        for found, read, names in ((scans, source.scan, modalities), (spread, source.spread, telling)):
            images = {name: read(name, day) for name in names}
            cuts = {name: axial.of(values).copy() for name, values in images.items() if values is not None}
            if cuts:
                found[day] = cuts
    dose = source.dose()
    return ArmStory(
        name=name,
        figures=source.figures,
        days=days,
        density={day: _cut(source.density(day), sections) for day in days},
        scans=scans,
        spread=spread,
        dose=None if dose is None else _cut(dose, sections),
        dose_maximum=0.0 if dose is None else float(dose.max()),
        moved=_moved(source, patient, days[-1], sections, _background(modalities)),
    )


def _brief(name: str, source: ArmSource, sections: dict[Plane, Section], *_: object) -> ArmStory:
    """Read what the comparison of many arms needs of one: its density on the last day."""
    days = tuple(float(day) for day in source.figures["days"])
    density = {days[-1]: _cut(source.density(days[-1]), sections)}
    return ArmStory(name, source.figures, days, density, {}, {}, dose=None, dose_maximum=0.0, in_full=False)


def _background(modalities: Sequence[str]) -> str:
    return "T1ce" if "T1ce" in modalities else modalities[0]


def _moved(
    source: ArmSource, patient: Patient, day: float, sections: dict[Plane, Section], modality: str
) -> MovedSections | None:
    """Return the sections of a day with mechanics; None without, or where nothing has visibly moved."""
    displacement = source.displacement(day)
    if displacement is None or patient.tissue is None:
        return None
    cuts = moved_sections(patient.tissue, patient.baseline.scans[modality].values, day, displacement, sections)
    return cuts if any(shift.any() for shift in cuts.shift.values()) else None


def _cut(values: Image, sections: dict[Plane, Section]) -> Cuts:
    return {plane: section.of(values).copy() for plane, section in sections.items()}


def _head(patient: Patient) -> BoolArray:
    if patient.tissue is not None:
        return patient.tissue.head
    first = next(iter(patient.baseline.scans.values())).values
    return np.asarray(first > first.min())


def _window(values: Image, head: BoolArray, later: Sequence[Image]) -> tuple[float, float]:
    """Return the intensities shown as black and as white: those of the baseline, wider where later images need it.

    Black is the background, or 0.5 % of the head where that is less; white is 99.7 % of the head, or 99.5 % of a later
    section where that is more, at most `WIDEST` times the baseline's range.
    """
    inside, outside = values[head] if head.any() else values, values[~head]
    low, high = (float(value) for value in np.percentile(inside, (0.5, 99.7)))
    if outside.size:
        low = min(low, float(np.median(outside)))
    high = max(high, low + 1e-6 * max(abs(low), 1.0))
    needed = max((float(np.percentile(section, 99.5)) for section in later), default=high)
    return low, min(max(high, needed), low + WIDEST * (high - low))
