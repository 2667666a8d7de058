"""A folder of DICOM files becomes a patient folder; who the patient is stays behind."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from dicom_files import (
    CANARY,
    FRAME,
    PLAN,
    STUDY,
    dataset,
    dose_dataset,
    image_series,
    multiframe,
    plan_dataset,
    structure_dataset,
    write,
)

from hybridtumor.cli import main
from hybridtumor.demo import single_plan_scenario
from hybridtumor.dicom.import_structures import beside_labels, drawn_labels
from hybridtumor.dicom.importing import ImportReport, import_dicom
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.patient import Patient
from hybridtumor.scan import LABELS

SHAPE = (24, 28, 14)
AFFINE = np.array([[-2.0, 0, 0, 24], [0, -2.0, 0, 28], [0, 0, 4.0, -26], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)
T1 = {"EchoTime": 10, "RepetitionTime": 550, "ScanningSequence": "SE"}
T1CE = {**T1, "ContrastBolusAgent": f"{CANARY} agent"}
FLAIR = {"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500}


def head(grid: Grid, noise: int = 0) -> np.ndarray:
    """An ellipsoid brighter towards the left, uint16."""
    world = grid.world(np.argwhere(np.ones(grid.shape, bool))).reshape(*grid.shape, 3)
    inside = ((world / [19, 22, 22]) ** 2).sum(axis=-1) < 1
    return np.where(inside, 500 + 10 * world[..., 0] + noise, 0).astype(np.uint16)


def ring(z: float, radius: float = 6.0) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    return np.column_stack([4 + radius * np.cos(angle), -3 + radius * np.sin(angle), np.full(100, z)])


def clinic(folder: Path, prescription: float = 60.0, **plan: object) -> Path:
    """A folder as a clinic sends it: T1, T1 with contrast, CT, contours, plan, dose, and things nobody asked for."""
    image_series(folder / "a", head(GRID), GRID, SeriesNumber=1, **T1)
    coarse = Grid((24, 28, 10), AFFINE @ np.diag([1, 1, 1.5, 1]))
    image_series(folder / "a", head(coarse), coarse, SeriesNumber=2, **T1CE)
    image_series(folder / f"{CANARY}^b", head(GRID), GRID, "CT", scaling=[(1, -1024)] * SHAPE[2], SeriesNumber=3)
    image_series(folder / "c", head(GRID), GRID, SeriesNumber=4, StudyDate="20230529", **FLAIR)
    contours = [ring(z) for z in (-2.0, 2.0, 6.0)]
    write(
        structure_dataset({"GTV": contours, f"{CANARY}^Roi": contours, "Brainstem": [ring(-10.0)], "Lens_L": []}),
        folder / f"RS.{CANARY}.dcm",
    )
    stored = np.full((16, 30, 26), 5000, np.uint16)
    stored[:, :15] = 6200
    dose = dose_dataset(stored, position=(-25, -29, -30), spacing=(2, 2), scaling=0.01)
    write(dose, folder / "RD.dcm")
    write(plan_dataset(prescription=prescription, **plan), folder / "RP.dcm")  # type: ignore[arg-type]
    write(dataset("SEG"), folder / "seg.dcm")
    (folder / f"{CANARY}.txt").write_text(CANARY)
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImportReport, Path]:
    folder = tmp_path_factory.mktemp("clinic")
    return import_dicom(clinic(folder / CANARY), folder / "out" / "case7"), folder / "out" / "case7"


def test_the_patient_has_all_that_the_clinic_sent(imported: tuple[ImportReport, Path]) -> None:
    report, out = imported
    patient = Patient.load(out)
    assert patient.id == report.id == "case7"
    assert [(v.day, list(v.scans)) for v in patient.visits] == [(0, ["T1w", "T1ce", "CT"]), (42, ["FLAIR"])]
    assert patient.grid.same_as(GRID)
    assert np.array_equal(patient.baseline.scans["T1w"].values, head(GRID))
    assert np.array_equal(patient.baseline.scans["CT"].values, head(GRID) - 1024.0)
    assert sorted(patient.structures) == ["Brainstem", "GTV", "Structure1"]
    volume = patient.structures["GTV"].sum() * GRID.voxel_volume
    assert volume == pytest.approx(np.pi * 36 * 12, rel=0.1)
    assert np.array_equal(patient.structures["GTV"], patient.structures["Structure1"])
    centre = GRID.world(np.argwhere(patient.structures["GTV"])).mean(axis=0)
    assert np.abs(centre - [4, -3, 2]).max() < 0.5


def test_gross_tumour_is_the_core_of_day_0_where_there_is_no_segmentation(imported: tuple[ImportReport, Path]) -> None:
    patient = Patient.load(imported[1])
    assert patient.baseline.labels is not None
    assert np.array_equal(patient.baseline.labels.mask("necrosis"), patient.structures["GTV"])
    assert all(visit.labels is None for visit in patient.visits[1:])


def test_dose_and_plan_go_together(imported: tuple[ImportReport, Path]) -> None:
    report, out = imported
    dose = Patient.load(out).dose
    assert dose is not None
    assert dose.values.max() == pytest.approx(62)
    i, j, k = np.round(GRID.index([0, 20, 0])).astype(int)
    assert dose.values[i, j, k] == pytest.approx(62)  # the front of the head: small y in DICOM
    i, j, k = np.round(GRID.index([0, -20, 0])).astype(int)
    assert dose.values[i, j, k] == pytest.approx(50)
    course = {"prescription": "60 Gy", "fractions": 30, "first_day": 14, "dose": "patient"}
    assert yaml.safe_load((out / "plan.yaml").read_text()) == [{"radiation": course}]
    assert report.treatments


def test_the_report_says_what_was_taken_as_what_and_why(imported: tuple[ImportReport, Path]) -> None:
    rows = {row.name: row for row in imported[0].rows}
    assert rows["MR1"].taken_as == "T1w, day 0"
    assert "24×28×14" in rows["MR1"].detail
    assert rows["MR2"].taken_as == "T1ce, day 0"
    assert "contrast agent" in rows["MR2"].detail
    assert rows["MR3"].taken_as == "FLAIR, day 42"
    assert rows["CT1"].taken_as == "CT, day 0"
    assert rows["RTSTRUCT1"].taken_as == "structures"
    assert "Lens_L left out: no closed" in rows["RTSTRUCT1"].detail
    assert rows["dose"].taken_as == "dose"
    assert rows["RTPLAN1"].taken_as == "plan.yaml"
    assert "first day 14" in rows["RTPLAN1"].detail
    assert rows["SEG1"].taken_as is None
    assert rows["1 file"].detail == "not DICOM"
    assert rows["GTV"].taken_as == "labels"


def everything(folder: Path) -> bytes:
    """All bytes and names below a folder, gz unpacked."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            raw = path.read_bytes()
            parts.append(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    return b"\n".join(parts)


def test_nothing_tells_who_the_patient_is(imported: tuple[ImportReport, Path], tmp_path: Path) -> None:
    report, out = imported
    found = everything(out) + repr(report).replace(str(report.folder.parents[1]), "").encode()
    for secret in (CANARY, FRAME, STUDY, PLAN, "19340517", "20230417", "2023-04-17", "20230529", "2023", "1.2.826"):
        assert secret.encode() not in found, secret
        assert secret.encode("utf-16-le") not in found, secret
    assert len(list(out.rglob("*.nii.gz"))) >= 8


def test_names_that_the_user_states_win(tmp_path: Path) -> None:
    source = clinic(tmp_path / "in")
    report = import_dicom(source, tmp_path / "out", names={"MR1": "none", "MR2": "T2w", "CT1": "none"}, identity="p 1")
    patient = Patient.load(tmp_path / "out")
    assert patient.id == "p 1"
    assert list(patient.baseline.scans) == ["T2w"]
    assert {row.detail for row in report.rows if row.name in ("MR1", "CT1")} == {"left out as asked"}
    for names in ({"MR9": "T1w"}, {"MR1": "T1x"}, {"RTPLAN1": "CT"}):
        with pytest.raises(InputError, match="expected a series among MR1, MR2, CT1, MR3"):
            import_dicom(source, tmp_path / "other", names=names)
    assert not (tmp_path / "other").exists()


def test_multiframe_and_foreign_frames_of_reference(tmp_path: Path) -> None:
    source = tmp_path / "in"
    multiframe(source, head(GRID), GRID)
    image_series(source, head(GRID), GRID, FrameOfReferenceUID="1.2.3", SeriesNumber=5, **T1CE)
    dose = dose_dataset(np.full((16, 30, 26), 5000, np.uint16), position=(-25, -29, -30), spacing=(2, 2))
    dose.FrameOfReferenceUID = "1.2.3"
    write(dose, source / "d.dcm")
    strict = import_dicom(source, tmp_path / "strict", names={"MR1": "T1w"})
    assert {r.name for r in strict.rows if r.taken_as is None and "frame of reference" in r.detail} == {"MR2", "dose"}
    assert list(Patient.load(tmp_path / "strict").baseline.scans) == ["T1w"]
    import_dicom(source, tmp_path / "loose", names={"MR1": "T1w"}, allow_other_frame=True)
    loose = Patient.load(tmp_path / "loose")
    assert list(loose.baseline.scans) == ["T1w", "T1ce"]
    assert loose.dose is not None


def test_an_incomplete_series_is_left_out_with_the_reason(tmp_path: Path) -> None:
    source = tmp_path / "in"
    image_series(source, head(GRID), GRID, SeriesNumber=1, **T1)
    image_series(source, head(GRID), GRID, SeriesNumber=2, **FLAIR)[5].unlink()
    image_series(source, head(GRID), GRID, SeriesNumber=3, StudyDate="20230301", modality="CT")
    small = Grid((24, 28, 3), AFFINE)
    image_series(source, head(small), small, SeriesNumber=4, **T1CE)
    rows = {row.name: row for row in import_dicom(source, tmp_path / "out").rows}
    assert rows["MR1"].taken_as == "T1w, day 0"
    assert rows["MR2"].taken_as is None
    assert "missing" in rows["MR2"].detail
    assert rows["CT1"].taken_as is None
    assert "before the first MR" in rows["CT1"].detail
    assert rows["MR3"].taken_as is None
    assert "less than 90%" in rows["MR3"].detail


def test_contours_within_contours_become_the_segmentation() -> None:
    x = np.arange(6)[:, None, None] * np.ones((6, 2, 2))
    structures = {"Brain": x >= 0, "Necrosis": x == 0, "Enhancing": x < 2, "GTV_Boost": x < 3, "Edema": x < 5}
    labels = drawn_labels(structures, Grid((6, 2, 2), np.eye(4)))
    assert labels is not None
    assert labels.values[:, 0, 0].tolist() == [1, 4, 1, 2, 2, 0]
    rings = {name.title(): labels.mask(name) for name in LABELS}
    assert not beside_labels(rings, drawn_labels(rings, labels.grid))
    assert list(beside_labels(structures, labels)) == ["Brain", "Necrosis", "Enhancing", "GTV_Boost", "Edema"]
    assert drawn_labels({"Brain": x >= 0}, Grid((6, 2, 2), np.eye(4))) is None


def test_the_report_says_what_a_simulation_lacks(tmp_path: Path) -> None:
    image_series(tmp_path / "in", head(GRID), GRID, **T1CE)
    contours = {"Lens_L": [], "Lens_R": [], "Brainstem": [ring(2.0)]}
    write(structure_dataset(contours), tmp_path / "in" / "s.dcm")
    rows = {row.name: row for row in import_dicom(tmp_path / "in", tmp_path / "out").rows}
    assert rows["simulation"].taken_as == "not yet"
    assert "T1w image" in rows["simulation"].detail
    assert "GTV" in rows["simulation"].detail
    assert rows["RTSTRUCT1"].detail == "Brainstem; Lens_L, Lens_R left out: no closed contour"


def test_a_simulation_takes_what_was_imported(imported: tuple[ImportReport, Path]) -> None:
    folder, patient = imported[1], Patient.load(imported[1])
    assert "simulation" not in {row.name for row in imported[0].rows}
    scenario = single_plan_scenario(str(folder), folder / "plan.yaml", 90, 90, mechanics=False)
    courses = scenario.plans(patient)["plan"].courses
    assert [(c.fractions, c.first_day, c.prescription) for c in courses] == [(30, 14, 60)]
    assert patient.dose is not None
    assert np.array_equal(courses[0].dose.values, patient.dose.values)


@pytest.mark.parametrize("package", ["pydicom", "highdicom"])
def test_without_the_extra_a_command_says_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image_series(tmp_path / "in", head(GRID), GRID, **T1)
    for name in [name for name in sys.modules if name.startswith("hybridtumor.dicom")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for command in ("import-dicom", "export-dicom"):
        assert main([command, str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 4
        assert f"{package}, found none. Install it with: pip install 'hybridtumor[dicom]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("prescription", "reaches about the prescription"),
        ("another plan", "the plan that the dose is of"),
        ("beams", "all 2 beams, got 1"),
        ("no dose", "a dose to go with it"),
    ],
)
def test_a_plan_that_does_not_fit_its_dose_is_not_written(tmp_path: Path, change: str, said: str) -> None:
    source = tmp_path / "in"
    image_series(source, head(GRID), GRID, **T1)
    stored = np.full((16, 30, 26), 6000, np.uint16)
    summation = "BEAM" if change == "beams" else "PLAN"
    dose = dose_dataset(stored, position=(-25, -29, -30), spacing=(2, 2), summation=summation, beam=1)
    if change == "another plan":
        dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
    if change != "no dose":
        write(dose, source / "d.dcm")
    write(plan_dataset(prescription=10 if change == "prescription" else 60), source / "p.dcm")
    report = import_dicom(source, tmp_path / "out")
    row = next(row for row in report.rows if row.name == "RTPLAN1")
    assert row.taken_as is None
    assert said in row.detail
    assert not report.treatments
    assert not (tmp_path / "out" / "plan.yaml").exists()


def test_a_dose_that_misses_the_tumour_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "in"
    image_series(source, head(GRID), GRID, **T1)
    write(structure_dataset({"GTV": [ring(2.0), ring(6.0)]}), source / "s.dcm")
    write(
        dose_dataset(np.full((4, 30, 26), 6000, np.uint16), position=(-25, -29, -30), spacing=(2, 2)), source / "d.dcm"
    )
    row = next(row for row in import_dicom(source, tmp_path / "out").rows if row.name == "dose")
    assert row.taken_as is None
    assert "covers the tumour" in row.detail


def test_a_relative_dose_is_left_out_with_the_reason(tmp_path: Path, realdata: Path) -> None:
    source = tmp_path / "in"
    image_series(source, head(GRID), GRID, PatientID="id11111", **T1)
    (source / "toy.dcm").write_bytes((realdata / "dicom_rt" / "pydicom_toy" / "rtdose.dcm").read_bytes())
    row = next(row for row in import_dicom(source, tmp_path / "out").rows if row.name == "dose")
    assert row.taken_as is None
    assert "RELATIVE" in row.detail


def test_real_folders_of_images_structures_and_plans_are_imported(tmp_path: Path, realdata: Path) -> None:
    phantom = import_dicom(realdata / "dicom_rt" / "rt_utils_phantom", tmp_path / "phantom", allow_other_frame=True)
    assert list(Patient.load(tmp_path / "phantom").structures) == ["Structure1"]
    assert any(row.taken_as == "CT, day 0" for row in phantom.rows)
    breast = import_dicom(realdata / "dicom_rt" / "dicompyler_breast", tmp_path / "breast")
    assert "no dose" not in repr(breast.rows)
    assert any("a dose to go with it" in row.detail for row in breast.rows)
    found = everything(tmp_path / "phantom") + everything(tmp_path / "breast")
    for secret in (b"boost", b"123456", b"PHANTOM", b"2.16.840", b"Tumor Bed", b"20201112"):
        assert secret not in found


def test_an_existing_folder_is_kept_unless_it_is_a_patient_to_replace(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    image_series(source, head(GRID), GRID, **T1)
    import_dicom(source, out)
    (out / "old.txt").write_text("old")
    with pytest.raises(InputError, match="it exists"):
        import_dicom(source, out)
    assert (out / "old.txt").exists()
    import_dicom(source, out, overwrite=True)
    assert not (out / "old.txt").exists()
    assert Patient.load(out).id == "out"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for place in (tmp_path / "notes", tmp_path / "notes" / "a.txt", source, source / "inside", tmp_path):
        with pytest.raises(InputError):
            import_dicom(source, place, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "notes", "out"]


def test_several_patients_or_nothing_to_see_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in"
    image_series(source, head(GRID), GRID, **T1)
    image_series(source, head(GRID), GRID, PatientID="another", **FLAIR)
    with pytest.raises(InputError, match="one patient"):
        import_dicom(source, tmp_path / "out")
    empty = tmp_path / "empty"
    write(plan_dataset(), empty / "p.dcm")
    with pytest.raises(InputError, match="found none"):
        import_dicom(empty, tmp_path / "out")
    with pytest.raises(InputError, match="found none"):
        import_dicom(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
