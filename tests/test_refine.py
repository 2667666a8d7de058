"""The refiner: nothing outside the mask changes, day 0 is the baseline, 0 Gy is no treatment, a seed is an image."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from figures import Figure
from numpy.typing import NDArray

from hybridtumor.errors import InputError, ResourceError
from hybridtumor.follow_up import FollowUp
from hybridtumor.forecast import Forecast
from hybridtumor.grid import Grid
from hybridtumor.models.carry import carried
from hybridtumor.models.conditioning import FIELDS, VECTOR_SIZE, Condition, TherapyState
from hybridtumor.models.contrast import POPULATION
from hybridtumor.models.denoiser import NetworkSizes
from hybridtumor.models.visibility import label_map
from hybridtumor.models.warp import find_origins
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient, Visit
from hybridtumor.refine import Refiner
from hybridtumor.refiner_scene import Scene
from hybridtumor.refiner_weights import SHIPPED, RefinerWeights, load_weights, save_weights
from hybridtumor.scan import MODALITIES, LabelMap, Scan
from hybridtumor.solvers.guidance import GuidanceOptions, Mode
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


def pushed(size: float = 3.0) -> NDArray[np.float32]:
    """Tissue pushed away from the tumour, by `size` mm 10 mm from its centre and not at all at the skull."""
    centre = np.array(SHAPE) / 2
    offset = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")) - centre[:, None, None, None]
    offset[:2] *= -1  # the first two axes run to the left and to the back
    r = np.linalg.norm(offset, axis=0)
    return np.asarray(size * offset / 10 * np.exp(0.5 - (r / 10) ** 2 / 2), np.float32)


def moving(of: Forecast, *displacements: NDArray[np.float32]) -> Forecast:
    return replace(of, displacement=(np.zeros((3, *SHAPE), np.float32), *displacements))


def same(a: FollowUp, b: FollowUp) -> bool:
    return all(
        np.array_equal(x.labels.values, y.labels.values)
        and all(np.array_equal(getattr(x, k)[m], getattr(y, k)[m]) for k in ("images", "mean", "std") for m in x.images)
        for x, y in zip(a.visits, b.visits, strict=True)
    )


@pytest.mark.law("images", "On day 0 the image is the scan, bit for bit")
def test_day_zero_is_the_baseline_bit_for_bit(patient: Patient, follow_up: FollowUp) -> None:
    first = follow_up.at(0)
    for name, scan in patient.baseline.scans.items():
        assert np.array_equal(first.images[name], scan.values)
        assert np.array_equal(first.mean[name], scan.values)
        assert not first.std[name].any()
    assert patient.baseline.labels is not None
    assert np.array_equal(first.labels.values, patient.baseline.labels.values)
    assert not first.mask.any()


@pytest.mark.law("images", "Outside the mask the image is the scan, bit for bit")
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


@pytest.mark.law("images", "The same seed gives the same image, bit for bit; another one another")
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


@pytest.mark.law("images", "The number of threads cannot be seen in an image, bit for bit")
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


@pytest.mark.law("images", "The image under 0 Gy is the untreated one, bit for bit")
def test_zero_dose_is_no_treatment_bit_for_bit(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp
) -> None:
    nothing = TherapyPlan.of(
        Fractionation(DoseMap(np.zeros(SHAPE, np.float32), GRID), 30, 14), Chemotherapy(((14.0, 0.0),))
    )
    assert same(follow_up, refiner.refine(grown, patient, nothing, untreated=grown, samples=2))


def test_treatment_reaches_the_image(patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp) -> None:
    plan = TherapyPlan.of(Fractionation(DoseMap(np.full(SHAPE, 60, np.float32), GRID), 30, 14))
    one = np.ones(SHAPE, np.float32)
    told = refiner.refine(replace(grown, log_kill=(0 * one, one, one)), patient, plan, untreated=grown, samples=2)
    assert not same(follow_up, told)
    assert np.array_equal(
        told.at(60).mask, follow_up.at(60).mask
    )  # the fields are the same: only the condition differs
    kill = np.full(SHAPE, 5, np.float32)
    assert patient.density is not None
    n = (patient.density.values * np.exp(-kill)).astype(np.float32)
    cured = refiner.refine(forecast(patient, (n, kill)), patient, plan, untreated=grown, samples=2, days=(60.0,))
    assert cured.visits[0].mask.any()


def test_strength_scales_texture_and_nothing_else(
    patient: Patient, refiner: Refiner, grown: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    sample = Refiner.sample

    def kept(self: Refiner, *rest: Any) -> NDArray[np.float32]:
        seen.append(sample(self, *rest))
        return seen[-1]

    monkeypatch.setattr(Refiner, "sample", kept)
    for strength in (0.0, 0.5, 1.0):
        replace(refiner, strength=strength).refine(grown, patient, samples=1, days=(60.0,))
    none, half, full = seen
    assert np.abs(full - none).max() > 0.1
    assert np.allclose(half - none, (full - none) / 2, atol=1e-5)


@pytest.mark.law("images", "Zero kill is the untreated image in every mode of the source term, bit for bit")
@pytest.mark.parametrize("mode", ["condition", "source", "both"])
def test_zero_kill_is_untreated_in_every_mode(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp, mode: Mode
) -> None:
    plan = TherapyPlan.of(Fractionation(DoseMap(np.full(SHAPE, 60, np.float32), GRID), 30, 14))
    steered = replace(refiner, guidance=GuidanceOptions(mode))
    assert same(steered.refine(grown, patient, plan, untreated=grown, samples=2), follow_up)


@pytest.mark.parametrize("mode", ["source", "both"])
def test_the_source_term_moves_the_image_towards_fewer_cells(
    patient: Patient, refiner: Refiner, grown: Forecast, mode: Mode
) -> None:
    """FLAIR is brighter in tumour, so what therapy has killed is darker than without the source term."""
    kill = np.full(SHAPE, 3, np.float32)
    killed = tuple((n * np.exp(-kill)).astype(np.float32) for n in grown.density[1:])
    treated = replace(grown, density=(grown.density[0], *killed), log_kill=(0 * kill, kill, kill))
    plan = TherapyPlan.of(Fractionation(DoseMap(np.full(SHAPE, 60, np.float32), GRID), 30, 14))
    plain = replace(refiner, strength=1.0)
    off = replace(plain, guidance=GuidanceOptions("condition" if mode == "both" else "source", gamma=1e-9))
    on = replace(plain, guidance=GuidanceOptions(mode))
    lost = (grown.density[2] > 0.3) & (killed[1] < 0.05)
    pair = [r.refine(treated, patient, plan, untreated=grown, samples=2).at(120).mean["FLAIR"] for r in (off, on)]
    assert float((pair[1] - pair[0])[lost].mean()) < -0.5


@pytest.mark.law("images", "Dose beside the tumour changes nothing, bit for bit")
def test_dose_beside_the_tumour_changes_nothing(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp
) -> None:
    dose, kill = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    dose[:4], kill[:4] = 60, 5  # far from every cell
    plan = TherapyPlan.of(Fractionation(DoseMap(dose, GRID), 30, 14))
    told = replace(grown, log_kill=(0 * kill, kill, kill))
    assert same(refiner.refine(told, patient, plan, untreated=grown, samples=2), follow_up)


def test_growth_outside_the_head_changes_nothing(patient: Patient, refiner: Refiner) -> None:
    assert patient.density is not None
    n = patient.density.values.copy()
    n[:2] = 0.9
    visit = refiner.refine(forecast(patient, (n, np.zeros_like(n))), patient, samples=1).at(60)
    assert not visit.mask.any()


def test_no_displacement_and_a_displacement_of_zero_are_the_same_images(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp
) -> None:
    still = np.zeros((3, *SHAPE), np.float32)
    unmoved = refiner.refine(moving(grown, still, still), patient, samples=2)
    assert same(unmoved, follow_up)
    assert all(visit.moved is None for visit in follow_up.visits)
    assert not any(visit.moved is None or visit.moved.any() for visit in unmoved.visits)


@pytest.mark.law("images", "A tumour that is only pushed leaves the carried scan, bit for bit")
def test_a_tumour_that_is_only_pushed_is_the_carried_scan(patient: Patient, refiner: Refiner) -> None:
    assert patient.density is not None
    assert patient.baseline.labels is not None
    v = pushed()
    origins = find_origins(v, GRID)
    n = carried(patient.density.values, origins, order=3)
    visit = refiner.refine(moving(forecast(patient, (n, np.zeros_like(n))), v), patient, samples=1).at(60)
    assert not visit.mask.any()
    assert np.array_equal(visit.labels.values, carried(patient.baseline.labels.values, origins, order=0))
    for name, scan in patient.baseline.scans.items():
        assert np.array_equal(visit.images[name], carried(scan.values, origins, order=3))


def test_outside_the_mask_is_the_carried_scan_and_the_patients_own_where_nothing_moved(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp
) -> None:
    v = pushed()
    told = refiner.refine(moving(grown, pushed(1.0), v), patient, samples=2)
    visit = told.at(120)
    assert visit.moved is not None
    outside, far = visit.mask == 0, (visit.mask == 0) & ~visit.moved
    assert (outside & visit.moved).sum() > 5000
    assert far.sum() > 5000
    for name, scan in patient.baseline.scans.items():
        expected = carried(scan.values, find_origins(v, GRID), order=3)
        assert np.array_equal(visit.mean[name][outside], expected[outside])
        assert np.array_equal(visit.images[name][far], scan.values[far])
        assert (visit.images[name][outside & visit.moved] != scan.values[outside & visit.moved]).mean() > 0.9
        assert not visit.std[name][outside].any()
        assert np.array_equal(told.at(0).images[name], scan.values)  # day 0 has not moved
    assert (visit.mask > 0).sum() < 1.2 * (follow_up.at(120).mask > 0).sum()


def test_the_networks_see_the_carried_baseline_in_a_box_that_does_not_grow_with_what_has_moved(
    patient: Patient, refiner: Refiner, grown: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Scene] = []
    sample = Refiner.sample
    monkeypatch.setattr(Refiner, "sample", lambda self, scene, *rest: seen.append(scene) or sample(self, scene, *rest))
    refiner.refine(grown, patient, samples=1, days=(60.0,))
    refiner.refine(moving(grown, pushed(), pushed()), patient, samples=1, days=(60.0,))
    still, moved = seen
    assert moved.box == still.box
    assert not np.array_equal(moved.baseline, still.baseline)
    assert not still.fields[FIELDS.index("displacement")].any()
    assert float(moved.fields[FIELDS.index("displacement")].max()) == pytest.approx(3 / 5, rel=0.1)  # 3 mm
    assert not np.array_equal(moved.fields[FIELDS.index("density_day0")], still.fields[FIELDS.index("density_day0")])


@pytest.mark.law("images", "Damaged cells are imaged as living ones until they are cleared")
def test_damaged_cells_are_seen_until_they_are_cleared(
    patient: Patient, refiner: Refiner, grown: Forecast, follow_up: FollowUp
) -> None:
    quarter = tuple(np.asarray(n / 4, np.float32) for n in grown.density[1:])
    half_dead = replace(
        grown,
        density=(grown.density[0], *(n - d for n, d in zip(grown.density[1:], quarter, strict=True))),
        damaged=(np.zeros(SHAPE, np.float32), *quarter),
    )
    assert same(refiner.refine(half_dead, patient, samples=2), follow_up)
    cleared = replace(half_dead, damaged=None)
    assert not same(refiner.refine(cleared, patient, samples=2), follow_up)


@pytest.mark.law("images", "What treatment spared is told per piece of tissue, wherever that was moved")
def test_the_untreated_density_is_that_of_the_same_tissue(
    patient: Patient, refiner: Refiner, grown: Forecast, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    assert patient.density is not None
    plan = TherapyPlan.of(Fractionation(DoseMap(np.full(SHAPE, 60, np.float32), GRID), 30, 14))
    v, w = pushed(3.0), pushed(1.0)
    far = ball(0.6, 12)
    treated = forecast(patient, (carried(far, find_origins(w, GRID), order=3), np.ones(SHAPE, np.float32)))
    untreated = forecast(patient, (carried(far, find_origins(v, GRID), order=3), np.zeros(SHAPE, np.float32)))
    seen: list[Scene] = []
    sample = Refiner.sample
    monkeypatch.setattr(Refiner, "sample", lambda self, scene, *rest: seen.append(scene) or sample(self, scene, *rest))
    for other in (moving(untreated, v), untreated):
        refiner.refine(moving(treated, w), patient, plan, untreated=other, samples=1, days=(60.0,))
    spared, misplaced = (np.abs(scene.fields[FIELDS.index("spared")]) for scene in seen)
    figure("difference of equal arms", spared.max(), at_most=0.05)  # only the tissue is elsewhere
    figure("if told per place", misplaced.max(), at_least=0.2)


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
    assert refiner.weights.header["schema_version"] == 2
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
