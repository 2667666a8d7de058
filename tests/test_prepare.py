"""load_patient completes what is missing and leaves alone what is there; the virtual patient is as announced."""

from dataclasses import replace
from pathlib import Path

import brats_folder
import numpy as np
import pytest

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.patient import Patient
from hybridtumor.prepare import complete, load_patient
from hybridtumor.scan import MODALITIES, Scan
from hybridtumor.tissue import TissueMap


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Patient:
    return load_patient(brats_folder.write(tmp_path_factory.mktemp("brats")))


def test_a_brats_folder_becomes_a_complete_patient(prepared: Patient) -> None:
    assert prepared.tissue is not None
    assert prepared.density is not None
    assert prepared.density.values.max() > 0.9
    assert not prepared.density.values[~prepared.tissue.parenchyma].any()


def test_a_complete_patient_is_left_alone(prepared: Patient) -> None:
    assert complete(prepared) is prepared


def test_a_saved_patient_needs_nothing_more(prepared: Patient, tmp_path: Path) -> None:
    prepared.save(tmp_path / "p")
    again = load_patient(tmp_path / "p")
    assert again.density is not None
    assert prepared.density is not None
    np.testing.assert_array_equal(again.density.values, prepared.density.values)


def test_given_tissue_is_kept_but_for_csf_under_the_tumour(prepared: Patient) -> None:
    given = prepared.tissue
    labels = prepared.baseline.labels
    assert given is not None
    assert labels is not None
    necrosis = labels.mask("necrosis")
    cystic = TissueMap(
        np.where(necrosis, 0, given.white),
        np.where(necrosis, 0, given.grey),
        np.where(necrosis, 1, given.csf),
        given.grid,
    )
    result = complete(replace(prepared, tissue=cystic, density=None)).tissue
    assert result is not None
    assert result.parenchyma[necrosis].all()
    np.testing.assert_array_equal(result.white[~necrosis], given.white[~necrosis])


def test_without_segmentation_or_density_there_is_no_tumour(prepared: Patient) -> None:
    bare = replace(prepared, density=None, visits=(replace(prepared.baseline, labels=None),))
    with pytest.raises(InputError, match="segmentation"):
        complete(bare)


def test_without_t1_or_tissue_there_is_no_brain(prepared: Patient) -> None:
    scans = {"T2w": prepared.baseline.scans["T2w"]}
    with pytest.raises(InputError, match="T1w"):
        complete(replace(prepared, tissue=None, density=None, visits=(replace(prepared.baseline, scans=scans),)))


def test_progress_rises_to_one(prepared: Patient) -> None:
    shares: list[float] = []
    complete(replace(prepared, density=None), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_seed_lies_in_white_matter_inside_the_brain() -> None:
    from hybridtumor import virtual
    from hybridtumor.atlas import mni152

    atlas = mni152()
    values = virtual.seed(atlas.tissue).values
    index = tuple(np.round(atlas.t1.grid.index(virtual.SEED)).astype(int))
    assert atlas.tissue.white[index] > 0.9
    assert values.max() == pytest.approx(virtual.SEED_PEAK, rel=0.05)
    centre = np.average(atlas.t1.grid.world(np.argwhere(values > 0)), axis=0, weights=values[values > 0])
    np.testing.assert_allclose(centre, virtual.SEED, atol=1)
    total = atlas.tissue.white + atlas.tissue.grey + atlas.tissue.csf
    np.testing.assert_allclose(total[atlas.t1.values > 0], 1, atol=1e-5)


def test_the_virtual_patient_is_as_announced() -> None:
    patient = load_patient("mni152")
    assert patient.synthetic
    assert tuple(patient.baseline.scans) == MODALITIES
    assert patient.density is not None
    assert patient.tissue is not None
    labels = patient.baseline.labels
    assert labels is not None
    grid: Grid = patient.grid
    assert 20e3 < np.count_nonzero(labels.mask()) * grid.voxel_volume < 30e3
    assert all(np.count_nonzero(labels.mask(name)) > 1000 for name in ("necrosis", "enhancing", "edema"))
    assert not patient.density.values[~patient.tissue.parenchyma].any()
    t1ce, flair = patient.baseline.scans["T1ce"], patient.baseline.scans["FLAIR"]
    white = (patient.tissue.white > 0.95) & (patient.density.values == 0)

    def mean(scan: Scan, where: np.ndarray) -> float:
        return float(scan.values[where].mean())

    assert mean(t1ce, labels.mask("enhancing")) > 1.3 * mean(t1ce, white) > 1.3 * mean(t1ce, labels.mask("necrosis"))
    assert mean(flair, labels.mask("edema")) > 1.3 * mean(flair, white)
