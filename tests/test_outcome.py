"""Tumour control, complications, response and coverage: limits, monotonicity, hand arithmetic; and the summary."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from ball_brain import ball_density, ball_dose, ball_grid, ball_tissue
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtr

from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.outcome import (
    CARRYING_CAPACITY,
    MEASURABLE_VOLUME,
    TOLERANCES,
    Tolerance,
    coverage,
    iso_volume_region,
    ntcp,
    response_categories,
    surviving_cells,
    tcp,
    time_to_progression,
    tolerance_of,
)
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import Scan
from hybridtumor.summary import arm_figures, structure_figures
from hybridtumor.targets import gross_tumour
from hybridtumor.therapy import UNTREATED, Chemotherapy, Fractionation, TherapyPlan

FIELD = arrays(np.float32, (3, 3, 2), elements=st.floats(0, 1, width=32))
KILL = arrays(np.float32, (3, 3, 2), elements=st.floats(0, 60, width=32))
VOLUMES = st.lists(st.sampled_from([0.0, 300.0, 900.0, 1100.0, 5e3, 1e4, 1.4e4, 1.5e4, 4e4]), min_size=1, max_size=7)


# --- tumour control


def test_one_surviving_cell_is_controlled_in_37_per_cent() -> None:
    """10⁹ cells after 9 decades of kill: one cell, TCP = 1/e."""
    density = np.full((10, 10, 10), 1e9 / CARRYING_CAPACITY / 1000 / 8)
    log_kill = np.full(density.shape, 9 * np.log(10))
    assert surviving_cells(density, log_kill * 0, 8.0) == pytest.approx(1e9)
    assert surviving_cells(density, log_kill, 8.0) == pytest.approx(1)
    assert tcp(density, log_kill, 8.0) == pytest.approx(np.exp(-1))
    assert tcp(density * 0, log_kill * 0, 8.0) == 1
    assert tcp(density, log_kill + np.inf, 8.0) == 1
    with pytest.raises(InputError, match="one shape"):
        tcp(density, log_kill[:3], 8.0)


@given(FIELD, KILL, st.floats(0, 5))
def test_more_kill_never_controls_less(density: np.ndarray, log_kill: np.ndarray, more: float) -> None:
    before, after = (surviving_cells(density, kill, 1.0) for kill in (log_kill, log_kill + more))
    assert after == pytest.approx(before * np.exp(-more), rel=1e-4, abs=1e-12)
    assert 0 <= tcp(density, log_kill, 1.0) <= tcp(density, log_kill + more, 1.0) <= 1


# --- complications


@given(st.sampled_from(list(TOLERANCES.values())), st.floats(0, 100), st.floats(0, 20))
def test_complications_rise_with_dose(tolerance: Tolerance, dose: float, more: float) -> None:
    assert 0 <= ntcp(dose, tolerance) <= ntcp(dose + more, tolerance) <= 1
    assert ntcp(tolerance.td50, tolerance) == 0.5
    assert ntcp(tolerance.td50 * (1 + tolerance.m), tolerance) == pytest.approx(ndtr(1))


@pytest.mark.parametrize("organ", TOLERANCES)
def test_complications_of_a_uniform_dose(organ: str) -> None:
    """TD50 to the whole organ harms half; to a share v of it, the dose that harms half is TD50 v⁻ⁿ (Lyman)."""
    tolerance, whole = TOLERANCES[organ], np.ones((10, 10, 10), bool)
    dose = np.full(whole.shape, tolerance.td50)
    assert structure_figures(dose, dose, whole, tolerance)["NTCP"] == pytest.approx(0.5)
    part = np.zeros(whole.shape)
    part[:3] = tolerance.td50 * 0.3**-tolerance.n
    assert structure_figures(part, part, whole, tolerance)["NTCP"] == pytest.approx(0.5)


def test_structures_are_known_by_their_tg263_names() -> None:
    known = {
        "Brain": "Brain", "brain": "Brain", "Brain-GTV": "Brain", "Brain-PTV_High": "Brain", "Brainstem": "Brainstem",
        "OpticChiasm": "OpticChiasm", "OpticNrv_L": "OpticNrv", "OpticNrv_R": "OpticNrv", "Lens_L": "Lens",
        "lens_r": "Lens", "Retina_R": "Retina",
    }  # fmt: skip
    for name, organ in known.items():
        assert tolerance_of(name) == TOLERANCES[organ], name
    for name in ("Eye_L", "Brainstem_PRV03", "Hippocampus_L", "tumour", "Cochlea_R", "Brain_left", "CTV"):
        assert tolerance_of(name) is None, name
    figures = structure_figures(np.ones((2, 2, 2)), np.ones((2, 2, 2)), np.ones((2, 2, 2), bool), None)
    assert figures["NTCP"] is None
    assert figures["gEUD_EQD2_Gy"] is None
    assert figures["mean_Gy"] == 1


# --- response


def test_progression_is_forty_per_cent_over_the_smallest_volume() -> None:
    assert time_to_progression([0, 60, 120], [10_000, 12_000, 13_000]) is None
    assert time_to_progression([0, 60, 120], [10_000, 12_000, 16_000]) == pytest.approx(90)
    assert time_to_progression([0, 60, 120], [10_000, 5_000, 9_000]) == pytest.approx(90)
    assert time_to_progression([0, 60, 120], [10_000, 0, 2_000]) == pytest.approx(90)
    assert time_to_progression([0, 60, 120], [100, 50, 400]) is None
    assert time_to_progression([0], [10_000]) is None
    with pytest.raises(InputError, match="ascending"):
        time_to_progression([0, 60, 30], [1, 2, 3])


def test_categories_of_response_by_volume() -> None:
    assert response_categories([10_000]) == []
    assert response_categories([10_000, 6_600, 3_500, 0]) == ["SD", "PR", "CR"]
    assert response_categories([10_000, 13_900, 14_000]) == ["SD", "PD"]
    assert response_categories([10_000, 3_000, 4_100, 4_200]) == ["PR", "SD", "PD"]
    assert response_categories([10_000, 0, 990, 1_000]) == ["CR", "PR", "PD"]
    assert response_categories([100, 50, 400]) == ["SD", "SD"]
    assert response_categories([10_000, 15_000, 9_000, 3_000]) == ["PD", "SD", "PR"]  # a swelling that recedes
    assert response_categories([10_000, 15_000, 14_500]) == ["PD", "PD"]
    assert response_categories([0, 0, 2_000]) == ["CR", "PD"]


@given(VOLUMES)
def test_the_first_progression_is_the_one_that_is_dated(volumes: list[float]) -> None:
    categories = response_categories(volumes)
    days = [10.0 * i for i in range(len(volumes))]
    when = time_to_progression(days, volumes)
    assert len(categories) == len(volumes) - 1
    if when is None:
        assert "PD" not in categories
    else:
        first = categories.index("PD") + 1
        assert days[first - 1] <= when <= days[first]
        assert volumes[first] >= MEASURABLE_VOLUME


# --- coverage


def test_coverage_counts_the_recurrence_in_the_target() -> None:
    recurrence, target = np.zeros((4, 5, 5), bool), np.zeros((4, 5, 5), bool)
    recurrence[1:3], target[2:] = True, True
    assert coverage(recurrence, target) == 0.5
    assert coverage(recurrence, ~target & ~recurrence) == 0
    assert coverage(recurrence & False, target) is None
    with pytest.raises(InputError, match="one shape"):
        coverage(recurrence, target[:3])


@given(arrays(np.float32, (4, 3, 2), elements=st.sampled_from([0.0, 0.1, 0.5, 0.9])), st.integers(0, 16))
def test_the_region_of_equal_volume_holds_the_highest_scores(score: np.ndarray, voxels: int) -> None:
    domain = np.ones(score.shape, bool)
    domain[0, 0] = domain[3] = False
    region = iso_volume_region(score, voxels, domain)
    assert np.count_nonzero(region) == voxels
    assert not (region & ~domain).any()
    if 0 < voxels < np.count_nonzero(domain):
        assert score[region].min() >= score[domain & ~region].max()
    np.testing.assert_array_equal(region, iso_volume_region(score.copy(), voxels, domain.copy()))
    if voxels:
        assert not (iso_volume_region(score, voxels - 1, domain) & ~region).any()


def test_a_region_larger_than_the_domain_is_refused() -> None:
    with pytest.raises(InputError, match="at most the 3 voxels"):
        iso_volume_region(np.ones((3, 1, 1)), 4, np.ones((3, 1, 1), bool))


# --- the summary of an arm


def ball_patient() -> Patient:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    scan = Scan(300 * tissue.white + 200 * tissue.grey + 100 * tissue.csf, grid)
    return Patient("ball", (Visit(0, {"T1w": scan}),), tissue, ball_density(grid, tissue, radius=6.0))


def patient_with_structures() -> Patient:
    patient = ball_patient()
    masks = {name: np.zeros(patient.grid.shape, bool) for name in ("OpticChiasm", "Eye_L", "Brainstem_PRV03", "brain")}
    for number, mask in enumerate(masks.values()):
        mask[8 + 3 * number : 11 + 3 * number, 12:15, 10:13] = True
    return replace(patient, structures=masks)


def treated(patient: Patient, log_kill: float, factor: float) -> Forecast:
    """A tumour that ends with `factor` times its density."""
    first = patient.density.values
    fields = (first, (factor * first).astype(np.float32))
    burden = [float(u.sum(dtype=float)) * patient.grid.voxel_volume for u in fields]
    kills = (np.zeros_like(first), np.full_like(first, log_kill))
    return Forecast(patient.grid, (0.0, 90.0), fields, kills, np.column_stack([(0, 90), burden]))


def courses(patient: Patient) -> TherapyPlan:
    """A course, a boost in a few large fractions, and a second course twice a day."""
    dose = ball_dose(patient.grid, 46.0)
    twice = tuple(200 + 0.25 * (i % 2) + i // 2 for i in range(20))
    return TherapyPlan.of(
        Fractionation(dose, 23, 5),
        Fractionation(ball_dose(patient.grid, 15.0), 5, 40),
        Fractionation(ball_dose(patient.grid, 24.0), 20, 200, days=twice),
        Chemotherapy.temozolomide(5),
    )


def test_the_summary_of_a_treated_arm_has_its_figures() -> None:
    patient = patient_with_structures()
    plan, response = courses(patient), TreatmentResponse(repair_half_time="3 h")
    figures = arm_figures(patient, treated(patient, 14.0, 0.25), plan, response)
    dose = figures["dose"]
    assert dose["prescribed_Gy"] == pytest.approx(85, rel=0.02)
    assert list(dose["structures"]) == ["tumour", "brain", "OpticChiasm", "Eye_L", "Brainstem_PRV03"]
    assert set(figures["dvh"]) == set(dose["structures"])
    for name, entry in dose["structures"].items():
        assert entry["D98_Gy"] <= entry["mean_Gy"] <= entry["max_Gy"]
        assert entry["D98_Gy"] <= entry["D2_Gy"] <= entry["max_Gy"]
        assert (entry["NTCP"] is None) == (name not in {"brain", "OpticChiasm"})
        assert (entry["gEUD_EQD2_Gy"] is None) == (name in {"Eye_L", "Brainstem_PRV03"})
        curve = figures["dvh"][name]
        assert 2 <= len(curve["dose_Gy"]) == len(curve["share"]) <= 101
        assert (curve["dose_Gy"][0], curve["share"][0], curve["share"][-1]) == (0, 1, 0)
        assert all(a < b for a, b in pairwise(curve["dose_Gy"]))
        assert all(a >= b for a, b in pairwise(curve["share"]))
    assert dose["structures"]["tumour"]["mean_Gy"] == pytest.approx(dose["mean_tumour_Gy"], abs=1e-3)
    assert dose["structures"]["brain"]["mean_Gy"] < dose["structures"]["tumour"]["mean_Gy"]
    assert 0 < figures["tumour_control"]["surviving_cells"] < figures["tumour_control"]["cells_last_day"]
    assert figures["tumour_control"]["TCP"] == 0
    assert figures["response"] == {"category": ["PR"]}
    assert 0 < figures["coverage"]["standard"] <= 1
    assert figures["coverage"]["density_iso_volume"] == 1
    assert len(json.dumps(figures)) < 10_000
    json.dumps(figures, allow_nan=False)


def test_the_brain_of_the_summary_is_the_parenchyma_without_the_tumour() -> None:
    """The figures on the box around the structures are those on the whole grid, and 3 Gy is the brain's α/β."""
    patient = ball_patient()
    plan = TherapyPlan.of(Fractionation(ball_dose(patient.grid, 60.0), 30, 5))
    figures = arm_figures(patient, treated(patient, 14.0, 0.5), plan, TreatmentResponse())["dose"]
    dose = plan.courses[0].dose.values.astype(float)
    brain = patient.tissue.parenchyma & ~gross_tumour(patient)
    in_two_gray = dose * (1 + dose / 30 / 3) / (5 / 3)
    entry = figures["structures"]["brain"]
    assert entry["mean_Gy"] == pytest.approx(dose[brain].mean(), abs=1e-3)
    assert entry["mean_EQD2_Gy"] == pytest.approx(in_two_gray[brain].mean(), abs=1e-3)
    assert entry["gEUD_EQD2_Gy"] == pytest.approx(np.mean(in_two_gray[brain] ** 4) ** 0.25, abs=1e-3)
    assert entry["NTCP"] == pytest.approx(ndtr((entry["gEUD_EQD2_Gy"] - 60) / 9), abs=1e-4)
    tumour = figures["structures"]["tumour"]
    seen = dose[gross_tumour(patient)]
    assert tumour["mean_EQD2_Gy"] == pytest.approx((seen * (1 + seen / 300) / 1.2).mean(), abs=1e-3)


def test_the_summary_says_nothing_of_what_is_not_defined() -> None:
    patient = ball_patient()
    figures = arm_figures(patient, treated(patient, 0.0, 1.0), UNTREATED, TreatmentResponse())
    assert figures["response"] == {"category": ["SD"]}
    for name in ("dose", "dvh", "tumour_control", "coverage"):
        assert figures[name] is None
    drug = TherapyPlan.of(Chemotherapy.temozolomide(5))
    figures = arm_figures(patient, treated(patient, 1.0, 1.0), drug, TreatmentResponse())
    assert figures["tumour_control"] is not None
    for name in ("dose", "dvh", "coverage"):
        assert figures[name] is None
    gone = arm_figures(patient, treated(patient, 50.0, 0.0), courses(patient), TreatmentResponse())
    assert gone["coverage"] is None
    assert gone["response"] == {"category": ["CR"]}
    assert gone["tumour_control"]["TCP"] == pytest.approx(1)


def test_coverage_of_a_course_elsewhere_is_nothing() -> None:
    """The treated region is where a course gives its own prescription, not the sum of all."""
    patient = ball_patient()
    dose = ball_dose(patient.grid, 60.0)
    away = replace(dose, values=np.roll(dose.values, (-11, -3), axis=(0, 1)))
    both = [
        TherapyPlan.of(*(Fractionation(d, 30, 5 + 90 * i) for i, d in enumerate(p))) for p in ([away], [away, dose])
    ]
    found = [arm_figures(patient, treated(patient, 3.0, 0.5), p, TreatmentResponse())["coverage"] for p in both]
    assert found[0]["standard"] < 0.05
    assert found[0]["density_iso_volume"] > 0.9
    assert found[1]["standard"] > 0.8
    assert found[1]["volume_ml"] > found[0]["volume_ml"]
