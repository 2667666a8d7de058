"""Images, doses and segmentations that we write are read back by pydicom and highdicom: same places, same voxels."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from export_grids import GRIDS, affine_of, arranged, labels_on, noise, read_folder, series, values_at
from hypothesis import given, settings

from hybridtumor.dicom.write_dose import write_dose
from hybridtumor.dicom.write_geometry import Frames
from hybridtumor.dicom.write_images import rescale, write_images
from hybridtumor.dicom.write_plan import write_plan
from hybridtumor.dicom.write_segmentation import MEANINGS, write_segmentation
from hybridtumor.dicom.writing import make_uid
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.scan import SYNTHETIC_NOTICE, LabelMap, Scan
from hybridtumor.therapy import DoseMap, Fractionation

FEW = settings(max_examples=12, deadline=None)


@given(grid=GRIDS)
@FEW
def test_a_series_holds_the_voxels_where_they_are(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, scan = tmp_path_factory.mktemp("series"), noise(grid)
    write_images(scan, "T1w", series(), folder)
    slices = read_folder(folder)
    assert [int(s.InstanceNumber) for s in slices] == list(range(1, len(slices) + 1))  # right-handed, in order
    affine = affine_of(
        [np.array(s.ImagePositionPatient, float) for s in slices],
        np.array(slices[0].ImageOrientationPatient, float),
        np.array(slices[0].PixelSpacing, float),
    )
    slope = float(slices[0].RescaleSlope)
    frames = np.stack([s.pixel_array * slope + float(s.RescaleIntercept) for s in slices])
    assert np.abs(values_at(frames, affine, grid) - scan.values).max() <= 0.51 * slope
    assert slope <= np.ptp(scan.values) / 60000


@given(grid=GRIDS)
@FEW
def test_highdicom_sees_the_same_volume(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, scan = tmp_path_factory.mktemp("series"), noise(grid)
    write_images(scan, "FLAIR", series(), folder)
    volume = hd.get_volume_from_series(read_folder(folder))
    assert str(volume.frame_of_reference_uid) == "2.25.2"
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine  # (frame, row, column) to RAS mm
    frames, affine = volume.array, to_ras[:, [2, 1, 0, 3]]
    assert np.abs(values_at(frames, affine, grid) - scan.values).max() < 0.01 * np.ptp(scan.values)


def dose_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames in Gy and their affine."""
    data = pydicom.dcmread(path)
    orientation = np.array(data.ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    offsets = np.array(data.GridFrameOffsetVector, float)
    assert offsets[0] == 0
    assert (np.diff(offsets) > 0).all()
    positions = [np.array(data.ImagePositionPatient, float) + offset * normal for offset in offsets]
    frames = data.pixel_array * float(data.DoseGridScaling)
    return frames, affine_of(positions, orientation, np.array(data.PixelSpacing, float))


@given(grid=GRIDS)
@FEW
def test_a_dose_is_the_same_gray_in_the_same_place(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("dose")
    dose = DoseMap(np.abs(noise(grid).values) / 3, grid)
    plan = write_plan((Fractionation(dose, 30, 5),), series("plan"), folder / "plan.dcm")
    for bits, error in ((32, 1e-6), (16, 1e-5)):
        write_dose(dose, plan, series("dose"), folder / "dose.dcm", bits=bits)  # type: ignore[arg-type]
        frames, affine = dose_of(folder / "dose.dcm")
        assert np.abs(values_at(frames, affine, grid) - dose.values).max() <= error * dose.values.max()


def test_a_dose_says_what_it_is(tmp_path: Path) -> None:
    grid = arranged()
    dose = DoseMap(np.abs(noise(grid).values) / 3, grid)
    courses = (Fractionation(dose, 30, 5, prescription=60.0), Fractionation(dose, 10, 90, prescription=20.0))
    plan = write_plan(courses, series("plan", 1), tmp_path / "plan.dcm")
    write_dose(dose, plan, series("dose", 2), tmp_path / "dose.dcm")
    data, plan = pydicom.dcmread(tmp_path / "dose.dcm"), pydicom.dcmread(tmp_path / "plan.dcm")
    assert (data.DoseUnits, data.DoseType, data.DoseSummationType) == ("GY", "PHYSICAL", "PLAN")
    assert data.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert SYNTHETIC_NOTICE in data.DoseComment
    assert (plan.ApprovalStatus, plan.PlanIntent) == ("UNAPPROVED", "RESEARCH")
    assert "not for treatment" in plan.RTPlanDescription
    assert [int(group.NumberOfFractionsPlanned) for group in plan.FractionGroupSequence] == [30, 10]
    assert [float(target.TargetPrescriptionDose) for target in plan.DoseReferenceSequence] == [60, 20]
    assert "BeamSequence" not in plan


def test_a_dose_of_nothing_is_nothing(tmp_path: Path) -> None:
    dose = DoseMap(np.zeros((4, 5, 6), np.float32), arranged(shape=(4, 5, 6)))
    plan = write_plan((), series("plan"), tmp_path / "plan.dcm")
    write_dose(dose, plan, series("dose"), tmp_path / "dose.dcm")
    assert not dose_of(tmp_path / "dose.dcm")[0].any()


@given(grid=GRIDS)
@FEW
def test_a_segmentation_comes_back_label_by_label(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, labels = tmp_path_factory.mktemp("seg"), labels_on(grid)
    images = write_images(noise(grid), "T1ce", series(), folder / "t1ce")
    write_segmentation(labels, images, series("seg", 2), folder / "seg.dcm")
    seg = hd.seg.segread(folder / "seg.dcm")
    volume = seg.get_volume()
    affine = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine)[:, [2, 1, 0, 3]]
    for number in seg.segment_numbers:
        description = seg.get_segment_description(number)
        name = next(key for key, (label, _) in MEANINGS.items() if label == description.segment_label)
        assert description.segmented_property_type == MEANINGS[name][1]
        assert np.array_equal(values_at(volume.array[..., number - 1], affine, grid) > 0, labels.mask(name))
    assert seg.number_of_segments == 3


def test_only_labels_that_are_there_become_segments(tmp_path: Path) -> None:
    grid = arranged()
    values = np.zeros(grid.shape, np.uint8)
    values[4:8, 5:9, 6] = 4
    images = write_images(noise(grid), "T1ce", series(), tmp_path / "t1ce")
    write_segmentation(LabelMap(values, grid), images, series("seg", 2), tmp_path / "seg.dcm")
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == ["enhancing lesion"]


def test_every_image_says_that_it_is_synthetic(tmp_path: Path) -> None:
    images = write_images(noise(arranged()), "T1w", series("stupp day060 T1w", day=60.5), tmp_path)
    for data in (*images, *read_folder(tmp_path)):
        assert data.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert SYNTHETIC_NOTICE in data.SeriesDescription
        assert SYNTHETIC_NOTICE in data.DerivationDescription
        assert data.BurnedInAnnotation == "NO"
        assert "research use only" in data.ImageComments
        assert (data.StudyDate, data.SeriesDate, data.SeriesTime) == ("19000101", "19000302", "120000")
    real = write_images(noise(arranged()), "T1w", series(synthetic=False), tmp_path / "real")
    assert "SYNTHETIC" not in str(real[0])
    assert "research use only" in real[0].SeriesDescription


def test_whole_numbers_are_stored_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-1000, 3000, (4, 5, 6)).astype(np.float32)
    write_images(Scan(values, arranged(shape=(4, 5, 6))), "CT", series(), tmp_path)
    first = pydicom.dcmread(tmp_path / "0001.dcm")
    assert (first.Modality, float(first.RescaleSlope), float(first.RescaleIntercept)) == ("CT", 1, values.min())


@pytest.mark.parametrize("values", [[0.5] * 4, [-1e-9, 1e-9, 0, 0], [1e7, 1e7 + 1, 0.5, -3], [-0.1, 2e-5, 1e-30, 3]])
def test_every_range_fits_16_bits(values: list[float]) -> None:
    array = np.array(values, np.float32)
    slope, intercept = (float(text) for text in rescale(array))
    stored = np.rint((array.astype(float) - intercept) / slope)
    assert stored.min() >= 0
    assert stored.max() <= 65535
    assert np.abs(stored * slope + intercept - array).max() <= 0.51 * slope + 1e-15


def test_frames_are_where_radiology_expects_them() -> None:
    assert np.allclose(Frames.of(arranged()).orientation, [1, 0, 0, 0, 1, 0])  # axial: to the left, to the back
    sagittal = Frames.of(arranged(size=(5.0, 1.0, 1.0)))
    assert np.allclose(sagittal.orientation, [0, 1, 0, 0, 0, -1])  # to the back, to the feet
    assert np.allclose(sagittal.pixel_spacing, 1)
    coronal = Frames.of(arranged(axes=(2, 0, 1), size=(1.0, 1.0, 5.0)))
    assert np.allclose(coronal.orientation, [1, 0, 0, 0, 0, -1])


@given(grid=GRIDS)
@FEW
def test_frames_are_right_handed(grid: Grid) -> None:
    frames = Frames.of(grid)
    assert np.allclose(frames.directions.T @ frames.directions, np.eye(3))
    assert np.isclose(np.linalg.det(frames.directions), 1)


def test_a_sheared_grid_is_refused() -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 1] = 0.01
    with pytest.raises(InputError, match=r"right angles.*mm.*Resample"):
        Frames.of(Grid((64, 64, 64), affine))
    affine[0, 1] = 1e-5  # the rounding of a float32 header
    assert Frames.of(Grid((64, 64, 64), affine))


def test_uids_are_legal_and_of_the_content() -> None:
    uids = {make_uid("series", str(n)) for n in range(200)}
    assert len(uids) == 200
    assert all(pydicom.uid.UID(uid).is_valid and len(uid) <= 64 and uid.startswith("2.25.") for uid in uids)
    assert series(content=("a",)).uid == series(content=("a",)).uid
    assert len({series(content=("a",)).uid, series(content=("b",)).uid, series(content=("a",), day=1.0).uid}) == 3
