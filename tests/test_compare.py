"""A whole run: 0 Gy is untreated byte for byte, dose only helps, and a run that was stopped ends as if it had not."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import small_run
from scipy.spatial.transform import Rotation
from test_rundir import STATISTICS, same_files

from hybridtumor import run_images
from hybridtumor.compare import compare, describe, with_reference
from hybridtumor.errors import InputError, ResourceError
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import MODALITIES, Scan
from hybridtumor.scenario import Scenario


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients") / "small"
    small_run.small_patient().save(folder)
    return folder


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    small_run.quick(monkeypatch)


@pytest.fixture(scope="module")
def finished(patient: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        small_run.quick(patch)
        out = tmp_path_factory.mktemp("runs") / "run"
        return compare(small_run.small_scenario(patient), out, cell_size=small_run.COARSE)


def test_the_folder_holds_what_other_programs_rely_on(finished: RunFolder) -> None:
    names = {p.relative_to(finished.root).as_posix() for p in finished.root.rglob("*") if p.is_file()}
    expected = {"manifest.json", "summary.json", "scenario.yaml", "mesh.vtu", "report.html", "patient/patient.yaml"}
    for arm in ("untreated", "stupp", "nothing"):
        for day in ("day000", "day020", "day040"):
            expected |= {f"arms/{arm}/{field}_{day}.nii.gz" for field in ("density", "log_kill")}
            ends = ("", "_mean", "_std")
            expected |= {f"arms/{arm}/mri/{day}_{name}{end}.nii.gz" for name in MODALITIES for end in ends}
            expected.add(f"arms/{arm}/mri/{day}_seg.nii.gz")
    assert expected <= names
    assert {name for name in names if "/mri/" in name and name.endswith(".gz")} <= expected
    assert "arms/stupp/dose.nii.gz" in names
    assert not [name for name in names if ".tmp" in name or name.endswith(".lock")]
    assert {name.split("/")[0] for name in names} == {
        "arms", "manifest.json", "mesh.vtu", "patient", "pictures", "plans", "report.html", "scenario.yaml",
        "summary.json",
    }  # fmt: skip


@pytest.mark.law("therapy", "A prescription of 0 Gy is no treatment: every file byte for byte, images included")
def test_nothing_given_is_untreated_in_every_file(finished: RunFolder) -> None:
    assert same_files(finished.arm_path("untreated"), finished.arm_path("nothing"))
    assert not same_files(finished.arm_path("untreated"), finished.arm_path("stupp"))


def test_summary_says_what_the_images_hold(finished: RunFolder) -> None:
    summary = finished.load_summary()
    assert summary["patient"] == "small"
    assert summary["horizon_days"] == 40
    assert summary["mesh"]["cells"] > summary["mesh"]["dofs"] > 100
    assert list(summary["arms"]) == ["untreated", "stupp", "nothing"]
    for name, arm in summary["arms"].items():
        assert arm["days"] == [0, 20, 40]
        assert arm["max_displacement_mm"] == [0, 0, 0]
        for day, burden, edema in zip(arm["days"], arm["burden_mm3"], arm["volume_mm3"]["edema"], strict=True):
            density = Scan.load(finished.field_path(name, "density", day))
            assert burden == pytest.approx(density.values.sum(dtype=float) * density.grid.voxel_volume, rel=1e-5)
            damaged = finished.field_path(name, "damaged", day)
            assert damaged.exists() == (name == "stupp")
            imaged = density.values + (Scan.load(damaged).values if damaged.exists() else 0)
            visible = (imaged > 0.2) & (imaged <= 0.6)
            assert edema == pytest.approx(visible.sum() * density.grid.voxel_volume)
        assert arm["mri"]["samples"] == 2
        assert arm["burden_curve"]["burden_mm3"][-1] == pytest.approx(arm["burden_mm3"][-1], rel=1e-3)
    dose = summary["arms"]["stupp"]["dose"]
    assert dose["prescribed_Gy"] == 60
    assert dose["BED_Gy"] == pytest.approx(72)
    assert dose["EQD2_Gy"] == pytest.approx(60)
    assert 55 < dose["mean_tumour_Gy"] < 66
    assert summary["arms"]["untreated"]["dose"] is None
    assert summary["arms"]["nothing"]["dose"] is None


def test_treatment_never_gives_more_tumour(finished: RunFolder) -> None:
    arms = finished.load_summary()["arms"]
    assert arms["stupp"]["burden_mm3"][0] == arms["untreated"]["burden_mm3"][0]
    assert arms["stupp"]["burden_mm3"][-1] < 0.8 * arms["untreated"]["burden_mm3"][-1]
    for day in (0.0, 20.0, 40.0):
        treated, untreated = (finished.load_field(arm, "density", day) for arm in ("stupp", "untreated"))
        assert (treated <= untreated + 1e-6).all()


def test_the_image_is_a_sample_and_outside_the_mask_the_baseline_bit_for_bit(finished: RunFolder) -> None:
    baseline = finished.load_patient().baseline
    for arm, day in (("untreated", 20.0), ("stupp", 40.0)):
        inside = finished.load_field(arm, "density", day) != finished.load_field(arm, "density", 0.0)
        assert inside.any()
        assert not inside.all()
        for name in MODALITIES:
            paths = {kind: finished.scan_path(arm, name, day, kind) for kind in STATISTICS}
            sample, mean, std = (Scan.load(path).values for path in paths.values())
            assert np.array_equal(sample[~inside], baseline.scans[name].values[~inside])
            assert np.array_equal(mean[~inside], baseline.scans[name].values[~inside])
            assert not std[~inside].any()
            # of two samples, the mean lies one standard deviation from each
            assert np.allclose(np.abs(sample - mean)[inside], std[inside], atol=1e-3)
            assert std[inside].mean() > 1
            sidecars = (
                json.loads(Path(f"{path}".removesuffix(".nii.gz") + ".json").read_text()) for path in paths.values()
            )
            said = ["one of 2 samples", "mean of 2 samples", "standard deviation over 2 samples"]
            assert [sidecar["statistic"] for sidecar in sidecars] == said


def test_images_lie_on_the_patients_grid(finished: RunFolder) -> None:
    grid = small_run.small_patient().grid
    for path in finished.root.rglob("arms/**/*.nii.gz"):
        image = nib.load(path)
        assert image.shape == grid.shape
        assert np.allclose(image.affine, grid.affine)
        assert image.header.get_xyzt_units()[0] == "mm"


def test_manifest_names_no_place_on_this_disk(finished: RunFolder, patient: Path) -> None:
    text = (finished.root / "manifest.json").read_text() + (finished.root / "scenario.yaml").read_text()
    assert str(patient.parent) not in text
    assert str(finished.root) not in text
    manifest = json.loads((finished.root / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {p.name for p in patient.iterdir() if p.suffix in {".gz", ".yaml"}}
    assert manifest["seeds"] == {"refine": 3}
    assert manifest["mpi_size"] == 1
    assert {"patient", "mesh", "simulate stupp", "refine stupp", "report"} <= set(manifest["stages"])


def test_the_scenario_in_the_folder_runs_again_alike(finished: RunFolder, tmp_path: Path) -> None:
    scenario = Scenario.load(finished.scenario_path)
    again = compare(scenario, tmp_path / "again", images=False, cell_size=small_run.COARSE)
    for arm in finished.arms():
        assert again.figures(arm) == finished.figures(arm)


class StoppedError(Exception):
    """What a killed process does not raise; it only has to end the run here."""


@pytest.mark.law("runs", "A run that was stopped goes on and ends the same: every file byte for byte")
@pytest.mark.parametrize("stage", ["simulate stupp", "refine nothing", "report"])
def test_a_stopped_run_goes_on_and_ends_the_same(
    finished: RunFolder, patient: Path, tmp_path: Path, stage: str
) -> None:
    def stop(name: str, share: float) -> None:
        if name == stage and share > 0:
            raise StoppedError

    scenario, out = small_run.small_scenario(patient), tmp_path / "run"
    with pytest.raises(StoppedError):
        compare(scenario, out, cell_size=small_run.COARSE, progress=stop)
    with pytest.raises(InputError, match="--resume"):
        compare(scenario, out, cell_size=small_run.COARSE)
    calls = small_run.StandInRefiner.calls
    folder = compare(scenario, out, resume=True, cell_size=small_run.COARSE)
    assert same_files(folder.root / "arms", finished.root / "arms")
    assert (folder.root / "summary.json").read_bytes() == (finished.root / "summary.json").read_bytes()
    if stage == "report":
        assert small_run.StandInRefiner.calls == calls  # finished stages are not done again


@pytest.mark.law("runs", "The same with an oblique scanner")
def test_an_oblique_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    turn = Rotation.from_euler("xyz", (0.3, -0.2, 0.1)).as_matrix()
    small_run.small_patient(turn=turn).save(tmp_path / "patient")
    scenario = small_run.small_scenario(tmp_path / "patient")

    def stop(name: str, share: float) -> None:
        if name == "simulate stupp" and share > 0:
            raise StoppedError

    options: dict[str, Any] = {"images": False, "cell_size": small_run.COARSE}
    whole = compare(scenario, tmp_path / "whole", **options)
    with pytest.raises(StoppedError):
        compare(scenario, tmp_path / "stopped", **options, progress=stop)
    stopped = compare(scenario, tmp_path / "stopped", **options, resume=True)
    assert same_files(whole.root / "arms", stopped.root / "arms")


def test_resume_refuses_another_scenario(finished: RunFolder, patient: Path) -> None:
    other = small_run.small_scenario(patient, horizon="41 days")
    with pytest.raises(InputError, match="scenario"):
        compare(other, finished.root, resume=True, cell_size=small_run.COARSE)
    with pytest.raises(InputError, match="scenario"):
        compare(small_run.small_scenario(patient), finished.root, resume=True, cell_size="5 mm")


def test_a_file_that_cannot_be_written_leaves_the_finished_ones(
    patient: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_forecast", full)
        with pytest.raises(OSError, match="No space"):
            compare(small_run.small_scenario(patient), tmp_path / "run", cell_size=small_run.COARSE)
    folder = RunFolder.open(tmp_path / "run")
    assert folder.finished("patient")
    assert folder.arms() == ()
    assert not (folder.root / ".lock").exists()


def test_an_untreated_arm_is_added_when_there_is_none(patient: Path) -> None:
    arms = {"stupp": [small_run.radiation("60 Gy", 30)]}
    scenario = with_reference(small_run.small_scenario(patient, arms=arms))
    assert list(scenario.arms) == ["untreated", "stupp"]
    assert with_reference(scenario) == scenario
    taken = small_run.small_scenario(patient, arms={"untreated": [small_run.radiation("60 Gy", 30)]})
    assert list(with_reference(taken).arms) == ["no-treatment", "untreated"]


def test_dose_files_travel_with_the_run(finished: RunFolder, patient: Path, tmp_path: Path) -> None:
    shutil.copy(finished.arm_path("stupp") / "dose.nii.gz", tmp_path / "given.nii.gz")
    course = {
        "prescription": "60 Gy",
        "fractions": 30,
        "first_day": 5,
        "dose": str(tmp_path / "given.nii.gz"),
        "dose_unit": "Gy",
    }
    scenario = small_run.small_scenario(patient, arms={"given": [{"radiation": course}]})
    before = describe(scenario, small_run.COARSE)
    assert "file of given, treatment 1" in before.inputs
    folder = compare(scenario, tmp_path / "run", images=False, cell_size=small_run.COARSE)
    (tmp_path / "given.nii.gz").unlink()
    kept = Scenario.load(folder.scenario_path)
    again = compare(kept, tmp_path / "again", images=False, cell_size=small_run.COARSE)
    assert again.figures("given") == folder.figures("given")


@pytest.mark.law("runs", "Images made again from a run folder are the same, byte for byte")
def test_refine_needs_nothing_but_the_run(finished: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished.root, out)
    shutil.rmtree(out / "arms" / "stupp" / "mri")
    folder = run_images.refine_run(out)
    assert same_files(folder.root / "arms", finished.root / "arms")
    stale = out / "arms" / "stupp" / "mri" / "day020_T1w_old.nii.gz"
    stale.touch()
    other = run_images.refine_run(out, samples=1, seed=9)
    assert not stale.exists()
    means = [other.scan_path("stupp", name, 20.0, kind) for name in MODALITIES for kind in STATISTICS]
    assert all(path.exists() for path in means)
    assert other.load_summary()["arms"]["stupp"]["mri"]["seed"] == 9
    assert not same_files(other.root / "arms", finished.root / "arms")
    assert Scenario.load(other.scenario_path).refine.samples == 1
    with pytest.raises(InputError, match="1 to 256 samples"):
        run_images.refine_run(out, samples=0)


def test_missing_weights_are_a_resource(patient: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ResourceError("weights: expected a file, found none.")

    monkeypatch.setattr(small_run.StandInRefiner, "load", missing)
    with pytest.raises(ResourceError):
        compare(small_run.small_scenario(patient), tmp_path / "run", cell_size=small_run.COARSE)
    assert not (tmp_path / "run").exists()  # told before the minutes of the growth layer, not after
