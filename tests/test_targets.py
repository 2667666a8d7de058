"""Targets grow by the millimetres of their recipe through brain tissue only, phase by phase."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxels import brain, distance_from, grid_of, voxel

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.margins import grow_within, path_length
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import LabelMap, Scan
from hybridtumor.targets import (
    RECIPES,
    Recipe,
    TargetPhase,
    TumourMasks,
    clinical_targets,
    gross_tumour,
    split_fractions,
    whole_tumour,
)

SIZES = [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (0.5, 1.5, 2.0)]
ONE_PHASE = {"estro-eano-2023": 15.0, "eortc-2016": 20.0, "gtv": 0.0}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recipe", ONE_PHASE)
def test_target_is_the_ball_of_the_recipe_where_nothing_is_in_the_way(
    recipe: str, size: tuple[float, float, float]
) -> None:
    n = [int(46 / h) | 1 for h in size]
    grid = grid_of((n[0], n[1], n[2]), size)
    middle = tuple(k // 2 for k in n)
    ((phase, target),) = clinical_targets(recipe, TumourMasks(voxel(grid, *middle)), brain(grid))
    assert phase == TargetPhase(phase.name, "core", ONE_PHASE[recipe])
    np.testing.assert_array_equal(target, distance_from(grid, *middle) <= ONE_PHASE[recipe])


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (1.0, 1.5, 3.0)])
@pytest.mark.parametrize(("oedema_radius", "first"), [(11.0, 31.0), (0.0, 30.0)])
def test_rtog_has_two_balls_around_a_ball(oedema_radius: float, first: float, size: tuple[float, float, float]) -> None:
    """A core of 5 mm: 20 mm around the oedema of 11 mm, or 25 mm around the core without; then 20 mm around the core.
    Closed forms, but for a shell of one voxel diagonal."""
    n = [int(66 / h) | 1 for h in size]
    grid = grid_of((n[0], n[1], n[2]), size)
    distance = distance_from(grid, *(k // 2 for k in n))
    core = distance <= 5
    (phase1, ctv1), (phase2, ctv2) = clinical_targets(
        "rtog", TumourMasks(core, (distance <= oedema_radius) & ~core), brain(grid)
    )
    diagonal = float(np.linalg.norm(size))
    assert (phase1.name, phase2.name) == ("CTV1", "CTV2")
    assert 60 * np.array([phase1.share, phase2.share]) == pytest.approx([46, 14])
    for target, radius in ((ctv1, first), (ctv2, 25.0)):
        assert not target[distance > radius].any()
        assert target[distance <= radius - diagonal].all()
        volume = target.sum() * grid.voxel_volume
        assert abs(volume - 4 / 3 * np.pi * radius**3) <= 4 * np.pi * radius**2 * diagonal
    assert not (ctv2 & ~ctv1).any()


def test_one_margin_replaces_all_of_the_recipe() -> None:
    grid = grid_of((31, 31, 31))
    distance = distance_from(grid, 15, 15, 15)
    masks = TumourMasks(distance <= 2, (distance > 2) & (distance <= 6))
    for (phase, target), start in zip(
        clinical_targets("rtog", masks, brain(grid), margin=7.0), (6.0, 2.0), strict=True
    ):
        assert phase.margin == 7
        assert not target[distance > start + 7].any()
        assert target[distance <= start + 7 - np.sqrt(3)].all()
    with pytest.raises(InputError, match="not negative"):
        clinical_targets("rtog", masks, brain(grid), margin=-1.0)


def test_cavity_of_a_resection_counts_with_the_tumour() -> None:
    """A cavity beside the core belongs to it in every phase; oedema inside the cavity is gone."""
    grid = grid_of((70, 9, 9))
    core, oedema, cavity = (voxel(grid, slice(a, b)) for a, b in ((30, 33), (33, 36), (33, 38)))
    tissue = brain(grid)
    ((_, plain),) = clinical_targets("estro-eano-2023", TumourMasks(core, oedema), tissue)
    ((_, operated),) = clinical_targets("estro-eano-2023", TumourMasks(core, oedema), tissue, cavity=cavity)
    assert [np.flatnonzero(m[:, 4, 4])[[0, -1]].tolist() for m in (plain, operated)] == [[15, 47], [15, 52]]
    (first, ctv1), (_, ctv2) = clinical_targets("rtog", TumourMasks(core, oedema), tissue, cavity=cavity)
    assert first.margin == 25, "no oedema is left"
    assert [np.flatnonzero(m[:, 4, 4])[[0, -1]].tolist() for m in (ctv1, ctv2)] == [[5, 62], [10, 57]]
    ((_, emptied),) = clinical_targets("gtv", TumourMasks(np.zeros_like(core)), tissue, cavity=cavity)
    np.testing.assert_array_equal(emptied, cavity)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_crosses_a_barrier(recipe: str) -> None:
    """A wall of CSF 8 mm from the core with a gap too far away to go through: behind it is no target, in any phase."""
    grid = grid_of((60, 60, 9))
    tissue = brain(grid, voxel(grid, slice(40, 42), slice(0, 50)))
    assert tissue.parenchyma[45, 10, 4], "the brain goes on behind the wall"
    masks = TumourMasks(voxel(grid, slice(28, 33), 10, 4), voxel(grid, slice(33, 37), 10, 4))
    for phase, target in clinical_targets(recipe, masks, tissue):
        assert not target[40:].any()
        assert target[39, 10, 4] == (phase.margin > 0)


def test_target_does_not_cross_a_barrier_but_goes_round_its_end() -> None:
    """A wall of CSF at x = 15, open for y ≥ 30; the seed sits 3 mm before it."""
    grid = grid_of((40, 60, 9))
    csf = np.zeros(grid.shape, bool)
    csf[15:17, :30] = True
    tissue = brain(grid, csf)
    far_from_the_end = grow_within(voxel(grid, 12, 10, 4), tissue.parenchyma, grid, 15.0)
    assert not far_from_the_end[15:].any()
    assert far_from_the_end[:15].any()
    near_the_end = grow_within(voxel(grid, 12, 27, 4), tissue.parenchyma, grid, 15.0)
    assert near_the_end[20, 32, 4]
    assert not near_the_end[18, 20, 4], "9 mm away straight, 18 mm round the end"
    assert not (near_the_end & csf).any()


def test_way_round_a_corner_is_the_sum_of_two_straight_ways() -> None:
    grid = grid_of((41, 41, 3))
    room = np.ones(grid.shape, bool)
    room[20:22, :30] = False
    length = path_length(voxel(grid, 10, 10, 1), room, grid.voxel_size, 200.0)
    round_the_end = np.hypot(20 - 10, 30 - 10) + 1 + np.hypot(31 - 21, 30 - 10)
    assert length[31, 10, 1] == pytest.approx(round_the_end, abs=2 * np.sqrt(3)), "a voxel diagonal each"
    assert np.isinf(path_length(voxel(grid, 10, 10, 1), room, grid.voxel_size, 20.0)[31, 10, 1])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), margin=st.floats(0, 8), more=st.floats(0, 5))
def test_growing_is_monotone_and_stays_inside(seed: int, margin: float, more: float) -> None:
    random = np.random.default_rng(seed)
    grid = grid_of((16, 14, 12), (1.0, 1.3, 2.0))
    room = random.random(grid.shape) > 0.4
    gross = voxel(grid, *random.integers(2, 10, 3))
    small, large = (grow_within(gross, room, grid, m) for m in (margin, margin + more))
    assert not (small & ~large).any()
    assert not (large & ~room & ~gross).any()
    assert (small & gross).any()


def test_axis_flips_do_not_move_the_target_in_the_world() -> None:
    grid = grid_of((20, 24, 10), (1.0, 1.0, 2.0))
    csf = np.zeros(grid.shape, bool)
    csf[8:10, :, :6] = True
    gross = voxel(grid, 6, 12, 4)
    ((_, plain),) = clinical_targets("estro-eano-2023", TumourMasks(gross), brain(grid, csf))
    affine = grid.affine @ np.array([[-1, 0, 0, 19], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    tissue = brain(Grid(grid.shape, affine), csf[::-1])
    ((_, flipped),) = clinical_targets("estro-eano-2023", TumourMasks(gross[::-1]), tissue)
    np.testing.assert_array_equal(flipped[::-1], plain)


def test_gross_tumour_is_the_core_or_else_all_that_shows() -> None:
    grid = grid_of((6, 6, 6))
    density = Scan(np.linspace(0, 1, 216, dtype=np.float32).reshape(grid.shape), grid)
    blank = {"T1w": Scan(np.zeros(grid.shape), grid)}
    from_density = Patient("p", (Visit(0, blank),), density=density)
    np.testing.assert_array_equal(gross_tumour(from_density), density.values > 0.6)
    np.testing.assert_array_equal(whole_tumour(from_density), density.values > 0.2)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1], labels[2], labels[3] = 2, 4, 1
    patient = Patient("p", (Visit(0, blank, LabelMap(labels, grid)),), density=density)
    np.testing.assert_array_equal(gross_tumour(patient), (labels == 4) | (labels == 1))
    np.testing.assert_array_equal(whole_tumour(patient), labels > 0)
    only_edema = Patient("p", (Visit(0, blank, LabelMap(np.where(labels == 2, labels, 0), grid)),))
    np.testing.assert_array_equal(gross_tumour(only_edema), labels == 2)
    np.testing.assert_array_equal(whole_tumour(only_edema), labels == 2)
    assert [phase.margin for phase, _ in clinical_targets("rtog", only_edema, brain(grid))] == [20, 20], "oedema shows"
    faint = Patient("p", (Visit(0, blank),), density=Scan(0.5 * density.values, grid))
    np.testing.assert_array_equal(gross_tumour(faint), faint.density.values > 0.2)
    with pytest.raises(InputError, match="expected a tumour to aim at"):
        gross_tumour(Patient("p", (Visit(0, blank),)))


@st.composite
def phases(draw: st.DrawFn) -> tuple[TargetPhase, ...]:
    weights = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    return tuple(TargetPhase(f"T{k}", "core", 5.0, share=w / sum(weights)) for k, w in enumerate(weights))


@given(fractions=st.integers(1, 200), parts=phases())
def test_fractions_are_split_whole_and_by_the_shares(fractions: int, parts: tuple[TargetPhase, ...]) -> None:
    counts = split_fractions(fractions, parts)
    assert sum(counts) == fractions
    for count, phase in zip(counts, parts, strict=True):
        assert abs(count - fractions * phase.share) < 1
    by_share = [count for _, count in sorted(zip((p.share for p in parts), counts, strict=True))]
    assert all(less <= more for less, more in pairwise(by_share)), "a larger share never gets less"


def test_rtog_splits_thirty_fractions_into_twenty_three_and_seven() -> None:
    rtog = RECIPES["rtog"].phases
    splits = {n: split_fractions(n, rtog) for n in (30, 60, 15, 3, 1)}
    assert splits == {30: (23, 7), 60: (46, 14), 15: (12, 3), 3: (2, 1), 1: (1, 0)}
    with pytest.raises(InputError, match="at least one"):
        split_fractions(0, rtog)


def test_bad_targets_and_recipes_are_refused() -> None:
    grid = grid_of((5, 5, 5))
    one, none = voxel(grid, 2, 2, 2), np.zeros(grid.shape, bool)
    with pytest.raises(InputError, match="expected one of estro-eano-2023"):
        clinical_targets("estro", TumourMasks(one), brain(grid))
    with pytest.raises(InputError, match="empty mask"):
        clinical_targets("rtog", TumourMasks(none), brain(grid))
    for masks, cavity in ((TumourMasks(one[1:]), None), (TumourMasks(one, one[1:]), None), (TumourMasks(one), one[1:])):
        with pytest.raises(InputError, match="grid's shape"):
            clinical_targets("rtog", masks, brain(grid), cavity=cavity)
    with pytest.raises(InputError, match="add up to 1"):
        Recipe("mine", (TargetPhase("CTV", "core", 5.0, share=0.5),), "nowhere")
    with pytest.raises(InputError, match="not negative"):
        Recipe("mine", (TargetPhase("CTV", "core", -5.0),), "nowhere")
