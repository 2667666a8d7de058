"""Laws of the optimised dose: it keeps its limits, its slope is exact, it is no worse, and its neighbours are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_run
import yaml
from ball_brain import TUMOUR, ball_density, ball_dose, ball_grid, ball_tissue, distance
from figures import Figure
from scipy import optimize, sparse
from small_calibration import small_calibration

from hybridtumor import cli
from hybridtumor.dose_biology import biology_draws
from hybridtumor.dose_control import DoseControl, steepness
from hybridtumor.dose_limits import DoseLimits, LimitedDose
from hybridtumor.dose_objective import ExpectedBurden
from hybridtumor.dose_optimisation import OptimisedDose, optimise, perturbed
from hybridtumor.dose_options import DoseOptions
from hybridtumor.errors import InputError
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.plan_builder import PlanBuilder
from hybridtumor.solvers.cone_program import Constraints, minimise
from hybridtumor.therapy import DoseMap, Fractionation, TherapyPlan
from hybridtumor.treatments import Treatment
from hybridtumor.validation import validated

Array = np.ndarray
GROWTH = GrowthParameters(diffusion_white="0.2 mm^2/day", diffusion_grey="0.04 mm^2/day", proliferation="0.05 1/day")
HORIZON = 50.0


def uniform_plan(dose: float = 50) -> TherapyPlan:
    return TherapyPlan((Fractionation(ball_dose(ball_grid(), dose), 20, 5),))


def limited(plan: TherapyPlan, **changes: object) -> LimitedDose:
    """A control of nodes 6 mm apart around a target of 9 mm."""
    grid = ball_grid()
    dose, head = plan.total_dose(grid).astype(np.float64), ball_tissue(grid).head
    control = DoseControl.around((distance(grid, TUMOUR) < 16) & head, dose, grid, 6.0)
    limits = {"maximum": 60.0, "minimum": 40.0, "steepest": float(steepness(dose, grid).max())} | changes
    return LimitedDose(control, plan, DoseLimits(**limits), distance(grid, TUMOUR) < 9, ball_tissue(grid).parenchyma)


@pytest.fixture(scope="module")
def simulation() -> GrowthSimulation:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    return GrowthSimulation.prepare(tissue, ball_density(grid, tissue), GROWTH, horizon=HORIZON, cell_size="4 mm")


@pytest.fixture(scope="module")
def objective(simulation: GrowthSimulation) -> ExpectedBurden:
    """Two draws: the second grows faster and is less sensitive."""
    fast = GROWTH.model_copy(update={"proliferation": 0.06})
    hard = TreatmentResponse().model_copy(update={"alpha": 0.025})
    return ExpectedBurden.of(simulation, uniform_plan(), HORIZON, [(GROWTH, TreatmentResponse()), (fast, hard)])


@pytest.fixture(scope="module", params=["physical", "eqd2"])
def found(objective: ExpectedBurden, request: pytest.FixtureRequest) -> tuple[LimitedDose, OptimisedDose]:
    dose = limited(uniform_plan(), quantity=request.param)
    return dose, optimise(objective, dose, iterations=4)


@pytest.mark.law("therapy", "The optimised dose keeps every limit in every voxel, and no step makes it worse")
def test_limits_hold_and_burden_falls(found: tuple[LimitedDose, OptimisedDose], figure: Figure) -> None:
    dose, best = found
    attained, integral = dose.attained(best.plan), dose.spent(dose.control.dose)
    figure("integral over that of the uniform plan", attained["integral_Gy_ml"] / integral, at_most=1 + 1e-6)
    figure("largest dose", attained["maximum_Gy"], "Gy", at_most=60 * (1 + 1e-6))
    figure("smallest dose in the target", attained["target_minimum_Gy"], "Gy", at_least=40 * (1 - 1e-6))
    figure("steepest over the limit", attained["steepest_Gy_per_mm"] / dose.limits.steepest, at_most=1 + 1e-6)
    assert dose.kept(attained, integral)
    assert all(after <= before for before, after in zip(best.history, best.history[1:], strict=False))
    figure("gain", 1 - best.optimised.mean / best.uniform.mean, at_least=0.005)
    (course,) = best.plan.courses
    assert course.fraction_days == dose.plan.courses[0].fraction_days
    assert course.dose.values.min() >= 0


@pytest.mark.law("therapy", "Random changes of the optimised dose within its limits do not lower the expected burden")
def test_neighbours_are_worse(
    objective: ExpectedBurden, found: tuple[LimitedDose, OptimisedDose], figure: Figure
) -> None:
    around = perturbed(objective, *found, count=4, seed=3)
    assert around.tried == 4
    figure("change of a neighbour", around.best, at_least=0.0)
    figure("rms of the changes", around.rms, "Gy", at_least=0.1)


def test_a_change_that_cannot_be_made_feasible_costs_nothing(
    objective: ExpectedBurden, found: tuple[LimitedDose, OptimisedDose], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hybridtumor import dose_optimisation

    def refuse(*_: object) -> None:
        raise InputError("limits: expected a dose that keeps all of them, found none.")

    monkeypatch.setattr(dose_optimisation._Steps, "nearest", refuse)
    assert perturbed(objective, *found, count=2).tried == 0


def test_dose_leaves_where_no_tumour_is(simulation: GrowthSimulation, found: tuple[LimitedDose, OptimisedDose]) -> None:
    dose, best = found
    change = best.plan.total_dose(simulation.grid) - dose.plan.total_dose(simulation.grid)
    tumour = simulation.density > 0.5
    rim = (dose.control.change(np.ones(dose.control.size)) > 0.5) & ~dose.target[dose.control.box]
    assert change[tumour].mean() > 1
    assert change[dose.control.box][rim].mean() < -0.1


@pytest.mark.law("therapy", "Where one more Gray helps most: the slope of a voxel is that of finite differences")
@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (6.0, 2.0, -2.0)])
def test_slope_of_a_voxel(objective: ExpectedBurden, shift: tuple[float, float, float], figure: Figure) -> None:
    grid, plan = ball_grid(), uniform_plan()
    box = limited(plan).control.box
    slope = objective.slopes(plan, box).slope
    voxel = np.unravel_index(distance(grid, TUMOUR + np.array(shift)).argmin(), grid.shape)
    (course,) = plan.courses

    def burden(step: float) -> float:
        values = course.dose.values.astype(np.float64)
        values[voxel] += step
        moved = replace(course, dose=DoseMap(values.astype(np.float32), grid))
        return float(objective.burdens(TherapyPlan((moved,))).mean())

    by_hand = (burden(1.0) - burden(-1.0)) / 2
    assert slope[voxel] < 0
    figure("relative difference", abs(slope[voxel] / by_hand - 1), at_most=1e-3)


def test_the_control_and_its_transpose() -> None:
    rng = np.random.default_rng(0)
    control = limited(uniform_plan()).control
    nodes, field = rng.standard_normal(control.size), rng.standard_normal(control.box_shape)
    assert float((control.change(nodes) * field).sum()) == pytest.approx(float(nodes @ control.gathered(field)))
    places = control.samples
    np.testing.assert_allclose(control.hats_at(places) @ nodes, control.change(nodes)[tuple(places.T)], atol=1e-12)
    low, high = control.bounds(-0.5 * control.dose[control.box], np.full(control.box_shape, 3.0))
    for edge, holds in ((low, np.greater_equal), (high, np.less_equal)):
        bound = -0.5 * control.dose[control.box] if edge is low else 3.0
        assert holds(control.change(edge) - bound, -1e-12 if edge is low else 1e-12).all()


def test_courses_share_the_change_as_they_share_the_dose() -> None:
    grid = ball_grid()
    first = Fractionation(ball_dose(grid, 40), 20, 5)
    boost = Fractionation(ball_dose(grid, 10), 5, 33)
    plan = TherapyPlan((first, boost))
    control = limited(plan).control
    nodes = np.full(control.size, 2.0)
    moved = control.plan(plan, nodes)
    change = moved.total_dose(grid).astype(np.float64) - control.dose
    np.testing.assert_allclose(change[control.box], control.change(nodes), atol=1e-4)
    where = control.dose > 1
    np.testing.assert_allclose(moved.courses[0].dose.values[where], 4 * moved.courses[1].dose.values[where], rtol=1e-5)
    same = control.plan(plan, np.zeros(control.size))
    np.testing.assert_array_equal(same.courses[0].dose.values, first.dose.values)


@pytest.mark.law("therapy", "Steps solve their quadratic programme: box, half-space and balls, against SLSQP")
def test_the_program_is_solved(figure: Figure) -> None:
    rng = np.random.default_rng(1)
    n, points = 8, 5
    root = rng.standard_normal((n, n))
    hessian, slope = root @ root.T + 0.1 * np.eye(n), 4 * rng.standard_normal(n)
    rows, offset = rng.standard_normal((3 * points, n)), 0.1 * rng.standard_normal((3, points))
    weight = rng.random(n)
    limits = Constraints(-np.ones(n), np.ones(n), weight, 0.2, sparse.csr_array(rows), offset, 1.2)
    ours = minimise(
        sparse.csr_array(hessian), slope, limits, np.zeros(n), tolerance=1e-7, dual_tolerance=1e-7, most=20000
    )
    assert ours.converged

    def steep(x: Array) -> Array:
        return 1.2**2 - ((offset + (rows @ x).reshape(3, -1)) ** 2).sum(axis=0)

    theirs = optimize.minimize(
        lambda x: 0.5 * x @ hessian @ x + slope @ x, np.zeros(n), jac=lambda x: hessian @ x + slope, method="SLSQP",
        bounds=[(-1, 1)] * n, options={"ftol": 1e-14, "maxiter": 500},
        constraints=[{"type": "ineq", "fun": lambda x: 0.2 - weight @ x}, {"type": "ineq", "fun": steep}],
    )  # fmt: skip
    figure("difference", np.abs(ours.x - theirs.x).max(), at_most=1e-4)
    figure("violation", limits.violation(ours.x), at_most=1e-5)


def test_what_cannot_be_optimised_is_said(simulation: GrowthSimulation) -> None:
    plan, blind = uniform_plan(), TreatmentResponse().model_copy(update={"alpha": 0.0})
    with pytest.raises(InputError, match="radiosensitivity"):
        ExpectedBurden.of(simulation, plan, HORIZON, [(GROWTH, blind)])
    with pytest.raises(InputError, match="before the horizon"):
        ExpectedBurden.of(simulation, plan, 4.0, [(GROWTH, TreatmentResponse())])
    with pytest.raises(InputError, match="room for the smallest dose"):
        limited(uniform_plan(5), minimum=59.0)
    with pytest.raises(InputError, match="≤ largest dose"):
        limited(plan, minimum=70.0)
    with pytest.raises(InputError, match="fall-off"):
        limited(plan, steepest=0.0)


def test_limits_in_words() -> None:
    limits = DoseOptions("66 Gy", "95 %", "3 Gy/mm").limits(60.0, 61.0, 50.0, 5.0)
    assert (limits.maximum, limits.minimum, limits.steepest) == (66.0, 57.0, 3.0)
    usual = DoseOptions().limits(60.0, 75.0, 50.0, 5.0)
    assert (usual.maximum, usual.minimum, usual.steepest) == (75.0, 50.0, 5.0)
    with pytest.raises(InputError, match="largest dose"):
        DoseOptions("seventy").limits(60.0, 61.0, 50.0, 5.0)


def test_draws_of_the_prior_keep_the_width_of_the_front() -> None:
    growth, response = GrowthParameters(), TreatmentResponse()
    drawn = biology_draws(growth, response, None, 8, seed=1)
    assert drawn.source == "prior"
    widths = [float(g.diffusion_white) / float(g.proliferation) for g, _ in drawn.biology]
    np.testing.assert_allclose(widths, float(growth.diffusion_white) / float(growth.proliferation))
    assert len({float(r.alpha) for _, r in drawn.biology}) == 8
    assert biology_draws(growth, response, None, 0).biology == ((growth, response),)
    calibrated = biology_draws(growth, response, small_calibration(), 3, seed=2)
    assert (calibrated.source, len(calibrated.biology)) == ("posterior", 3)
    with pytest.raises(InputError, match="draws"):
        biology_draws(growth, response, None, -1)


# --- the command

PLAN = [
    {"radiation": {"prescription": "50 Gy", "fractions": 20, "first_day": 5, "target": "gtv"}},
    {"chemotherapy": {"drug": "temozolomide", "first_day": 5}},
]


def run_command(folder: Path, *options: str) -> int:
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    arguments = ["optimize-dose", str(folder / "patient"), "--plan", str(folder / "plan.yaml"), "--days", "40"]
    return cli.main([*arguments, "--out", str(folder / "out"), "--reach", "10", *options])


def test_the_command_writes_a_plan_that_can_be_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patient = small_run.small_patient()
    patient.save(tmp_path / "patient")
    quick = ("--draws", "1", "--iterations", "1", "--perturbations", "1", "--cell-size", "5 mm", "--spacing", "6")
    assert run_command(tmp_path, *quick) == 0
    out, told = tmp_path / "out", capsys.readouterr().out
    assert "not for treatment" in told
    names = {"optimization.json", "plan.yaml", "dose.nii.gz", "gradient.nii.gz", "dvh.csv", "dvh.png", "dose.png"}
    assert names <= {path.name for path in out.iterdir()}
    figures = json.loads((out / "optimization.json").read_text())
    assert "not for treatment" in figures["research_only"]
    assert figures["limits"]["all_kept"]
    assert figures["gain"]["gain_expected"] >= 0
    assert figures["perturbations"]["tried"] == 1
    assert "gain_on_default_mesh" in figures
    assert "not for treatment" in (out / "dvh.csv").read_text().splitlines()[0]
    entries = yaml.safe_load((out / "plan.yaml").read_text())
    treatments = [validated(Treatment, entry, "plan").within(out) for entry in entries]
    plan = PlanBuilder(Patient.load(tmp_path / "patient")).plan(treatments)
    assert plan.courses[0].dose.values.max() == pytest.approx(figures["limits"]["maximum_Gy"]["optimised"], rel=1e-5)
    assert plan.drugs
    assert run_command(tmp_path, *quick) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_bad_limits_end_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run.small_patient().save(tmp_path / "patient")
    assert run_command(tmp_path, "--min-target-dose", "130 %", "--max-dose", "110 %") == 2
    assert "largest dose" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
