"""Grid to mesh and back: the burden is conserved, constants and bounds are kept, and axes have no say."""

import numpy as np
import pytest
from figures import Figure
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.meshes.lattice import TetMesh, graded_lattice, uniform_lattice
from hybridtumor.meshes.transfer import GridTransfer, cell_means

AFFINE = np.array([[1.0, 0, 0, -12], [0, 1.0, 0, -10], [0, 0, 1.0, -11], [0, 0, 0, 1]])
SHEARED = np.array([[0.9, 0.1, 0, -11], [-0.1, 0.95, 0.2, -12], [0, -0.2, 1.1, -9], [0, 0, 0, 1]])
THICK = np.array([[1.0, 0, 0, -12], [0, 1.0, 0, -10], [0, 0, 5.0, -10], [0, 0, 0, 1]])
CASES = {
    "1 mm": (AFFINE, (24, 22, 20), 2.0),
    "sheared": (SHEARED, (24, 24, 20), 2.0),
    "1x1x5 mm": (THICK, (24, 22, 5), 2.0),
}
CASES["cells below voxels"] = (AFFINE, (24, 22, 20), 0.8)


def ball(grid: Grid, radius: float = 9.5) -> BoolArray:
    x = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return np.asarray(np.linalg.norm(x - [-0.2, 0.6, -1.1], axis=-1) < radius)


def ball_mesh(finest: float, radius: float = 6.0) -> TetMesh:
    """Cells whose centroid lies in a ball smaller than the domain, so that some voxels have no cell."""
    lattice = graded_lattice(
        [-11, -11, -11], [11, 11, 11], lambda x: finest + 0.4 * np.abs(x[:, 0]), finest=finest, coarsest=4 * finest
    )
    return lattice.submesh(np.linalg.norm(lattice.corners.mean(0).T, axis=1) < radius)


@pytest.fixture(scope="module", params=CASES)
def transfer(request: pytest.FixtureRequest) -> GridTransfer:
    affine, shape, finest = CASES[request.param]
    grid = Grid(shape, affine)
    return GridTransfer(ball_mesh(finest), grid, ball(grid))


def blob(transfer: GridTransfer) -> NDArray[np.float64]:
    values = np.random.default_rng(1).uniform(0.2, 0.9, transfer.grid.shape)
    return np.where(transfer.domain, values, 0)


def test_rows_are_barycentric(transfer: GridTransfer) -> None:
    operator = transfer.operator
    assert operator.shape == (transfer.domain.sum(), len(transfer.mesh.points))
    assert operator.data.min() >= 0
    assert operator @ np.ones(operator.shape[1]) == pytest.approx(1, abs=1e-13)


@pytest.mark.law("mesh", "Grid to mesh and back conserve the burden, on oblique and thick voxels, too")
def test_burden_is_conserved_both_ways(transfer: GridTransfer, figure: Figure) -> None:
    values, volume = blob(transfer), transfer.grid.voxel_volume
    nodal = transfer.to_mesh(values)
    burden = volume * values.sum()
    assert transfer.node_volume.sum() == pytest.approx(volume * transfer.domain.sum(), rel=1e-12)
    assert transfer.node_volume @ nodal == pytest.approx(burden, rel=1e-12)
    assert volume * transfer.to_grid(nodal).sum() == pytest.approx(burden, rel=1e-12)
    both = np.array([transfer.node_volume @ nodal, volume * transfer.to_grid(nodal).sum()])
    figure("change", np.abs(both / burden - 1), at_most=1e-12)


@pytest.mark.law("mesh", "The same keep constants and bounds")
def test_constants_and_bounds_are_kept(transfer: GridTransfer) -> None:
    assert transfer.to_mesh(np.full(transfer.grid.shape, 0.7)) == pytest.approx(0.7, rel=1e-13)
    back = transfer.to_grid(np.full(len(transfer.mesh.points), 0.7))
    assert back[transfer.domain] == pytest.approx(0.7, rel=1e-13)
    assert not back[~transfer.domain].any()
    values = blob(transfer)
    inside = values[transfer.domain]
    nodal = transfer.to_mesh(values)
    again = transfer.to_grid(nodal)[transfer.domain]
    for result in (nodal, again):
        assert inside.min() <= result.min()
        assert result.max() <= inside.max()


def test_a_linear_field_is_read_off_exactly_where_there_are_cells() -> None:
    grid = Grid((18, 18, 18), np.diag([1.0, 1.0, 1.0, 1.0]))
    transfer = GridTransfer(uniform_lattice([-0.5] * 3, [17.5] * 3, 3.0), grid, np.ones(grid.shape, bool))
    x = transfer.mesh.points @ [0.3, -0.2, 0.5] + 4
    expected = np.moveaxis(np.indices(grid.shape), 0, -1) @ [0.3, -0.2, 0.5] + 4
    assert transfer.to_grid(x) == pytest.approx(expected, abs=1e-12)


@pytest.mark.law("mesh", "A smooth field survives the way to the mesh and back; halving the cells")
def test_a_smooth_field_survives_the_round_trip(figure: Figure) -> None:
    grid = Grid((24, 22, 20), AFFINE)
    x = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    values = np.exp(-np.sum(x**2, axis=-1) / 50)
    errors = []
    for spacing in (4.0, 2.0):
        transfer = GridTransfer(
            uniform_lattice([-12.5, -10.5, -11.5], [11.5, 11.5, 8.5], spacing), grid, np.ones(grid.shape, bool)
        )
        errors.append(np.abs(transfer.to_grid(transfer.to_mesh(values)) - values)[4:-4, 4:-4, 4:-4].max())
    assert errors[1] < 0.35 * errors[0]
    assert errors[1] < 0.05
    figure("error", errors[1], at_most=0.05)
    figure("error / that of twice the size", errors[1] / errors[0], at_most=0.35)


@pytest.mark.law("mesh", "Flips and swaps of the axes cannot be seen on the mesh, to 1e-12")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (0,)), ((2, 0, 1), (1, 2)), ((1, 0, 2), (0, 1, 2))])
def test_axes_have_no_say(case: str, order: tuple[int, int, int], flips: tuple[int, ...]) -> None:
    affine, shape, finest = CASES[case]
    grid, mesh = Grid(shape, affine), ball_mesh(finest)
    values = np.random.default_rng(2).uniform(size=shape)
    turned, turn = np.transpose(values, order), np.eye(4)[:, [*order, 3]]
    for axis in flips:
        turned = np.flip(turned, axis)
        mirror = np.eye(4)
        mirror[axis, axis], mirror[axis, 3] = -1, turned.shape[axis] - 1
        turn = turn @ mirror
    other = Grid((turned.shape[0], turned.shape[1], turned.shape[2]), affine @ turn)
    index = np.array([3, 5, 2])
    assert turned[tuple(index)] == values[tuple(np.rint((turn @ [*index, 1])[:3]).astype(int))]
    nodal = GridTransfer(mesh, grid, ball(grid)).to_mesh(values)
    assert GridTransfer(mesh, other, ball(other)).to_mesh(turned) == pytest.approx(nodal, abs=1e-12)


def test_cell_means() -> None:
    grid = Grid((24, 22, 20), AFFINE)
    mesh = ball_mesh(1.0)
    x = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    linear = x @ [0.02, 0.01, -0.03] + 1
    means = cell_means(mesh, grid, [linear, np.ones(grid.shape), np.zeros(grid.shape)], spacing=1.0)
    exact = mesh.corners.mean(0).T @ [0.02, 0.01, -0.03] + 1
    assert means[0] == pytest.approx(exact, abs=0.03)  # half a voxel
    assert np.mean(means[0] - exact) == pytest.approx(0, abs=1e-3)
    assert means[1] == pytest.approx(1)
    assert not means[2].any()


@pytest.mark.law("mesh", "Nodal values of the first density keep burden, range and constants")
def test_nodal_values_keep_burden_range_and_constants() -> None:
    grid = Grid((24, 22, 20), AFFINE)
    transfer = GridTransfer(ball_mesh(2.0), grid, ball(grid))
    rough = np.random.default_rng(5).random(grid.shape).round()
    for density in (rough, 0.3 + 0.4 * rough):
        nodal = transfer.nodal_values(density)
        assert transfer.node_volume @ nodal == pytest.approx(
            density[transfer.domain].sum() * grid.voxel_volume, rel=1e-12
        )
        assert density.min() <= nodal.min() <= nodal.max() <= density.max()
    assert transfer.nodal_values(np.full(grid.shape, 0.4)) == pytest.approx(0.4)
    assert not transfer.nodal_values(np.zeros(grid.shape)).any()


def test_nodal_values_of_a_front_are_sharper_than_averages() -> None:
    grid = Grid((24, 22, 20), AFFINE)
    mesh = ball_mesh(2.0)
    transfer = GridTransfer(mesh, grid, ball(grid))
    x = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    front = np.exp(-0.5 * (x[..., 0] - x[..., 0].min()))
    inside = np.linalg.norm(mesh.points - mesh.points.mean(0), axis=1) < 4
    exact = np.exp(-0.5 * (mesh.points[inside, 0] - x[..., 0].min()))
    errors = [np.mean(f(front)[inside] / exact - 1) for f in (transfer.to_mesh, transfer.nodal_values)]
    assert errors[0] > 0.03
    assert abs(errors[1]) < 0.3 * errors[0]


def test_what_does_not_fit_is_refused() -> None:
    grid = Grid((24, 22, 20), AFFINE)
    mesh = ball_mesh(2.0)
    with pytest.raises(InputError, match="mask of shape"):
        GridTransfer(mesh, grid, np.ones((3, 3, 3), bool))
    with pytest.raises(InputError, match="at least one voxel"):
        GridTransfer(mesh, grid, np.zeros(grid.shape, bool))
    with pytest.raises(InputError, match="carry none"):
        GridTransfer(mesh, grid, ball(grid, radius=2.0))
    transfer = GridTransfer(mesh, grid, ball(grid))
    with pytest.raises(InputError, match="array of the grid"):
        transfer.to_mesh(np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match="one value per vertex"):
        transfer.to_grid(np.zeros(3))
