"""Laws of the adjoint: it is the adjoint of the very run that `grow` takes, with RT, TMZ and surgery on the way."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from ball_brain import TUMOUR, ball_density, ball_dose, ball_grid, ball_tissue, distance
from figures import Figure

from hybridtumor.errors import InputError
from hybridtumor.growth_gradient import GrowthGradient
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models.oxygen import LocalResponse
from hybridtumor.parameters import GrowthParameters, MechanicalParameters, TreatmentResponse
from hybridtumor.solvers.adjoint import Adjoint
from hybridtumor.solvers.cells import Cells
from hybridtumor.solvers.exponential_slope import gauss_nodes
from hybridtumor.solvers.limited import assemble_limited
from hybridtumor.therapy import Chemotherapy, DoseMap, Fractionation, Resection, TherapyPlan

Array = np.ndarray
DAYS = (0.0, 30.0, 75.0, 90.0)
GROWTH = GrowthParameters(diffusion_white="0.2 mm^2/day", diffusion_grey="0.04 mm^2/day", proliferation="0.05 1/day")


def full_plan(delivery: float = 0.0) -> TherapyPlan:
    """Surgery, then radiation with temozolomide, in one horizon."""
    grid = ball_grid()
    cavity = distance(grid, TUMOUR - (4, 0, 0)) < 4
    return TherapyPlan.of(
        Resection(cavity, grid, 10.0, 0.05),
        Fractionation(ball_dose(grid, 50), 25, 20, delivery_time=delivery),
        Chemotherapy.temozolomide(20),
    )


@pytest.fixture(scope="module")
def simulation() -> GrowthSimulation:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    return GrowthSimulation.prepare(tissue, ball_density(grid, tissue), GROWTH, horizon=90, cell_size="3 mm")


@pytest.fixture(scope="module", params=["logistic", "gompertz", "beam on"])
def gradient(simulation: GrowthSimulation, request: pytest.FixtureRequest) -> GrowthGradient:
    """Fractions as events under two laws, and fractions that take a quarter of an hour under chemotherapy."""
    if request.param == "gompertz":
        simulation = replace(simulation, growth=GROWTH.model_copy(update={"law": "gompertz"}))
    return GrowthGradient(simulation, full_plan(0.01 if request.param == "beam on" else 0.0), DAYS)


def misfit(volume: Array) -> Callable[[Mapping[float, Cells]], tuple[float, dict[float, Cells]]]:
    """Something smooth and not symmetric of living and damaged cells on all report days."""

    def functional(cells: Mapping[float, Cells]) -> tuple[float, dict[float, Cells]]:
        value, slopes = 0.0, {}
        for day, now in cells.items():
            u, d = now.living, np.zeros_like(now.living) if now.damaged is None else now.damaged
            seen = 1 / (1 + np.exp(-(u + d - 0.15) / 0.1))
            value += float(volume @ seen) + 0.01 * day * float(volume @ u)
            by_seen = volume * seen * (1 - seen) / 0.1
            slopes[day] = Cells(by_seen + 0.01 * day * volume, by_seen)
        return value, slopes

    return functional


def changed(gradient: GrowthGradient, name: str, step: float) -> Adjoint:
    """The run after a step of a parameter's logarithm."""
    growth, response = gradient.simulation.growth, TreatmentResponse()
    factor = float(np.exp(step))
    if name in {"alpha", "temozolomide"}:
        response = response.model_copy(update={name: getattr(response, name) * factor})
    else:
        names = ("diffusion_white", "diffusion_grey") if name == "diffusion" else (name,)
        growth = growth.model_copy(update={key: getattr(growth, key) * factor for key in names})
    return gradient.adjoint(growth, response, grey=True)


def remainders(value: Callable[[float], float], slope: float, steps: tuple[float, ...]) -> list[float]:
    """Orders at which J(h) − J(0) − h J' falls as h is halved."""
    base = value(0.0)
    left = [abs(value(h) - base - h * slope) for h in steps]
    return [float(np.log2(a / b)) for a, b in pairwise(left)]


@pytest.mark.law("calibration", "The adjoint goes back through the very run of the growth solver, bit for bit")
def test_it_is_the_run_of_the_growth_solver(gradient: GrowthGradient) -> None:
    simulation = gradient.simulation
    forecast = simulation.run(gradient.plan, DAYS, steps=gradient.steps)
    cells = gradient.adjoint().cells(gradient.initial)
    transfer = simulation.brain.transfer
    for number, day in enumerate(DAYS[1:], 1):
        living, damaged = cells[day].living, cells[day].damaged
        assert damaged is not None
        ours, dead = (transfer.to_grid(simulation.domain.gather(part)) for part in (living, damaged))
        np.testing.assert_array_equal(ours.astype(np.float32), forecast.density[number])
        assert forecast.damaged is not None
        np.testing.assert_array_equal(dead.astype(np.float32), forecast.damaged[number])


@pytest.mark.law("calibration", "Taylor remainders of all parameters fall with order 2, therapy and surgery on the way")
@pytest.mark.parametrize("name", ["diffusion", "diffusion_grey", "proliferation", "alpha", "temozolomide"])
def test_taylor_in_parameters(gradient: GrowthGradient, name: str, figure: Figure) -> None:
    functional = misfit(gradient.simulation.diffusion.volume)
    _, slopes, _ = gradient.adjoint(grey=True).value_and_slopes(gradient.initial, functional)
    found = {
        "diffusion": slopes.diffusion,
        "diffusion_grey": slopes.grey,
        "proliferation": slopes.proliferation,
        "alpha": slopes.alpha,
        "temozolomide": slopes.drug,
    }[name]

    def value(step: float) -> float:
        return functional(changed(gradient, name, step).cells(gradient.initial))[0]

    orders = remainders(value, found, (0.02, 0.01, 0.005, 0.0025))
    figure("lowest order", min(orders), at_least=1.95)
    figure("highest order", max(orders), at_most=2.05)


@pytest.mark.law("calibration", "Taylor remainders of the density on day 0 fall with order 2")
def test_taylor_in_the_initial_density(gradient: GrowthGradient, figure: Figure) -> None:
    functional = misfit(gradient.simulation.diffusion.volume)
    adjoint = gradient.adjoint()
    _, slopes, _ = adjoint.value_and_slopes(gradient.initial, functional)
    direction = gradient.initial * (1 - gradient.initial) * np.cos(np.arange(gradient.initial.size))

    def value(step: float) -> float:
        return functional(adjoint.cells(gradient.initial + step * direction))[0]

    orders = remainders(value, float(slopes.initial @ direction), (0.08, 0.04, 0.02, 0.01))
    figure("lowest order", min(orders), at_least=1.95)
    figure("highest order", max(orders), at_most=2.05)


@pytest.mark.law("calibration", "Taylor remainders of the dose map fall with order 2; LQ-L, repair and oxygen included")
@pytest.mark.parametrize("delivery", [0.0, 0.01])
@pytest.mark.parametrize("kind", ["plain", "bent"])
def test_taylor_in_the_dose_map(simulation: GrowthSimulation, delivery: float, kind: str, figure: Figure) -> None:
    plan, grid, response, local = full_plan(delivery), ball_grid(), TreatmentResponse(), LocalResponse()
    if kind == "bent":
        again = Fractionation(ball_dose(grid, 20), 5, 20.25, delivery_time=delivery)  # a second fraction on some days
        plan = TherapyPlan((*plan.courses, again), plan.drugs, plan.resections)
        response = TreatmentResponse(transition_dose="2.2 Gy", repair_half_time="4 h")
        r = distance(grid, TUMOUR)
        local = LocalResponse(1 + np.exp(-((r / 5) ** 2)), np.where(r < 8, 0.7, 1.2))
    gradient = GrowthGradient(simulation, plan, DAYS, response, local)
    functional = misfit(simulation.diffusion.volume)
    _, slopes, _ = gradient.adjoint(fields=True).value_and_slopes(gradient.initial, functional)
    maps = gradient.dose_slopes(slopes.fields)
    assert len(maps) == len(plan.courses)
    direction = [np.sin(distance(grid, TUMOUR + 3 * k)) + 0.3 for k in range(len(maps))]

    def value(step: float) -> float:
        courses = [
            replace(course, dose=DoseMap(course.dose.values * (1 + step * d).astype(np.float64), grid))
            for course, d in zip(plan.courses, direction, strict=True)
        ]
        other = gradient.with_plan(TherapyPlan(tuple(courses), plan.drugs, plan.resections))
        return functional(other.adjoint().cells(gradient.initial))[0]

    found = sum(
        float((part * course.dose.values * d).sum())
        for part, course, d in zip(maps, plan.courses, direction, strict=True)
    )
    orders = remainders(value, found, (0.08, 0.04, 0.02, 0.01))
    figure("lowest order", min(orders), at_least=1.95)
    figure("highest order", max(orders), at_most=2.05)


@pytest.mark.law("calibration", "As few checkpoints as one give the same slopes, and never more are kept than said")
@pytest.mark.parametrize("checkpoints", [1, 2, 5, 17, 60])
def test_checkpoints_bound_memory_and_change_nothing(
    gradient: GrowthGradient, checkpoints: int, figure: Figure
) -> None:
    functional = misfit(gradient.simulation.diffusion.volume)
    all_kept = gradient.adjoint(grey=True, fields=True)
    few = gradient.adjoint(grey=True, fields=True, checkpoints=checkpoints)
    value, slopes, _ = all_kept.value_and_slopes(gradient.initial, functional)
    same, others, _ = few.value_and_slopes(gradient.initial, functional)
    assert value == same
    np.testing.assert_array_equal(slopes.initial, others.initial)
    assert (slopes.diffusion, slopes.grey, slopes.alpha, slopes.drug, slopes.proliferation) == (
        others.diffusion, others.grey, others.alpha, others.drug, others.proliferation,
    )  # fmt: skip
    for ours, theirs in zip(slopes.fields, others.fields, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert few.most_kept <= checkpoints < all_kept.most_kept
    figure("states kept over states allowed", few.most_kept / checkpoints, at_most=1.0)


@pytest.mark.parametrize("stiffness", [1e-3, 0.5, 4.0, 30.0, 300.0])
def test_gauss_nodes_meet_their_error(stiffness: float) -> None:
    nodes, weights = gauss_nodes(stiffness)
    exact = -np.expm1(-2 * stiffness) / (2 * stiffness)
    assert abs(weights @ np.exp(-2 * stiffness * nodes) - exact) < 3e-9


def test_another_dose_takes_the_same_steps_and_is_the_run_made_anew(simulation: GrowthSimulation) -> None:
    plan = full_plan()
    gradient = GrowthGradient(simulation, plan, DAYS)
    (course,) = plan.courses
    less = replace(course, dose=DoseMap(course.dose.values * np.float32(0.7), course.dose.grid))
    other = gradient.with_plan(TherapyPlan((less,), plan.drugs, plan.resections))
    anew = GrowthGradient(simulation, other.plan, DAYS)
    assert other.steps == gradient.steps == anew.steps
    ours, theirs = (each.adjoint().cells(each.initial)[90.0].living for each in (other, anew))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InputError, match="same days"):
        gradient.with_plan(TherapyPlan((replace(course, first_day=27),), plan.drugs, plan.resections))


def test_what_it_cannot_do_is_said(simulation: GrowthSimulation, gradient: GrowthGradient) -> None:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    tensors = np.ones(len(simulation.brain.mesh.cells))[:, None, None] * np.eye(3)
    fraction, volume = simulation.brain.fraction, simulation.brain.transfer.node_volume
    limited = replace(simulation, diffusion=assemble_limited(simulation.domain, tensors, fraction, volume))
    with pytest.raises(InputError, match="lattice"):
        GrowthGradient(limited)
    with pytest.raises(InputError, match="α and temozolomide alone"):
        gradient.adjoint(response=TreatmentResponse(alpha_beta="3 Gy"))
    with pytest.raises(InputError, match="at least one checkpoint"):
        gradient.adjoint(checkpoints=0)
    coupled = MechanicalParameters(carried=True)
    mechanical = GrowthSimulation.prepare(
        tissue, ball_density(grid, tissue), horizon=30, cell_size="4 mm", mechanics=coupled
    )
    with pytest.raises(InputError, match="two-way"):
        GrowthGradient(mechanical)
