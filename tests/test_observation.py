"""Data terms: slopes against differences, information against the outer product of scores, and what is refused."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from figures import Figure
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.models.observation import DataTerm, voxels_per_datum
from hybridtumor.models.observation_labels import THRESHOLD_EDEMA, THRESHOLD_ENHANCING, WIDTH, Segmentation
from hybridtumor.models.observation_maps import NOISE_REACH, PET_BACKGROUND, PET_GAIN, Cellularity, Uptake
from hybridtumor.scan import LabelMap, Scan

K = 40
VOXELS = np.arange(K, dtype=np.int64)
OWN = {THRESHOLD_EDEMA: 0.22, THRESHOLD_ENHANCING: 0.58, PET_GAIN: 1.7, PET_BACKGROUND: 0.9}
NAMES = ("diffusion_white", THRESHOLD_EDEMA, "proliferation", THRESHOLD_ENHANCING, PET_GAIN, PET_BACKGROUND)
DENSITY = np.random.default_rng(0).uniform(0, 1, K)


def drawn(rng: np.random.Generator, **changes: object) -> Segmentation:
    """Masks drawn by the model itself; they are nested only by chance, so the core is cut down to the tumour."""
    whole = rng.random(K) < special.expit((DENSITY - OWN[THRESHOLD_EDEMA]) / WIDTH)
    core = rng.random(K) < special.expit((DENSITY - OWN[THRESHOLD_ENHANCING]) / WIDTH)
    return Segmentation(30.0, VOXELS, whole | core, core, **changes)


def cellularity(rng: np.random.Generator, **changes: object) -> Cellularity:
    error = np.linspace(0.05, 0.2, K)
    return Cellularity(30.0, VOXELS, DENSITY + error * rng.standard_normal(K), error, **changes)


def uptake(rng: np.random.Generator, **changes: object) -> Uptake:
    values = OWN[PET_BACKGROUND] + OWN[PET_GAIN] * DENSITY + 0.3 * rng.standard_normal(K)
    return Uptake(30.0, VOXELS, values, 0.3, **changes)


TERMS: tuple[Callable[..., DataTerm], ...] = (drawn, cellularity, uptake)


@pytest.mark.parametrize("make", TERMS)
def test_slopes_are_those_of_the_value(make: Callable[..., DataTerm]) -> None:
    term = make(np.random.default_rng(1), voxels_per_datum=3.0)
    got, h = term.misfit(DENSITY, OWN), 1e-5
    for i in range(0, K, 7):
        step = h * (np.arange(K) == i)
        values = [term.misfit(DENSITY + sign * step, OWN).value for sign in (1, -1)]
        assert got.slope[i] == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-6)
    assert set(got.own) == set(term.own)
    for name in term.own:
        values = [term.misfit(DENSITY, OWN | {name: OWN[name] + sign * h}).value for sign in (1, -1)]
        assert got.own[name] == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("make", TERMS)
def test_information_is_the_outer_product_of_scores(make: Callable[..., DataTerm], figure: Figure) -> None:
    """E[s sᵀ] of the scores s over data that the model draws itself; rows of own parameters hold rubbish."""
    rng = np.random.default_rng(2)
    jacobian = rng.standard_normal((len(NAMES), K))
    draw = independent if make is drawn else make
    terms = [draw(rng) for _ in range(6000)]
    own = terms[0].own
    scores = []
    for term in terms:
        found = term.misfit(DENSITY, OWN)
        growth = found.slope @ jacobian.T
        free = [n for n in NAMES if n in own]
        scores.append([found.own[n] if n in free else 0.0 if n in OWN else growth[i] for i, n in enumerate(NAMES)])
    s = np.array(scores)
    got = terms[0].information(DENSITY, OWN, jacobian, NAMES)
    kept = [i for i, n in enumerate(NAMES) if n in own or n not in OWN]
    got, want = got[np.ix_(kept, kept)], (s.T @ s / len(s))[np.ix_(kept, kept)]
    scale = np.sqrt(np.outer(np.diag(got), np.diag(got)))
    figure("difference of the normalised information", np.abs((got - want) / scale).max(), at_most=0.08)


def independent(rng: np.random.Generator) -> Segmentation:
    """Masks as the model draws them, each without regard to the other."""
    term = drawn(rng)
    object.__setattr__(term, "whole", rng.random(K) < special.expit((DENSITY - OWN[THRESHOLD_EDEMA]) / WIDTH))
    return term


@pytest.mark.parametrize("make", TERMS)
def test_m_voxels_are_one_datum(make: Callable[..., DataTerm]) -> None:
    one, four = (make(np.random.default_rng(3), voxels_per_datum=m) for m in (1.0, 4.0))
    a, b = one.misfit(DENSITY, OWN), four.misfit(DENSITY, OWN)
    assert a.value == pytest.approx(4 * b.value)
    np.testing.assert_allclose(a.slope, 4 * b.slope)
    assert a.own == pytest.approx({name: 4 * value for name, value in b.own.items()})
    jacobian = np.ones((len(NAMES), K))
    information = [term.information(DENSITY, OWN, jacobian, NAMES) for term in (one, four)]
    np.testing.assert_allclose(information[0], 4 * information[1])


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 0.5))
def test_no_density_is_too_extreme(density: float, width: float) -> None:
    n = np.full(K, density)
    term = drawn(np.random.default_rng(4), width=width)
    got = term.misfit(n, OWN)
    assert math.isfinite(got.value)
    assert got.value >= 0
    assert np.isfinite(got.slope).all()
    assert np.isfinite(term.information(n, OWN, np.ones((len(NAMES), K)), NAMES)).all()


def test_the_value_far_off_is_the_distance_in_widths() -> None:
    term = Segmentation(0.0, VOXELS[:1], np.array([True]))
    assert term.misfit(np.array([-50.0]), OWN).value == pytest.approx((50 + OWN[THRESHOLD_EDEMA]) / WIDTH)


def test_the_most_likely_threshold_is_the_one_drawn() -> None:
    """A clean mask of a density that rises evenly: the slope in τ vanishes where the border was drawn."""
    n = (np.arange(1000) + 0.5) / 1000
    term = Segmentation(0.0, np.arange(1000), n > 0.5)
    assert term.misfit(n, {THRESHOLD_EDEMA: 0.5}).own[THRESHOLD_EDEMA] == pytest.approx(0, abs=1e-9)
    assert term.misfit(n, {THRESHOLD_EDEMA: 0.4}).own[THRESHOLD_EDEMA] < 0
    assert term.misfit(n, {THRESHOLD_EDEMA: 0.6}).own[THRESHOLD_EDEMA] > 0


@given(st.floats(0.0, 6.0), st.floats(0.5, 4.0))
def test_a_datum_is_at_least_a_voxel(length: float, size: float) -> None:
    m = voxels_per_datum(length, (size, size, size))
    assert m >= 1
    assert m >= voxels_per_datum(length, (2 * size, size, size))
    if length > 2 * size:  # the lattice sum is the integral
        assert m == pytest.approx((math.sqrt(2 * math.pi) * length / size) ** 3, rel=1e-6)


def test_the_mean_of_correlated_errors_varies_as_said() -> None:
    """A line of 4000 correlated errors: variance of the mean times the number, against m of a line."""
    rng, length = np.random.default_rng(5), 3.0
    kernel = np.exp(-(np.arange(-20, 21) ** 2) / length**2)  # its autocorrelation is exp(−r²/2ℓ²)
    kernel /= np.linalg.norm(kernel)
    means = [np.convolve(rng.standard_normal(4040), kernel, "valid").mean() for _ in range(3000)]
    assert np.var(means) * 4000 == pytest.approx(voxels_per_datum(length, (1.0,)), rel=0.08)


GRID = Grid((24, 20, 16), np.diag([1.0, 1.0, 2.0, 1.0]))


def labels(radius: float = 5.0) -> LabelMap:
    r = np.linalg.norm(GRID.world(np.moveaxis(np.indices(GRID.shape), 0, -1)) - [12, 10, 16], axis=-1)
    values = np.where(r < radius, 2, 0)
    values[r < 0.5 * radius] = 4
    return LabelMap(values.astype(np.uint8), GRID)


def test_a_segmentation_takes_the_brain_around_the_tumour() -> None:
    brain = np.ones(GRID.shape, bool)
    brain[:8] = False
    seen = labels()
    term = Segmentation.from_labels(seen, brain, 30, margin=3.0)
    distance = np.linalg.norm(
        GRID.world(np.stack(np.unravel_index(term.voxels, GRID.shape), -1)) - [12, 10, 16], axis=1
    )
    assert 5 < distance.max() <= 8 + 1
    assert brain.ravel()[term.voxels].all()
    assert term.whole.sum() == (seen.mask() & brain).sum()
    assert term.core is not None
    assert term.core.sum() == (seen.mask("enhancing") & brain).sum()
    assert term.voxels_per_datum == pytest.approx(voxels_per_datum(2.0, (1, 1, 2)))
    assert Segmentation.from_labels(seen, brain, 30, core=False).own == (THRESHOLD_EDEMA,)


def test_a_tumour_that_went_away_is_seen_as_gone() -> None:
    brain, gone = np.ones(GRID.shape, bool), labels(0.0)
    with pytest.raises(InputError, match="around which region"):
        Segmentation.from_labels(gone, brain, 90)
    term = Segmentation.from_labels(gone, brain, 90, around=labels().mask())
    assert not term.whole.any()
    assert (term.misfit(np.full(term.voxels.size, 0.5), OWN).slope > 0).all()


def test_adc_becomes_cellularity() -> None:
    region = np.zeros(GRID.shape, bool)
    region[5:15, 5:15, 5:10] = True
    n = np.random.default_rng(6).uniform(0.05, 0.95, GRID.shape)
    adc = Scan((3e-3 - n * (3e-3 - 0.8e-3)).astype(np.float32), GRID)
    term = Cellularity.from_adc(adc, region, 30, minimum=0.8e-3, error=1.1e-4, correlation_length=0)
    np.testing.assert_allclose(term.values, n[region], atol=1e-5)
    assert term.error == pytest.approx(0.05)
    assert term.misfit(n[region], {}).value == pytest.approx(0, abs=1e-3)
    beyond = Cellularity.from_adc(Scan(adc.values * 0 + 4e-3, GRID), region, 30, minimum=0.8e-3, error=1.1e-4)
    np.testing.assert_allclose(beyond.values, -NOISE_REACH * 0.05)
    assert Cellularity.from_adc(adc, region, 30).values.max() <= 1 + NOISE_REACH * 0.06


def test_pet_may_know_its_gain() -> None:
    region = np.zeros(GRID.shape, bool)
    region[5:15, 5:15, 5:10] = True
    pet = Scan(np.full(GRID.shape, 1.8, np.float32), GRID)
    free = Uptake.from_scan(pet, region, 30, error=0.2, resolution=5.0)
    known = Uptake.from_scan(pet, region, 30, error=0.2, resolution=5.0, gain=2.0, background=1.0)
    assert free.own == (PET_GAIN, PET_BACKGROUND)
    assert known.own == ()
    n = np.full(free.voxels.size, 0.4)
    assert known.misfit(n, {}).value == pytest.approx(0, abs=1e-6)
    assert free.misfit(n, {PET_GAIN: 2.0, PET_BACKGROUND: 1.0}).value == pytest.approx(0, abs=1e-6)
    assert free.voxels_per_datum == pytest.approx(voxels_per_datum(math.sqrt(2) * 5.0 / 2.3548, (1, 1, 2)), rel=1e-3)


TRUTH = np.ones(K, bool)
REGION = np.ones(GRID.shape, bool)
SCAN = Scan(np.full(GRID.shape, 1e-3, np.float32), GRID)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Segmentation(0.0, VOXELS, TRUTH[:3]), "one truth value of the tumour for each of 40"),
        (lambda: Segmentation(0.0, VOXELS, ~TRUTH, TRUTH), "core inside the whole tumour"),
        (lambda: Segmentation(0.0, VOXELS, TRUTH, width=0.0), "width between 0 and 1"),
        (lambda: Segmentation(0.0, VOXELS, TRUTH, voxels_per_datum=0.5), "at least 1 voxel per datum, got 0.5"),
        (lambda: Segmentation(math.nan, VOXELS, TRUTH), "finite day"),
        (lambda: Segmentation(0.0, VOXELS[:0], TRUTH[:0]), "numbers of voxels"),
        (lambda: Segmentation.from_labels(labels(), REGION[:3], 0), "brain: expected a mask"),
        (lambda: Segmentation.from_labels(labels(), REGION, 0, margin=-1), "margin that is not negative"),
        (lambda: Segmentation.from_labels(labels(), ~REGION, 0), "tumour inside the brain"),
        (lambda: Cellularity(0.0, VOXELS, DENSITY, 0.0), "positive error"),
        (lambda: Cellularity(0.0, VOXELS, DENSITY * np.nan, 1.0), "finite values"),
        (lambda: Cellularity.from_adc(replace(SCAN, values=SCAN.values * 1e6), REGION, 0), "expected mm²/s"),
        (lambda: Cellularity.from_adc(SCAN, ~REGION, 0), "with a voxel in it"),
        (lambda: Cellularity.from_adc(SCAN, REGION, 0, minimum=4e-3), "ADC_min < ADC_w"),
        (lambda: Uptake(0.0, VOXELS, DENSITY, np.ones(3)), "one positive error"),
        (lambda: voxels_per_datum(-1, (1, 1, 1)), "length that is not negative"),
        (lambda: Segmentation(0.0, VOXELS, TRUTH).misfit(DENSITY, {}), "value of 'threshold_edema'"),
        (lambda: Segmentation(0.0, VOXELS, TRUTH).misfit(DENSITY[:3], OWN), "expected 40 finite values"),
        (lambda: uptake(np.random.default_rng(0)).misfit(DENSITY * np.inf, OWN), "expected 40 finite values"),
        (
            lambda: cellularity(np.random.default_rng(0)).information(DENSITY, {}, np.ones((2, K)), NAMES),
            r"jacobian: expected shape \(6, 40\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
