"""The refiner: nothing outside the mask changes, day 0 is the baseline, 0 Gy is no treatment, a seed is an image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hybridtumor.errors import InputError, ResourceError
from hybridtumor.forecast import Forecast
from hybridtumor.grid import Grid
from hybridtumor.models.conditioning import VECTOR_SIZE, Condition, TherapyState
from hybridtumor.models.contrast import POPULATION
from hybridtumor.models.denoiser import NetworkSizes
from hybridtumor.models.visibility import label_map
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient, Visit
from hybridtumor.refine import FollowUp, Refiner
from hybridtumor.refiner_weights import SHIPPED, RefinerWeights, load_weights, save_weights
from hybridtumor.scan import MODALITIES, LabelMap, Scan
from hybridtumor.solvers.training import new_networks
from hybridtumor.therapy import UNTREATED, Chemotherapy, DoseMap, Fractionation, TherapyPlan
from hybridtumor.tissue import TissueMap

SHAPE = (50, 54, 48)
GRID = Grid(SHAPE, np.diag([-1.0, -1.0, 1.0, 1.0]))
TINY = NetworkSizes((8, 8, 8), (8, 8, 8))


def ball(peak: float, radius: float) -> NDArray[np.float32]:
    axes = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    distance = np.sqrt(sum((a - n / 2) ** 2.0 for a, n in zip(axes, SHAPE, strict=True)))
    return (peak / (1 + np.exp(distance - radius))).astype(np.float32) * (distance < radius + 8)


@pytest.fixture(scope="module")
def patient() -> Patient:
    rng = np.random.default_rng(0)
    white = np.zeros(SHAPE, np.float32)
    white[3:-3, 3:-3, 3:-3] = 1
    grey, csf = np.zeros_like(white), np.zeros_like(white)
    grey[:, 40:] = white[:, 40:]
    csf[:, :8] = white[:, :8]
    white[(grey + csf) > 0] = 0
    density = ball(0.95, 6)
    scans = {}
    for index, name in enumerate(MODALITIES):
        values = 100 * white + (80 - 20 * index) * grey + 40 * csf + 60 * (density > 0.2)
        scans[name] = Scan((values + 5 * rng.random(SHAPE)).astype(np.float32), GRID)
    labels = LabelMap(label_map(density, ImagingThresholds()), GRID)
    return Patient("p", (Visit(0, scans, labels),), TissueMap(white, grey, csf, GRID), Scan(density, GRID))


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    networks = new_networks(TINY.mean, TINY.denoiser, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in (p for network in networks for p in network.parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return Refiner(RefinerWeights(networks[0].eval(), networks[1].eval(), POPULATION, {}), steps=3)


def forecast(patient: Patient, *later: tuple[NDArray[np.float32], NDArray[np.float32]]) -> Forecast:
    assert patient.density is not None
    days = tuple(60.0 * i for i in range(len(later) + 1))
    zero = np.zeros(SHAPE, np.float32)
    return Forecast(
        GRID, days, (patient.density.values, *(n for n, _ in later)), (zero, *(k for _, k in later)), np.zeros((2, 2))
    )


@pytest.fixture(scope="module")
def grown(patient: Patient) -> Forecast:
    zero = np.zeros(SHAPE, np.float32)
    return forecast(patient, (ball(0.97, 9), zero), (ball(0.97, 12), zero))


@pytest.fixture(scope="module")
def follow_up(patient: Patient, refiner: Refiner, grown: Forecast) -> FollowUp:
    return refiner.refine(grown, patient, samples=2)


def same(a: FollowUp, b: FollowUp) -> bool:
    return all(
        np.array_equal(x.labels.values, y.labels.values)
        and all(np.array_equal(getattr(x, k)[m], getattr(y, k)[m]) for k in ("images", "mean", "std") for m in x.images)
        for x, y in zip(a.visits, b.visits, strict=True)
    )


def test_day_zero_is_the_baseline_bit_for_bit(patient: Patient, follow_up: FollowUp) -> None:
    first = follow_up.at(0)
    for name, scan in patient.baseline.scans.items():
        assert np.array_equal(first.images[name], scan.values)
        assert np.array_equal(first.mean[name], scan.values)
        assert not first.std[name].any()
    assert patient.baseline.labels is not None
    assert np.array_equal(first.labels.values, patient.baseline.labels.values)
    assert not first.mask.any()


def test_outside_the_mask_is_the_baseline_bit_for_bit(patient: Patient, follow_up: FollowUp) -> None:
    assert patient.baseline.labels is not None
    for visit in follow_up.visits[1:]:
        outside, inside = visit.mask == 0, visit.mask == 1
        assert outside.any()
        assert inside.any()
        for name, scan in patient.baseline.scans.items():
            assert np.array_equal(visit.images[name][outside], scan.values[outside])
            assert np.array_equal(visit.mean[name][outside], scan.values[outside])
            assert not visit.std[name][outside].any()
            assert visit.std[name][inside].any()
            assert (visit.images[name][inside] != scan.values[inside]).mean() > 0.99
            assert np.isfinite(visit.images[name]).all()
        assert np.array_equal(visit.labels.values[outside], patient.baseline.labels.values[outside])


def test_mask_grows_with_the_tumour_and_stays_in_the_head(patient: Patient, follow_up: FollowUp) -> None:
    assert patient.tissue is not None
    small, large = (visit.mask > 0 for visit in follow_up.visits[1:])
    assert large.sum() > small.sum()
    assert not large[~patient.tissue.head].any()


def test_same_seed_same_image_other_seed_other_image(patient: Patient, refiner: Refiner, grown: Forecast) -> None:
    follow_up = refiner.refine(grown, patient, samples=2, seed=5)
    assert same(follow_up, refiner.refine(grown, patient, samples=2, seed=5))
    assert not same(follow_up, refiner.refine(grown, patient, samples=2, seed=6))


def test_first_sample_does_not_depend_on_the_size_of_the_ensemble(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp
) -> None:
    one = refiner.refine(grown, patient, samples=1, days=(60.0,))
    assert one.days == (60.0,)
    for name in MODALITIES:
        assert np.array_equal(one.visits[0].images[name], follow_up.at(60).images[name])
        assert not one.visits[0].std[name].any()


def test_an_image_does_not_depend_on_the_number_of_threads(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp
) -> None:
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            assert same(follow_up, refiner.refine(grown, patient, samples=2))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)


def test_progress_ends_complete(patient: Patient, refiner: Refiner, grown: Forecast) -> None:
    seen: list[tuple[int, int]] = []
    refiner.refine(grown, patient, samples=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9, 9)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_zero_dose_is_no_treatment_bit_for_bit(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp
) -> None:
    nothing = TherapyPlan.of(
        Fractionation(DoseMap(np.zeros(SHAPE, np.float32), GRID), 30, 14), Chemotherapy(((14.0, 0.0),))
    )
    assert same(follow_up, refiner.refine(grown, patient, nothing, untreated=grown, samples=2))


def test_treatment_reaches_the_image(patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp) -> None:
    plan = TherapyPlan.of(Fractionation(DoseMap(np.full(SHAPE, 60, np.float32), GRID), 30, 14))
    told = refiner.refine(grown, patient, plan, untreated=grown, samples=2)
    assert not same(follow_up, told)
    assert np.array_equal(
        told.at(60).mask, follow_up.at(60).mask
    )  # the fields are the same: only the condition differs
    kill = np.full(SHAPE, 5, np.float32)
    assert patient.density is not None
    n = (patient.density.values * np.exp(-kill)).astype(np.float32)
    cured = refiner.refine(forecast(patient, (n, kill)), patient, plan, untreated=grown, samples=2, days=(60.0,))
    assert cured.visits[0].mask.any()


def test_growth_outside_the_head_changes_nothing(patient: Patient, refiner: Refiner) -> None:
    assert patient.density is not None
    n = patient.density.values.copy()
    n[:2] = 0.9
    visit = refiner.refine(forecast(patient, (n, np.zeros_like(n))), patient, samples=1).at(60)
    assert not visit.mask.any()


def test_missing_modality_is_not_invented(patient: Patient, refiner: Refiner, grown: Forecast) -> None:
    scans = {name: scan for name, scan in patient.baseline.scans.items() if name != "T2w"}
    fewer = replace(patient, visits=(Visit(0, scans, patient.baseline.labels),))
    visit = refiner.refine(grown, fewer, samples=1, days=(60.0,)).visits[0]
    assert set(visit.images) == set(scans)


def test_wrong_requests_are_refused(patient: Patient, refiner: Refiner, grown: Forecast) -> None:
    with pytest.raises(InputError, match="at least one sample"):
        refiner.refine(grown, patient, samples=0)
    with pytest.raises(InputError, match="expected a day among"):
        refiner.refine(grown, patient, days=(33.0,))
    with pytest.raises(InputError, match="tissue and density"):
        refiner.refine(grown, replace(patient, tissue=None))
    bare = replace(patient, visits=(Visit(0, {}, patient.baseline.labels),))
    with pytest.raises(InputError, match="at least one of T1w"):
        refiner.refine(grown, bare)


def test_therapy_state_counts_what_was_given_before_the_day() -> None:
    dose = DoseMap(np.full(SHAPE, 10, np.float32), GRID)
    plan = TherapyPlan.of(Fractionation(dose, 5, 10.0), Chemotherapy(((10.0, 75.0), (40.0, 75.0))))
    assert TherapyState.on(plan, 10.0) == TherapyState()
    state = TherapyState.on(plan, 20.0)
    assert (state.fractions, state.drug_days) == (5, 1)
    assert state.bed == pytest.approx(5 * 2 * (1 + 2 / 10))
    assert state.days_since_first_fraction == 10
    assert state.days_since_last_fraction == 6
    assert TherapyState.on(UNTREATED, 20.0) == TherapyState()
    assert Condition(30.0, POPULATION).vector().shape == (VECTOR_SIZE,)


def test_shipped_weights_load() -> None:
    refiner = Refiner.load()
    assert refiner.weights.header["schema_version"] == 1
    assert SHIPPED.stat().st_size <= 8e6
    assert not refiner.weights.denoiser.training


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(ResourceError, match="found none"):
        load_weights(path)
    regression, denoiser = (dict(n.named_parameters()) for n in new_networks(TINY.mean, TINY.denoiser, 0))
    save_weights(path, regression, denoiser, TINY, POPULATION, {"steps": 0})
    assert np.allclose(load_weights(path).population, POPULATION)
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    with pytest.raises(ResourceError, match="SHA-256"):
        load_weights(path)
    broken = {k: v.detach() * float("nan") for k, v in regression.items()}
    save_weights(path, broken, denoiser, TINY, POPULATION, {})
    with pytest.raises(ResourceError, match="finite"):
        load_weights(path)
    save_weights(path, regression, denoiser, NetworkSizes((16, 8, 8), (8, 8, 8)), POPULATION, {})
    with pytest.raises(ResourceError, match="names or shapes"):
        load_weights(path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ResourceError, match="damaged"):
        load_weights(path)
