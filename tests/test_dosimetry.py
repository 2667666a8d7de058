"""Figures of dose against hand arithmetic, closed forms and another program."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hybridtumor.dosimetry import (
    bed,
    dose_at_volume,
    dose_figures,
    dvh,
    eqd2,
    eqd2_map,
    geud,
    max_dose,
    mean_dose,
    prescribed_bed,
    schedule_bed,
    volume_at_dose,
)
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.therapy import UNTREATED, Chemotherapy, DoseMap, Fractionation, TherapyPlan

GRID = Grid((3, 2, 2), np.diag([2.0, 2.0, 2.0, 1.0]))
DOSES = arrays(np.float64, (4, 3, 2), elements=st.floats(0, 80, width=32))
EVERYWHERE = np.ones((4, 3, 2), bool)
SIX_HOURS = 0.25


def course(values: object, fractions: int, first_day: float = 0.0, **more: object) -> Fractionation:
    """A course of a total dose, one for all voxels or one for each."""
    dose = np.broadcast_to(np.asarray(values, np.float32), GRID.shape)
    return Fractionation(DoseMap(dose, GRID), fractions, first_day, **more)


# --- schedules

TEXTBOOK = {
    # name: dose per fraction, fractions, BED and EQD2 with α/β = 10 Gy, BED and EQD2 with α/β = 3 Gy, by hand
    "Stupp 30 × 2": (2.0, 30, 72.0, 60.0, 100.0, 60.0),
    "elderly 15 × 2.67": (2.67, 15, 50.74335, 42.286125, 75.6945, 45.4167),
    "elderly, Nordic 10 × 3.4": (3.4, 10, 45.56, 45.56 / 1.2, 34 * 6.4 / 3, 43.52),
    "frail 5 × 5": (5.0, 5, 37.5, 31.25, 200 / 3, 40.0),
    "radiosurgery 1 × 20": (20.0, 1, 60.0, 50.0, 460 / 3, 92.0),
    "stereotactic 3 × 9": (9.0, 3, 51.3, 42.75, 108.0, 64.8),
    "60 Gy in 50 × 1.2 twice a day": (1.2, 50, 67.2, 56.0, 84.0, 50.4),
    "meningioma 25 × 1.8": (1.8, 25, 53.1, 44.25, 72.0, 43.2),
    "glioma 33 × 1.8": (1.8, 33, 70.092, 58.41, 95.04, 57.024),
    "breast-like 20 × 2.75": (2.75, 20, 70.125, 58.4375, 105.416666666666667, 63.25),
}


@pytest.mark.parametrize("name", TEXTBOOK)
def test_ten_textbook_schedules_by_hand(name: str) -> None:
    d, n, early, early_eqd2, late, late_eqd2 = TEXTBOOK[name]
    plan = TherapyPlan.of(course(n * d, n))
    for alpha_beta, effective, in_two_gray in ((10.0, early, early_eqd2), (3.0, late, late_eqd2)):
        assert bed(n * d, n, alpha_beta) == pytest.approx(effective, rel=1e-10)
        assert eqd2(n * d, n, alpha_beta) == pytest.approx(in_two_gray, rel=1e-10)
        assert schedule_bed([d] * n, alpha_beta) == pytest.approx(effective, rel=1e-10)
        assert prescribed_bed(plan, alpha_beta) == pytest.approx(effective, rel=1e-6)  # a dose map is float32


@given(fractions=st.integers(1, 40), alpha_beta=st.floats(1, 20))
def test_two_gray_fractions_are_their_own_equivalent(fractions: int, alpha_beta: float) -> None:
    assert eqd2(2.0 * fractions, fractions, alpha_beta) == pytest.approx(2.0 * fractions)


@given(
    one=st.lists(st.floats(0, 10), min_size=1, max_size=8),
    other=st.lists(st.floats(0, 10), min_size=1, max_size=8),
    alpha_beta=st.floats(1, 20),
)
def test_bed_adds_over_fractions_that_are_repaired(one: list[float], other: list[float], alpha_beta: float) -> None:
    together = schedule_bed([*one, *other], alpha_beta)
    assert together == pytest.approx(schedule_bed(one, alpha_beta) + schedule_bed(other, alpha_beta))


def test_incomplete_repair_lies_between_fractions_apart_and_at_once() -> None:
    """Six hours at a half-time of three hours: θ = 1/4, 2·1.2 + 2·1.2²·(1 + 1/4)/3 by hand; a day later nothing."""
    day = [0.0, SIX_HOURS]
    found = schedule_bed([1.2, 1.2], 3.0, days=day, repair_half_time=SIX_HOURS / 2)
    assert found == pytest.approx(2.4 + 2 * 1.44 * 1.25 / 3, rel=1e-12)
    halves = [schedule_bed([1.2, 1.2], 3.0, days=day, repair_half_time=t) for t in (0.0, 1e-3, 0.1, 1.0, 1e9)]
    assert all(a <= b for a, b in pairwise(halves))
    assert halves[0] == pytest.approx(halves[1], rel=1e-12)
    assert halves[-1] == pytest.approx(bed(2.4, 1, 3.0), rel=1e-8)
    with pytest.raises(InputError, match="a day for each"):
        schedule_bed([1.2, 1.2], 3.0, days=[0.0], repair_half_time=0.1)


# --- plans


def test_eqd2_of_two_gray_a_day_is_the_dose() -> None:
    values = np.linspace(0, 60, 12).reshape(GRID.shape)
    found = eqd2_map(TherapyPlan.of(course(60.0, 30), course(values * 0 + 10, 5, 60)), 3.0)
    np.testing.assert_allclose(found, 70, rtol=1e-6)
    gradient = eqd2_map(TherapyPlan.of(course(values, 30)), 3.0)
    np.testing.assert_allclose(gradient, values * (1 + values / 90) / (5 / 3), rtol=1e-6, atol=1e-9)
    with pytest.raises(InputError, match="radiation"):
        eqd2_map(UNTREATED, 3.0)


@settings(deadline=None, max_examples=30)
@given(
    courses=st.lists(st.tuples(st.floats(0.5, 60), st.integers(1, 35)), min_size=1, max_size=3),
    alpha_beta=st.floats(1, 20),
)
def test_effective_dose_adds_over_courses(courses: list[tuple[float, int]], alpha_beta: float) -> None:
    """Boosts and courses months later, each of its own fractionation, and a dose map of two levels."""
    levels = np.ones(GRID.shape)
    levels[0] = 0.85
    parts = [course(total * levels, n, first_day=100.0 * i) for i, (total, n) in enumerate(courses)]
    found = eqd2_map(TherapyPlan.of(*parts), alpha_beta)
    for level, place in ((0.85, 0), (1.0, 1)):
        expected = sum(eqd2(level * total, n, alpha_beta) for total, n in courses)
        np.testing.assert_allclose(found[place], expected, rtol=1e-5)


def test_fractions_of_two_courses_on_one_day_meet_unrepaired_damage() -> None:
    """A boost six hours after the large field: the map agrees with the sum over pairs of fractions by hand."""
    days = (0.0, 1.0, 2.0)
    later = tuple(day + SIX_HOURS for day in days)
    plan = TherapyPlan.of(course(5.4, 3, days=days), course(3.6, 3, days=later))
    expected = schedule_bed([1.8] * 3 + [1.2] * 3, 3.0, days=[*days, *later], repair_half_time=SIX_HOURS)
    found = eqd2_map(plan, 3.0, repair_half_time=SIX_HOURS)
    np.testing.assert_allclose(found, expected / (5 / 3), rtol=1e-6)
    assert prescribed_bed(plan, 3.0, repair_half_time=SIX_HOURS) == pytest.approx(expected, rel=1e-6)
    assert found.min() > 1.05 * eqd2_map(plan, 3.0).max()


def test_dose_figures_of_an_arm() -> None:
    grid = Grid((4, 4, 4), np.eye(4))
    tumour = np.zeros(grid.shape, bool)
    tumour[0] = True
    values = np.zeros(grid.shape, np.float32)
    values[:2] = 60
    values[0, :2] = 30
    course = Fractionation(DoseMap(values, grid), 30, 14, prescription=60.0)
    figures = dose_figures(TherapyPlan.of(course, Chemotherapy.temozolomide(14)), tumour, 10.0)
    assert figures == pytest.approx({"prescribed_Gy": 60, "mean_tumour_Gy": 45, "BED_Gy": 72, "EQD2_Gy": 60})
    nothing = Fractionation(DoseMap(np.zeros(grid.shape), grid), 30, 14, prescription=0.0)
    for plan in (UNTREATED, TherapyPlan.of(nothing), TherapyPlan.of(Chemotherapy.temozolomide(14))):
        assert dose_figures(plan, tumour, 10.0) is None


def test_dose_figures_of_a_second_course_add() -> None:
    tumour = np.ones(GRID.shape, bool)
    figures = dose_figures(TherapyPlan.of(course(60.0, 30), course(35.0, 10, 400)), tumour, 10.0)
    expected = {"prescribed_Gy": 95, "mean_tumour_Gy": 95, "BED_Gy": 72 + 47.25, "EQD2_Gy": 60 + 39.375}
    assert figures == pytest.approx(expected, rel=1e-6)


# --- dose-volume histograms


def ball(radius: float, offset: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of a ball, in 1 mm voxels that it does not lie on the centre of, and their places from its centre."""
    size = 2 * int(radius) + 8
    place = np.moveaxis(np.indices((size,) * 3), 0, -1) - size / 2 - np.array(offset)
    return np.linalg.norm(place, axis=-1) <= radius, place


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 1), (1, 1, 1), (0.3, 0.9, 0.2)])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.13, -0.31, 0.4)])
def test_dvh_of_a_ball_across_a_gradient(
    direction: tuple[float, float, float], offset: tuple[float, float, float]
) -> None:
    """The share above a dose is a spherical cap; counting voxel centres is four times as far off along an axis."""
    mask, place = ball(20, offset)
    dose = 40 + 1.5 * place @ np.array(direction) / np.linalg.norm(direction)
    levels = np.linspace(10, 70, 121)
    height = (levels - 40) / 1.5
    cap = (20 - height) ** 2 * (40 + height) / (4 * 20**3)
    assert np.abs(dvh(np.maximum(dose, 0), mask, levels, subvoxel=True)[1] - cap).max() < 0.005
    if direction == (1, 0, 0):
        assert np.abs(dvh(np.maximum(dose, 0), mask, levels)[1] - cap).max() > 0.01


@pytest.mark.parametrize(("radius", "subvoxel"), [(20, False), (32, True)])
def test_dvh_of_a_ball_in_a_dose_that_falls_from_its_centre(radius: int, subvoxel: bool) -> None:
    mask, place = ball(radius, (0.13, -0.31, 0.4))
    dose = np.maximum(60 * (1 - np.linalg.norm(place, axis=-1) / radius), 0)
    levels = np.linspace(0.5, 60, 120)
    _, share = dvh(dose, mask, levels, subvoxel=subvoxel)
    assert np.abs(share - (1 - levels / 60) ** 3).max() < 0.005


def test_dvh_of_a_coarse_gradient_is_a_line_with_subvoxels() -> None:
    """Ten voxels of 6 Gy each: centres make steps of a tenth, the voxels' own range makes the line."""
    dose = np.broadcast_to((np.arange(12) * 6.0 + 3)[:, None, None], (12, 2, 2))
    mask = np.zeros(dose.shape, bool)
    mask[1:11] = True
    levels = np.linspace(6, 66, 61)
    _, share = dvh(dose, mask, levels, subvoxel=True)
    np.testing.assert_allclose(share, 1 - (levels - 6) / 60, atol=1e-12)


@given(DOSES, st.booleans())
def test_dvh_falls_from_one_to_nothing(dose: np.ndarray, subvoxel: bool) -> None:
    levels = np.linspace(0, dose.max() + 1, 50)
    _, share = dvh(dose, EVERYWHERE, levels, subvoxel=subvoxel)
    assert share[0] == pytest.approx(1, abs=1e-12)
    assert share[-1] == 0
    assert (np.diff(share) <= 0).all()


@given(DOSES)
def test_voxels_that_vary_keep_their_mean_and_range(dose: np.ndarray) -> None:
    levels = np.linspace(0, dose.max(), 4001)
    _, share = dvh(dose, EVERYWHERE, levels, subvoxel=True)
    step = levels[1] - levels[0] if dose.max() > 0 else 0
    area = step * (share[1:].sum() + share[:-1].sum()) / 2
    assert area == pytest.approx(dose.mean(), abs=2 * step + 1e-9)
    assert share[levels <= dose.min()] == pytest.approx(1, abs=1e-9)


@given(st.lists(st.floats(0, 80), min_size=1, max_size=50))
def test_mean_dose_is_the_area_under_the_dvh(doses: list[float]) -> None:
    values = np.array(doses).reshape(-1, 1, 1)
    levels = np.unique(np.append(0.0, values))
    _, share = dvh(values, np.ones(values.shape, bool), levels)
    assert np.sum(np.diff(levels) * share[1:]) == pytest.approx(values.mean(), abs=1e-9)


def test_dose_at_volume_and_volume_at_dose_of_a_gradient() -> None:
    dose = np.linspace(0.05, 99.95, 1000).reshape(10, 10, 10)
    mask = np.ones(dose.shape, bool)
    for percent in (2, 50, 98):
        assert dose_at_volume(dose, mask, percent) == pytest.approx(100 - percent)
        assert volume_at_dose(dose, mask, 100.0 - percent) == pytest.approx(percent / 100)
    assert dose_at_volume(dose, mask, 0) == max_dose(dose, mask) == 99.95
    assert dose_at_volume(dose, mask, 100) == 0.05
    with pytest.raises(InputError, match="0 and 100"):
        dose_at_volume(dose, mask, 101)


def test_dvh_agrees_with_dicompyler() -> None:
    """Its DVH is a histogram of 0.01 Gy bins of the same voxels."""
    theirs = pytest.importorskip("dicompylercore.dvh").DVH
    mask, place = ball(12, (0.13, -0.31, 0.4))
    dose = 30 + 20 * np.sin(place[..., 0] / 9) + 8 * np.cos((place[..., 1] + 0.3 * place[..., 2]) / 5)
    bins = np.arange(0, 60.005, 0.01)
    counts = np.histogram(dose[mask], bins)[0]
    other = theirs(counts / 1000, bins, dvh_type="differential").cumulative.relative_volume
    levels, share = dvh(dose, mask, other.bins[:-1])
    np.testing.assert_allclose(share, other.counts / 100, atol=1e-12)
    assert levels.size == other.counts.size > 3000
    for percent in (2, 50, 98):
        assert dose_at_volume(dose, mask, percent) == pytest.approx(other.dose_constraint(percent).value, abs=0.05)
    for level in (20, 30, 45):
        expected = other.volume_constraint(level, "Gy").value / 100
        assert volume_at_dose(dose, mask, level) == pytest.approx(expected, abs=1e-3)
    assert mean_dose(dose, mask) == pytest.approx(other.mean, abs=0.01)
    assert max_dose(dose, mask) == pytest.approx(other.max, abs=0.01)


def rt_dose(values: np.ndarray) -> object:
    """An RTDOSE of 1 mm voxels from the origin, (slice, row, column), Gy."""
    scale, ds = 1e-4, dicom_file("1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE")
    ds.NumberOfFrames, ds.Rows, ds.Columns = values.shape
    ds.PixelSpacing, ds.ImagePositionPatient, ds.ImageOrientationPatient = [1, 1], [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.GridFrameOffsetVector = [float(z) for z in range(values.shape[0])]
    ds.DoseUnits, ds.DoseType, ds.DoseSummationType, ds.DoseGridScaling = "GY", "PHYSICAL", "PLAN", scale
    ds.BitsAllocated = ds.BitsStored = 32
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 31, 0, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = np.round(values / scale).astype("<u4").tobytes()
    return ds


def rt_ball(centre: np.ndarray, radius: float) -> object:
    """An RTSTRUCT of one ball, contoured in every plane of 1 mm."""
    pydicom, ds = pytest.importorskip("pydicom"), dicom_file("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    angle, contours = np.linspace(0, 2 * np.pi, 361)[:-1], []
    for z in np.arange(np.ceil(centre[2] - radius), centre[2] + radius):
        ring = np.sqrt(radius**2 - (z - centre[2]) ** 2)
        x, y = centre[0] + ring * np.cos(angle), centre[1] + ring * np.sin(angle)
        contour = pydicom.Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", angle.size
        contour.ContourData = np.column_stack([x, y, np.full(angle.size, z)]).ravel().tolist()
        contours.append(contour)
    roi, drawn, seen = (pydicom.Dataset() for _ in range(3))
    roi.ROINumber, roi.ROIName = 1, "Ball"
    drawn.ReferencedROINumber, drawn.ROIDisplayColor, drawn.ContourSequence = 1, [255, 0, 0], contours
    seen.ObservationNumber, seen.ReferencedROINumber, seen.RTROIInterpretedType = 1, 1, "ORGAN"
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [roi], [drawn], [seen]
    return ds


def dicom_file(kind: str, modality: str) -> object:
    pydicom = pytest.importorskip("pydicom")
    ds, meta = pydicom.Dataset(), pydicom.dataset.FileMetaDataset()
    ds.SOPClassUID = meta.MediaStorageSOPClassUID = kind
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta, ds.Modality = meta, modality
    return ds


@pytest.mark.filterwarnings("ignore")
def test_dvh_agrees_with_dicompyler_on_contours_and_a_dose_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """From RTSTRUCT and RTDOSE, a ball across an oblique gradient: both programs are within 0.2 % of the cap."""
    dicomio, pydicom = pytest.importorskip("pydicom.dicomio"), pytest.importorskip("pydicom")
    monkeypatch.setattr(dicomio, "read_file", pydicom.dcmread, raising=False)  # its name before pydicom 3
    dvhcalc = pytest.importorskip("dicompylercore.dvhcalc")
    centre, radius = np.array([23.63, 23.19, 23.9]), 20.0
    place = np.moveaxis(np.indices((48, 48, 48)), 0, -1)[..., ::-1] - centre
    dose = np.maximum(40 + 1.5 * place @ np.array([np.cos(0.4), np.sin(0.4), 0]), 0)
    other = dvhcalc.get_dvh(rt_ball(centre, radius), rt_dose(dose), 1).cumulative.relative_volume
    levels, mask = other.bins[:-1], np.linalg.norm(place, axis=-1) <= radius
    height = np.clip((levels - 40) / 1.5, -radius, radius)
    cap = (radius - height) ** 2 * (2 * radius + height) / (4 * radius**3)
    _, ours = dvh(dose, mask, levels, subvoxel=True)
    assert np.abs(ours - cap).max() < 0.002
    assert np.abs(other.counts / 100 - cap).max() < 0.002
    assert np.abs(ours - other.counts / 100).max() < 0.002


# --- equivalent uniform dose


@given(DOSES)
def test_equivalent_uniform_dose_goes_from_the_mean_to_the_maximum(dose: np.ndarray) -> None:
    found = [geud(dose, EVERYWHERE, a) for a in (1, 2, 4, 8, 1000)]
    assert found[0] == pytest.approx(dose.mean(), rel=1e-9)
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(found))
    assert found[-1] == pytest.approx(dose.max(), rel=0.01)
    assert geud(dose, EVERYWHERE, -1000) == pytest.approx(dose.min(), rel=0.01)


def test_equivalent_uniform_dose_by_hand() -> None:
    dose = np.array([30.0, 60.0]).reshape(2, 1, 1)
    both = np.ones(dose.shape, bool)
    assert geud(dose, both, 4) == pytest.approx(((30**4 + 60**4) / 2) ** 0.25, rel=1e-12)
    assert geud(dose, both, -10) == pytest.approx(((30**-10.0 + 60**-10.0) / 2) ** -0.1, rel=1e-12)
    assert geud(dose * 0, both, 4) == 0
    assert geud(np.array([0.0, 60.0]).reshape(2, 1, 1), both, -10) == 0
    with pytest.raises(InputError, match="not 0"):
        geud(dose, both, 0)


def test_empty_regions_are_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        dvh(np.ones((2, 2, 2)), np.zeros((2, 2, 2), bool))
    with pytest.raises(InputError, match="one shape"):
        mean_dose(np.ones((2, 2, 2)), np.ones((3, 2, 2), bool))
    with pytest.raises(InputError, match="out of order"):
        dvh(np.ones((2, 2, 2)), np.ones((2, 2, 2), bool), np.array([2.0, 1.0]))
