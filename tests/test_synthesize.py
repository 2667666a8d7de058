"""Synthetic cohorts: read back by our own reader, marked as synthetic, resumable, never written over something else."""

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom_brain import phantom_atlas

from hybridtumor import cohort, phantom_growth, phantom_plan, prepare, tissue_classifier
from hybridtumor.cohort import CohortSettings, make_cohort
from hybridtumor.errors import InputError
from hybridtumor.patient import Patient
from hybridtumor.scan import LABELS, MODALITIES, SYNTHETIC_NOTICE, Scan
from hybridtumor.scenario import Scenario
from hybridtumor.tissue import TissueMap
from hybridtumor.yaml_file import load_yaml

SETTINGS = CohortSettings(seed=2, follow_ups=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A cohort of two on the small brain, with surgery."""
    out = tmp_path_factory.mktemp("cohorts") / "syn"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "mni152", phantom_atlas)
        patch.setattr(phantom_growth, "PUSHING", 0.0)
        patch.setattr(phantom_growth, "CELL_SIZE", "4 mm")
        patch.setattr(phantom_plan, "SURGERY", 1.0)
        yield out, make_cohort(out, 2, SETTINGS)


def test_our_reader_reads_the_same_volumes(made: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    out, names = made

    def known(scan: Scan, tumour: np.ndarray) -> TissueMap:
        del tumour
        head = (scan.values > 0).astype(np.float32)
        return TissueMap(head, 0 * head, 0 * head, scan.grid)

    monkeypatch.setattr(tissue_classifier, "classify", known)
    rows = [line.split("\t") for line in (out / "participants.tsv").read_text().splitlines()]
    assert [row[0] for row in rows[1:]] == names
    for name, row in zip(names, rows[1:], strict=True):
        patient = prepare.load_patient(out / name)
        assert patient.id == name
        assert set(patient.baseline.scans) == set(MODALITIES)
        table = dict(zip(rows[0], row, strict=True))
        assert patient.baseline.labels is not None
        for label in LABELS:
            volume = np.count_nonzero(patient.baseline.labels.mask(label)) * patient.grid.voxel_volume
            assert volume == pytest.approx(float(table[f"{label}_mm3"]))
        assert patient.baseline.labels.mask().any()


def test_patients_differ(made: tuple[Path, list[str]]) -> None:
    out, names = made
    first, second = (Patient.load(out / name).baseline for name in names)
    assert first.labels is not None
    assert second.labels is not None
    assert not np.array_equal(first.labels.values, second.labels.values)


def test_every_image_says_that_it_is_synthetic(made: tuple[Path, list[str]]) -> None:
    out, _ = made
    images = sorted(out.rglob("*.nii.gz"))
    assert len(images) > 12
    for path in images:
        assert nib.load(path).header["descrip"].item().decode() == SYNTHETIC_NOTICE
        assert json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["notice"]
    for name in ("README", "cohort.yaml", "*/plan.yaml", "*/parameters.yaml"):
        assert all(SYNTHETIC_NOTICE in path.read_text() for path in out.glob(name))


def test_a_plan_can_be_simulated_as_it_stands(made: tuple[Path, list[str]]) -> None:
    out, names = made
    plan = out / names[0] / "plan.yaml"
    assert all(isinstance(entry, dict) for entry in load_yaml(plan))
    content = {
        "schema_version": 1,
        "patient": str((out / names[0]).resolve()),
        "horizon": "60 days",
        "report_days": [0, 60],
        "arms": {"untreated": [], "plan": load_yaml(plan)},
    }
    assert Scenario.parse(content, folder=plan.parent).arms["plan"]


def test_a_follow_up_is_a_folder_of_the_same_kind(made: tuple[Path, list[str]]) -> None:
    out, names = made
    (visit,) = (out / names[0]).glob("*-day*")
    files = {path.name.removeprefix(visit.name) for path in visit.glob("*.nii.gz")}
    assert {"_t1.nii.gz", "_t1ce.nii.gz", "_t2.nii.gz", "_flair.nii.gz", "_seg.nii.gz", "_density.nii.gz"} <= files
    cavity = Scan.load(visit / f"{visit.name}_cavity.nii.gz").values
    assert cavity.max() > 0.9
    assert not Scan.load(visit / f"{visit.name}_seg.nii.gz").values[cavity > 0.99].any()


def test_what_is_there_stays_and_what_is_missing_comes_back(
    made: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, names = made
    wanted: list[int] = []

    def note(_out: Path, index: int, _settings: CohortSettings, _atlas: object) -> None:
        wanted.append(index)

    monkeypatch.setattr(cohort, "mni152", phantom_atlas)
    monkeypatch.setattr(cohort, "_make_patient", note)
    (out / f".{SETTINGS.name(3)}.left").mkdir()
    assert make_cohort(out, 3, SETTINGS) == [*names, SETTINGS.name(3)]
    assert wanted == [3]
    assert len((out / "participants.tsv").read_text().splitlines()) == 3


def test_another_folder_is_left_alone(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    out, _ = made
    with pytest.raises(InputError, match="settings"):
        make_cohort(out, 2, CohortSettings(seed=3, follow_ups=1))
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(InputError, match="new folder"):
        make_cohort(tmp_path, 1, SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]


@pytest.mark.parametrize(("count", "seed", "visits"), [(0, 0, 0), (1, -1, 0), (1, 0, 13)])
def test_absurd_requests_are_refused(tmp_path: Path, count: int, seed: int, visits: int) -> None:
    with pytest.raises(InputError, match="synthesize"):
        make_cohort(tmp_path / "new", count, CohortSettings(seed, visits))


def test_seeds_share_no_phantom() -> None:
    numbers = [CohortSettings(seed).number(index) for seed in range(3) for index in (1, cohort.PER_SEED - 1)]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) > 1_000_000
