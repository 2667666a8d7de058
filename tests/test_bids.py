"""A BIDS dataset is read as it was meant, and what is exported is read back as it was."""

import errno
import json
import re
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridtumor import bids_dataset
from hybridtumor.bids import is_bids_subject, subject_files
from hybridtumor.bids_export import export_bids
from hybridtumor.bids_name import ENTITY_ORDER, MAX_LABEL, BidsName, as_label
from hybridtumor.bids_tables import label_convention, session_days
from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.grid import Grid
from hybridtumor.manifest import Manifest
from hybridtumor.patient import Patient, Visit
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import LABEL_CONVENTIONS, MODALITIES, SYNTHETIC_NOTICE, LabelMap, Scan, write_nifti
from hybridtumor.therapy import DoseMap, Fractionation, TherapyPlan
from hybridtumor.tissue import TissueMap

_TURN = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
GRID = Grid((9, 11, 8), np.block([[_TURN * 2.1, np.array([[-7.0], [3.0], [11.0]])], [np.zeros(3), np.ones(1)]]))
CODES = LABEL_CONVENTIONS["brats2023"]


def noise(seed: int) -> np.ndarray:
    """Values without a short decimal form."""
    return np.random.default_rng(seed).random(GRID.shape).astype(np.float32) / 3


def tumour(convention: str = "brats2023") -> LabelMap:
    values = np.zeros(GRID.shape, np.uint8)
    values[3:6, 3:6, 3:6] = 2
    values[4, 4, 4] = LABEL_CONVENTIONS[convention]["enhancing"]
    return LabelMap(values, GRID, LABEL_CONVENTIONS[convention])


def full_patient(identity: str = "007", *, synthetic: bool = False) -> Patient:
    """Everything a patient may have, but a diffusion tensor."""
    scans = {name: Scan(noise(n), GRID) for n, name in enumerate([*MODALITIES, "ADC", "PET"])}
    white, csf = noise(20), noise(21)
    brainstem = np.zeros(GRID.shape, bool)
    brainstem[:2] = True
    return Patient(
        identity,
        (Visit(0, scans, tumour()), Visit(92.5, {"FLAIR": Scan(noise(9), GRID), "T1ce": Scan(noise(10), GRID)})),
        tissue=TissueMap(white, 1 - white - csf, csf, GRID),
        density=Scan(noise(22), GRID),
        dose=DoseMap(noise(23) * 180, GRID),
        structures={"Brainstem": brainstem, "Optic_Nrv": ~brainstem, "OpticNrv": brainstem[::-1]},
        oxygen=Scan(noise(24) * 100, GRID),
        radiosensitivity=Scan(noise(25), GRID),
        synthetic=synthetic,
    )


def arrays(patient: Patient) -> dict[str, np.ndarray]:
    """Every array of a patient by a name."""
    found = {f"{v.day:g}-{name}": scan.values for v in patient.visits for name, scan in v.scans.items()}
    found |= {f"{v.day:g}-seg": v.labels.values for v in patient.visits if v.labels}
    maps = {name: getattr(patient, name) for name in ("density", "dose", "oxygen", "radiosensitivity")}
    found |= {name: part.values for name, part in maps.items() if part is not None}
    if patient.tissue is not None:
        found |= {name: getattr(patient.tissue, name) for name in ("white", "grey", "csf")}
    return found | dict(patient.structures)


def saved(folder: Path, patient: Patient) -> Path:
    patient.save(folder)
    return folder


def sidecar(image: Path) -> dict[str, object]:
    content = json.loads(image.with_name(image.name.removesuffix(".nii.gz") + ".json").read_text())
    assert isinstance(content, dict)
    return content


def a_run(folder: Path, arms: tuple[str, ...], *, synthetic: bool = False) -> Path:
    """A finished run of which one arm is irradiated, without the time it takes to compute one."""
    run = RunFolder(folder, Manifest("0" * 64, patient="007", samples=4))
    labels = None if synthetic else tumour("brats2021")
    scans = {name: Scan(noise(n), GRID) for n, name in enumerate(MODALITIES)}
    saved(
        run.patient_path, Patient("007", (Visit(0, scans, labels),), density=Scan(noise(5), GRID), synthetic=synthetic)
    )
    for number, arm in enumerate(arms):
        plan = TherapyPlan(tuple(Fractionation(DoseMap(noise(7) * 30, GRID), n, 5.0 * n) for n in (25, 3) if number))
        fields = tuple(noise(30 + number + day) for day in (0, 180))
        forecast = Forecast(GRID, (0.0, 180.0), fields, fields, np.array([[0.0, 1.0], [180.0, 2.0]]))
        run.save_plan(arm, plan)
        run.save_forecast(arm, forecast, plan, {"days": [0.0, 180.0]})
        for modality in MODALITIES:
            for statistic, seed in (("sample", 40), ("mean", 50), ("std", 60)):
                run.save_scan(arm, modality, 180, Scan(noise(seed + number), GRID), statistic)
        for day in (0, 180):
            run.save_labels(arm, day, tumour("brats2021"))
        with run.stage(f"simulate {arm}"):
            pass
    return folder


def write(root: Path, name: str, values: np.ndarray | None = None) -> Path:
    """Write an image into the dataset at `root`; folders as its name says."""
    parts = BidsName.parse(name.rsplit("/", 1)[-1])
    assert parts is not None
    head, _, _ = name.rpartition("/")
    session = f"ses-{parts.entities['ses']}" if "ses" in parts.entities else ""
    folder = root / head / f"sub-{parts.entities['sub']}" / session / ("dose" if parts.suffix == "dose" else "anat")
    write_nifti(folder / str(parts), noise(1) if values is None else values, GRID)
    return folder / str(parts)


def days(table: str | None, folder: Path, *sessions: str) -> dict[str, float]:
    path = folder / "sub-a_sessions.tsv"
    if table is not None:
        path.write_text(table)
    return session_days(path, sessions)


# --- there and back


@pytest.mark.parametrize("synthetic", [False, True])
def test_an_exported_patient_is_read_back_exactly(tmp_path: Path, synthetic: bool) -> None:
    patient = full_patient(synthetic=synthetic)
    export_bids(saved(tmp_path / "p", patient), tmp_path / "out")
    again = Patient.load(tmp_path / "out" / "sub-007")
    assert (again.id, again.synthetic, [v.day for v in again.visits]) == ("007", synthetic, [0, 92.5])
    np.testing.assert_array_equal(again.grid.affine, patient.grid.affine.astype(np.float32))
    before, after = arrays(patient), arrays(again)
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert np.array_equal(values, after[name]), name
    assert again.baseline.labels is not None
    assert dict(again.baseline.labels.codes) == dict(CODES)


def test_exporting_what_was_exported_changes_nothing(tmp_path: Path) -> None:
    export_bids(saved(tmp_path / "p", full_patient()), tmp_path / "a")
    export_bids(tmp_path / "a" / "sub-007", tmp_path / "b")
    for path in (path for path in (tmp_path / "a").rglob("*") if path.is_file()):
        again = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == again.read_bytes(), path.name


def test_the_patient_of_an_exported_run_is_read_without_its_forecasts(tmp_path: Path) -> None:
    for synthetic in (False, True):
        run, out = (
            a_run(tmp_path / f"run{synthetic}", ("none", "stupp"), synthetic=synthetic),
            tmp_path / f"{synthetic}",
        )
        export_bids(run, out)
        before, after = arrays(Patient.load(run / "patient")), arrays(Patient.load(out / "sub-007"))
        assert before.keys() == after.keys()
        assert all(np.array_equal(values, after[name]) for name, values in before.items())


def test_one_session_is_a_patient_with_one_visit(tmp_path: Path) -> None:
    export_bids(saved(tmp_path / "p", full_patient()), tmp_path / "out")
    later = Patient.load(tmp_path / "out" / "sub-007" / "ses-day092p50")
    assert [(visit.day, list(visit.scans)) for visit in later.visits] == [(0, ["T1ce", "FLAIR"])]


# --- what is written


def test_every_image_says_what_it_is_and_whether_a_scanner_made_it(tmp_path: Path) -> None:
    export_bids(a_run(tmp_path / "run", ("none", "stupp")), tmp_path / "out")
    images = sorted((tmp_path / "out").rglob("*.nii.gz"))
    assert len(images) == 4 + 2 + 2 * (2 + 4 + 4 + 2) + 1
    for path in images:
        text, description = sidecar(path), bytes(nib.load(path).header["descrip"]).decode()
        assert {"Description", "Units"} <= text.keys(), path
        computed = "desc-" in path.name or "density" in path.name
        assert (text.get("Notice") == SYNTHETIC_NOTICE) == computed, path
        assert (SYNTHETIC_NOTICE in description) == computed, path
        assert ("Sources" in text) == ("derivatives" in path.parts), path
        assert not computed or "derivatives" in path.parts, path


def test_scans_of_a_synthetic_patient_are_derivatives(tmp_path: Path) -> None:
    export_bids(saved(tmp_path / "p", full_patient(synthetic=True)), tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.nii.gz"):
        assert path.is_relative_to(tmp_path / "out" / "derivatives")
        assert sidecar(path)["Notice"] == SYNTHETIC_NOTICE


def test_sources_exist(tmp_path: Path) -> None:
    for synthetic in (False, True):
        out = tmp_path / f"out{synthetic}"
        export_bids(saved(tmp_path / f"p{synthetic}", full_patient(synthetic=synthetic)), out)
        derived = out / "derivatives" / "hybridtumor"
        links = json.loads((derived / "dataset_description.json").read_text())["DatasetLinks"]
        for path in derived.rglob("*.nii.gz"):
            for uri in sidecar(path).get("Sources", []):  # type: ignore[attr-defined]
                _, dataset, relative = uri.split(":")
                assert (derived / links.get(dataset, ".") / relative).is_file(), uri


def test_arms_have_dose_segmentation_and_labels_of_their_own(tmp_path: Path) -> None:
    rows = export_bids(a_run(tmp_path / "run", ("plan", "a-b", "a_B")), tmp_path / "out")
    assert [row[1].split("desc-")[1] for row in rows if row[0].startswith("arm")] == ["plan2", "ab", "aB2"]
    subject = tmp_path / "out" / "derivatives" / "hybridtumor" / "sub-007"
    dose = subject / "dose" / "sub-007_desc-ab_dose.nii.gz"
    facts = {"Units": "Gy", "DoseType": "PHYSICAL", "NumberOfFractions": 28, "Arm": "a-b"}
    assert facts.items() <= sidecar(dose).items()
    np.testing.assert_array_equal(Scan.load(dose).values, noise(7) * 30 + noise(7) * 30)
    assert not (subject / "dose" / "sub-007_desc-plan2_dose.nii.gz").exists()
    stem = subject / "ses-day180" / "anat" / "sub-007_ses-day180"
    np.testing.assert_array_equal(Scan.load(f"{stem}_ce-gadolinium_desc-aB2_T1w.nii.gz").values, noise(42))
    assert "4\tenhancing" in Path(f"{stem}_desc-ab_dseg.tsv").read_text()


def test_a_follow_up_is_a_sample_and_the_mean_says_that_it_is_one(tmp_path: Path) -> None:
    long = "a" * (MAX_LABEL + 3)
    export_bids(a_run(tmp_path / "run", ("none", "noneMean", long, f"{long}b")), tmp_path / "out")
    folder = tmp_path / "out" / "derivatives" / "hybridtumor" / "sub-007" / "ses-day180" / "anat"
    cut, ends = "a" * MAX_LABEL, f"{'a' * (MAX_LABEL - 4)}Mean"
    labels = {"none": "noneMean2", "noneMean": "noneMeanMean", cut: ends, f"{cut[:-1]}2": f"{ends[:-1]}2"}
    for number, (arm, mean) in enumerate(labels.items()):
        for label, seed, text in (
            (arm, 40, "FLAIR image, one of 4 samples"),
            (mean, 50, "FLAIR image, mean of 4 samples"),
        ):
            path = folder / f"sub-007_ses-day180_desc-{label}_FLAIR.nii.gz"
            np.testing.assert_array_equal(Scan.load(path).values, noise(seed + number))
            assert sidecar(path)["Description"] == text
        dseg = sidecar(folder / f"sub-007_ses-day180_desc-{arm}_dseg.nii.gz")
        assert dseg["Description"] == "Segmentation of the tumour on the mean of 4 samples"


def test_names_and_descriptions_are_those_of_bids(tmp_path: Path) -> None:
    export_bids(a_run(tmp_path / "run", ("none", "stupp")), tmp_path / "out")
    for path in (tmp_path / "out").rglob("sub-*_*"):
        name = BidsName.parse(path.name)
        assert name is not None, path.name
        keys = [part.split("-")[0] for part in path.name.split("_")[:-1]]
        assert keys == sorted(keys, key=["sub", "ses", "acq", "ce", "run", "space", "label", "desc"].index)
        folders = [part for part in path.parts if part.startswith(("sub-", "ses-"))][:-1]
        assert folders == [f"{key}-{name.entities[key]}" for key in ("sub", "ses") if key in name.entities]
    for root, kind in ((tmp_path / "out", "raw"), (tmp_path / "out" / "derivatives" / "hybridtumor", "derivative")):
        content = json.loads((root / "dataset_description.json").read_text())
        assert content["DatasetType"] == kind
        assert {"Name", "BIDSVersion"} <= content.keys()
        assert content["GeneratedBy"][0]["Name"] == "hybridtumor"
    assert (tmp_path / "out" / "participants.tsv").read_text() == "participant_id\nsub-007\n"


def test_no_text_tells_where_the_patient_lay(tmp_path: Path) -> None:
    export_bids(a_run(tmp_path / "Doe_John_1950", ("none", "stupp")), tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.suffix in {".json", ".tsv", ".md"}:
            text = path.read_text()
            assert "Doe" not in text, path
            assert not re.search(r"(^|[\s\"':])/[a-zA-Z]", text), path


def test_only_an_own_dataset_is_overwritten(tmp_path: Path) -> None:
    patient, out = saved(tmp_path / "p", full_patient()), tmp_path / "out"
    export_bids(patient, out)
    with pytest.raises(InputError, match="Overwrite it"):
        export_bids(patient, out)
    (out / "sub-007" / "left_over").touch()
    export_bids(patient, out, overwrite=True)
    assert not (out / "sub-007" / "left_over").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    for bad in (tmp_path / "other", patient, patient / "bids", tmp_path):
        with pytest.raises(InputError, match=r"other files|apart from"):
            export_bids(patient, bad, overwrite=True)
    with pytest.raises(InputError, match="apart from"):
        export_bids(out / "sub-007", out, overwrite=True)
    assert (tmp_path / "other" / "thesis.txt").exists()
    assert (patient / "patient.yaml").exists()


# --- days


def test_an_export_that_fails_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patient = saved(tmp_path / "patient", full_patient())
    monkeypatch.setattr(bids_dataset, "write_nifti", full_disk)
    with pytest.raises(OSError, match="No space"):
        export_bids(patient, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patient"]


def test_all_files_that_tell_of_a_subject_are_found(tmp_path: Path) -> None:
    export_bids(a_run(tmp_path / "run", ("untreated",)), tmp_path / "out")
    (tmp_path / "out" / "sub-other" / "anat").mkdir(parents=True)
    (tmp_path / "out" / "sub-other" / "anat" / "sub-other_T1w.nii.gz").write_bytes(b"")
    (tmp_path / "out" / "derivatives" / "hybridtumor" / "dseg.tsv").write_text("index\tname\n")
    subject = next(path for path in (tmp_path / "out").glob("sub-*") if path.name != "sub-other")
    root, files = subject_files(subject)
    names = [path.relative_to(root).as_posix() for path in files]
    assert root == (tmp_path / "out").resolve()
    assert names == sorted(names)
    for part in ("_sessions.tsv", "_T1w.nii.gz", "derivatives/hybridtumor/dseg.tsv", "_dseg.nii.gz", "_dseg.json"):
        assert any(part in name for name in names), part
    assert not any("other" in name for name in names)
    assert subject_files(next(subject.glob("ses-*"))) == (root, files)


def test_days_come_from_dates_of_any_year(tmp_path: Path) -> None:
    table = "session_id\tacq_time\nses-x\t1901-03-01T10:00:00\nses-b\tn/a\nses-a\t1901-01-31T23:59:59.5\n"
    assert list(days(table, tmp_path, "x", "a").items()) == [("a", 0), ("x", 29)]


def test_days_come_from_a_column_in_spite_of_the_order_of_names(tmp_path: Path) -> None:
    for column in ("day", "days"):
        table = f"session_id\t{column}\nses-day000\t12.5\nses-day100\t2\n"
        assert list(days(table, tmp_path, "day000", "day100").items()) == [("day100", 0), ("day000", 10.5)]


def test_days_come_from_names_where_no_table_tells_them(tmp_path: Path) -> None:
    assert list(days(None, tmp_path, "day030", "Day7", "day092p5").items()) == [
        ("Day7", 0),
        ("day030", 23),
        ("day092p5", 85.5),
    ]
    assert days("session_id\tacq_time\nses-day030\tn/a\n", tmp_path, "day030", "day007") == {"day007": 0, "day030": 23}
    assert days(None, tmp_path / "none", "pre") == {"pre": 0}


@pytest.mark.parametrize(
    "table",
    [
        None,
        "session_id\tacq_time\nses-pre\t2001-01-01\n",
        "session_id\tacq_time\nses-pre\t2001-01-01\nses-post\tyesterday\n",
        "session_id\tacq_time\nses-pre\t2001-01-01T08:00\nses-post\t2001-01-01T18:00\n",
        "session_id\tday\nses-pre\t0\nses-post\tinf\n",
        "session_id\tday\nses-pre\t0\nses-pre\t3\nses-post\t5\n",
        "session_id\tday\nses-pre\nses-post\t5\n",
    ],
)
def test_sessions_without_a_day_of_their_own_are_refused(tmp_path: Path, table: str | None) -> None:
    with pytest.raises(InputError, match=r"sub-a_sessions\.tsv: expected"):
        days(table, tmp_path, "pre", "post")


def test_visits_follow_the_table(tmp_path: Path) -> None:
    for number, session in enumerate(("a", "b")):
        write(tmp_path, f"sub-1_ses-{session}_T1w.nii.gz", noise(number))
    with pytest.raises(InputError, match="Write the table"):
        Patient.load(tmp_path / "sub-1")
    table = "session_id\tacq_time\nses-a\t1900-05-01\nses-b\t1900-04-01\n"
    (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_text(table)
    patient = Patient.load(tmp_path / "sub-1")
    assert [visit.day for visit in patient.visits] == [0, 30]
    np.testing.assert_array_equal(patient.baseline.scans["T1w"].values, noise(1))


@given(st.text('session_idaqtmy\t\n"0129-:.eEnfT', max_size=80), st.text("index\tame\n0123.-", max_size=40))
def test_any_table_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: str, labels: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    for header in ("", "session_id\tacq_time\nses-a\t", "session_id\tday\nses-a\t"):
        with suppress(InputError):
            assert min(days(header + rows, folder, "a").values()) == 0
    (folder / "dseg.tsv").write_text("index\tname\n" + labels)
    with suppress(InputError):
        assert label_convention(folder / "dseg.tsv") in {None, *LABEL_CONVENTIONS}


# --- which image is which


def test_the_lowest_run_with_the_fewest_entities_is_read(tmp_path: Path) -> None:
    names = ["run-10", "run-2", "acq-fast_run-1", "desc-preproc", "part-phase", "ce-gadolinium_run-3", "rec-a_run-1"]
    for number, entities in enumerate(names):
        write(tmp_path, f"sub-1_{entities}_T1w.nii.gz", noise(number))
    write(tmp_path, "derivatives/other/sub-1_T1w.nii.gz", noise(90))
    write(tmp_path, "derivatives/other/sub-1_FLAIR.nii.gz", noise(91))
    scans = Patient.load(tmp_path / "sub-1").baseline.scans
    assert {
        name: np.flatnonzero([np.array_equal(s.values, noise(n)) for n in range(99)])[0] for name, s in scans.items()
    } == {
        "T1w": 1,
        "T1ce": 5,
        "FLAIR": 91,
    }


def test_spaces_are_not_mixed(tmp_path: Path) -> None:
    for name in ("T1w", "space-MNI152_T2w", "space-T1w_FLAIR"):
        write(tmp_path, f"sub-1_{name}.nii.gz")
    for tissue in ("WM", "GM", "CSF"):
        write(tmp_path, f"derivatives/a/sub-1_space-MNI152_label-{tissue}_probseg.nii.gz")
    patient = Patient.load(tmp_path / "sub-1")
    assert list(patient.baseline.scans) == ["T1w", "FLAIR"]
    assert patient.tissue is None


def test_a_segmentation_of_tissues_is_not_taken_for_a_tumour(tmp_path: Path) -> None:
    write(tmp_path, "sub-1_T1w.nii.gz")
    for name in ("dseg", "label-WM_probseg", "label-GM_probseg", "label-CSF_probseg"):
        write(tmp_path, f"derivatives/fmriprep/sub-1_{name}.nii.gz")
    patient = Patient.load(tmp_path / "sub-1")
    assert patient.baseline.labels is None
    assert patient.tissue is not None
    table = tmp_path / "derivatives" / "fmriprep" / "dseg.tsv"
    path = write(tmp_path, "derivatives/fmriprep/sub-1_dseg.nii.gz", tumour().values)
    table.write_text("index\tname\n1\tGrey Matter\n2\tWhite Matter\n")
    assert Patient.load(tmp_path / "sub-1").baseline.labels is None
    table.write_text("index\tname\n1\tNecrosis\n2\tOedema\n3\tEnhancing tumor\n")
    assert Patient.load(tmp_path / "sub-1").baseline.labels is not None
    table.write_text("index\tname\n3\tNecrosis\n2\tOedema\n1\tEnhancing tumor\n")
    with pytest.raises(InputError, match="Renumber"):
        Patient.load(tmp_path / "sub-1")
    path.with_name("sub-1_dseg.tsv").write_text("index\tname\n3\tET\n")
    labels = Patient.load(tmp_path / "sub-1").baseline.labels
    assert labels is not None
    assert dict(labels.codes) == dict(CODES)


def test_a_choice_that_no_rule_makes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "sub-1_T1w.nii.gz")
    write(tmp_path, "derivatives/a/sub-1_desc-rater1_dseg.nii.gz", tumour().values)
    assert Patient.load(tmp_path / "sub-1").baseline.labels is not None
    for other in ("b/sub-1_dseg", "a/sub-1_desc-rater2_dseg"):
        path = write(tmp_path, f"derivatives/{other}.nii.gz", tumour().values)
        with pytest.raises(InputError, match=r"one image of its kind.*away"):
            Patient.load(tmp_path / "sub-1")
        path.unlink()
    write(tmp_path, "derivatives/a/sub-1_T2w.nii.gz")
    write(tmp_path, "derivatives/b/sub-1_T2w.nii.gz")
    with pytest.raises(InputError, match=r"one image of its kind.*away"):
        Patient.load(tmp_path / "sub-1")


def test_a_dose_needs_its_unit(tmp_path: Path) -> None:
    write(tmp_path, "sub-1_T1w.nii.gz")
    dose = write(tmp_path, "derivatives/tps/sub-1_desc-plan_dose.nii.gz", np.full(GRID.shape, 6000, np.float32))
    beside = dose.with_name("sub-1_desc-plan_dose.json")
    for text in (None, '{"Units": "percent"}', '{"Units": "Gy", "DoseType": "EFFECTIVE"}', "[]", "{"):
        if text is not None:
            beside.write_text(text)
        with pytest.raises(InputError, match=r"sub-1_desc-plan_dose.*expected"):
            Patient.load(tmp_path / "sub-1")
    beside.write_text('{"Units": "cGy", "DoseType": "PHYSICAL", "NumberOfFractions": 30}')
    patient = Patient.load(tmp_path / "sub-1")
    assert patient.dose is not None
    np.testing.assert_allclose(patient.dose.values, 60)


# --- what is refused


@pytest.mark.parametrize("what", ["image", "sidecar", "folder", "pipeline", "table"])
def test_links_out_of_the_dataset_are_refused(tmp_path: Path, what: str) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside"
    image = write(root, "sub-1_ses-day000_T1w.nii.gz")
    image.with_name("sub-1_ses-day000_T1w.json").write_text("{}")
    (root / "sub-1" / "sub-1_sessions.tsv").write_text("session_id\tday\nses-day000\t0\n")
    pipeline = write(root, "derivatives/a/sub-1_ses-day000_dseg.nii.gz", tumour().values)
    assert Patient.load(root / "sub-1").baseline.labels is not None
    moved = {
        "image": image,
        "sidecar": image.with_name("sub-1_ses-day000_T1w.json"),
        "folder": image.parent,
        "pipeline": pipeline.parents[3],
        "table": root / "sub-1" / "sub-1_sessions.tsv",
    }[what]
    outside.mkdir()
    moved.replace(outside / moved.name)
    moved.symlink_to(outside / moved.name)
    with pytest.raises(InputError, match="inside the dataset"):
        Patient.load(root / "sub-1")


def test_a_file_named_after_another_subject_is_refused(tmp_path: Path) -> None:
    image = write(tmp_path, "sub-1_T1w.nii.gz")
    image.rename(image.with_name("sub-2_T1w.nii.gz"))
    with pytest.raises(InputError, match="named after"):
        Patient.load(tmp_path / "sub-1")


def test_folders_that_are_no_subject_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "sub-1_T1w.nii.gz")
    (tmp_path / "sub-2").mkdir()
    assert is_bids_subject(tmp_path / "sub-1")
    assert not any(
        map(is_bids_subject, (tmp_path, tmp_path / "sub-2", tmp_path / "sub-3", tmp_path / "sub-1" / "anat"))
    )
    write(tmp_path, "sub-4_desc-x_T1w.nii.gz")
    with pytest.raises(InputError, match="found none"):
        Patient.load(tmp_path / "sub-4")


# --- names

LABEL = st.text("abcXYZ019", min_size=1, max_size=8)


@given(
    entities=st.dictionaries(st.sampled_from(ENTITY_ORDER), LABEL, max_size=6),
    suffix=LABEL,
    extension=st.sampled_from([".nii", ".nii.gz", ".json", ".tsv"]),
    random=st.randoms(use_true_random=False),
)
def test_a_name_is_read_in_any_order_and_written_in_one(entities, suffix, extension, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = [f"{key}-{label}" for key, label in entities.items()]
    random.shuffle(shuffled)
    name = BidsName.parse("_".join([*shuffled, suffix]) + extension)
    assert name == BidsName(suffix, entities, extension)
    keys = [part.split("-")[0] for part in str(name).split("_")[:-1]]
    assert keys == [key for key in ENTITY_ORDER if key in entities]
    assert BidsName.parse(str(name)) == name
    assert BidsName.parse(f"sub-a_sub-a_{suffix}{extension}") is None
    assert BidsName.parse(f"colour-a_{suffix}{extension}") is None


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_none(text: str) -> None:
    name = BidsName.parse(text)
    assert name is None or BidsName.parse(str(name)) == name


@given(st.lists(st.text(max_size=50), max_size=12))
def test_labels_are_alphanumeric_and_differ(texts: list[str]) -> None:
    labels: list[str] = []
    for text in texts:
        labels.append(as_label(text, otherwise="x", taken=labels))
    assert all(re.fullmatch(f"[A-Za-z0-9]{{1,{MAX_LABEL}}}", label) for label in labels)
    assert len({label.lower() for label in labels}) == len(labels)
