"""A DICOM series lies in the world where its tags put it, whatever the order of files, axes and frames."""

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import dataset, image_series, multiframe, set_pixels, write

from hybridtumor.dicom.contrast import guess_contrast
from hybridtumor.dicom.volume import load_volume
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid, resample

SHAPE = (7, 5, 4)
STORED = np.random.default_rng(3).integers(0, 4000, SHAPE).astype(np.uint16)


def turned(degrees: float = 17.0) -> np.ndarray:
    """A rotation about an axis that is none of the three."""
    axis, angle = np.array([1.0, 2.0, 3.0]) / np.sqrt(14), np.radians(degrees)
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross.T + (1 - np.cos(angle)) * (cross.T @ cross.T)


def grid_of(matrix: np.ndarray, origin: tuple[float, float, float] = (12.5, -33.25, 40.0)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    return Grid(SHAPE, affine)


def assert_same_world(scan_values: np.ndarray, grid: Grid, expected: Grid, values: np.ndarray = STORED) -> None:
    """Each voxel of the expected image is at its place in the world."""
    index = np.argwhere(np.ones(expected.shape, bool))
    found = grid.index(expected.world(index))
    assert np.abs(found - np.round(found)).max() < 1e-4
    assert np.array_equal(scan_values[tuple(np.round(found).astype(int).T)], values[tuple(index.T)])


def test_every_orientation_of_the_axes_gives_the_same_world(tmp_path: Path) -> None:
    seen = 0
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            matrix = np.eye(3)[:, order] * signs * np.array([0.8, 1.1, 2.5])
            grid = grid_of(matrix)
            scan = load_volume(image_series(tmp_path / str(seen), STORED, grid, seed=seen))
            assert_same_world(scan.values, scan.grid, grid)
            seen += 1
    assert seen == 48


@pytest.mark.parametrize("size", [(1.0, 1.0, 5.0), (0.47, 0.47, 1.2)])
def test_an_oblique_anisotropic_series_lies_where_it_was_scanned(tmp_path: Path, size: tuple[float, ...]) -> None:
    grid = grid_of(turned() * np.array(size))
    scan = load_volume(image_series(tmp_path, STORED, grid))
    assert scan.grid.same_as(grid, tolerance=1e-3)
    assert np.array_equal(scan.values, STORED)


def test_frames_of_a_multiframe_image_lie_where_single_images_do(tmp_path: Path) -> None:
    grid = grid_of(turned(-40) * np.array([1.0, 1.5, 3.0]))
    scan = load_volume([multiframe(tmp_path, STORED, grid, slope=0.5)])
    assert scan.grid.same_as(grid, tolerance=1e-3)
    assert np.array_equal(scan.values, STORED * 0.5)


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    scaling = [(1.0 + k, -10.0 * k) for k in range(SHAPE[2])]
    scan = load_volume(image_series(tmp_path, STORED, grid_of(np.eye(3)), scaling=scaling))
    expected = STORED * np.array([s for s, _ in scaling]) + np.array([i for _, i in scaling])
    assert np.allclose(scan.values, expected, rtol=1e-6)


def test_a_tilted_gantry_is_a_shear_of_the_affine(tmp_path: Path) -> None:
    matrix = np.diag([-1.0, -1.0, 3.0])
    matrix[1, 2] = 3.0 * np.tan(np.radians(15))
    scan = load_volume(image_series(tmp_path, STORED, grid_of(matrix), "CT"))
    assert scan.grid.same_as(grid_of(matrix), tolerance=1e-3)
    assert np.array_equal(scan.values, STORED)


def edit(path: Path, **tags: object) -> None:
    ds = pydicom.dcmread(path)
    for key, value in tags.items():
        setattr(ds, key, value)
    ds.save_as(path)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("missing", "1 missing"),
        ("twice", "twice"),
        ("uneven", "gaps from"),
        ("shifted", "straight line"),
        ("turned", "one orientation"),
        ("stretched", "pixel spacing"),
        ("not a number", "finite numbers in ImagePositionPatient"),
        ("not unit", "unit vectors"),
        ("no spacing", "PixelSpacing"),
        ("zero spacing", "positive spacing"),
        ("zero slope", "rescale slope"),
        ("mosaic", "mosaic"),
        ("colour", "one integer sample"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_planes_that_make_no_volume_are_refused_with_the_reason(tmp_path: Path, fault: str, said: str) -> None:
    paths = image_series(tmp_path, STORED, grid_of(np.diag([-1.0, -1.0, 2.0])))
    tags: dict[str, dict[str, object]] = {
        "twice": {"ImagePositionPatient": pydicom.dcmread(paths[2]).ImagePositionPatient},
        "uneven": {"ImagePositionPatient": [-12.5, 33.25, 42.05]},
        "shifted": {"ImagePositionPatient": [-12.0, 33.25, 42.0]},
        "turned": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        "stretched": {"PixelSpacing": [1.0, 1.01]},
        "not a number": {"ImagePositionPatient": ["nan", "0", "0"]},
        "not unit": {"ImageOrientationPatient": [1, 0.1, 0, 0, 1, 0]},
        "no spacing": {"PixelSpacing": None},
        "zero spacing": {"PixelSpacing": [0, 1]},
        "zero slope": {"RescaleSlope": 0, "RescaleIntercept": 0},
        "mosaic": {"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]},
        "colour": {"SamplesPerPixel": 3},
    }
    if fault == "missing":
        del paths[1]
    else:
        for path in paths if fault == "not unit" else paths[1:2]:
            edit(path, **tags[fault])
    with pytest.raises(InputError, match=said):
        load_volume(paths)


def test_positions_rounded_to_a_hundredth_are_even(tmp_path: Path) -> None:
    paths = image_series(tmp_path, STORED, grid_of(np.diag([-1.0, -1.0, 0.333])))
    for k, path in enumerate(paths):
        edit(path, ImagePositionPatient=[-12.5, 33.25, round(40 + 0.333 * k, 2)])
    assert load_volume(paths).grid.voxel_size[2] == pytest.approx(0.333, abs=0.005)


def test_bits_beyond_those_stored_are_no_part_of_the_value(tmp_path: Path) -> None:
    grid = grid_of(np.eye(3))
    values = (STORED.astype(np.int16) - 2000).clip(-2048, 2047)
    paths = image_series(tmp_path, values & 0x0FFF, grid)
    for path in paths:
        edit(path, BitsStored=12, HighBit=11, PixelRepresentation=1)
    scan = load_volume(paths)
    assert np.array_equal(scan.values, values)


def test_a_single_slice_is_as_thick_as_it_says(tmp_path: Path, realdata: Path) -> None:
    scan = load_volume([realdata / "dicom_rt" / "dicompyler_breast" / "ct.0.dcm"])
    assert scan.grid.shape == (512, 512, 1)
    assert np.allclose(scan.grid.world([0, 0, 0]), [275, 524, 168.5593])
    assert np.allclose(scan.grid.voxel_size, [1.074219, 1.074219, 3])
    paths = image_series(tmp_path, STORED, grid_of(np.eye(3)))[:1]
    edit(paths[0], SliceThickness=None)
    with pytest.raises(InputError, match="SliceThickness"):
        load_volume(paths)


def test_the_phantom_is_in_hounsfield_units_at_its_place(realdata: Path) -> None:
    folder = realdata / "dicom_rt" / "rt_utils_phantom"
    scan = load_volume([folder / "ct_2.dcm", folder / "ct_1.dcm"])
    low, high = pydicom.dcmread(folder / "ct_1.dcm"), pydicom.dcmread(folder / "ct_2.dcm")
    assert np.array_equal(scan.values[:, :, 0], low.pixel_array.T.astype(np.float32) - 1024)
    assert np.array_equal(scan.values[:, :, 1], high.pixel_array.T.astype(np.float32) - 1024)
    corner = np.array([-125 + 511 * 0.488281, -125 + 511 * 0.488281, 65]) * [-1, -1, 1]
    assert np.abs(scan.grid.world([511, 511, 1]) - corner).max() < 0.01


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"EchoTime": 2.9, "RepetitionTime": 2300, "InversionTime": 900, "ScanningSequence": "GR"}, "T1w"),
        ({"EchoTime": 10, "RepetitionTime": 550, "ScanningSequence": "SE"}, "T1w"),
        ({"EchoTime": 10, "RepetitionTime": 550, "ContrastBolusAgent": "Gadovist"}, "T1ce"),
        ({"EchoTime": 10, "RepetitionTime": 550, "ContrastBolusAgent": "NONE"}, "T1w"),
        ({"EchoTime": 10, "RepetitionTime": 550, "SeriesDescription": "t1_tse_post_gd"}, "T1ce"),
        ({"EchoTime": 10, "RepetitionTime": 550, "SeriesDescription": "T1 without contrast"}, "T1w"),
        ({"EchoTime": 10, "RepetitionTime": 550, "SeriesDescription": "t1_pre-gd"}, "T1w"),
        ({"EchoTime": 100, "RepetitionTime": 4500, "ScanningSequence": "SE"}, "T2w"),
        ({"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500, "ContrastBolusAgent": "Gd"}, "FLAIR"),
        ({"EchoTime": 20, "RepetitionTime": 30, "ScanningSequence": "GR"}, None),
        ({"EchoTime": 80, "RepetitionTime": 5000, "ScanningSequence": "EP"}, None),
        ({"EchoTime": 15, "RepetitionTime": 2500, "ScanningSequence": "SE"}, None),
        ({"SeriesDescription": "Ax T2 FLAIR"}, "FLAIR"),
        ({"SeriesDescription": "MPRAGE +C"}, "T1ce"),
        ({"SeriesDescription": "something"}, None),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "EchoTime": 10, "RepetitionTime": 550}, None),
        ({"ImageType": ["DERIVED", "PRIMARY", "ADC"]}, "ADC"),
    ],
)
def test_the_contrast_is_told_by_how_it_was_acquired(tags: dict[str, object], expected: str | None) -> None:
    name, why = guess_contrast(dataset("MR", **tags))
    assert name == expected
    assert "CANARY" not in why
    assert "gd" not in why.lower().replace("gadolinium", "")


def test_a_series_of_one_orientation_can_be_resampled_to_another(tmp_path: Path) -> None:
    smooth = np.add.outer(np.add.outer(np.arange(7.0), 2 * np.arange(5.0)), 3 * np.arange(4.0)).astype(np.uint16)
    grid = grid_of(turned() * np.array([1.0, 1.0, 2.0]))
    scan = load_volume(image_series(tmp_path, smooth, grid))
    assert np.abs(resample(scan.values, scan.grid, grid)[1:-1, 1:-1, 1:-1] - smooth[1:-1, 1:-1, 1:-1]).max() < 1e-2


def test_a_wide_volume_of_empty_pixels_is_refused(tmp_path: Path) -> None:
    ds = dataset("MR", ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1], ImagePositionPatient=[0, 0, 0])
    set_pixels(ds, np.zeros((2, 2), np.uint8))
    ds.Rows = ds.Columns = 65535
    with pytest.raises(InputError, match="at most"):
        load_volume([write(ds, tmp_path / "wide.dcm")])
