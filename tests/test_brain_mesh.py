"""The brain's mesh is one piece, fine around the tumour, and no vertex is stiffer than the cap."""

import numpy as np
import pytest
from figures import Figure

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.meshes import quality
from hybridtumor.meshes.brain import STIFFNESS_CAP, BrainMesh, brain_mesh
from hybridtumor.meshes.pieces import MIN_FILL
from hybridtumor.tissue import TissueMap


def phantom(grid: Grid) -> tuple[TissueMap, np.ndarray]:
    """A wavy ball of cortex around white matter with a ventricle and a separate island, and a tumour of 5 mm."""
    x = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    r = np.linalg.norm(x, axis=-1)
    outer = 26 + 2 * np.sin(x[..., 0] / 2) * np.sin(x[..., 1] / 3)
    ventricle = np.linalg.norm((x - [0, 0, 4]) / [4, 10, 4], axis=-1) < 1
    inside = (r < outer) & ~ventricle
    inside |= np.linalg.norm(x - [29, 29, 0], axis=-1) < 4
    white = np.where(inside, np.clip((outer - 5 - r) / 3, 0, 1), 0)
    grey = np.where(inside, 1 - white, 0)
    tissue = TissueMap(white, grey, np.where(inside, 0, r < 34), grid)
    return tissue, np.where(inside, np.exp(-(((np.linalg.norm(x - [12, 0, 0], axis=-1)) / 3) ** 2)), 0)


def grid_of(voxel: tuple[float, float, float]) -> Grid:
    size = np.array(voxel)
    n = np.ceil(72 / size).astype(int)
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -(n - 1) / 2 * size + 0.13
    return Grid((int(n[0]), int(n[1]), int(n[2])), affine)


CASES = {
    "1 mm": ((1.0, 1.0, 1.0), 2.0),
    "1x1x5 mm": ((1.0, 1.0, 5.0), 2.0),
    "3 mm cells": ((1.0, 1.0, 1.0), 3.0),
    "6 mm cells": ((1.5, 1.5, 1.5), 6.0),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[BrainMesh, TissueMap, np.ndarray, float]:
    voxel, cell_size = CASES[request.param]
    tissue, density = phantom(grid_of(voxel))
    return brain_mesh(tissue, density, margin_mm=6, cell_size_mm=cell_size), tissue, density, cell_size


def test_one_piece(case: tuple[BrainMesh, TissueMap, np.ndarray, float]) -> None:
    mesh = case[0].mesh
    pairs, _ = quality.face_neighbours(mesh)
    seen, front = np.zeros(len(mesh.cells), bool), np.array([0])
    while len(front):
        seen[front] = True
        near = pairs[seen[pairs].any(1)].ravel()
        front = np.unique(near[~seen[near]])
    assert seen.all()
    assert mesh.volumes.min() > 0
    assert np.array_equal(np.unique(mesh.cells), np.arange(len(mesh.points)))


def test_tissue_of_cells(case: tuple[BrainMesh, TissueMap, np.ndarray, float]) -> None:
    brain, tissue, _, _ = case
    assert brain.white + brain.grey == pytest.approx(1)
    assert brain.white.min() >= 0
    assert brain.grey.min() >= 0
    assert brain.fraction.min() > 0
    assert brain.fraction.max() <= 1 + 1e-6
    domain = tissue.parenchyma
    mean = (brain.white * brain.mesh.volumes).sum() / brain.mesh.volumes.sum()
    assert mean == pytest.approx(tissue.white[domain].mean(), abs=0.06)


@pytest.mark.law("mesh", "The brain's mesh holds the whole burden of a tumour at the rim")
def test_burden_of_the_tumour_is_whole(case: tuple[BrainMesh, TissueMap, np.ndarray, float], figure: Figure) -> None:
    brain, tissue, density, _ = case
    transfer = brain.transfer
    inside = np.where(tissue.parenchyma, density, 0)
    assert np.array_equal(transfer.domain, tissue.parenchyma)
    burden = transfer.node_volume @ transfer.to_mesh(density)
    figure("error", abs(burden / (inside.sum() * tissue.grid.voxel_volume) - 1), at_most=1e-12)


def test_every_vertex_holds_some_tissue(case: tuple[BrainMesh, TissueMap, np.ndarray, float]) -> None:
    brain = case[0]
    assert (brain.transfer.node_volume >= MIN_FILL * quality.vertex_volumes(brain.mesh) * (1 - 1e-9)).all()


def test_no_vertex_is_stiffer_than_the_cap(case: tuple[BrainMesh, TissueMap, np.ndarray, float]) -> None:
    brain, _, _, cell_size = case
    ratio = quality.stiffness_diagonal(brain.mesh, brain.fraction) / brain.transfer.node_volume
    assert ratio.max() <= STIFFNESS_CAP * 8 / cell_size**2 * (1 + 1e-9)


def test_fine_around_the_tumour_and_coarse_far_away(case: tuple[BrainMesh, TissueMap, np.ndarray, float]) -> None:
    brain, _, _, cell_size = case
    edge = np.cbrt(12 * brain.mesh.volumes)
    far = np.linalg.norm(brain.mesh.corners.mean(0).T - [12, 0, 0], axis=1)
    reach = 3 * np.sqrt(np.log(100)) + 6 - cell_size  # where exp(−r²/9) falls to 0.01, and the margin
    assert edge[far < reach].max() < 1.3 * cell_size
    if cell_size < 4:
        assert edge.max() > 1.9 * cell_size


def test_the_mesh_follows_the_world_not_the_axes() -> None:
    tissue, density = phantom(grid_of((1.5, 1.5, 3.0)))
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = tissue.grid.shape[0] - 1
    affine = tissue.grid.affine @ flip
    other = TissueMap(
        *(np.flip(a, 0).transpose(1, 0, 2) for a in (tissue.white, tissue.grey, tissue.csf)),
        Grid((tissue.grid.shape[1], tissue.grid.shape[0], tissue.grid.shape[2]), affine @ np.eye(4)[:, [1, 0, 2, 3]]),
    )
    first = brain_mesh(tissue, density, margin_mm=6, cell_size_mm=3)
    second = brain_mesh(other, np.flip(density, 0).transpose(1, 0, 2), margin_mm=6, cell_size_mm=3)
    assert second.mesh.points == pytest.approx(first.mesh.points)
    assert np.array_equal(second.mesh.cells, first.mesh.cells)
    assert second.fraction == pytest.approx(first.fraction, abs=1e-6)
    u = first.transfer.to_mesh(density)
    assert second.transfer.to_mesh(np.flip(density, 0).transpose(1, 0, 2)) == pytest.approx(u, abs=1e-9)


def test_without_a_tumour_all_cells_are_coarse() -> None:
    tissue, density = phantom(grid_of((1.5, 1.5, 1.5)))
    brain = brain_mesh(tissue, np.zeros_like(density), margin_mm=6, cell_size_mm=2)
    assert np.cbrt(12 * brain.mesh.volumes).min() > 6


def test_a_sheet_thinner_than_the_cells_still_gives_one_mesh() -> None:
    grid = Grid((40, 40, 12), np.diag([1.0, 1.0, 1.0, 1.0]))
    white = np.zeros(grid.shape)
    white[2:38, 2:38, 5:7] = 1
    tissue = TissueMap(white, np.zeros(grid.shape), np.zeros(grid.shape), grid)
    brain = brain_mesh(tissue, white * 0.5, margin_mm=10, cell_size_mm=3)
    assert brain.transfer.node_volume.sum() == pytest.approx(white.sum())


def test_a_bridge_too_thin_for_the_cells_leaves_one_piece() -> None:
    grid = Grid((52, 24, 24), np.eye(4))
    white = np.zeros(grid.shape)
    white[2:22, 2:22, 2:22] = 1
    white[30:50, 2:22, 2:22] = 1
    white[22:30, 12, 12] = 1
    tissue = TissueMap(white, np.zeros(grid.shape), np.zeros(grid.shape), grid)
    assert tissue.parenchyma.sum() == white.sum()
    brain = brain_mesh(tissue, white * 0.5, margin_mm=10, cell_size_mm=4)
    pieces = brain.mesh.corners[:, 0].mean(0) < 26
    assert pieces.all() or not pieces.any()
    assert brain.transfer.to_mesh(white * 0.5) @ brain.transfer.node_volume == pytest.approx(white.sum() / 2)


@pytest.mark.parametrize(("cell_size", "coarsest", "margin"), [(0, 8, 5), (9, 8, 5), (2, 8, -1), (2, 8, np.inf)])
def test_bad_sizes_are_refused(cell_size: float, coarsest: float, margin: float) -> None:
    tissue, density = phantom(grid_of((3.0, 3.0, 3.0)))
    with pytest.raises(InputError, match="cell size"):
        brain_mesh(tissue, density, margin_mm=margin, cell_size_mm=cell_size, coarsest_mm=coarsest)


def test_a_density_of_another_shape_is_refused() -> None:
    tissue, density = phantom(grid_of((3.0, 3.0, 3.0)))
    with pytest.raises(InputError, match="shape"):
        brain_mesh(tissue, density[1:], margin_mm=3)
