"""Evaluation: the answer is best at itself, onset hides the tumour, kinds never mix, the sheet is blind."""

import csv
import io
import json
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from numpy.typing import NDArray
from small_evaluation import SHAPE, ball, small_baseline, small_patient, small_refiner

from hybridtumor.errors import InputError
from hybridtumor.evaluation import contact_sheet, running, table
from hybridtumor.evaluation.cases import EvaluationCase, Region, hard_labels
from hybridtumor.evaluation.command import EvaluateOptions
from hybridtumor.evaluation.dose_series import DOSES, agreement, dose_series
from hybridtumor.evaluation.estimator import measured_by
from hybridtumor.evaluation.legend import GROUPS, MEANINGS, REGIONS
from hybridtumor.evaluation.page import page
from hybridtumor.evaluation.predictions import (
    METHODS,
    STUDENT_ROWS,
    TEACHER_ROWS,
    Ensemble,
    Prediction,
    ensemble,
    simpler,
    unconditional,
)
from hybridtumor.evaluation.problems import patient_of, phantom_case, real_case
from hybridtumor.evaluation.run import Evaluation, bank_of
from hybridtumor.evaluation.scoring import DATA_RANGE, Score, Scorer
from hybridtumor.metrics import psnr, ssim
from hybridtumor.models.conditioning import FIELDS, Condition, TherapyState
from hybridtumor.models.contrast import POPULATION
from hybridtumor.models.density_estimator import DensityNet
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.refine import Refiner
from hybridtumor.refiner_scene import DayFields, Scene, changed_box
from hybridtumor.solvers.place_noise import PlaceNoise
from hybridtumor.students import as_trained
from hybridtumor.teacher import PhantomPair, RealCase
from hybridtumor.train_options import STUDENTS

THRESHOLDS = ImagingThresholds()


@pytest.fixture(scope="module")
def real() -> EvaluationCase:
    return real_case("onset", small_baseline(), POPULATION, THRESHOLDS)


def pair(name: str = "phantom_007_untreated_060", moved: float = 0.0) -> PhantomPair:
    baseline = small_baseline()
    n, zero = baseline.density, np.zeros(SHAPE, np.float32)
    return PhantomPair(
        name=name,
        baseline=baseline.images,
        healthy=baseline.healthy,
        texture=baseline.texture,
        baseline_labels=baseline.soft_labels,
        target=baseline.images + 0.3 * ball(1.0, 13),
        target_labels=baseline.soft_labels,
        density_day0=n,
        density=np.maximum(n, ball(0.97, 12)),
        density_untreated=np.maximum(n, ball(0.97, 12)),
        log_kill=zero,
        tissue=np.stack([baseline.tissue.white, baseline.tissue.grey, baseline.tissue.csf]),
        displacement=zero + np.float32(moved),
        cavity=zero,
        contrast=baseline.contrast,
        levels=baseline.levels,
        enhances=True,
        spacing=1.0,
        day=60.0,
        therapy=TherapyState(),
    )


@pytest.fixture(scope="module")
def phantom() -> EvaluationCase:
    return phantom_case(pair(), THRESHOLDS)


@pytest.fixture(scope="module")
def students() -> dict[str, Refiner]:
    """Networks that have learnt nothing, sampled as students of every kind."""
    weights = small_refiner().weights
    found = {}
    for stage in STUDENTS:
        own, way = as_trained(replace(weights, header={"training": {"stage": stage}}))
        found[stage] = Refiner(own, **({"steps": 2} | way))
    return found


@pytest.fixture(scope="module")
def scored(real: EvaluationCase, students: dict[str, Refiner]) -> tuple[list[Score], Ensemble]:
    return Evaluation(small_refiner(), 4, students=students).of(real)


def value(scores: list[Score], method: str, region: str, figure: str) -> float:
    (found,) = [s.value for s in scores if (s.method, s.region, s.figure) == (method, region, figure)]
    return found


def test_onset_hides_the_tumour_and_asks_for_the_scan(real: EvaluationCase) -> None:
    baseline = small_baseline()
    box = real.scene.box
    assert np.array_equal(real.target_images, box.take(baseline.images))
    assert not real.scene.labels.any()
    assert not real.fields.density_day0.any()
    assert np.array_equal(real.scene.condition.contrast, POPULATION)  # not the patient's own
    assert real.oracle is not None
    assert not np.array_equal(real.oracle, real.textured.images)
    tumour, far = real.target_labels.sum(axis=0) > 0.5, real.fields.density == 0
    assert real.persistence is not None
    difference = np.abs(real.persistence - real.target_images).max(axis=0)
    assert difference[tumour].mean() > 10 * difference[far & real.head].mean()
    regions = real.regions()
    assert set(regions) == {"mask", "tumour", "brain"}
    assert regions["brain"].mask.sum() + regions["brain"].outside == baseline.head.sum()


def test_a_fill_that_reaches_beyond_the_scene_is_refused() -> None:
    baseline = small_baseline()
    texture = baseline.texture.copy()
    texture[:, 55, 30, 30] += 1
    far = np.roll(np.where(ball(1, 4) > 0.5, 0.9, 0), -15, axis=0).astype(np.float32)
    wide = replace(baseline, texture=texture, density=far)
    with pytest.raises(InputError, match="healthy fill to equal the scan"):
        real_case("far", wide, POPULATION, THRESHOLDS)
    with pytest.raises(InputError, match="changes visibly"):
        real_case("none", replace(baseline, density=0 * baseline.density), POPULATION, THRESHOLDS)


def test_whole_brain_figures_count_what_lies_beyond_the_box() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((1, 40, 40, 40)).astype(np.float32)
    b, head = a.copy(), np.ones((40, 40, 40), bool)
    b[0, 15:25, 15:25, 15:25] += 0.5
    from hybridtumor.evaluation.scoring import _voxelwise
    from hybridtumor.evaluation.similarity import similarity_scales

    box = (slice(None), *[slice(5, 35)] * 3)
    part = Region(head[box[1:]], 40**3 - 30**3)
    maps = [similarity_scales(b[box][0], a[box][0], DATA_RANGE, 1)]
    found = _voxelwise(b[box], a[box], part, maps)
    assert found["psnr"] == pytest.approx(psnr(b[0], a[0], data_range=DATA_RANGE), abs=1e-4)
    assert found["ssim"] == pytest.approx(ssim(b[0], a[0], data_range=DATA_RANGE), abs=1e-4)
    assert found["mae"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def test_the_target_itself_scores_best_in_every_figure(real: EvaluationCase) -> None:
    scorer = Scorer(real, THRESHOLDS, lambda _images: real.fields.density)
    itself = list(scorer.of(Prediction("itself", real.target_images, real.target_labels)))
    best = {"psnr": np.inf, "ssim": 1, "ms-ssim": 1, "dice": 1, "density correlation": 1}
    for score in itself:
        if score.figure != "dice to fields":
            assert score.value == pytest.approx(best.get(score.figure, 0), abs=1e-5), score
    one = Prediction("itself", real.target_images, real.target_labels)
    members = Ensemble(TEACHER_ROWS, np.repeat(real.target_images[None], 4, axis=0), one, one)
    perfect = {s.figure: s.value for s in scorer.of_ensemble(members) if s.region == "mask"}
    assert perfect["crps"] == pytest.approx(0, abs=1e-6)
    assert perfect["spread/skill"] == np.inf


def test_every_answer_gets_every_figure_and_only_the_mask_is_written(
    real: EvaluationCase, scored: tuple[list[Score], Ensemble]
) -> None:
    scores, found = scored
    forecasts = [rows.ensemble for rows in (TEACHER_ROWS, *STUDENT_ROWS.values())]
    assert {s.method for s in scores} == set(METHODS)
    assert np.array_equal(found.sample.images, found.images[0])
    for method in set(METHODS) - set(forecasts):
        for region in ("mask", "tumour", "brain"):
            assert np.isfinite(value(scores, method, region, "ssim"))
        for figure in ("ms-ssim", "spectrum", "haar energy", "haar kurtosis", "patches"):
            assert np.isfinite(value(scores, method, "tumour", figure))
        assert value(scores, method, "whole", "dice") >= 0
    assert value(scores, "persistence", "mask", "mae") == value(scores, "warped baseline", "mask", "mae")
    best = min(value(scores, m, "mask", "mae") for m in ("render", "smooth render"))
    for rows in (TEACHER_ROWS, *STUDENT_ROWS.values()):
        assert value(scores, rows.ensemble, "outside", "change outside the mask") == 0
        ratio = value(scores, rows.ensemble, "mask", "crps") / best
        assert value(scores, rows.ensemble, "mask", "crps over render's mae") == pytest.approx(ratio)
        assert value(scores, rows.sample, "mask", "spectrum over render's") > 0
        assert value(scores, rows.sample, "cost", "seconds") > 0
    crps = [value(scores, forecast, "mask", "crps") for forecast in forecasts]
    assert len(set(crps)) == 3  # the half-width student is the teacher here: same networks, same noise
    known = {(s.region, s.figure) for s in scores if not s.figure.startswith("rank ") or s.figure in MEANINGS}
    for region, figure in known:
        assert region in REGIONS
        assert figure in MEANINGS
        assert any(region in regions and figure in figures for regions, figures in GROUPS.values()), (region, figure)


def test_the_unconditional_answer_knows_only_the_support(real: EvaluationCase) -> None:
    blind = unconditional(real.scene)
    others = [i for i, name in enumerate(FIELDS) if name != "support"]
    assert not blind.fields[others].any()
    assert np.array_equal(blind.fields[FIELDS.index("support")], real.scene.fields[FIELDS.index("support")])


def test_members_are_pairs_as_shipped_or_independent(real: EvaluationCase, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []

    def noted(_self: object, scene: Scene, noise: list[PlaceNoise]) -> NDArray[np.float32]:
        drawn.append([own.sample for own in noise])
        return np.stack([own.white(0).numpy() for own in noise])

    monkeypatch.setattr(Refiner, "sample", noted)
    simpler(real, small_refiner())
    pairs, alone = (
        ensemble(real.scene, small_refiner(), TEACHER_ROWS, samples=4, antithetic=paired) for paired in (True, False)
    )
    assert drawn == [[0], [0, 1, 2, 3], [0, 2, 4, 6]]
    mean = pairs.images[:2].mean(axis=0)
    assert np.allclose(mean, real.scene.drawn.images, atol=1e-5)
    assert not np.allclose(alone.images[:2].mean(axis=0), mean, atol=0.1)
    nominal = [
        value(list(Scorer(real, THRESHOLDS).of_ensemble(a)), "ensemble", "mask", "nominal coverage 90%")
        for a in (pairs, alone)
    ]
    assert nominal == pytest.approx([1 / 3, 3 / 5])


def test_phantoms_are_told_from_their_files(phantom: EvaluationCase, tmp_path: Path) -> None:
    stored = pair()
    stored.save(tmp_path / "phantom_007.safetensors")
    read = phantom_case(PhantomPair.load(tmp_path / "phantom_007.safetensors"), THRESHOLDS)
    assert (read.kind, read.patient, read.name) == ("phantom", "phantom_007", stored.name)
    assert np.allclose(read.target_images, phantom.target_images, atol=2e-3)  # half precision
    assert np.array_equal(phantom.scene.baseline, phantom.warped)
    assert phantom.persistence is not None
    assert phantom_case(pair(moved=2.0), THRESHOLDS).persistence is None  # the scan before it moved is not kept
    assert phantom.outside == 0
    hole = ball(1.0, 4)
    cut = phantom_case(replace(pair(), cavity=(hole > 0.5).astype(np.float32)), THRESHOLDS)
    assert not cut.regions()["mask"].mask[cut.fields.cavity > 0].any()
    same = replace(pair(), density=pair().density_day0)
    with pytest.raises(InputError, match="changes visibly"):
        phantom_case(same, THRESHOLDS)


@pytest.mark.parametrize(
    ("name", "patient"), [("phantom_012_treated_090", "phantom_012"), ("phantom_3", "phantom_3"), ("x", "x")]
)
def test_scans_of_one_phantom_are_one_patient(name: str, patient: str) -> None:
    assert patient_of(name) == patient


def test_hard_labels_are_nested() -> None:
    soft = np.random.default_rng(0).dirichlet([1, 1, 1, 1], (6, 6, 6)).transpose(3, 0, 1, 2)[:3]
    found = hard_labels(soft)
    assert (found["core"] <= found["whole"]).all()
    assert (found["enhancing"] <= found["core"]).all()
    assert found["enhancing"].any()


def test_the_table_never_merges_kinds_and_averages_patients() -> None:
    def score(kind: str, patient: str, case: str, figure_value: float) -> Score:
        return Score(kind, patient, case, "mean", "mask", "mae", figure_value)

    scores = [
        score("real", "a", "a", 1.0),
        score("real", "b", "b", 3.0),
        score("phantom", "p", "p_1", 10.0),
        score("phantom", "p", "p_2", 20.0),
        score("phantom", "q", "q_1", 35.0),
        score("phantom", "q", "q_2", float("inf")),
    ]
    entries = table.gather(scores)
    means = {e.kind: e.interval.mean for e in entries if e.interval is not None}
    assert means == {"real": 2.0, "phantom": 25.0}
    assert {e.kind: e.undefined for e in entries} == {"real": 0, "phantom": 1}
    assert table.counts(scores) == {"real": {"patients": 2, "cases": 2}, "phantom": {"patients": 2, "cases": 4}}
    content = json.loads(table.to_json(entries, scores, {"notes": []}))
    assert set(content["table"]) == {"real", "phantom"}
    assert [row["mean"] for row in content["table"]["real"]] == [2.0]
    assert content["cases"][-1]["value"] is None
    rows = list(csv.DictReader(io.StringIO(table.to_csv(entries))))
    assert [(row["kind"], float(row["mean"]), row["patients"], row["cases"]) for row in rows] == [
        ("real", 2.0, "2", "2"),
        ("phantom", 25.0, "2", "3"),
    ]
    assert len(list(csv.DictReader(io.StringIO(table.cases_to_csv(scores))))) == len(scores)
    everything = table.gather([replace(s, kind="real") for s in scores])
    assert len(everything) == 1  # only the kind has kept them apart
    undefined = table.gather([score("real", "a", "a", float("nan"))])
    assert undefined[0].interval is None
    html = page(entries, scores, {"seed": 0, "notes": ["<b>"]})
    assert "&lt;b&gt;" in html
    real_part, phantom_part = html.split("Phantoms: follow-up")
    assert "25.000" not in real_part
    assert "25.000" in phantom_part
    assert "2.000" not in phantom_part.split("What the rows are")[0].replace("12.000", "")


def test_the_command_writes_table_page_and_a_blind_sheet(tmp_path: Path, students: dict[str, Refiner]) -> None:
    baseline = small_baseline()
    problems = [
        ("onset", lambda: real_case("onset", baseline, POPULATION, THRESHOLDS)),
        ("phantom_007", lambda: phantom_case(pair(), THRESHOLDS)),
        ("still", lambda: phantom_case(replace(pair("still"), density=pair().density_day0), THRESHOLDS)),
    ]
    about = {"seed": 0, "notes": []}
    bank = bank_of([_training_case()])
    evaluation = Evaluation(small_refiner(), 4, students={"consistency": students["consistency"]}, bank=bank)
    entries, scores = running.run(problems, evaluation, about, tmp_path, sheet_wanted=True)
    names = ["contact_sheet.png", "contact_sheet_key.json", "evaluation.csv", "evaluation.html", "evaluation.json"]
    assert {p.name for p in tmp_path.iterdir()} == {*names, "evaluation_cases.csv"}
    html = (tmp_path / "evaluation.html").read_text()
    assert "Research use only" in html
    assert "interval is of little worth" in html
    assert "Left out: case still" in html
    assert "<script" not in html
    assert "http" not in html
    assert METHODS["consistency ensemble"] in html
    assert "one-step" not in html  # rows that are not there are not explained
    shown = {(e.method, e.figure) for e in entries if e.kind == "real" and e.region == "mask"}
    assert {("consistency student", "psnr"), ("consistency mean", "psnr"), ("consistency ensemble", "crps")} <= shown
    key = json.loads((tmp_path / "contact_sheet_key.json").read_text())
    assert len(key) == 2 * contact_sheet.SECTIONS
    origins = [tile["origin"] for tile in key.values()]
    assert origins.count("generated") == contact_sheet.SECTIONS
    assert len({(tile["case"], tile["section_mm"]) for tile in key.values()}) == len(key)  # no twins
    assert imread(tmp_path / "contact_sheet.png").std() > 0.1
    assert {e.kind for e in entries} == {"real", "phantom"}
    ratio = value([s for s in scores if s.kind == "real"], "render", "crops", "memorisation")
    assert ratio > 0
    with pytest.raises(InputError, match="usable case"):
        running.run(problems[2:], evaluation, {"notes": []}, tmp_path)


def _training_case() -> RealCase:
    baseline = small_baseline()
    wanted = {f.name for f in fields(RealCase)}
    arrays: dict[str, NDArray[np.float32]] = {name: np.zeros(1, np.float32) for name in wanted}
    return RealCase(
        **{
            **arrays,
            "name": "trained",
            "scans": np.ascontiguousarray(baseline.images[:, ::-1]),
            "labels": np.ascontiguousarray(baseline.soft_labels[:, ::-1]),
            "enhances": True,
            "spacing": 1.0,
        }
    )


def test_the_sheet_shows_the_tumour_and_orders_by_seed(
    real: EvaluationCase, scored: tuple[list[Score], Ensemble]
) -> None:
    tiles = contact_sheet.tiles_of(real, scored[1].images, np.random.default_rng(0))
    assert [tile.origin for tile in tiles].count("real") == contact_sheet.SECTIONS // 2
    assert all(len(tile.images) == 4 for tile in tiles)
    first, same, other = (contact_sheet.contact_sheet(tiles, seed)[1] for seed in (0, 0, 1))
    assert first == same != other
    assert sorted(first, key=int) == [str(i + 1) for i in range(len(tiles))]


def test_images_that_follow_the_fields_have_slope_one(monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, refiner = small_baseline(), small_refiner()
    seen: list[float] = []

    def rendered(self: object, scene: object, noise: object, step: object = None) -> NDArray[np.float32]:
        seen.append(float(scene.fields[FIELDS.index("density")].sum()))  # type: ignore[attr-defined]
        return np.zeros((1, 7, *scene.box.extent), np.float32)  # type: ignore[attr-defined]

    monkeypatch.setattr(type(refiner), "sample", rendered)

    def contrast(healthy: NDArray[np.float32], _available: tuple[bool, ...]):
        return lambda images: np.clip(images[3] - healthy[3], 0, None)

    found = dose_series(baseline, refiner, contrast)
    assert found is not None
    assert len(seen) == len(DOSES) - 1  # dose 0 is the baseline scan
    assert all(b < a for a, b in pairwise(seen))
    assert found.spearman == pytest.approx(-1)
    assert found.violations == 0
    assert found.slope > 0
    assert dose_series(replace(baseline, density=0 * baseline.density), refiner, contrast) is None


def test_source_and_fields_change_the_image_of_a_small_kill_by_what_they_add(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn images whose FLAIR is the density told, less a given share of the kill in mode `source`."""
    baseline, refiner = small_baseline(), small_refiner()

    def drawn(share: float):
        def sample(self: Refiner, scene: Scene, noise: object, step: object = None) -> NDArray[np.float32]:
            images = np.zeros((1, 7, *scene.box.extent), np.float32)
            pushed = share * scene.spared if self.guidance.mode == "source" else 0
            images[0, 3] = scene.fields[FIELDS.index("density")] - pushed
            return images

        return sample

    def flair(_healthy: NDArray[np.float32], _available: tuple[bool, ...]):
        return lambda images: images[3]

    monkeypatch.setattr(Scene, "compose", lambda self, drawn: (drawn[:, :4], drawn[:, 4:]))
    for share in (1.0, 0.5, -1.0):
        monkeypatch.setattr(Refiner, "sample", drawn(share))
        found = agreement(baseline, refiner, flair)
        assert found is not None
        assert found.source_over_condition == pytest.approx(share, rel=0.05)
        assert found.same_sign == pytest.approx(float(share > 0), abs=0.05)
    assert agreement(replace(baseline, density=0 * baseline.density), refiner, flair) is None


def test_an_untold_scene_knows_what_therapy_changes_of_the_render() -> None:
    baseline, n = small_baseline(), small_baseline().density
    less, kill = (n * np.exp(-0.5)).astype(np.float32), np.where(n > 0, 0.5, 0).astype(np.float32)
    shown = DayFields(n, less, n, kill)
    box = changed_box(n, less, baseline)
    assert box is not None
    scene = Scene.cut(baseline, shown, box, Condition(60.0, POPULATION, baseline.available), ImagingThresholds())
    untold = scene.told_nothing(baseline, shown, ImagingThresholds())
    assert scene.killed() is None
    change = np.random.default_rng(0).normal(0, 0.3, POPULATION.shape).astype(np.float32)
    for told, other in ((scene, untold), (scene.coloured(change), untold.coloured(change))):
        expected = told.inputs()["render"] - other.inputs()["render"]
        killed = other.killed()
        assert killed is not None
        assert np.abs(expected).max() > 0.1
        assert np.allclose(killed, expected, atol=1e-5)


def test_wrong_requests_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for samples in (1, 2, 5):
        with pytest.raises(InputError, match="even number"):
            Evaluation(small_refiner(), samples)
    monkeypatch.setattr(running.Refiner, "load", lambda _path=None: small_refiner())
    monkeypatch.delenv("HYBRIDTUMOR_DATA", raising=False)
    with pytest.raises(InputError, match="HYBRIDTUMOR_DATA"):
        running.evaluate(EvaluateOptions(out=tmp_path))
    with pytest.raises(InputError, match="BraTS folders"):
        running.evaluate(EvaluateOptions(data=tmp_path, out=tmp_path))
    with pytest.raises(InputError, match="prepared phantoms"):
        running.evaluate(EvaluateOptions(real=False, phantoms=tmp_path, out=tmp_path))
    with pytest.raises(InputError, match="prepared training cases"):
        running.evaluate(EvaluateOptions(cache=tmp_path, out=tmp_path))
    (tmp_path / "test" / "patients" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="cases b among"):
        running.evaluate(EvaluateOptions(data=tmp_path, cases=("a", "b"), out=tmp_path))
    with pytest.raises(InputError, match="got the stage diffusion"):
        running.evaluate(EvaluateOptions(students=(tmp_path / "student.safetensors",), out=tmp_path))
    assert small_patient().tissue is not None


def test_students_are_told_by_their_headers(students: dict[str, Refiner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.Refiner, "load", lambda path: students[path.stem])
    found = running._students((Path("half-width"), Path("one-step")))
    assert list(found) == ["half-width", "one-step"]
    told = running._about(Evaluation(small_refiner(), 4, students=found), "test")
    assert {"half-width student", "one-step student"} <= told.keys()
    assert not any("student" in note for note in told["notes"])
    assert "--student" in " ".join(running._about(Evaluation(small_refiner(), 4), "test")["notes"])
    with pytest.raises(InputError, match="got the stage one-step again"):
        running._students((Path("one-step"),) * 2)


def test_the_density_net_measures_as_it_is_called(real: EvaluationCase) -> None:
    torch.manual_seed(0)
    net = DensityNet()
    estimate = measured_by(net)(real.healthy, (True, True, False, True))
    found = estimate(real.target_images)
    assert found.shape == real.head.shape
    images, healthy = (torch.from_numpy(a)[None] for a in (real.target_images, real.healthy))
    with torch.no_grad():
        wanted = net(images, healthy, torch.tensor([[1.0, 1.0, 0.0, 1.0]]))[0, 0].numpy()
    assert np.array_equal(found, wanted)
    scores = list(Scorer(real, THRESHOLDS, estimate).of(Prediction("x", real.target_images, real.target_labels)))
    assert np.isfinite(value(scores, "x", "mask", "density correlation"))
