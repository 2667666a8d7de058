"""The scenario file: what it says is planned, what it must not say is refused with place, reason and remedy."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridtumor.demo import single_plan_scenario
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import Scan
from hybridtumor.scenario import Scenario, json_schema
from hybridtumor.targets import RECIPES
from hybridtumor.therapy import Chemotherapy, DoseMap
from hybridtumor.tissue import TissueMap
from hybridtumor.treatments import Radiation
from hybridtumor.units import format_quantity, magnitude

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "dose_what_if.yaml"
ISSUE = """
schema_version: 1
patient: mni152
horizon: 180 days
report_days: [0, 60, 120, 180]
growth:
  {diffusion_white: "0.13 mm^2/day", diffusion_grey: "0.013 mm^2/day", proliferation: "0.025 1/day", law: logistic}
response: {alpha: "0.035 1/Gy", alpha_beta: "10 Gy", temozolomide: "0.15 1/day"}
mechanics: {growth_strain: 0.15}
arms:
  untreated: []
  stupp:
    - radiation: {prescription: "60 Gy", fractions: 30, first_day: 14, target: estro-eano-2023}
    - chemotherapy: {drug: temozolomide, first_day: 14}
  short-course:
    - radiation: {prescription: "40 Gy", fractions: 15, first_day: 14, target: estro-eano-2023}
refine: {samples: 4, seed: 0}
"""
GRID = Grid((40, 40, 40), np.eye(4))


def example() -> dict:
    return copy.deepcopy(yaml.safe_load(ISSUE))


def with_radiation(**changes: object) -> dict:
    """The example with another radiation course in the arm stupp; None removes a key."""
    content = example()
    course = {**content["arms"]["stupp"][0]["radiation"], **changes}
    content["arms"]["stupp"][0]["radiation"] = {key: value for key, value in course.items() if value is not None}
    return content


@pytest.fixture(scope="module")
def patient() -> Patient:
    world = GRID.world(np.moveaxis(np.indices(GRID.shape), 0, -1))
    density = np.exp(-(np.linalg.norm(world - 20, axis=-1) ** 2) / 40).astype(np.float32)
    zeros, ones = np.zeros(GRID.shape, np.float32), np.ones(GRID.shape, np.float32)
    return Patient(
        "phantom",
        (Visit(0, {"T1w": Scan(zeros, GRID)}),),
        tissue=TissueMap(ones, zeros, zeros, GRID),
        density=Scan(density, GRID),
    )


def refused(content: object) -> str:
    with pytest.raises(InputError) as caught:
        Scenario.parse(content)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_shipped_example_is_the_scenario_of_the_three_arms() -> None:
    assert Scenario.load(EXAMPLE) == Scenario.parse(example())


def test_quantities_arrive_as_floats_in_the_fields_units() -> None:
    content = example()
    content["horizon"], content["growth"]["diffusion_white"] = "26 week", "0.0013 cm²/day"
    scenario = Scenario.parse(content)
    assert scenario.horizon == pytest.approx(182)
    assert scenario.growth.diffusion_white == pytest.approx(0.13)
    assert Scenario.parse(with_radiation(prescription="6000 cGy")).arms["stupp"][
        0
    ].radiation.prescription == pytest.approx(60)


def test_day_zero_and_the_horizon_are_always_reported() -> None:
    content = example()
    content["report_days"] = [60, 90.5]
    assert Scenario.parse(content).report_days == (0, 60, 90.5, 180)


def test_written_scenario_loads_again_equal_from_anywhere(tmp_path: Path) -> None:
    content = with_radiation(target=None, dose="dose.nii.gz", dose_unit="cGy", prescription="59.4 Gy")
    content["patient"], content["growth"]["proliferation"] = "../patients/007", "1 1/month"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "s.yaml").write_text(yaml.safe_dump(content))
    scenario = Scenario.load(tmp_path / "a" / "s.yaml")
    assert scenario.patient == str(tmp_path / "patients" / "007")
    assert scenario.arms["stupp"][0].radiation.dose == str(tmp_path / "a" / "dose.nii.gz")
    scenario.save(tmp_path / "b" / "c" / "scenario.yaml")
    assert Scenario.load(tmp_path / "b" / "c" / "scenario.yaml") == scenario
    assert Scenario.load(tmp_path / "b" / "c" / "scenario.yaml").to_yaml() == scenario.to_yaml()


@given(st.floats(1e-12, 1e12))
def test_a_quantity_is_written_without_loss(value: float) -> None:
    assert magnitude(format_quantity(value, "mm^2/day"), "mm^2/day") == value


def test_plans_give_what_the_file_says(patient: Patient) -> None:
    plans = Scenario.parse(example()).plans(patient)
    assert list(plans) == ["untreated", "stupp", "short-course"]
    assert plans["untreated"].courses == plans["untreated"].drugs == ()
    course = plans["stupp"].courses[0]
    assert (course.fractions, course.first_day, course.prescribed_dose) == (30, 14, 60)
    assert course.fraction_days[:6] == (14, 15, 16, 17, 18, 21)
    assert plans["stupp"].drugs == (Chemotherapy.temozolomide(14),)
    np.testing.assert_allclose(plans["short-course"].courses[0].dose.values, course.dose.values * (2 / 3), rtol=1e-6)
    tumour = patient.density.values > 0.6
    assert (course.dose.values[tumour] == 60).all()


def test_equal_doses_are_built_once(patient: Patient) -> None:
    content = example()
    content["arms"]["radiation-only"] = content["arms"]["stupp"][:1]
    plans = Scenario.parse(content).plans(patient)
    assert plans["radiation-only"].courses[0].dose is plans["stupp"].courses[0].dose


def test_no_gray_is_no_treatment(patient: Patient) -> None:
    content = with_radiation(prescription="0 Gy")
    del content["arms"]["stupp"][1]
    plan = Scenario.parse(content).plans(patient)["stupp"]
    assert plan.active.courses == plan.active.drugs == ()


@settings(max_examples=10, deadline=None)
@given(less=st.floats(0, 100), more=st.floats(0, 100))
def test_more_prescription_is_never_less_dose(less: float, more: float, patient: Patient) -> None:
    content = with_radiation(prescription=f"{less!r} Gy")
    content["arms"]["more"] = copy.deepcopy(content["arms"]["stupp"])
    content["arms"]["more"][0]["radiation"]["prescription"] = f"{less + more!r} Gy"
    plans = Scenario.parse(content).plans(patient)
    assert (plans["more"].courses[0].dose.values >= plans["stupp"].courses[0].dose.values).all()


def test_margins_fall_off_and_days_can_be_stated(patient: Patient) -> None:
    wide = Scenario.parse(with_radiation(ptv_margin="5 mm", falloff="2 cm", first_day=None, fractions=2, days=[3, 4.5]))
    course = wide.plans(patient)["stupp"].courses[0]
    assert course.fraction_days == (3, 4.5)
    plain = Scenario.parse(example()).plans(patient)["stupp"].courses[0]
    assert (course.dose.values >= plain.dose.values).all()
    assert course.dose.values.sum() > plain.dose.values.sum()


def test_every_recipe_can_be_asked_for() -> None:
    for recipe in RECIPES:
        assert Scenario.parse(with_radiation(target=recipe)).arms["stupp"][0].radiation.target == recipe


def test_dose_file_is_given_as_it_is(tmp_path: Path, patient: Patient) -> None:
    Scan(np.full(GRID.shape, 6000, np.float32), GRID).save(tmp_path / "plan.nii.gz")
    content = with_radiation(target=None, dose="plan.nii.gz", dose_unit="cGy")
    course = Scenario.parse(content, folder=tmp_path).plans(patient)["stupp"].courses[0]
    np.testing.assert_allclose(course.dose.values, 60)
    with pytest.raises(InputError, match=r"arm stupp: .*looks like cGy"):
        Scenario.parse(with_radiation(target=None, dose="plan.nii.gz", dose_unit="Gy"), folder=tmp_path).plans(patient)


@pytest.mark.parametrize(("level", "unit"), [(60, "cGy"), (2, "Gy"), (150, "Gy")])
def test_dose_file_that_does_not_belong_to_the_prescription_is_refused(
    level: float, unit: str, tmp_path: Path, patient: Patient
) -> None:
    """Gray declared as centigray, the dose of one fraction, another plan."""
    Scan(np.full(GRID.shape, level, np.float32), GRID).save(tmp_path / "plan.nii.gz")
    content = with_radiation(target=None, dose="plan.nii.gz", dose_unit=unit)
    with pytest.raises(InputError, match="expected a maximum near the prescription of 60 Gy"):
        Scenario.parse(content, folder=tmp_path).plans(patient)


def test_dose_file_on_another_grid_that_misses_the_tumour_is_refused(tmp_path: Path, patient: Patient) -> None:
    away = Grid(GRID.shape, np.array([[1, 0, 0, 200], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    Scan(np.full(GRID.shape, 60, np.float32), away).save(tmp_path / "plan.nii.gz")
    content = with_radiation(target=None, dose="plan.nii.gz", dose_unit="Gy")
    with pytest.raises(InputError, match="covers the tumour"):
        Scenario.parse(content, folder=tmp_path).plans(patient)


def test_planned_dose_of_the_patient_folder(patient: Patient) -> None:
    content = with_radiation(target=None, dose="patient")
    with pytest.raises(InputError, match="expected a planned dose"):
        Scenario.parse(content).plans(patient)
    planned = DoseMap(np.full(GRID.shape, 60, np.float32), GRID)
    with_dose = Patient("p", patient.visits, patient.tissue, patient.density, planned)
    assert Scenario.parse(content).plans(with_dose)["stupp"].courses[0].dose is planned


def test_unprepared_patient_is_refused_where_a_target_is_asked_for(patient: Patient) -> None:
    bare = Patient("p", patient.visits, density=patient.density)
    with pytest.raises(InputError, match=r"arm stupp: .*expected tissue fractions"):
        Scenario.parse(example()).plans(bare)


def test_plan_file_is_the_list_of_one_arm(tmp_path: Path, patient: Patient) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(example()["arms"]["stupp"]))
    plan = single_plan_scenario("mni152", tmp_path / "my.yaml", 180, 60).plans(patient)["my"]
    expected = Scenario.parse(example()).plans(patient)["stupp"]
    np.testing.assert_array_equal(plan.courses[0].dose.values, expected.courses[0].dose.values)
    assert plan.drugs == expected.drugs
    (tmp_path / "bad.yaml").write_text("- radiotherapy: {}")
    with pytest.raises(InputError, match=r"bad\.yaml: arms\.bad\[0\]\.radiotherapy: unknown key"):
        single_plan_scenario("mni152", tmp_path / "bad.yaml", 180, 60)
    course = {"prescription": "60 Gy", "fractions": 30, "first_day": "2024-03-18", "target": "gtv"}
    (tmp_path / "dated.yaml").write_text(yaml.safe_dump([{"radiation": course}]))
    with pytest.raises(InputError, match="baseline_date"):
        single_plan_scenario("mni152", tmp_path / "dated.yaml", 180, 60)
    dated = single_plan_scenario("mni152", tmp_path / "dated.yaml", 180, 60, baseline_date="2024-03-01")
    assert dated.arms["dated"][0].first_day == 17


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema_version": 2}, "schema_version: expected 1, got 2"),
        ({"schema_version": None}, "schema_version: expected 1, got None"),
        ({"horizons": 3}, "horizons: unknown key. Did you mean horizon?"),
        ({"horizon": 180}, "horizon: expected text with a unit such as '1 day', got 180. Add the unit."),
        ({"horizon": "180 Gy"}, "horizon: expected a quantity in day, got '180 Gy', which has another dimension."),
        ({"horizon": "0 days"}, "horizon: expected a horizon after day 0"),
        ({"horizon": "1e999 days"}, "horizon: expected a finite quantity"),
        ({"report_days": [0, 60, 30]}, "report_days: expected ascending days"),
        ({"report_days": [0, 181]}, "report_days: expected days within the horizon of 180 days, got 181"),
        ({"report_days": ["60 days"]}, "report_days[0]: expected a plain number of days or a date"),
        ({"report_days": [-1]}, "report_days[0]: expected greater than or equal to 0, got -1"),
        ({"report_days": []}, "report_days: expected at least one day"),
        ({"report_days": [float("inf")]}, "report_days[0]: expected a finite number, got inf"),
        ({"arms": {}}, "arms: expected at least one entry, got {}"),
        ({"arms": {"../evil": []}}, "arms.../evil: expected a name of letters, digits, '_' and '-'"),
        ({"arms": {"a": [{}]}}, "arms.a[0]: expected exactly one of radiation, chemotherapy and resection"),
        ({"arms": {"a": {"radiation": {}}}}, "arms.a: expected a list, got {'radiation': {}}"),
        ({"arms": {"a": ["radiation"]}}, "arms.a[0]: expected a mapping (key: value), got 'radiation'"),
        ({7: 8}, "[7]: expected a key that is text, got 7"),
        ({"growth": {"law": "linear"}}, "growth.law: expected 'logistic', 'gompertz' or 'exponential', got 'linear'"),
        ({"growth": {"diffusion_white": "-1 mm^2/day"}}, "growth: expected positive diffusivities"),
        ({"response": {"alpha": "0.035 Gy"}}, "response.alpha: expected a quantity in 1/Gy"),
        ({"refine": {"samples": 0}}, "refine.samples: expected greater than or equal to 1, got 0"),
        ({"refine": {"seed": "zero"}}, "refine.seed: expected a valid integer, got 'zero'"),
        ({"patient": 7}, "patient: expected a valid string, got 7"),
    ],
)
def test_bad_scenarios_are_refused_with_place_and_reason(changes: dict, expected: str) -> None:
    assert expected in refused({**example(), **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prescription": 60}, "prescription: expected text with a unit such as '1 Gy', got 60. Add the unit."),
        ({"prescription": "60"}, "prescription: expected a quantity in Gy, got '60' without a unit"),
        ({"prescription": "60 Sv"}, "prescription: expected an absorbed dose in Gy, got '60 Sv'"),
        ({"prescription": "6000 Gy"}, "prescription: expected at most 200 Gy, got 6000 Gy, which looks like cGy"),
        ({"prescription": "-2 Gy"}, "prescription: expected a dose that is not negative, got -2 Gy"),
        (
            {"prescription": "60 mg"},
            "prescription: expected a quantity in Gy, got '60 mg', which has another dimension",
        ),
        ({"prescripton": "60 Gy"}, "prescripton: unknown key. Did you mean prescription?"),
        ({"fractions": None}, "fractions: expected this key, it is missing. Add it."),
        ({"fractions": 0}, "fractions: expected greater than or equal to 1, got 0"),
        ({"fractions": 2.5}, "fractions: expected a valid integer, got 2.5"),
        ({"first_day": -1}, "first_day: expected greater than or equal to 0, got -1"),
        ({"first_day": None}, "expected either first_day or days"),
        ({"first_day": None, "days": [1, 2]}, "days: expected one day for each of 30 fractions, got 2"),
        ({"first_day": 180}, "arms.stupp: expected treatments that start before the horizon of 180 days"),
        ({"target": "estro"}, "target: expected 'estro-eano-2023', 'eortc-2016', 'rtog' or 'gtv', got 'estro'"),
        ({"target": None}, "expected either a target (a recipe) or a dose (a file)"),
        ({"dose": "plan.nii.gz", "dose_unit": "Gy"}, "expected either a target (a recipe) or a dose (a file)"),
        ({"target": None, "dose": "plan.nii.gz"}, "dose_unit: expected Gy or cGy with a dose file"),
        ({"target": None, "dose": "plan.nii.gz", "dose_unit": "Sv"}, "dose_unit: expected 'Gy' or 'cGy', got 'Sv'"),
        ({"dose_unit": "Gy"}, "dose_unit, dose_is: expected only with a dose file"),
        (
            {"target": None, "dose": "patient", "falloff": "1 mm"},
            "ctv_margin, ptv_margin, falloff and boost shape the dose around a target",
        ),
        ({"ptv_margin": "-1 mm"}, "expected margins that are not negative"),
        ({"falloff": "0 mm"}, "a falloff that is positive"),
    ],
)
def test_bad_radiation_is_refused_with_place_and_reason(changes: dict, expected: str) -> None:
    message = refused(with_radiation(**changes))
    assert expected in message
    assert "arms.stupp" in message


def test_unknown_drug_is_refused() -> None:
    content = example()
    content["arms"]["stupp"][1]["chemotherapy"] = {"drug": "aspirin", "first_day": 14}
    assert "expected the dose of one administration" in refused(content)
    content["arms"]["stupp"][1]["chemotherapy"]["dose"] = "1 mg/m^2"
    assert "expected the response to 'aspirin' under response.drugs, found temozolomide" in refused(content)


def test_all_that_is_wrong_is_said_at_once() -> None:
    message = refused({**example(), "horizon": 180, "colour": "red"})
    assert message.startswith("scenario: 2 places to mend:")
    assert "horizon: " in message
    assert "colour: unknown key" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ISSUE + "horizon: 90 days\n", "occurs twice"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("x: !!python/object/apply:os.system ['true']\n", "plain YAML"),
        ("schema_version: [", "plain YAML"),
        ("- 1\n", "file: expected a mapping (key: value), got [1]"),
        ("", "file: expected a mapping (key: value), got None"),
        ("#" * 1_000_001, "at most"),
    ],
)
def test_files_that_are_not_plain_yaml_are_refused(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"s\.yaml") as caught:
        Scenario.load(path)
    assert expected in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        Scenario.load(tmp_path / "none.yaml")


def test_json_schema_in_the_docs_is_up_to_date() -> None:
    path = ROOT / "docs" / "scenario.schema.json"
    remedy = "Write hybridtumor.scenario.json_schema() to docs/scenario.schema.json."
    assert path.read_text() == json_schema(), remedy


def test_json_schema_knows_the_keys_of_the_example() -> None:
    schema = json.loads(json_schema())
    assert set(example()) | {"baseline_date", "baseline_weekday"} == set(schema["properties"])
    assert "grid" in schema["properties"]["arms"]["properties"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["horizon"]["type"] == "string"
    assert set(schema["$defs"]["Radiation"]["properties"]) == set(Radiation.model_fields)
