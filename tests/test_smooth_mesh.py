"""The smooth mesh fills the smoothed brain, conserves what it carries, and gives way to the lattice when it fails."""

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ball_brain import CENTRE, TUMOUR, ball_density, ball_grid, ball_tissue, distance
from figures import Figure

from hybridtumor.errors import ConvergenceError, InputError, ResourceError
from hybridtumor.grid import Grid
from hybridtumor.meshes import quality, smooth
from hybridtumor.meshes.any_mesh import MIN_SHARE, brain_mesh_on
from hybridtumor.meshes.brain import STIFFNESS_CAP, BrainMesh
from hybridtumor.meshes.lattice import TetMesh, uniform_lattice
from hybridtumor.meshes.pieces import MIN_FILL, largest_piece
from hybridtumor.meshes.sizes import SLOPE_OF_EDGES, around_tumour
from hybridtumor.meshes.smooth import checked, meshed, tetwild_mesh
from hybridtumor.meshes.surface import SMALLEST_BUBBLE, Surface, smooth_brain_surface
from hybridtumor.tissue import TissueMap

RADIUS, VENTRICLE = 20.0, CENTRE - np.array([6, 0, 0])
SPACING = 2.0

needs_tetwild = pytest.mark.skipif(
    smooth.find_spec("pytetwild") is None, reason="the extra `mesh` (pytetwild) is not installed"
)


def ball(flip: bool = False) -> TissueMap:
    return ball_tissue(ball_grid((52, 50, 48), 1.0, flip))


@pytest.fixture(scope="module")
def surface() -> Surface:
    return smooth_brain_surface(ball(), SPACING)


@pytest.fixture(scope="module")
def mesh(surface: Surface) -> TetMesh:
    return tetwild_mesh(surface, 3.0, 300)


@pytest.fixture(scope="module")
def brain(mesh: TetMesh) -> BrainMesh:
    return brain_mesh_on(mesh, ball())


def stub(monkeypatch: pytest.MonkeyPatch, code: str, *arguments: str) -> None:
    """Put another program in the place of the mesher; its arguments end with order and mesh file."""
    monkeypatch.setattr(smooth, "find_spec", lambda name: object())
    monkeypatch.setattr(smooth, "WORKER", (sys.executable, "-c", textwrap.dedent(code), *arguments))


# --- the surface


def test_the_surface_is_closed_and_has_the_brains_volume(surface: Surface) -> None:
    assert surface.open_edges == 0
    assert surface.volume == pytest.approx(ball().parenchyma.sum(), rel=0.02)


def test_the_surface_follows_cortex_and_ventricle(surface: Surface) -> None:
    inner = np.linalg.norm(surface.points - VENTRICLE, axis=1) < 7
    outer = np.linalg.norm(surface.points[~inner] - CENTRE, axis=1)
    assert outer == pytest.approx(RADIUS, abs=0.5)
    assert np.linalg.norm(surface.points[inner] - VENTRICLE, axis=1) == pytest.approx(4, abs=0.6)
    edges = 3 * len(surface.triangles) // 2
    assert len(surface.points) - edges + len(surface.triangles) == 4  # Euler: two spheres


def test_the_surface_does_not_hang_on_the_axes_of_the_image(surface: Surface) -> None:
    other = smooth_brain_surface(ball(flip=True), SPACING)
    order, same = (np.lexsort(np.round(s.points, 4).T) for s in (surface, other))
    assert other.points[same] == pytest.approx(surface.points[order], abs=1e-4)
    assert other.volume == pytest.approx(surface.volume)


def test_a_brain_cut_by_the_image_has_a_closed_surface() -> None:
    whole = ball()
    cut = np.s_[15:, :, 10:35]
    grid = whole.grid.crop((15, 0, 10), (52, 50, 35))
    surface = smooth_brain_surface(TissueMap(whole.white[cut], whole.grey[cut], whole.csf[cut], grid), SPACING)
    assert surface.open_edges == 0
    assert surface.volume == pytest.approx((whole.white + whole.grey)[cut].sum(), rel=0.05)
    face = surface.points[:, 0] < grid.world((0.5, 0, 0))[0]
    assert surface.points[face, 0].min() == pytest.approx(grid.world((-0.5, 0, 0))[0], abs=0.3)


def test_bubbles_and_islands_are_closed_and_dropped(surface: Surface) -> None:
    whole = ball()
    white, grey = whole.white.copy(), whole.grey.copy()
    bubble = distance(whole.grid, CENTRE + np.array([0, 0, 9])) < 2.4
    assert 0 < bubble.sum() < SMALLEST_BUBBLE * SPACING**3
    white[bubble] = 0
    grey[distance(whole.grid, CENTRE + np.array([21.5, 10, 10])) < 2] = 1
    other = smooth_brain_surface(TissueMap(white, grey, np.zeros_like(white), whole.grid), SPACING)
    assert len(other.points) - len(other.triangles) / 2 == 4
    assert other.volume == pytest.approx(surface.volume, rel=0.01)


def test_an_open_surface_is_refused(surface: Surface) -> None:
    torn = Surface(surface.points, surface.triangles[1:], SPACING)
    assert torn.open_edges > 0
    with pytest.raises(InputError, match="closed"):
        tetwild_mesh(torn, 3.0, 10)
    with pytest.raises(InputError, match="closed"):
        tetwild_mesh(Surface(surface.points, surface.triangles[:, ::-1], SPACING), 3.0, 10)


@pytest.mark.parametrize("spacing", [0.0, -1.0, np.inf, np.nan])
def test_a_spacing_that_cannot_be_is_refused(spacing: float) -> None:
    with pytest.raises(InputError, match="spacing"):
        smooth_brain_surface(ball(), spacing)


def test_a_brain_thinner_than_the_spacing_is_refused() -> None:
    white = np.zeros((30, 30, 12), np.float32)
    white[2:28, 2:28, 6] = 1
    with pytest.raises(InputError, match="thicker"):
        smooth_brain_surface(TissueMap(white, 0 * white, 0 * white, Grid((30, 30, 12), np.eye(4))), 6.0)


# --- the mesh


@pytest.mark.law("mesh", "The smooth mesh fills its closed surface")
@needs_tetwild
def test_the_mesh_fills_the_surface(mesh: TetMesh, surface: Surface, figure: Figure) -> None:
    assert mesh.volumes.min() > 0
    figure("difference of volume", abs(mesh.volumes.sum() / surface.volume - 1), at_most=0.02)
    assert largest_piece(mesh).all()
    _, faces = quality.face_neighbours(mesh)
    skin = mesh.points[np.unique(faces)]
    inner = np.linalg.norm(skin - VENTRICLE, axis=1) < 7
    assert inner.any()
    off = np.abs(np.linalg.norm(skin[~inner] - CENTRE, axis=1) - RADIUS)
    assert off.max() < smooth.ENVELOPE * SPACING + 0.5  # the surface's own distance from the ball
    assert 0.5 * 3 < np.median(quality.edge_lengths(mesh)) < 1.5 * 3
    angles = quality.dihedral_angles(mesh)
    assert angles.min() > 1  # fTetWild gives another mesh every time; 4.3° to 15° were seen
    assert angles.max() < 178


@needs_tetwild
def test_the_mesher_leaves_nothing_behind(surface: Surface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(smooth.tempfile, "tempdir", str(tmp_path / "temporary"))
    tetwild_mesh(surface, 6.0, 300)
    assert not list(tmp_path.glob("*/*"))


@needs_tetwild
def test_cells_are_fine_around_the_tumour_and_coarse_elsewhere() -> None:
    tissue = ball()
    density = ball_density(tissue.grid, tissue).values
    size = around_tumour(density, tissue.grid, margin_mm=0, finest=1.5, coarsest=6, slope=SLOPE_OF_EDGES)
    graded = tetwild_mesh(smooth_brain_surface(tissue, 4.0), 6.0, 300, size=size)
    edge = np.cbrt(graded.volumes * np.sqrt(72))
    far = np.linalg.norm(graded.corners.mean(0).T - TUMOUR, axis=1)
    assert np.median(edge[far < 6]) < 2.2
    assert np.median(edge[far > 24]) > 2 * np.median(edge[far < 6])


def test_sizes_around_a_tumour() -> None:
    tissue = ball()
    density = np.zeros(tissue.grid.shape)
    index = tuple(np.rint(tissue.grid.index(TUMOUR)).astype(int))
    density[index] = 1
    size = around_tumour(density, tissue.grid, margin_mm=5, finest=2, coarsest=8, slope=SLOPE_OF_EDGES)
    points = tissue.grid.world(np.array(index)) + np.array([[0, 0, 0], [0, 4.9, 0], [0, 0, 15.0], [99.0, 0, 0]])
    assert size(points) == pytest.approx([2, 2, 2 + SLOPE_OF_EDGES * 10, 8])
    nowhere = around_tumour(0 * density, tissue.grid, margin_mm=5, finest=2, coarsest=8, slope=SLOPE_OF_EDGES)
    assert nowhere(points) == pytest.approx(8)
    for sizes in ({"finest": 0, "coarsest": 8}, {"finest": 9, "coarsest": 8}):
        with pytest.raises(InputError, match="cell size"):
            around_tumour(density, tissue.grid, margin_mm=5, **sizes)
    with pytest.raises(InputError, match="shape"):
        around_tumour(density[1:], tissue.grid, margin_mm=5, finest=2, coarsest=8, slope=SLOPE_OF_EDGES)


# --- the brain on it


@pytest.mark.law("mesh", "The smooth mesh conserves the burden, both ways")
@needs_tetwild
def test_the_burden_is_conserved_both_ways(brain: BrainMesh, figure: Figure) -> None:
    tissue, transfer = ball(), brain.transfer
    values = np.random.default_rng(3).uniform(0.1, 0.9, tissue.grid.shape) * tissue.parenchyma
    nodal, volume = transfer.to_mesh(values), tissue.grid.voxel_volume
    assert transfer.node_volume.sum() == pytest.approx(tissue.parenchyma.sum() * volume, rel=1e-12)
    there, back = transfer.node_volume @ nodal, transfer.to_grid(nodal).sum() * volume
    figure("change", np.abs(np.array([there, back]) / (values.sum() * volume) - 1), at_most=1e-12)
    assert 0.1 <= nodal.min() <= nodal.max() <= 0.9
    assert transfer.to_mesh(np.full(tissue.grid.shape, 0.7)) == pytest.approx(0.7, rel=1e-12)


@needs_tetwild
def test_the_brain_on_the_mesh(brain: BrainMesh) -> None:
    assert largest_piece(brain.mesh).all()
    assert brain.white + brain.grey == pytest.approx(1)
    assert brain.white.min() >= 0
    assert brain.fraction.min() > 0
    assert brain.fraction.max() <= 1
    assert (brain.transfer.node_volume >= MIN_FILL * quality.vertex_volumes(brain.mesh)).all()
    radius = np.linalg.norm(brain.mesh.corners.mean(0).T - CENTRE, axis=1)
    near_ventricle = np.linalg.norm(brain.mesh.corners.mean(0).T - VENTRICLE, axis=1) < 9
    assert brain.white[(radius < 9) & ~near_ventricle] == pytest.approx(1, abs=1e-5)
    assert brain.white[radius > 18].max() < 0.01


def test_no_vertex_passes_on_what_it_does_not_hold() -> None:
    tissue = ball()
    shell = uniform_lattice(CENTRE - 24, CENTRE + 24, 4.0)
    brain = brain_mesh_on(shell, tissue)
    full = quality.stiffness_diagonal(brain.mesh) / quality.vertex_volumes(brain.mesh)
    stiff = quality.stiffness_diagonal(brain.mesh, brain.fraction) / brain.transfer.node_volume
    assert (stiff <= STIFFNESS_CAP * full * (1 + 1e-9)).all()
    assert (brain.fraction < MIN_SHARE).any()  # the cap was at work
    inner = np.linalg.norm(brain.mesh.points - CENTRE, axis=1) < 12
    assert stiff[inner].max() > 0.9 * full[inner].max()


def test_labels_say_what_a_cell_is() -> None:
    tissue = ball()
    mesh = uniform_lattice(CENTRE - 24, CENTRE + 24, 4.0)
    x, y, _ = (mesh.corners.mean(0).T - CENTRE).T
    labels = np.where(x > 8, "grey", np.where(y > 8, "white", np.where(y < -8, "csf", "")))
    brain = brain_mesh_on(mesh, tissue, labels)
    x, y, _ = (brain.mesh.corners.mean(0).T - CENTRE).T
    assert (brain.grey[x > 8] == 1).all()
    assert (brain.white[(x <= 8) & (y > 8)] == 1).all()
    assert not ((x <= 8) & (y < -8)).any()
    assert (x > 8).any()
    with pytest.raises(InputError, match="white, grey, csf"):
        brain_mesh_on(mesh, tissue, np.where(labels == "grey", "bone", labels))
    with pytest.raises(InputError, match="white, grey, csf"):
        brain_mesh_on(mesh, tissue, labels[1:])


def test_a_mesh_beside_the_brain_is_refused() -> None:
    with pytest.raises(InputError, match="units"):
        brain_mesh_on(uniform_lattice(CENTRE + 100, CENTRE + 120, 5.0), ball())


# --- when it fails


def test_a_mesher_that_does_not_end_is_stopped(
    monkeypatch: pytest.MonkeyPatch, surface: Surface, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    stub(
        monkeypatch,
        "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)",
        str(told),
    )
    with pytest.raises(ResourceError, match="within 3 s"):
        tetwild_mesh(surface, 3.0, 3)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


def test_a_mesher_that_crashes_tells_why(monkeypatch: pytest.MonkeyPatch, surface: Surface) -> None:
    stub(monkeypatch, "raise ValueError('no room')")
    with pytest.raises(ConvergenceError, match="no room"):
        tetwild_mesh(surface, 3.0, 60)
    stub(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ConvergenceError, match="-11"):
        tetwild_mesh(surface, 3.0, 60)
    stub(monkeypatch, "import sys; open(sys.argv[-1], 'wb').write(b'garbage')")
    with pytest.raises(ConvergenceError, match="cannot be read"):
        tetwild_mesh(surface, 3.0, 60)


def test_an_order_carries_the_surface_and_no_pickles(monkeypatch: pytest.MonkeyPatch, surface: Surface) -> None:
    code = """
        import sys, numpy as np
        order = np.load(sys.argv[1], allow_pickle=False)
        names = sorted(order)
        assert names == ["cpu_s", "edge_mm", "envelope_mm", "points", "triangles"], names
        assert all(order[n].dtype.kind in "if" for n in names)
        assert order["edge_mm"] == 3 and order["envelope_mm"] == 0.5
        sys.exit("well ordered")
    """
    stub(monkeypatch, code)
    with pytest.raises(ConvergenceError, match="well ordered"):
        tetwild_mesh(surface, 3.0, 60)


def box() -> tuple[TetMesh, Surface]:
    mesh = uniform_lattice([0, 0, 0], [12, 12, 12], 3.0)
    _, faces = quality.face_neighbours(mesh)
    outward = faces.copy()
    normal = np.cross(*(mesh.points[faces[:, k]] - mesh.points[faces[:, 0]] for k in (1, 2)))
    inward = np.einsum("fd,fd->f", normal, mesh.points[faces].mean(1) - 6) < 0
    outward[inward] = outward[inward][:, ::-1]
    return mesh, Surface(mesh.points, outward, 3.0)


def test_a_mesh_is_checked() -> None:
    mesh, surface = box()
    assert surface.open_edges == 0
    assert surface.volume == pytest.approx(12**3)
    assert np.array_equal(checked(mesh.points, mesh.cells, surface).cells, mesh.cells)
    mirrored = checked(mesh.points, mesh.cells[:, [1, 0, 2, 3]], surface)
    assert mirrored.volumes == pytest.approx(mesh.volumes)
    one = mesh.cells.copy()
    one[7] = one[7, [1, 0, 2, 3]]
    with pytest.raises(ConvergenceError, match="1 inverted or flat"):
        checked(mesh.points, one, surface)
    flat = mesh.points.copy()
    moved = mesh.cells[0]
    flat[moved[0]] = flat[moved[1:]].mean(0)
    with pytest.raises(ConvergenceError, match="inverted or flat"):
        checked(flat, mesh.cells, surface)
    half = mesh.corners.mean(0)[0] < 9
    with pytest.raises(ConvergenceError, match="volume"):
        checked(mesh.points, mesh.cells[half], surface)
    with pytest.raises(ConvergenceError, match="none"):
        checked(mesh.points, mesh.cells[:0], surface)
    with pytest.raises(ConvergenceError, match="none"):
        checked(mesh.points * np.nan, mesh.cells, surface)


ARGUMENTS: dict[str, Any] = {"margin_mm": 2.0, "cell_size_mm": 4.0, "coarsest_mm": 8.0}


@pytest.mark.parametrize("case", ["crash", "no extra"])
def test_the_lattice_takes_its_place(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    tissue = ball()
    density = ball_density(tissue.grid, tissue).values
    if case == "crash":
        stub(monkeypatch, "raise ValueError('no room')")
    else:
        monkeypatch.setattr(smooth, "find_spec", lambda name: None)
    with pytest.warns(RuntimeWarning, match="no room" if case == "crash" else r"hybridtumor\[mesh\]"):
        brain, method = meshed(tissue, density, **ARGUMENTS)
    assert method == "lattice"
    expected = smooth.brain_mesh(tissue, density, **ARGUMENTS)
    assert np.array_equal(brain.mesh.points, expected.mesh.points)
    assert np.array_equal(brain.fraction, expected.fraction)


@needs_tetwild
def test_a_smooth_mesh_is_told_as_such() -> None:
    tissue = ball()
    brain, method = meshed(tissue, ball_density(tissue.grid, tissue).values, **ARGUMENTS)
    assert method == "tetwild"
    assert brain.mesh.volumes.sum() == pytest.approx(tissue.parenchyma.sum(), rel=0.1)  # 4 mm on a ball of 20 mm
