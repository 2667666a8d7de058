"""On the MNI brain the solver at its default cell size agrees with explicit finite differences at 1 mm."""

import finite_difference
import numpy as np
import pytest
from figures import Figure
from mni_brain import around, dice, mni_brain, mni_tumour

from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.parameters import GrowthParameters

DAYS = 180


@pytest.mark.law("growth", "Half a year on the MNI brain: our default against explicit finite differences at 1 mm")
def test_half_a_year_of_growth_agrees_with_finite_differences(figure: Figure) -> None:
    tissue, growth = mni_brain(), GrowthParameters()
    tumour = mni_tumour(tissue)
    simulation = GrowthSimulation.prepare(tissue, tumour, growth, DAYS)
    forecast = simulation.run(days=(0, DAYS))
    # 45 mm beyond the tumour nothing happens in half a year; the rest of the brain is left out to save time
    domain = tissue.parenchyma & around(tumour.values > 0.01, 45)
    total = np.where(domain, tissue.white + tissue.grey, 1)
    diffusivity = (
        np.where(domain, growth.diffusion_white * tissue.white + growth.diffusion_grey * tissue.grey, 0) / total
    )
    oracle = finite_difference.grow(tumour.values, diffusivity, domain, growth.proliferation, DAYS, DAYS)
    ours = forecast.density[-1]
    figure("more burden", 100 * (ours.sum(dtype=float) / oracle.sum(dtype=float) - 1), "%", at_least=-1, at_most=1)
    figure("Dice above 0.5", dice(ours > 0.5, oracle > 0.5), at_least=0.98)
    figure("Dice above 0.1", dice(ours > 0.1, oracle > 0.1), at_least=0.97)
    figure("unknowns / theirs", forecast.figures["dofs"] / np.count_nonzero(domain), at_most=1 / 20)
    assert oracle[domain].max() <= 1
