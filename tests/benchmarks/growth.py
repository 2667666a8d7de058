"""Growth on the MNI brain for 180 days: finite elements against explicit finite differences, in one run.

`python tests/benchmarks/growth_oracle.py "2 mm" "3 mm"` prints one JSON object.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import finite_difference
from mni_brain import dice, mni_brain, mni_tumour

from hybridtumor.parameters import GrowthParameters
from hybridtumor.simulate import CELL_SIZE, TOLERANCE, GrowthSimulation

DAYS = 180


def main(cell_sizes: list[str]) -> dict[str, object]:
    tissue, growth = mni_brain(), GrowthParameters()
    tumour, domain = mni_tumour(tissue), tissue.parenchyma
    diffusivity = growth.diffusion_white * tissue.white + growth.diffusion_grey * tissue.grey
    start = time.perf_counter()
    oracle = finite_difference.grow(tumour.values, diffusivity, domain, 1.0, growth.proliferation, DAYS, step=1.0)
    oracle_seconds = time.perf_counter() - start
    meshes = {}
    for cell_size in cell_sizes:
        simulation = GrowthSimulation.prepare(tissue, tumour, growth, DAYS, cell_size=cell_size)
        forecast = simulation.run(days=(0, DAYS))
        ours, figures = forecast.density[-1], forecast.figures
        total = sum(value for name, value in figures.items() if name.startswith("seconds_"))
        exact = simulation.run(days=(0, DAYS), tolerance=1e-7).burden[-1]
        meshes[cell_size] = {
            "dofs": figures["dofs"],
            "cells": figures["cells"],
            "steps": figures["steps"],
            "products": figures["products"],
            "exchange_rate_per_day": figures["exchange_rate_per_day"],
            "positive_offdiagonal_share": figures["positive_offdiagonal_share"],
            "positive_offdiagonal_size": figures["positive_offdiagonal_size"],
            "seconds": {name.removeprefix("seconds_"): v for name, v in figures.items() if name.startswith("seconds_")},
            "oracle_over_solve_seconds": oracle_seconds / figures["seconds_solve"],
            "oracle_over_total_seconds": oracle_seconds / total,
            "voxels_per_dof": np.count_nonzero(domain) / figures["dofs"],
            "burden_over_oracle": float(ours.sum(dtype=float) / oracle.sum(dtype=float)),
            "dice_at_half": dice(ours > 0.5, oracle > 0.5),
            "time_error_of_burden": forecast.burden[-1] / exact - 1,
        }
    return {
        "days": DAYS,
        "tolerance": TOLERANCE,
        "ranks": simulation.domain.comm.size,
        "oracle": {"voxels": int(np.count_nonzero(domain)), "seconds": oracle_seconds},
        "finite_elements": meshes,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:] or [CELL_SIZE]), indent=1))
