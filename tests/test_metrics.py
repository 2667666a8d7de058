"""Figures against closed forms and textbook values."""

import numpy as np
import pytest
from figures import Figure

from hybridtumor.dosimetry import bed, dvh, eqd2, max_dose, mean_dose
from hybridtumor.errors import InputError
from hybridtumor.metrics import dice, hd95, psnr, ssim


@pytest.mark.law("runs", "BED and EQD2 of eight textbook schedules")
@pytest.mark.parametrize(
    ("total", "fractions", "alpha_beta", "effective", "in_two_gray"),
    [
        (60.0, 30, 10.0, 72.0, 60.0),
        (60.0, 30, 3.0, 100.0, 60.0),
        (40.0, 15, 10.0, 50.6667, 42.2222),
        (40.0, 15, 3.0, 75.5556, 45.3333),
        (34.0, 10, 10.0, 45.56, 37.9667),
        (25.0, 5, 10.0, 37.5, 31.25),
        (20.0, 5, 10.0, 28.0, 23.3333),
        (20.0, 1, 10.0, 60.0, 50.0),
    ],
)
def test_textbook_schedules(
    total: float, fractions: int, alpha_beta: float, effective: float, in_two_gray: float, figure: Figure
) -> None:
    figure("error of BED", abs(bed(total, fractions, alpha_beta) / effective - 1), at_most=1e-5)
    figure("error of EQD2", abs(eqd2(total, fractions, alpha_beta) / in_two_gray - 1), at_most=1e-5)


@pytest.mark.law("runs", "The DVH of a linear gradient is a straight line")
def test_dvh_of_a_linear_gradient_is_a_straight_line(figure: Figure) -> None:
    dose = np.broadcast_to(np.linspace(0, 60, 6001)[:, None, None], (6001, 2, 2))
    levels, share = dvh(dose, np.ones(dose.shape, bool), 61)
    figure("error", np.abs(share - (1 - levels / 60)).max(), at_most=2e-4)
    assert share[0] == 1
    inner = np.zeros(dose.shape, bool)
    inner[3000:4001] = True
    levels, share = dvh(dose, inner, np.array([0.0, 30.0, 35.0, 40.0, 41.0]))
    np.testing.assert_allclose(share, [1, 1, 0.5, 0, 0], atol=1e-3)
    assert mean_dose(dose, inner) == pytest.approx(35)
    assert max_dose(dose, inner) == pytest.approx(40)


def ball(radius: float, centre: tuple[float, float, float], size: tuple[float, float, float]) -> np.ndarray:
    shape = [int(60 / h) for h in size]
    world = np.moveaxis(np.indices(shape), 0, -1) * size
    return np.linalg.norm(world - centre, axis=-1) <= radius


@pytest.mark.law("runs", "Dice and Hausdorff distance of two balls 4 mm apart")
def test_dice_and_hausdorff_of_shifted_balls(figure: Figure) -> None:
    """A shift by 4 mm moves the farthest surface point by 4 mm, whatever the voxel size."""
    for size in ((1.0, 1.0, 1.0), (1.0, 1.0, 2.0)):
        a, b = ball(12, (28, 30, 30), size), ball(12, (32, 30, 30), size)
        share = 4 / 24
        figure("error of Dice", abs(dice(a, b) - (1 - 1.5 * share + 0.5 * share**3)), at_most=0.01)
        figure("distance", hd95(a, b, size), "mm", at_least=3.5, at_most=4)
        assert hd95(a, a, size) == 0
        assert dice(a, a) == 1
    apart = hd95(ball(0, (10, 30, 30), (1, 1, 2)), ball(0, (10, 30, 40), (1, 1, 2)), (1.0, 1.0, 2.0))
    assert apart == pytest.approx(10)


def test_dice_and_hausdorff_of_nothing() -> None:
    none, some = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert dice(none, none) == 1
    assert dice(none, some) == 0
    assert hd95(none, none, (1, 1, 1)) == 0
    assert hd95(none, some, (1, 1, 1)) == float("inf")


@pytest.mark.law("runs", "PSNR of a constant error of a tenth is 20 dB")
def test_psnr_of_a_constant_error_in_closed_form(figure: Figure) -> None:
    reference = np.random.default_rng(0).random((8, 8, 8))
    mask = np.zeros(reference.shape, bool)
    mask[2:5] = True
    image = np.where(mask, reference + 0.1, 7.0)
    figure("error", abs(psnr(image, reference, mask, data_range=1.0) - 20), "dB", at_most=1e-5)
    assert psnr(reference, reference, mask) == float("inf")
    with pytest.raises(InputError, match="positive range"):
        psnr(image, np.ones((8, 8, 8)), mask)


def test_ssim_of_a_constant_shift_in_closed_form() -> None:
    """Flat images have no structure: SSIM is the luminance term alone."""
    a, b = np.full((9, 9, 9), 0.5), np.full((9, 9, 9), 0.7)
    c1 = 0.01**2
    expected = (2 * 0.5 * 0.7 + c1) / (0.5**2 + 0.7**2 + c1)
    assert ssim(b, a, data_range=1.0) == pytest.approx(expected)
    textured = np.random.default_rng(0).random((12, 12, 12))
    assert ssim(textured, textured) == pytest.approx(1)


@pytest.mark.law("runs", "SSIM is MONAI's, away from the border")
def test_ssim_agrees_with_monai_away_from_the_border(figure: Figure) -> None:
    torch = pytest.importorskip("torch")
    regression = pytest.importorskip("monai.metrics.regression")
    random = np.random.default_rng(1)
    a = random.random((20, 20, 20))
    b = a + 0.2 * random.standard_normal(a.shape)
    inner = np.zeros(a.shape, bool)
    inner[5:-5, 5:-5, 5:-5] = True
    theirs = regression.SSIMMetric(3, data_range=1.0)(*(torch.from_numpy(x)[None, None] for x in (a, b)))
    figure("difference", abs(ssim(a, b, inner, data_range=1.0) - float(theirs)), at_most=1e-4)
    away, mask = b.copy(), inner & np.roll(inner, 1, axis=0)
    away[0] += 100
    assert ssim(a, away, mask, data_range=1.0) == pytest.approx(ssim(a, b, mask, data_range=1.0), rel=1e-9)
