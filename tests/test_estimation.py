"""Estimators where the minimum is known: a Gaussian, a banana, two valleys, bounds, and objectives that fail."""

import math

import numpy as np
import pytest
from figures import Figure

from hybridtumor.calibration.estimation import Objective, gauss_newton, maximum_a_posteriori, multistart
from hybridtumor.calibration.unknowns import Priors, Unknown
from hybridtumor.errors import ConvergenceError, InputError


def unknowns(count: int, reach: float = 6.0) -> Priors:
    return Priors(tuple(Unknown(f"u{i}", "mm", "linear", 0, 1, -reach, reach) for i in range(count)))


class Linear:
    """y = A x + error of standard deviation σ: posterior mean and covariance in closed form."""

    def __init__(self, seed: int, p: int = 4, k: int = 30, σ: float = 0.3) -> None:
        rng = np.random.default_rng(seed)
        self.truth = 0.7 * rng.standard_normal(p)
        self.A = rng.standard_normal((k, p)) / σ
        self.y = self.A @ self.truth + rng.standard_normal(k)
        self.calls = 0

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.calls += 1
        r = self.A @ x - self.y
        return 0.5 * float(r @ r), self.A.T @ r

    def information(self, x: np.ndarray) -> np.ndarray:
        return self.A.T @ self.A

    @property
    def mean(self) -> np.ndarray:
        return np.linalg.solve(self.A.T @ self.A + np.eye(self.A.shape[1]), self.A.T @ self.y)


def banana(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Residuals 10 (x₁ − x₀²) and 1.5 − x₀: a narrow, bent valley."""
    r, J = banana_residuals(x)
    return 0.5 * float(r @ r), J.T @ r


def banana_residuals(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.array([10 * (x[1] - x[0] ** 2), 1.5 - x[0]]), np.array([[-20 * x[0], 10.0], [-1.0, 0.0]])


def banana_information(x: np.ndarray) -> np.ndarray:
    _, J = banana_residuals(x)
    return J.T @ J


def test_the_gaussian_posterior_mean_is_found_exactly(figure: Figure) -> None:
    problem, priors = Linear(0), unknowns(4)
    quick = gauss_newton(problem.objective, problem.information, priors)
    used = problem.calls
    slow = maximum_a_posteriori(problem.objective, priors, tolerance=1e-10)
    assert quick.converged
    assert slow.converged
    figure("error of Gauss–Newton", np.abs(quick.coordinates - problem.mean).max(), at_most=1e-2)
    figure("error of L-BFGS-B", np.abs(slow.coordinates - problem.mean).max(), at_most=1e-4)
    assert used == quick.evaluations <= 4
    assert problem.calls - used == slow.evaluations
    assert quick.value == pytest.approx(quick.misfit + 0.5 * quick.coordinates @ quick.coordinates)
    assert quick.values == priors.values(quick.coordinates)
    assert slow.informations == 0


def test_a_bent_valley_is_followed_to_its_end() -> None:
    priors = unknowns(2)
    quick = gauss_newton(banana, banana_information, priors, [-2.0, 3.0])
    slow = maximum_a_posteriori(banana, priors, [-2.0, 3.0])
    assert quick.converged
    assert slow.converged
    assert quick.value == pytest.approx(slow.value, abs=2e-3)
    np.testing.assert_allclose(quick.coordinates, slow.coordinates, atol=0.05)
    assert quick.evaluations < slow.evaluations
    flat = maximum_a_posteriori(banana, priors, [-2.0, 3.0], tolerance=1e-14).gradient
    assert np.abs(flat).max() < 1e-4


def test_information_that_predicts_is_not_asked_for_again() -> None:
    """A mildly bent problem: fewer informations than evaluations, and one at the end."""

    def bent(x: np.ndarray) -> tuple[float, np.ndarray]:
        r = 8 * (x + 0.05 * x**2 - 1)
        return 0.5 * float(r @ r), 8 * (1 + 0.1 * x) * r

    found = gauss_newton(bent, lambda x: np.diag((8 * (1 + 0.1 * x)) ** 2), unknowns(3), tolerance=1e-8)
    assert found.converged
    assert found.informations < found.evaluations
    assert np.abs(found.gradient).max() < 1e-2


@pytest.mark.parametrize("newton", [True, False])
def test_bounds_are_kept(newton: bool) -> None:
    problem = Linear(1)
    tight = Priors(tuple(Unknown(f"u{i}", "", "linear", 0, 1, -0.4, 0.4) for i in range(4)))
    seen = []

    def watched(x: np.ndarray) -> tuple[float, np.ndarray]:
        seen.append(x.copy())
        return problem.objective(x)

    found = (
        gauss_newton(watched, problem.information, tight, tolerance=1e-9)
        if newton
        else maximum_a_posteriori(watched, tight, tolerance=1e-9)
    )
    assert found.converged
    assert (np.array(seen) >= -0.4).all()
    assert (np.array(seen) <= 0.4).all()
    at = np.isin(tight.names, found.at_bound)
    assert at.any()
    assert np.abs(found.gradient[~at]).max() < 1e-3
    pressing = np.where(found.coordinates > 0, -found.gradient, found.gradient)
    assert (pressing[at] > 0).all()  # downhill is outside


def two_valleys(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Minima near ±1.5 of each coordinate, that near (+, +) the deepest."""
    value = 4 * ((x**2 / 2.25 - 1) ** 2).sum() - 1.5 * x.sum()
    return float(value), 4 * 2 * (x**2 / 2.25 - 1) * 2 * x / 2.25 - 1.5


def test_many_starts_find_the_deepest_valley() -> None:
    found = multistart(two_valleys, unknowns(2), 8, seed=3, screened=16)
    assert (found.best.coordinates > 1).all()
    values = [end.value for end in found.ends]
    assert values == sorted(values)
    assert len(found.ends) == 8
    assert len(found.screened) == 16
    assert found.evaluations == 16 + sum(end.evaluations for end in found.ends)
    assert 0 < found.share_at_best() <= 1
    again = multistart(two_valleys, unknowns(2), 8, seed=3, screened=16)
    np.testing.assert_array_equal([e.coordinates for e in found.ends], [e.coordinates for e in again.ends])


def test_starts_of_the_banana_agree() -> None:
    found = multistart(banana, unknowns(2), 5, seed=0, information=banana_information)
    assert all(end.converged for end in found.ends)
    assert found.share_at_best(1e-2) == 1
    cheap = multistart(banana, unknowns(2), 2, seed=0, screened=16, screen=lambda x: banana(x)[0])
    assert cheap.best.value == pytest.approx(found.best.value, abs=2e-3)


def cliff(inner: Objective, beyond: float, how: str) -> Objective:
    """An objective that cannot be evaluated where x₀ exceeds a value."""

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        if x[0] > beyond:
            if how == "raises":
                raise ConvergenceError("growth: no step")
            return (math.nan, x) if how == "nan" else (0.0, x * math.inf)
        return inner(x)

    return objective


@pytest.mark.parametrize("how", ["raises", "nan", "gradient"])
@pytest.mark.parametrize("newton", [True, False])
def test_steps_over_a_cliff_are_taken_back(newton: bool, how: str) -> None:
    """The minimum lies before the cliff, a full first step beyond it."""
    objective = cliff(lambda x: (50 * (math.exp(2 * (x[0] - 1)) - 1) ** 2, grad(x)), 1.3, how)

    def grad(x: np.ndarray) -> np.ndarray:
        e = math.exp(2 * (x[0] - 1))
        return np.array([100 * (e - 1) * 2 * e])

    def information(x: np.ndarray) -> np.ndarray:
        return np.array([[100 * (2 * math.exp(2 * (x[0] - 1))) ** 2]])

    found = (
        gauss_newton(objective, information, unknowns(1), [-0.5])
        if newton
        else maximum_a_posteriori(objective, unknowns(1), [-0.5])
    )
    assert found.converged
    assert found.coordinates[0] == pytest.approx(0.99, abs=0.03)
    assert math.isfinite(found.value)
    if newton:
        assert "could not be evaluated" in found.reason


def test_a_start_that_fails_stops_the_descent() -> None:
    for how in ("raises", "nan"):
        broken = cliff(banana, -9, how)
        with pytest.raises(ConvergenceError, match="finite objective at the start"):
            maximum_a_posteriori(broken, unknowns(2))
        with pytest.raises(ConvergenceError, match="u0 0"):
            gauss_newton(broken, banana_information, unknowns(2))
        with pytest.raises(ConvergenceError, match="3 of 3 failed"):
            multistart(broken, unknowns(2), 3, seed=0)


def test_an_end_that_failed_is_marked_and_last() -> None:
    found = multistart(cliff(two_valleys, 0.5, "raises"), unknowns(2), 16, seed=1, screened=16)
    bad = [end for end in found.ends if not math.isfinite(end.value)]
    assert bad
    assert not any(end.converged for end in bad)
    assert all("no step" in end.reason for end in bad)
    assert [end.converged for end in found.ends] == sorted((end.converged for end in found.ends), reverse=True)
    assert np.isinf(found.screened).sum() == len(bad)


def test_too_few_evaluations_are_told() -> None:
    for found in (
        maximum_a_posteriori(banana, unknowns(2), [-2.0, 3.0], most_evaluations=5),
        gauss_newton(banana, banana_information, unknowns(2), [-2.0, 3.0], most_evaluations=2),
    ):
        assert not found.converged
        assert "not enough" in found.reason
        assert found.value < banana(np.array([-2.0, 3.0]))[0] + 6.5


def test_a_gradient_that_points_uphill_is_no_answer() -> None:
    def wrong(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = banana(x)
        return value, -slope

    for found in (
        maximum_a_posteriori(wrong, unknowns(2), [-2.0, 3.0]),
        gauss_newton(wrong, banana_information, unknowns(2), [-2.0, 3.0]),
    ):
        assert not found.converged
        assert "lowered" in found.reason


def test_an_information_that_is_not_finite_is_told() -> None:
    with pytest.raises(ConvergenceError, match="finite information"):
        gauss_newton(banana, lambda x: np.full((2, 2), np.nan), unknowns(2))

    def later(x: np.ndarray) -> np.ndarray:
        return banana_information(x) if x[0] == -2 else np.full((2, 2), np.nan)

    found = gauss_newton(banana, later, unknowns(2), [-2.0, 3.0])
    assert not found.converged
    assert "finite information" in found.reason


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maximum_a_posteriori(lambda x: (0.0, np.zeros(3)), unknowns(2)), "expected a gradient"),
        (lambda: gauss_newton(banana, lambda x: np.eye(3), unknowns(2)), "information: expected"),
        (lambda: multistart(banana, unknowns(2), 4, seed=0, screened=3), "as many points, got 4 and 3"),
        (lambda: maximum_a_posteriori(banana, unknowns(2), [0.0]), "expected 2 finite coordinates"),
    ],
)
def test_what_does_not_fit_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
