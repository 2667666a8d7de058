"""Bad files end in one InputError that names the file; nothing is read that the header cannot vouch for."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import brats_folder
import nibabel as nib
import numpy as np
import pytest
from brats_folder import GRID

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.patient import Patient
from hybridtumor.prepare import load_patient
from hybridtumor.scan import LabelMap, Scan

DIM, DATATYPE, PIXDIM, VOX_OFFSET, SLOPE, INTERCEPT, QFORM_CODE, SFORM_CODE, SROW = (
    40,
    70,
    76,
    108,
    112,
    116,
    252,
    254,
    280,
)
"""Where the fields of a NIfTI-1 header lie, bytes."""


def plain(path: Path, values: np.ndarray | None = None) -> Path:
    """A sound uncompressed file of 10 × 11 × 12 voxels."""
    data = np.random.default_rng(1).normal(size=(10, 11, 12)).astype(np.float32) if values is None else values
    Scan(data, Grid(data.shape, np.eye(4))).save(path)
    return path


def patched(offset: int, form: str, *numbers: float) -> Callable[[bytes], bytes]:
    """Return a change of the header."""

    def change(raw: bytes) -> bytes:
        patch = struct.pack("<" + form, *numbers)
        return raw[:offset] + patch + raw[offset + len(patch) :]

    return change


NAN = float("nan")
DAMAGES = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "header only": lambda raw: raw[:352],
    "half a header": lambda raw: raw[:200],
    "empty": lambda raw: b"",
    "random bytes": lambda raw: np.random.default_rng(2).bytes(len(raw)),
    "data past the end": patched(VOX_OFFSET, "f", 1e6),
    "unknown datatype": patched(DATATYPE, "h", 9999),
    "NaN affine": patched(SROW, "f", NAN),
    "infinite affine": patched(SROW + 12, "f", float("inf")),
    "zero affine": patched(SROW, "12f", *[0.0] * 12),
    "singular affine": patched(SROW, "12f", 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0),
    "NaN slope": patched(SLOPE, "f", NAN),
    "NaN intercept": patched(INTERCEPT, "f", NAN),
    "infinite slope": patched(SLOPE, "f", float("inf")),
    "negative extent": patched(DIM, "8h", 3, -5, 11, 12, 1, 1, 1, 1),
    "zero extent": patched(DIM, "8h", 3, 0, 11, 12, 1, 1, 1, 1),
    "huge extents": patched(DIM, "8h", 3, 30000, 30000, 30000, 1, 1, 1, 1),
    "large extents in a small file": patched(DIM, "8h", 3, 900, 900, 900, 1, 1, 1, 1),
    "4-D": patched(DIM, "8h", 4, 10, 11, 6, 2, 1, 1, 1),
    "2-D": patched(DIM, "8h", 2, 10, 11, 1, 1, 1, 1, 1),
    "sform and qform apart": patched(SROW + 12, "f", 30.0),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str, packed: bool) -> None:
    raw = DAMAGES[damage](plain(tmp_path / "sound.nii").read_bytes())
    path = tmp_path / ("bad.nii.gz" if packed else "bad.nii")
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(InputError, match=r"bad\.nii"):
        Scan.load(path)


def test_a_truncated_gzip_stream_is_refused(tmp_path: Path) -> None:
    whole = plain(tmp_path / "sound.nii.gz").read_bytes()
    for length in (len(whole) // 2, len(whole) - 9, 20):
        (tmp_path / "bad.nii.gz").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"bad\.nii\.gz"):
            Scan.load(tmp_path / "bad.nii.gz")


def test_a_gzip_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    raw = patched(DIM, "8h", 3, 2000, 2000, 2000, 1, 1, 1, 1)(plain(tmp_path / "sound.nii").read_bytes())
    (tmp_path / "bad.nii.gz").write_bytes(gzip.compress(raw + bytes(10**7)))
    with pytest.raises(InputError, match="voxels"):
        Scan.load(tmp_path / "bad.nii.gz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_counted_and_refused(tmp_path: Path, value: float) -> None:
    values = np.zeros((10, 11, 12), np.float32)
    values[2, 3, 4] = values[5, 6, 7] = value
    with pytest.raises(InputError, match=r"bad\.nii.*2 that are NaN"):
        Scan.load(plain(tmp_path / "bad.nii", values))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.nii.gz", tmp_path):
        with pytest.raises(InputError, match=path.name):
            Scan.load(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    nib.save(nib.MGHImage(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / "bad.mgz")
    with pytest.raises(InputError, match=r"bad\.mgz.*NIfTI"):
        Scan.load(tmp_path / "bad.mgz")


def test_a_sound_file_passes_with_and_without_scaling(tmp_path: Path) -> None:
    sound = Scan.load(plain(tmp_path / "sound.nii"))
    raw = (tmp_path / "sound.nii").read_bytes()
    (tmp_path / "scaled.nii").write_bytes(patched(SLOPE, "2f", 2.0, 1.0)(raw))
    np.testing.assert_allclose(Scan.load(tmp_path / "scaled.nii").values, 2 * sound.values + 1, rtol=1e-5)
    (tmp_path / "unscaled.nii").write_bytes(patched(SLOPE, "2f", 0.0, 0.0)(raw))
    np.testing.assert_array_equal(Scan.load(tmp_path / "unscaled.nii").values, sound.values)


def test_a_sheared_grid_is_read_back(tmp_path: Path) -> None:
    affine = np.array([[1, 0.4, 0, -5], [0, 1, 0.2, 3], [0, 0, 2, 1], [0, 0, 0, 1.0]])
    Scan(np.ones((4, 5, 6), np.float32), Grid((4, 5, 6), affine)).save(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(Scan.load(tmp_path / "a.nii.gz").grid.affine, affine, atol=1e-6)


@pytest.mark.parametrize("value", [5, -1, 1.5])
def test_an_unknown_label_is_listed(tmp_path: Path, value: float) -> None:
    values = np.zeros((10, 11, 12), np.float32)
    values[1, 1, 1] = value
    with pytest.raises(InputError, match=rf"bad\.nii.*{value}"):
        LabelMap.load(plain(tmp_path / "bad.nii", values))


def test_label_3_and_label_4_together_are_refused(tmp_path: Path) -> None:
    values = np.zeros((10, 11, 12), np.float32)
    values[1, 1, 1], values[2, 2, 2] = 3, 4
    with pytest.raises(InputError, match=r"bad\.nii.*3"):
        LabelMap.load(plain(tmp_path / "bad.nii", values))


def test_a_tumour_outside_the_brain_is_refused(tmp_path: Path) -> None:
    folder = brats_folder.write(tmp_path / "case", prefix="")
    brats_folder.labels(centre=(42, -48, 34)).save(folder / "seg.nii.gz")
    with pytest.raises(InputError, match=r"case.*outside"):
        load_patient(folder)


def test_a_head_with_its_skull_is_refused(tmp_path: Path) -> None:
    folder = brats_folder.write(tmp_path / "case", prefix="")
    wide = Grid(GRID.shape, GRID.affine @ np.diag([3, 3, 3, 1]))
    for path in folder.glob("*.nii.gz"):
        image = nib.load(path)
        Scan(image.get_fdata(), wide).save(path)
    with pytest.raises(InputError, match=r"case.*skull"):
        load_patient(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "schema_version: 2",
        "schema_version: 1\nid: a\nid: b\nvisits: []",
        "schema_version: 1\nid: a\nvisits: []",
        "schema_version: 1\nid: 7\nvisits: [{day: 0, scans: {T1w: t1.nii.gz}}]",
        "schema_version: 1\nid: a/b\nvisits: [{day: 0, scans: {T1w: t1.nii.gz}}]",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: t1.nii.gz}}]\nunknown: 1",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T9: t1.nii.gz}}]",
        "schema_version: 1\nid: a\nvisits: [{day: 0}]",
        "schema_version: 1\nid: a\nvisits: [{day: 5, scans: {T1w: t1.nii.gz}}]",
        "schema_version: 1\nid: a\nvisits: [{day: .nan, scans: {T1w: t1.nii.gz}}]",
        "schema_version: 1\nid: a\nvisits: [{date: 2024-13-40, scans: {T1w: t1.nii.gz}}]",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: nowhere.nii.gz}}]",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: ../t1.nii.gz}}]",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: /etc/passwd}}]",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: link.nii.gz}}]",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: t1.nii.gz}}]\ndose: {file: t1.nii.gz}",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: t1.nii.gz}}]\ndose: {file: t1.nii.gz, unit: Sv}",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: t1.nii.gz}}]\ndose: {file: t1.nii.gz, unit: Gy}",
        "schema_version: 1\nid: a\nvisits: [{day: 0, scans: {T1w: t1.nii.gz}, labels: {file: zero.nii.gz}}]",
        "!!python/object/apply:os.system ['touch canary']",
        "a: &a [1, 1]\nb: [*a, *a]",
        "a: " + "[" * 100 + "]" * 100,
        "schema_version: 1\nvisits: {",
    ],
)
def test_a_bad_patient_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "patient"
    brats_folder.t1().save(folder / "t1.nii.gz")
    brats_folder.t1().save(tmp_path / "t1.nii.gz")
    Scan(np.zeros(GRID.shape, np.float32), GRID).save(folder / "zero.nii.gz")
    (folder / "link.nii.gz").symlink_to(tmp_path / "t1.nii.gz")
    (folder / "patient.yaml").write_text(text)
    with pytest.raises(InputError, match="patient"):
        Patient.load(folder)
    assert not (tmp_path / "canary").exists()


def test_a_huge_patient_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "patient.yaml").write_text("# " + "x" * 2_000_000)
    with pytest.raises(InputError, match="bytes"):
        Patient.load(tmp_path)
