"""The run folder keeps its promises: whole files, one writer, nothing foreign deleted, equal arrays equal bytes."""

import json
import os
import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ball_brain import ball_dose, ball_grid

from hybridtumor import plan_file
from hybridtumor.errors import InputError
from hybridtumor.follow_up import Statistic
from hybridtumor.forecast import Forecast
from hybridtumor.manifest import Manifest
from hybridtumor.run_lock import LOCK_NAME, run_lock
from hybridtumor.rundir import RunFolder, check_target, day_label, opened
from hybridtumor.scan import SYNTHETIC_NOTICE, LabelMap, Scan
from hybridtumor.therapy import Chemotherapy, Fractionation, TherapyPlan

STATISTICS: tuple[Statistic, ...] = ("sample", "mean", "std")


def forecast(days: tuple[float, ...] = (0.0, 20.0)) -> Forecast:
    grid = ball_grid()
    fields = tuple(np.full(grid.shape, 0.1 + day / 100, np.float32) for day in days)
    return Forecast(grid, days, fields, fields, np.array([[0.0, 1.0], [20.0, 2.0]]))


def figures(days: tuple[float, ...] = (0.0, 20.0)) -> dict[str, object]:
    return {"days": list(days), "burden_curve": {"days": [0.0, 20.0], "burden_mm3": [1.0, 2.0]}}


@pytest.mark.parametrize(("day", "label"), [(0, "day000"), (60.0, "day060"), (1234, "day1234"), (7.5, "day007.50")])
def test_days_sort_as_file_names(day: float, label: str) -> None:
    assert day_label(day) == label


def test_a_forecast_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, Manifest("x"))
    before = forecast()
    folder.save_forecast("arm", before, TherapyPlan(), figures())
    after = folder.load_forecast("arm", before.grid)
    assert after.days == before.days
    for day in before.days:
        assert np.array_equal(after.at(day)[0], before.at(day)[0])
        assert np.array_equal(after.at(day)[1], before.at(day)[1])
    assert np.array_equal(after.burden_curve, before.burden_curve)


def test_equal_arms_are_equal_bytes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, Manifest("x"))
    nothing = TherapyPlan.of(Fractionation(ball_dose(ball_grid(), 0.0), 30, 5, prescription=0.0))
    for arm, plan in (("one", TherapyPlan()), ("another", nothing)):
        folder.save_forecast(arm, forecast(), plan, figures())
        folder.save_scan(arm, "T1w", 20.0, Scan(forecast().density[1], ball_grid()))
    assert same_files(folder.arm_path("one"), folder.arm_path("another"))
    assert not (folder.arm_path("one") / "dose.nii.gz").exists()


def test_every_image_says_that_it_is_synthetic(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, Manifest("x"))
    plan = TherapyPlan.of(Fractionation(ball_dose(ball_grid(), 60.0), 30, 5))
    folder.save_forecast("arm", forecast(), plan, figures())
    folder.save_plan("arm", plan)
    for statistic in STATISTICS:
        folder.save_scan("arm", "FLAIR", 20.0, Scan(forecast().density[1], ball_grid()), statistic)
    folder.save_labels("arm", 20.0, LabelMap(np.zeros(ball_grid().shape, np.uint8), ball_grid()))
    images = sorted(tmp_path.rglob("*.nii.gz"))
    assert len(images) == 10
    for path in images:
        assert SYNTHETIC_NOTICE.encode() in nib.load(path).header["descrip"].tobytes()
        assert json.loads(Path(str(path).removesuffix(".nii.gz") + ".json").read_text())["notice"] == SYNTHETIC_NOTICE


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (1, {"sample": "the only sample", "mean": "mean of 1 sample", "std": "standard deviation over 1 sample"}),
        (
            256,
            {
                "sample": "one of 256 samples",
                "mean": "mean of 256 samples",
                "std": "standard deviation over 256 samples",
            },
        ),
    ],
)
def test_a_follow_up_says_what_it_is_of_its_ensemble(tmp_path: Path, samples: int, words: dict[Statistic, str]) -> None:
    folder = RunFolder(tmp_path, Manifest("x", samples=samples))
    for statistic, text in words.items():
        folder.save_scan("arm", "FLAIR", 20.0, Scan(forecast().density[1], ball_grid()), statistic)
        path = folder.scan_path("arm", "FLAIR", 20.0, statistic)
        header = nib.load(path).header["descrip"].tobytes().rstrip(b"\0").decode()
        if statistic != "std":  # the header holds 79 characters
            assert header == f"{SYNTHETIC_NOTICE}; {text}"
        assert header.startswith(f"{SYNTHETIC_NOTICE}; {text[:10]}")
        assert json.loads(Path(str(path).removesuffix(".nii.gz") + ".json").read_text())["statistic"] == text
    names = sorted(path.name for path in tmp_path.rglob("*.nii.gz"))
    assert names == ["day020_FLAIR.nii.gz", "day020_FLAIR_mean.nii.gz", "day020_FLAIR_std.nii.gz"]


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    grid = ball_grid()
    plan = TherapyPlan.of(
        Fractionation(ball_dose(grid, 60.0), 3, 5, days=(5.25, 6.0, 7.0), prescription=58.0),
        Fractionation(ball_dose(grid, 10.0), 2, 30),
        Chemotherapy.temozolomide(5, adjuvant_cycles=1),
    )
    plan_file.save_plan(plan, tmp_path / "arm.json")
    back = plan_file.load_plan(tmp_path / "arm.json", grid)
    assert back.drug_doses == plan.drug_doses
    assert [c.fraction_days for c in back.courses] == [c.fraction_days for c in plan.courses]
    assert [c.prescribed_dose for c in back.courses] == [c.prescribed_dose for c in plan.courses]
    assert np.array_equal(back.total_dose(grid), plan.total_dose(grid))


def test_a_folder_that_holds_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for flags in (
        {"resume": False, "overwrite": False},
        {"resume": True, "overwrite": False},
        {"resume": False, "overwrite": True},
    ):
        with pytest.raises(InputError, match="expected"):
            check_target(tmp_path, **flags)
    with pytest.raises(InputError, match="both"):
        check_target(tmp_path / "new", resume=True, overwrite=True)
    with pytest.raises(InputError, match="found a file"):
        check_target(tmp_path / "thesis.tex", resume=False, overwrite=False)


def test_overwrite_empties_a_run_and_resume_keeps_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with opened(run, Manifest("a"), resume=False, overwrite=False) as folder, folder.stage("patient"):
        (run / "old.txt").write_text("old")
        (run / ".half.nii.gz.x.tmp").write_text("killed here")
    with opened(run, Manifest("a"), resume=True, overwrite=False) as folder:
        assert folder.finished("patient")
        assert (run / "old.txt").exists()
        assert not list(run.glob(".*.tmp"))
    with opened(run, Manifest("a"), resume=False, overwrite=True) as folder:
        assert not folder.finished("patient")
        assert not (run / "old.txt").exists()


@pytest.mark.parametrize(
    "other",
    [
        Manifest("another scenario", {"t1.nii": "0"}, seeds={"refine": 0}),
        Manifest("a", {"t1.nii": "1"}, seeds={"refine": 0}),
        Manifest("a", {"t1.nii": "0"}, seeds={"refine": 1}),
        Manifest("a", {"t1.nii": "0"}, seeds={"refine": 0}, samples=9),
        Manifest("a", {"t1.nii": "0"}, seeds={"refine": 0}, hybridtumor="0.0.0"),
    ],
)
def test_resume_refuses_another_computation(tmp_path: Path, other: Manifest) -> None:
    with opened(tmp_path / "run", Manifest("a", {"t1.nii": "0"}, seeds={"refine": 0}), resume=False, overwrite=False):
        pass
    with (
        pytest.raises(InputError, match="was started with"),
        opened(tmp_path / "run", other, resume=True, overwrite=False),
    ):
        pass


def test_a_stage_that_fails_is_not_finished(tmp_path: Path) -> None:
    with opened(tmp_path / "run", Manifest("a"), resume=False, overwrite=False) as folder:
        with pytest.raises(ZeroDivisionError), folder.stage("mesh"):
            _ = 1 / 0
        assert not RunFolder.open(folder.root).finished("mesh")
        with folder.stage("mesh"):
            pass
        assert RunFolder.open(folder.root).finished("mesh")


def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()}"), run_lock(tmp_path):
        pass
    assert not (tmp_path / LOCK_NAME).exists()


@pytest.mark.parametrize("content", ["", "{", json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()})])
def test_a_stale_lock_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_NAME).write_text(content)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_a_lock_of_another_host_is_kept(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(InputError, match="elsewhere"), run_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    "content",
    [None, "not json", "[]", '{"schema_version": 1}', '{"schema_version": 99}', '{"schema_version": 2, "surprise": 2}'],
)
def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="expected"):
        RunFolder.open(tmp_path)


def same_files(one: Path, another: Path) -> bool:
    names = [sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()) for root in (one, another)]
    return names[0] == names[1] and all((one / n).read_bytes() == (another / n).read_bytes() for n in names[0])
