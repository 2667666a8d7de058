"""Laws of limited diffusion: bounds and burden for any tensor, nothing changed where nothing has to be."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from boxes import NO_KILL, kill_of, lumped_volume, operators, parameters
from figures import Figure
from scipy.spatial.transform import Rotation

from hybridtumor.diffusion_tensor import DiffusionTensor, symmetric
from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.grid import Grid
from hybridtumor.meshes.domain import distribute
from hybridtumor.meshes.lattice import TetMesh, graded_lattice, uniform_lattice
from hybridtumor.meshes.quality import dihedral_angles
from hybridtumor.meshes.transfer import GridTransfer, cell_means
from hybridtumor.models.anisotropy import tissue_tensor
from hybridtumor.solvers.growth import grow
from hybridtumor.solvers.limited import LimitedDiffusion, assemble_limited
from hybridtumor.solvers.petsc import MPI
from hybridtumor.solvers.time_grid import StepControl

Array = np.ndarray

CONTROL = StepControl(1e-4)


def random_tensors(count: int, eigenvalues: tuple[float, float, float]) -> Array:
    frames = Rotation.random(count, rng=0).as_matrix()
    return np.asarray(frames * np.array(eigenvalues) @ frames.swapaxes(1, 2))


def operator(mesh: TetMesh, tensor: Array) -> LimitedDiffusion:
    domain = distribute(mesh, MPI.COMM_SELF)
    return assemble_limited(domain, tensor, np.ones(len(mesh.cells)), lumped_volume(mesh))


@pytest.fixture(scope="module")
def block() -> LimitedDiffusion:
    """A tensor of ratio 10 : 1 : 1 that turns at random from cell to cell."""
    mesh = uniform_lattice((0, 0, 0), (12, 10, 8), 1.0)
    return operator(mesh, random_tensors(len(mesh.cells), (0.325, 0.0325, 0.0325)))


@pytest.fixture(scope="module")
def rough(block: LimitedDiffusion) -> Array:
    return np.random.default_rng(0).integers(0, 2, block.volume.size).astype(float)


@pytest.mark.law("tensor", "A tensor of 10 : 1 : 1 that turns at random keeps [0, 1] and the burden, up to 200 days")
@pytest.mark.parametrize("duration", [1e-3, 1.0, 30.0, 200.0])
def test_bounds_and_burden(block: LimitedDiffusion, rough: Array, duration: float, figure: Figure) -> None:
    u = block.step(rough, duration)
    assert u.min() >= 0
    assert u.max() <= 1
    assert block.integral(u) == pytest.approx(block.integral(rough), rel=1e-12)
    figure("lowest", u.min(), at_least=0)
    figure("highest", u.max(), at_most=1)
    figure("change of burden", abs(block.integral(u) / block.integral(rough) - 1), at_most=1e-12)
    assert block.positive_share > 0.2


def test_a_step_stays_in_the_range_of_its_start(block: LimitedDiffusion, rough: Array) -> None:
    u = block.step(0.3 + 0.2 * rough, 2.0)
    assert u.min() >= 0.3
    assert u.max() <= 0.5
    np.testing.assert_allclose(block.step(np.full(rough.size, 0.3), 100.0), 0.3, rtol=1e-12)


@pytest.mark.parametrize("vertex", [0, 700, 1500])
def test_a_single_cell_spreads_without_undershoot(block: LimitedDiffusion, rough: Array, vertex: int) -> None:
    point = (np.arange(rough.size) == vertex).astype(float)
    assert block.high_order(point, 0.5).min() < -1e-4
    for duration in (1e-6, 0.05, 0.5, 5.0):
        assert block.step(point, duration).min() >= 0


def test_the_series_of_signed_averages_does_not_grow(block: LimitedDiffusion, rough: Array) -> None:
    """‖N‖ ≤ 1 in the norm of the lumped mass, so no high-order step is longer than its start."""
    u = rough - 0.5
    for duration in (0.1, 1.0, 10.0):
        after = block.high_order(u, duration)
        assert block.volume @ after**2 <= block.volume @ u**2 * (1 + 1e-12)
    now, following = block.exact.createVecs()
    now.array[:] = u
    for _ in range(200):  # towards the mode that N amplifies most
        block.exact.mult(now, following)
        before = block.volume @ now.array_r**2
        assert block.volume @ following.array_r**2 <= before * (1 + 1e-12)
        now.array[:] = following.array_r / np.abs(following.array_r).max()


@pytest.mark.law("tensor", "An isotropic tensor gives the step of the scalar")
@pytest.mark.parametrize("duration", [0.5, 40.0])
def test_an_isotropic_tensor_is_the_scalar_operator(duration: float, figure: Figure) -> None:
    mesh = uniform_lattice((0, 0, 0), (8, 8, 8), 1.0)
    tensor = np.array(np.broadcast_to(0.13 * np.eye(3), (len(mesh.cells), 3, 3)))
    diffusion, (_, scalar) = operator(mesh, tensor), operators(mesh, 0.13)
    u = np.random.default_rng(1).random(len(mesh.points))
    assert diffusion.positive_share == 0
    assert diffusion.rate == pytest.approx(scalar.rate, rel=1e-12)
    np.testing.assert_allclose(diffusion.step(u, duration), scalar.step(u, duration), atol=1e-14)
    figure("largest difference", np.abs(diffusion.step(u, duration) - scalar.step(u, duration)).max(), at_most=1e-12)


def test_few_positive_entries_change_little_elsewhere() -> None:
    """On a graded lattice the limiter leaves the step as it is but for the transitions, and beats the repair there."""
    mesh = graded_lattice((0, 0, 0), (8, 8, 8), lambda x: np.where(x[:, 0] < 4, 0.5, 1.0), finest=0.5, coarsest=1.0)
    domain, repaired = operators(mesh, 0.13)
    diffusion = operator(mesh, np.array(np.broadcast_to(0.13 * np.eye(3), (len(mesh.cells), 3, 3))))
    x = mesh.points[domain.vertices]
    u = np.exp(-((x - 4) ** 2).sum(1) / 4)
    limited, plain, exact = diffusion.step(u, 2.0), repaired.step(u, 2.0), diffusion.high_order(u, 2.0)
    assert 0 < diffusion.positive_share < 0.1
    assert np.abs(limited - exact).max() < 1e-6
    assert np.abs(plain - exact).max() > 1e-5


@pytest.mark.law("tensor", "Cells with angles above 120° keep bounds and burden")
def test_obtuse_cells_keep_bounds(figure: Figure) -> None:
    """A sheared lattice has angles far above 90°, which alone take the M-matrix away."""
    mesh = uniform_lattice((0, 0, 0), (8, 8, 8), 1.0)
    sheared = TetMesh(mesh.points @ np.array([[1, 0, 0], [0.9, 1, 0], [0, 0.7, 1]]), mesh.cells)
    assert dihedral_angles(sheared).max() > 120
    diffusion = operator(sheared, np.array(np.broadcast_to(0.13 * np.eye(3), (len(mesh.cells), 3, 3))))
    u = np.random.default_rng(0).integers(0, 2, len(mesh.points)).astype(float)
    after = diffusion.step(u, 1.0)
    assert diffusion.positive_share > 0.1
    assert diffusion.high_order(u, 0.2).min() < 0
    assert after.min() >= 0
    assert after.max() <= 1
    assert diffusion.integral(after) == pytest.approx(diffusion.integral(u), rel=1e-12)
    figure("lowest", after.min(), at_least=0)
    figure("lowest without the limiter", diffusion.high_order(u, 0.2).min(), at_most=0)


def turned_forecast(turn: Array) -> Array:
    """Diffusion of a lump in a world turned by `turn`: grid, tensors and mesh turn, the arrays do not."""
    rng = np.random.default_rng(3)
    affine = np.eye(4)
    affine[:3, :3] = turn
    affine[:3, 3] = 10 * turn @ [1, 2, 3]
    grid = Grid((8, 6, 6), affine)
    here = random_tensors(1, (1.0, 0.2, 0.1))[0] * rng.uniform(0.5, 1, (*grid.shape, 1, 1)) + 0.2 * np.eye(3)
    water = DiffusionTensor(turn @ here @ turn.T, grid)
    # sides a little beyond the voxels, so that no point of a cell lies on the border of two
    corners = np.sort(grid.world([[-0.637, -0.581, -0.613], [7.671, 5.659, 5.543]]), axis=0)
    mesh = uniform_lattice(corners[0], corners[1], 1.0)
    ones = np.ones(len(mesh.cells))
    tensor = symmetric(cell_means(mesh, grid, water.fields, spacing=1.0))
    transfer = GridTransfer(mesh, grid, np.ones(grid.shape, bool))
    domain = distribute(mesh, MPI.COMM_SELF)
    d = tissue_tensor(ones, 0 * ones, (0.13, 0.013), tensor)
    diffusion = assemble_limited(domain, d, ones, transfer.node_volume)
    lump = np.zeros(grid.shape)
    lump[2:4, 2:5, 1:4] = 1
    return transfer.to_grid(domain.gather(diffusion.step(domain.local(transfer.to_mesh(lump)), 4.0)))


@pytest.mark.law("tensor", "Turning patient, tensor and mesh together turns the tumour")
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_the_axes_of_the_world_cannot_be_seen(axis: str, figure: Figure) -> None:
    turn = np.rint(Rotation.from_euler(axis, 90, degrees=True).as_matrix())
    straight = turned_forecast(np.eye(3))
    assert straight.max() > 0.3
    np.testing.assert_allclose(turned_forecast(turn), straight, atol=1e-6)
    figure("largest difference", np.abs(turned_forecast(turn) - straight).max(), at_most=1e-6)


@pytest.mark.law("tensor", "Growth and kill with the tensor keep [0, 1]")
def test_growth_runs_on_it(block: LimitedDiffusion, rough: Array) -> None:
    """Bounds hold over a year of growth and kill; Gompertz growth of a negative density would not be a number."""
    days = tuple(range(5, 15))
    kill = kill_of(days, tuple(np.array(0.3) for _ in days), ((2.0, 75.0),), 0.15, 9.24)
    for law in ("logistic", "gompertz"):
        for schedule in (NO_KILL, kill):
            end = grow(block, parameters(0.13, 0.2, law), schedule, rough, (0, 40), CONTROL)  # type: ignore[arg-type]
            assert all(u.min() >= 0 and u.max() <= 1 + 1e-12 for u in end.density.values())


def test_wrong_tensors_are_refused() -> None:
    mesh = uniform_lattice((0, 0, 0), (2, 2, 2), 1.0)
    good = random_tensors(len(mesh.cells), (1, 0.3, 0.1))
    for bad in (good[1:], np.where(np.arange(3) == 1, np.nan, good), good - 0.2 * np.eye(3), np.triu(good)):
        with pytest.raises(InputError, match="diffusion: expected"):
            operator(mesh, bad)
    with pytest.raises(ConvergenceError, match="larger cells"):
        operator(mesh, good).step(np.zeros(len(mesh.points)), 1e9)


PROGRAM = """
import sys
import numpy as np
from boxes import lumped_volume
from mpi4py import MPI
from hybridtumor.meshes.domain import distribute
from hybridtumor.meshes.lattice import uniform_lattice
from hybridtumor.solvers.limited import assemble_limited
from scipy.spatial.transform import Rotation

mesh = uniform_lattice((0, 0, 0), (8, 8, 8), 1.0)
frames = Rotation.random(len(mesh.cells), rng=0).as_matrix()
tensor = frames * np.array([1.0, 0.1, 0.1]) @ frames.swapaxes(1, 2)
domain = distribute(mesh)
diffusion = assemble_limited(domain, tensor, np.ones(len(mesh.cells)), lumped_volume(mesh))
u = domain.local(np.random.default_rng(0).integers(0, 2, len(mesh.points)).astype(float))
ends = [domain.gather(diffusion.step(u, days)) for days in (0.02, 1.0, 20.0)]
sums = [diffusion.rate, diffusion.positive_share, diffusion.positive_size, diffusion.cancelled, diffusion.integral(u)]
if domain.comm.rank == 0:
    assert domain.comm.size == int(sys.argv[2])
    np.savez(sys.argv[1], *ends, np.array(sums))
"""


def run(ranks: int, folder: Path) -> list[Array]:
    beside, out = Path(sys.executable).parent / "mpiexec", folder / f"{ranks}.npz"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert mpiexec is not None, "no mpiexec beside Python or on the path"
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + PROGRAM
    launch = [mpiexec, "-n", str(ranks)] if ranks > 1 else []
    done = subprocess.run(
        [*launch, sys.executable, "-c", program, str(out), str(ranks)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return list(np.load(out).values())


@pytest.mark.law("tensor", "One and two MPI ranks give the same density")
@pytest.mark.parametrize("ranks", [2])
def test_ranks_agree(tmp_path: Path, ranks: int) -> None:
    for one, many in zip(run(1, tmp_path), run(ranks, tmp_path), strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-8, atol=1e-10)
