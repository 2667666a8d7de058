"""Density from a segmentation shows as that segmentation, falls off outside, and does not depend on the voxel order."""

from itertools import permutations
from pathlib import Path

import brats_folder
import numpy as np
import pytest
from brats_folder import GRID, HEAD
from figures import Figure
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hybridtumor.brats import load_brats
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.models.initial_density import TAIL_WIDTHS, density_from_labels, enhances
from hybridtumor.models.visibility import label_map, visible_volumes
from hybridtumor.parameters import GrowthParameters, ImagingThresholds
from hybridtumor.scan import LABELS, LabelMap

GROWTH, THRESHOLDS = GrowthParameters(), ImagingThresholds()
BRAIN = HEAD & ~brats_folder.RIM_CSF & ~brats_folder.VENTRICLE


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def shown(density: NDArray[np.float32], labels: LabelMap) -> LabelMap:
    return LabelMap(label_map(density, THRESHOLDS, enhances=enhances(labels)), labels.grid)


@pytest.mark.law("images", "The density of day 0 shows as the segmentation that it comes from")
def test_the_density_shows_as_the_segmentation(figure: Figure) -> None:
    labels = brats_folder.labels()
    density = density_from_labels(labels, BRAIN | labels.mask(), GROWTH, THRESHOLDS)
    assert density.dtype == np.float32
    assert 0 <= density.min() < 0.9 < density.max() <= 0.97
    result = shown(density, labels)
    figure("Dice", dice(result.mask(), labels.mask()), at_least=0.99)
    assert dice(result.mask("necrosis", "enhancing"), labels.mask("necrosis", "enhancing")) >= 0.99
    assert dice(result.mask("necrosis"), labels.mask("necrosis")) >= 0.9


def test_there_is_no_density_outside_the_brain() -> None:
    labels = brats_folder.labels()
    density = density_from_labels(labels, BRAIN, GROWTH, THRESHOLDS)
    assert not density[~BRAIN].any()


def test_the_tail_is_the_exponential_of_the_travelling_wave() -> None:
    labels = brats_folder.labels()
    density = density_from_labels(labels, np.ones(GRID.shape, bool), GROWTH, THRESHOLDS)
    r = brats_folder.radius(brats_folder.TUMOUR_CENTRE)
    beyond = (r > 15) & (r < 22) & (brats_folder.radius((-4, 5, 0)) > 40)
    slope = np.polyfit(r[beyond], np.log(density[beyond]), 1)[0]
    assert slope == pytest.approx(-1 / GROWTH.front_width, rel=0.1)
    assert not density[r > 13 + 2 + (TAIL_WIDTHS + 1) * GROWTH.front_width].any()


def test_density_falls_monotonically_from_the_centre_outwards() -> None:
    labels = brats_folder.labels()
    density = density_from_labels(labels, np.ones(GRID.shape, bool), GROWTH, THRESHOLDS)
    x, y, z = np.round(GRID.index(brats_folder.TUMOUR_CENTRE)).astype(int)
    away = density[x, :y, z][::-1]
    assert (np.diff(away) <= 1e-6).all()


def test_necrosis_at_the_border_of_the_core_is_rim() -> None:
    labels = brats_folder.labels()
    values = labels.values.copy()
    side = GRID.world(np.moveaxis(np.indices(GRID.shape), 0, -1))[..., 2] > 2
    values[labels.mask("enhancing") & side] = labels.codes["necrosis"]
    density = density_from_labels(LabelMap(values, GRID), np.ones(GRID.shape, bool), GROWTH, THRESHOLDS)
    r = brats_folder.radius(brats_folder.TUMOUR_CENTRE)
    assert density[(r > 7.5) & (r < 9)].max() <= 0.9


def test_a_tumour_that_does_not_enhance_is_all_core() -> None:
    labels = brats_folder.labels()
    values = np.where(labels.mask("enhancing"), labels.codes["necrosis"], labels.values)
    few = values.copy()
    few[tuple(np.argwhere(labels.mask("enhancing"))[0])] = labels.codes["enhancing"]
    assert enhances(labels)
    assert not enhances(LabelMap(few, GRID))
    still = LabelMap(values, GRID)
    density = density_from_labels(still, np.ones(GRID.shape, bool), GROWTH, THRESHOLDS)
    assert dice(shown(density, still).mask("necrosis"), still.mask("necrosis")) >= 0.99


def test_oedema_alone_stays_below_the_core_threshold() -> None:
    labels = LabelMap(np.where(brats_folder.labels().mask(), 2, 0), GRID)
    density = density_from_labels(labels, np.ones(GRID.shape, bool), GROWTH, THRESHOLDS)
    assert density.max() <= THRESHOLDS.enhancing
    assert dice(shown(density, labels).mask("edema"), labels.mask("edema")) >= 0.99


def test_without_proliferation_the_tail_still_ends() -> None:
    labels = brats_folder.labels()
    density = density_from_labels(labels, BRAIN, GrowthParameters(proliferation="0 1/day"), THRESHOLDS)
    assert np.isfinite(density).all()


def test_an_empty_segmentation_is_refused() -> None:
    with pytest.raises(InputError, match="every voxel is 0"):
        density_from_labels(LabelMap(np.zeros(GRID.shape, np.uint8), GRID), BRAIN, GROWTH, THRESHOLDS)


def test_a_tumour_outside_the_brain_is_refused() -> None:
    with pytest.raises(InputError, match="lies outside"):
        density_from_labels(brats_folder.labels(centre=(42, -40, 30)), BRAIN, GROWTH, THRESHOLDS)


@settings(max_examples=12, deadline=None)
@given(order=st.sampled_from(list(permutations(range(3)))), flips=st.tuples(*[st.booleans()] * 3))
def test_voxel_order_does_not_matter(order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    """Any flip and permutation of the axes, with the affine that belongs to it, gives the same world result."""
    labels = brats_folder.labels()
    expected = density_from_labels(labels, BRAIN, GROWTH, THRESHOLDS)

    def turned(values: NDArray[np.generic]) -> NDArray[np.generic]:
        flipped = values[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
        return np.ascontiguousarray(flipped.transpose(order))

    to_old = np.eye(4)
    for axis, flip in enumerate(flips):
        if flip:
            to_old[axis, axis], to_old[axis, 3] = -1, GRID.shape[axis] - 1
    swap = np.zeros((4, 4))
    swap[3, 3] = 1
    for new, old in enumerate(order):
        swap[old, new] = 1
    grid = Grid(turned(labels.values).shape, GRID.affine @ to_old @ swap)
    there = LabelMap(turned(labels.values), grid)
    density = density_from_labels(there, turned(BRAIN), GROWTH, THRESHOLDS)
    np.testing.assert_allclose(density, turned(expected), atol=1e-6)
    index = np.argwhere(density > 0.5)
    before = np.argwhere(expected > 0.5)
    np.testing.assert_allclose(grid.world(index).mean(0), GRID.world(before).mean(0), atol=1e-6)
    volumes = visible_volumes(density, grid.voxel_volume, THRESHOLDS)
    assert volumes == pytest.approx(visible_volumes(expected, GRID.voxel_volume, THRESHOLDS))
    assert set(volumes) == set(LABELS)


def test_thick_slices_and_rotation_give_the_same_volume() -> None:
    angle = np.deg2rad(17)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    volumes = []
    for sizes, shape in (((1, 1, 1), (60, 60, 60)), ((1, 1, 5), (60, 60, 12))):
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag(sizes)
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        grid = Grid(shape, affine)
        r = np.linalg.norm(grid.world(np.moveaxis(np.indices(shape), 0, -1)), axis=-1)
        labels = LabelMap(np.select([r < 8, r < 14, r < 22], [1, 4, 2]), grid)
        density = density_from_labels(labels, np.ones(shape, bool), GROWTH, THRESHOLDS)
        volumes.append(np.count_nonzero(density > 0.2) * grid.voxel_volume)
    assert volumes[1] == pytest.approx(volumes[0], rel=0.02)


@pytest.mark.realdata
def test_real_segmentations_come_back(realdata: Path) -> None:
    for case in ("BraTS2021_01306_preproc", "BraTS2021_01479", "BraTS2021_01482"):
        folder = realdata / "train/patients" / case
        patient = load_brats(folder)
        labels = patient.baseline.labels
        assert labels is not None
        t1 = patient.baseline.scans["T1w"].values
        density = density_from_labels(labels, (t1 != t1[0, 0, 0]) | labels.mask(), GROWTH, THRESHOLDS)
        result = shown(density, labels)
        assert dice(result.mask(), labels.mask()) >= 0.95
        core = "necrosis", "enhancing"
        assert dice(result.mask(*core), labels.mask(*core)) >= 0.95
