"""Priors and coordinates: there and back, slopes, bounds, and defaults that agree with the parameters."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridtumor.calibration.unknowns import UNKNOWNS, Priors, Unknown
from hybridtumor.errors import InputError
from hybridtumor.parameters import GrowthParameters, ImagingThresholds, TreatmentResponse

ALL = Priors.of(*UNKNOWNS)


@given(st.lists(st.floats(0, 1), min_size=len(ALL), max_size=len(ALL)))
def test_values_and_coordinates_are_inverse(u: list[float]) -> None:
    low, high = np.array([(p.low, p.high) for p in ALL.unknowns]).T
    values = dict(zip(ALL.names, low + (high - low) * np.array(u), strict=True))
    values = {n: min(max(v, p.low), p.high) for (n, v), p in zip(values.items(), ALL.unknowns, strict=True)}
    x = ALL.coordinates(values)
    assert ALL.values(x) == pytest.approx(values, rel=1e-12)
    np.testing.assert_allclose(ALL.physical(np.stack([x, x])), [list(values.values())] * 2, rtol=1e-12)
    for i, h in enumerate(1e-6 * np.eye(len(ALL))):
        name = ALL.names[i]
        difference = (ALL.values(x + h)[name] - ALL.values(x - h)[name]) / 2e-6
        assert ALL.slopes(x)[i] == pytest.approx(difference, rel=1e-6)


def test_coordinates_are_standard_deviations_of_the_prior() -> None:
    d, τ = UNKNOWNS["diffusion_white"], UNKNOWNS["threshold_enhancing"]
    assert d.coordinate(d.median) == 0
    assert d.value(1.0) == pytest.approx(d.median * math.exp(d.spread))
    assert τ.value(-1.0) == pytest.approx(τ.median - τ.spread)
    value, gradient = ALL.minus_log(np.full(len(ALL), 2.0))
    assert value == pytest.approx(2.0 * len(ALL))
    np.testing.assert_array_equal(gradient, 2.0)


def test_uniform_numbers_become_the_prior() -> None:
    wide = Priors((Unknown("a", "", "linear", 0, 1, -9, 9), Unknown("b", "", "linear", 0, 1, -1, 0.5)))
    x = wide.from_unit(np.random.default_rng(0).random((20000, 2)))
    assert x[:, 0].mean() == pytest.approx(0, abs=0.03)
    assert x[:, 0].std() == pytest.approx(1, abs=0.03)
    assert (x[:, 1] >= -1).all()
    assert (x[:, 1] <= 0.5).all()
    np.testing.assert_allclose(wide.from_unit([0.5, 0.0]), [0, -1], atol=1e-12)


def test_default_priors_agree_with_the_parameters() -> None:
    growth, response, thresholds = GrowthParameters(), TreatmentResponse(), ImagingThresholds()
    medians = {name: unknown.median for name, unknown in UNKNOWNS.items()}
    assert medians == pytest.approx({
        "diffusion_white": growth.diffusion_white,
        "grey_ratio": growth.diffusion_grey / growth.diffusion_white,
        "proliferation": growth.proliferation,
        "alpha": response.alpha,
        "temozolomide": response.temozolomide,
        "threshold_edema": thresholds.edema,
        "threshold_enhancing": thresholds.enhancing,
    })  # fmt: skip
    assert UNKNOWNS["threshold_edema"].high < UNKNOWNS["threshold_enhancing"].low
    assert UNKNOWNS["threshold_enhancing"].high < thresholds.necrosis
    assert all(unknown.source for unknown in UNKNOWNS.values())
    for unknown in UNKNOWNS.values():
        low, high = unknown.bounds
        assert low < -1 < 1 < high, unknown.name


def test_a_prior_can_be_changed() -> None:
    changed = ALL.changed("alpha", median=0.05)
    assert changed.values(np.zeros(len(ALL)))["alpha"] == 0.05
    assert ALL.values(np.zeros(len(ALL)))["alpha"] == 0.035


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Unknown("a", "", "log", 1, 1, 0, 2), "positive lower bound"),
        (lambda: Unknown("a", "", "linear", 3, 1, 0, 2), "low < median < high"),
        (lambda: Unknown("a", "", "linear", 1, 0, 0, 2), "positive spread"),
        (lambda: Unknown("a", "", "cubic", 1, 1, 0, 2), "scale log or linear"),
        (lambda: Priors(()), "one or more"),
        (lambda: Priors.of("alpha", "alpha"), "different names"),
        (lambda: Priors.of("beta"), "names among diffusion_white"),
        (lambda: ALL.coordinates({"alpha": 1.0}), "alpha: expected 0.003 to 0.3 1/Gy, got 1"),
        (lambda: ALL.coordinates({"beta": 1.0}), "got also beta"),
        (lambda: ALL.minus_log(np.zeros(2)), "expected 7 finite coordinates"),
        (lambda: ALL.values(np.full(9, np.nan)), "expected 7 finite coordinates"),
        (lambda: ALL.changed("beta", median=1.0), "got 'beta'"),
    ],
)
def test_what_does_not_fit_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
