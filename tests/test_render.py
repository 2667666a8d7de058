"""The physics render: day 0 is the baseline, no change no support, staying tumour keeps its texture."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hybridtumor.grid import Grid
from hybridtumor.models.contrast import POPULATION, measure_contrast
from hybridtumor.models.healthy_fill import FEATHER, MARGIN, healthy_fill
from hybridtumor.models.intensity import IntensityScale
from hybridtumor.models.render import FADE, Rendering, blurred, render
from hybridtumor.models.resolution import Box, block_mean, interpolate
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.tissue import TissueMap

SHAPE = (32, 30, 28)
SIZE = np.ones(3)
THRESHOLDS = ImagingThresholds()
HEAD = np.ones(SHAPE, bool)
HEAD[:2] = False


def ball(peak: float, radius: float, centre: tuple[int, int, int] = (16, 15, 14)) -> NDArray[np.float32]:
    axes = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    distance = np.sqrt(sum((a - c) ** 2.0 for a, c in zip(axes, centre, strict=True)))
    return (peak / (1 + np.exp((distance - radius) / 1.0))).astype(np.float32) * (distance < 2 * radius)


def scene(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        "baseline": rng.normal(size=(4, *SHAPE)).astype(np.float32),
        "healthy": rng.normal(size=(4, *SHAPE)).astype(np.float32),
        "labels": (rng.random((3, *SHAPE)) > 0.9).astype(np.float32),
    }


def draw(before: NDArray[np.float32], now: NDArray[np.float32], seed: int = 0) -> Rendering:
    s = scene(seed)
    return render(s["baseline"], s["healthy"], s["labels"], before, now, POPULATION, HEAD, SIZE, THRESHOLDS)


def test_day_zero_is_the_baseline_bit_for_bit() -> None:
    tumour = ball(0.95, 6)
    drawn = draw(tumour, tumour.copy())
    assert np.array_equal(drawn.images, scene()["baseline"])
    assert np.array_equal(drawn.labels, scene()["labels"])
    assert not drawn.support.any()


def test_outside_the_support_is_the_baseline_bit_for_bit() -> None:
    drawn = draw(ball(0.7, 4), ball(0.95, 7))
    outside = drawn.support == 0
    assert outside.any()
    assert np.array_equal(drawn.images[:, outside], scene()["baseline"][:, outside])
    assert (drawn.images[:, drawn.support == 1] != scene()["baseline"][:, drawn.support == 1]).any()


def test_support_is_local_and_within_the_head() -> None:
    now = ball(0.95, 7, (6, 15, 14))
    drawn = draw(np.zeros(SHAPE, np.float32), now)
    far = np.ones(SHAPE, bool)
    changed = np.argwhere(now > 0.05)
    low, high = changed.min(axis=0) - int(FADE), changed.max(axis=0) + int(FADE) + 1
    far[tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))] = False
    assert not drawn.support[far].any()
    assert not drawn.support[~HEAD].any()
    assert drawn.support.max() == 1
    assert drawn.support.min() == 0


def test_new_tumour_is_painted_on_the_healthy_fill() -> None:
    drawn, s = draw(np.zeros(SHAPE, np.float32), np.full(SHAPE, 0.4, np.float32)), scene()  # oedema everywhere
    expected = s["healthy"] + POPULATION[1][:, None, None, None]
    assert np.allclose(drawn.images[:, HEAD], expected[:, HEAD], atol=0.02)
    assert drawn.kept[HEAD].max() < 0.01
    assert (drawn.labels[1][HEAD] > 0.98).all()


def test_tumour_that_stays_keeps_its_texture() -> None:
    before, now = np.full(SHAPE, 0.40, np.float32), np.full(SHAPE, 0.42, np.float32)  # oedema stays oedema
    now[16] = 0.1  # so that there is something to write nearby
    drawn, s = draw(before, now), scene()
    stays = np.zeros(SHAPE, bool)
    stays[19] = True  # beyond the resolution of a scan, within the fading support
    assert (drawn.support[stays] > 0).all()
    assert np.allclose(drawn.images[:, stays], s["baseline"][:, stays], atol=0.05)


def test_tissue_that_changes_its_label_is_painted_anew() -> None:
    before, now = np.full(SHAPE, 0.40, np.float32), np.full(SHAPE, 0.75, np.float32)  # oedema becomes enhancing
    drawn, s = draw(before, now), scene()
    expected = blurred(s["healthy"], HEAD, SIZE) + POPULATION[2][:, None, None, None]
    assert np.allclose(drawn.images[:, HEAD], expected[:, HEAD], atol=0.05)
    assert (drawn.labels[2][HEAD] > 0.95).all()
    assert drawn.labels[:2, HEAD].max() < 0.05


def test_killed_tumour_returns_to_the_healthy_fill() -> None:
    before, now = np.full(SHAPE, 0.75, np.float32), np.zeros(SHAPE, np.float32)
    drawn, s = draw(before, now), scene()
    difference = (drawn.images - s["healthy"])[:, HEAD]
    assert np.allclose(difference[:2], 0, atol=1e-5)
    assert np.allclose(difference[2:], 0.25 * POPULATION[1][2:, None], atol=1e-3)  # gliosis
    assert drawn.labels[:, HEAD].max() < 1e-5


def test_contrast_rises_with_density() -> None:
    flair = [
        draw(np.zeros(SHAPE, np.float32), np.full(SHAPE, n, np.float32)).images[3, 16, 15, 14]
        for n in (0.0, 0.1, 0.15, 0.2, 0.25, 0.4)
    ]
    assert flair == sorted(flair)


def test_intensity_scale_is_invertible() -> None:
    scans = np.random.default_rng(0).gamma(2.0, 100.0, (2, *SHAPE)).astype(np.float32)
    scale = IntensityScale.of(scans, HEAD)
    assert np.allclose(scale.restore(scale.normalise(scans)), scans, rtol=1e-5, atol=1e-3)
    assert np.allclose(np.median(scale.normalise(scans)[:, HEAD], axis=1), 0, atol=1e-6)
    widened = IntensityScale.of(3 * scans + 50, HEAD)
    assert np.allclose(widened.normalise(3 * scans + 50), scale.normalise(scans), atol=1e-4)


def brain(shape: tuple[int, int, int] = (40, 40, 40)) -> tuple[TissueMap, NDArray[np.float32]]:
    """White matter with a slab of grey and a ventricle on the right only."""
    white = np.ones(shape, np.float32)
    grey, csf = np.zeros_like(white), np.zeros_like(white)
    grey[:, 30:] = 1
    csf[28:34, 10:25, 10:30] = 1
    white[(grey + csf) > 0] = 0
    tissue = TissueMap(white, grey, csf, Grid(shape, np.eye(4)))
    rng = np.random.default_rng(0)
    scan = white + 0.5 * grey + 0.1 * csf + 0.02 * rng.normal(size=shape)
    return tissue, np.stack([scan, 2 * scan]).astype(np.float32)


def test_fill_restores_tissue_and_pastes_no_ventricle() -> None:
    tissue, scans = brain()
    tumour = np.zeros(tissue.grid.shape, bool)
    tumour[6:14, 14:22, 14:26] = True  # its mirror image holds the ventricle
    hidden = np.where(tumour, 5.0, scans).astype(np.float32)
    fill = healthy_fill(hidden, tumour, tissue)
    for filled in (fill.mean, fill.textured):
        assert np.abs(filled - scans)[:, tumour].max() < 0.3
        assert abs(float((filled - scans)[0, tumour].mean())) < 0.02
    assert fill.texture[0, tumour].std() > 0.01
    assert fill.mean[0, tumour].std() < 0.005  # one tissue, one brightness
    error = [np.square(filled - scans)[0, tumour].mean() for filled in (fill.mean, fill.textured)]
    assert error[0] < 0.7 * error[1]  # borrowed texture is a picture, not a forecast


def test_fill_is_the_scan_elsewhere() -> None:
    tissue, scans = brain()
    tumour = np.zeros(tissue.grid.shape, bool)
    tumour[6:14, 14:22, 14:26] = True
    filled = healthy_fill(scans, tumour, tissue).textured
    reach = int(MARGIN + FEATHER)
    away = np.ones(tumour.shape, bool)
    away[: 14 + reach, 14 - reach : 22 + reach, 14 - reach : 26 + reach] = False
    assert np.allclose(filled[:, away], scans[:, away], atol=1e-6)
    assert np.allclose(healthy_fill(scans, np.zeros_like(tumour), tissue).textured, scans, atol=1e-6)


def test_contrast_is_the_patients_own_where_it_shows_and_the_populations_elsewhere() -> None:
    healthy = np.zeros((4, *SHAPE), np.float32)
    labels = np.zeros((3, *SHAPE), np.float32)
    labels[1, 5:25, 5:25, 5:25] = 1
    scans = healthy + 0.9 * labels[1]
    contrast = measure_contrast(scans, healthy, labels, 1.0)
    assert np.array_equal(contrast[[0, 2]], POPULATION[[0, 2]])
    assert np.allclose(contrast[1], (8000 * 0.9 + 500 * POPULATION[1]) / 8500, rtol=1e-4)


def test_block_mean_and_interpolation_keep_a_linear_image() -> None:
    x, y, z = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in (8, 6, 10)], indexing="ij")
    image = x + 2 * y - z
    back = interpolate(block_mean(image, 2), 2, image.shape)
    assert np.allclose(back[1:-1, 1:-1, 1:-1], image[1:-1, 1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize("start", [(-3, 2, 25), (4, 5, 6)])
def test_box_takes_and_puts(start: tuple[int, int, int]) -> None:
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    box = Box(start, (8, 8, 8))
    copy = np.zeros_like(values)
    box.put(box.take(values), copy)
    assert np.array_equal(copy[copy > 0], values[copy > 0])
    assert box.take(values).shape == (8, 8, 8)
    mask = np.zeros(SHAPE, bool)
    mask[3:9, 4:6, 20:28] = True
    assert Box.around(mask, 8).take(mask).sum() == mask.sum()
