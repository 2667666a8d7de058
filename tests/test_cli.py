"""The command line: exit codes, one clear message, nothing half-written, and a quick --help."""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import small_run
import yaml

from hybridtumor import cli
from hybridtumor.errors import ConvergenceError, InputError, ResourceError
from hybridtumor.rundir import RunFolder

COURSE: dict[str, Any] = {"prescription": "60 Gy", "fractions": 30, "first_day": 5, "target": "estro-eano-2023"}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    small_run.quick(monkeypatch)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A folder with a patient, a scenario for it and a dose file."""
    small_run.small_patient().save(tmp_path / "patient")
    write_scenario(tmp_path)
    return tmp_path


def write_scenario(folder: Path, course: dict[str, Any] = COURSE, **changes: Any) -> None:
    content = {
        "schema_version": 1,
        "patient": "patient",
        "horizon": "40 days",
        "report_days": [0, 40],
        "arms": {"untreated": [], "treated": [{"radiation": course}]},
        "refine": {"samples": 1, "seed": 0},
    }
    (folder / "scenario.yaml").write_text(yaml.safe_dump(content | changes))


def run_compare(case: Path, *options: str) -> int:
    return cli.main(
        ["compare", str(case / "scenario.yaml"), "--out", str(case / "run"), "--cell-size", "4 mm", *options]
    )


# --- what goes well


def test_compare_report_refine_view_one_after_another(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare(case) == 0
    captured = capsys.readouterr()
    assert "treated" in captured.out
    assert "report.html" in captured.out
    assert "simulate treated: done" in captured.err
    assert (case / "run" / "report.html").stat().st_size > 100_000
    (case / "run" / "report.html").unlink()
    assert cli.main(["report", str(case / "run")]) == 0
    assert (case / "run" / "report.html").exists()
    assert cli.main(["refine", str(case / "run"), "--samples", "2", "--seed", "5"]) == 0
    assert RunFolder.open(case / "run").manifest.samples == 2
    assert run_compare(case) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_compare(case, "--resume", "--overwrite") == 2


def test_simulate_puts_the_plan_beside_no_treatment(case: Path) -> None:
    (case / "my plan.yaml").write_text(yaml.safe_dump([{"radiation": COURSE}]))
    arguments = [
        "simulate",
        str(case / "patient"),
        "--plan",
        str(case / "my plan.yaml"),
        "--days",
        "50",
        "--every",
        "20",
    ]
    assert cli.main([*arguments, "--out", str(case / "run"), "--cell-size", "4 mm"]) == 0
    folder = RunFolder.open(case / "run")
    assert folder.arms() == ("untreated", "my-plan")
    assert folder.figures("my-plan")["days"] == [0, 20, 40, 50]
    assert not list(folder.root.rglob("mri"))


def test_mesh_tells_and_writes(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mesh", str(case / "patient"), "--cell-size", "4 mm", "--out", str(case / "brain.vtu")]) == 0
    told = capsys.readouterr().out
    assert "dihedral" in told
    assert "positive off-diagonal" in told
    assert (case / "brain.vtu").stat().st_size > 1000


def test_doctor_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from hybridtumor import doctor

    monkeypatch.setattr(
        doctor, "CHECKS", (doctor.python, doctor.machine, doctor.threads, doctor.memory, doctor.compiler)
    )
    assert cli.main(["doctor"]) == 0
    assert "Python" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "CHECKS", (lambda: doctor.Finding("torch", "missing", "absent; install torch"),))
    assert cli.main(["doctor"]) == 4


def test_a_check_that_crashes_is_a_finding() -> None:
    from hybridtumor import doctor

    finding = doctor._in_subprocess("trial", "import os; os.abort()", str, "weak", "mend it")
    assert finding.state == "weak"
    assert finding.text.endswith("mend it")


# --- bad input: exit code 2, a message that names the matter, nothing written


def scan_of(case: Path) -> Path:
    return case / "patient" / "day0_T1w.nii.gz"


def damage(change: Callable[[nib.Nifti1Image], nib.Nifti1Image]) -> Callable[[Path], None]:
    def apply(case: Path) -> None:
        nib.save(change(nib.load(scan_of(case))), scan_of(case))

    return apply


def with_affine(image: nib.Nifti1Image, affine: np.ndarray) -> nib.Nifti1Image:
    result = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    result.header["sform_code"], result.header["qform_code"] = 1, 0
    for row, name in zip(affine, ("srow_x", "srow_y", "srow_z"), strict=False):
        result.header[name] = row
    return result


def truncate(case: Path) -> None:
    raw = gzip.decompress(scan_of(case).read_bytes())
    scan_of(case).write_bytes(gzip.compress(raw[: len(raw) // 2]))


def four_d(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 2, axis=-1), image.affine)


def moved_away(image: nib.Nifti1Image) -> nib.Nifti1Image:
    affine = image.affine.copy()
    affine[:3, 3] += 500
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


def segmentation(values: Callable[[tuple[int, ...]], np.ndarray]) -> Callable[[Path], None]:
    """Take the density away and put a segmentation in its place."""

    def apply(case: Path) -> None:
        patient = case / "patient"
        image = nib.load(scan_of(case))
        nib.save(nib.Nifti1Image(values(image.shape).astype(np.uint8), image.affine), patient / "seg.nii.gz")
        content = yaml.safe_load((patient / "patient.yaml").read_text())
        content.pop("density")
        content["visits"][0]["labels"] = {"file": "seg.nii.gz", "convention": "brats2021"}
        (patient / "patient.yaml").write_text(yaml.safe_dump(content))

    return apply


def at_corner(shape: tuple[int, ...]) -> np.ndarray:
    labels = np.zeros(shape)
    labels[:2, :2, :2] = 4
    return labels


def unknown_label(shape: tuple[int, ...]) -> np.ndarray:
    labels = np.zeros(shape)
    labels[10:14, 10:14, 10:14] = 7
    return labels


def dose_file(value: float, **changes: Any) -> Callable[[Path], None]:
    def apply(case: Path) -> None:
        image = nib.load(scan_of(case))
        dose = np.full(image.shape, 60.0, np.float32)
        dose[12, 12, 12] = value
        nib.save(nib.Nifti1Image(dose, image.affine), case / "dose.nii.gz")
        course = (
            {k: v for k, v in COURSE.items() if k != "target"} | {"dose": "dose.nii.gz", "dose_unit": "Gy"} | changes
        )
        write_scenario(case, {k: v for k, v in course.items() if v is not None})

    return apply


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing image": (lambda case: scan_of(case).unlink(), "day0_T1w"),
    "missing patient": (lambda case: write_scenario(case, patient="nobody"), "nobody"),
    "truncated image": (truncate, "day0_T1w"),
    "not an image": (lambda case: scan_of(case).write_bytes(b"hello"), "day0_T1w"),
    "NaN affine": (damage(lambda image: with_affine(image, np.full((3, 4), np.nan))), "affine"),
    "singular affine": (damage(lambda image: with_affine(image, np.zeros((3, 4)))), "affine"),
    "4-D image": (damage(four_d), "3-D"),
    "another place": (damage(moved_away), "brain"),
    "unknown label": (segmentation(unknown_label), "7"),
    "empty segmentation": (segmentation(np.zeros), "tumour"),
    "tumour outside the brain": (segmentation(at_corner), "brain"),
    "negative dose": (dose_file(-20.0), "negative"),
    "dose of another grid": (dose_file(6000.0), "cGy"),
    "dose file without unit": (dose_file(60.0, dose_unit=None), "dose_unit"),
    "dose without unit": (lambda case: write_scenario(case, COURSE | {"prescription": 60}), "unit"),
    "dose in sievert": (lambda case: write_scenario(case, COURSE | {"prescription": "60 Sv"}), "Sievert"),
    "cGy taken for Gy": (lambda case: write_scenario(case, COURSE | {"prescription": "6000 Gy"}), "cGy"),
    "dose as a time": (lambda case: write_scenario(case, COURSE | {"prescription": "60 days"}), "Gy"),
    "unknown key": (lambda case: write_scenario(case, COURSE | {"fraction": 30}), "fraction"),
    "unknown top key": (lambda case: write_scenario(case, hroizon="40 days"), "hroizon"),
    "no scenario": (lambda case: (case / "scenario.yaml").unlink(), "scenario.yaml"),
    "python in YAML": (
        lambda case: (case / "scenario.yaml").write_text("!!python/object/apply:os.getpid []"),
        "scenario.yaml",
    ),
    "arm that climbs": (lambda case: write_scenario(case, arms={"../x": []}), "letters"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(case: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, word = BAD[name]
    spoil(case)
    assert run_compare(case) == 2
    message = capsys.readouterr().err
    errors = [line for line in message.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert word.lower() in message.lower()
    assert "Traceback" not in message
    assert not (case / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["compare"],
        ["compare", "scenario.yaml"],
        ["simulate", "mni152", "--out", "run", "--days", "soon"],
        ["simulate", "mni152", "--out", "run", "--days", "-3"],
        ["mesh", "mni152", "--cell-size", "3"],
        ["mesh", "mni152", "--cell-size", "-3 mm"],
        ["mesh", "nowhere"],
        ["report", "nowhere"],
        ["view", "nowhere", "--screenshot", "x.png"],
        ["refine", "nowhere"],
        ["report"],
    ],
)
def test_bad_arguments(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.strip()
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (ConvergenceError("x"), 3),
        (ResourceError("x"), 4),
        (MemoryError(), 4),
        (OSError(28, "No space left on device"), 4),
        (PermissionError(13, "Permission denied"), 2),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_compare", fail)
    assert cli.main(["demo", "--fast"]) == code
    message = capsys.readouterr().err
    assert message.strip()
    assert "Traceback" not in message
    assert cli.main(["demo", "--fast", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


# --- processes


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hybridtumor", *arguments]


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hybridtumor", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "hybridtumor.cli" in run.stderr
    assert not loaded & {
        "torch",
        "dolfinx",
        "vtkmodules",
        "pyvista",
        "numpy",
        "nibabel",
        "pydantic",
        "pint",
        "matplotlib",
        "scipy",
    }


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, hybridtumor; print(sorted({'torch', 'dolfinx', 'vtkmodules', 'numpy'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_public_names_resolve_whatever_was_imported_first() -> None:
    code = (
        "import hybridtumor.simulate, hybridtumor.report, hybridtumor.compare, hybridtumor as ht\n"
        "assert all(hasattr(ht, name) for name in ht.__all__)\n"
        "assert callable(ht.simulate) and callable(ht.report) and callable(ht.compare)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_whole_and_unlocked(case: Path, sent: int, code: int) -> None:
    write_scenario(case, horizon="400 days", report_days=[0, 400])
    arguments = command("compare", str(case / "scenario.yaml"), "--out", str(case / "run"), "--cell-size", "0.6 mm")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (case / "run" / "scenario.yaml").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(sent)
    _, message = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in message
    assert not (case / "run" / ".lock").exists()
    assert not list((case / "run").rglob("*.tmp"))
