"""A BIDS dataset that is being written: where every file goes and what its sidecar says.

What a scanner saw is raw, ``sub-X/ses-day000/anat``; everything else lies under ``derivatives/hybridtumor``, the scans
of a synthetic patient too. Labels of sessions name the day; ``sub-X_sessions.tsv`` gives it exactly, and no date.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import hybridtumor
from hybridtumor.bids import TISSUES
from hybridtumor.bids_name import BidsName
from hybridtumor.bids_tables import with_extension
from hybridtumor.patient import Patient
from hybridtumor.rundir import FIELD_UNITS
from hybridtumor.scan import MODALITIES, SYNTHETIC_NOTICE, LabelMap, write_bytes, write_nifti

BIDS_VERSION = "1.10.0"

RAW_KINDS = MODALITIES
"""Scans that BIDS knows under anat; ADC, PET and CT become derivatives."""

UNITS = {"density": FIELD_UNITS["density"], "oxygen": "mmHg", "radiosensitivity": "1", "dose": "Gy", "dseg": "label"}
"""Units of each suffix."""

DESCRIPTIONS = {
    "density": "Density of living tumour cells",
    "oxygen": "Partial pressure of oxygen",
    "radiosensitivity": "Factor on the sensitivity to radiation",
    "probseg": "Volume fraction of a tissue",
    "mask": "Voxels of a structure",
    "dseg": "Segmentation of the tumour",
    "dose": "Absorbed dose, total",
}

Voxels = NDArray[np.float32] | NDArray[np.uint8]

_README = """\
# {title}

Written by hybridtumor {version}. Days count from the baseline scan; there are no dates. An image whose sidecar has a
`Notice` was computed, no scanner made it; `Arm` names the plan of treatment it assumes. Research use only.

`sub-*/sub-*_sessions.tsv` gives the day of every session. The labels of segmentations are in `*_dseg.tsv`.
Doses are the physical total in Gy.{left_out}
"""


@dataclass(frozen=True)
class Dataset:
    """Where the files of one subject go.

    Parameters
    ----------
    out
        Root of the dataset.
    subject
        Label of the subject.
    sessions
        Day to label of every session.
    patient
        Whose images they are; its grid is that of all of them.
    """

    out: Path
    subject: str
    sessions: Mapping[float, str]
    patient: Patient

    @property
    def derived(self) -> Path:
        """Root of the derivatives."""
        return self.out / "derivatives" / "hybridtumor"

    def describe(self) -> None:
        """Write what is not an image."""
        subject, link = f"sub-{self.subject}", {"DatasetLinks": {"raw": "../.."}}
        _write_json(self.out / "dataset_description.json", _description(subject, "raw"))
        _write_json(self.derived / "dataset_description.json", {**_description(subject, "derivative"), **link})
        _write_table(self.out / "participants.tsv", [("participant_id",), (subject,)])
        left_out = "\n\nNot written: the diffusion tensor." if self.patient.diffusion_tensor is not None else ""
        readme = _README.format(title=subject, version=hybridtumor.__version__, left_out=left_out)
        visited = {visit.day: self.sessions[visit.day] for visit in self.patient.visits}
        for root, sessions in ((self.out, visited), (self.derived, self.sessions)):
            write_bytes(root / "README.md", readme.encode())
            table = root / subject / f"{subject}_sessions.tsv"
            rows = [(f"ses-{label}", repr(float(day)).removesuffix(".0")) for day, label in sessions.items()]
            _write_table(table, [("session_id", "day"), *rows])
            text = {"Description": "Time since the baseline scan", "Units": "day"}
            _write_json(table.with_suffix(".json"), {"day": text})

    def scan(self, day: float, kind: str, values: Voxels) -> Path:
        """Write a scan of the patient."""
        facts = {"Description": f"{kind} image", "Units": "arbitrary"}
        root = self.out if self._is_raw(kind) else self.derived
        return self._write(root, "anat", self.name(scan_name(kind), day), values, facts)

    def labels(self, day: float, labels: LabelMap, desc: str = "", facts: Mapping[str, object] | None = None) -> Path:
        """Write a segmentation of the tumour and the table of its labels."""
        path = self.derivative(BidsName("dseg", {"desc": desc} if desc else {}), day, labels.values, facts)
        rows = [(str(code), name) for name, code in sorted(labels.codes.items(), key=lambda item: item[1])]
        _write_table(with_extension(path, ".tsv"), [("index", "name"), ("0", "background"), *rows])
        return path

    def tissue(self) -> list[Path]:
        """Write the tissue fractions of the patient, if they are known."""
        if (tissue := self.patient.tissue) is None:
            return []
        return [self.derivative(BidsName("probseg", {"label": TISSUES[t]}), 0, getattr(tissue, t)) for t in TISSUES]

    def derivative(
        self,
        name: BidsName,
        day: float | None,
        values: Voxels,
        facts: Mapping[str, object] | None = None,
        datatype: str = "anat",
    ) -> Path:
        """Write an image that was derived from the scans of day 0; a day of None is of no session."""
        text: dict[str, object] = {
            "Description": DESCRIPTIONS.get(name.suffix, name.suffix),
            "Units": UNITS.get(name.suffix, "1"),
        }
        text |= {"Sources": self.baseline_scans(), **(facts or {})}
        return self._write(self.derived, datatype, self.name(name, day), values, text)

    def name(self, name: BidsName, day: float | None) -> BidsName:
        """Put subject and session into a name."""
        session = {} if day is None else {"ses": self.sessions[day]}
        return BidsName(name.suffix, {"sub": self.subject, **session, **name.entities})

    def baseline_scans(self) -> list[str]:
        """Return the BIDS URIs of the images of day 0."""
        folder = f"sub-{self.subject}/ses-{self.sessions[0]}/anat"
        return [
            f"bids:{'raw' if self._is_raw(kind) else ''}:{folder}/{self.name(scan_name(kind), 0)}"
            for kind in self.patient.baseline.scans
        ]

    def _is_raw(self, kind: str) -> bool:
        return kind in RAW_KINDS and not self.patient.synthetic

    def _write(self, root: Path, datatype: str, name: BidsName, values: Voxels, facts: Mapping[str, object]) -> Path:
        folders = [f"{key}-{name.entities[key]}" for key in ("sub", "ses") if key in name.entities]
        path = root.joinpath(*folders, datatype, str(name))
        sidecar = {**facts, "Notice": SYNTHETIC_NOTICE} if self.patient.synthetic else facts
        write_nifti(path, values, self.patient.grid, description=str(sidecar.get("Notice", "")), sidecar=sidecar)
        return path


def scan_name(kind: str) -> BidsName:
    """Return suffix and contrast agent of a scan."""
    return BidsName("T1w", {"ce": "gadolinium"}) if kind == "T1ce" else BidsName(kind)


def _description(subject: str, kind: str) -> dict[str, object]:
    by = [{"Name": "hybridtumor", "Version": hybridtumor.__version__}]
    return {"Name": subject, "BIDSVersion": BIDS_VERSION, "DatasetType": kind, "GeneratedBy": by}


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    write_bytes(path, (json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n").encode())


def _write_table(path: Path, rows: Iterable[Iterable[str]]) -> None:
    write_bytes(path, "".join("\t".join(row) + "\n" for row in rows).encode())
