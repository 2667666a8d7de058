"""A patient's diffusion tensor, from the folder to the forecast."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ball_brain import TUMOUR, ball_density, ball_grid, ball_tissue
from figures import Figure
from small_run import small_patient

from hybridtumor.diffusion_tensor import DiffusionTensor
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.parameters import GrowthParameters
from hybridtumor.patient import Patient
from hybridtumor.simulate import simulate

DAYS = (0, 90)


def tensor(grid: Grid, eigenvalues: tuple[float, float, float]) -> DiffusionTensor:
    return DiffusionTensor(np.broadcast_to(np.diag(eigenvalues), (*grid.shape, 3, 3)), grid)


def spread(density: np.ndarray, grid: Grid) -> np.ndarray:
    """Second moments of a density about the tumour's centre along the world's axes, mm²."""
    offset = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - TUMOUR
    return (density[..., None] * offset**2).sum((0, 1, 2)) / density.sum()


@pytest.mark.law("tensor", "A tensor that is isotropic gives the scalar forecast")
def test_an_isotropic_tensor_changes_nothing(figure: Figure) -> None:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    density = ball_density(grid, tissue)
    plain, isotropic = (
        GrowthSimulation.prepare(tissue, density, horizon=90, tensor=t, cell_size="3 mm").run(days=DAYS)
        for t in (None, tensor(grid, (0.7, 0.7, 0.7)))
    )
    figure("difference of density", np.abs(plain.density[-1] - isotropic.density[-1]).max(), at_most=2e-3)
    assert isotropic.burden[-1] == pytest.approx(plain.burden[-1], rel=1e-3)


@pytest.mark.law("tensor", "A tumour grows farther along the tracts, and farther still when they are sharpened")
def test_a_tumour_follows_the_tracts(figure: Figure) -> None:
    grid = ball_grid()
    tissue = ball_tissue(grid)
    density = ball_density(grid, tissue, radius=4.0)
    ratios = []
    for factor in (1.0, 4.0):
        growth = GrowthParameters(anisotropy=factor)
        simulation = GrowthSimulation.prepare(
            tissue, density, growth, 90, tensor=tensor(grid, (1.6, 0.5, 0.5)), cell_size="3 mm"
        )
        x, y, z = spread(simulation.run(days=DAYS).density[-1], grid)
        assert y == pytest.approx(z, rel=0.1)
        ratios.append(x / y)
    figure("variance along over across", ratios, at_least=1.2)
    assert ratios[1] > 1.1 * ratios[0]


def test_a_patient_keeps_its_tensor(tmp_path: Path) -> None:
    patient = small_patient()
    other = Grid((20, 20, 20), patient.grid.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    patient = replace(patient, diffusion_tensor=tensor(other, (1.6, 0.5, 0.3)))
    patient.save(tmp_path / "p")
    again = Patient.load(tmp_path / "p").diffusion_tensor
    assert again is not None
    np.testing.assert_allclose(again.values, tensor(other, (1.6, 0.5, 0.3)).values, rtol=1e-6)
    assert again.grid.same_as(other)
    forecast = simulate(patient, days=(0, 20), cell_size="4 mm")
    assert forecast.figures["positive_offdiagonal_share"] > 0.01


def test_a_tensor_that_misses_the_brain_is_refused(tmp_path: Path) -> None:
    patient = small_patient()
    far = patient.grid.affine.copy()
    far[:3, 3] += 30
    patient = replace(patient, diffusion_tensor=tensor(Grid(patient.grid.shape, far), (1.6, 0.5, 0.3)))
    patient.save(tmp_path / "p")
    with pytest.raises(InputError, match=r"covers the brain.*registered"):
        Patient.load(tmp_path / "p")
