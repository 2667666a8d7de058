"""Contours that we write give the mask back: by centre inside, by rt_utils, and by our own reader."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from export_grids import GRIDS, arranged, blobs, noise, series
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from scipy import ndimage

from hybridtumor.dicom.structures import load_structures
from hybridtumor.dicom.write_contours import REACH, outlines
from hybridtumor.dicom.write_geometry import Frames
from hybridtumor.dicom.write_images import write_images
from hybridtumor.dicom.write_structures import write_structures
from hybridtumor.grid import Grid

RTStructBuilder = pytest.importorskip("rt_utils", exc_type=ImportError).RTStructBuilder

CROSS = ndimage.generate_binary_structure(2, 1)


def inside(polygon: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Even–odd: which pixel centres lie inside."""
    rows, columns = np.indices(shape)
    x, y = polygon.T
    odd = np.zeros(shape, bool)
    for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        if y0 != y1:
            at = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
            odd ^= ((y0 <= rows) != (y1 <= rows)) & (columns < at)
    return odd


@given(mask=arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=150, deadline=None)
def test_outlines_hold_exactly_the_pixels_of_the_mask(mask: np.ndarray) -> None:
    polygons = outlines(mask)
    assert len(polygons) == ndimage.label(mask, CROSS)[1]  # one a piece: holes are joined to what is around them
    each = [inside(polygon, mask.shape) for polygon in polygons]
    assert np.array_equal(np.logical_or.reduce(each) if each else np.zeros_like(mask), mask)  # united
    assert np.array_equal(np.logical_xor.reduce(each) if each else np.zeros_like(mask), mask)  # even–odd


@given(mask=arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=50, deadline=None)
def test_every_vertex_rounds_to_a_pixel_of_the_mask(mask: np.ndarray) -> None:
    for polygon in outlines(mask):
        columns, rows = np.rint(polygon).astype(int).T
        assert mask[rows, columns].all()


def test_nested_rings_and_another_reader_of_polygons() -> None:
    mask = blobs((21, 21, 1), seed=3)[:, :, 0]
    rows, columns = np.indices(mask.shape)
    radius = np.hypot(rows - 10, columns - 10)
    rings = (radius < 10) & ~((radius < 8) & (radius > 6)) & ~(radius < 2)
    for each in (mask, rings):
        centres = np.column_stack([columns.ravel(), rows.ravel()])
        found = np.zeros(each.shape, bool)
        for polygon in outlines(each):
            found ^= Polygon(np.vstack([polygon, polygon[:1]])).contains_points(centres).reshape(each.shape)
        assert np.array_equal(found, each)


def test_outlines_enclose_the_area_of_a_disc() -> None:
    rows, columns = np.indices((61, 61))
    mask = np.hypot(rows - 30, columns - 30) < 25
    (polygon,) = outlines(mask)
    x, y = polygon.T
    area = (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert abs(area / mask.sum() - 1) < 0.005
    assert len(polygon) < 2 * np.pi * 25  # straight runs are two points
    assert 0.4 < REACH < 0.5


def written(grid: Grid, folder: Path) -> dict[str, np.ndarray]:
    masks = {"Brain": blobs(grid.shape), "OpticNrv_L": np.zeros(grid.shape, bool)}
    masks["OpticNrv_L"][9, 8, 10] = True
    images = write_images(noise(grid), "T1ce", series(), folder / "t1ce")
    write_structures(masks, grid, images, series("contours", 2), folder / "structures.dcm")
    return masks


@given(grid=GRIDS)
@settings(max_examples=10, deadline=None)
def test_rt_utils_gives_the_masks_back(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("structures")
    masks = written(grid, folder)
    back = RTStructBuilder.create_from(str(folder / "t1ce"), str(folder / "structures.dcm"))
    assert back.get_roi_names() == list(masks)
    for name, mask in masks.items():
        expected = np.moveaxis(Frames.of(grid).stack(mask), 0, -1)  # (rows, columns, slices)
        assert np.array_equal(back.get_roi_mask_by_name(name), expected)


@given(grid=GRIDS)
@settings(max_examples=10, deadline=None)
def test_our_own_reader_gives_the_masks_back(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("structures")
    masks = written(grid, folder)
    back = load_structures(folder / "structures.dcm", grid)
    for name, mask in masks.items():
        assert np.array_equal(back.masks[name], mask)


def test_contours_lie_in_the_plane_of_the_slice_they_name(tmp_path: Path) -> None:
    grid = arranged((2, 0, 1), (-1, 1, -1), 17.0, (1.0, 1.0, 5.0))
    written(grid, tmp_path)
    data = pydicom.dcmread(tmp_path / "structures.dcm")
    slices = {s.SOPInstanceUID: s for s in (pydicom.dcmread(p) for p in (tmp_path / "t1ce").glob("*.dcm"))}
    count = 0
    for structure in data.ROIContourSequence:
        for contour in structure.ContourSequence:
            plane = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            orientation = np.array(plane.ImageOrientationPatient, float)
            points = np.array(contour.ContourData, float).reshape(-1, 3) - np.array(plane.ImagePositionPatient, float)
            assert np.abs(points @ np.cross(orientation[:3], orientation[3:])).max() < 1e-3
            assert contour.NumberOfContourPoints == len(points)
            count += 1
    assert count > 20
