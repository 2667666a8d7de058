"""Targets grow by millimetres through brain tissue; synthetic doses are linear in the prescription; bad dose files
are refused."""

from pathlib import Path

import numpy as np
import pytest
from figures import Figure
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridtumor.dose_planning import (
    TARGET_MARGINS,
    clinical_target,
    conformal_dose,
    dose_from_nifti,
    gross_tumour,
    grow_within,
    path_length,
    relative_dose,
)
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import LabelMap, Scan
from hybridtumor.tissue import TissueMap


def grid_of(shape: tuple[int, int, int], size: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Grid:
    return Grid(shape, np.diag([*size, 1.0]))


def brain(grid: Grid, csf: np.ndarray | None = None) -> TissueMap:
    fluid = np.zeros(grid.shape, np.float32) if csf is None else csf.astype(np.float32)
    return TissueMap(1 - fluid, np.zeros(grid.shape, np.float32), fluid, grid)


def voxel(grid: Grid, *index: int) -> np.ndarray:
    mask = np.zeros(grid.shape, bool)
    mask[index] = True
    return mask


def distance_from(grid: Grid, *index: int) -> np.ndarray:
    return np.linalg.norm(grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - grid.world(index), axis=-1)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (0.5, 1.5, 2.0)])
@pytest.mark.parametrize("recipe", TARGET_MARGINS)
def test_target_is_the_ball_of_the_recipe_where_nothing_is_in_the_way(
    recipe: str, size: tuple[float, float, float]
) -> None:
    n = [int(46 / h) | 1 for h in size]
    grid = grid_of((n[0], n[1], n[2]), size)
    middle = tuple(k // 2 for k in n)
    target = clinical_target(recipe, voxel(grid, *middle), brain(grid))
    np.testing.assert_array_equal(target, distance_from(grid, *middle) <= TARGET_MARGINS[recipe])


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
@given(seed=st.integers(0, 1000), margin=st.floats(1, 8), more=st.floats(0, 5))
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
    plain = clinical_target("estro-eano-2023", gross, brain(grid, csf))
    affine = grid.affine @ np.array([[-1, 0, 0, 19], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    flipped = clinical_target("estro-eano-2023", gross[::-1], brain(Grid(grid.shape, affine), csf[::-1]))
    np.testing.assert_array_equal(flipped[::-1], plain)


@pytest.mark.law("therapy", "A planned dose is the prescription in its target and falls off as stated")
@pytest.mark.parametrize("size", [0.5, 1.0, 2.5])
def test_dose_is_the_prescription_in_the_planning_target_and_falls_off_as_stated(size: float, figure: Figure) -> None:
    """In millimetres: 3 mm of margin, then a factor e every 15 mm."""
    grid = grid_of((121, 5, 5), (size, 1.0, 1.0))
    target = np.zeros(grid.shape, bool)
    target[:41] = True
    dose = conformal_dose(target, brain(grid), 60.0, margin=3.0, falloff=15.0).values[:, 2, 2]
    beyond = np.maximum(size * np.arange(-40, 81) - 3.0, 0)
    figure("error", np.abs(dose / (60 * np.exp(-beyond / 15)) - 1).max(), at_most=1e-6)
    assert (dose[beyond == 0] == 60).all()


def test_dose_is_linear_in_the_prescription_and_zero_outside_the_head() -> None:
    grid = grid_of((20, 20, 20))
    tissue = brain(grid)
    white = tissue.white.copy()
    white[15:] = 0
    tissue = TissueMap(white, tissue.grey, tissue.csf, grid)
    target = voxel(grid, 8, 8, 8)
    shape = relative_dose(target, tissue)
    half, full = (conformal_dose(target, tissue, p).values for p in (30.0, 60.0))
    np.testing.assert_array_equal(full, 2 * half)
    np.testing.assert_array_equal(full, (60.0 * shape).astype(np.float32))
    assert not full[15:].any()
    assert shape.max() == 1
    assert not conformal_dose(target, tissue, 0.0).values.any()


@pytest.mark.law("therapy", "A larger prescription is more dose in every voxel")
@settings(max_examples=30)
@given(prescription=st.floats(0, 190), more=st.floats(0, 10))
def test_more_prescription_is_more_dose_in_every_voxel(prescription: float, more: float) -> None:
    grid = grid_of((7, 7, 7))
    target, tissue = voxel(grid, 3, 3, 3), brain(grid)
    less, larger = (conformal_dose(target, tissue, p).values for p in (prescription, prescription + more))
    assert (larger >= less).all()


def test_gross_tumour_is_the_core_or_else_all_that_shows() -> None:
    grid = grid_of((6, 6, 6))
    density = Scan(np.linspace(0, 1, 216, dtype=np.float32).reshape(grid.shape), grid)
    blank = {"T1w": Scan(np.zeros(grid.shape), grid)}
    from_density = gross_tumour(Patient("p", (Visit(0, blank),), density=density))
    np.testing.assert_array_equal(from_density, density.values > 0.6)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1], labels[2], labels[3] = 2, 4, 1
    patient = Patient("p", (Visit(0, blank, LabelMap(labels, grid)),), density=density)
    np.testing.assert_array_equal(gross_tumour(patient), (labels == 4) | (labels == 1))
    only_edema = Patient("p", (Visit(0, blank, LabelMap(np.where(labels == 2, labels, 0), grid)),))
    np.testing.assert_array_equal(gross_tumour(only_edema), labels == 2)
    faint = Patient("p", (Visit(0, blank),), density=Scan(0.5 * density.values, grid))
    np.testing.assert_array_equal(gross_tumour(faint), faint.density.values > 0.2)
    with pytest.raises(InputError, match="expected a tumour to aim at"):
        gross_tumour(Patient("p", (Visit(0, blank),)))


def test_bad_targets_are_refused() -> None:
    grid = grid_of((5, 5, 5))
    with pytest.raises(InputError, match="expected one of estro-eano-2023"):
        clinical_target("estro", voxel(grid, 2, 2, 2), brain(grid))
    with pytest.raises(InputError, match="empty mask"):
        clinical_target("rtog", np.zeros(grid.shape, bool), brain(grid))
    with pytest.raises(InputError, match="grid's shape"):
        conformal_dose(np.ones((4, 5, 5), bool), brain(grid), 60.0)
    with pytest.raises(InputError, match="fall-off > 0"):
        conformal_dose(voxel(grid, 2, 2, 2), brain(grid), 60.0, falloff=0.0)
    with pytest.raises(InputError, match="looks like cGy"):
        conformal_dose(voxel(grid, 2, 2, 2), brain(grid), 6000.0)


def write_dose(path: Path, grid: Grid, values: np.ndarray | None = None) -> Path:
    world = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    Scan((10 + world @ [0.5, 0.25, 0.1]).astype(np.float32) if values is None else values, grid).save(path)
    return path


def test_dose_file_is_resampled_by_affine(tmp_path: Path) -> None:
    """A linear dose on a coarse flipped grid comes out exact on the patient's."""
    coarse = Grid((20, 12, 12), np.array([[-2.0, 0, 0, 32], [0, 2.5, 0, -3], [0, 0, 2, -2], [0, 0, 0, 1]]))
    fine = grid_of((24, 20, 16))
    expected = 10 + fine.world(np.moveaxis(np.indices(fine.shape), 0, -1)) @ [0.5, 0.25, 0.1]
    dose = dose_from_nifti(write_dose(tmp_path / "d.nii.gz", coarse), fine, "Gy", brain=np.ones(fine.shape, bool))
    np.testing.assert_allclose(dose.values, expected, rtol=1e-5)


def test_centigray_is_a_hundredth(tmp_path: Path) -> None:
    grid = grid_of((5, 5, 5))
    path = write_dose(tmp_path / "d.nii", grid, np.full(grid.shape, 6000, np.float32))
    np.testing.assert_allclose(dose_from_nifti(path, grid, "cGy").values, 60)
    with pytest.raises(InputError, match=r"d\.nii.*looks like cGy"):
        dose_from_nifti(path, grid, "Gy")


@pytest.mark.parametrize("unit", [None, "", "Sv", "gray", "%"])
def test_dose_file_without_a_known_unit_is_refused(unit: str | None, tmp_path: Path) -> None:
    grid = grid_of((5, 5, 5))
    with pytest.raises(InputError, match="Gy or cGy"):
        dose_from_nifti(write_dose(tmp_path / "d.nii", grid), grid, unit)


def test_negative_dose_is_refused(tmp_path: Path) -> None:
    grid = grid_of((5, 5, 5))
    values = np.full(grid.shape, 2, np.float32)
    values[0, 0, 0] = -1
    with pytest.raises(InputError, match="no negative dose"):
        dose_from_nifti(write_dose(tmp_path / "d.nii", grid, values), grid, "Gy")


def test_dose_file_that_misses_the_tumour_or_the_brain_is_refused(tmp_path: Path) -> None:
    grid = grid_of((30, 10, 10))
    path = write_dose(tmp_path / "d.nii", grid_of((20, 10, 10)))
    tumour = voxel(grid, slice(15, 25), slice(2, 6), slice(2, 6))
    with pytest.raises(InputError, match=r"covers the tumour, 50\.0% of it lies outside"):
        dose_from_nifti(path, grid, "Gy", tumour=tumour)
    with pytest.raises(InputError, match="covers the brain"):
        dose_from_nifti(path, grid, "Gy", brain=np.ones(grid.shape, bool))
    covered = dose_from_nifti(path, grid, "Gy", tumour=voxel(grid, 5, 5, 5))
    assert not covered.values[21:].any()
