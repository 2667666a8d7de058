"""The normal posterior against closed forms, coverage of its intervals, and what is said of identifiability."""

import math

import numpy as np
import pytest
from figures import Figure
from scipy import stats

from hybridtumor.calibration.estimation import gauss_newton
from hybridtumor.calibration.identifiability import front, identifiability, inseparable
from hybridtumor.calibration.posterior import Interval, Laplace
from hybridtumor.calibration.unknowns import Priors, Unknown
from hybridtumor.errors import ConvergenceError, InputError

GROWTH = Priors.of("diffusion_white", "proliferation", "alpha", "temozolomide")


def wide(count: int, reach: float = 30.0) -> Priors:
    return Priors(tuple(Unknown(f"u{i}", "mm", "linear", 0, 1, -reach, reach) for i in range(count)))


def linear(rng: np.random.Generator, p: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix and data of a truth that the prior draws, with unit error."""
    A = rng.standard_normal((k, p)) * np.geomspace(3.0, 0.3, p)
    truth = rng.standard_normal(p)
    return A, truth


def fitted(A: np.ndarray, y: np.ndarray, priors: Priors) -> Laplace:
    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        r = A @ x - y
        return 0.5 * float(r @ r), A.T @ r

    found = gauss_newton(objective, lambda x: A.T @ A, priors, tolerance=1e-10)
    assert found.converged
    return Laplace.from_information(priors, found.coordinates, A.T @ A)


def test_the_posterior_of_a_linear_model_is_exact(figure: Figure) -> None:
    rng = np.random.default_rng(0)
    A, truth = linear(rng, 4, 20)
    y = A @ truth + rng.standard_normal(20)
    got = fitted(A, y, wide(4))
    C = np.linalg.inv(A.T @ A + np.eye(4))
    mean = C @ A.T @ y
    figure("error of the mean", np.abs(got.mean - mean).max(), at_most=1e-4)
    figure("error of the covariance", np.abs(got.covariance / C - 1).max(), at_most=1e-9)
    interval = got.intervals(0.9)["u2"]
    sd = math.sqrt(C[2, 2])
    assert (interval.low, interval.median, interval.high) == pytest.approx(
        tuple(mean[2] + sd * stats.norm.ppf([0.05, 0.5, 0.95])), abs=1e-4
    )
    assert got.informed["u3"] == pytest.approx(1 - C[3, 3])
    draws = got.draws(20000, seed=1)
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * np.sqrt(np.diag(C)).max() / math.sqrt(20000))
    np.testing.assert_allclose(np.corrcoef(draws.T), got.correlation, atol=0.03)


def test_intervals_cover_the_truth(figure: Figure) -> None:
    """200 repeats, four unknowns of very different certainty, the truth drawn from the prior each time."""
    rng, priors, held = np.random.default_rng(7), wide(4), []
    for _ in range(200):
        A, truth = linear(rng, 4, 6)
        posterior = fitted(A, A @ truth + rng.standard_normal(6), priors)
        held.append([i.low <= t <= i.high for i, t in zip(posterior.intervals(0.9).values(), truth, strict=True)])
    figure("coverage of all unknowns", np.mean(held), at_least=0.85, at_most=0.95)
    figure("coverage of each unknown", np.mean(held, axis=0), at_least=0.84, at_most=0.96)


def test_bounds_cut_posterior_and_draws() -> None:
    """Next to a bound: quantiles of the truncated normal, and draws that follow them."""
    priors = Priors((Unknown("a", "", "linear", 0, 1, -1, 0.5), Unknown("b", "1/Gy", "log", 0.1, 0.5, 0.05, 0.4)))
    posterior = Laplace(priors, np.array([0.45, 0.0]), np.array([[0.25, 0.1], [0.1, 0.2]]))
    x = posterior.draws(40000, seed=0)
    assert (x >= priors.bounds[:, 0]).all()
    assert (x <= priors.bounds[:, 1]).all()
    alone = Laplace(priors, np.array([0.45, 0.0]), np.diag([0.25, 0.2]))
    want = stats.truncnorm(-1.45 / 0.5, 0.05 / 0.5, 0.45, 0.5)
    got = alone.intervals(0.8)["a"]
    assert (got.low, got.median, got.high) == pytest.approx(tuple(want.ppf([0.1, 0.5, 0.9])), abs=1e-9)
    drawn = np.quantile(priors.physical(alone.draws(40000, seed=0)), [0.1, 0.5, 0.9], axis=0)
    np.testing.assert_allclose(drawn, alone.quantiles([0.1, 0.5, 0.9]), atol=0.02)
    assert alone.intervals()["b"].median == pytest.approx(0.1, rel=1e-2)


def test_draws_repeat_and_more_begin_with_the_same() -> None:
    posterior = Laplace(GROWTH, np.zeros(4), 0.1 * np.eye(4))
    np.testing.assert_array_equal(posterior.draws(700, seed=3)[:20], posterior.draws(20, seed=3))
    assert not np.array_equal(posterior.draws(20, seed=4), posterior.draws(20, seed=3))


def test_a_posterior_outside_its_bounds_is_told() -> None:
    narrow = Priors((Unknown("a", "", "linear", 0, 1, -1e-6, 1e-6), Unknown("b", "", "linear", 0, 1, -1e-6, 1e-6)))
    with pytest.raises(ConvergenceError, match="draws within the bounds, 0 of 5"):
        Laplace(narrow, np.zeros(2), np.eye(2)).draws(5, seed=0)


def test_derived_quantities_are_those_of_the_logarithms() -> None:
    """ln of the speed is normal: its interval in closed form."""
    C = np.array([[0.2, -0.15, 0, 0], [-0.15, 0.2, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 0.5]])
    posterior = Laplace(GROWTH, np.zeros(4), C)
    s = np.array([u.spread for u in GROWTH.unknowns[:2]])
    v = front(posterior)
    speed, width = 2 * math.sqrt(0.13 * 0.025), math.sqrt(0.13 / 0.025)
    for name, centre, signs in (("speed", speed, (0.5, 0.5)), ("width", width, (0.5, -0.5))):
        sd = math.sqrt((s * signs) @ C[:2, :2] @ (s * signs))
        want = [centre * math.exp(z * sd) for z in stats.norm.ppf([0.05, 0.5, 0.95])]
        assert (v[name].low, v[name].median, v[name].high) == pytest.approx(want, rel=0.04)
    assert v["speed"].unit == "mm/day"
    assert front(Laplace(Priors.of("alpha"), np.zeros(1), np.eye(1))) == {}


def test_the_report_says_what_cannot_be_told_apart() -> None:
    """Data that know α + s_chemo only, the speed but not the width, and nothing of the fifth unknown."""
    priors = Priors.of("diffusion_white", "proliferation", "alpha", "temozolomide", "grey_ratio")
    directions = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1.2, 0]], float)
    posterior = Laplace.from_information(priors, np.zeros(5), 2000 * directions.T @ directions)
    text = "\n".join(identifiability(posterior))
    assert "alpha and temozolomide cannot be told apart: correlation -1.00; one can be traded" in text
    assert "diffusion_white and proliferation cannot be told apart" in text
    assert "grey_ratio: 0.1 (" in text
    assert "not informed by the data" in text.split("grey_ratio: 0.1")[1].split("\n")[0]
    assert "for the speed and of" in text
    assert "Least known direction: grey_ratio up" in text
    assert [pair[:2] for pair in inseparable(posterior)][-1:] != [("grey_ratio", "alpha")]
    assert len(inseparable(posterior)) == 2
    assert "90%" in text.split("\n")[0]


def test_the_report_of_a_good_fit_has_nothing_to_complain_of() -> None:
    text = "\n".join(identifiability(Laplace(GROWTH, np.zeros(4), 0.01 * np.eye(4))))
    assert text.count("; informed by the data (99% of the prior variance removed)") == 4
    assert "cannot" not in text
    assert "bound" not in text
    assert "informed weakly" in "\n".join(identifiability(Laplace(GROWTH, np.zeros(4), 0.5 * np.eye(4))))


def test_an_unknown_on_its_bound_is_told() -> None:
    x = np.zeros(4)
    x[2] = GROWTH.bounds[2, 1]
    assert "alpha lies on its bound, 0.3 1/Gy" in "\n".join(identifiability(Laplace(GROWTH, x, 0.1 * np.eye(4))))


def test_a_pair_that_rises_together_is_told() -> None:
    C = np.eye(4)
    C[0, 1] = C[1, 0] = 0.95
    assert "rise and fall together" in "\n".join(identifiability(Laplace(GROWTH, np.zeros(4), 0.1 * C)))


def test_intervals_are_written_for_people() -> None:
    assert str(Interval(0.01234, 0.0567, 0.2, "1/day")) == "0.0567 (0.0123 to 0.2) 1/day"
    assert str(Interval(1, 2, 3, "1")) == "2 (1 to 3)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Laplace(GROWTH, np.zeros(3), np.eye(4)), "expected 4 finite coordinates"),
        (lambda: Laplace(GROWTH, np.zeros(4), np.eye(3)), "symmetric covariance"),
        (lambda: Laplace(GROWTH, np.zeros(4), np.diag([1, 1, 1, 0.0])), "positive covariance"),
        (lambda: Laplace.from_information(GROWTH, np.zeros(4), np.eye(4) * np.nan), "finite information"),
        (lambda: Laplace.from_information(GROWTH, np.zeros(4), -np.eye(4)), "without negative eigenvalues"),
        (lambda: Laplace(GROWTH, np.zeros(4), np.eye(4)).intervals(1.2), "between 0 and 1, got 1.2"),
        (lambda: Laplace(GROWTH, np.zeros(4), np.eye(4)).draws(0, 0), "at least 1 draw"),
    ],
)
def test_what_does_not_fit_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
