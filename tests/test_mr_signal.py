"""The signal equation, and what radiologists expect of each modality."""

import numpy as np
import pytest

from hybridtumor.grid import Grid
from hybridtumor.models.mr_signal import (
    SCALE,
    SEQUENCES,
    TISSUES,
    Relaxation,
    Sequence,
    add_noise,
    signal,
    simulate_scans,
    texture_of,
)
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import MODALITIES
from hybridtumor.tissue import TissueMap

GRID = Grid((12, 10, 8), np.eye(4))
ONES, NONE = np.ones(GRID.shape, np.float32), np.zeros(GRID.shape, np.float32)


def intensity(modality: str, tissue: str) -> float:
    return signal(TISSUES[tissue], SEQUENCES[modality])


@pytest.mark.law("images", "The signal equation has its limits for long and short TR, TE and TI")
def test_limits_of_the_signal_equation() -> None:
    water = Relaxation(1000, 100, 1.0, 1000)
    assert signal(water, Sequence(tr=1e9, te=0)) == pytest.approx(1)
    assert signal(water, Sequence(tr=1e9, te=100)) == pytest.approx(np.exp(-1))
    assert signal(water, Sequence(tr=1000 * np.log(2), te=0)) == pytest.approx(0.5)
    assert signal(water, Sequence(tr=1e9, te=0, ti=1000 * np.log(2))) == pytest.approx(0, abs=1e-12)
    assert signal(water, Sequence(tr=1e9, te=0, ti=0)) == pytest.approx(1)
    assert signal(water, Sequence(tr=1e9, te=0, ti=1e8)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("modality", "darkest_to_brightest"),
    [
        ("T1w", ("csf", "grey", "white")),
        ("T1w", ("necrosis", "edema", "white")),
        ("T1ce", ("necrosis", "white", "enhancing")),
        ("T2w", ("white", "grey", "edema", "csf")),
        ("FLAIR", ("csf", "white", "grey", "edema")),
    ],
)
def test_order_of_intensities(modality: str, darkest_to_brightest: tuple[str, ...]) -> None:
    values = [intensity(modality, tissue) for tissue in darkest_to_brightest]
    assert values == sorted(values)
    assert values[-1] > 1.05 * values[0]


def test_flair_nulls_csf() -> None:
    assert intensity("FLAIR", "csf") < 0.05 * intensity("FLAIR", "white")


def test_gadolinium_changes_t1ce_alone() -> None:
    for name, sequence in SEQUENCES.items():
        assert sequence.gadolinium == (name == "T1ce")
    assert intensity("T1ce", "enhancing") > 2 * intensity("T1w", "enhancing")


def test_a_pure_tissue_has_its_signal_and_a_mixture_the_mean() -> None:
    scans = simulate_scans(TissueMap(ONES, NONE, NONE, GRID), NONE, NONE, ImagingThresholds())
    half = simulate_scans(TissueMap(ONES / 2, NONE, ONES / 2, GRID), NONE, NONE, ImagingThresholds())
    assert tuple(scans) == MODALITIES
    for name in MODALITIES:
        np.testing.assert_allclose(scans[name], SCALE * intensity(name, "white"), rtol=1e-5)
        mean = (intensity(name, "white") + intensity(name, "csf")) / 2
        np.testing.assert_allclose(half[name], SCALE * mean, rtol=1e-5)


def test_no_tumour_changes_nothing_and_a_dense_one_shows() -> None:
    tissue = TissueMap(ONES, NONE, NONE, GRID)
    healthy = simulate_scans(tissue, NONE, NONE, ImagingThresholds())
    for density, label in ((0.75, "enhancing"), (0.99, "necrosis")):
        scans = simulate_scans(tissue, NONE, density * ONES, ImagingThresholds())
        for name in MODALITIES:
            expected = SCALE * intensity(name, label)
            np.testing.assert_allclose(scans[name], expected, rtol=0.1, atol=20)
    swollen = simulate_scans(tissue, NONE, 0.4 * ONES, ImagingThresholds())
    assert swollen["FLAIR"].mean() > 1.3 * healthy["FLAIR"].mean()
    assert swollen["T1w"].mean() < 0.9 * healthy["T1w"].mean()


def test_nothing_is_seen_outside_the_head() -> None:
    scans = simulate_scans(TissueMap(NONE, NONE, NONE, GRID), NONE, ONES, ImagingThresholds())
    assert all(not values.any() for values in scans.values())


def test_texture_is_what_the_tissue_means_leave_over() -> None:
    generator = np.random.default_rng(0)
    white = generator.random(GRID.shape).astype(np.float32)
    water = np.where(white > 0.8, 0.5, 0.1).astype(np.float32)
    mixed = TissueMap(white * (1 - water), (1 - white) * (1 - water), water, GRID)
    values = 300 * mixed.white + 200 * mixed.grey + 50 * mixed.csf
    pattern = 1 + 0.02 * generator.standard_normal(GRID.shape)
    np.testing.assert_allclose(texture_of(values * pattern, mixed), pattern - 1, atol=5e-3)


def test_noise_is_rician_and_spares_the_background() -> None:
    scan = np.where(np.arange(12)[:, None, None] < 6, 100, 0) * ONES
    noisy = add_noise(scan, 5, np.random.default_rng(0))
    assert not noisy[scan == 0].any()
    assert noisy[scan > 0].std() == pytest.approx(5, rel=0.15)
    assert np.mean(noisy[scan > 0] ** 2) == pytest.approx(100**2 + 2 * 5**2, rel=0.02)
    np.testing.assert_array_equal(noisy, add_noise(scan, 5, np.random.default_rng(0)))
