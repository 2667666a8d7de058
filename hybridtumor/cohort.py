"""Cohorts of synthetic patients on disk, in the layout of BraTS 2021, for training other models.

    OUT/cohort.yaml, participants.tsv, README
    OUT/NAME/NAME_t1.nii.gz, _t1ce, _t2, _flair, _seg      day 0, as BraTS hands them out
    OUT/NAME/NAME_density.nii.gz, _dose, _cavity            fields of day 0 and of the plan
    OUT/NAME/plan.yaml, parameters.yaml                     what is given, as `hybridtumor simulate --plan` reads it
    OUT/NAME/NAME-day060/NAME-day060_t1.nii.gz, …           a follow-up under the plan, the same layout, with its fields

A patient is whole or not there: its folder is written under another name and renamed. Patients that are there stay.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.atlas import Atlas, mni152
from hybridtumor.cohort_files import save_fields, save_plan, save_visit, table_of, yaml_bytes
from hybridtumor.errors import InputError
from hybridtumor.models.warp import bounds_of
from hybridtumor.patient import Patient
from hybridtumor.phantom_anatomy import FIRST_TEST, Anatomy, phantom_anatomy
from hybridtumor.phantom_scanner import scanned
from hybridtumor.phantoms import Phantom, moment_of, phantom_patient, random_phantom, scenery_of
from hybridtumor.run_lock import run_lock
from hybridtumor.scan import LABELS, SYNTHETIC_NOTICE, LabelMap, write_bytes
from hybridtumor.yaml_file import load_yaml

Array = NDArray[np.float32]

PER_SEED = 1_000_000
"""Most patients of one seed; keeps their random numbers apart from those of other seeds and of all phantoms."""

SETTINGS, TABLE = "cohort.yaml", "participants.tsv"

EDGE = 4
"""Voxels around the head that are written."""

README = f"""{SYNTHETIC_NOTICE}

Synthetic patients with glioma. No scanner saw them and no person stands behind them. Not for clinical use.
Tumours were grown by a reaction-diffusion model in warped copies of the MNI152 average brain (ICBM 2009a); the images
come from the MR signal equation with random scanners, the follow-ups of a refined cohort from trained networks.

cohort.yaml       seed and settings: the same ones give the same patients
participants.tsv  one row per patient: volumes (mm³), parameters, plan
NAME/             a patient in the layout of BraTS 2021 (1 mm, RAS+; labels 1 necrosis, 2 oedema, 4 enhancing)
NAME/plan.yaml    what is given from day 0 on; hybridtumor simulate NAME --plan NAME/plan.yaml takes it
NAME/NAME-dayN/   follow-up on day N under that plan, the same layout; a tumour that is gone has an empty segmentation
Fields beside the images: density (fraction of carrying capacity), dose (Gy), cavity, and where the tumour pushes the
tissue aside displacement (mm, RAS).
"""


@dataclass(frozen=True)
class CohortSettings:
    """What a cohort is made from; patients are numbered from 1 on.

    Parameters
    ----------
    seed
        Of everything random.
    follow_ups
        Follow-up visits per patient.
    refine
        Whether the refiner makes the follow-up images, and not the signal equation.
    """

    seed: int = 0
    follow_ups: int = 0
    refine: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31 or not 0 <= self.follow_ups <= 12:
            raise InputError(
                f"synthesize: expected a seed from 0 to 2³¹ − 1 and 0 to 12 follow-ups, got {self.seed} and"
                f" {self.follow_ups}."
            )

    def number(self, index: int) -> int:
        """Return the number of the phantom of patient `index`."""
        return FIRST_TEST + PER_SEED * (1 + self.seed) + index

    def name(self, index: int) -> str:
        """Return the name of patient `index`."""
        return f"SYN_{self.seed:03d}_{index:05d}"


def make_cohort(
    out: Path, count: int, settings: CohortSettings, *, progress: Callable[[str, float], None] | None = None
) -> list[str]:
    """Make the patients 1 to `count` of a cohort that are not there yet; returns the names of all.

    Raises
    ------
    InputError
        The folder holds something else, or a cohort of other settings; a count that is not positive.
    ResourceError
        The atlas or the weights of the refiner are missing.
    """
    if not 1 <= count < PER_SEED:
        raise InputError(f"synthesize: expected a count from 1 to {PER_SEED - 1}, got {count}.")
    _claim(out, settings)
    names = [settings.name(index) for index in range(1, count + 1)]
    with run_lock(out):
        atlas: Atlas | None = None
        for index, name in enumerate(names, start=1):
            if progress is not None:
                progress("synthesize", (index - 1) / count)
            if (out / name).is_dir():
                continue
            atlas = atlas or mni152()
            _make_patient(out, index, settings, atlas)
            write_bytes(out / TABLE, table_of(out).encode())
    return names


def _claim(out: Path, settings: CohortSettings) -> None:
    """Make the folder a cohort's, or make sure that it is one of these settings."""
    path = out / SETTINGS
    stated: dict[str, Any] = {"notice": SYNTHETIC_NOTICE, "schema_version": 1, **asdict(settings)}
    if path.is_file():
        if (found := load_yaml(path)) != stated:
            raise InputError(f"{path}: expected the settings {stated}, got {found}. Choose another folder.")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: expected a new folder, or one with {SETTINGS}. Choose another folder.")
    write_bytes(out / "README", README.encode())
    write_bytes(path, yaml_bytes(stated))


def _make_patient(out: Path, index: int, settings: CohortSettings, atlas: Atlas) -> None:
    """Write one patient under a temporary name and rename its folder."""
    name = settings.name(index)
    for left in out.glob(f".{name}.*"):
        shutil.rmtree(left)
    whole = _around_head(phantom_anatomy(settings.number(index), atlas))
    phantom, rng = random_phantom(settings.number(index), whole, whole=True, follow_ups=max(1, settings.follow_ups))
    patient = phantom_patient(phantom, rng)
    folder = Path(tempfile.mkdtemp(dir=out, prefix=f".{name}."))
    save_visit(folder, name, {m: s.values for m, s in patient.baseline.scans.items()}, patient.baseline.labels)
    save_fields(folder, name, patient.grid, {"density": phantom.story.density})
    save_plan(folder, name, phantom.story.plan, patient.grid)
    days = phantom.story.days[: settings.follow_ups]
    volumes = _volumes(patient.baseline.labels)
    for day, images, labels in _follow_ups(phantom, patient, days, settings, rng):
        visit = f"{name}-day{day:03.0f}"
        save_visit(folder / visit, visit, images, labels)
        save_fields(folder / visit, visit, patient.grid, _fields_on(phantom, day))
    facts = {"participant_id": name, **volumes, **_parameters(phantom), "follow_up_days": [int(day) for day in days]}
    write_bytes(folder / "parameters.yaml", yaml_bytes({"notice": SYNTHETIC_NOTICE, **facts}))
    folder.chmod(0o755)
    folder.rename(out / name)


def _follow_ups(
    phantom: Phantom, patient: Patient, days: tuple[float, ...], settings: CohortSettings, rng: np.random.Generator
) -> Iterator[tuple[float, Mapping[str, Array], LabelMap]]:
    """Yield day, images and segmentation of the follow-ups under the plan."""
    story = phantom.story
    if settings.refine and days:
        from hybridtumor.refine import Refiner  # it loads the networks

        visits = Refiner.load().visits(
            story.treated, patient, story.plan, untreated=story.untreated, samples=1, seed=settings.seed, days=days
        )
        for visit in visits:
            yield visit.day, visit.images, visit.labels
        return
    for day in days:
        scene, looks = scenery_of(phantom, moment_of(story, "treated", day))
        images = scanned(scene, looks, phantom.scanner, rng)
        yield day, images, LabelMap(scene.segmentation, patient.grid)


def _around_head(brain: Anatomy) -> Anatomy:
    """Return the brain cut to its head and a few voxels around."""
    bounds = np.array(bounds_of(brain.tissue.head)).T
    return brain.within(np.maximum(bounds[0] - EDGE, 0), np.minimum(bounds[1] + EDGE, brain.tissue.grid.shape))


def _fields_on(phantom: Phantom, day: float) -> dict[str, Array]:
    """Return the fields of a follow-up under the plan."""
    treated = phantom.story.treated
    fields = {"density": treated.visible(day), "log_kill": treated.at(day)[1]}
    if treated.displacement is not None:
        fields["displacement"] = treated.displacement[treated.days.index(day)]
    if (cavity := phantom.story.cavities.get(day)) is not None:
        fields["cavity"] = cavity
    return fields


def _volumes(labels: LabelMap | None) -> dict[str, float]:
    """Return the volume of every label, mm³."""
    if labels is None:
        return {}
    voxel = labels.grid.voxel_volume
    return {f"{n}_mm3": round(float(np.count_nonzero(labels.mask(n))) * voxel, 3) for n in LABELS}


def _parameters(phantom: Phantom) -> dict[str, Any]:
    """Return what the patient was made from."""
    story, law = phantom.story, phantom.story.growth
    return {
        "number": phantom.number,
        "enhances": phantom.looks.enhances,
        "diffusion_white_mm2_per_day": law.diffusion_white,
        "diffusion_grey_mm2_per_day": law.diffusion_grey,
        "proliferation_per_day": law.proliferation,
        "alpha_per_Gy": story.response.alpha,
        "growth_strain": None if story.mechanics is None else round(story.mechanics.growth_strain, 4),
        "dose_Gy": round(sum(course.highest_dose for course in story.plan.courses), 3),
        "fractions": sum(course.fractions for course in story.plan.courses),
        "drugs": [drug.drug for drug in story.plan.drugs],
        "resections": len(story.plan.resections),
    }
