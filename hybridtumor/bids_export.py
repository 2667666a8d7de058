"""A patient or a run as a BIDS dataset: what a scanner saw is raw, everything else is a derivative.

::

    OUT/dataset_description.json  README.md  participants.tsv
    OUT/sub-X/sub-X_sessions.tsv                          session_id, day since the baseline scan; no dates
    OUT/sub-X/ses-day000/anat/sub-X_ses-day000[_ce-gadolinium]_{T1w,T2w,FLAIR}.nii.gz
    OUT/derivatives/hybridtumor/sub-X/ses-day000/anat/…   segmentation, tissue, structures, maps of the patient
    OUT/derivatives/hybridtumor/sub-X/ses-day180/anat/…_desc-ARM_{T1w,T2w,FLAIR}.nii.gz        one sample
    OUT/derivatives/hybridtumor/sub-X/ses-day180/anat/…_desc-ARMMean_{T1w,T2w,FLAIR}.nii.gz    the mean of all samples
    OUT/derivatives/hybridtumor/sub-X/ses-day180/anat/…_desc-ARM_{dseg,density}.nii.gz
    OUT/derivatives/hybridtumor/sub-X/dose/sub-X_desc-{plan,ARM}_dose.nii.gz

Every image has a sidecar; that of an image no scanner made says so (``Notice``). The scans of a synthetic patient lie
under ``derivatives`` too. `hybridtumor.bids` reads the patient back.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybridtumor.bids import MAPS
from hybridtumor.bids_dataset import Dataset, scan_name
from hybridtumor.bids_name import MAX_LABEL, BidsName, as_label
from hybridtumor.errors import InputError
from hybridtumor.follow_up import Statistic, told
from hybridtumor.patient import Patient
from hybridtumor.rundir import RunFolder, day_label
from hybridtumor.scan import MODALITIES, SYNTHETIC_NOTICE, LabelMap, Scan

MEAN = "Mean"
"""Ends the label of what is a mean over the ensemble."""


def export_bids(source: Path | str, out: Path | str, *, overwrite: bool = False) -> list[tuple[str, str]]:
    """Write a patient, or the run of one, as a BIDS dataset.

    Parameters
    ----------
    source
        A run folder, or whatever `hybridtumor.patient.Patient.load` reads.
    out
        New or empty folder.
    overwrite
        Empty the folder first, if a dataset of hybridtumor is in it.

    Returns
    -------
    list
        What was written and how much of it, as rows of a table.

    Raises
    ------
    InputError
        The source is neither; the run has no finished arm; `out` lies in the source or holds it, or holds files that
        may not be overwritten.
    """
    source, out = Path(source), Path(out)
    run = RunFolder.open(source) if (source / "manifest.json").is_file() else None
    if run is not None and not run.arms():
        raise InputError(f"{source}: expected a simulated run, found no finished arm. Go on with it (--resume) first.")
    patient = Patient.load(source) if run is None else run.load_patient()
    arms = [] if run is None else _arms(run)
    _make_room(source, out, overwrite=overwrite)
    days = sorted({visit.day for visit in patient.visits}.union(*(arm.days for arm in arms)))
    dataset = Dataset(out, as_label(patient.id.removeprefix("sub-"), otherwise="patient"), _sessions(days), patient)
    try:
        dataset.describe()
        rows = [("subject", f"sub-{dataset.subject}"), ("sessions", str(len(days))), *_write_patient(dataset)]
        return rows + [(f"arm {arm.name}", f"{len(arm.write(dataset))} images, desc-{arm.label}") for arm in arms]
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # it was new or empty: a dataset is whole or not there
        raise


@dataclass(frozen=True)
class _Arm:
    """One arm of a run: ``desc-LABEL`` in the dataset, and another label for the means of its images."""

    run: RunFolder
    name: str
    label: str
    mean_label: str
    days: tuple[float, ...]

    def write(self, dataset: Dataset) -> list[Path]:
        """Write dose, densities, follow-up images and segmentations."""
        paths = [path for day in self.days for path in self.day(dataset, day)]
        if (dose := self.run.load_dose(self.name)) is not None:
            courses = self.run.load_plan(self.name, dataset.patient.grid).active.courses
            facts = self.facts() | {
                "DoseType": "PHYSICAL",
                "NumberOfFractions": sum(course.fractions for course in courses),
            }
            paths.append(dataset.derivative(BidsName("dose", {"desc": self.label}), None, dose, facts, "dose"))
        return paths

    def day(self, dataset: Dataset, day: float) -> list[Path]:
        """Write the images of one report day."""
        run, desc = self.run, {"desc": self.label}
        paths = [
            dataset.derivative(BidsName("density", desc), day, run.load_field(self.name, "density", day), self.facts())
        ]
        paths += [path for kind in MODALITIES for path in self.scans(dataset, kind, day)]
        if (path := run.labels_path(self.name, day)).exists():
            text = {"Description": f"Segmentation of the tumour on the {told('mean', run.manifest.samples)}"}
            paths.append(dataset.labels(day, LabelMap.load(path), self.label, text | self.facts()))
        return paths

    def scans(self, dataset: Dataset, kind: str, day: float) -> list[Path]:
        """Write the follow-up image of a report day and the mean it belongs to, as far as they are there."""
        paths, plain = [], scan_name(kind)
        kinds: dict[Statistic, str] = {"sample": self.label, "mean": self.mean_label}
        for statistic, label in kinds.items():
            if (path := self.run.scan_path(self.name, kind, day, statistic)).exists():
                name = BidsName(plain.suffix, {**plain.entities, "desc": label})
                what = f"{kind} image, {told(statistic, self.run.manifest.samples)}"
                facts = {"Description": what, "Units": "arbitrary", **self.facts()}
                paths.append(dataset.derivative(name, day, Scan.load(path).values, facts))
        return paths

    def facts(self) -> dict[str, object]:
        """Return what every sidecar of the arm says."""
        return {"Arm": self.name, "Notice": SYNTHETIC_NOTICE}


def _arms(run: RunFolder) -> list[_Arm]:
    """Return the arms under labels that differ from each other and from that of the patient's own plan."""
    labels: list[str] = ["plan"]
    means: list[str] = []
    for name in run.arms():
        labels.append(as_label(name, otherwise="arm", taken=labels))
    for label in labels[1:]:
        means.append(as_label(f"{label[: MAX_LABEL - len(MEAN)]}{MEAN}", otherwise=MEAN, taken=labels + means))
    return [
        _Arm(run, name, label, mean, tuple(float(day) for day in run.figures(name)["days"]))
        for name, label, mean in zip(run.arms(), labels[1:], means, strict=True)
    ]


def _write_patient(dataset: Dataset) -> list[tuple[str, str]]:
    """Write everything the patient has but the diffusion tensor; the density is nobody's measurement."""
    patient = dataset.patient
    scans = [dataset.scan(v.day, kind, scan.values) for v in patient.visits for kind, scan in v.scans.items()]
    maps = [dataset.labels(v.day, v.labels) for v in patient.visits if v.labels is not None] + dataset.tissue()
    for name in MAPS:
        if (scan := getattr(patient, name)) is not None:
            facts = {"Notice": SYNTHETIC_NOTICE} if name == "density" else {}
            maps.append(dataset.derivative(BidsName(name), 0, scan.values, facts))
    taken: list[str] = []
    for name, mask in sorted(patient.structures.items()):  # so that what is read back gets the same labels
        taken.append(as_label(name, otherwise="structure", taken=taken))
        entities, facts = {"label": taken[-1]}, {"StructureName": name}
        maps.append(dataset.derivative(BidsName("mask", entities), 0, mask.astype(np.uint8), facts))
    if patient.dose is not None:
        plan, facts = BidsName("dose", {"desc": "plan"}), {"DoseType": "PHYSICAL"}
        maps.append(dataset.derivative(plan, None, patient.dose.values, facts, "dose"))
    return [("images of the patient", str(len(scans))), ("maps of the patient", str(len(maps)))]


def _sessions(days: Iterable[float]) -> dict[float, str]:
    """Return the label of every session: ``day000``, ``day092p50``."""
    labels: dict[float, str] = {}
    for day in days:
        labels[day] = as_label(day_label(day).replace(".", "p"), otherwise="day", taken=labels.values())
    return labels


def _make_room(source: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that may not be written into; empty it when that is asked for."""
    here, there = source.resolve(), out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise InputError(f"{out}: expected a folder apart from {source}. Choose another folder.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder for the dataset, found a file. Choose another name.")
    entries = list(out.iterdir()) if out.is_dir() else []
    if not entries:
        return
    ours = (out / "derivatives" / "hybridtumor" / "dataset_description.json").is_file()
    if not (ours and overwrite):
        hint = "Overwrite it or choose another folder." if ours else "Choose another folder."
        raise InputError(f"{out}: expected an empty or new folder for the dataset, found other files. {hint}")
    for entry in entries:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
