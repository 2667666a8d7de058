"""Nothing that tells who a patient is goes from a clinic's DICOM files into a run."""

import gzip
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
import yaml
from small_run import COARSE, quick, small_patient

from hybridtumor import cli
from hybridtumor.dicom.exporting import export_dicom
from hybridtumor.dose_planning import dose_around
from hybridtumor.patient import Patient
from hybridtumor.targets import tumour_masks

CANARIES = {
    "PatientName": "Canary^Zebedee",
    "PatientID": "MRN4711CANARY",
    "PatientBirthDate": "19470823",
    "OtherPatientIDs": "CANARYOTHER",
    "PatientAddress": "7 Canary Row",
    "AccessionNumber": "ACCCANARY9",
    "InstitutionName": "Canary General",
    "StationName": "CANARYSTATION",
    "ReferringPhysicianName": "Doctor^Canary",
    "OperatorsName": "Nurse^Canary",
    "StudyDescription": "Brain of Canary",
    "SeriesDescription": "T1 canary series",
    "PatientComments": "lives next to a canary",
    "StudyID": "CANARYST",
    "RTPlanLabel": "canaryplan",
    "RTPlanName": "canary plan",
    "StructureSetLabel": "canaryset",
    "DoseComment": "canary dose",
    "StudyDate": "20230517",
    "SeriesDate": "20230517",
    "AcquisitionDate": "20230517",
    "StudyTime": "131217",
}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A folder of DICOM files as a clinic would send it, and every text in it that tells who the patient is."""
    root = tmp_path_factory.mktemp("clinic")
    patient = small_patient("small")
    gross = tumour_masks(patient).core
    dose = dose_around(gross, patient.tissue, 60.0)
    replace(patient, dose=dose, structures={"GTV": gross}).save(root / "patient")
    export_dicom(root / "patient", root / "sent")
    secrets = set(CANARIES.values()) | {"Canary", "canary", "Zebedee", "4711"}
    out = root / "Canary_Zebedee"
    for number, path in enumerate(sorted((root / "sent").rglob("*.dcm"))):
        data = pydicom.dcmread(path)
        for tag, value in CANARIES.items():
            setattr(data, tag, value)
        secrets |= {
            str(element.value) for element in data.iterall() if element.VR == "UI" and len(str(element.value)) > 30
        }
        (out / "Canary study").mkdir(parents=True, exist_ok=True)
        data.save_as(out / "Canary study" / f"CANARY.{number:05d}.dcm")
    return out, secrets


def read_all(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, unpacked, by its name."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        raw = path.read_bytes()
        files[path.relative_to(folder).as_posix()] = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return files


def found(secrets: set[str], text: bytes) -> set[str]:
    return {secret for secret in secrets if secret.encode() in text or secret.encode("utf-16-le") in text}


def test_no_identifier_reaches_a_run(
    clinic: tuple[Path, set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source, secrets = clinic
    assert len(secrets) > 30
    quick(monkeypatch)
    assert cli.main(["import-dicom", str(source), "--out", str(tmp_path / "patient"), "--id", "case-7"]) == 0
    known = small_patient()
    patient = Patient.load(tmp_path / "patient")
    replace(
        patient, tissue=replace(known.tissue, grid=patient.grid), density=replace(known.density, grid=patient.grid)
    ).save(tmp_path / "patient")
    files = sorted(source.rglob("*.dcm"))
    dose = next(path for path in files if pydicom.dcmread(path, stop_before_pixels=True).Modality == "RTDOSE")
    course = {"prescription": "60 Gy", "fractions": 30, "first_day": 14}
    scenario = {
        "schema_version": 1,
        "patient": "patient",
        "baseline_date": "2023-05-17",
        "horizon": "40 days",
        "report_days": [0, 40],
        "arms": {
            "own": [{"radiation": {**course, "dose": "patient"}}],
            "file": [{"radiation": {**course, "first_day": "2023-06-05", "dose": str(dose)}}],
        },
        "refine": {"samples": 1},
    }
    (tmp_path / "scenario.yaml").write_text(yaml.safe_dump(scenario))
    assert (
        cli.main(["compare", str(tmp_path / "scenario.yaml"), "--out", str(tmp_path / "run"), "--cell-size", COARSE])
        == 0
    )
    said = capfd.readouterr()
    secrets |= {"2023-05-17", "20230517", "2023-06-05"}
    assert found(secrets, (said.out + said.err).encode()) == set()
    leaks = {
        name: found(secrets, raw) | found(secrets, name.encode()) for name, raw in read_all(tmp_path / "run").items()
    }
    assert {name: hits for name, hits in leaks.items() if hits} == {}
    assert len(leaks) > 20


def test_the_search_finds_what_is_there(clinic: tuple[Path, set[str]]) -> None:
    source, secrets = clinic
    assert all(found(secrets, raw) for raw in read_all(source).values())
    assert found(secrets, gzip.decompress(gzip.compress(b"x Canary^Zebedee y")))
