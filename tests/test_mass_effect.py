"""Mass effect: figures against closed forms, the picture, and the way through a run folder."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import small_run
from ball_brain import CENTRE, TUMOUR, ball_grid, ball_tissue, distance
from figures import Figure
from numpy.typing import NDArray

from hybridtumor import mass_effect
from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.grid import Grid
from hybridtumor.manifest import Manifest
from hybridtumor.models.carry import carried
from hybridtumor.models.ventricles import ventricles
from hybridtumor.models.warp import find_origins
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.report import report
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import load_displacement, write_nifti
from hybridtumor.slices import Section
from hybridtumor.summary import arm_figures
from hybridtumor.therapy import TherapyPlan

FINE = ball_grid((52, 50, 48), 1.0)


def world(grid: Grid) -> NDArray[np.float64]:
    return np.moveaxis(grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)


def push(grid: Grid, size: float = 3.0) -> NDArray[np.float32]:
    """Radial expansion around the tumour, by `size` mm 8 mm from its centre, vanishing at the skull."""
    offset = world(grid) - TUMOUR[:, None, None, None]
    r, depth = np.linalg.norm(offset, axis=0), 22 - distance(grid, CENTRE)
    held = np.clip(depth / 8, 0, 1) ** 2 * (3 - 2 * np.clip(depth / 8, 0, 1))
    return np.asarray(size * offset / 8 * np.exp(0.5 - (r / 8) ** 2 / 2) * held, np.float32)


def forecast(patient: Patient, *displacements: NDArray[np.float32]) -> Forecast:
    """The tumour grows a little and pushes its neighbourhood away."""
    assert patient.density is not None
    still = np.zeros((3, *patient.grid.shape), np.float32)
    days = tuple(30.0 * i for i in range(len(displacements) + 1))
    density = tuple(
        np.asarray(carried(patient.density.values, find_origins(v, patient.grid), order=3) * (1 - 0.02 * i), np.float32)
        for i, v in enumerate((still, *displacements))
    )
    kill = tuple(np.zeros(patient.grid.shape, np.float32) for _ in days)
    curve = np.array([(day, float(u.sum())) for day, u in zip(days, density, strict=True)])
    return Forecast(patient.grid, days, density, kill, curve, displacement=(still, *displacements))


def test_nothing_moved_is_no_mass_effect() -> None:
    tissue = ball_tissue(FINE)
    found = mass_effect.mass_effect(tissue, np.zeros((3, *FINE.shape), np.float32))
    assert found.max_displacement == 0
    assert found.midline_shift == 0
    assert found.ventricle_volume == np.count_nonzero(ventricles(tissue)) * FINE.voxel_volume > 0


@pytest.mark.law("mechanics", "A uniform stretch changes the ventricles' volume by its cube")
@pytest.mark.parametrize("stretch", [0.9, 1.0, 1.1])
def test_a_uniform_stretch_changes_volumes_by_its_cube(stretch: float, figure: Figure) -> None:
    tissue = ball_tissue(FINE)
    v = ((stretch - 1) * (world(FINE) - CENTRE[:, None, None, None])).astype(np.float32)
    before = np.count_nonzero(ventricles(tissue)) * FINE.voxel_volume
    found = mass_effect.mass_effect(tissue, v)
    figure("error", abs(found.ventricle_volume / (stretch**3 * before) - 1), at_most=1e-4)
    assert found.max_displacement == pytest.approx(abs(stretch - 1) * distance(FINE, CENTRE).max(), rel=1e-4)


@pytest.mark.law("mechanics", "The ventricles' volume by det F is that of the carried ventricle")
def test_a_tumour_squeezes_the_ventricle_by_what_the_carried_ventricle_says(figure: Figure) -> None:
    tissue = ball_tissue(FINE)
    v = push(FINE, 4.0)
    region = ventricles(tissue)
    found = mass_effect.mass_effect(tissue, v).ventricle_volume
    image = carried(region.astype(np.float32), find_origins(v, FINE), order=1)
    figure("difference", abs(found / (float(image.sum()) * FINE.voxel_volume) - 1), at_most=0.02)
    assert found < 0.9 * np.count_nonzero(region) * FINE.voxel_volume


@pytest.mark.parametrize("flip", [False, True])
def test_the_midline_is_in_the_middle_of_the_head_and_at_the_ventricles(flip: bool) -> None:
    grid = ball_grid((52, 50, 48), 1.0, flip)
    tissue = ball_tissue(grid)
    assert mass_effect.midsagittal(tissue.head, grid) == pytest.approx(CENTRE[0], abs=0.5)
    place = grid.world(np.argwhere(mass_effect.midline(tissue))) - CENTRE
    assert np.abs(place[:, 0]).max() <= mass_effect.HALF_THICKNESS + 0.5
    assert np.abs(place[:, 1:]).max() <= 4.5  # the ventricle's radius is 4 mm
    v = np.zeros((3, *grid.shape), np.float32)
    v[0] = np.where(distance(grid, CENTRE) < 6, -2.5, -9.0)  # far from the ventricles' level more moves
    v[1] = 4.0  # forward is not sideways
    assert mass_effect.mass_effect(tissue, v).midline_shift == 2.5


def test_a_turned_scanner_sees_the_same_figures() -> None:
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn
    affine[:3, 3] = CENTRE - turn @ ((np.array((60, 60, 50)) - 1) / 2)
    found = [mass_effect.mass_effect(ball_tissue(g), push(g)) for g in (FINE, Grid((60, 60, 50), affine))]
    assert found[0].max_displacement == pytest.approx(found[1].max_displacement, rel=0.02)
    assert found[0].midline_shift == pytest.approx(found[1].midline_shift, rel=0.15)
    assert found[0].ventricle_volume == pytest.approx(found[1].ventricle_volume, rel=0.05)


def test_sections_show_where_the_tissue_came_from() -> None:
    tissue, v = ball_tissue(FINE), push(FINE)
    sections = {"axial": Section("axial", FINE, tuple(TUMOUR))}
    base = (100 * tissue.white).astype(np.float32)
    cuts = mass_effect.moved_sections(tissue, base, 30.0, v, sections)
    here = sections["axial"].of(np.moveaxis(world(FINE), 0, -1)[..., 0])
    assert np.allclose((cuts.origin["axial"] + cuts.shift["axial"])[..., 0], here, atol=1e-4)
    pushed_right = sections["axial"].of(((world(FINE)[0] > TUMOUR[0] + 3) & (distance(FINE, TUMOUR) < 8)).astype(int))
    assert (cuts.shift["axial"][..., 0][pushed_right > 0] > 0).all()
    assert cuts.now["axial"].sum() < cuts.before["axial"].sum()


def test_the_summary_has_the_figures_only_with_mechanics() -> None:
    patient = small_run.small_patient()
    told = forecast(patient, push(patient.grid, 1.0), push(patient.grid, 3.0))
    figures = arm_figures(patient, told, TherapyPlan(), TreatmentResponse())
    assert figures["max_displacement_mm"] == sorted(figures["max_displacement_mm"])
    assert figures["ventricle_volume_mm3"] == sorted(figures["ventricle_volume_mm3"], reverse=True)
    assert figures["midline_shift_mm"][0] == 0 < figures["midline_shift_mm"][1] < figures["midline_shift_mm"][2]
    still = arm_figures(patient, replace(told, displacement=None), TherapyPlan(), TreatmentResponse())
    assert not {"ventricle_volume_mm3", "midline_shift_mm"} & set(still)
    assert still["max_displacement_mm"] == [0, 0, 0]


def test_the_report_shows_mass_effect_where_there_is_any() -> None:
    patient = small_run.small_patient()
    told = forecast(patient, push(patient.grid, 3.0))
    page = report(patient, told)
    assert page.pictures["forecast_mass_effect.png"].startswith(b"\x89PNG")
    assert "Midline shift, mm" in page.html
    assert "Mass effect" in page.html
    unmoved = tuple(np.zeros_like(v) for v in told.displacement or ())
    for quiet in (replace(told, displacement=None), replace(told, displacement=unmoved)):
        assert "forecast_mass_effect.png" not in report(patient, quiet).pictures
    assert "Midline shift, mm" not in report(patient, replace(told, displacement=None)).html


def oblique() -> Grid:
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.0, 1.5, 2.0])
    affine[:3, 3] = (5, -7, 11)
    return Grid((7, 6, 5), affine)


def test_other_programs_read_the_same_displacement(tmp_path: Path) -> None:
    grid, v = oblique(), np.random.default_rng(0).normal(size=(3, 7, 6, 5)).astype(np.float32)
    write_nifti(tmp_path / "v.nii.gz", v, grid)
    back, there = load_displacement(tmp_path / "v.nii.gz")
    assert np.array_equal(back, v)
    assert grid.same_as(there)
    assert nib.load(tmp_path / "v.nii.gz").header["intent_code"] == 1006
    seen = SimpleITK.ReadImage(str(tmp_path / "v.nii.gz"))
    assert seen.GetNumberOfComponentsPerPixel() == 3
    field = SimpleITK.DisplacementFieldTransform(SimpleITK.Cast(seen, SimpleITK.sitkVectorFloat64))
    for index in ((1, 2, 3), (6, 0, 4), (3, 5, 1)):
        lps = np.array(seen.TransformIndexToPhysicalPoint(index))
        moved = np.array(field.TransformPoint(lps)) * (-1, -1, 1)
        assert np.allclose(moved, grid.world(index) + v[:, *index], atol=1e-4)


def test_a_displacement_comes_back_from_the_run_folder_as_it_was(tmp_path: Path) -> None:
    patient = small_run.small_patient()
    told = forecast(patient, push(patient.grid, 3.0))
    folder = RunFolder(tmp_path, Manifest("x"))
    figures = arm_figures(patient, told, TherapyPlan(), TreatmentResponse())
    for arm, saved in (("moving", told), ("still", replace(told, displacement=None))):
        folder.save_forecast(arm, saved, TherapyPlan(), figures)
    back = folder.load_forecast("moving", patient.grid)
    assert back.displacement is not None
    assert told.displacement is not None
    assert all(np.array_equal(a, b) for a, b in zip(back.displacement, told.displacement, strict=True))
    sidecar = folder.arm_path("moving") / "displacement_day030.json"
    assert json.loads(sidecar.read_text())["frame"].startswith("RAS+")
    assert folder.load_forecast("still", patient.grid).displacement is None
    assert folder.load_displacement("still", 30.0) is None


def test_an_image_that_is_no_displacement_is_refused(tmp_path: Path) -> None:
    grid = oblique()
    write_nifti(tmp_path / "scan.nii.gz", np.zeros(grid.shape, np.float32), grid)
    with pytest.raises(InputError, match="displacement vectors"):
        load_displacement(tmp_path / "scan.nii.gz")
    loose = nib.Nifti1Image(np.zeros((7, 6, 5, 1, 3), np.float32), grid.affine)
    nib.save(loose, tmp_path / "loose.nii.gz")
    with pytest.raises(InputError, match="1006"):
        load_displacement(tmp_path / "loose.nii.gz")
