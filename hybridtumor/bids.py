"""BIDS: a subject of a dataset, read as the contents of a ``patient.yaml``; `hybridtumor.bids_export` writes one.

::

    DATASET/
      sub-007/sub-007_sessions.tsv                          session_id, acq_time (dates) or day
      sub-007/ses-day000/anat/sub-007_ses-day000[_ce-gadolinium][_acq-…][_run-…][_space-…]_{T1w,T2w,FLAIR}.nii.gz
      derivatives/PIPELINE/sub-007/ses-day000/anat/…_dseg.nii.gz                      tumour, labels of BraTS
      derivatives/PIPELINE/sub-007/[ses-day000/]anat/…_label-{WM,GM,CSF}_probseg.nii.gz
                                                     …_{density,oxygen,radiosensitivity}.nii.gz
                                                     …_label-…_mask.nii.gz            with StructureName
      derivatives/PIPELINE/sub-007/[ses-day000/]dose/…_desc-plan_dose.nii.gz          Units: Gy or cGy

A subject without sessions has its folders ``anat`` and ``dose`` right under ``sub-007``; it is one visit, on day 0.
Of several images of one kind the one with the fewest entities counts, then the lowest run, then the first name; images
with ``desc``, which are processed, do not count. What the dataset itself lacks comes from the one pipeline that has it.
A ``dseg`` without a table of tumour labels is not read where tissue probabilities lie beside it (it is the tissue
then), and no forecast (``Arm`` in its sidecar) is. Spaces are not mixed: with the baseline image in
``space-SRI24`` only images in that space count.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridtumor.bids_name import KINDS, BidsImage, BidsName
from hybridtumor.bids_tables import label_convention, read_sidecar, read_table, session_days, with_extension
from hybridtumor.errors import InputError
from hybridtumor.patient import Patient
from hybridtumor.scan import SYNTHETIC_NOTICE

MAX_ENTRIES = 10_000
"""Most entries of a folder that are looked at."""

TISSUES = {"white": "WM", "grey": "GM", "csf": "CSF"}
"""The ``label`` of each tissue."""

MAPS = ("density", "oxygen", "radiosensitivity")
"""Suffixes of the maps of a patient; they are not (yet) of BIDS."""

_NATIVE = {"", "T1w", "T1ce", "orig", "scanner", "individual"}

Build = Callable[[Path, Path, Mapping[str, object]], Patient]


def is_bids_subject(folder: Path | str) -> bool:
    """Tell whether a folder is that of a subject, or of a session of one, of a BIDS dataset."""
    folder = Path(folder).resolve()
    if re.fullmatch(r"ses-[A-Za-z0-9+]+", folder.name):
        return bool(re.fullmatch(r"sub-[A-Za-z0-9+]+", folder.parent.name)) and (folder / "anat").is_dir()
    if not re.fullmatch(r"sub-[A-Za-z0-9+]+", folder.name) or not folder.is_dir():
        return False
    table = folder / f"{folder.name}_sessions.tsv"
    return table.is_file() or any(p.is_dir() for p in (folder / "anat", *folder.glob("ses-*/anat")))


def load_bids(folder: Path | str, build: Build) -> Patient:
    """Read a subject, or one session of it as a patient with one visit; the subject's label is the patient's id.

    Parameters
    ----------
    folder
        ``sub-…`` or ``sub-…/ses-…``; what lies in ``derivatives`` of the dataset is found from there.
    build
        Makes the patient of the dataset's root, of what to call the source in messages, and of the contents of a
        ``patient.yaml`` with paths from that root: `hybridtumor.patient_folder`.

    Raises
    ------
    InputError
        The folder is no subject; nothing tells the days of its sessions; it has no image; a file is named after
        another subject or session, leads out of the dataset, or is damaged; two pipelines offer the same; a dose
        states no unit.
    """
    folder = Path(folder).resolve()
    if not is_bids_subject(folder):
        raise InputError(f"{folder}: expected a BIDS subject sub-… with anat or ses-…/anat in it, found none.")
    one = folder.name.removeprefix("ses-") if folder.name.startswith("ses-") else None
    home = folder if one is None else folder.parent
    pipelines = [path for path in _entries(home.parent / "derivatives") if (path / home.name).is_dir()]
    subject = _Subject(home.parent, home.name.removeprefix("sub-"), (home.parent, *pipelines))
    return build(subject.root, folder, subject.contents(subject.sessions() if one is None else [one]))


def subject_files(folder: Path | str) -> tuple[Path, list[Path]]:
    """Return the root of the dataset and, sorted, all files in it that `load_bids` may read for a subject."""
    folder = Path(folder).resolve()
    home = folder.parent if folder.name.startswith("ses-") else folder
    pipelines = _entries(home.parent / "derivatives")
    found = {p for place in (home.parent, *pipelines) for p in (place / home.name).rglob("*") if p.is_file()}
    return home.parent, sorted(found.union(*(pipeline.glob("*dseg.tsv") for pipeline in pipelines)))


@dataclass(frozen=True)
class _Subject:
    root: Path
    label: str
    places: tuple[Path, ...]

    @property
    def table(self) -> Path:
        """Where the days of the sessions are told."""
        return self.inside(self.root / f"sub-{self.label}" / f"sub-{self.label}_sessions.tsv")

    def inside(self, path: Path) -> Path:
        """Return the path; refuse one that a link leads out of the dataset."""
        if not path.resolve().is_relative_to(self.root):
            raise InputError(f"{path}: expected files inside the dataset, got a link out of it. Copy the file into it.")
        return path

    def sessions(self) -> list[str]:
        """Return the labels of the sessions, of folders and of the table; one empty label when there are none."""
        folders = [p.name for p in _entries(self.root / f"sub-{self.label}") if p.is_dir()]
        rows = read_table(self.table) if self.table.is_file() else []
        names = {*folders, *(row.get("session_id", "") for row in rows)}
        return sorted(n.removeprefix("ses-") for n in names if re.fullmatch(r"ses-[A-Za-z0-9+]+", n)) or [""]

    def images(self, session: str, datatype: str) -> list[BidsImage]:
        """Return the NIfTI files of a session, best first; those of no session for an empty label."""
        found = []
        for place, root in enumerate(self.places):
            folder = root / f"sub-{self.label}" / (f"ses-{session}" if session else "") / datatype
            for path in _entries(self.inside(folder)):
                name = BidsName.parse(path.name) if path.name.endswith((".nii", ".nii.gz")) else None
                if name is None:
                    continue
                self.inside(path)
                if (name.entities.get("sub"), name.entities.get("ses", "")) != (self.label, session):
                    raise InputError(f"{path}: expected files named after their folders, got another sub- or ses-.")
                found.append(BidsImage(path, name, place))
        return sorted(found, key=lambda image: image.rank)

    def sidecar(self, image: BidsImage) -> dict[str, Any]:
        """Return what the JSON beside an image says."""
        self.inside(with_extension(image.path, ".json"))
        return read_sidecar(image.path)

    def contents(self, sessions: list[str]) -> dict[str, object]:
        """Return what a ``patient.yaml`` in the dataset's root would say."""
        anat = {session: self.images(session, "anat") for session in sessions}
        anat = {s: images for s, images in anat.items() if any(i.kind or self.is_tumour(i) for i in images)}
        days = session_days(self.table, list(anat))
        baseline = next(iter(days), "")
        reference = next((i for kind in KINDS for i in anat.get(baseline, ()) if i.kind == kind), None)
        if reference is None:
            raise InputError(
                f"{self.root / f'sub-{self.label}'}: expected T1w, T2w or FLAIR images in anat of the first session,"
                " found none."
            )
        space = reference.name.entities.get("space", "")
        visits = [{"day": day, **self.visit(_in_space(anat[session], space))} for session, day in days.items()]
        shared = self.images("", "anat") if baseline else []
        return {
            "schema_version": 1,
            "id": self.label,
            "synthetic": self.sidecar(reference).get("Notice") == SYNTHETIC_NOTICE,
            "visits": visits,
            **self.maps(_in_space([*anat[baseline], *shared], space)),
            **self.dose(_in_space([i for s in {baseline, ""} for i in self.images(s, "dose")], space)),
        }

    def visit(self, images: list[BidsImage]) -> dict[str, object]:
        """Return scans and labels of one session."""
        scans = {kind: self.one([i for i in images if i.kind == kind]) for kind in KINDS}
        entry: dict[str, object] = {"scans": {kind: name for kind, name in scans.items() if name}}
        if tumours := [i for i in images if self.is_tumour(i)]:
            entry["labels"] = {"file": self.one(tumours), "convention": self.convention(tumours[0])}
        return entry

    def maps(self, images: list[BidsImage]) -> dict[str, object]:
        """Return tissue, structures and the other maps of the patient."""
        plain = [i for i in images if "desc" not in i.name.entities]
        found: dict[str, object] = {
            suffix: name for suffix in MAPS if (name := self.one([i for i in plain if i.name.suffix == suffix]))
        }
        if "oxygen" in found:
            found["oxygen"] = {"file": found["oxygen"], "unit": "mmHg"}
        shares = [i for i in plain if i.name.suffix == "probseg"]
        tissue = {t: self.one([i for i in shares if i.name.entities.get("label") == TISSUES[t]]) for t in TISSUES}
        if all(tissue.values()):
            found["tissue"] = tissue
        masks = [(self.sidecar(i).get("StructureName"), i) for i in plain if i.name.suffix == "mask"]
        names = {name for name, _ in masks if isinstance(name, str)}  # masks of other software carry none
        return found | {"structures": {name: self.one([i for n, i in masks if n == name]) for name in sorted(names)}}

    def dose(self, images: list[BidsImage]) -> dict[str, object]:
        """Return the planned dose and its unit; nothing when there is none."""
        plans = [i for i in images if i.name.suffix == "dose" and i.name.entities.get("desc") == "plan"]
        if not plans:
            return {}
        sidecar = self.sidecar(plans[0])
        unit, kind = sidecar.get("Units"), sidecar.get("DoseType", "PHYSICAL")
        if unit not in ("Gy", "cGy") or kind != "PHYSICAL":
            raise InputError(
                f"{plans[0].path}: expected a sidecar with Units Gy or cGy and DoseType PHYSICAL, got {unit!r} and"
                f" {kind!r}. State them in the .json beside the dose."
            )
        return {"dose": {"file": self.one(plans), "unit": unit}}

    def is_tumour(self, image: BidsImage) -> bool:
        """Tell a segmentation of the tumour from one of tissues and from a forecast."""
        if image.name.suffix != "dseg" or "Arm" in self.sidecar(image):
            return False
        if self.label_table(image) is not None:
            return self.convention(image) is not None
        return not any("_probseg." in path.name for path in _entries(image.path.parent))

    def convention(self, image: BidsImage) -> str | None:
        """Return the label convention that the table of a segmentation states."""
        table = self.label_table(image)
        return None if table is None else label_convention(table)

    def label_table(self, image: BidsImage) -> Path | None:
        """Return the table of a segmentation: beside it, or for all of its kind at the root of its pipeline."""
        desc = image.name.entities.get("desc")
        shared = f"desc-{desc}_dseg.tsv" if desc else "dseg.tsv"
        tables = (with_extension(image.path, ".tsv"), self.places[image.place] / shared)
        return next((self.inside(table) for table in tables if table.is_file()), None)

    def one(self, images: list[BidsImage]) -> str | None:
        """Return the first of images sorted by rank, from the root; refuse a choice that no rule makes."""
        if not images:
            return None
        best = min(images, key=lambda image: image.rank)
        desc = best.name.entities.get("desc")
        for other in images:
            elsewhere = best.place > 0 and other.place != best.place
            if elsewhere or (desc and other.name.entities.get("desc") != desc):
                raise InputError(
                    f"{best.path}: expected one image of its kind, got also {other.path}. Take one of them away."
                )
        return best.path.relative_to(self.root).as_posix()


def _in_space(images: Iterable[BidsImage], space: str) -> list[BidsImage]:
    """Return the images in the space of the reference: the same name, or both as the scanner saw them."""
    spaces = _NATIVE if space in _NATIVE else {space}
    return sorted((i for i in images if i.name.entities.get("space", "") in spaces), key=lambda image: image.rank)


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted; nothing when there is none."""
    if not folder.is_dir():
        return []
    found = sorted(folder.iterdir())
    if len(found) > MAX_ENTRIES:
        raise InputError(f"{folder}: expected at most {MAX_ENTRIES} entries, got {len(found)}.")
    return found
