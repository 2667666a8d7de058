"""Phantoms: made from their number alone, on warped brains, changed where the tumour has changed and nowhere else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phantom_brain import phantom_atlas

from hybridtumor import phantom_growth, phantom_plan, phantoms
from hybridtumor.atlas import Atlas
from hybridtumor.models.ventricles import ventricles
from hybridtumor.models.warp import jacobian
from hybridtumor.parameters import ImagingThresholds, MechanicalParameters
from hybridtumor.phantom_anatomy import FIRST_TEST, Anatomy, phantom_anatomy, random_warp, sharpened, warped
from hybridtumor.phantom_looks import scenery
from hybridtumor.phantom_scanner import ideal, scanned
from hybridtumor.phantoms import (
    Phantom,
    distance_moved,
    make_phantoms,
    moment_of,
    phantom_patient,
    random_phantom,
    scenery_of,
)
from hybridtumor.scan import MODALITIES
from hybridtumor.teacher import PhantomPair


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return phantom_atlas()


@pytest.fixture(scope="module")
def operated(atlas: Atlas) -> Iterator[Phantom]:
    """A phantom with surgery in a brain that stays where it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom_plan, "SURGERY", 1.0)
        patch.setattr(phantom_growth, "PUSHING", 0.0)
        patch.setattr(phantom_growth, "CELL_SIZE", "4 mm")
        yield random_phantom(3, phantom_anatomy(3, atlas))[0]


@pytest.fixture(scope="module")
def pushed(atlas: Atlas) -> Iterator[Phantom]:
    """A phantom whose tumour pushes the tissue aside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom_plan, "SURGERY", 0.0)
        patch.setattr(phantom_growth, "PUSHING", 1.0)
        patch.setattr(phantom_growth, "CELL_SIZE", "4 mm")
        yield random_phantom(5, phantom_anatomy(5, atlas), follow_ups=1)[0]


@pytest.mark.law("images", "A warped anatomy is not folded")
def test_a_warp_turns_nothing_inside_out(atlas: Atlas) -> None:
    for seed in range(3):
        warp = random_warp(np.random.default_rng(seed), atlas.tissue)
        assert jacobian(warp, atlas.tissue.grid).min() > 0.2
        assert 1 < np.linalg.norm(warp, axis=0).max() < 20  # mm: another brain, yet a brain


def test_a_warped_brain_has_fractions_and_ventricles(atlas: Atlas) -> None:
    brain = warped(atlas, random_warp(np.random.default_rng(1), atlas.tissue)).tissue
    parts = np.stack([brain.white, brain.grey, brain.csf])
    assert parts.min() >= 0
    assert parts.max() <= 1
    total = parts.sum(axis=0)
    assert np.allclose(total[brain.head], 1, atol=1e-5)
    assert not total[~brain.head].any()
    inner, before = ventricles(brain), ventricles(atlas.tissue)
    assert 0.4 < inner.sum() / before.sum() < 2.5
    assert brain.csf[inner].mean() > 0.9


def test_no_warp_is_the_brain_itself(atlas: Atlas) -> None:
    same = warped(atlas, np.zeros((3, *atlas.tissue.grid.shape), np.float32))
    assert np.allclose(same.tissue.white, atlas.tissue.white, atol=1e-6)
    assert np.allclose(same.t1.values, atlas.t1.values, atol=1e-3)


def test_sharper_borders_keep_the_larger_share(atlas: Atlas) -> None:
    mixed = (atlas.tissue.white > 0.1) & (atlas.tissue.grey > 0.1) & (atlas.tissue.csf < 0.01)
    sharp = sharpened(atlas.tissue, 3.0)
    gain = (sharp.white - atlas.tissue.white) * np.sign(atlas.tissue.white - atlas.tissue.grey)
    assert mixed.any()
    assert gain[mixed].min() > -0.02


def test_every_test_phantom_has_an_anatomy_of_its_own(atlas: Atlas) -> None:
    def unlike(number: int) -> bool:
        white = phantom_anatomy(number, atlas).tissue.white
        return bool(np.mean((white > 0.5) != (atlas.tissue.white > 0.5)) > 0.005)

    assert not unlike(0)
    assert unlike(1)
    assert unlike(FIRST_TEST)
    assert unlike(FIRST_TEST + 2)
    first, second = (phantom_anatomy(FIRST_TEST + k, atlas).tissue.white for k in (0, 1))
    assert np.abs(first - second).max() > 0.5


def test_a_number_gives_a_phantom_and_no_other(atlas: Atlas, operated: Phantom, monkeypatch: Any) -> None:
    monkeypatch.setattr(phantom_plan, "SURGERY", 1.0)
    monkeypatch.setattr(phantom_growth, "PUSHING", 0.0)
    monkeypatch.setattr(phantom_growth, "CELL_SIZE", "4 mm")
    again = random_phantom(3, phantom_anatomy(3, atlas))[0]
    assert np.array_equal(again.story.density, operated.story.density)
    assert np.array_equal(again.looks.mottle, operated.looks.mottle)
    draws = [np.random.default_rng([phantoms.STREAM, n]).random(4) for n in (*range(4), *range(1000, 1004))]
    assert len({tuple(d) for d in draws}) == len(draws)


def test_nothing_changes_where_no_tumour_has_changed(operated: Phantom) -> None:
    day = operated.story.days[0]
    rng = np.random.default_rng(0)
    scene, looks = scenery_of(operated, moment_of(operated.story, "untreated", day))
    before, _ = scenery_of(operated, replace_day0(operated))
    quiet = (scene.labels.sum(axis=0) < 1e-3) & (before.labels.sum(axis=0) < 1e-3) & scene.tissue.head
    assert quiet.sum() > 1000
    for m in range(len(MODALITIES)):
        change = ideal(scene, looks, operated.scanner, m) - ideal(before, looks, operated.scanner, m)
        assert np.abs(change[quiet]).max() < 2
        assert np.abs(change[~quiet]).max() > 20
    patient = phantom_patient(operated, np.random.default_rng(1))
    images = scanned(scene, looks, operated.scanner, rng)
    for m, name in enumerate(MODALITIES):
        difference = (images[name] - patient.baseline.scans[name].values)[quiet]
        assert difference.std() < 4 * operated.scanner.noise[m]  # two noises, a gain curve, a little blur from inside


def replace_day0(phantom: Phantom) -> Any:
    story = phantom.story
    zero = np.zeros_like(story.density)
    return phantoms.Moment(story.density, story.density, story.density, zero, None, None, zero)


def test_a_cavity_is_fluid_and_no_tumour(operated: Phantom) -> None:
    story, scanner = operated.story, operated.scanner
    day = story.days[-1]
    assert story.cavities
    moment = moment_of(story, "treated", day)
    scene, looks = scenery_of(operated, moment)
    inside = scene.cavity > 0.98
    assert inside.any()
    assert not scene.segmentation[inside].any()
    fluid = ideal(scene, looks, scanner, MODALITIES.index("T2w"))[inside]
    brain = ideal(scene, looks, scanner, MODALITIES.index("T2w"))[(scene.tissue.white > 0.9) & (scene.cavity == 0)]
    assert np.median(fluid) > 1.5 * np.median(brain)
    assert fluid.std() < 0.05 * fluid.mean()
    assert moment_of(story, "untreated", day).cavity is None


def test_treated_tumours_have_no_more_cells(operated: Phantom) -> None:
    day = operated.story.days[-1]
    moment = moment_of(operated.story, "treated", day)
    assert (moment.density <= moment.spared + 1e-3).mean() > 0.999
    assert moment.density.sum() < moment.spared.sum()
    assert moment.log_kill.max() > 0


def test_oedema_follows_white_matter(operated: Phantom) -> None:
    story = operated.story
    soaked = replace(operated.looks, soak=np.full_like(operated.looks.soak, 1.0))
    dry = replace(operated.looks, soak=np.zeros_like(operated.looks.soak))
    tissue, texture = story.anatomy.tissue, story.anatomy.texture
    args = (tissue, texture, story.density, story.density, None)
    more = scenery(*args, soaked, ImagingThresholds()).labels - scenery(*args, dry, ImagingThresholds()).labels
    assert more[1].sum() > 50
    assert np.abs(more[[0, 2]]).max() < 1e-5
    assert more[1][tissue.white < 0.05].sum() < 0.01 * more[1].sum()


def test_pushed_tissue_takes_everything_along(pushed: Phantom) -> None:
    story = pushed.story
    assert isinstance(story.mechanics, MechanicalParameters)
    moment = moment_of(story, "untreated", story.days[-1])
    assert moment.origins is not None
    assert np.allclose(distance_moved(moment.origins), moment.displacement)
    shift = story.untreated.displacement
    assert shift is not None
    assert 0.1 < moment.displacement.max() <= np.linalg.norm(shift[-1], axis=0).max() + 0.1
    assert np.array_equal(moment.spared, moment.density)
    scene, looks = scenery_of(pushed, moment)
    assert np.abs(scene.tissue.white - story.anatomy.tissue.white).max() > 0.05
    still = moment.displacement == 0
    assert np.array_equal(scene.tissue.white[still], story.anatomy.tissue.white[still])
    assert np.array_equal(looks.uptake[still], pushed.looks.uptake[still])


def test_a_run_that_was_stopped_goes_on(atlas: Atlas, operated: Phantom, monkeypatch: Any, tmp_path: Path) -> None:
    made: list[int] = []

    def of(number: int, brain: Anatomy, **_: Any) -> tuple[Phantom, np.random.Generator]:
        del brain
        made.append(number)
        return replace(operated, number=number), np.random.default_rng(number)

    monkeypatch.setattr(phantoms, "mni152", lambda: atlas)
    monkeypatch.setattr(phantoms, "random_phantom", of)
    monkeypatch.setattr(phantoms, "phantom_anatomy", lambda _number, _atlas: operated.story.anatomy)
    make_phantoms([7], tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(before) == len(operated.story.days) + 1
    make_phantoms([7, 8], tmp_path)
    assert made == [7, 8]
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("phantom_0007*.safetensors")} == before
    pair = PhantomPair.load(sorted(tmp_path.glob("phantom_0007_treated*.safetensors"))[-1])
    assert pair.cavity.max() > 0.9
    assert pair.baseline.shape == pair.healthy.shape == pair.texture.shape == pair.target.shape
    assert pair.levels.shape == (4, 2)
    assert pair.therapy.days_since_surgery > 0
    assert all(n % phantoms.PLACES == 0 for n in pair.density.shape)
    assert np.isfinite(pair.target).all()
