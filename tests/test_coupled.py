"""Growth and mechanics together: what acts on what, and that it does not where it should not."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from ball_brain import TUMOUR, ball_density, ball_grid, ball_tissue
from figures import Figure

from hybridtumor.errors import ConvergenceError
from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models.warp import jacobian
from hybridtumor.parameters import GrowthParameters, MechanicalParameters
from hybridtumor.scan import Scan
from hybridtumor.tissue import TissueMap

DAYS = (0, 45, 90)
GROWTH = GrowthParameters(diffusion_white="0.1 mm^2/day", proliferation="0.05 1/day")
CELL_SIZE = "3 mm"


@pytest.fixture(scope="module")
def patient() -> tuple[TissueMap, Scan]:
    """A ball of brain in a shell of CSF, with a tumour."""
    grid = ball_grid()
    tissue = ball_tissue(grid)
    return tissue, ball_density(grid, tissue, radius=5.0)


@pytest.fixture(scope="module")
def arm(patient: tuple[TissueMap, Scan]) -> Callable[..., Forecast]:
    """Run an arm with the given mechanics; None for none."""
    kept: dict[MechanicalParameters | None, Forecast] = {}

    def run(mechanics: MechanicalParameters | None) -> Forecast:
        if mechanics not in kept:
            kept[mechanics] = prepare(patient, mechanics).run(days=DAYS)
        return kept[mechanics]

    return run


def prepare(
    patient: tuple[TissueMap, Scan], mechanics: MechanicalParameters | None, growth: GrowthParameters = GROWTH
) -> GrowthSimulation:
    return GrowthSimulation.prepare(*patient, growth, DAYS[-1], mechanics=mechanics, cell_size=CELL_SIZE)


def nodal(forecast: Forecast, day: float = DAYS[-1]) -> np.ndarray:
    assert forecast.mesh is not None
    return forecast.mesh.density[day]


def distance(a: Forecast, b: Forecast) -> float:
    return float(np.abs(nodal(a) - nodal(b)).max())


@pytest.mark.law("mechanics", "One-way mechanics leaves the cells as they are, bit for bit")
def test_one_way_mechanics_leaves_the_cells_as_they_are(arm: Callable[..., Forecast]) -> None:
    with_mechanics, without = arm(MechanicalParameters()), arm(None)
    for day in DAYS:
        np.testing.assert_array_equal(nodal(with_mechanics, day), nodal(without, day))
    np.testing.assert_array_equal(with_mechanics.burden_curve, without.burden_curve)
    assert with_mechanics.burden == without.burden
    assert without.displacement is None


def test_nothing_has_moved_on_day_0_and_the_tumour_pushes_outwards_later(arm: Callable[..., Forecast]) -> None:
    forecast = arm(MechanicalParameters())
    assert forecast.displacement is not None
    assert not forecast.displacement[0].any()
    grid, v = forecast.grid, forecast.displacement[-1]
    offset = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - TUMOUR
    rim = (forecast.density[-1] > 0.2) & (forecast.density[-1] < 0.4)
    outward = (np.moveaxis(v, 0, -1) * offset).sum(-1)[rim]
    assert (outward > 0).mean() > 0.95
    sizes = [float(np.linalg.norm(d, axis=0).max()) for d in forecast.displacement]
    assert 0 < sizes[1] < sizes[2]


@pytest.mark.law("mechanics", "Cells are where the tissue is: the burden in moved tissue is ∫ u det F")
def test_cells_are_where_the_tissue_is(arm: Callable[..., Forecast], figure: Figure) -> None:
    forecast, still = arm(MechanicalParameters()), arm(None)
    assert forecast.displacement is not None
    swollen = still.density[-1] * jacobian(forecast.displacement[-1], forecast.grid)
    moved = float(forecast.density[-1].sum(dtype=float))
    assert moved == pytest.approx(float(swollen.sum()), rel=0.01)
    figure("difference", 100 * abs(moved / float(swollen.sum()) - 1), "%", at_most=1)
    assert moved > 1.02 * float(still.density[-1].sum(dtype=float))
    np.testing.assert_array_equal(forecast.density[0], still.density[0])


def test_no_growth_strain_moves_nothing(arm: Callable[..., Forecast]) -> None:
    forecast = arm(MechanicalParameters(growth_strain=0.0))
    assert forecast.displacement is not None
    assert not any(v.any() for v in forecast.displacement)
    np.testing.assert_array_equal(forecast.density[-1], arm(None).density[-1])


@pytest.mark.law("mechanics", "Coupling through stress vanishes with its coefficients, to first order")
@pytest.mark.parametrize("name", ["diffusion_stress", "proliferation_pressure"])
def test_small_stress_coefficients_converge_to_one_way(name: str, arm: Callable[..., Forecast], figure: Figure) -> None:
    one_way = arm(MechanicalParameters(interval="45 day"))
    errors = []
    for size in (0.4, 0.2, 0.1):
        two_way = arm(MechanicalParameters(interval="45 day", **{name: f"{size} 1/kPa"}))
        assert nodal(two_way).sum() < nodal(one_way).sum()
        errors.append(distance(two_way, one_way))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders == pytest.approx(1, abs=0.25)
    figure("order", orders, at_least=0.75, at_most=1.25)


@pytest.mark.law("mechanics", "Without growth strain two-way coupling changes no bit")
def test_coupling_at_rest_is_no_coupling(patient: tuple[TissueMap, Scan]) -> None:
    """With coefficients but no growth strain there is no stress: the two-way machinery changes no bit."""
    coupled = MechanicalParameters(growth_strain=0.0, diffusion_stress="1 1/kPa", interval="45 day")
    steps = prepare(patient, None).shared_steps([], DAYS)
    both = [prepare(patient, mechanics).run(days=DAYS, steps=steps) for mechanics in (None, coupled)]
    np.testing.assert_array_equal(nodal(both[0]), nodal(both[1]))


@pytest.mark.law("mechanics", "Carried cells keep their number without growth")
def test_cells_that_are_carried_keep_their_number_without_growth(
    patient: tuple[TissueMap, Scan], figure: Figure
) -> None:
    still = GROWTH.model_copy(update={"proliferation": 0.0})
    mechanics = MechanicalParameters(carried=True, growth_strain=0.3, interval="15 day")
    burden = prepare(patient, mechanics, still).run(days=DAYS).burden_curve[:, 1]
    assert burden == pytest.approx(burden[0], rel=1e-10)
    figure("change", np.abs(burden / burden[0] - 1).max(), at_most=1e-10)


@pytest.mark.parametrize("last", [30.9, 30.6])
def test_coupling_days_that_are_report_days_are_met_in_spite_of_rounding(
    patient: tuple[TissueMap, Scan], last: float
) -> None:
    simulation = prepare(patient, MechanicalParameters(carried=True))
    days = (0, round(last / 3, 6), last)
    forecast = simulation.run(days=days, steps=simulation.shared_steps([], days))
    assert forecast.days == days
    assert forecast.figures["products"] > 0


def test_next_to_no_load_is_next_to_no_displacement(patient: tuple[TissueMap, Scan]) -> None:
    forecast = prepare(patient, MechanicalParameters(growth_strain=1e-8)).run(days=(0, 1e-3, 60))
    assert forecast.displacement is not None
    sizes = [float(np.abs(v).max()) for v in forecast.displacement]
    assert sizes[1] <= sizes[2] < 1e-6


def test_exponential_growth_of_carried_cells_stops_at_the_carrying_capacity(patient: tuple[TissueMap, Scan]) -> None:
    growth = GrowthParameters(law="exponential", proliferation="0.05 1/day", diffusion_white="0.02 mm^2/day")
    with pytest.raises(ConvergenceError, match="logistic or gompertz"):
        prepare(patient, MechanicalParameters(carried=True), growth).run(days=(0, 60))


@pytest.mark.law("mechanics", "Halving the interval between two rests of the head halves the change")
def test_shorter_intervals_converge(arm: Callable[..., Forecast], figure: Figure) -> None:
    runs = [
        arm(MechanicalParameters(carried=True, proliferation_pressure="0.2 1/kPa", interval=f"{days} day"))
        for days in (45, 22.5, 11.25)
    ]
    first, second = (distance(a, b) for a, b in pairwise(runs))
    assert 1.4 < first / second < 3
    figure("change falls by", first / second, at_least=1.4, at_most=3)
