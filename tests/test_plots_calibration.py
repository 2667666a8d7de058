"""Pictures of a calibration: what they show follows the figures, and no odd case stops them."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from hybridtumor.calibration.estimation import Estimate, Multistart
from hybridtumor.calibration.posterior import Laplace
from hybridtumor.calibration.unknowns import Priors, Unknown
from hybridtumor.errors import InputError
from hybridtumor.plots_calibration import corner, profiles, waterfall

PRIORS = Priors.of("diffusion_white", "proliferation", "threshold_enhancing")
POSTERIOR = Laplace.from_information(PRIORS, np.array([0.5, -0.3, 0.2]), np.diag([50.0, 20.0, 1.0]))


def pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    picture = imread(BytesIO(png))
    assert picture[..., :3].std() > 0.02
    return picture


def ends(*values: float, converged: bool = True) -> Multistart:
    found = [
        Estimate(PRIORS, np.zeros(3), v, v, np.zeros(3), 9, 0, converged and np.isfinite(v), "because") for v in values
    ]
    return Multistart(tuple(found), np.array(values), 9 * len(found))


def coloured(picture: np.ndarray, rgb: tuple[float, float, float]) -> int:
    return int((np.abs(picture[..., :3] - np.array(rgb)) < 0.02).all(-1).sum())


BLUE, RED = (0, 0x72 / 255, 0xB2 / 255), (0xD5 / 255, 0x5E / 255, 0)


def test_a_waterfall_marks_what_did_not_converge() -> None:
    good, bad = pixels(waterfall(ends(1.0, 1.1, 5.0))), pixels(waterfall(ends(1.0, 1.1, 5.0, converged=False)))
    assert coloured(good, BLUE) > 100
    assert coloured(good, RED) == 0
    assert coloured(bad, RED) > 20
    assert coloured(bad, BLUE) == 0
    pixels(waterfall(ends(1.0)))
    pixels(waterfall(ends(-300.0, 1e7, np.inf)))
    pixels(waterfall(ends(*np.linspace(0, 3, 60))))


@pytest.mark.filterwarnings("error")
def test_corners_of_one_many_and_chosen_unknowns() -> None:
    whole = pixels(corner(POSTERIOR))
    assert coloured(whole, RED) > 200
    assert pixels(corner(POSTERIOR, names=("proliferation", "diffusion_white"))).shape < whole.shape
    one = Priors((Unknown("_$odd", "", "linear", 0, 1, -1, 1),))
    pixels(corner(Laplace(one, np.array([1.0]), np.array([[0.3]]))))
    pixels(corner(POSTERIOR, draws=np.random.default_rng(0).standard_normal((50, 3)).clip(-2, 2)))
    assert corner(POSTERIOR) == corner(POSTERIOR)
    with pytest.raises(InputError, match="names among diffusion_white"):
        corner(POSTERIOR, names=("beta",))


@pytest.mark.filterwarnings("error")
def test_profiles_of_sharp_and_flat_posteriors() -> None:
    sharp = Laplace(PRIORS, np.array([0.5, -0.3, PRIORS.bounds[2, 1]]), np.diag([1e-6, 1e-3, 0.9]))
    assert coloured(pixels(profiles(sharp)), BLUE) > 100
    assert pixels(profiles(POSTERIOR, columns=1)).shape[0] > pixels(profiles(POSTERIOR)).shape[0]
