"""Contours enclose what their drawer meant: holes, islands and keyholes, in slices or askew, at world positions."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import CANARY, FRAME, structure_dataset, write
from matplotlib.path import Path as Polygon
from scipy import ndimage

from hybridtumor.dicom.contours import fill
from hybridtumor.dicom.structure_names import clean_name, clean_names
from hybridtumor.dicom.structures import draw, load_structures, read_contours
from hybridtumor.dicom.volume import load_volume
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.patient import STRUCTURE_NAME

RTStructBuilder = pytest.importorskip("rt_utils", exc_type=ImportError).RTStructBuilder

GRID = Grid((60, 50, 8), np.array([[-1.0, 0, 0, 30], [0, -1.0, 0, 25], [0, 0, 3.0, -9], [0, 0, 0, 1]]))
Z = GRID.world([[0, 0, k] for k in range(8)])[:, 2]


def circle(radius: float, z: float, centre: tuple[float, float] = (0.3, -0.2), points: int = 400) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.column_stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), np.full(points, z)])


def box(low: tuple[float, float], high: tuple[float, float], z: float) -> np.ndarray:
    return np.array([[low[0], low[1], z], [high[0], low[1], z], [high[0], high[1], z], [low[0], high[1], z]])


def masks(tmp_path: Path, regions: dict[str, list[np.ndarray]], grid: Grid = GRID) -> dict[str, np.ndarray]:
    return dict(load_structures(write(structure_dataset(regions), tmp_path / "rs.dcm"), grid).masks)


def test_a_polygon_holds_the_pixels_whose_centre_is_inside() -> None:
    """Against matplotlib's point-in-polygon, for polygons that cross themselves too."""
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(40), np.arange(30), indexing="ij"), -1).reshape(-1, 2)
    for size in (3, 5, 9):
        angle = np.sort(rng.uniform(0, 2 * np.pi, size))
        radius = rng.uniform(3, 25, size)
        points = np.column_stack([20 + radius * np.cos(angle), 15 + radius * np.sin(angle)])
        expected = Polygon(np.vstack([points, points[:1]]), closed=True).contains_points(centres).reshape(40, 30)
        assert np.array_equal(fill([points], (40, 30)), expected)


def test_the_area_of_a_circle_is_met_and_pixels_on_an_edge_belong_to_one_side() -> None:
    assert fill([circle(20, 0, (30.3, 24.8))[:, :2]], (60, 50)).sum() == pytest.approx(np.pi * 400, rel=0.01)
    left, right = box((2, 2), (5, 7), 0)[:, :2], box((5, 2), (9, 7), 0)[:, :2]
    assert fill([left], (12, 10)).sum() == 15
    assert not (fill([left], (12, 10)) & fill([right], (12, 10))).any()
    assert np.array_equal(fill([left, right], (12, 10)), fill([box((2, 2), (9, 7), 0)[:, :2]], (12, 10)))


def test_a_ring_two_islands_and_a_keyhole(tmp_path: Path) -> None:
    z = Z[3]
    outer, inner = circle(15, z), circle(7, z)
    gate = [np.vstack([outer, outer[:1], inner[:1], inner[::-1], outer[:1]])]
    found = masks(
        tmp_path,
        {"Brain": [outer, inner], "Brainstem": gate, "Eyes": [circle(5, z, (-12.2, 3)), circle(6, z, (12.1, 3))]},
    )
    assert np.array_equal(found["Brain"], found["Brainstem"])
    assert found["Brain"].sum() == pytest.approx(np.pi * (225 - 49), rel=0.01)
    assert not found["Brain"][:, :, [2, 4]].any()
    assert found["Eye"].sum() == pytest.approx(np.pi * (25 + 36), rel=0.02)
    inside = GRID.world(np.argwhere(found["Eye"]))
    assert inside[inside[:, 0] < 0][:, 0].mean() == pytest.approx(-12.2, abs=0.2)


def test_a_sphere_has_its_volume_and_centre_on_any_grid(tmp_path: Path) -> None:
    """Contours every 2 mm on axial planes; grids finer, coarser, turned by 17° and sagittal."""
    radius, centre = 14.0, np.array([2.0, -3.0, 5.0])
    planes = [z for z in np.arange(-20, 21, 2.0) if abs(z - centre[2]) < radius]
    contours = [circle(np.sqrt(radius**2 - (z - centre[2]) ** 2), z, (centre[0], centre[1])) for z in planes]
    path = write(structure_dataset({"GTV": contours}), tmp_path / "rs.dcm")
    angle = np.radians(17)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    for matrix in (np.diag([1, 1, 1.0]), np.diag([1, 1, 4.0]), turn @ np.diag([-1, 1, 1.5]), np.eye(3)[:, [1, 2, 0]]):
        size = np.linalg.norm(matrix, axis=0)
        shape = tuple(int(n) for n in np.ceil(44 / size))
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = matrix, centre - matrix @ ((np.array(shape) - 1) / 2 + 0.21)
        grid = Grid(shape, affine)
        mask = load_structures(path, grid).masks["GTV"]
        assert mask.sum() * grid.voxel_volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.03)
        assert np.abs(grid.world(np.argwhere(mask)).mean(axis=0) - centre).max() < 0.4


def test_contours_between_slices_go_to_the_nearest(tmp_path: Path) -> None:
    shifted = masks(tmp_path, {"Brain": [circle(10, z + 1.2) for z in Z[2:5]]})["Brain"]
    assert list(np.flatnonzero(shifted.any(axis=(0, 1)))) == [2, 3, 4]
    halfway = masks(tmp_path, {"Brain": [circle(10, z + 1.5) for z in Z[2:5]]})["Brain"]
    assert halfway.any(axis=(0, 1)).sum() == 3
    thick = Grid((60, 50, 24), GRID.affine @ np.diag([1, 1, 1 / 3, 1]))
    fine = masks(tmp_path, {"Brain": [circle(10, z) for z in Z[2:5]]}, thick)["Brain"]
    assert fine.any(axis=(0, 1)).sum() == 9


def test_contours_finer_than_the_slices_do_not_cancel(tmp_path: Path) -> None:
    found = masks(tmp_path, {"Brain": [circle(10, z) for z in np.arange(Z[2], Z[5] + 0.1, 1.0)]})["Brain"]
    assert found[:, :, 3].sum() == pytest.approx(np.pi * 100, rel=0.02)


def test_regions_without_a_closed_contour_are_listed(tmp_path: Path) -> None:
    far = circle(3, 500.0)
    path = write(structure_dataset({"Brain": [circle(9, Z[1])], "Lens_L": [], "Lens_R": [far]}), tmp_path / "a.dcm")
    found = load_structures(path, GRID)
    assert list(found.masks) == ["Brain"]
    assert found.left_out == {"Lens_L": "no closed contour", "Lens_R": "outside the image, or smaller than a voxel"}
    points = write(structure_dataset({"Brain": [circle(9, 0)[:1]]}, kind="POINT"), tmp_path / "b.dcm")
    assert read_contours(points).passed_over == 1
    assert not load_structures(points, GRID).masks


@pytest.mark.parametrize("fault", ["askew", "bent", "count", "frame", "no sequence", "modality", "twice", "far"])
def test_contours_that_cannot_be_drawn_are_refused(tmp_path: Path, fault: str) -> None:
    first, second = circle(9, Z[1]), circle(9, Z[3])
    if fault == "askew":
        second = second[:, [2, 0, 1]]
    elif fault == "bent":
        second[7, 2] += 2
    ds = structure_dataset({"Brain": [first, second], f"{CANARY}": [first]})
    if fault == "count":
        ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]
    elif fault == "far":
        ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1e300"] * 1200
    elif fault == "no sequence":
        del ds.StructureSetROISequence
    elif fault == "modality":
        ds.Modality = "CT"
    elif fault == "twice":
        ds.StructureSetROISequence[1].ROINumber = 1
    said = {
        "askew": "askew", "bent": "not flat", "count": "three coordinates", "frame": "frame of reference",
        "no sequence": "at least one structure", "modality": "RTSTRUCT", "twice": "one twice", "far": "within",
    }  # fmt: skip
    path = write(ds, tmp_path / "a.dcm")
    with pytest.raises(InputError, match=said[fault]) as caught:
        load_structures(path, GRID, frame_of_reference="1.2.3" if fault == "frame" else FRAME)
    assert CANARY not in str(caught.value)
    if fault == "frame":
        load_structures(path, GRID, frame_of_reference="1.2.3", allow_other_frame=True)


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ("Brain Stem", "Brainstem"), ("BRAINSTEM", "Brainstem"), ("Chiasm", "OpticChiasm"),
        ("OpticChiasm", "OpticChiasm"),
        ("Optic Nerve Lt", "OpticNrv_L"), ("OpticNrv_R", "OpticNrv_R"), ("R eye", "Eye_R"), ("Lens-L", "Lens_L"),
        ("Cochlea_Left", "Cochlea_L"), ("Hippocampus_R", "Hippocampus_R"), ("SpinalCord", "SpinalCord"),
        ("Spinal cord", "SpinalCord"), ("BODY", "External"), ("Brain", "Brain"), ("Surgical Cavity", "Cavity"),
        ("GTV", "GTV"), ("gtv 1", "GTV1"), ("CTV_6000", "CTV_6000"), ("PTV60", "PTV_60"), ("PTV-Boost", "PTV_Boost"),
        ("GTVp", "GTVp"), ("GTV_Smith", "GTV"), ("PTV_12345678", "PTV"), ("CTV 1987", "CTV"), ("GTV T1", "GTV_T1"),
        ("Smith^John", None), ("Brain Smith", None), ("", None), ("Lens Smith L", None), ("GTVSMITH", None),
    ],
)  # fmt: skip
def test_only_known_words_of_a_name_are_kept(stated: str, kept: str | None) -> None:
    assert clean_name(stated) == kept


def test_names_are_distinct_and_fit_to_be_file_names() -> None:
    import re

    stated = [
        ("GTV", ""),
        ("Smith", ""),
        ("gtv", ""),
        ("GTV", ""),
        ("Jones", "PTV"),
        ("Structure1", ""),
        ("", "EXTERNAL"),
    ]
    names = clean_names(stated)
    assert names == ["GTV", "Structure1", "GTV~2", "GTV~3", "PTV", "Structure2", "External"]
    assert all(re.fullmatch(STRUCTURE_NAME, name) for name in names)
    assert clean_names(stated) == names


def test_the_phantom_agrees_with_rt_utils_but_for_voxels_on_the_outline(realdata: Path) -> None:
    folder = realdata / "dicom_rt" / "rt_utils_phantom"
    scan = load_volume(sorted(folder.glob("ct_*.dcm")))
    ours = load_structures(folder / "rt.dcm", scan.grid).masks["Structure1"]
    builder = RTStructBuilder.create_from(dicom_series_path=str(folder), rt_struct_path=str(folder / "rt.dcm"))
    theirs = builder.get_roi_mask_by_name(builder.get_roi_names()[0]).transpose(1, 0, 2)
    assert theirs.any()
    assert ours.shape == theirs.shape
    plane = np.ones((3, 3, 1), bool)
    assert not (ours & ~theirs).any()  # they paint the outline too
    assert not (ndimage.binary_erosion(theirs, plane) & ~ours).any()
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.9  # a small region with a long outline


def test_the_breast_structures_are_drawn_on_their_image(realdata: Path) -> None:
    folder = realdata / "dicom_rt" / "dicompyler_breast"
    scan = load_volume([folder / "ct.0.dcm"])
    found = read_contours(folder / "rtss.dcm")
    assert "External" in found.contours
    assert len(found.contours["External"]) == 141
    affine = scan.grid.affine.copy()
    affine[2, 3] = -41.44
    on = draw(found, Grid((512, 512, 6), affine))  # six planes, 3 mm apart, through the tumour bed
    assert {"External", "Heart", "Lung_L", "GTV", "Cavity"} <= set(on.masks)
    for name, mask in on.masks.items():
        polygons = [c for c in found.contours[name] if -42 < c[0, 2] < -26]
        areas = [0.5 * abs(np.cross(c - c[0], np.roll(c, -1, 0) - c[0]).sum(axis=0)[2]) for c in polygons]
        if name in ("External", "Heart", "GTV"):
            assert mask.sum() * 1.074219**2 == pytest.approx(sum(areas), rel=0.02), name
