"""On the MNI brain the solver at its default cell size agrees with explicit finite differences at 1 mm."""

import time
from collections.abc import Callable

import finite_difference
import numpy as np
import pytest
from mni_brain import around, dice, mni_brain, mni_tumour

from hybridtumor.parameters import GrowthParameters
from hybridtumor.simulate import GrowthSimulation

DAYS = 180


def test_half_a_year_of_growth_agrees_with_finite_differences(record_property: Callable[[str, object], None]) -> None:
    tissue, growth = mni_brain(), GrowthParameters()
    tumour = mni_tumour(tissue)
    simulation = GrowthSimulation.prepare(tissue, tumour, growth, DAYS)
    forecast = simulation.run(days=(0, DAYS))
    start = time.perf_counter()
    # 45 mm beyond the tumour nothing happens in half a year; the rest of the brain is left out to save time
    domain = tissue.parenchyma & around(tumour.values > 0.01, 45)
    diffusivity = growth.diffusion_white * tissue.white + growth.diffusion_grey * tissue.grey
    oracle = finite_difference.grow(tumour.values, diffusivity, domain, 1.0, growth.proliferation, DAYS, step=1.0)
    seconds = time.perf_counter() - start
    ours = forecast.density[-1]
    burden = float(ours.sum(dtype=float) / oracle.sum(dtype=float))
    overlap = dice(ours > 0.5, oracle > 0.5)
    for name, value in {"burden": burden, "dice": overlap, "seconds_oracle": seconds, **forecast.figures}.items():
        record_property(name, value)
    assert burden == pytest.approx(1, abs=0.03)
    assert overlap >= 0.95
    assert forecast.figures["dofs"] < np.count_nonzero(domain) / 4
    assert oracle[domain].max() <= 1
