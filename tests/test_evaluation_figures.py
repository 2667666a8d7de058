"""Figures of images: the perfect image is best, calibration is nominal, blur and grain are seen, memory is found."""

from typing import Any

import numpy as np
import pytest
from figures import Figure
from numpy.typing import NDArray
from scipy import ndimage, stats

from hybridtumor.errors import InputError
from hybridtumor.evaluation import ensemble, memorisation, response, similarity, texture
from hybridtumor.evaluation.bootstrap import interval
from hybridtumor.metrics import ssim

SHAPE = (48, 52, 44)


def textured(seed: int, shape: tuple[int, ...] = SHAPE, width: float = 1.0, modalities: int = 2) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    images = [ndimage.gaussian_filter(rng.standard_normal(shape), width) for _ in range(modalities)]
    return np.stack([image / image.std() for image in images]).astype(np.float32)


def ball(radius: float, shape: tuple[int, ...] = SHAPE) -> NDArray[np.bool_]:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return np.asarray(sum((a - n / 2) ** 2 for a, n in zip(axes, shape, strict=True)) < radius**2)


MASK = ball(17)


def test_the_perfect_image_has_the_best_value_of_every_figure() -> None:
    x = textured(0)
    assert similarity.mae(x, x, MASK) == 0
    assert similarity.ms_ssim(x[0], x[0], MASK, data_range=3.0) == pytest.approx(1)
    assert texture.spectrum_distance(x, x, MASK) == 0
    assert texture.haar_distance(x, x, MASK) == (0, 0)
    assert texture.sliced_wasserstein(x, x, MASK) == 0
    assert np.allclose(ensemble.crps(np.stack([x, x, x]), x), 0, atol=1e-6)
    assert response.volume_error(MASK, MASK) == 0
    assert response.density_agreement(x[0], x[0], MASK) == (pytest.approx(1), 0)
    seen = response.dose_response([0, 20, 40], [3, 2, 1], [3, 2, 1])
    assert (seen.spearman, seen.violations, seen.slope) == (pytest.approx(-1), 0, pytest.approx(1))


def test_ms_ssim_of_one_scale_is_ssim_and_more_scales_forgive_fine_noise() -> None:
    x = textured(0, width=3)[0]
    y = (x + 0.5 * textured(1, width=0.3)[0]).astype(np.float32)
    small, large = ball(8), MASK
    assert similarity.scales_of(small) == 1
    one = similarity.similarity_scales(y, x, 3.0, 1)
    for mask in (small, large):
        assert similarity.ssim_of(one, mask) == pytest.approx(ssim(y, x, mask, data_range=3.0), abs=1e-4)
    assert similarity.ms_ssim(y, x, small, data_range=3.0) == pytest.approx(ssim(y, x, small, data_range=3.0), abs=1e-4)
    assert similarity.scales_of(large) == 2
    assert similarity.ms_ssim(y, x, large, data_range=3.0) > ssim(y, x, large, data_range=3.0) + 0.05


@pytest.mark.parametrize(("side", "scales"), [(7, 1), (21, 1), (22, 2), (43, 2), (44, 3), (176, 5), (400, 5)])
def test_a_region_has_as_many_scales_as_it_is_wide_enough_for(side: int, scales: int) -> None:
    region = np.zeros((side, side, side), bool)
    region[0, 0, 0] = region[-1, -1, -1] = True
    region[0] |= True
    assert similarity.scales_of(region) == scales
    assert similarity.scales_of(region[:7]) == 1


def test_ms_ssim_falls_with_every_kind_of_harm() -> None:
    x = textured(0, width=2)[0]
    for harm in (
        [ndimage.gaussian_filter(x, s) for s in (0.5, 1, 2, 4)],
        [x + s for s in (0.2, 0.5, 1)],
        [x + s * textured(3)[0] for s in (0.2, 0.5, 1)],
    ):
        found = [similarity.ms_ssim(np.asarray(y, np.float32), x, MASK, data_range=3.0) for y in harm]
        assert found == sorted(found, reverse=True)
        assert 0 <= found[-1] < found[0] < 1
    opposite = np.asarray(-5 * x, np.float32)
    assert similarity.ms_ssim(opposite, x, MASK, data_range=3.0) == 0


@pytest.mark.law("images", "CRPS of a Gaussian ensemble is the closed form")
def test_crps_of_a_gaussian_ensemble_is_the_closed_form(figure: Figure) -> None:
    rng = np.random.default_rng(0)
    y = rng.uniform(-3, 3, 4000)
    expected = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
    found = ensemble.crps(rng.standard_normal((400, y.size)), y)
    figure("error of CRPS", np.abs(found.mean() / expected.mean() - 1), at_most=5e-3)
    assert np.abs(found - expected).max() < 0.25


def antithetic(rng: np.random.Generator, members: int, size: int) -> NDArray[np.float64]:
    half = rng.standard_normal((members // 2, size))
    return np.stack([half, -half], axis=1).reshape(members, size)


@pytest.mark.parametrize("members", [2, 3, 5, 10])
def test_fair_crps_does_not_depend_on_the_size_of_the_ensemble(members: int) -> None:
    rng = np.random.default_rng(members)
    y = rng.standard_normal(200_000)
    found = ensemble.crps(rng.standard_normal((members, y.size)), y)
    assert found.mean() == pytest.approx(
        1 / np.sqrt(np.pi), abs=4 * found.std() / np.sqrt(y.size)
    )  # E CRPS, calibrated


@pytest.mark.law("images", "CRPS of antithetic pairs is unbiased")
@pytest.mark.parametrize("members", [4, 6, 8])
def test_crps_and_spread_of_antithetic_pairs_are_unbiased(members: int) -> None:
    rng = np.random.default_rng(members)
    y = rng.standard_normal(200_000)
    pairs = antithetic(rng, members, y.size)
    found = ensemble.crps(pairs, y, antithetic=True)
    assert found.mean() == pytest.approx(1 / np.sqrt(np.pi), abs=4 * found.std() / np.sqrt(y.size))
    assert ensemble.spread_skill(pairs, y, antithetic=True) == pytest.approx(1, abs=0.01)
    wrong = ensemble.crps(pairs, y)
    assert abs(wrong.mean() - 1 / np.sqrt(np.pi)) > 10 * found.std() / np.sqrt(y.size)  # pairs taken for independent


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("members", [4, 8, 20])
def test_a_calibrated_ensemble_covers_and_spreads_as_it_says(members: int, paired: bool) -> None:
    rng = np.random.default_rng(members)
    y = rng.standard_normal(100_000)
    x = antithetic(rng, members, y.size) if paired else rng.standard_normal((members, y.size))
    assert ensemble.spread_skill(x, y, antithetic=paired) == pytest.approx(1, abs=0.01)
    for level in (0.5, 0.9):
        found = ensemble.coverage(x, y, level, antithetic=paired)
        assert found.observed == pytest.approx(found.nominal, abs=0.01)
        narrow = ensemble.coverage(0.5 * x, y, level, antithetic=paired)
        assert narrow.observed < found.nominal - 0.1
    assert ensemble.unevenness(ensemble.rank_histogram(x, y, antithetic=paired)) < 0.05
    assert ensemble.unevenness(ensemble.rank_histogram(0.5 * x, y, antithetic=paired)) > 0.2
    assert ensemble.spread_skill(0.5 * x, y, antithetic=paired) < 0.7


def test_nominal_coverage_is_that_of_order_statistics() -> None:
    assert ensemble.nominal_coverage(19, 0.9) == (1, pytest.approx(0.9))
    assert ensemble.nominal_coverage(8, 0.9) == (1, pytest.approx(7 / 9))
    assert ensemble.nominal_coverage(8, 0.5)[1] == pytest.approx(5 / 9)
    assert ensemble.nominal_coverage(2, 0.5)[1] == pytest.approx(1 / 3)


def test_ranks_of_equal_members_fall_at_random() -> None:
    y = np.zeros(50_000)
    assert ensemble.unevenness(ensemble.rank_histogram(np.zeros((5, y.size)), y)) < 0.05


def test_ensembles_that_cannot_be_judged_are_refused() -> None:
    y = np.zeros(3)
    for members, paired in ((1, False), (2, True), (5, True)):
        with pytest.raises(InputError, match="members"):
            ensemble.crps(np.zeros((members, 3)), y, antithetic=paired)
    with pytest.raises(InputError, match="shape"):
        ensemble.crps(np.zeros((4, 2)), y)


def _worse(images: NDArray[Any], figure_of: Any, widths: tuple[float, ...]) -> list[float]:
    return [figure_of(np.stack([ndimage.gaussian_filter(x, s) for x in images]).astype(np.float32)) for s in widths]


@pytest.mark.parametrize("name", ["spectrum", "haar", "patches"])
def test_texture_distances_see_blur_and_grain(name: str) -> None:
    x = textured(0)
    distance = {
        "spectrum": lambda y: texture.spectrum_distance(y, x, MASK),
        "haar": lambda y: texture.haar_distance(y, x, MASK)[0],
        "patches": lambda y: texture.sliced_wasserstein(y, x, MASK),
    }[name]
    blurred = _worse(x, distance, (0.4, 0.8, 1.2, 2.0))
    assert blurred[0] > 0
    assert blurred == sorted(blurred)
    rng = np.random.default_rng(1)
    grainy = [distance((x + s * rng.standard_normal(x.shape)).astype(np.float32)) for s in (0.1, 0.4, 1.0)]
    assert grainy[0] > 0
    assert grainy == sorted(grainy)
    other = distance(textured(7))  # another sample of the same texture
    assert other < 0.5 * blurred[-1]


def test_the_spectrum_is_that_of_the_full_transform() -> None:
    x, mask = textured(0, (21, 20, 19)), np.ones((21, 20, 19), bool)
    window = np.einsum("i,j,k->ijk", *[np.hanning(n) for n in mask.shape])
    power = np.abs(np.fft.fftn(x * window, axes=(1, 2, 3))) ** 2
    k = np.sqrt(sum(q**2 for q in np.meshgrid(*[np.fft.fftfreq(n) for n in mask.shape], indexing="ij")))
    band = (k * 20).astype(int)
    expected = np.log([[p[band == b].mean() for b in range(1, 10)] for p in power])
    assert np.allclose(texture.log_spectrum(x, mask), expected, atol=1e-4)


def test_haar_bands_keep_the_energy_and_see_heavy_tails() -> None:
    x, inside = textured(0, (16, 16, 16), modalities=1), np.ones((16, 16, 16), bool)
    details = np.exp(texture.haar_statistics(x, inside, levels=1)[0, 0]).sum() * 8**3
    smooth = 8 * (x.reshape(8, 2, 8, 2, 8, 2).mean(axis=(1, 3, 5)) ** 2).sum()
    assert details == pytest.approx((x**2).sum() - smooth, rel=1e-4)
    rng, inside = np.random.default_rng(0), np.ones((40, 40, 40), bool)
    white, heavy = rng.standard_normal((1, 40, 40, 40)), rng.standard_t(3, (1, 40, 40, 40))
    assert texture.haar_statistics(white, inside)[1].mean() == pytest.approx(3, abs=0.3)
    assert texture.haar_statistics(white, inside)[0] == pytest.approx(0, abs=0.1)
    assert texture.haar_distance(heavy, white, inside)[1] > 0.1


def test_patches_of_one_texture_are_nearer_than_those_of_another() -> None:
    x, same, coarser = textured(0, width=0.7), textured(1, width=0.7), textured(2, width=2.5)
    assert texture.sliced_wasserstein(same, x, MASK) < 0.5 * texture.sliced_wasserstein(coarser, x, MASK)
    assert texture.sliced_wasserstein(x, same, MASK) == pytest.approx(texture.sliced_wasserstein(same, x, MASK))
    assert texture.sliced_wasserstein(same, x, MASK, seed=1) == texture.sliced_wasserstein(same, x, MASK, seed=1)
    assert texture.sliced_wasserstein(same, x, MASK, seed=1) != texture.sliced_wasserstein(same, x, MASK, seed=2)


def test_what_lies_outside_the_region_does_not_count() -> None:
    x, y = textured(0), textured(1)
    inside = np.where(ndimage.binary_dilation(MASK, iterations=9), y, x + 50).astype(np.float32)
    for distance in (texture.spectrum_distance, texture.sliced_wasserstein, lambda *a: texture.haar_distance(*a)[0]):
        assert distance(inside, x, MASK) == pytest.approx(distance(y, x, MASK))
    thin = np.zeros(SHAPE, bool)
    thin[20, 20:40, 20:40] = True
    assert np.isfinite(texture.sliced_wasserstein(x, y, thin))
    with pytest.raises(InputError, match="whole blocks"):
        texture.haar_distance(x, y, thin)
    for figure_of in (similarity.mae, texture.spectrum_distance, texture.sliced_wasserstein):
        with pytest.raises(InputError):
            figure_of(x, y, np.zeros(SHAPE, bool))


def test_dose_response_counts_violations_and_finds_the_slope() -> None:
    field = [10.0, 8, 6, 4, 2]
    halved = response.dose_response([0, 10, 20, 30, 40], [0.5 * n + 3 for n in field], field)
    assert (halved.spearman, halved.violations) == (pytest.approx(-1), 0)
    assert halved.slope == pytest.approx(0.5)
    assert response.dose_response([0, 1, 2], [3, 4, 1], [3, 2, 1]).violations == 0.5
    assert np.isnan(response.dose_response([0, 1, 2], [3, 3, 3], [3, 2, 1]).spearman)
    with pytest.raises(InputError, match="rising"):
        response.dose_response([0, 0, 1], [1, 1, 1], [3, 2, 1])
    with pytest.raises(InputError, match="depends on the dose"):
        response.dose_response([0, 1, 2], [1, 1, 1], [2, 2, 2])


def test_density_and_volume_are_judged_in_the_region_alone() -> None:
    n = textured(0)[0]
    noisy = np.where(MASK, n, 99).astype(np.float32)
    assert response.density_agreement(noisy, n, MASK)[0] == pytest.approx(1)
    assert response.density_agreement(-n, n, MASK)[0] == pytest.approx(-1)
    assert np.isnan(response.density_agreement(np.ones_like(n), n, MASK)[0])
    assert response.volume_error(ball(10), ball(10)) == 0
    assert response.volume_error(ball(10), ball(12)) < 0 < response.volume_error(ball(12), ball(10))
    assert np.isnan(response.volume_error(ball(3), np.zeros(SHAPE, bool)))


def test_a_memorised_crop_is_found_and_an_own_one_is_not() -> None:
    train = [textured(seed, width=3) for seed in (10, 11)]
    real = textured(12, width=3)
    bank = np.concatenate([memorisation.training_bank(x, MASK) for x in train])
    centres = memorisation.places(MASK, 12)
    own = memorisation.memorisation(textured(13, width=3), real, centres, bank)
    assert own.ratio == pytest.approx(1, abs=0.15)
    shifted = np.roll(train[1], 2, axis=1)[:, ::-1]  # mirrored and off the lattice of the training crops
    copied = memorisation.memorisation(shifted.astype(np.float32), real, centres, bank)
    assert copied.ratio < 0.5
    brighter = memorisation.memorisation((3 * train[0] + 1).astype(np.float32), real, centres, bank)
    assert brighter.ratio < 0.5
    with pytest.raises(InputError, match="training crop"):
        memorisation.nearest(bank[:2], bank[:0], 2)


@pytest.mark.law("images", "Bootstrap intervals cover")
def test_bootstrap_covers() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for trial in range(400):
        values = {str(i): [v] for i, v in enumerate(rng.gamma(4, 1, 25))}
        found = interval(values, resamples=500, seed=trial)
        inside.append(found.low <= 4 <= found.high)
    assert 0.88 <= np.mean(inside) <= 0.98


def test_bootstrap_draws_patients_and_not_their_scans() -> None:
    rng = np.random.default_rng(0)
    patients = {str(i): list(m + 0.01 * rng.standard_normal(50)) for i, m in enumerate(rng.standard_normal(6))}
    scans = {f"{k}/{j}": [v] for k, found in patients.items() for j, v in enumerate(found)}
    by_patient, by_scan = interval(patients), interval(scans)
    assert by_patient.mean == pytest.approx(by_scan.mean)
    assert by_patient.high - by_patient.low > 4 * (by_scan.high - by_scan.low)
    assert (by_patient.patients, by_patient.cases, by_patient.of_little_worth) == (6, 300, True)
    assert not by_scan.of_little_worth
    one = interval({"a": [2.0, 4.0]})
    assert (one.mean, one.low, one.high) == (3, 3, 3)
    for wrong in ({}, {"a": []}, {"a": [float("nan")]}):
        with pytest.raises(InputError, match="bootstrap"):
            interval(wrong)
