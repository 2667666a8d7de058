"""What a file states is what the plan gives: phases, boosts, set-up errors, surgery; files travel with the run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
import yaml

from hybridtumor import prepare
from hybridtumor.compare import compare
from hybridtumor.dosimetry import dose_figures
from hybridtumor.errors import InputError
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models.oxygen import local_response
from hybridtumor.patient import Patient
from hybridtumor.report_table import treatment
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import write_nifti
from hybridtumor.scenario import Scenario
from hybridtumor.simulate import simulate
from hybridtumor.targets import tumour_masks
from hybridtumor.therapy import Resection, TherapyPlan

EXAMPLES = Path(__file__).parents[1] / "examples"
COURSE = {"prescription": "60 Gy", "fractions": 30, "first_day": 5, "target": "gtv"}


@pytest.fixture(scope="module")
def patient() -> Patient:
    return small_run.small_patient()


def scenario(arm: list[dict[str, Any]], **changes: Any) -> Scenario:
    content = {
        "schema_version": 1,
        "patient": "mni152",
        "horizon": "40 days",
        "report_days": [0, 40],
        "arms": {"a": arm},
    }
    return Scenario.parse(content | changes)


def plan_of(patient: Patient, *arm: dict[str, Any]) -> TherapyPlan:
    return scenario(list(arm)).plans(patient)["a"]


def radiation(**changes: Any) -> dict[str, Any]:
    course = {**COURSE, **changes}
    return {"radiation": {key: value for key, value in course.items() if value is not None}}


def test_every_plan_of_the_examples_can_be_given(patient: Patient) -> None:
    """On a small brain: built, grown, and each of them better than nothing."""
    shown = Scenario.load(EXAMPLES / "plans.yaml")
    plans = shown.plans(patient)
    assert list(plans) == list(yaml.safe_load((EXAMPLES / "plans.yaml").read_text())["arms"])
    assert shown.baseline_weekday == "friday"
    assert len(plans["rtog"].courses) == 2
    assert [len(course.fraction_days) for course in plans["rtog"].courses] == [23, 7]
    twice = plans["twice-a-day"].courses[0].fraction_days
    assert twice[:3] == (17 + 1 / 3, 17 + 1 / 3 + 0.25, 18 + 1 / 3)
    assert {int(day) for day in twice}.isdisjoint({28, 31})  # Good Friday and Easter Monday
    assert all((4 + int(day)) % 7 < 5 for day in twice)
    assert plans["integrated-boost"].courses[0].dose.values.max() == pytest.approx(72)
    split = plans["split-course"].courses[0].fraction_days
    assert split[15] - split[14] > 14
    simulation = GrowthSimulation.prepare(patient.tissue, patient.density, shown.growth, 180, cell_size="4 mm")
    steps = simulation.shared_steps(plans.values(), (0, 180))
    local = local_response(patient, shown.response)
    burden = {
        name: simulation.run(plan, (0, 180), shown.response, local=local, steps=steps).burden[-1]
        for name, plan in plans.items()
    }
    assert max(burden, key=burden.get) == "untreated"
    uniform = simulation.run(plans["integrated-boost"], (0, 180), shown.response, steps=steps).burden[-1]
    assert uniform < burden["integrated-boost"]  # well-oxygenated cells die more


def test_phases_follow_each_other_at_the_same_dose_per_fraction(patient: Patient) -> None:
    first, second = plan_of(patient, radiation(target="rtog")).courses
    assert first.fraction_days + second.fraction_days == plan_of(patient, radiation()).courses[0].fraction_days
    assert first.prescription == pytest.approx(46)
    assert second.prescription == pytest.approx(14)
    assert first.dose.values.max() / 23 == pytest.approx(second.dose.values.max() / 7)


def test_a_boost_adds_in_its_target_alone(patient: Patient) -> None:
    plain = plan_of(patient, radiation(target="eortc-2016")).courses[0].dose.values
    boost = {"prescription": "75 Gy", "ptv_margin": "0 mm", "falloff": "1 mm"}
    boosted = plan_of(patient, radiation(target="eortc-2016", boost=boost)).courses[0].dose.values
    core = tumour_masks(patient).core
    np.testing.assert_allclose(boosted[core], 75)
    assert (boosted >= plain).all()
    assert (boosted[~core] == plain[~core]).mean() > 0.9


def test_a_set_up_error_moves_the_dose(patient: Patient) -> None:
    plain, moved = (
        plan_of(patient, radiation(falloff="4 mm", setup_error=error)).courses[0].dose
        for error in (None, {"shift": ["4 mm", "-2 mm", "0 mm"]})
    )

    def centre(values: np.ndarray) -> np.ndarray:
        high = values > 30
        return patient.grid.world(np.argwhere(high)).mean(axis=0)

    np.testing.assert_allclose(centre(moved.values) - centre(plain.values), [4, -2, 0], atol=0.3)


def test_daily_errors_blur_the_dose(patient: Patient) -> None:
    plain, soft = (
        plan_of(patient, radiation(falloff="2 mm", setup_error=error)).courses[0].dose.values
        for error in (None, {"random": "3 mm"})
    )
    assert soft.max() <= plain.max() + 1e-4
    assert np.abs(np.diff(soft, axis=0)).max() < 0.8 * np.abs(np.diff(plain, axis=0)).max()
    with pytest.raises(InputError, match="random error of at most"):
        plan_of(patient, radiation(setup_error={"random": "-1 mm"}))


def test_targets_after_surgery_hold_the_cavity(patient: Patient, tmp_path: Path) -> None:
    far = np.zeros(patient.grid.shape, np.uint8)
    brain = np.argwhere(patient.tissue.parenchyma & ~tumour_masks(patient).whole)
    middle = brain[np.argmax(np.linalg.norm(brain - np.argwhere(tumour_masks(patient).core).mean(0), axis=1))]
    far[tuple(middle)] = 1
    write_nifti(tmp_path / "cavity.nii.gz", far, patient.grid)
    cut = {"resection": {"day": 2, "cavity": str(tmp_path / "cavity.nii.gz")}}
    before, after = (plan_of(patient, *arm) for arm in ([radiation()], [cut, radiation()]))
    assert before.courses[0].dose.values[tuple(middle)] < 60
    assert after.courses[0].dose.values[tuple(middle)] == 60
    later = plan_of(patient, {"resection": {"day": 9, "cavity": str(tmp_path / "cavity.nii.gz")}}, radiation())
    np.testing.assert_array_equal(later.courses[0].dose.values, before.courses[0].dose.values)
    assert after.cavity_on(2) is None
    np.testing.assert_array_equal(after.cavity_on(2.5), far > 0)


def test_cavities_that_are_none_are_refused(patient: Patient, tmp_path: Path) -> None:
    def refused(mask: np.ndarray, name: str = "c.nii.gz") -> str:
        write_nifti(tmp_path / name, mask.astype(np.uint8), patient.grid)
        with pytest.raises(InputError) as caught:
            plan_of(patient, {"resection": {"cavity": str(tmp_path / name)}})
        return str(caught.value)

    assert "at most 50%" in refused(patient.tissue.parenchyma)
    assert "lies outside" in refused(~patient.tissue.head)
    assert "not empty" in refused(np.zeros(patient.grid.shape))
    with pytest.raises(InputError, match="expected a structure of patient small, which has none; got 'GTV'"):
        plan_of(patient, {"resection": {"cavity": "structure GTV"}})
    named = replace(patient, structures={"GTV": tumour_masks(patient).core})
    assert plan_of(named, {"resection": {"cavity": "structure GTV"}}).resections[0].cavity.any()


def test_a_run_of_any_plan_can_be_run_again_from_its_folder(patient: Patient, tmp_path: Path) -> None:
    """Files, cavities, errors and dates are in the folder as they were used."""
    patient.save(tmp_path / "patient")
    plain = plan_of(patient, radiation()).courses[0].dose
    write_nifti(tmp_path / "dose.nii.gz", plain.values / 30, patient.grid)
    write_nifti(tmp_path / "cavity.nii.gz", tumour_masks(patient).core.astype(np.uint8), patient.grid)
    given = {"target": None, "dose": "dose.nii.gz", "dose_unit": "Gy", "dose_is": "fraction"}
    content = {
        "schema_version": 1,
        "patient": "patient",
        "baseline_date": "2024-03-01",
        "horizon": "40 days",
        "report_days": [0, 40],
        "response": {"repair_half_time": "1.5 h", "drugs": {"x": SLOW}},
        "arms": {
            "all": [
                {"resection": {"day": "2024-03-03", "cavity": "cavity.nii.gz", "margin": "3 mm", "residual": 0.1}},
                radiation(target="rtog", first_day="2024-03-04", fractions=10, delivery_time="20 min"),
                radiation(**given, first_day="2024-03-20", setup_error={"shift": ["2 mm", "0 mm", "0 mm"]}),
                {"chemotherapy": {"drug": "x", "dose": "50 mg/m^2", "days": [3, 20]}},
            ]
        },
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    first = compare(Scenario.load(tmp_path / "s.yaml"), tmp_path / "run", images=False, cell_size=small_run.COARSE)
    for name in ("dose.nii.gz", "cavity.nii.gz"):
        (tmp_path / name).unlink()
    again = compare(Scenario.load(first.scenario_path), tmp_path / "again", images=False, cell_size=small_run.COARSE)
    assert again.figures("all") == first.figures("all")
    assert first.figures("all")["burden_mm3"][-1] < first.figures("untreated")["burden_mm3"][-1]
    assert "2024" not in (tmp_path / "run" / "scenario.yaml").read_text()
    back = RunFolder.open(tmp_path / "run").load_plan("all", patient.grid)
    assert [course.delivery_time for course in back.courses] == pytest.approx([1 / 72, 1 / 72, 0])
    assert back.resections[0].residual == 0.1
    assert back.drugs[0].drug == "x"


SLOW = {"kill_rate": "0.1 1/day", "half_life": "2 day", "reference_dose": "100 mg/m^2", "absorption_half_life": "6 h"}


def test_who_reads_the_results_is_told_what_was_not_simulated(patient: Patient) -> None:
    late = scenario([radiation(first_day=33)])
    assert "25 of 30 fractions fall on or after the horizon" in late.notes(late.plans(patient))[0]
    twice = scenario([radiation(fractions=4, schedule={"per_day": 2})])
    assert "State response.repair_half_time" in twice.notes(twice.plans(patient))[0]
    fine = scenario([radiation(fractions=4, schedule={"per_day": 2})], response={"repair_half_time": "1.5 h"})
    assert fine.notes(fine.plans(patient)) == []


def test_two_resections_travel_in_order_of_time(patient: Patient, tmp_path: Path) -> None:
    """Listed the wrong way round; each keeps its own cavity when the run's scenario is run again."""
    patient.save(tmp_path / "patient")
    core = tumour_masks(patient).core
    voxels = np.argwhere(core)
    small = np.zeros_like(core)
    small[tuple(voxels[len(voxels) // 2])] = True
    for name, mask in (("late", core), ("early", small)):
        write_nifti(tmp_path / f"{name}.nii.gz", mask.astype(np.uint8), patient.grid)
    cuts = [{"resection": {"day": day, "cavity": f"{name}.nii.gz"}} for day, name in ((20, "late"), (3, "early"))]
    content = {"schema_version": 1, "patient": "patient", "horizon": "30 days", "report_days": [0], "arms": {"a": cuts}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    run = compare(Scenario.load(tmp_path / "s.yaml"), tmp_path / "run", images=False, cell_size=small_run.COARSE)
    plan = Scenario.load(run.scenario_path).plans(patient)["a"]
    assert [(cut.day, int(cut.cavity.sum())) for cut in plan.resections] == [(3, 1), (20, int(core.sum()))]


def test_arms_named_like_files_of_others_keep_their_plans(patient: Patient, tmp_path: Path) -> None:
    patient.save(tmp_path / "patient")
    arms = {name: [radiation()] for name in ("rt_course1", "rt", "rt.course1")}
    content = {"schema_version": 1, "patient": "patient", "horizon": "30 days", "report_days": [0], "arms": arms}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    run = compare(Scenario.load(tmp_path / "s.yaml"), tmp_path / "run", images=False, cell_size=small_run.COARSE)
    assert len(run.arms()) == 4
    for name in ("A", "rt."):
        with pytest.raises(InputError, match="more than capitals"):
            scenario([], arms={"a": [], name: []})


def test_structures_beyond_the_brain_get_the_dose(patient: Patient) -> None:
    """An eye lies outside the tissue map; a shifted dose file keeps what it gives there."""
    outside = np.argwhere(~patient.tissue.head)
    eye = np.zeros(patient.grid.shape, bool)
    eye[tuple(outside[len(outside) // 2])] = True
    named = replace(patient, structures={"Eye_L": eye})
    assert plan_of(patient, radiation()).courses[0].dose.values[eye].max() == 0
    given = plan_of(named, radiation()).courses[0].dose
    assert given.values[eye].min() > 0
    planned = replace(named, dose=given)
    error = {"shift": ["0.1 mm", "0 mm", "0 mm"]}
    moved = plan_of(planned, radiation(target=None, dose="patient", setup_error=error)).courses[0].dose
    assert moved.values[eye].min() > 0.5 * given.values[eye].min()


@pytest.mark.parametrize(
    ("arm", "why"),
    [
        (radiation(prescription="0 Gy", boost={"prescription": "10 Gy"}), "course with a dose of its own"),
        (radiation(ctv_margin="15 m"), "at most 100 mm"),
        (radiation(setup_error={"shift": ["4 m", "0 mm", "0 mm"]}), "at most 100 mm"),
        (radiation(schedule={"gap": "6 h"}), "several fractions a day"),
        (radiation(schedule={"pauses": [{"after": 30, "rest": "3 days"}]}), "before the last of 30"),
        (radiation(first_day=5.8, schedule={"per_day": 2}), "before midnight"),
        ({"chemotherapy": {"drug": "x", "dose": "50 mg/m2", "first_day": 3, "every": "42 days"}}, "cycles and every"),
        ({"chemotherapy": {"drug": "x", "dose": "200 g/m^2", "first_day": 3}}, "mg/m²"),
        ({"chemotherapy": {"drug": "x", "dose": "1 mg/m2", "days": [3, 3]}}, "every day once"),
        ({"resection": {"cavity": "cores"}}, "core, whole"),
        ({"radiation": {**COURSE, "first_day": "14 days"}}, "plain number of days"),
    ],
)
def test_what_would_be_ignored_or_mistaken_is_refused(patient: Patient, arm: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        scenario([arm], response={"drugs": {"x": SLOW}}).plans(patient)
    plan_of(patient, radiation(prescription="0 Gy", boost={"prescription": "0 Gy"}))


def test_a_file_that_is_called_after_the_patient_names_no_arm() -> None:
    grid = {"prescription": "60 Gy", "fractions": 30, "first_day": ["2024-03-18", 20], "dose": ["DOE^J/a.dcm", "b.dcm"]}
    found = scenario([], arms={"grid": grid}, baseline_date="2024-03-01").arms
    assert list(found) == [f"60Gy-30fx-day{day}-dose{k}" for day in (17, 20) for k in (1, 2)]


def test_the_boost_counts_in_the_figures_and_is_said(patient: Patient) -> None:
    plan = plan_of(patient, radiation(boost={"prescription": "75 Gy"}, setup_error={"shift": ["2 mm", "0 mm", "0 mm"]}))
    found = dose_figures(plan, tumour_masks(patient).core, 10.0)
    assert found["boost_Gy"] == 75
    assert found["BED_Gy"] == pytest.approx(75 * (1 + 2.5 / 10))
    said = treatment(plan, 60)
    assert "60 Gy, with a boost to 75 Gy, in 30 fractions" in said
    assert "shifted by 2, 0, 0 mm" in said


def test_cells_are_small_where_there_is_surgery(patient: Patient) -> None:
    """The wall of a cavity is sharp: what is left right after surgery is what the voxels say, within a few per cent."""
    grown = small_run.small_patient()
    density = grown.density.values
    cut = np.zeros_like(density, bool)
    core = np.argwhere(density > 0.3)
    cut[tuple(core.T)] = True
    plan = TherapyPlan.of(Resection(cut, grown.grid, 0.0))
    forecast = simulate(grown, plan=plan, days=(0, 30))
    left = density[~cut].sum(dtype=float) * grown.grid.voxel_volume
    assert forecast.figures["cell_size_min_mm"] < 2.0
    assert forecast.burden_curve[1, 1] == pytest.approx(left, rel=0.08)


@pytest.mark.parametrize(
    ("arm", "changes", "why"),
    [
        (radiation(target=None, dose="patient"), {}, "planned dose"),
        ({"resection": {"cavity": "structure GTV"}}, {}, "expected a structure"),
        (radiation(), {"response": {"hypoxia": "patient"}}, "map of oxygen"),
    ],
)
def test_what_a_folder_lacks_is_said_before_it_is_prepared(
    patient: Patient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arm: dict[str, Any],
    changes: dict[str, Any],
    why: str,
) -> None:
    def prepared(*_: object, **__: object) -> Patient:
        raise RuntimeError("prepared in vain")

    monkeypatch.setattr(prepare, "complete", prepared)
    patient.save(tmp_path / "patient")
    asked = scenario([arm], patient=str(tmp_path / "patient"), **changes)
    with pytest.raises(InputError, match=why):
        compare(asked, tmp_path / "run", images=False)
    assert not (tmp_path / "run").exists()
