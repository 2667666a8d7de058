"""Surgery takes the cells of a cavity and keeps the rest; nothing spreads through the cavity; mechanics sees CSF."""

import numpy as np
import pytest
from ball_brain import TUMOUR, ball_density, ball_dose, ball_grid, ball_tissue, distance
from figures import Figure

from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.parameters import GrowthParameters, MechanicalParameters, TreatmentResponse
from hybridtumor.therapy import Fractionation, Resection, TherapyPlan

STILL = GrowthParameters(proliferation="0 1/day", diffusion_white="0.3 mm^2/day", diffusion_grey="0.1 mm^2/day")
DAYS = (0, 10, 10.01, 40, 90)


@pytest.fixture(scope="module")
def simulation() -> GrowthSimulation:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    return GrowthSimulation.prepare(tissue, ball_density(grid, tissue), STILL, horizon=90, cell_size="2 mm")


def cavity(radius: float = 7.0) -> np.ndarray:
    return distance(ball_grid(), TUMOUR) < radius


def surgery(residual: float = 0.0) -> TherapyPlan:
    return TherapyPlan.of(Resection(cavity(), ball_grid(), 10.0, residual))


@pytest.fixture(scope="module")
def untreated(simulation: GrowthSimulation) -> Forecast:
    return simulation.run(days=DAYS)


@pytest.fixture(scope="module")
def operated(simulation: GrowthSimulation) -> Forecast:
    return simulation.run(surgery(), DAYS)


@pytest.mark.law("therapy", "Surgery empties the cavity, leaves the rest, and no cell comes back into its middle")
def test_surgery_empties_the_cavity(untreated: Forecast, operated: Forecast, figure: Figure) -> None:
    far, middle = distance(ball_grid(), TUMOUR) > 12, cavity(2.0)
    np.testing.assert_allclose(operated.density[1], untreated.density[1], atol=1e-6)  # the report before surgery
    assert untreated.density[2][middle].min() > 0.1
    figure("left in the middle", operated.density[2][middle].max(), at_most=1e-6)
    np.testing.assert_allclose(operated.density[2][far], untreated.density[2][far], atol=1e-4)
    figure("in the middle 80 days later", operated.density[-1][middle].max(), at_most=1e-4)


@pytest.mark.law("therapy", "Without growth the cells that surgery leaves are conserved, cavity or not")
def test_what_is_left_is_conserved(operated: Forecast, figure: Figure) -> None:
    after = operated.burden_curve[operated.burden_curve[:, 0] > 10.0, 1]
    figure("change", np.abs(after / after[0] - 1).max(), at_most=1e-9)
    assert 0 < after[0] < 0.6 * operated.burden[0]


def test_the_residual_share_stays(simulation: GrowthSimulation, untreated: Forecast, operated: Forecast) -> None:
    partly = simulation.run(surgery(0.25), DAYS)
    taken = untreated.burden[2] - operated.burden[2]
    assert untreated.burden[2] - partly.burden[2] == pytest.approx(0.75 * taken, rel=1e-3)


def test_what_surgery_takes_out_is_not_damaged_but_gone(simulation: GrowthSimulation) -> None:
    course = Fractionation(ball_dose(ball_grid(), 60.0), 5, 2.0)
    plan = TherapyPlan.of(course, Resection(cavity(), ball_grid(), 10.0))
    forecast = simulation.run(plan, DAYS, TreatmentResponse())
    assert forecast.damaged is not None
    assert forecast.damaged[1][cavity(2.0)].min() > 0.05
    assert forecast.damaged[2][cavity(2.0)].max() < 1e-6


def test_the_brain_sinks_back_after_surgery() -> None:
    """Growth pushes outwards; with the core gone the push is less, and the cavity is as soft as CSF."""
    grid = ball_grid()
    tissue = ball_tissue(grid)
    growing = GrowthParameters(proliferation="0.05 1/day")
    simulation = GrowthSimulation.prepare(
        tissue, ball_density(grid, tissue), growing, horizon=60, mechanics=MechanicalParameters(), cell_size="2 mm"
    )
    pushed, sunk = (simulation.run(plan, (0, 10, 60)).displacement[-1] for plan in (TherapyPlan(), surgery()))
    outwards = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - TUMOUR
    rim = (distance(grid, TUMOUR) > 7) & (distance(grid, TUMOUR) < 10) & tissue.parenchyma
    push, sink = (np.einsum("cxyz,xyzc->xyz", v, outwards)[rim].mean() for v in (pushed, sunk))
    assert push > 0
    assert sink < 0.5 * push


def test_surgery_goes_with_mechanics_that_acts_back() -> None:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    two_way = MechanicalParameters(diffusion_stress="0.5 1/kPa", carried=True)
    simulation = GrowthSimulation.prepare(
        tissue, ball_density(grid, tissue), horizon=30, mechanics=two_way, cell_size="2 mm"
    )
    steps = simulation.shared_steps([surgery()], (0, 30))
    forecast = simulation.run(surgery(), (0, 30), steps=steps)
    assert forecast.density[-1][cavity(2.0)].max() < 1e-3
    assert forecast.burden[-1] < simulation.run(days=(0, 30), steps=steps).burden[-1]
