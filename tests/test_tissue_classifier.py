"""Tissue is recovered from a noisy, shaded image; under the tumour it is continued from around it and never CSF."""

from pathlib import Path

import brats_folder
import numpy as np
import pytest
from brats_folder import GRID, HEAD, RIM_CSF, VENTRICLE, WHITE
from numpy.typing import NDArray

from hybridtumor.brats import load_brats
from hybridtumor.errors import InputError
from hybridtumor.scan import Scan
from hybridtumor.tissue import TissueMap
from hybridtumor.tissue_classifier import classify, fill, head_mask

TUMOUR = brats_folder.labels().mask()
TRUTH = {"white": WHITE, "csf": HEAD & (VENTRICLE | RIM_CSF), "grey": HEAD & ~(WHITE | VENTRICLE | RIM_CSF)}


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.fixture(scope="module")
def classified() -> TissueMap:
    return classify(brats_folder.t1(bias=0.25, noise=15), TUMOUR)


@pytest.mark.parametrize("name", ["white", "grey", "csf"])
def test_tissues_are_found_under_noise_and_shading(classified: TissueMap, name: str) -> None:
    assert dice((getattr(classified, name) > 0.5)[~TUMOUR], TRUTH[name][~TUMOUR]) > 0.93


def test_fractions_add_up_inside_the_head_and_vanish_outside(classified: TissueMap) -> None:
    total = classified.white + classified.grey + classified.csf
    np.testing.assert_allclose(total[HEAD], 1, atol=1e-5)
    assert not total[~HEAD].any()


def test_the_ventricle_is_csf_and_the_tumour_is_not(classified: TissueMap) -> None:
    assert (classified.csf > 0.5)[VENTRICLE & ~TUMOUR].mean() > 0.95
    assert not classified.csf[TUMOUR].any()
    assert classified.parenchyma[TUMOUR].all()


def test_a_constant_factor_and_an_offset_of_the_scanner_do_not_matter(classified: TissueMap) -> None:
    scan = brats_folder.t1(bias=0.25, noise=15)
    scaled = classify(Scan(scan.values / np.float32(scan.values.max() / 2) - 1, GRID), TUMOUR)
    for name in ("white", "grey", "csf"):
        assert np.mean(np.abs(getattr(scaled, name) - getattr(classified, name))) < 0.02


def test_the_tissue_under_the_tumour_is_that_around_it() -> None:
    white = WHITE.astype(np.float32)
    csf = (VENTRICLE | RIM_CSF).astype(np.float32)
    tissue = TissueMap(white, np.where(HEAD, 1 - white - csf, 0), csf * HEAD, GRID)
    deep = brats_folder.radius((14, 0, 2)) < 6
    filled = fill(tissue, deep)
    assert filled.white[deep].min() > 0.9
    np.testing.assert_array_equal(filled.white[~deep], tissue.white[~deep])
    np.testing.assert_allclose((filled.white + filled.grey)[deep], 1, atol=1e-5)


def test_where_there_is_no_signal_tissue_is_continued() -> None:
    scan = brats_folder.t1()
    x = GRID.world(np.moveaxis(np.indices(GRID.shape), 0, -1))[..., 0]
    cut = HEAD & (x < -30)
    tissue = classify(Scan(np.where(cut, 1, scan.values), GRID), TUMOUR)
    assert (tissue.white + tissue.grey)[cut].min() > 0.99


def test_background_is_the_value_of_the_border() -> None:
    scan = brats_folder.t1()
    assert dice(head_mask(scan), HEAD) > 0.999
    assert dice(head_mask(Scan(np.where(HEAD, scan.values / 500, -1), GRID)), HEAD) > 0.999


def test_an_image_without_three_tissues_is_refused() -> None:
    with pytest.raises(InputError, match="same value"):
        classify(Scan(np.ones(GRID.shape), GRID), TUMOUR)
    with pytest.raises(InputError, match="fewer than 1000"):
        classify(brats_folder.t1(), HEAD)


@pytest.mark.realdata
def test_ventricles_of_a_shaded_real_brain_are_csf(realdata: Path) -> None:
    """Ventricles: deep in the head, dark on T1 and bright on T2, which the classifier does not see."""
    patient = load_brats(realdata / "train/patients/BraTS2021_01476")
    assert patient.baseline.labels is not None
    tumour = patient.baseline.labels.mask()
    t1, t2 = (patient.baseline.scans[name].values for name in ("T1w", "T2w"))
    tissue = classify(patient.baseline.scans["T1w"], tumour)
    deep = np.zeros_like(tumour)
    deep[90:150, 70:170, 60:100] = True  # around the lateral ventricles
    head = head_mask(patient.baseline.scans["T1w"]) & ~tumour
    dark = t1 < np.percentile(t1[head], 20)
    bright = t2 > np.percentile(t2[head], 97)
    ventricle = deep & head & dark & bright
    assert np.count_nonzero(ventricle) > 2000
    assert (tissue.csf > 0.5)[ventricle].mean() > 0.9
    volumes = {name: getattr(tissue, name).sum() / 1e6 for name in ("white", "grey", "csf")}
    assert 0.4 < volumes["white"] < 1.0
    assert 0.25 < volumes["grey"] < 0.9
    assert not tissue.csf[tumour].any()
