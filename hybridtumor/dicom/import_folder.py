"""The folder an import is written to: checked before anything is read, put in its place when it is whole."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from hybridtumor.errors import InputError
from hybridtumor.patient import Patient
from hybridtumor.patient_folder import FILE_NAME
from hybridtumor.scan import write_bytes


def check_target(source: Path, out: Path, identity: str, *, overwrite: bool) -> None:
    """Refuse a target that would lose or mix something."""
    if not re.fullmatch(r"[^/\\\x00-\x1f]{1,64}", identity):
        raise InputError(f"id: expected 1 to 64 characters without slashes, got {identity[:80]!r}.")
    here, there = source.resolve(), out.resolve()
    if here == there or there.is_relative_to(here) or here.is_relative_to(there):
        raise InputError(f"{out}: expected a patient folder apart from the DICOM files, got one that holds the other.")
    if out.is_symlink() or (out.exists() and not _is_patient_or_empty(out)):
        raise InputError(f"{out}: expected a new folder, it exists and is no patient folder. Choose another.")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: expected a new folder, it exists. Choose another, or add --overwrite to replace it.")


def _is_patient_or_empty(folder: Path) -> bool:
    return folder.is_dir() and ((folder / FILE_NAME).is_file() or not any(folder.iterdir()))


def write_patient(patient: Patient, treatments: Sequence[object], plan_file: str, out: Path) -> None:
    """Write the folder beside its place and move it there when it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(dir=out.parent, prefix=".import-"))
    try:
        new, old = room / "new", room / "old"
        patient.save(new)
        if treatments:
            write_bytes(new / plan_file, yaml.safe_dump(list(treatments), sort_keys=False).encode())
        if out.exists():
            out.replace(old)
        try:
            new.replace(out)
        except OSError:
            if old.exists():
                old.replace(out)
            raise
    finally:
        if out.exists() or not (room / "old").exists():  # never delete the only copy
            shutil.rmtree(room, ignore_errors=True)
