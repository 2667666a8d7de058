"""Laws of the way from a patient to a forecast."""

from types import SimpleNamespace

import numpy as np
import pytest
from ball_brain import ball_density, ball_dose, ball_grid, ball_patient, ball_tissue
from figures import Figure

from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.mesh_size import auto_size, margin_mm
from hybridtumor.parameters import GrowthParameters
from hybridtumor.scan import Scan
from hybridtumor.simulate import simulate
from hybridtumor.therapy import UNTREATED, Chemotherapy, DoseMap, Fractionation, TherapyPlan

DAYS = (0, 20, 45, 90)


@pytest.fixture(scope="module")
def simulation() -> GrowthSimulation:
    patient = ball_patient()
    return GrowthSimulation.prepare(patient.tissue, patient.density, horizon=90)


@pytest.fixture(scope="module")
def untreated(simulation: GrowthSimulation) -> Forecast:
    return simulation.run(days=DAYS)


def radiation(simulation: GrowthSimulation, dose: float) -> Fractionation:
    return Fractionation(ball_dose(simulation.grid, dose), fractions=30, first_day=14)


@pytest.mark.law("runs", "On day 0 the density is the patient's own, bit for bit")
def test_day_0_is_the_patients_own_density(simulation: GrowthSimulation, untreated: Forecast) -> None:
    np.testing.assert_array_equal(untreated.density[0], ball_patient().density.values)
    assert untreated.days == DAYS
    assert untreated.density[-1].dtype == np.float32


def test_density_stays_in_bounds_and_in_the_parenchyma(simulation: GrowthSimulation, untreated: Forecast) -> None:
    outside = ~ball_tissue(simulation.grid).parenchyma
    for density in untreated.density:
        assert density.min() >= 0
        assert density.max() <= 1
        assert not density[outside].any()


@pytest.mark.law("mesh", "The burden of a forecast on the grid is that on the mesh")
def test_burden_on_the_grid_is_the_burden_on_the_mesh(untreated: Forecast, figure: Figure) -> None:
    by_day = dict(untreated.burden_curve.tolist())
    expected = np.array([by_day[day] for day in DAYS])
    on_grid = np.array([u.sum(dtype=float) for u in untreated.density]) * untreated.grid.voxel_volume
    figure("difference", np.abs(on_grid / expected - 1).max(), at_most=1e-6)
    np.testing.assert_array_equal(untreated.burden, expected)


def test_burden_is_kept_without_growth_and_treatment() -> None:
    patient = ball_patient()
    still = GrowthParameters(proliferation="0 1/day")
    forecast = simulate(patient, still, days=(0, 60))
    np.testing.assert_allclose(forecast.burden_curve[:, 1], forecast.burden_curve[0, 1], rtol=1e-12)
    assert forecast.burden[1] == pytest.approx(forecast.burden[0], rel=1e-6)


@pytest.mark.law("therapy", "The fields of an arm of 0 Gy are the untreated ones, bit for bit")
def test_an_arm_of_0_gray_is_the_untreated_arm(simulation: GrowthSimulation, untreated: Forecast) -> None:
    nothing = TherapyPlan.of(radiation(simulation, 0.0), Chemotherapy(((10.0, 0.0),)))
    arm = simulation.run(nothing, DAYS)
    for name in ("density", "log_kill"):
        for ours, theirs in zip(getattr(arm, name), getattr(untreated, name), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(arm.burden_curve, untreated.burden_curve)


def test_more_dose_never_means_more_burden(simulation: GrowthSimulation, untreated: Forecast) -> None:
    arms = [untreated, *(simulation.run(TherapyPlan.of(radiation(simulation, d)), DAYS) for d in (5, 20, 40, 60))]
    burden = np.array([arm.burden for arm in arms])
    assert (np.diff(burden, axis=0) <= 0).all()
    assert (np.diff(burden, axis=0)[:, 1:] < 0).all()


@pytest.mark.law("therapy", "More dose never means more burden, at any step of five arms, to round-off")
def test_arms_with_shared_steps_keep_their_order_to_round_off(simulation: GrowthSimulation, figure: Figure) -> None:
    plans = [TherapyPlan.of(radiation(simulation, dose)) for dose in (0.0, 0.001, 0.01, 1.0, 1.01, 60.0)]
    steps = simulation.shared_steps(plans, DAYS)
    arms = [simulation.run(plan, DAYS, steps=steps) for plan in plans]
    curves = np.array([arm.burden_curve for arm in arms[1:]])
    assert (curves[:, :, 0] == curves[0, :, 0]).all()
    figure("gained", (np.diff(curves[:, :, 1], axis=0) / curves[0, :, 1]).max(), at_most=1e-12)
    assert (np.diff([arm.burden for arm in arms], axis=0)[:, -1] < 0).all()


def test_dose_where_there_is_no_tumour_changes_nothing(simulation: GrowthSimulation) -> None:
    corner = np.zeros(simulation.grid.shape, np.float32)
    corner[:2, :2, :2] = 60.0
    plan = TherapyPlan.of(Fractionation(DoseMap(corner, simulation.grid), fractions=30, first_day=7))
    steps = simulation.shared_steps([plan], DAYS)
    treated, untreated = simulation.run(plan, DAYS, steps=steps), simulation.run(days=DAYS, steps=steps)
    for ours, theirs in zip(treated.density, untreated.density, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_log_kill_on_the_grid_is_that_of_the_plan(simulation: GrowthSimulation) -> None:
    plan = TherapyPlan.of(radiation(simulation, 60.0), Chemotherapy.temozolomide(14))
    arm = simulation.run(plan, (0, 14, 80))
    dose = ball_dose(simulation.grid, 60.0).values.astype(float) / 30
    fractions = 30 * (0.035 * dose + 0.0035 * dose**2)
    assert not arm.log_kill[0].any()
    assert not arm.log_kill[1].any()
    drug = arm.log_kill[2] - fractions
    assert drug.min() == pytest.approx(drug.max(), rel=1e-4)
    assert drug.min() == pytest.approx(42 * 0.15 / 9.2419624, rel=0.02)


def test_simulate_is_prepare_and_run(untreated: Forecast) -> None:
    forecast = simulate(ball_patient(), days=DAYS)
    for ours, theirs in zip(forecast.density, untreated.density, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_flipped_axis_changes_nothing_in_the_world(untreated: Forecast) -> None:
    forecast = simulate(ball_patient(ball_grid(flip=True)), days=DAYS)
    for ours, theirs in zip(forecast.density, untreated.density, strict=True):
        np.testing.assert_allclose(ours[::-1], theirs, atol=1e-5)


def test_figures_and_fields_on_the_mesh(simulation: GrowthSimulation, untreated: Forecast) -> None:
    assert untreated.mesh is not None
    figures, mesh = untreated.figures, untreated.mesh
    assert figures["dofs"] == len(mesh.points) == len(mesh.density[90])
    assert figures["cells"] == len(mesh.cells) == len(mesh.cell_fields["white"])
    assert 0 < figures["cell_size_min_mm"] <= 2.001
    assert figures["steps"] == len(untreated.burden_curve) - 1
    assert {"seconds_mesh", "seconds_assemble", "seconds_solve", "seconds_transfer"} <= set(figures)
    assert set(mesh.density) == set(DAYS)


def test_margin_covers_the_way_of_the_front() -> None:
    growth = GrowthParameters()
    assert margin_mm(growth, 180) > growth.front_speed * 180 - 4 * growth.front_width
    assert margin_mm(growth, 0) < 20
    assert margin_mm(growth, 1e4) <= 60
    assert np.isfinite(margin_mm(GrowthParameters(proliferation="0 1/day"), 180))


def test_cells_shrink_with_the_front_and_with_the_way_it_goes() -> None:
    growth = GrowthParameters()
    assert auto_size(growth, 180) == pytest.approx(1.75 * growth.front_width)
    assert auto_size(growth, 720) == pytest.approx(auto_size(growth, 180) / 2, abs=0.01)
    steep = GrowthParameters(diffusion_white="0.05 mm^2/day", proliferation="0.1 1/day")
    assert auto_size(steep, 180) == 2.0
    assert auto_size(GrowthParameters(proliferation="0 1/day"), 180) == 4.0


def test_input_that_cannot_be_simulated_is_refused(simulation: GrowthSimulation) -> None:
    patient, grid = ball_patient(), ball_grid()
    empty = Scan(np.zeros(grid.shape, np.float32), grid)
    lost = Scan(np.roll(patient.density.values, 12, axis=0), grid)
    for density, message in ((empty, "empty"), (lost, "inside the brain")):
        with pytest.raises(InputError, match=message):
            simulate(SimpleNamespace(**{**vars(patient), "density": density}))
    with pytest.raises(InputError, match="tissue"):
        simulate(SimpleNamespace(**{**vars(patient), "tissue": None}))
    with pytest.raises(InputError, match="day 0"):
        simulation.run(days=(-1, 10))
    with pytest.raises(InputError, match="cell size"):
        simulate(patient, cell_size="2")
    with pytest.raises(InputError, match="cell size"):
        simulate(patient, cell_size="-2 mm")
    with pytest.raises(InputError, match="tolerance"):
        simulation.run(tolerance=0.0)
    elsewhere = ball_dose(ball_grid((20, 20, 20)), 60)
    with pytest.raises(InputError, match="grid"):
        simulation.run(TherapyPlan.of(Fractionation(elsewhere, 30, 14)))
    above = Scan(2 * ball_density(grid, patient.tissue).values, grid)
    with pytest.raises(InputError, match="between 0 and 1"):
        simulate(SimpleNamespace(**{**vars(patient), "density": above}))
    assert UNTREATED.active.courses == ()
