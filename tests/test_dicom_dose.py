"""RTDOSE and RTPLAN: Gy at the right place, totals alone, and reasons for what is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import CANARY, FRAME, dose_dataset, plan_dataset, write

from hybridtumor.dicom.dose import load_dose
from hybridtumor.dicom.plan import load_plan
from hybridtumor.errors import InputError

STORED = np.random.default_rng(1).integers(0, 6000, (5, 4, 6)).astype(np.uint16)
"""(frame, row, column)"""


def assert_dose_at(path: Path | Sequence[Path], expected: dict[tuple[float, float, float], float]) -> None:
    """The dose has a value at world points (RAS, mm)."""
    dose, _ = load_dose(path)
    for point, value in expected.items():
        index = dose.grid.index(point)
        assert np.abs(index - np.round(index)).max() < 1e-5
        assert dose.values[tuple(np.round(index).astype(int))] == pytest.approx(value, rel=1e-6)


def by_hand(offsets: Sequence[float], stored: np.ndarray = STORED) -> dict[tuple[float, float, float], float]:
    """World points and dose of an axial RTDOSE at (-20, -30, z), rows 2 mm and columns 3 mm apart."""
    return {
        (20 - 3.0 * c, 30 - 2.0 * r, z): 0.01 * stored[k, r, c]
        for k, z in enumerate(offsets)
        for r in range(4)
        for c in range(6)
    }


def test_the_water_cube_has_its_dose_at_its_place(realdata: Path) -> None:
    path = realdata / "dicom_rt" / "pymedphys_wedge" / "RD.wedge.dcm"
    dose, facts = load_dose(path)
    raw = pydicom.dcmread(path)
    assert dose.values.max() == pytest.approx(1.960, abs=5e-4)
    assert dose.grid.shape == (75, 130, 60)
    assert np.allclose(dose.grid.voxel_size, 2)
    assert (facts.summation, facts.files, facts.fractions) == ("PLAN", 1, None)
    (x, y, z), stored = map(float, raw.ImagePositionPatient), raw.pixel_array
    for c, r, k in np.ndindex(2, 2, 2):
        index = (74 * c, 129 * r, 59 * k)
        corner = [-(x + 2 * 74 * c), -(y + 2 * 129 * r), z + float(raw.GridFrameOffsetVector[59 * k])]
        assert np.abs(dose.grid.world(index) - corner).max() < 0.01
    expected = stored.astype(float) * float(raw.DoseGridScaling)
    assert np.allclose(dose.values, expected.transpose(2, 1, 0), rtol=1e-6)


def test_the_toy_dose_is_refused_because_it_is_relative(realdata: Path) -> None:
    with pytest.raises(InputError, match="RELATIVE: a share of an unknown dose"):
        load_dose(realdata / "dicom_rt" / "pydicom_toy")


@pytest.mark.parametrize(
    ("offsets", "z"),
    [
        ([0, 4, 8, 12, 16], [40, 44, 48, 52, 56]),
        ([0, -4, -8, -12, -16], [40, 36, 32, 28, 24]),
        ([40, 44, 48, 52, 56], [40, 44, 48, 52, 56]),
        ([40, 36, 32, 28, 24], [40, 36, 32, 28, 24]),
    ],
)
def test_offsets_relative_or_absolute_may_ascend_or_descend(
    tmp_path: Path, offsets: list[float], z: list[float]
) -> None:
    assert_dose_at(write(dose_dataset(STORED, offsets=offsets), tmp_path / "d.dcm"), by_hand(z))


def test_relative_offsets_run_along_the_normal(tmp_path: Path) -> None:
    """Rows to the back, columns to the right of the patient: the normal points down."""
    path = write(dose_dataset(STORED, orientation=(-1, 0, 0, 0, 1, 0)), tmp_path / "d.dcm")
    expected = {
        (20 + 3.0 * c, 30 - 2.0 * r, 40 - 4.0 * k): 0.01 * STORED[k, r, c]
        for k, r, c in [(0, 0, 0), (4, 3, 5), (2, 1, 3)]
    }
    assert_dose_at(path, expected)


def test_an_oblique_dose_keeps_its_place(tmp_path: Path) -> None:
    angle = np.radians(17)
    x, y = np.array([np.cos(angle), np.sin(angle), 0]), np.array([0, 0, -1.0])
    path = write(dose_dataset(STORED, orientation=[*x, *y]), tmp_path / "d.dcm")
    corner = np.array([-20, -30, 40.0]) + 5 * 3 * x + 3 * 2 * y + 4 * 4 * np.cross(x, y)
    assert_dose_at(path, {tuple(corner * [-1, -1, 1]): 0.01 * STORED[4, 3, 5]})


def test_rescale_tags_have_no_meaning_and_32_bits_are_read(tmp_path: Path) -> None:
    wide = STORED.astype(np.uint32) * 65536
    path = write(dose_dataset(wide, scaling=0.01 / 65536, RescaleSlope=7, RescaleIntercept=9), tmp_path / "d.dcm")
    assert_dose_at(path, by_hand([40, 44, 48, 52, 56]))


def test_beams_of_one_plan_add_up(tmp_path: Path) -> None:
    paths = [write(dose_dataset(STORED // n, summation="BEAM", beam=n), tmp_path / f"{n}.dcm") for n in (2, 1, 3)]
    total = STORED + STORED // 2 + STORED // 3
    assert_dose_at(paths, by_hand([40, 44, 48, 52, 56], total))
    assert_dose_at(tmp_path, by_hand([40, 44, 48, 52, 56], total))
    assert load_dose(paths)[1].beams == 3


def test_beams_on_other_grids_are_resampled_by_affine(tmp_path: Path) -> None:
    k, r, c = np.meshgrid(np.arange(9), np.arange(4), np.arange(6), indexing="ij")
    ramp = (100 * (2 * r + 3 * c) + 50 * 2 * k).astype(np.uint16)  # linear in mm: trilinear sampling is exact
    fine = write(dose_dataset(ramp, summation="BEAM", beam=2, offsets=2.0 * np.arange(9)), tmp_path / "2.dcm")
    coarse = write(dose_dataset(ramp[::2], summation="BEAM", beam=1), tmp_path / "1.dcm")
    assert_dose_at([fine, coarse], by_hand([40, 44, 48, 52, 56], 2 * ramp[::2]))
    away = write(dose_dataset(ramp, summation="BEAM", beam=3, position=(0, 0, 0)), tmp_path / "3.dcm")
    with pytest.raises(InputError, match="outside the grid"):
        load_dose([coarse, away])


def test_beams_beside_a_damaged_file_are_no_sure_total(tmp_path: Path) -> None:
    write(dose_dataset(STORED, summation="BEAM", beam=1), tmp_path / "1.dcm")
    path = write(dose_dataset(STORED, summation="BEAM", beam=2), tmp_path / "2.dcm")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="1 damaged files, which may be beams"):
        load_dose(tmp_path)


def test_a_total_goes_before_its_beams(tmp_path: Path) -> None:
    write(dose_dataset(STORED), tmp_path / "plan.dcm")
    write(dose_dataset(STORED // 2, summation="BEAM", beam=1), tmp_path / "beam.dcm")
    dose, facts = load_dose(tmp_path)
    assert (facts.summation, facts.files, facts.left_out) == ("PLAN", 1, 1)
    assert dose.values.max() == pytest.approx(0.01 * STORED.max())


def test_a_fraction_needs_the_number_of_fractions(tmp_path: Path) -> None:
    path = write(dose_dataset(STORED // 30, summation="FRACTION"), tmp_path / "d.dcm")
    with pytest.raises(InputError, match="State the number of fractions"):
        load_dose(path)
    dose, facts = load_dose(path, fractions=30)
    assert facts.fractions == 30
    assert dose.values.max() == pytest.approx(0.3 * (STORED.max() // 30), rel=1e-6)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"DoseUnits": "RELATIVE"}, "RELATIVE"),
        ({"DoseUnits": ""}, "got none"),
        ({"DoseUnits": "CGY"}, "expected DoseUnits GY"),
        ({"DoseType": "EFFECTIVE"}, "weight again"),
        ({"DoseType": "ERROR"}, "DoseType PHYSICAL"),
        ({"DoseSummationType": "FRACTION_SESSION"}, "FRACTION_SESSION"),
        ({"DoseSummationType": "BEAM_SESSION"}, "BEAM_SESSION"),
        ({"DoseSummationType": "CONTROL_POINT"}, "CONTROL_POINT"),
        ({"DoseSummationType": "BRACHY"}, "BRACHY"),
        ({"DoseSummationType": CANARY}, "one not known"),
        ({"DoseGridScaling": "0"}, "positive DoseGridScaling"),
        ({"DoseGridScaling": None}, "DoseGridScaling"),
        ({"DoseGridScaling": "100"}, "looks like cGy"),
        ({"GridFrameOffsetVector": [0, 4, 8, 12, 17]}, "evenly spaced"),
        ({"GridFrameOffsetVector": [0, 4, 8, 12, 20]}, "evenly spaced"),
        ({"GridFrameOffsetVector": [0, 4, 4, 8, 12]}, "one twice"),
        ({"GridFrameOffsetVector": [0, 4, 8]}, "5 finite numbers"),
        ({"GridFrameOffsetVector": [7, 11, 15, 19, 23]}, "starts with 0"),
        ({"GridFrameOffsetVector": None}, "5 finite numbers"),
        ({"PixelSpacing": [2, -3]}, "positive spacing"),
        ({"PixelSpacing": [2, "1e300"]}, "up to 100000 mm"),
        ({"Modality": "CT"}, "expected an RTDOSE"),
    ],
)
def test_what_is_no_physical_total_in_gray_is_refused(tmp_path: Path, tags: dict[str, object], said: str) -> None:
    path = write(dose_dataset(STORED, **tags), tmp_path / "d.dcm")
    with pytest.raises(InputError, match=said) as caught:
        load_dose(path)
    assert CANARY not in str(caught.value)


def test_negative_dose_and_single_planes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no negative dose"):
        load_dose(write(dose_dataset(STORED.astype(np.int16) - 3000), tmp_path / "a.dcm"))
    with pytest.raises(InputError, match="one plane"):
        load_dose(write(dose_dataset(STORED[:1]), tmp_path / "b.dcm"))


def test_doses_of_several_plans_or_one_beam_twice_are_refused(tmp_path: Path) -> None:
    plans = [write(dose_dataset(STORED), tmp_path / f"p{i}.dcm") for i in range(2)]
    with pytest.raises(InputError, match="one total dose"):
        load_dose(plans)
    beams = [write(dose_dataset(STORED, summation="BEAM", beam=1), tmp_path / f"b{i}.dcm") for i in range(2)]
    with pytest.raises(InputError, match="several times"):
        load_dose(beams)
    with pytest.raises(InputError, match="expected an RTDOSE file, found none"):
        load_dose([])


def test_another_frame_of_reference_is_refused_unless_allowed(tmp_path: Path) -> None:
    path = write(dose_dataset(STORED), tmp_path / "d.dcm")
    assert load_dose(path, frame_of_reference=FRAME)[1].frame_of_reference == FRAME
    with pytest.raises(InputError, match="frame of reference") as caught:
        load_dose(path, frame_of_reference="1.2.3")
    assert FRAME not in str(caught.value)
    assert "1.2.3" not in str(caught.value)
    load_dose(path, frame_of_reference="1.2.3", allow_other_frame=True)
    unknown = write(dose_dataset(STORED, FrameOfReferenceUID=""), tmp_path / "u.dcm")
    with pytest.raises(InputError, match="frame of reference"):
        load_dose(unknown, frame_of_reference="")
    assert FRAME not in repr(load_dose(path)[1])


def test_the_plans_of_the_data_folder_are_read(realdata: Path) -> None:
    breast = load_plan(realdata / "dicom_rt" / "dicompyler_breast" / "rtplan.dcm")
    assert (breast.fractions, breast.prescription, breast.beams, breast.meterset) == (7, 14.0, 4, 367.0)
    toy = load_plan(realdata / "dicom_rt" / "pydicom_toy" / "rtplan.dcm")
    assert (toy.fractions, toy.beams) == (30, 1)
    assert toy.prescription == pytest.approx(30.826203)
    assert toy.prescription == pytest.approx(30 * 1.0275401)


def test_a_prescription_that_is_not_stated_is_the_dose_of_the_beams(tmp_path: Path) -> None:
    assert load_plan(write(plan_dataset(prescription=None), tmp_path / "a.dcm")).prescription == pytest.approx(60)
    without = plan_dataset(prescription=None, beam_doses=())
    assert load_plan(write(without, tmp_path / "b.dcm")).prescription is None
    setup = plan_dataset(beam_doses=(2.0, 0.0))
    setup.FractionGroupSequence[0].ReferencedBeamSequence[1].BeamMeterset = "0"
    assert load_plan(write(setup, tmp_path / "c.dcm")).beams == 1


@pytest.mark.parametrize("fault", ["brachytherapy", "two groups", "no fractions", "a dose"])
def test_plans_that_are_no_single_course_are_refused(tmp_path: Path, fault: str) -> None:
    ds = dose_dataset(STORED) if fault == "a dose" else plan_dataset()
    if fault == "brachytherapy":
        ds.FractionGroupSequence[0].NumberOfBrachyApplicationSetups = 1
    elif fault == "two groups":
        ds.FractionGroupSequence.append(ds.FractionGroupSequence[0])
    elif fault == "no fractions":
        ds.FractionGroupSequence[0].NumberOfFractionsPlanned = None
    said = {"brachytherapy": "brachytherapy", "two groups": "one fraction group", "a dose": "RTPLAN"}
    with pytest.raises(InputError, match=said.get(fault, "NumberOfFractionsPlanned")):
        load_plan(write(ds, tmp_path / "p.dcm"))
