"""Draws: the arms of a draw differ by their treatment alone, and no uncertainty gives the estimate's run again."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
from small_calibration import ZERO, small_calibration
from test_rundir import same_files

from hybridtumor import cli, draws_file, run_report
from hybridtumor.calibration_file import FILE_NAME, Calibration
from hybridtumor.compare import compare
from hybridtumor.draws import DrawOptions, DrawSetting
from hybridtumor.draws_pool import run_draws
from hybridtumor.draws_summary import draws_figures, quantiles, times, wilson
from hybridtumor.errors import InputError
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import Scan
from hybridtumor.scenario import Scenario

OPTIONS: dict[str, Any] = {"images": False, "cell_size": small_run.COARSE}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients") / "small"
    small_run.small_patient().save(folder)
    return folder


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    small_run.quick(monkeypatch)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report out: pictures take longer than this patient's tumour."""
    monkeypatch.setattr(run_report, "write_report", lambda *_, **__: None)


def saved(folder: Path, calibration: Calibration) -> Path:
    calibration.save(folder / FILE_NAME)
    return folder


@pytest.fixture(scope="module")
def drawn(patient: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three arms and four draws of them."""
    root = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        small_run.quick(patch)
        return compare(
            small_run.small_scenario(patient),
            root / "run",
            calibration=saved(root, small_calibration()),
            draws=DrawOptions(4, seed=2),
            **OPTIONS,
        )


def rows(folder: RunFolder) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder.root / "draws.csv").read_text())))


# --- the estimate


@pytest.mark.usefixtures("no_report")
@pytest.mark.law("runs", "A run with a calibration is that with its estimate stated by hand: every file byte for byte")
def test_the_estimate_is_simulated(drawn: RunFolder, patient: Path, tmp_path: Path) -> None:
    growth = {"diffusion_white": "0.21 mm^2/day", "diffusion_grey": "0.042 mm^2/day", "proliferation": "0.04 1/day"}
    by_hand = small_run.small_scenario(patient, growth=growth, response={"alpha": "0.05 1/Gy"})
    folder = compare(by_hand, tmp_path / "run", **OPTIONS)
    assert same_files(folder.root / "arms", drawn.root / "arms")
    assert Scenario.load(drawn.scenario_path).growth == by_hand.growth


def test_the_calibration_wins_and_that_is_said(patient: Path, tmp_path: Path) -> None:
    arms = {"untreated": []}
    stated = small_run.small_scenario(
        patient,
        arms=arms,
        growth={"proliferation": "0.09 1/day", "diffusion_white": "0.21 mm^2/day", "law": "gompertz"},
    )
    calibration = saved(tmp_path, small_calibration(patient="somebody else"))
    folder = compare(stated, tmp_path / "run", calibration=calibration, **OPTIONS)
    known = folder.load_summary()["calibration"]
    assert known["notes"] == [
        "growth.proliferation: the scenario states 0.09 1/day, the calibration's 0.04 1/day is used.",
        "The calibration is of patient somebody else, this patient is small. Make sure that they are the same person.",
    ]
    assert known["parameters"]["alpha"]["estimate"] == 0.05
    assert Scenario.load(folder.scenario_path).growth.law == "gompertz"
    assert "calibration" in folder.manifest.inputs
    assert "estimate of a calibration" in folder.report_path.read_text()
    assert Calibration.load(folder.root).estimate == small_calibration().estimate


@pytest.mark.usefixtures("no_report")
def test_the_density_is_that_of_the_fit(patient: Path, tmp_path: Path) -> None:
    density = small_run.small_patient().density
    assert density is not None
    Scan(0.5 * density.values, density.grid).save(tmp_path / "fit.nii.gz")
    calibration = saved(tmp_path, small_calibration(density="fit.nii.gz"))
    scenario = small_run.small_scenario(patient, arms={"untreated": []})
    folder = compare(scenario, tmp_path / "run", calibration=calibration, **OPTIONS)
    assert np.allclose(folder.load_field("untreated", "density", 0.0), 0.5 * density.values)
    assert set(folder.manifest.inputs) >= {"calibration", "calibration, density"}
    assert Calibration.load(folder.root).density is None
    (tmp_path / "fit.nii.gz").unlink()
    with pytest.raises(InputError, match="found none"):
        compare(scenario, tmp_path / "other", calibration=calibration, **OPTIONS)
    assert not (tmp_path / "other").exists()


def test_a_calibration_of_nothing_that_can_be_simulated_is_refused(patient: Path, tmp_path: Path) -> None:
    parameters = (small_calibration().parameters[-1],)
    calibration = saved(tmp_path, small_calibration(parameters=parameters, covariance=((1.0,),), fixed={}))
    with pytest.raises(InputError, match="at least one parameter of diffusion_white"):
        compare(small_run.small_scenario(patient), tmp_path / "run", calibration=calibration, **OPTIONS)


# --- the draws


@pytest.mark.usefixtures("no_report")
@pytest.mark.law("runs", "Without uncertainty every draw is the run of the estimate: burden, volume and progression")
def test_certainty_gives_the_estimate_again(patient: Path, tmp_path: Path) -> None:
    folder = compare(
        small_run.small_scenario(patient),
        tmp_path / "run",
        calibration=saved(tmp_path, small_calibration(covariance=ZERO)),
        draws=DrawOptions(2),
        **OPTIONS,
    )
    summary = folder.load_summary()
    for name, arm in summary["arms"].items():
        found = summary["draws"]["arms"][name]
        visible = np.sum([arm["volume_mm3"][label] for label in arm["volume_mm3"]], axis=0)
        for edge in ("low", "median", "high"):
            assert found["burden_mm3"][edge] == pytest.approx(arm["burden_mm3"], abs=1e-3)
            assert found["volume_mm3"][edge] == pytest.approx(visible)
            assert found["time_to_progression_days"][edge] == arm["time_to_progression_days"] or found[
                "time_to_progression_days"
            ][edge] == pytest.approx(arm["time_to_progression_days"], abs=1e-3)
    first, second = ([row for row in rows(folder) if row["draw"] == number] for number in ("1", "2"))
    assert [row | {"draw": ""} for row in first] == [row | {"draw": ""} for row in second]


@pytest.mark.law("runs", "Draws are paired: dose beats no dose in every one, a prescription of 0 Gy in none")
def test_arms_of_a_draw_differ_by_their_treatment_alone(drawn: RunFolder) -> None:
    pairs = {frozenset((pair["arm"], pair["against"])): pair for pair in drawn.load_summary()["draws"]["pairs"]}
    assert len(pairs) == 3
    dose = pairs[frozenset(("stupp", "untreated"))]
    assert (dose["arm"], dose["beats"], dose["beaten"]) == ("stupp", 1.0, 0.0)
    assert dose["difference_mm3"]["high"] < 0
    none = pairs[frozenset(("nothing", "untreated"))]
    assert (none["beats"], none["beaten"], none["difference_mm3"]["high"]) == (0.0, 0.0, 0.0)
    table = rows(drawn)
    assert [(row["draw"], row["arm"]) for row in table[:4]] == [
        ("1", "untreated"), ("1", "stupp"), ("1", "nothing"), ("2", "untreated"),
    ]  # fmt: skip
    assert len({row["diffusion_white"] for row in table}) == 4
    for k in range(4):
        untreated, _, nothing = table[3 * k : 3 * k + 3]
        assert untreated | {"arm": ""} == nothing | {"arm": ""}


def test_draws_are_said_in_table_picture_and_report(drawn: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    summary = drawn.load_summary()
    assert summary["draws"] == json.loads((drawn.root / "draws.json").read_text())
    assert summary["draws"]["draws"] == 4
    assert drawn.manifest.seeds["draws"] == 2
    assert (drawn.pictures / "fan.png").exists()
    page = drawn.report_path.read_text()
    assert "stupp beats untreated" in page
    assert summary["draws"]["statement"] in page
    cli._print_summary(summary, drawn.report_path)
    told = capsys.readouterr().out
    assert "stupp beats untreated" in told
    assert "uncertainty of the calibrated parameters alone" in " ".join(told.split())
    curve = summary["draws"]["arms"]["untreated"]["burden_curve"]
    assert {0.0, 20.0, 40.0} <= set(curve["days"])
    assert (np.array(curve["low"]) <= np.array(curve["median"])).all()
    assert curve["low"][0] == pytest.approx(curve["high"][0])


@pytest.mark.law("runs", "Draws do not depend on the number of processes that share them")
def test_workers_cannot_be_seen(drawn: RunFolder) -> None:
    scenario, patient, calibration = Scenario.load(drawn.scenario_path), drawn.load_patient(), small_calibration()
    assert patient.tissue is not None
    assert patient.density is not None
    simulation = GrowthSimulation.prepare(
        patient.tissue, patient.density, scenario.growth, scenario.horizon, cell_size=small_run.COARSE
    )
    plans = {name: drawn.load_plan(name, patient.grid) for name in drawn.arms()}
    setting = DrawSetting.of(simulation, patient, scenario, plans, calibration)
    told: list[float] = []
    parameters = calibration.draw(4, seed=2)
    one, two = (run_draws(setting, parameters, workers, simulation, told.append) for workers in (1, 2))
    assert draws_file.table(one, setting) == draws_file.table(two, setting)
    assert draws_file.table(two, setting) == (drawn.root / "draws.csv").read_text()
    assert draws_figures(one, setting, 2) == draws_figures(two, setting, 2)
    assert told == [0.25, 0.5, 0.75, 1.0] * 2
    assert draws_figures(one, setting, 2)["notes"] == []
    steep = [(parameters[0] | {"diffusion_white": 0.03}, arms) for _, arms in one[:1]]
    assert "1 of 2 draws have a front" in draws_figures([*steep, one[1]], setting, 2)["notes"][0]


def test_two_way_mechanics_acts_in_every_draw(drawn: RunFolder) -> None:
    content = Scenario.load(drawn.scenario_path).model_dump(mode="json", exclude_none=True)
    mechanics = {"proliferation_pressure": "3 1/kPa", "interval": "20 day"}
    scenario, patient = Scenario.parse(content | {"mechanics": mechanics}, folder=drawn.root), drawn.load_patient()
    assert patient.tissue is not None
    assert patient.density is not None
    plans = {"untreated": drawn.load_plan("untreated", patient.grid)}
    values = [small_calibration().estimate]

    def burden(mechanics: Any) -> float:
        simulation = GrowthSimulation.prepare(
            patient.tissue, patient.density, scenario.growth, 40, mechanics=mechanics, cell_size=small_run.COARSE
        )
        stated = scenario.model_copy(update={"mechanics": mechanics})
        setting = DrawSetting.of(simulation, patient, stated, plans, small_calibration())
        here = run_draws(setting, values, 1, simulation, lambda _: None)[0][1]["untreated"].burden[-1]
        there = run_draws(setting, values, 1, setting.simulation(), lambda _: None)[0][1]["untreated"].burden[-1]
        assert here == there
        return here

    assert burden(scenario.mechanics) < 0.995 * burden(None)
    assert scenario.mechanics is not None
    follows = scenario.mechanics.model_copy(update={"proliferation_pressure": 0})
    assert burden(follows) == burden(None)  # mechanics that only follows is left out


class StoppedError(Exception):
    """What a killed process does not raise; it only has to end the run here."""


@pytest.mark.usefixtures("no_report")
def test_a_run_stopped_before_its_draws_goes_on(drawn: RunFolder, patient: Path, tmp_path: Path) -> None:
    def stop(stage: str, share: float) -> None:
        if stage == "draws" and share > 0.5:
            raise StoppedError

    scenario, calibration = small_run.small_scenario(patient), saved(tmp_path, small_calibration())
    given: dict[str, Any] = {"calibration": calibration, "draws": DrawOptions(4, seed=2), **OPTIONS}
    with pytest.raises(StoppedError):
        compare(scenario, tmp_path / "run", progress=stop, **given)
    assert not (tmp_path / "run" / "draws.csv").exists()
    for other in (DrawOptions(3, seed=2), DrawOptions(4, seed=1)):
        with pytest.raises(InputError, match="this run was started with"):
            compare(scenario, tmp_path / "run", resume=True, **given | {"draws": other})
    folder = compare(scenario, tmp_path / "run", resume=True, **given)
    assert (folder.root / "draws.csv").read_bytes() == (drawn.root / "draws.csv").read_bytes()


def test_draws_need_a_calibration(patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run.small_scenario(patient).save(tmp_path / "scenario.yaml")
    tokens = ["compare", str(tmp_path / "scenario.yaml"), "--out", str(tmp_path / "run"), "--no-images"]
    assert cli.main([*tokens, "--draws", "8"]) == 2
    assert "Add --calibration FILE" in capsys.readouterr().err
    assert cli.main([*tokens, "--draws", "-1", "--calibration", str(tmp_path)]) == 2
    assert "0 to 10000 draws" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_report")
def test_simulate_takes_a_calibration(patient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, small_calibration())
    tokens = ["simulate", str(patient), "--days", "20", "--every", "20", "--cell-size", small_run.COARSE]
    assert cli.main([*tokens, "--out", str(tmp_path / "run"), "--calibration", str(tmp_path / FILE_NAME)]) == 0
    assert Scenario.load(tmp_path / "run" / "scenario.yaml").growth.proliferation == 0.04
    assert cli.main([*tokens, "--out", str(tmp_path / "other"), "--calibration", str(tmp_path / "nowhere")]) == 2
    assert "expected a calibration, found none" in capsys.readouterr().err


# --- statistics


def test_intervals() -> None:
    assert wilson(32, 32) == pytest.approx((1 / (1 + 1.6449**2 / 32), 1.0), abs=1e-5)
    low, high = wilson(16, 32)
    assert low + high == pytest.approx(1)
    assert 0.36 < low < 0.37
    assert quantiles(np.arange(101.0)) == {"low": 5.0, "median": 50.0, "high": 95.0}
    assert times([10.0, None, 20.0, None, None]) == {"low": 10.0, "median": None, "high": None}
    assert times([3.0] * 4) == {"low": 3.0, "median": 3.0, "high": 3.0}
