"""From scans to a patient's own parameters: gradients of the whole misfit, one scan, several visits, the folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ball_brain import TUMOUR, ball_density, ball_dose, ball_grid, ball_tissue, distance
from figures import Figure

from hybridtumor.calibrate import calibrate, save_fit
from hybridtumor.calibration.fit import FitOptions
from hybridtumor.calibration.problem import Problem
from hybridtumor.calibration.single_scan import seed_problem
from hybridtumor.calibration.start import SEED_NAMES
from hybridtumor.calibration.unknowns import Priors
from hybridtumor.calibration_file import Calibration
from hybridtumor.cli import main
from hybridtumor.errors import InputError
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import LabelMap, Scan
from hybridtumor.therapy import Chemotherapy, Fractionation, TherapyPlan

GRID = ball_grid((40, 40, 36), 1.5)
CODES = {"necrosis": 1, "edema": 2, "enhancing": 4}
TRUTH = GrowthParameters(diffusion_white="0.2 mm^2/day", diffusion_grey="0.02 mm^2/day", proliferation="0.035 1/day")
DAYS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
COARSE = FitOptions(cell_size="4 mm", tolerance=0.1)


def plan() -> TherapyPlan:
    return TherapyPlan.of(Fractionation(ball_dose(GRID, 30), 15, 25), Chemotherapy.temozolomide(45))


def drawn(density: np.ndarray) -> LabelMap:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[density > 0.2] = CODES["edema"]
    labels[density > 0.6] = CODES["enhancing"]
    return LabelMap(labels, GRID, CODES)


@pytest.fixture(scope="module")
def patient() -> Patient:
    """A twin with five segmented visits after day 0, made by other cells and adaptive steps."""
    tissue = ball_tissue(GRID)
    density = ball_density(GRID, tissue, 5.0)
    response = TreatmentResponse().model_copy(update={"alpha": 0.05})
    truth = GrowthSimulation.prepare(tissue, density, TRUTH, DAYS[-1], cell_size="3 mm").run(plan(), DAYS, response)
    scan = Scan((100 * tissue.white + 70 * tissue.grey + 30 * tissue.csf).astype(np.float32), GRID)
    visits = [Visit(0.0, {"T1w": scan, "FLAIR": scan}, drawn(density.values))]
    visits += [Visit(day, {}, drawn(truth.visible(day))) for day in DAYS[1:]]
    return Patient("twin", tuple(visits), tissue, density)


@pytest.mark.law("calibration", "The gradient of a seed's misfit is that of differences: place, age, D, ρ, thresholds")
def test_gradient_of_a_seed(patient: Patient, figure: Figure) -> None:
    problem = seed_problem(patient, patient.visits[1].labels or drawn(np.zeros(GRID.shape)), GrowthParameters())
    assert {*SEED_NAMES, "age", "diffusion_white"} <= set(problem.priors.names)
    x = np.linspace(-0.3, 0.2, len(problem.priors))
    _check_gradient(problem, x, figure)


@pytest.mark.law("calibration", "The gradient over treated visits is that of differences, D in grey matter included")
def test_gradient_over_visits(patient: Patient, figure: Figure) -> None:
    from hybridtumor.calibration.visits import terms_of
    from hybridtumor.growth_gradient import GrowthGradient

    assert patient.tissue is not None
    assert patient.density is not None
    simulation = GrowthSimulation.prepare(patient.tissue, patient.density, horizon=100, cell_size="4 mm")
    terms = tuple(terms_of(patient, patient.visits[1:3]))
    own = dict.fromkeys(name for term in terms for name in term.own)
    priors = Priors.of("diffusion_white", "grey_ratio", "proliferation", "alpha", "temozolomide", *own)
    problem = Problem(GrowthGradient(simulation, plan(), (0, 20, 40)), terms, priors)
    _check_gradient(problem, np.linspace(-0.3, 0.4, len(priors)), figure)


def _check_gradient(problem: Problem, x: np.ndarray, figure: Figure) -> None:
    _, gradient = problem.objective(x)
    h = 1e-4
    for number in range(len(x)):
        step = h * np.eye(len(x))[number]
        difference = (problem.objective(x + step)[0] - problem.objective(x - step)[0]) / (2 * h)
        figure(
            problem.priors.names[number],
            abs(gradient[number] - difference) / max(1.0, abs(difference)),
            at_most=2e-5,
        )


def test_visits_give_back_the_truth_and_predict_what_is_held_out(patient: Patient, tmp_path: Path) -> None:
    fit = calibrate(patient, plan(), options=COARSE, hold_out=1)
    assert fit.estimate.converged
    intervals = fit.posterior.intervals(0.95)
    truth = {"diffusion_white": 0.2, "proliferation": 0.035, "alpha": 0.05}
    for name, value in truth.items():
        assert intervals[name].low < value < intervals[name].high
    last = fit.visits[-1]
    assert last.held_out
    assert last.day == 100.0
    assert last.dice_whole is not None
    assert last.dice_whole > 0.7  # a small tumour: 100 voxels
    assert min(v.dice_whole or 0 for v in fit.visits[:3]) > 0.85
    report = save_fit(fit, patient, tmp_path / "out")
    text = report.read_text()
    assert "Research use only" in text
    assert "held out" in text
    saved = Calibration.load(tmp_path / "out")
    assert saved.growth().diffusion_white == pytest.approx(fit.estimate.values["diffusion_white"])
    assert len(saved.draw(3)) == 3
    assert {p.name for p in saved.parameters} >= {*truth, "temozolomide", "threshold_edema"}
    for name in ("fit", "corner", "profiles"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="new or empty"):
        save_fit(fit, patient, tmp_path / "out")


@pytest.mark.law(
    "calibration", "One scan: the fitted density shows as the segmentation; that its age is unknown is said"
)
def test_one_scan(patient: Patient, figure: Figure) -> None:
    odd = (distance(GRID, TUMOUR) < 8) | (distance(GRID, TUMOUR + np.array([-3.0, 9.0, 2.0])) < 6)
    core = distance(GRID, TUMOUR) < 5.5
    labels = np.where(core, CODES["enhancing"], np.where(odd, CODES["edema"], 0)).astype(np.uint8)
    single = replace(patient, visits=(replace(patient.visits[0], labels=LabelMap(labels, GRID, CODES)),))
    fit = calibrate(single, options=FitOptions(cell_size="3 mm", tolerance=0.5, most_evaluations=25))
    figure("Dice of the whole tumour", fit.visits[0].dice_whole or 0, at_least=0.88)
    figure("Dice of the core", fit.visits[0].dice_core or 0, at_least=0.7)
    assert (fit.visits[0].dice_whole or 0) > (fit.visits[1].dice_whole or 0)
    assert fit.density is not None
    assert fit.density.values.min() >= 0
    assert fit.density.values.max() <= 1
    assert any("age" in sentence and "priors" in sentence for sentence in fit.sentences)


def test_adc_maps_are_explained_too(patient: Patient, tmp_path: Path) -> None:
    """ADC falls with the cells; noise of 0.05 in cellularity, and one visit has no segmentation of its own."""
    assert patient.density is not None
    assert patient.tissue is not None
    truth = GrowthSimulation.prepare(patient.tissue, patient.density, TRUTH, 40, cell_size="3 mm").run(days=(0, 20, 40))
    rng = np.random.default_rng(0)

    def adc(day: float) -> Scan:
        cells = truth.visible(day) + rng.normal(0, 0.05, GRID.shape)
        return Scan((3.0e-3 - 2.2e-3 * cells).astype(np.float32), GRID)

    visits = (
        patient.visits[0],
        Visit(20.0, {"ADC": adc(20)}, drawn(truth.visible(20))),
        Visit(40.0, {"ADC": adc(40)}),
    )
    fit = calibrate(replace(patient, visits=visits), options=FitOptions(cell_size="3 mm", adc_minimum=0.8e-3))
    assert [(v.day, v.kind) for v in fit.visits] == [(20.0, "segmentation"), (20.0, "ADC"), (40.0, "ADC")]
    interval = fit.posterior.intervals(0.99)["proliferation"]
    assert interval.low < TRUTH.proliferation < interval.high
    assert "ADC" in save_fit(fit, patient, tmp_path / "out").read_text()
    guessed = calibrate(replace(patient, visits=visits), options=COARSE)
    assert any("densest tumour" in sentence for sentence in guessed.sentences)


def test_draws_of_the_posterior_are_told_beside_the_normal_one(patient: Patient) -> None:
    few = replace(patient, visits=patient.visits[:3])
    how = FitOptions(cell_size="6 mm", sample_steps=12)
    fit = calibrate(few, options=how, unknowns=("diffusion_white", "proliferation"))
    told = [sentence for sentence in fit.sentences if sentence.startswith("By sampling")]
    assert len(told) == 1
    assert "proliferation" in told[0]
    assert any("draw longer" in sentence for sentence in fit.sentences)


def test_what_cannot_be_calibrated_is_said(patient: Patient) -> None:
    single = replace(patient, visits=patient.visits[:1])
    with pytest.raises(InputError, match="single scan"):
        calibrate(single, plan())
    with pytest.raises(InputError, match="six unknowns"):
        calibrate(single, options=replace(COARSE, sample_steps=10))
    with pytest.raises(InputError, match="hold out fewer"):
        calibrate(patient, plan(), hold_out=5)
    with pytest.raises(InputError, match="expected names among"):
        calibrate(patient, plan(), options=COARSE, unknowns=("seed_x", "diffusion_white"))


def test_command(patient: Patient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = replace(patient, visits=patient.visits[:3])
    few.save(tmp_path / "patient")
    assert main(["calibrate", str(tmp_path / "patient"), "--out", str(tmp_path / "fit"), "--cell-size", "5 mm"]) == 0
    printed = capsys.readouterr().out
    assert "proliferation" in printed
    assert (tmp_path / "fit" / "report.html").exists()
    assert main(["calibrate", str(tmp_path / "patient"), "--out", str(tmp_path / "fit")]) == 2
