"""patient.yaml with something wrong in it."""

from pathlib import Path

import numpy as np
from damage import Case, flip
from hypothesis import strategies as st
from yaml_damage import told_wrong

from hybridtumor.grid import Grid
from hybridtumor.patient import Patient
from hybridtumor.scan import LabelMap, Scan

GRID = Grid((9, 8, 7), np.diag([4.0, 4.0, 4.0, 1.0]))
TEXT = """\
schema_version: 1
id: "007"
synthetic: false
visits:
  - day: 0
    scans: {T1w: t1.nii.gz, T1ce: t1.nii.gz, FLAIR: t1.nii.gz}
    labels: {file: seg.nii.gz, convention: brats2021}
  - day: 90.5
    scans: {T1w: t1.nii.gz}
tissue: {white: half.nii.gz, grey: half.nii.gz, csf: zero.nii.gz}
density: density.nii.gz
dose: {file: dose.nii.gz, unit: Gy}
structures: {Brainstem: one.nii.gz}
oxygen: {file: dose.nii.gz, unit: mmHg}
radiosensitivity: half.nii.gz
"""
DATED = TEXT.replace("day: 0\n", "date: 2024-03-01\n").replace("day: 90.5\n", "date: 2024-05-30\n")


def prepare(folder: Path) -> None:
    """Write the images that patient.yaml names, and what it should not."""
    rng = np.random.default_rng(1)
    images = {"t1": rng.normal(size=GRID.shape), "half": 0.5, "zero": 0.0, "one": 1.0, "dose": 60.0}
    for name, values in images.items():
        Scan(np.broadcast_to(np.float32(values), GRID.shape), GRID).save(folder / f"{name}.nii.gz")
    Scan(np.float32(np.indices(GRID.shape).sum(0) < 6), GRID).save(folder / "density.nii.gz")
    labels = np.zeros(GRID.shape, np.uint8)
    labels[3:6, 3:6, 3:6] = 4
    LabelMap(labels, GRID).save(folder / "seg.nii.gz")
    (folder / "text.nii.gz").write_text("no image")
    (folder / "folder.nii.gz").mkdir()
    (folder / "loop.nii.gz").symlink_to("loop.nii.gz")


def sound() -> list[Case]:
    """Both ways to say when visits were."""
    return [Case("patient.yaml", text.encode()) for text in (TEXT, DATED)]


def read(path: Path) -> None:
    """Read the folder."""
    Patient.load(path.parent)


def cases(_real: list[bytes]) -> st.SearchStrategy[Case]:
    """What is told wrong, and bytes that are no text."""
    return _case()


@st.composite
def _case(draw: st.DrawFn) -> Case:
    raw = told_wrong(draw, draw(st.sampled_from([TEXT, DATED]))).encode("utf-8", "surrogatepass")
    return Case("patient.yaml", flip(draw, raw) if draw(st.integers(0, 4)) == 4 else raw)
