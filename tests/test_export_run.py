"""A patient and a run as DICOM: complete, valid, the same twice, and nothing in it of where it came from."""

import errno
import json
import re
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ball_brain import ball_density, ball_dose, ball_grid, ball_tissue
from export_grids import all_text, read_folder

from hybridtumor.dicom import write_set
from hybridtumor.dicom.assembling import FORECAST
from hybridtumor.dicom.exporting import export_dicom
from hybridtumor.dicom.importing import import_dicom
from hybridtumor.dicom.write_geometry import Frames
from hybridtumor.dicom.write_set import INDEX, Written
from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.grid import Grid, resample
from hybridtumor.manifest import Manifest
from hybridtumor.patient import Patient, Visit
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import LABEL_CONVENTIONS, LABELS, MODALITIES, SYNTHETIC_NOTICE, LabelMap, Scan
from hybridtumor.therapy import Fractionation, TherapyPlan

RTStructBuilder = pytest.importorskip("rt_utils", exc_type=ImportError).RTStructBuilder

CANARY = "CANARY-Doe-Jane-19610203"
VALIDATOR = shutil.which("dciodvfy")
PRESCRIPTION = 60.0
TINTS = (-50, 150, 120, 140)
GRID = ball_grid((14, 13, 12), 4.0)


def patient(identity: str = "small") -> Patient:
    """A round brain with a tumour in four modalities, a segmentation, a dose and a structure."""
    grid = GRID
    tissue = ball_tissue(grid)
    density = ball_density(grid, tissue, radius=6.0)
    base = 300 * tissue.white + 200 * tissue.grey + 100 * tissue.csf
    scans = {name: Scan(base + tint * density.values, grid) for name, tint in zip(MODALITIES, TINTS, strict=True)}
    return Patient(
        identity,
        (Visit(0, scans, labels(density.values)),),
        tissue,
        density,
        dose=ball_dose(grid, PRESCRIPTION),
        structures={"Brain": tissue.parenchyma},
        synthetic=True,
    )


def labels(density: np.ndarray) -> LabelMap:
    codes = LABEL_CONVENTIONS["brats2021"]
    values = np.zeros(density.shape, np.uint8)
    for name, above in (("edema", 0.2), ("enhancing", 0.6), ("necrosis", 0.95)):
        values[density > above] = codes[name]
    return LabelMap(values, GRID)


def make_run(root: Path) -> RunFolder:
    """A run of two arms and two days, as `hybridtumor compare` leaves it, without computing one."""
    folder, subject = RunFolder(root, Manifest("x", patient="small", samples=4)), patient()
    grid, density = subject.grid, subject.density.values
    subject.save(folder.patient_path)
    plans = {
        "untreated": TherapyPlan(),
        "stupp": TherapyPlan.of(Fractionation(ball_dose(grid, PRESCRIPTION), 30, 5, prescription=PRESCRIPTION)),
    }
    for number, (arm, plan) in enumerate(plans.items()):
        fields = (density, density * 0.8)
        forecast = Forecast(grid, (0.0, 20.0), fields, fields, np.array([[0.0, 1.0], [20.0, 2.0]]))
        curve = {"days": [0.0, 20.0], "burden_mm3": [1.0, 2.0]}
        folder.save_plan(arm, plan)
        folder.save_forecast(arm, forecast, plan, {"days": [0.0, 20.0], "burden_curve": curve})
        for name, scan in subject.baseline.scans.items():
            for statistic, more in (("sample", 5), ("mean", 6), ("std", 7)):
                folder.save_scan(arm, name, 20.0, Scan(scan.values + more * number, grid), statistic)
        folder.save_labels(arm, 20.0, labels(density * (1 - 0.2 * number)))
        folder.save_image_figures(arm, {"days": [0.0, 20.0]})
        folder.manifest.stages[f"simulate {arm}"] = 1.0
    folder.save_manifest()
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Written]]:
    root = tmp_path_factory.mktemp(CANARY)
    make_run(root / "run")
    return root / "out", export_dicom(root / "run", root / "out")


def datasets(folder: Path) -> dict[str, pydicom.Dataset]:
    return {path.relative_to(folder).as_posix(): pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))}


def test_everything_of_a_run_is_written(exported: tuple[Path, list[Written]]) -> None:
    out, rows = exported
    kinds = [row.kind for row in rows]
    expected = {"MR": 12, "SEG": 3, "RTSTRUCT": 3, "RTPLAN": 1, "RTDOSE": 1}
    assert {kind: kinds.count(kind) for kind in set(kinds)} == expected
    assert sum(row.files for row in rows) == len(list(out.rglob("*.dcm")))
    assert all((out / row.file).exists() for row in rows)
    index = json.loads((out / INDEX).read_text())
    assert index["finished"]
    assert [row["file"] for row in index["written"]] == [row.file for row in rows]


def test_one_patient_one_study_one_frame(exported: tuple[Path, list[Written]]) -> None:
    files = datasets(exported[0])
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert len({str(data[keyword].value) for data in files.values()}) == 1
    instances = [data.SOPInstanceUID for data in files.values()]
    assert len(set(instances)) == len(instances)
    series = {(data.SeriesInstanceUID, data.SeriesNumber, data.SeriesDescription) for data in files.values()}
    assert len(series) == len({uid for uid, _, _ in series}) == len({number for _, number, _ in series}) == 20
    assert all(data.PatientID == data.PatientName == "small" for data in files.values())
    assert all(data.PatientIdentityRemoved == "YES" and data.DeidentificationMethod for data in files.values())
    assert all(SYNTHETIC_NOTICE in data.SeriesDescription for data in files.values())


def test_references_lead_to_files_that_are_there(exported: tuple[Path, list[Written]]) -> None:
    files = datasets(exported[0])
    known = {data.SOPInstanceUID for data in files.values()} | {data.StudyInstanceUID for data in files.values()}
    pointed = 0
    for data in files.values():
        for element in data.iterall():
            if element.keyword == "ReferencedSOPInstanceUID":
                assert element.value in known
                pointed += 1
    assert pointed > 100


def test_dates_are_dummies_and_keep_the_interval(exported: tuple[Path, list[Written]]) -> None:
    for name, data in datasets(exported[0]).items():
        day = "19000121" if "day020" in name else "19000101"
        assert data.StudyDate == "19000101"
        for element in data.iterall():
            if element.VR in {"DA", "DT"} and element.value and element.keyword != "StudyDate":
                assert str(element.value)[:8] == day, (name, element)
            if element.VR == "TM" and element.value:
                assert element.value == "000000", (name, element)


def test_a_dose_is_that_of_the_run(exported: tuple[Path, list[Written]]) -> None:
    data = pydicom.dcmread(exported[0] / "arms/stupp/dose.dcm")
    dose = ball_dose(GRID, PRESCRIPTION)
    frames = Frames.of(dose.grid).stack(dose.values)
    assert (
        np.abs(data.pixel_array * float(data.DoseGridScaling) - frames).max() <= frames.max() / 131_000
    )  # half a step of 16 bits
    plan = pydicom.dcmread(exported[0] / "arms/stupp/plan.dcm")
    assert int(plan.FractionGroupSequence[0].NumberOfFractionsPlanned) == 30
    assert not (exported[0] / "arms/untreated/dose.dcm").exists()


def test_contours_of_a_follow_up_are_its_segmentation(exported: tuple[Path, list[Written]]) -> None:
    arm = exported[0] / "arms/stupp"
    back = RTStructBuilder.create_from(str(arm / "day020_T1ce"), str(arm / "day020_structures.dcm"))
    expected = labels(patient().density.values * 0.8)
    assert set(back.get_roi_names()) == {n for n in ("necrosis", "edema", "enhancing") if expected.mask(n).any()}
    for name in back.get_roi_names():
        stack = Frames.of(expected.grid).stack(expected.mask(name))
        found = back.get_roi_mask_by_name(name)[: stack.shape[1], : stack.shape[2]]  # it swaps rows and columns
        assert np.array_equal(np.moveaxis(found, -1, 0), stack[:, : found.shape[0], : found.shape[1]])


def test_a_follow_up_is_one_sample_and_says_so(exported: tuple[Path, list[Written]]) -> None:
    baseline = patient().baseline.scans["T1w"].values
    frames = Frames.of(GRID).stack(baseline + 5)  # in `make_run` a sample lies 5 above the baseline, a mean 6
    files = read_folder(exported[0] / "arms/stupp/day020_T1w")
    values = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in files])
    assert np.abs(values - frames).max() < 0.01
    for data in files:
        assert data.DerivationDescription == f"{SYNTHETIC_NOTICE}; stupp day020 T1w, one of 4 samples"
        assert "one of 4 samples" in data.ImageComments
    contours = pydicom.dcmread(exported[0] / "arms/stupp/day020_structures.dcm")
    assert "mean of 4 samples" in contours.StructureSetDescription
    for data in datasets(exported[0] / "patient").values():
        assert "sample" not in str(data)


def test_nothing_tells_where_it_came_from(exported: tuple[Path, list[Written]]) -> None:
    for name, content in all_text(exported[0]).items():
        for secret in (CANARY, "Jane", str(exported[0].parent), str(Path.home()), socket.gethostname()):
            if len(secret) > 3:
                assert secret.encode() not in content, (name, secret)


def test_the_same_run_gives_the_same_bytes(exported: tuple[Path, list[Written]], tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere")
    export_dicom(tmp_path / "elsewhere", tmp_path / "again")
    assert all_text(tmp_path / "again") == all_text(exported[0])


def test_what_we_write_we_import(tmp_path: Path) -> None:
    before = patient()
    before.save(tmp_path / "patient")
    export_dicom(tmp_path / "patient", tmp_path / "out")
    import_dicom(tmp_path / "out", tmp_path / "back", identity="back")
    after = Patient.load(tmp_path / "back")
    assert after.synthetic
    assert set(after.baseline.scans) == set(MODALITIES)
    assert list(after.structures) == ["Brain"]  # the segmentation comes back as one, not as structures
    pairs = [(before.structures["Brain"], after.structures["Brain"])]
    pairs += [(before.baseline.labels.mask(name), after.baseline.labels.mask(name)) for name in LABELS]
    for mask, found in pairs:
        again = resample(mask.astype(np.float32), before.grid, after.grid, order=0)
        assert np.array_equal(again > 0.5, found)
    assert after.baseline.labels.mask("edema").any()
    dose = resample(before.dose.values, before.grid, after.grid)
    assert np.abs(after.dose.values - dose).max() <= 1e-4 * PRESCRIPTION
    scan = resample(before.baseline.scans["T1w"].values, before.grid, after.grid)
    assert np.abs(after.baseline.scans["T1w"].values - scan).max() <= 1e-3 * scan.max()


def test_forecasts_are_not_imported_as_what_a_scanner_saw(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    seen = patient().baseline
    only = Visit(0, {"T1w": seen.scans["T1w"]}, seen.labels)
    replace(patient(), visits=(only,), synthetic=False).save(run.patient_path)
    export_dicom(run.root, tmp_path / "out")
    report = import_dicom(tmp_path / "out", tmp_path / "back")
    left_out = [row for row in report.rows if row.detail == FORECAST]
    assert [row.name[:2] for row in left_out] == ["MR"] * 8 + ["RT"] * 2
    assert all(row.taken_as is None for row in left_out)
    back = Patient.load(tmp_path / "back")
    assert not back.synthetic
    assert list(back.baseline.scans) == ["T1w"]
    scan = resample(seen.scans["T1w"].values, GRID, back.grid)
    assert np.abs(back.baseline.scans["T1w"].values - scan).max() <= 1e-3 * scan.max()
    assert list(back.structures) == ["Brain"]
    assert report.treatments
    import_dicom(tmp_path / "out" / "arms" / "stupp", tmp_path / "forecast")
    assert Patient.load(tmp_path / "forecast").synthetic


def test_an_export_that_fails_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patient().save(tmp_path / "patient")
    out = tmp_path / "out"
    export_dicom(tmp_path / "patient", out)
    (out / "notes.txt").write_text("mine")
    monkeypatch.setattr(write_set, "write_dose", full_disk)
    with pytest.raises(OSError, match="No space"):
        export_dicom(tmp_path / "patient", out, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    with pytest.raises(OSError, match="No space"):
        export_dicom(tmp_path / "patient", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_sheared_patient_is_refused_before_anything_is_deleted(tmp_path: Path) -> None:
    affine = GRID.affine.copy()
    affine[0, 1] = 0.5
    sheared = Grid(GRID.shape, affine)
    scans = {"T1w": Scan(patient().baseline.scans["T1w"].values, sheared)}
    Patient("small", (Visit(0, scans),)).save(tmp_path / "patient")
    out = tmp_path / "out"
    (out / "patient").mkdir(parents=True)
    (out / INDEX).write_text("{}")
    with pytest.raises(InputError, match="right angles"):
        export_dicom(tmp_path / "patient", out, overwrite=True)
    assert (out / "patient").exists()


def test_another_patient_shares_no_uid(tmp_path: Path) -> None:
    one = patient()
    other = replace(one, id="other")
    uids = []
    for subject in (one, other):
        subject.save(tmp_path / subject.id)
        rows = export_dicom(tmp_path / subject.id, tmp_path / f"{subject.id}-out")
        assert [row.kind for row in rows] == ["MR"] * 4 + ["SEG", "RTSTRUCT", "RTPLAN", "RTDOSE"]
        content = b"".join(all_text(tmp_path / f"{subject.id}-out").values())
        uids.append(set(re.findall(rb"2\.25\.\d{30,}", content)))
    ours = {str(pydicom.dcmread(next((tmp_path / "small-out").rglob("*.dcm"))).file_meta.ImplementationClassUID)}
    assert {uid.decode() for uid in uids[0] & uids[1]} == ours


def test_an_arm_and_a_day_can_be_chosen(exported: tuple[Path, list[Written]], tmp_path: Path) -> None:
    run = exported[0].parent / "run"
    export_dicom(run, tmp_path / "arm", arm="stupp")
    assert [path.name for path in (tmp_path / "arm" / "arms").iterdir()] == ["stupp"]
    rows = export_dicom(run, tmp_path / "day", day=0)
    assert not [row for row in rows if "day020" in row.label]
    with pytest.raises(InputError, match=r"--arm one of untreated, stupp, got 'surgery'"):
        export_dicom(run, tmp_path / "no", arm="surgery")
    with pytest.raises(InputError, match=r"--day one with images \(0, 20\), got 21"):
        export_dicom(run, tmp_path / "no", day=21)
    with pytest.raises(InputError, match="no simulated run"):
        export_dicom(run / "patient", tmp_path / "no", arm="stupp")
    assert not (tmp_path / "no").exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    patient().save(tmp_path / "patient")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="expected"):
            export_dicom(tmp_path / "patient", out, overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="found a file"):
        export_dicom(tmp_path / "patient", out / "thesis.tex")
    (out / "thesis.tex").unlink()
    export_dicom(tmp_path / "patient", out)
    before = all_text(out)
    (out / "patient" / "old.dcm").write_bytes(b"stale")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="Add --overwrite"):
        export_dicom(tmp_path / "patient", out)
    export_dicom(tmp_path / "patient", out, overwrite=True)
    assert all_text(out) == before | {"notes.txt": b"mine"}


def test_what_has_no_storage_class_is_named(tmp_path: Path) -> None:
    subject = patient()
    scans = {"CT": subject.baseline.scans["T1w"], "PET": subject.baseline.scans["T2w"]}
    replace(subject, visits=(Visit(0, scans, subject.baseline.labels),), dose=None).save(tmp_path / "patient")
    rows = export_dicom(tmp_path / "patient", tmp_path / "out")
    assert [(row.kind, row.files) for row in rows] == [("-", 0), ("CT", 12), ("SEG", 1), ("RTSTRUCT", 1)]
    assert "PET" in rows[0].note
    replace(subject, visits=(Visit(0, {"PET": scans["PET"]}, subject.baseline.labels),)).save(tmp_path / "pet")
    rows = export_dicom(tmp_path / "pet", tmp_path / "pet-out")
    assert [row.kind for row in rows] == ["-", "-", "RTPLAN", "RTDOSE"]


def test_a_run_without_images_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for arm in run.arms():
        shutil.rmtree(run.arm_path(arm) / "mri")
    rows = export_dicom(run.root, tmp_path / "out", arm="stupp")
    assert [row.kind for row in rows][-3:] == ["RTPLAN", "RTDOSE", "-"]
    assert "refine" in rows[-1].note


def test_a_name_that_is_no_name_stays_one_component(tmp_path: Path) -> None:
    replace(patient("Ünal^A=7"), dose=None).save(tmp_path / "patient")
    export_dicom(tmp_path / "patient", tmp_path / "out")
    first = read_folder(tmp_path / "out/patient/day000_T1w")[0]
    assert (first.PatientID, str(first.PatientName)) == ("Ünal^A=7", "Ünal_A_7")


def complaints(path: Path) -> list[str]:
    """What dciodvfy holds against a file."""
    done = subprocess.run([str(VALIDATOR), "-new", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.skipif(VALIDATOR is None, reason="dciodvfy is not installed (Debian package dicom3tools)")
def test_the_validator_finds_no_error(exported: tuple[Path, list[Written]], tmp_path: Path) -> None:
    export_dicom(exported[0].parent / "run", tmp_path / "out")  # at 32 bits the validator stops with an assertion
    paths = [tmp_path / "out" / name for name in ("arms/stupp/dose.dcm", "arms/stupp/plan.dcm")]
    for folder in ("patient", "arms/stupp", "arms/untreated"):
        paths += (tmp_path / "out" / folder).glob("*_seg.dcm")
        paths += (tmp_path / "out" / folder).glob("*_structures.dcm")
        paths += (tmp_path / "out" / folder).glob("*_*/0007.dcm")
    assert len(paths) == 20
    assert {path.name: found for path in paths if (found := complaints(path))} == {}
    broken = pydicom.dcmread(paths[0])
    del broken.DoseUnits
    broken.save_as(tmp_path / "broken.dcm")
    assert complaints(tmp_path / "broken.dcm")  # it can find one


def test_a_dose_of_32_bits_differs_from_the_validated_one_in_its_pixels_alone(tmp_path: Path) -> None:
    patient().save(tmp_path / "patient")
    files = []
    for bits in (16, 32):
        export_dicom(tmp_path / "patient", tmp_path / f"{bits}", dose_bits=bits)  # type: ignore[arg-type]
        files.append(pydicom.dcmread(tmp_path / f"{bits}/patient/dose.dcm"))
    differ = {element.keyword for element in files[0] if element != files[1][element.tag]}
    pixels = {"BitsAllocated", "BitsStored", "HighBit", "DoseGridScaling", "PixelData"}
    assert differ == pixels | {"SOPInstanceUID", "SeriesInstanceUID"}
