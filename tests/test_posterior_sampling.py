"""Draws by walkers against the closed form, and Sobol indices against those of a polynomial."""

import math
import sys

import numpy as np
import pytest
from figures import Figure

from hybridtumor.calibration.posterior import Laplace
from hybridtumor.calibration.sampling import sample
from hybridtumor.calibration.sensitivity import sobol_indices
from hybridtumor.calibration.unknowns import Priors, Unknown
from hybridtumor.errors import ConvergenceError, InputError, ResourceError


def wide(count: int, reach: float = 12.0) -> Priors:
    return Priors(tuple(Unknown(f"u{i}", "mm", "linear", 0, 1, -reach, reach) for i in range(count)))


A = np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 1.5]])
Y = np.array([1.0, -2.0, 0.5])
EXACT = Laplace.from_information(wide(2), np.linalg.solve(A.T @ A + np.eye(2), A.T @ Y), A.T @ A)


def misfit(x: np.ndarray) -> float:
    return 0.5 * float(((A @ x - Y) ** 2).sum())


def test_walkers_draw_from_the_posterior(figure: Figure) -> None:
    got = sample(misfit, Laplace(wide(2), EXACT.mean + 0.2, EXACT.covariance), seed=0, steps=3000)
    assert got.converged
    assert not got.notes
    assert 0.2 < got.acceptance < 0.9
    assert (got.autocorrelation < 60).all()
    assert got.effective > 400
    assert got.coordinates.shape == (16 * 2250, 2)
    error = np.sqrt(np.diag(EXACT.covariance)) / math.sqrt(got.effective)
    figure("errors of the mean", np.abs(got.coordinates.mean(0) - EXACT.mean) / error, at_most=4)
    np.testing.assert_allclose(np.cov(got.coordinates.T), EXACT.covariance, rtol=0.2)
    interval, exact = got.intervals()["u0"], EXACT.intervals()["u0"]
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high), abs=0.05)
    x = got.coordinates[100]
    assert got.minus_log[100] == pytest.approx(misfit(x) + 0.5 * x @ x)
    assert got.evaluations <= 16 * 3001
    assert got.draws(50, seed=0).shape == (50, 2)


def test_draws_repeat_and_short_chains_say_so() -> None:
    first, again = (sample(misfit, EXACT, seed=5, steps=40) for _ in range(2))
    np.testing.assert_array_equal(first.coordinates, again.coordinates)
    assert not first.converged
    assert "draw longer" in first.notes[0]
    assert not np.array_equal(first.coordinates, sample(misfit, EXACT, seed=6, steps=40).coordinates)


def test_bounds_and_failures_are_never_drawn() -> None:
    tight = Priors(tuple(Unknown(f"u{i}", "", "linear", 0, 1, -0.5, 0.3) for i in range(2)))

    def fails(x: np.ndarray) -> float:
        assert (x >= -0.5).all()
        assert (x <= 0.3).all()
        if x[1] > 0.1:
            raise ConvergenceError("growth: no step")
        return math.nan if x[1] < -0.4 else misfit(x)

    got = sample(fails, Laplace(tight, np.array([0.0, -0.2]), 0.01 * np.eye(2)), seed=0, steps=300)
    assert got.coordinates[:, 1].max() <= 0.1
    assert got.coordinates[:, 1].min() >= -0.4
    assert np.isfinite(got.minus_log).all()

    def never(x: np.ndarray) -> float:
        raise ConvergenceError("growth: no step")

    with pytest.raises(ConvergenceError, match="16 failed"):
        sample(never, EXACT, seed=0, steps=10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(misfit, Laplace(wide(7), np.zeros(7), np.eye(7)), seed=0), "at most 6 unknowns, got 7"),
        (lambda: sample(misfit, EXACT, seed=0, walkers=3), "even number of at least 4 walkers"),
        (lambda: sample(misfit, EXACT, seed=0, steps=10, burn_in=10), "more steps than burn-in"),
        (lambda: sobol_indices(misfit, wide(1), 8, 0), "two or more unknowns"),
        (lambda: sobol_indices(misfit, wide(2), 12, 0), "power of two of points, got 12"),
    ],
)
def test_what_does_not_fit_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_sobol_indices_of_a_polynomial(figure: Figure) -> None:
    """f = 2 x₀ + x₁ + x₀ x₁ of standard normal unknowns, the third plays no part: Var f = 4 + 1 + 1."""
    got = sobol_indices(lambda x: 2 * x[0] + x[1] + x[0] * x[1], wide(3), 1024, seed=0)
    figure("error of S", np.abs(got.first - np.array([4, 1, 0]) / 6).max(), at_most=0.05)
    figure("error of T", np.abs(got.total - np.array([5, 2, 0]) / 6).max(), at_most=0.05)
    assert got.evaluations == 1024 * 5
    assert got.deviation == pytest.approx(math.sqrt(6), rel=0.05)
    told = got.sentences()
    assert told[0].startswith("u0 explains 6")
    assert told[-1].startswith("u2")
    assert "it can be fixed" in told[-1]
    assert "it can be fixed" not in told[0]
    again = sobol_indices(lambda x: 2 * x[0] + x[1] + x[0] * x[1], wide(3), 64, seed=3)
    twice = sobol_indices(lambda x: 2 * x[0] + x[1] + x[0] * x[1], wide(3), 64, seed=3)
    np.testing.assert_array_equal(again.total, twice.total)
    np.testing.assert_array_equal(again.total_error, twice.total_error)


def test_a_hole_in_the_design_is_told() -> None:
    with pytest.raises(ConvergenceError, match="finite outcome at u0"):
        sobol_indices(lambda x: math.inf, wide(2), 8, 0)
    with pytest.raises(ConvergenceError, match="same everywhere"):
        sobol_indices(lambda x: 1.0, wide(2), 8, 0)

    def fails(x: np.ndarray) -> float:
        raise ConvergenceError("growth: no step")

    with pytest.raises(ConvergenceError, match="growth: no step"):
        sobol_indices(fails, wide(2), 8, 0)


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "emcee", None)
    monkeypatch.setitem(sys.modules, "SALib.sample.sobol", None)
    with pytest.raises(ResourceError, match=r"hybridtumor\[bayes\]"):
        sample(misfit, EXACT, seed=0)
    with pytest.raises(ResourceError, match=r"hybridtumor\[bayes\]"):
        sobol_indices(misfit, wide(2), 8, 0)
