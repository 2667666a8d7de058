"""Input faults through the command line: exit code 2, one message, and an earlier run stays as it was.

=====  =======================================  ================================================================
fault  what is wrong                            tests
=====  =======================================  ================================================================
F1     voxels that are NaN or infinite          here; test_bad_input: voxels_that_are_not_finite
F2     4-D images                               here; test_bad_input: damaged_file, "4-D"
F3     oblique, anisotropic grids               test_orientation: oblique_scanner, oblong_voxels
F4     flipped and permuted axes, codes of      test_orientation: flipped_and_permuted_axes; here
       sform and qform that nobody knows
F5     grids apart, other frames of reference   here; test_patient: misses_the_brain; test_dicom_dose:
                                                another_frame_of_reference
F6     labels unknown or not whole              here; test_bad_input: unknown_label, label_3_and_label_4
F7     negative dose                            here
F8     cGy, relative dose, no unit              here; test_scenario: does_not_belong_to_the_prescription;
                                                test_dicom_dose: toy_dose, no_physical_total
F9     dates and days                           here; test_patient: visits_out_of_order; test_schedule: dates
F10    dose that misses the tumour              here; test_scenario: misses_the_tumour
F11    no tumour, outside, everywhere           here; test_bad_input: outside_the_brain
F12    parameters out of bounds                 here; test_scenario: bad_scenarios
F13    resections that cannot be                here
F14    who the patient is                       here; test_dicom_import: who_the_patient_is
=====  =======================================  ================================================================
"""

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import small_run
import yaml
from ball_brain import TUMOUR, distance

from hybridtumor import cli
from hybridtumor.grid import Grid
from hybridtumor.scan import Scan

Spoil = Callable[[Path], object]
MIDDLE = (slice(10, 14),) * 3
COURSE: dict[str, Any] = {"prescription": "60 Gy", "fractions": 30, "first_day": 5, "target": "estro-eano-2023"}
FILED = {key: value for key, value in COURSE.items() if key != "target"} | {"dose": "plan.nii.gz", "dose_unit": "Gy"}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    small_run.quick(monkeypatch)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A patient with a segmentation instead of a density, a scenario, a dose file, and the folder of an earlier run."""
    patient = small_run.small_patient()
    patient.save(tmp_path / "patient")
    labels = (patient.density.values > 0.6).astype(np.uint8) * 4 if patient.density else None
    nib.save(nib.Nifti1Image(labels, patient.grid.affine), tmp_path / "patient" / "seg.nii.gz")
    patient_yaml(tmp_path, lambda content: content.pop("density"))
    patient_yaml(tmp_path, lambda content: content["visits"][0].update(labels={"file": "seg.nii.gz"}))
    dose = 60 * np.exp(-((distance(patient.grid, TUMOUR) / 14) ** 4))
    Scan(dose, patient.grid).save(tmp_path / "plan.nii.gz")
    scenario(tmp_path, FILED)
    (tmp_path / "run" / "arms").mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").write_text("{}")
    (tmp_path / "run" / "arms" / "figures.json").write_text("[1, 2, 3]")
    return tmp_path


def scenario(folder: Path, course: dict[str, Any], **changes: Any) -> None:
    content = {
        "schema_version": 1,
        "patient": "patient",
        "horizon": "40 days",
        "report_days": [0, 40],
        "arms": {"untreated": [], "treated": [{"radiation": course}]},
        "refine": {"samples": 1, "seed": 0},
    }
    (folder / "scenario.yaml").write_text(yaml.safe_dump(content | changes))


def patient_yaml(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "patient" / "patient.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def state(folder: Path) -> dict[str, str]:
    """Every file and folder with its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def refused(case: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run over an earlier run, and into a new folder: both end before anything is written."""
    before = state(case)
    for target in (["run", "--overwrite"], ["new"]):
        arguments = ["compare", str(case / "scenario.yaml"), "--out", str(case / target[0]), *target[1:]]
        assert cli.main([*arguments, "--cell-size", "4 mm"]) == 2
        message = capsys.readouterr().err
        assert len([line for line in message.splitlines() if line.startswith("error: ")]) == 1, message
        assert "Traceback" not in message
        assert "expected" in message
        for word in words:
            assert word.lower() in message.lower(), message
        assert state(case) == before
    return message


def image(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """Change the voxels of an image of the patient folder, or of the dose file."""

    def spoil(case: Path) -> None:
        path = case / name if name == "plan.nii.gz" else case / "patient" / name
        found = nib.load(path)
        nib.save(nib.Nifti1Image(change(np.asarray(found.dataobj, np.float32)), found.affine), path)

    return spoil


def placed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """Change the affine of an image."""

    def spoil(case: Path) -> None:
        path = case / name if name == "plan.nii.gz" else case / "patient" / name
        found = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(found.dataobj), change(found.affine.copy())), path)

    return spoil


def one(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[12, 12, 12] = value
        return values

    return change


def shifted(affine: np.ndarray) -> np.ndarray:
    affine[:3, 3] += 30
    return affine


def dates(*visits: str) -> Spoil:
    listed = [{"date": yaml.safe_load(date), "scans": {"T1w": "day0_T1w.nii.gz"}} for date in visits]
    return lambda case: patient_yaml(case, lambda content: content.update(visits=listed))


def with_course(**changes: Any) -> Spoil:
    return lambda case: scenario(case, {k: v for k, v in (FILED | changes).items() if v is not None})


def with_scenario(**changes: Any) -> Spoil:
    return lambda case: scenario(case, COURSE, **changes)


Mask = Callable[[np.ndarray], np.ndarray]
"""From where the brain is to where a cavity is said to be."""


def resected(cavity: Mask, move: Mask = np.copy, **changes: Any) -> Spoil:
    """An arm with a resection whose cavity is a file, of 0 and 1 on the patient's grid unless it is moved."""

    def spoil(case: Path) -> None:
        white, grey = (nib.load(case / "patient" / f"{name}.nii.gz") for name in ("white", "grey"))
        mask = cavity(white.get_fdata() + grey.get_fdata() > 0.5)
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), move(white.affine)), case / "cavity.nii.gz")
        cut = {"day": 3, "cavity": "cavity.nii.gz"} | changes
        scenario(case, COURSE, arms={"untreated": [], "operated": [{"resection": cut}]})

    return spoil


def box(*where: slice, value: int = 1) -> Mask:
    """A box of voxels, wherever the brain is."""

    def cavity(brain: np.ndarray) -> np.ndarray:
        mask = np.zeros(brain.shape, np.uint8)
        mask[where] = value
        return mask

    return cavity


def far(affine: np.ndarray) -> np.ndarray:
    affine[:3, 3] += 300
    return affine


def whole_brain_density(case: Path) -> None:
    """A density without a segmentation beside it."""
    patient_yaml(case, lambda content: content["visits"][0].pop("labels"))
    found = nib.load(case / "patient" / "white.nii.gz")
    nib.save(nib.Nifti1Image(np.full(found.shape, 0.7, np.float32), found.affine), case / "patient" / "density.nii.gz")
    patient_yaml(case, lambda content: content.update(density="density.nii.gz"))


def coded(form: int, code: int) -> Spoil:
    """Write a code of the qform (252) or sform (254) into a header, past nibabel, which would mend it."""

    def spoil(case: Path) -> None:
        path = case / "patient" / "day0_T2w.nii.gz"
        raw = bytearray(gzip.decompress(path.read_bytes()))
        raw[form : form + 2] = code.to_bytes(2, "little", signed=True)
        path.write_bytes(gzip.compress(bytes(raw)))

    return spoil


def on_date(first_day: str, baseline: str | None = "2024-03-01") -> Spoil:
    def spoil(case: Path) -> None:
        dated = {} if baseline is None else {"baseline_date": baseline}
        scenario(case, FILED | {"first_day": first_day}, **dated)

    return spoil


def everywhere(values: np.ndarray) -> np.ndarray:
    return np.full_like(values, 4)


FAULTS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "F1 NaN in a scan": (image("day0_T1w.nii.gz", one(np.nan)), ("day0_T1w", "got 1 that", "fill or mask")),
    "F1 infinity in a scan": (image("day0_FLAIR.nii.gz", one(np.inf)), ("day0_FLAIR", "infinite")),
    "F1 NaN in labels": (image("seg.nii.gz", one(np.nan)), ("seg.nii.gz", "NaN")),
    "F1 NaN in the dose": (image("plan.nii.gz", one(np.nan)), ("plan.nii.gz", "NaN")),
    "F2 4-D labels": (image("seg.nii.gz", lambda v: np.stack([v, v], -1)), ("seg.nii.gz", "4-D", "volume")),
    "F2 4-D dose": (image("plan.nii.gz", lambda v: np.stack([v, v], -1)), ("plan.nii.gz", "4-D")),
    "F4 an unknown sform": (coded(254, 32767), ("day0_T2w", "sform_code", "32767")),
    "F4 an unknown qform": (coded(252, -1), ("day0_T2w", "qform_code", "-1")),
    "F5 a scan elsewhere": (placed("day0_T2w.nii.gz", shifted), ("day0_T2w", "90%", "register")),
    "F5 tissue elsewhere": (placed("white.nii.gz", shifted), ("white", "90%")),
    "F6 label 7": (image("seg.nii.gz", one(7)), ("seg.nii.gz", "7.0", "convention")),
    "F6 label 1.5": (image("seg.nii.gz", one(1.5)), ("seg.nii.gz", "1.5")),
    "F7 negative dose": (image("plan.nii.gz", one(-1)), ("plan.nii.gz", "negative", "-1")),
    "F8 cGy called Gy": (image("plan.nii.gz", lambda v: 100 * v), ("plan.nii.gz", "cGy")),
    "F8 Gy called cGy": (with_course(dose_unit="cGy"), ("60 Gy",)),
    "F8 no unit": (with_course(dose_unit=None), ("dose_unit", "Gy or cGy")),
    "F8 relative": (image("plan.nii.gz", lambda v: v / 60), ("prescription",)),
    "F9 dates reversed": (dates("2024-03-01", "2024-01-01"), ("patient.yaml", "before the one before", "baseline")),
    "F9 dates doubled": (dates("2024-03-01", "2024-03-01"), ("patient.yaml", "same day")),
    "F9 a clock time": (dates("2024-03-01T23:30:00+02:00"), ("patient.yaml", "visits.0.date", "calendar day")),
    "F9 no such date": (dates("'2024-02-30'"), ("patient.yaml", "visits.0.date")),
    "F9 before the baseline": (with_course(first_day=-1), ("first_day", "0")),
    "F9 after the end": (with_course(first_day=400), ("horizon",)),
    "F9 a date before the baseline": (on_date("2024-02-26"), ("first_day", "on or after the baseline scan")),
    "F9 a time zone": (on_date("2024-03-11T08:00+01:00"), ("first_day", "time zone")),
    "F9 a date without a baseline": (on_date("2024-03-11", None), ("first_day", "baseline_date")),
    "F9 a baseline that is no date": (on_date("2024-03-11", "2024-13-01"), ("baseline_date",)),
    "F10 the dose misses the tumour": (placed("plan.nii.gz", shifted), ("plan.nii.gz", "covers the tumour", "%")),
    "F11 empty": (image("seg.nii.gz", np.zeros_like), ("seg.nii.gz", "tumour")),
    "F11 the whole brain": (image("seg.nii.gz", everywhere), ("seg.nii.gz", "part of the brain", "%")),
    "F11 the whole brain as density": (whole_brain_density, ("density.nii.gz", "part of the brain", "%")),
    "F12 D = 0": (with_scenario(growth={"diffusion_white": "0 mm^2/day"}), ("growth", "positive")),
    "F12 ρ < 0": (with_scenario(growth={"proliferation": "-0.1 1/day"}), ("growth", "negative")),
    "F12 α/β = 0": (with_scenario(response={"alpha_beta": "0 Gy"}), ("response",)),
    "F12 the wrong dimension": (with_scenario(growth={"proliferation": "0.1 mm"}), ("proliferation", "dimension")),
    "F13 the whole brain": (resected(np.copy), ("resection", "at most 50% of the brain", "got 100%")),
    "F13 a margin that takes the brain": (resected(box(*MIDDLE), margin="60 mm"), ("resection", "at most 50%")),
    "F13 outside the brain": (resected(np.invert), ("resection", "in the brain", "100% of it lies outside")),
    "F13 outside of the images": (resected(box(*MIDDLE), far), ("cavity.nii.gz", "outside of them")),
    "F13 no mask": (resected(box(*MIDDLE, value=2)), ("cavity.nii.gz", "0 and 1")),
    "F13 empty": (resected(np.zeros_like), ("cavity.nii.gz", "empty")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused(name: str, case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, words = FAULTS[name]
    spoil(case)
    refused(case, capsys, *words)


def test_the_case_without_a_fault_runs(case: Path) -> None:
    """Otherwise the refusals above would say nothing."""
    arguments = ["compare", str(case / "scenario.yaml"), "--out", str(case / "run"), "--overwrite"]
    assert cli.main([*arguments, "--cell-size", "4 mm"]) == 0
    assert not (case / "run" / "arms" / "figures.json").exists()


def test_round_off_below_zero_is_no_negative_dose(case: Path) -> None:
    image("plan.nii.gz", one(-1e-6))(case)
    assert cli.main(["compare", str(case / "scenario.yaml"), "--out", str(case / "new"), "--cell-size", "4 mm"]) == 0


def test_a_cavity_in_the_brain_is_no_fault(case: Path) -> None:
    resected(box(*MIDDLE))(case)
    assert cli.main(["compare", str(case / "scenario.yaml"), "--out", str(case / "new"), "--cell-size", "4 mm"]) == 0


def test_fractions_after_the_horizon_are_left_out_with_a_warning(case: Path) -> None:
    """Thirty fractions from day 26 on: ten working days to day 40."""
    with_course(first_day=26)(case)
    assert cli.main(["compare", str(case / "scenario.yaml"), "--out", str(case / "new"), "--cell-size", "4 mm"]) == 0
    told = json.loads((case / "new" / "manifest.json").read_text())["warnings"]
    assert [note for note in told if note.startswith("arm treated: 20 of 30 fractions fall on or after the horizon")]


def test_a_dose_that_ends_in_the_tumour_is_refused_with_its_share(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Scan.load(case / "plan.nii.gz")
    middle = int(np.rint(whole.grid.index(TUMOUR)[0]))
    half = Grid((middle, *whole.grid.shape[1:]), whole.grid.affine)
    Scan(whole.values[:middle], half).save(case / "plan.nii.gz")
    refused(case, capsys, "plan.nii.gz", "covers the tumour", "% of it")


def test_labels_of_another_place_are_refused(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def at_corner(values: np.ndarray) -> np.ndarray:
        corner = np.zeros_like(values)
        corner[:2, :2, :2] = 4
        return corner

    image("seg.nii.gz", at_corner)(case)
    refused(case, capsys, "brain", "outside")


NAME = "Mustermann^Erika"


def test_a_patients_name_in_a_header_goes_nowhere(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """F14: what headers say of the patient is in no file of the run and in no line that is printed."""
    for path in [*(case / "patient").glob("*.nii.gz"), case / "plan.nii.gz"]:
        found = nib.load(path)
        found.header["descrip"] = NAME.encode()
        found.header["db_name"] = b"Erika"
        found.header.extensions.append(nib.nifti1.Nifti1Extension(6, NAME.encode()))
        nib.save(found, path)
    assert cli.main(["compare", str(case / "scenario.yaml"), "--out", str(case / "new"), "--cell-size", "4 mm"]) == 0
    told = capsys.readouterr()
    assert "Erika" not in told.out + told.err
    for path in (case / "new").rglob("*"):
        raw = path.read_bytes() if path.is_file() else b""
        if path.name.endswith(".nii.gz"):
            raw = bytes(nib.load(path).header.binaryblock) + str(nib.load(path).header.extensions).encode()
        assert b"Erika" not in raw, path
        assert str(case).encode() not in raw or path.suffix == ".lock", path
