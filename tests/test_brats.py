"""BraTS folders of either year are read alike; what is missing or does not fit is named."""

from pathlib import Path

import brats_folder
import numpy as np
import pytest
from brats_folder import GRID

from hybridtumor.brats import is_brats_folder, load_brats
from hybridtumor.errors import InputError
from hybridtumor.patient import Patient
from hybridtumor.scan import LABELS, MODALITIES, LabelMap, Scan


@pytest.mark.parametrize(("year", "prefix"), [(2021, None), (2021, ""), (2023, None)])
def test_both_conventions_give_the_same_patient(tmp_path: Path, year: int, prefix: str | None) -> None:
    patient = load_brats(brats_folder.write(tmp_path / "BraTS_1", year=year, prefix=prefix))
    assert patient.id == "BraTS_1"
    assert tuple(patient.baseline.scans) == MODALITIES
    assert not patient.synthetic
    assert patient.baseline.labels is not None
    for name in LABELS:
        assert np.array_equal(patient.baseline.labels.mask(name), brats_folder.labels().mask(name)), name


def test_patient_load_understands_a_brats_folder(tmp_path: Path) -> None:
    assert Patient.load(brats_folder.write(tmp_path / "a")).id == "a"


@pytest.mark.parametrize(("suffix", "named"), [("t1ce", "T1ce"), ("flair", "FLAIR"), ("seg", "seg")])
def test_a_missing_image_is_named(tmp_path: Path, suffix: str, named: str) -> None:
    folder = brats_folder.write(tmp_path / "a", prefix="")
    (folder / f"{suffix}.nii.gz").unlink()
    with pytest.raises(InputError, match=named):
        load_brats(folder)


def test_an_image_present_twice_is_refused(tmp_path: Path) -> None:
    folder = brats_folder.write(tmp_path / "a", prefix="")
    brats_folder.t1().save(folder / "x_t1n.nii.gz")
    with pytest.raises(InputError, match="one T1w image"):
        load_brats(folder)


def test_an_empty_segmentation_is_refused(tmp_path: Path) -> None:
    folder = brats_folder.write(tmp_path / "a", prefix="")
    LabelMap(np.zeros(GRID.shape, np.uint8), GRID).save(folder / "seg.nii.gz")
    with pytest.raises(InputError, match=r"seg\.nii\.gz.*tumour"):
        load_brats(folder)


def test_an_unknown_label_is_refused(tmp_path: Path) -> None:
    folder = brats_folder.write(tmp_path / "a", prefix="")
    values = brats_folder.labels().values.astype(np.float32)
    values[3, 3, 3] = 7
    Scan(values, GRID).save(folder / "seg.nii.gz")
    with pytest.raises(InputError, match=r"seg\.nii\.gz.*7"):
        load_brats(folder)


@pytest.mark.parametrize("suffix", ["t2", "seg"])
def test_mismatched_grids_are_refused(tmp_path: Path, suffix: str) -> None:
    folder = brats_folder.write(tmp_path / "a", prefix="")
    values = brats_folder.labels().values[:-1] if suffix == "seg" else brats_folder.t1().values[:-1]
    Scan(values, GRID.crop((0, 0, 0), values.shape)).save(folder / f"{suffix}.nii.gz")
    with pytest.raises(InputError, match=rf"{suffix}\.nii\.gz.*grid"):
        load_brats(folder)


def test_another_folder_is_no_brats_folder(tmp_path: Path) -> None:
    assert not is_brats_folder(tmp_path)
    assert not is_brats_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="found none"):
        load_brats(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither"):
        Patient.load(tmp_path)


@pytest.mark.realdata
@pytest.mark.parametrize("case", ["train/patients/BraTS2021_01306_preproc", "test/patients/BraTS-GLI-00000-000"])
def test_unusual_real_cases_load(realdata: Path, case: str) -> None:
    """One is scaled to [−1, 1], the other's segmentation has only a qform."""
    patient = load_brats(realdata / case)
    assert patient.baseline.labels is not None
    assert all(patient.baseline.labels.mask(name).any() for name in LABELS)
