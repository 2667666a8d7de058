"""Damaged cells: what therapy kills stays, is imaged, and is cleared with its half-time; nothing is lost on the way."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ball_brain import ball_dose, ball_patient
from boxes import NO_KILL, box, kill_of, parameters
from figures import Figure
from scipy.integrate import quad, solve_ivp
from test_rundir import same_files

from hybridtumor.errors import ConvergenceError
from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.manifest import Manifest
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.models.damage import clearance_rate, share_left
from hybridtumor.models.growth import surviving
from hybridtumor.models.visibility import label_map
from hybridtumor.parameters import ImagingThresholds, TreatmentResponse
from hybridtumor.patient import Visit
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import LABELS, Scan
from hybridtumor.solvers.cells import Cells
from hybridtumor.solvers.diffusion import Diffusion
from hybridtumor.solvers.growth import Medium, Trajectory, grow
from hybridtumor.solvers.time_grid import StepControl
from hybridtumor.summary import arm_figures
from hybridtumor.therapy import Chemotherapy, Fractionation, TherapyPlan

CONTROL = StepControl(1e-5, longest=10.0)
FOREVER = 1e12
"""days. A half-time so long that nothing is cleared."""

WEEKDAYS = tuple(float(5 + 7 * week + day) for week in range(6) for day in range(5))
ADJUVANT = tuple((75.0 + 28 * cycle + day, 150.0) for cycle in range(2) for day in range(5))


def stupp(points: np.ndarray, log_kill: float = 0.08) -> KillSchedule:
    """Thirty fractions, strongest at one end of the box, and temozolomide daily and in two cycles."""
    field = log_kill * np.exp(-points[:, 0] / 10)
    daily = tuple((float(day), 75.0) for day in range(5, 47))
    return kill_of(WEEKDAYS, (field,) * 30, daily + ADJUVANT, 0.15, 9.2419624)


def drug(clearance: float, peak_rate: float, doses: tuple[tuple[float, float], ...]) -> KillSchedule:
    return kill_of((), (), doses, peak_rate, clearance)


@pytest.fixture(scope="module")
def block() -> tuple[Diffusion, np.ndarray]:
    return box((12, 8, 8), 2.0, 0.13)


@pytest.fixture(scope="module")
def tumour(block: tuple[Diffusion, np.ndarray]) -> np.ndarray:
    return 0.7 * np.exp(-((block[1] - 4) ** 2).sum(1) / 20)


@pytest.mark.law("therapy", "A drug's damaged cells that are left at the end of a step, by quadrature")
@pytest.mark.parametrize(("start", "stop"), [(0.0, 3.0), (1.5, 1.6), (2.0, 40.0), (60.0, 70.0)])
@pytest.mark.parametrize("half_time", [20.0, 0.5, 0.075, 1e-3])
def test_share_left_is_the_integral(start: float, stop: float, half_time: float, figure: Figure) -> None:
    kill = drug(9.2419624 if half_time != 0.5 else np.log(2) / 0.5, 0.15, ((0.0, 75.0), (1.0, 150.0), (59.9, 75.0)))
    rate, clearance = clearance_rate(half_time), kill.drug_terms[0, 2]

    def moment(left: bool) -> float:
        return sum(
            amount * quad(
                lambda s, day=day: np.exp(-clearance * (s - day) - (rate * (stop - s) if left else 0)),
                max(start, day), stop, epsabs=0, epsrel=1e-10, limit=2000,
                points=np.clip([day + 0.2, day + 1, stop - 1 / rate, stop - 1e-2], max(start, day), stop),
            )[0]
            for day, amount, _ in kill.drug_terms if day < stop
        )  # fmt: skip

    assert share_left(kill, start, stop, rate) == pytest.approx(moment(left=True) / moment(left=False), rel=1e-6)
    expected = moment(left=True) / moment(left=False)
    figure("difference", abs(share_left(kill, start, stop, rate) - expected), at_most=1e-6)


def test_share_left_of_nothing_is_all_of_it() -> None:
    assert share_left(NO_KILL, 0, 10, 0.03) == 1
    assert share_left(drug(9.24, 0.15, ((50.0, 75.0),)), 0, 10, 0.03) == 1
    assert share_left(drug(9.24, 0.15, ((0.0, 75.0),)), 500, 510, 0.03) == 1


@pytest.mark.law("therapy", "Living and damaged cells together are kept without growth and clearance")
@pytest.mark.parametrize("law", ["logistic", "gompertz", "exponential"])
def test_living_and_damaged_are_conserved_without_growth_and_clearance(
    block: tuple[Diffusion, np.ndarray], tumour: np.ndarray, law: str, figure: Figure
) -> None:
    end = grow(
        block[0], parameters(0.13, 0.0, law), stupp(block[1]), tumour, (0, 140), CONTROL, clearance_half_time=FOREVER
    )
    total = end.burden_curve[:, 1] + end.damaged_curve[:, 1]
    np.testing.assert_allclose(total, total[0], rtol=1e-10)
    figure("change", np.abs(total / total[0] - 1).max(), at_most=1e-10)
    assert end.burden_curve[-1, 1] < 0.4 * total[0]
    np.testing.assert_array_equal(end.burden_curve[:, 0], end.damaged_curve[:, 0])


@pytest.mark.law("therapy", "Living and damaged cells: initial + growth − clearance, over a whole plan")
def test_mass_balance_over_a_whole_plan(
    block: tuple[Diffusion, np.ndarray], tumour: np.ndarray, figure: Figure
) -> None:
    """∫(u + d) = initial + growth − clearance, both integrated by the trapezium rule over fine reports."""
    diffusion, x = block
    days = tuple(np.arange(0, 80.01, 1 / 16))  # the drug stays for 1/9
    rate, half_time, kill = 0.025, 20.0, stupp(x)
    end = grow(diffusion, parameters(0.13, rate), kill, tumour, days, CONTROL, clearance_half_time=half_time)

    def gain(u: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.array([diffusion.integral(rate * u * (1 - u)), np.log(2) / half_time * diffusion.integral(d)])

    total = np.zeros(2)
    for start, stop in pairwise(days):
        u, d = end.density[start], end.damaged[start]  # the state before an event of that day
        if start in kill.event_days:
            struck = surviving(u, kill.event_log_kill(start))
            u, d = struck, d + u - struck
        total += 0.5 * (stop - start) * (gain(u, d) + gain(end.density[stop], end.damaged[stop]))
    initial = end.burden_curve[0, 1]
    grown, cleared = total
    assert min(grown, cleared) > 0.3 * initial
    balance = initial + grown - cleared
    assert end.burden_curve[-1, 1] + end.damaged_curve[-1, 1] == pytest.approx(balance, abs=2e-4 * initial)
    left = end.burden_curve[-1, 1] + end.damaged_curve[-1, 1]
    figure("missing / initial", abs(left - balance) / initial, at_most=2e-4)


def uniform(law: str, kill: KillSchedule, half_time: float, last: float) -> tuple[float, float]:
    """u and d of a uniform tumour of 0.3 by an ODE solver."""
    rate = clearance_rate(half_time)
    slope = {"logistic": lambda u: u * (1 - u), "gompertz": lambda u: -u * np.log(u), "exponential": lambda u: u}[law]

    def k(t: float) -> float:
        return sum(peak * np.exp(-decay * (t - day)) for day, peak, decay in kill.drug_terms if day <= t)

    def rhs(t: float, y: np.ndarray) -> list[float]:
        return [0.05 * slope(y[0]) - k(t) * y[0], k(t) * y[0] - rate * y[1]]

    y = np.array([0.3, 0.0])
    for start, stop in zip(range(int(last)), range(1, int(last) + 1), strict=True):
        y = solve_ivp(rhs, (start, stop), y, rtol=1e-11, atol=1e-14).y[:, -1]
    return float(y[0]), float(y[1])


@pytest.mark.law("therapy", "Cells damaged by a drug: second order in the step")
@pytest.mark.parametrize("law", ["logistic", "gompertz", "exponential"])
def test_damage_by_a_drug_is_of_second_order_in_the_step(law: str, figure: Figure) -> None:
    """A drug of slow clearance, resolved by the steps; the exact solution by an ODE solver."""
    diffusion, x = box((2, 2, 2), 1.0)
    kill = drug(1.0, 0.3, ((0.0, 75.0), (4.0, 75.0)))
    _, exact = uniform(law, kill, 6.0, 12.0)
    errors = []
    for count in (24, 48, 96, 192):
        end = grow(
            diffusion, parameters(1.0, 0.05, law), kill, np.full(len(x), 0.3), (0, 12.0), CONTROL,
            steps=np.linspace(0, 12, count + 1).tolist(), clearance_half_time=6.0,
        )  # fmt: skip
        errors.append(abs(end.damaged[12.0][0] / exact - 1))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() >= 1.8
    assert errors[-1] < 1e-5
    figure("order", orders, at_least=1.8)
    figure("error", errors[-1], at_most=1e-5)


@pytest.mark.parametrize("law", ["logistic", "gompertz"])
def test_long_steps_do_not_misplace_a_short_drug(law: str) -> None:
    """Temozolomide is gone within hours, a step may last days: the damage stays within half a per cent."""
    diffusion, x = box((2, 2, 2), 1.0)
    kill = drug(9.2419624, 0.15, tuple((float(day), 75.0) for day in range(30)))
    _, exact = uniform(law, kill, 20.0, 40.0)
    for steps in (None, [0.0, 10.0, 20.0, 30.0, 40.0]):
        end = grow(
            diffusion, parameters(1.0, 0.05, law), kill, np.full(len(x), 0.3), (0, 40.0),
            StepControl(1e-4, longest=10.0), steps=steps, clearance_half_time=20.0,
        )  # fmt: skip
        assert end.damaged[40.0][0] == pytest.approx(exact, rel=5e-3)


@pytest.mark.law("therapy", "Cells damaged by fractions are the closed form, wherever steps fall")
@pytest.mark.parametrize("reports", [(50.0,), (7.3, 21.0, 50.0), tuple(float(d) for d in range(51))])
def test_damage_by_fractions_is_exact_wherever_steps_fall(
    block: tuple[Diffusion, np.ndarray], tumour: np.ndarray, reports: tuple[float, ...], figure: Figure
) -> None:
    kill = kill_of(WEEKDAYS, (np.array(0.05),) * 30, (), 0.0, 1.0)
    end = grow(block[0], parameters(0.13, 0.0), kill, tumour, reports, CONTROL, clearance_half_time=20.0)
    days = np.array(WEEKDAYS)
    left = np.sum(np.exp(-0.05 * np.arange(30)) * -np.expm1(-0.05) * 0.5 ** ((50 - days) / 20))
    assert end.damaged_curve[-1, 1] == pytest.approx(end.burden_curve[0, 1] * left, rel=1e-12)
    figure("error", abs(end.damaged_curve[-1, 1] / (end.burden_curve[0, 1] * left) - 1), at_most=1e-12)


def test_what_is_imaged_shrinks_over_weeks_not_at_once(block: tuple[Diffusion, np.ndarray], tumour: np.ndarray) -> None:
    """One fraction kills half of the cells on day 10; a half of those is left 15 days later, a quarter after 30."""
    kill = kill_of((10.0,), (np.log(2) * np.ones(len(tumour)),), (), 0.0, 1.0)
    end = grow(block[0], parameters(0.13, 0.0), kill, tumour, (0, 10, 25, 40), CONTROL, clearance_half_time=15.0)
    imaged = end.burden_curve[:, 1] + end.damaged_curve[:, 1]
    start = imaged[0]
    at_10 = end.burden_curve[:, 0] == 10
    np.testing.assert_allclose(imaged[at_10], start, rtol=1e-12)
    np.testing.assert_allclose(end.burden_curve[at_10, 1], [start, start / 2], rtol=1e-12)
    by_day = dict(zip(end.burden_curve[:, 0], imaged, strict=True))
    assert by_day[25] == pytest.approx(start * (0.5 + 0.25), rel=1e-12)
    assert by_day[40] == pytest.approx(start * (0.5 + 0.125), rel=1e-12)
    assert not end.damaged[10].any()  # the state of a report day is the one before its fraction


def same_living(one: Trajectory, other: Trajectory) -> bool:
    days = one.days == other.days and one.density.keys() == other.density.keys()
    curves = np.array_equal(one.burden_curve, other.burden_curve)
    return days and curves and all(np.array_equal(u, other.density[day]) for day, u in one.density.items())


@pytest.mark.law("therapy", "Living cells do not feel the damaged ones, bit for bit")
@pytest.mark.parametrize("law", ["logistic", "gompertz"])
def test_living_cells_do_not_feel_the_damaged(
    block: tuple[Diffusion, np.ndarray], tumour: np.ndarray, law: str
) -> None:
    diffusion, x = block
    growth, kill, days = parameters(0.13, 0.05, law), stupp(x), (0, 30, 90)
    at_once = grow(diffusion, growth, kill, tumour, days, CONTROL)
    slowly = grow(diffusion, growth, kill, tumour, days, CONTROL, clearance_half_time=20.0)
    again = grow(diffusion, growth, kill, tumour, days, CONTROL, steps=at_once.days, clearance_half_time=20.0)
    assert at_once.damaged is None
    assert at_once.damaged_curve is None
    assert same_living(at_once, slowly)
    assert same_living(at_once, again)
    for day in days:
        np.testing.assert_array_equal(again.damaged[day], slowly.damaged[day])
        assert slowly.damaged[day].min() >= 0
    assert (slowly.density[90] + slowly.damaged[90]).max() <= 1


def test_without_treatment_there_are_no_damaged_cells(block: tuple[Diffusion, np.ndarray], tumour: np.ndarray) -> None:
    end = grow(block[0], parameters(0.13, 0.05), NO_KILL, tumour, (0, 30), CONTROL, clearance_half_time=20.0)
    assert end.damaged is None
    assert end.damaged_curve is None


class Still:
    """A coupling that sets a medium on day 0 and never changes it."""

    highest = 1.0

    def __init__(self, diffusion: Diffusion, rate: np.ndarray) -> None:
        self.now = Medium(diffusion, rate)

    def days(self, last: float) -> tuple[float, ...]:
        del last
        return (0.0,)

    def medium(self, cells: Cells, day: float) -> Medium:
        del cells, day
        return self.now


def test_a_rate_per_node_that_is_the_same_everywhere_is_that_rate(
    block: tuple[Diffusion, np.ndarray], tumour: np.ndarray
) -> None:
    diffusion, x = block
    days, kill = (0, 60), stupp(x)
    one = grow(diffusion, parameters(0.13, 0.04), kill, tumour, days, CONTROL, clearance_half_time=20.0)
    rate = np.full(len(tumour), 0.04)
    other = grow(
        diffusion,
        parameters(0.13, 0.9),
        kill,
        tumour,
        days,
        CONTROL,
        clearance_half_time=20.0,
        coupling=Still(diffusion, rate),
    )
    np.testing.assert_allclose(other.density[60], one.density[60], rtol=1e-12)
    np.testing.assert_allclose(other.damaged[60], one.damaged[60], rtol=1e-12)
    rate[x[:, 0] > 6] = 0.0
    half = grow(diffusion, parameters(0.13, 0.9), kill, tumour, days, CONTROL, coupling=Still(diffusion, rate))
    assert (half.density[60] <= one.density[60] * (1 + 1e-9)).all()
    assert half.burden_curve[-1, 1] < 0.99 * one.burden_curve[-1, 1]


def test_exponential_growth_stops_at_the_carrying_capacity(block: tuple[Diffusion, np.ndarray]) -> None:
    """0.1 e^{0.05 t} reaches 1 on day 46; until then it is the closed form."""
    diffusion, x = block
    growth, initial = parameters(0.13, 0.05, "exponential"), np.full(len(x), 0.1)
    end = grow(diffusion, growth, NO_KILL, initial, (0, 40), CONTROL)
    np.testing.assert_allclose(end.density[40], 0.1 * np.exp(2), rtol=1e-11)
    with pytest.raises(ConvergenceError, match=r"from day 46.*logistic or gompertz.*above the carrying capacity"):
        grow(diffusion, growth, NO_KILL, initial, (0, 90), CONTROL)
    with pytest.raises(ConvergenceError, match=r"logistic or gompertz"):
        grow(diffusion, growth, NO_KILL, initial, (0, 90), CONTROL, steps=(0.0, 45.0, 90.0))


# --- on the grid, in the files, in the figures


@pytest.fixture(scope="module")
def simulation() -> GrowthSimulation:
    patient = ball_patient()
    return GrowthSimulation.prepare(patient.tissue, patient.density, horizon=90, cell_size="4 mm")


@pytest.fixture(scope="module")
def plan(simulation: GrowthSimulation) -> TherapyPlan:
    return TherapyPlan.of(Fractionation(ball_dose(simulation.grid, 60.0), 30, 5), Chemotherapy.temozolomide(5))


@pytest.fixture(scope="module")
def treated(simulation: GrowthSimulation, plan: TherapyPlan) -> Forecast:
    return simulation.run(plan, (0, 30, 60))


def figures(forecast: Forecast, plan: TherapyPlan) -> dict:
    patient = ball_patient()
    patient.baseline = Visit(0, {}, None)
    return arm_figures(patient, forecast, plan, TreatmentResponse())


def test_damaged_cells_come_to_the_grid(treated: Forecast) -> None:
    by_day = dict(treated.damaged_curve.tolist())
    for day, damaged in zip(treated.days, treated.damaged, strict=True):
        on_grid = float(damaged.sum(dtype=float)) * treated.grid.voxel_volume
        assert damaged.min() >= 0
        if day != 30:  # a fraction falls on day 30: the curve ends after it, the report is before it
            assert on_grid == pytest.approx(by_day[day], rel=1e-5, abs=1e-9)
    assert not treated.damaged[0].any()
    assert treated.imaged_burden[1] > 1.2 * treated.burden[1]
    np.testing.assert_allclose(treated.imaged_curve[:, 1], treated.burden_curve[:, 1] + treated.damaged_curve[:, 1])


def test_labels_and_progression_follow_what_is_imaged(treated: Forecast, plan: TherapyPlan) -> None:
    found, thresholds = figures(treated, plan), ImagingThresholds()
    assert found["burden_mm3"] == pytest.approx(treated.burden, rel=1e-6)
    assert found["imaged_burden_mm3"] == pytest.approx(treated.imaged_burden, rel=1e-6)
    for i, day in enumerate(treated.days):
        seen = np.count_nonzero(label_map(treated.visible(day), thresholds)) * treated.grid.voxel_volume
        living = np.count_nonzero(label_map(treated.at(day)[0], thresholds)) * treated.grid.voxel_volume
        assert sum(found["volume_mm3"][label][i] for label in LABELS) == pytest.approx(seen)
        assert (living < seen) == (day > 0)


def test_damaged_cells_are_saved_and_come_back(treated: Forecast, plan: TherapyPlan, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, Manifest("x"))
    folder.save_forecast("arm", treated, plan, figures(treated, plan))
    assert len(list(folder.arm_path("arm").glob("damaged_day*.nii.gz"))) == 3
    back = folder.load_forecast("arm", treated.grid)
    for day in treated.days:
        np.testing.assert_array_equal(back.visible(day), treated.visible(day))
    np.testing.assert_allclose(back.imaged_curve, treated.imaged_curve, atol=1e-3)
    assert Scan.load(folder.field_path("arm", "damaged", 60)).values.max() > 0


@pytest.mark.law("therapy", "Damaged cells that are cleared at once leave no trace, bit for bit")
def test_cleared_at_once_or_not_treated_leaves_no_trace(
    simulation: GrowthSimulation, plan: TherapyPlan, treated: Forecast, tmp_path: Path
) -> None:
    at_once = simulation.run(plan, treated.days, TreatmentResponse(clearance_half_time="0 day"))
    for ours, theirs in zip(at_once.density, treated.density, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert at_once.damaged is None
    assert at_once.imaged_burden == at_once.burden
    nothing = TherapyPlan.of(Fractionation(ball_dose(simulation.grid, 0.0), 30, 5, prescription=0.0))
    folder = RunFolder(tmp_path, Manifest("x"))
    for name, given in (("untreated", TherapyPlan()), ("nothing", nothing)):
        forecast = simulation.run(given, treated.days)
        assert forecast.damaged is None
        folder.save_forecast(name, forecast, given, figures(forecast, given))
    assert same_files(folder.arm_path("untreated"), folder.arm_path("nothing"))
    assert not list(tmp_path.rglob("damaged*"))
