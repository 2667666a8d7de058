"""Twins of a small brain: calibration finds their truth, says what it cannot tell, and their scans err as stated."""

import numpy as np
import pytest
from figures import Figure
from scipy import special
from twin import (
    GROWTH,
    THRESHOLDS,
    Setting,
    cellularities,
    centred_grid,
    concordance,
    concurrent,
    displaced,
    region_of,
    round_brain,
    round_tumour,
    segmentations,
    sequential,
    smooth_field,
)

from hybridtumor.calibration.estimation import gauss_newton
from hybridtumor.calibration.identifiability import identifiability
from hybridtumor.calibration.posterior import Laplace
from hybridtumor.calibration.problem import rows_of
from hybridtumor.calibration.start import DrawnStart
from hybridtumor.calibration.unknowns import Priors
from hybridtumor.models.observation_borders import logit
from hybridtumor.therapy import TherapyPlan

GRID = centred_grid((25, 25, 25), (2, 2, 2))
TISSUE = round_brain(GRID, 22)
DENSITY = round_tumour(TISSUE, (4, 2, 0), 7)
TRUTH = {
    "diffusion_white": 0.17,
    "proliferation": 0.03,
    "alpha": 0.045,
    "temozolomide": 0.4,
    "threshold_edema": 0.2,
    "threshold_enhancing": 0.6,
}


def setting(plan: TherapyPlan) -> Setting:
    return Setting(TISSUE, DENSITY, plan, (20.0, 50.0, 80.0), "5 mm")


def test_adc_without_errors_tells_the_truth(figure: Figure) -> None:
    apart = setting(sequential(GRID, (10, 4, 0)))
    forecast = apart.forecast(TRUTH)
    densities = {day: forecast.visible(day) for day in apart.visits}
    problem = apart.problem(
        cellularities(apart, densities, region_of(apart, densities), None, 0.01), Priors.of(*GROWTH)
    )
    found = gauss_newton(problem.objective, problem.information, problem.priors)
    assert found.converged
    off = {name: abs(value / TRUTH[name] - 1) for name, value in found.values.items()}
    figure("D and ρ off by", max(off["diffusion_white"], off["proliferation"]), at_most=0.02)
    figure("α off by", off["alpha"], at_most=0.05)


def test_radiation_and_drug_on_the_same_days_cannot_be_told_apart(figure: Figure) -> None:
    together = setting(concurrent(GRID))
    forecast = together.forecast(TRUTH)
    densities = {day: forecast.visible(day) for day in together.visits}
    problem = together.problem(
        cellularities(together, densities, region_of(together, densities), 1, 0.1), Priors.of(*GROWTH)
    )
    found = gauss_newton(problem.objective, problem.information, problem.priors, tolerance=1e-2)
    posterior = Laplace.from_information(problem.priors, found.coordinates, problem.information(found.coordinates))
    assert any("alpha and temozolomide cannot be told apart" in sentence for sentence in identifiability(posterior))
    correlation = posterior.correlation[GROWTH.index("alpha"), GROWTH.index("temozolomide")]
    figure("correlation of α and temozolomide", float(correlation), at_most=-0.9)


def test_a_start_that_is_drawn_moves_with_what_is_looked_for(figure: Figure) -> None:
    """Slopes and information against differences: thresholds act by the start as well as where borders are seen."""
    apart = setting(sequential(GRID, (10, 4, 0)))
    forecast = apart.forecast(TRUTH)
    terms = segmentations(apart, {80.0: forecast.visible(80)}, TRUTH, 3)
    labels = apart.drawn({0.0: DENSITY.values}, TRUTH, None, 0, 0)[0.0]
    problem = apart.problem(
        terms, Priors.of(*GROWTH, *THRESHOLDS), DrawnStart(labels, TISSUE.parenchyma, apart.to_nodes)
    )
    x, h = np.array([0.2, 0.1, -0.2, 0.3, 0.1, -0.1]), 1e-4
    got, rows = problem.objective(x)[1], []
    term, way = terms[0], rows_of(apart.gradient, terms[0].voxels)

    def z(x: np.ndarray) -> np.ndarray:
        front, values = term._front(way @ problem.densities(x)[80.0]), problem.values(x)
        return np.stack([(front.s - logit(np.array([values[name]])).value) / front.v for name in THRESHOLDS])

    want = []
    for step in h * np.eye(len(x)):
        want.append((problem.objective(x + step)[0] - problem.objective(x - step)[0]) / (2 * h))
        rows.append((z(x + 20 * step) - z(x - 20 * step)) / (40 * h))
    figure("gradient off by", float(np.abs(got - want).max() / np.abs(want).max()), at_most=1e-4)
    p = special.expit(z(x))
    F = np.einsum("isk,sk,jsk->ij", rows, p * (1 - p) / term.voxels_per_datum, rows)
    scale = np.sqrt(np.outer(np.diag(F), np.diag(F)))
    figure("information off by", float(np.abs((problem.information(x) - F) / scale).max()), at_most=0.1)  # one-sided


def test_borders_wander_as_far_as_stated(figure: Figure) -> None:
    grid = centred_grid((40, 40, 40), (1, 1, 1))
    field = smooth_field(grid, np.random.default_rng(0), 2.0)
    figure("standard deviation of the displacement", float(field.std()), at_least=0.95, at_most=1.05)
    alike = float(np.mean(field[2:] * field[:-2]) / field.var())
    figure("correlation at one length", alike, at_least=np.exp(-0.5) - 0.05, at_most=np.exp(-0.5) + 0.05)
    ball = round_tumour(round_brain(grid, 19), (0, 0, 0), 10).values
    wide = displaced(ball, grid, np.ones(grid.shape)) > 0.5
    assert (3 * wide.sum() / (4 * np.pi)) ** (1 / 3) == pytest.approx(11, abs=0.15)


def test_segmentations_without_errors_are_levels() -> None:
    apart = setting(sequential(GRID, (10, 4, 0)))
    terms = segmentations(apart, {0.0: DENSITY.values}, TRUTH, None)
    n = DENSITY.values.ravel()[terms[0].voxels]
    np.testing.assert_array_equal(terms[0].whole, n > TRUTH[THRESHOLDS[0]])
    np.testing.assert_array_equal(terms[0].core, n > TRUTH[THRESHOLDS[1]])


def test_concordance_is_one_for_the_same_and_less_for_a_shift() -> None:
    a = np.random.default_rng(0).standard_normal(100)
    assert concordance(a, a) == pytest.approx(1)
    assert concordance(a, a + a.std()) == pytest.approx(2 / 3)
    assert concordance(a, -a + 2 * a.mean()) == pytest.approx(-1)
