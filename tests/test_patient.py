"""A patient folder is read back as it was written; everything comes onto the grid of the first baseline scan."""

import json
from dataclasses import replace
from pathlib import Path

import brats_folder
import nibabel as nib
import numpy as np
import pytest
import yaml
from brats_folder import GRID, HEAD, VENTRICLE, WHITE

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid, resample
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import LABEL_CONVENTIONS, SYNTHETIC_NOTICE, LabelMap, Scan
from hybridtumor.therapy import DoseMap
from hybridtumor.tissue import TissueMap


def full_patient(grid: Grid = GRID) -> Patient:
    """Two visits, labels of 2023, tissue, density and dose; values without a short decimal form."""
    generator = np.random.default_rng(3)
    scans = {n: Scan(generator.normal(size=grid.shape) / 3, grid) for n in ("T1w", "T1ce", "T2w", "FLAIR")}
    codes = LABEL_CONVENTIONS["brats2023"]
    labels = LabelMap(brats_folder.labels("brats2023").values, grid, codes)
    white, csf = WHITE.astype(np.float32) / 3, VENTRICLE.astype(np.float32)
    grey = np.where(HEAD, 1 - white - csf, 0)
    return Patient(
        id="Ann & Bob «7»",
        visits=(Visit(0, scans, labels), Visit(92.5, {"FLAIR": scans["FLAIR"]})),
        tissue=TissueMap(white, grey, csf, grid),
        density=Scan(generator.random(grid.shape) / 3, grid),
        dose=DoseMap(generator.random(grid.shape) * 60, grid),
        synthetic=True,
    )


def images(patient: Patient) -> dict[str, np.ndarray]:
    """Every array of a patient by a name."""
    found = {f"{v.day:g}-{name}": scan.values for v in patient.visits for name, scan in v.scans.items()}
    found |= {f"{v.day:g}-seg": v.labels.values for v in patient.visits if v.labels}
    assert patient.tissue is not None
    assert patient.density is not None
    assert patient.dose is not None
    found |= {name: getattr(patient.tissue, name) for name in ("white", "grey", "csf")}
    return found | {"density": patient.density.values, "dose": patient.dose.values}


def test_save_and_load_are_exact(tmp_path: Path) -> None:
    angle = 0.3
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    patient = full_patient(Grid(GRID.shape, turn @ GRID.affine))
    patient.save(tmp_path / "p")
    again = Patient.load(tmp_path / "p")
    assert (again.id, again.synthetic, [v.day for v in again.visits]) == (patient.id, True, [0, 92.5])
    np.testing.assert_allclose(again.grid.affine, patient.grid.affine, rtol=1e-6, atol=1e-5)
    before, after = images(patient), images(again)
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert np.array_equal(values, after[name]), name
    assert again.baseline.labels is not None
    assert dict(again.baseline.labels.codes) == dict(LABEL_CONVENTIONS["brats2023"])


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    patient = full_patient()
    for name in ("a", "b"):
        patient.save(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_synthetic_scans_say_so(tmp_path: Path) -> None:
    full_patient().save(tmp_path / "p")
    assert SYNTHETIC_NOTICE in bytes(nib.load(tmp_path / "p" / "day0_T1w.nii.gz").header["descrip"]).decode()
    assert json.loads((tmp_path / "p" / "day0_T1w.json").read_text())["notice"] == SYNTHETIC_NOTICE
    replace(full_patient(), synthetic=False).save(tmp_path / "q")
    assert not (tmp_path / "q" / "day0_T1w.json").exists()


def folder_with(path: Path, **changes: object) -> Path:
    """A patient folder with one T1w scan and whatever else patient.yaml is to say."""
    brats_folder.t1().save(path / "t1.nii.gz")
    content = {"schema_version": 1, "id": "a", "visits": [{"day": 0, "scans": {"T1w": "t1.nii.gz"}}]} | changes
    (path / "patient.yaml").write_text(yaml.safe_dump(content))
    return path


def test_dates_become_days(tmp_path: Path) -> None:
    dates = ["2024-02-01", "2024-03-01", "2025-02-01"]
    visits = [{"date": date, "scans": {"T1w": "t1.nii.gz"}} for date in dates]
    assert [v.day for v in Patient.load(folder_with(tmp_path, visits=visits)).visits] == [0, 29, 366]


@pytest.mark.parametrize(
    "times",
    [
        [{"date": "2024-02-01"}, {"day": 3}],
        [{"date": "2024-02-01", "day": 0}],
        [{}],
        [{"date": "2024-02-01"}, {"date": "2024-01-01"}],
        [{"day": 0}, {"day": 0}],
    ],
)
def test_visits_out_of_order_or_without_one_clock_are_refused(tmp_path: Path, times: list[dict[str, object]]) -> None:
    visits = [time | {"scans": {"T1w": "t1.nii.gz"}} for time in times]
    with pytest.raises(InputError, match="visit"):
        Patient.load(folder_with(tmp_path, visits=visits))


def test_a_scan_on_another_grid_is_resampled_by_its_affine(tmp_path: Path) -> None:
    fine = Grid((80, 84, 76), np.array([[0, 1.2, 0, -50], [1.4, 0, 0, -56], [0, 0, 1.2, -45], [0, 0, 0, 1.0]]))
    world = fine.world(np.moveaxis(np.indices(fine.shape), 0, -1))
    Scan((world @ [1.0, 2.0, 3.0]).astype(np.float32), fine).save(tmp_path / "ramp.nii.gz")
    labels = brats_folder.labels()
    moved = resample(labels.values.astype(np.float32), GRID, fine, order=0)
    LabelMap(moved.astype(np.uint8), fine).save(tmp_path / "seg.nii.gz")
    visits = [{"day": 0, "scans": {"T1w": "t1.nii.gz", "PET": "ramp.nii.gz"}, "labels": {"file": "seg.nii.gz"}}]
    patient = Patient.load(folder_with(tmp_path, visits=visits))
    expected = GRID.world(np.moveaxis(np.indices(GRID.shape), 0, -1)) @ [1.0, 2.0, 3.0]
    np.testing.assert_allclose(patient.baseline.scans["PET"].values[HEAD], expected[HEAD], atol=1e-2)
    assert patient.baseline.labels is not None
    volume = np.count_nonzero(labels.mask())
    assert np.count_nonzero(patient.baseline.labels.mask() ^ labels.mask()) < 0.15 * volume


def test_a_scan_that_misses_the_brain_is_refused(tmp_path: Path) -> None:
    half = GRID.crop((0, 0, 0), (20, 56, 44))
    Scan(brats_folder.t1().values[:20], half).save(tmp_path / "t2.nii.gz")
    visits = [{"day": 0, "scans": {"T1w": "t1.nii.gz", "T2w": "t2.nii.gz"}}]
    with pytest.raises(InputError, match=r"t2\.nii\.gz.*90%"):
        Patient.load(folder_with(tmp_path, visits=visits))


def test_the_dose_is_converted_to_gray(tmp_path: Path) -> None:
    Scan(np.full(GRID.shape, 6000), GRID).save(tmp_path / "dose.nii.gz")
    patient = Patient.load(folder_with(tmp_path, dose={"file": "dose.nii.gz", "unit": "cGy"}))
    assert patient.dose is not None
    np.testing.assert_allclose(patient.dose.values, 60)
    with pytest.raises(InputError, match="cGy"):
        Patient.load(folder_with(tmp_path, dose={"file": "dose.nii.gz", "unit": "Gy"}))
