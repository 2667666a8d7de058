"""Synthetic doses are linear in the prescription, add up over phases, and move rigidly; bad dose files are refused."""

from pathlib import Path

import numpy as np
import pytest
from figures import Figure
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation
from scipy.stats import norm
from test_targets import phases
from voxels import brain, distance_from, grid_of, points, voxel

from hybridtumor.dose_file import dose_from_file, dose_from_nifti
from hybridtumor.dose_planning import (
    dose_around,
    integrated_boost,
    phase_doses,
    relative_dose,
    summed_relative_dose,
)
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.patient import Patient, Visit
from hybridtumor.planned_dose import conformal_dose
from hybridtumor.scan import LabelMap, Scan
from hybridtumor.set_up_error import blurred, displaced, isocentre
from hybridtumor.targets import RECIPES, TargetPhase, TumourMasks, clinical_targets
from hybridtumor.therapy import DoseMap
from hybridtumor.tissue import TissueMap


@pytest.mark.law("therapy", "A planned dose is the prescription in its target and falls off as stated")
@pytest.mark.parametrize("size", [0.5, 1.0, 2.5])
def test_dose_is_the_prescription_in_the_planning_target_and_falls_off_as_stated(size: float, figure: Figure) -> None:
    """In millimetres: 3 mm of margin, then a factor e every 15 mm."""
    grid = grid_of((121, 5, 5), (size, 1.0, 1.0))
    target = np.zeros(grid.shape, bool)
    target[:41] = True
    dose = dose_around(target, brain(grid), 60.0, margin=3.0, falloff=15.0).values[:, 2, 2]
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
    half, full = (dose_around(target, tissue, p).values for p in (30.0, 60.0))
    np.testing.assert_array_equal(full, 2 * half)
    np.testing.assert_array_equal(full, (60.0 * shape).astype(np.float32))
    assert not full[15:].any()
    assert shape.max() == 1
    assert not dose_around(target, tissue, 0.0).values.any()


@pytest.mark.law("therapy", "A larger prescription is more dose in every voxel")
@settings(max_examples=30)
@given(prescription=st.floats(0, 190), more=st.floats(0, 10))
def test_more_prescription_is_more_dose_in_every_voxel(prescription: float, more: float) -> None:
    grid = grid_of((7, 7, 7))
    target, tissue = voxel(grid, 3, 3, 3), brain(grid)
    less, larger = (dose_around(target, tissue, p).values for p in (prescription, prescription + more))
    assert (larger >= less).all()


@settings(max_examples=20, deadline=None)
@given(parts=phases(), fractions=st.integers(1, 60), prescription=st.floats(1, 100))
def test_phases_keep_the_dose_per_fraction_and_add_up(
    parts: tuple[TargetPhase, ...], fractions: int, prescription: float
) -> None:
    grid = grid_of((5, 5, 5))
    target = voxel(grid, 2, 2, 2)
    given_doses = phase_doses([(phase, target) for phase in parts], brain(grid), prescription, fractions)
    for part in given_doses:
        assert part.prescription / part.fractions == pytest.approx(prescription / fractions)
        assert part.dose.values.max() == pytest.approx(part.prescription)
    assert sum(part.fractions for part in given_doses) == fractions
    total = sum(part.dose.values for part in given_doses)
    np.testing.assert_allclose(total, dose_around(target, brain(grid), prescription).values, rtol=1e-5)


def ball_with_oedema(grid: Grid) -> TumourMasks:
    distance = distance_from(grid, *(n // 2 for n in grid.shape))
    return TumourMasks(distance <= 3, (distance > 3) & (distance <= 8))


def test_phases_of_rtog_add_up_to_one_map() -> None:
    """60 Gy where both planning targets are, 46 Gy and the fall-off of the second phase where only the first is."""
    grid = grid_of((85, 9, 9))
    masks, tissue = ball_with_oedema(grid), brain(grid)
    targets = clinical_targets("rtog", masks, tissue)
    first, second = phase_doses(targets, tissue, 60.0, 30)
    assert [(p.phase.name, p.fractions, round(p.prescription, 9)) for p in (first, second)] == [
        ("CTV1", 23, 46),
        ("CTV2", 7, 14),
    ]
    total = 60 * summed_relative_dose(targets, tissue)
    np.testing.assert_allclose(total, first.dose.values + second.dose.values, rtol=1e-6)
    x = np.abs(np.arange(85) - 42.0)
    expected = 46 * np.exp(-np.maximum(x - 31, 0) / 15) + 14 * np.exp(-np.maximum(x - 26, 0) / 15)
    np.testing.assert_allclose(total[:, 4, 4], expected, rtol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES)
def test_dose_in_one_line_is_the_dose_of_the_recipe(recipe: str) -> None:
    grid = grid_of((51, 9, 9))
    masks, tissue = ball_with_oedema(grid), brain(grid)
    labels = LabelMap((4 * masks.core + 2 * masks.oedema).astype(np.uint8), grid)
    patient = Patient("p", (Visit(0, {"T1w": Scan(np.zeros(grid.shape), grid)}, labels),), tissue)
    targets = clinical_targets(recipe, masks, tissue)
    in_one_line = conformal_dose(patient, "60 Gy", target=recipe).values
    given_doses = phase_doses(targets, tissue, 60.0, 30)
    np.testing.assert_allclose(in_one_line, sum(part.dose.values for part in given_doses), rtol=1e-6)
    if len(given_doses) == 1:
        np.testing.assert_array_equal(in_one_line, dose_around(targets[0][1], tissue, 60.0).values)


def test_integrated_boost_has_two_levels() -> None:
    """60 and 72 Gy along a line: target 20 to 60, boost 35 to 45 with a margin of 2 mm, fall-offs 15 and 5 mm."""
    grid = grid_of((101, 5, 5))
    tissue = brain(grid)
    base = relative_dose(voxel(grid, slice(20, 61)), tissue)
    middle = relative_dose(voxel(grid, slice(35, 46)), tissue, margin=2.0, falloff=5.0)
    shape = integrated_boost(base, middle, 1.2)
    x = np.abs(np.arange(101) - 40.0)
    expected = np.maximum(np.exp(-np.maximum(x - 23, 0) / 15), 1.2 * np.exp(-np.maximum(x - 7, 0) / 5))
    np.testing.assert_allclose(shape[:, 2, 2], expected, rtol=1e-12)
    assert (shape[x <= 7] == 1.2).all()
    assert (shape[(x >= 8) & (x <= 23)] >= 1).all()
    np.testing.assert_array_equal(shape[x > 23], base[x > 23])
    np.testing.assert_array_equal(integrated_boost(base, middle, 1.0), base)
    with pytest.raises(InputError, match="at least the prescription"):
        integrated_boost(base, middle, 0.9)
    with pytest.raises(InputError, match="boost's shape"):
        integrated_boost(base[1:], middle, 1.2)


def blob(grid: Grid, middle: tuple[float, float, float], sigma: float = 5.0, top: float = 60.0) -> DoseMap:
    squared = ((points(grid) - middle) ** 2).sum(-1)
    return DoseMap((top * np.exp(-squared / (2 * sigma**2))).astype(np.float32), grid)


def centroid(dose: DoseMap) -> np.ndarray:
    return np.average(points(dose.grid).reshape(-1, 3), axis=0, weights=dose.values.ravel())


numbers = st.floats(-6, 6).map(lambda x: round(x, 2))
vectors = arrays(float, 3, elements=numbers)


def test_no_error_of_set_up_changes_nothing() -> None:
    dose = blob(grid_of((20, 20, 20)), (9, 9, 9))
    np.testing.assert_array_equal(displaced(dose, about=(3, 4, 5)).values, dose.values)
    np.testing.assert_array_equal(blurred(dose, 0.0).values, dose.values)


@settings(max_examples=15, deadline=None)
@given(shift=vectors, rotation=vectors)
def test_displacement_moves_the_dose_in_the_world_and_back(shift: np.ndarray, rotation: np.ndarray) -> None:
    """Against the blob at its new place; the bound is that of trilinear interpolation, 3 h² max|d″| / 8 a time."""
    grid = Grid((64, 64, 32), np.diag([1.0, -1.0, 2.0, 1.0]) + np.array([0, 63, 0, 0])[:, None] * [0, 0, 0, 1])
    middle, about, top, sigma = np.array([33.0, 30.0, 32.0]), np.array([28.0, 31.0, 30.0]), 60.0, 6.0
    bound = (1 + 1 + 4) / 8 * top / sigma**2
    dose = blob(grid, middle, sigma, top)
    turn = Rotation.from_euler("xyz", rotation, degrees=True)
    moved = displaced(dose, shift=shift, rotation=rotation, about=about)
    expected = blob(grid, turn.apply(middle - about) + about + shift, sigma, top)
    np.testing.assert_allclose(moved.values, expected.values, atol=bound)
    assert moved.values.sum() == pytest.approx(dose.values.sum(), rel=2e-3)
    np.testing.assert_allclose(centroid(moved), turn.apply(middle - about) + about + shift, atol=0.05)
    back = displaced(moved, shift=-shift, rotation=turn.inv().as_euler("xyz", degrees=True), about=about + shift)
    np.testing.assert_allclose(back.values, dose.values, atol=2 * bound)


def test_rotations_are_right_handed_about_the_world_axes_in_order() -> None:
    grid = grid_of((41, 41, 41))
    for rotation, arrives in (
        ((90, 0, 0), (30, 20, 20)),
        ((0, 0, 90), (20, 30, 20)),
        ((0, 90, 0), (20, 20, 10)),
        ((0, 90, 90), (20, 20, 10)),
        ((90, 0, 90), (20, 30, 20)),
    ):
        moved = displaced(blob(grid, (30, 20, 20), 2.0), rotation=rotation, about=(20, 20, 20))
        np.testing.assert_allclose(centroid(moved), arrives, atol=1e-3)


def test_rotation_is_about_the_middle_of_the_high_dose_unless_said() -> None:
    """A low tail to one side does not move the isocentre, and a turn leaves the high dose where it is."""
    grid = grid_of((41, 31, 21), (1.0, 1.0, 2.0))
    dose = blob(grid, (15, 15, 20), 4.0)
    tailed = DoseMap(np.maximum(dose.values, 20 * (points(grid)[..., 0] > 25)), grid)
    np.testing.assert_allclose(isocentre(tailed), (15, 15, 20), atol=1e-9)
    turned = displaced(dose, (2, -1, 3), (40, 0, 25))
    np.testing.assert_allclose(centroid(turned), (17, 14, 23), atol=0.02)


@settings(max_examples=20, deadline=None)
@given(
    shift=vectors,
    rotation=vectors,
    order=st.permutations([0, 1, 2]),
    flip=arrays(bool, 3),
    seed=st.integers(0, 100),
)
def test_voxel_order_does_not_change_a_displacement(
    shift: np.ndarray, rotation: np.ndarray, order: list[int], flip: np.ndarray, seed: int
) -> None:
    """An oblique grid, its axes permuted and flipped with the matching affine: the same dose at the same point."""
    shape = (14, 12, 10)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zx", [17, 8], degrees=True).as_matrix() @ np.diag([1.0, 1.5, 3.0])
    affine[:3, 3] = -10, 5, 7
    values = np.random.default_rng(seed).uniform(0, 60, shape).astype(np.float32)
    flipped = tuple(axis for axis in range(3) if flip[axis])
    back = np.eye(4)
    for axis in flipped:
        back[axis, axis], back[axis, 3] = -1, shape[axis] - 1
    permuted = np.eye(4)[:, [*order, 3]]
    n = [shape[k] for k in order]
    other = Grid((n[0], n[1], n[2]), affine @ back @ permuted)
    about = affine[:3] @ [7, 6, 5, 1]
    plain = displaced(DoseMap(values, Grid(shape, affine)), shift=shift, rotation=rotation, about=about)
    reordered = DoseMap(np.flip(values, flipped).transpose(order), other)
    turned = displaced(reordered, shift=shift, rotation=rotation, about=about)
    np.testing.assert_allclose(turned.values, np.flip(plain.values, flipped).transpose(order), atol=1e-3)


def test_no_cold_rim_moves_into_the_head() -> None:
    """60 Gy in a whole head and none in the air: the head still gets 60 Gy when it lies 6 mm off, out of the image."""
    grid = grid_of((30, 30, 30))
    head = distance_from(grid, 15, 15, 15) <= 11
    dose = DoseMap((60 * head).astype(np.float32), grid)
    for moved in (displaced(dose, shift=(6, 0, 0), about=(15, 15, 15), head=head), blurred(dose, 1.0, head=head)):
        np.testing.assert_allclose(moved.values, 60.0 * head, rtol=1e-5)
    assert displaced(dose, shift=(6, 0, 0), about=(15, 15, 15)).values[head].min() == 0


def test_random_errors_blur_an_edge_to_the_normal_distribution() -> None:
    grid = grid_of((80, 5, 5), (0.5, 2.0, 2.0))
    dose = DoseMap(np.broadcast_to(np.where(np.arange(80) < 40, 60.0, 0), (5, 5, 80)).T.astype(np.float32), grid)
    soft = blurred(dose, 2.0, head=np.ones(grid.shape, bool)).values[:, 2, 2]
    inner = slice(20, 60)
    expected = 60 * norm.cdf((19.75 - 0.5 * np.arange(80)) / 2.0)
    np.testing.assert_allclose(soft[inner], expected[inner], atol=0.3)


def test_random_errors_keep_the_dose_and_add_their_variance() -> None:
    """Along every axis of the world, on voxels of different edges."""
    grid = grid_of((60, 40, 30), (1.0, 1.5, 2.0))
    dose = blob(grid, (30, 30, 30), 4.0)
    soft = blurred(dose, 3.0)
    assert soft.values.sum() == pytest.approx(dose.values.sum(), rel=1e-3)
    for axis in range(3):
        variance = np.average((points(grid)[..., axis] - 30) ** 2, weights=soft.values)
        assert variance == pytest.approx(4**2 + 3**2, rel=0.01)


def test_bad_errors_of_set_up_are_refused() -> None:
    dose = blob(grid_of((5, 5, 5)), (2, 2, 2))
    with pytest.raises(InputError, match="shift: expected three finite numbers"):
        displaced(dose, shift=(1, 2), about=(0, 0, 0))
    with pytest.raises(InputError, match="rotation: expected three finite numbers"):
        displaced(dose, rotation=(np.nan, 0, 0), about=(0, 0, 0))
    with pytest.raises(InputError, match="not negative"):
        blurred(dose, -1.0)
    with pytest.raises(InputError, match="head: expected a mask"):
        displaced(dose, about=(0, 0, 0), head=np.ones((4, 5, 5), bool))


def test_bad_doses_are_refused() -> None:
    grid = grid_of((5, 5, 5))
    with pytest.raises(InputError, match="empty mask"):
        dose_around(np.zeros(grid.shape, bool), brain(grid), 60.0)
    with pytest.raises(InputError, match="grid's shape"):
        dose_around(np.ones((4, 5, 5), bool), brain(grid), 60.0)
    with pytest.raises(InputError, match="fall-off > 0"):
        dose_around(voxel(grid, 2, 2, 2), brain(grid), 60.0, falloff=0.0)
    with pytest.raises(InputError, match="looks like cGy"):
        dose_around(voxel(grid, 2, 2, 2), brain(grid), 6000.0)


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


def test_dose_of_one_fraction_is_multiplied(tmp_path: Path) -> None:
    grid = grid_of((5, 5, 5))
    path = write_dose(tmp_path / "d.nii", grid, np.full(grid.shape, 200, np.float32))
    total = dose_from_file(path, grid, "cGy", quantity="fraction", fractions=30)
    np.testing.assert_allclose(total.values, 60)
    np.testing.assert_allclose(dose_from_file(path, grid, "cGy", fractions=30).values, 2, err_msg="a total as it is")
    with pytest.raises(InputError, match="State fractions"):
        dose_from_file(path, grid, "cGy", quantity="fraction")
    with pytest.raises(InputError, match="quantity total or fraction"):
        dose_from_file(path, grid, "cGy", quantity="beam")  # type: ignore[arg-type]


def write_dicom_dose(path: Path, grid: Grid, values: np.ndarray, summation: str = "PLAN") -> Path:
    """An RTDOSE with the axes of the patient: rows along +y (LPS), columns along +x, 1 mGy a step."""
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.RTDoseStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    data.FrameOfReferenceUID, data.Modality, data.PatientID = pydicom.uid.generate_uid(), "RTDOSE", "x"
    data.DoseUnits, data.DoseType, data.DoseSummationType, data.DoseGridScaling = "GY", "PHYSICAL", summation, "0.001"
    columns, rows, frames = values.shape
    right, front, low = (float(v) for v in grid.world((columns - 1, rows - 1, 0)))
    dx, dy, dz = (float(v) for v in grid.voxel_size)
    data.ImagePositionPatient, data.ImageOrientationPatient = [-right, -front, low], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.GridFrameOffsetVector = [dy, dx], [dz * k for k in range(frames)]
    data.Rows, data.Columns, data.NumberOfFrames = rows, columns, frames
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.FrameIncrementPointer = 32, 32, 31, 0x3004000C
    stored = np.round(values[::-1, ::-1] * 1000).astype("<u4").transpose(2, 1, 0)
    data.PixelData = np.ascontiguousarray(stored).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("name", ["d.dcm", "DOSE", "folder"])
def test_dicom_dose_comes_out_at_the_same_place_of_the_world(name: str, tmp_path: Path) -> None:
    """A linear dose, 2 mm LPS, on the patient's 1 mm grid; by its suffix, by its prefix, or in a folder."""
    coarse, fine = grid_of((14, 12, 10), (2.0, 2.5, 2.0)), grid_of((20, 20, 12))
    path = tmp_path / "in" / "d" if name == "folder" else tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write_dicom_dose(path, coarse, 10 + points(coarse) @ [0.5, 0.25, 0.1])
    source = path.parent if name == "folder" else path
    dose = dose_from_file(source, fine, tumour=np.ones(fine.shape, bool))
    np.testing.assert_allclose(dose.values, 10 + points(fine) @ [0.5, 0.25, 0.1], atol=2e-3)
    wide = grid_of((40, 20, 12))
    with pytest.raises(InputError, match="covers the tumour"):
        dose_from_file(source, wide, tumour=np.ones(wide.shape, bool))
    for unit, quantity in (("cGy", "total"), (None, "fraction")):
        with pytest.raises(InputError, match="no unit and no quantity"):
            dose_from_file(source, fine, unit, quantity=quantity)  # type: ignore[arg-type]


def test_dicom_dose_of_a_fraction_needs_the_number_of_fractions(tmp_path: Path) -> None:
    grid = grid_of((6, 5, 4))
    path = write_dicom_dose(tmp_path / "d.dcm", grid, np.full(grid.shape, 2.0), "FRACTION")
    np.testing.assert_allclose(dose_from_file(path, grid, fractions=30).values, 60)
    with pytest.raises(InputError, match="fractions"):
        dose_from_file(path, grid)


def test_missing_dose_file_is_refused(tmp_path: Path) -> None:
    grid = grid_of((5, 5, 5))
    for name in ("none.nii.gz", "none.dcm", "none"):
        with pytest.raises(InputError):
            dose_from_file(tmp_path / name, grid, None if name.endswith("dcm") else "Gy")
