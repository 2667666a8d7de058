"""Slopes of the closed-form flows against differences of the flows themselves."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridtumor.models.growth import FLOWS, mean_density, reaction_flow
from hybridtumor.models.growth_slopes import FlowSlopes, flow_slopes, mean_slopes
from hybridtumor.parameters import GrowthLaw

DENSITIES = np.array([1e-6, 1e-3, 0.2, 0.5, 0.9, 0.999])


Flow = Callable[..., np.ndarray]


def central(
    flow: Flow, law: str, u: np.ndarray, p: float, log_kill: float, step: tuple[float, float, float]
) -> np.ndarray:
    """Central difference of fourth order of a flow along a step of (ln u, p, L)."""

    def at(t: float) -> np.ndarray:
        return flow(law, u * np.exp(t * step[0]), p + t * step[1], 1.0, log_kill + t * step[2])

    h = 1e-3
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


@pytest.mark.law("calibration", "Slopes of the flows of growth and kill are those of differences, to 1e-7")
@pytest.mark.parametrize(("flow", "slopes"), [(reaction_flow, flow_slopes), (mean_density, mean_slopes)])
@given(law=st.sampled_from(sorted(FLOWS)), p=st.floats(0.01, 3), log_kill=st.floats(0.01, 6))
def test_slopes_are_those_of_differences(
    flow: Flow, slopes: Callable[..., FlowSlopes], law: GrowthLaw, p: float, log_kill: float
) -> None:
    found, size = slopes(law, DENSITIES, p, 1.0, log_kill), flow(law, DENSITIES, p, 1.0, log_kill)
    expected = [central(flow, law, DENSITIES, p, log_kill, step) / size for step in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    np.testing.assert_allclose(found.density * DENSITIES / size, expected[0], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.growth / size, expected[1], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.log_kill / size, expected[2], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("law", FLOWS)
@pytest.mark.parametrize(
    ("p", "log_kill"), [(0.0, 0.0), (1e-9, 0.0), (0.02, 0.02), (0.009, 0.02), (300.0, 1.0), (0.1, 500.0)]
)
@pytest.mark.parametrize("of", [flow_slopes, mean_slopes])
def test_slopes_are_finite_where_formulas_cancel_or_overflow(
    of: Callable[..., FlowSlopes], law: str, p: float, log_kill: float
) -> None:
    if law == "exponential" and p > 100:
        pytest.skip("it grows beyond any density there")
    slopes = of(law, np.array([0.0, *DENSITIES]), p, 1.0, log_kill)
    assert all(np.isfinite(part).all() for part in (slopes.density, slopes.growth, slopes.log_kill))
    assert (slopes.density >= 0).all()
    assert (slopes.log_kill <= 0).all()
    assert (slopes.growth >= -1e-15).all()


@given(st.floats(1e-4, 0.02))
def test_series_and_formula_meet(z: float) -> None:
    below, above = (flow_slopes("logistic", DENSITIES, 1.0, 1.0, 1.0 - s * z) for s in (1, -1))
    np.testing.assert_allclose(below.log_kill, above.log_kill, rtol=4 * z)
    np.testing.assert_allclose(below.growth, above.growth, rtol=0, atol=4 * z)
