"""The gradient on the MNI brain, 180 days with radiation and temozolomide, against a forward solve.

`python tests/benchmarks/adjoint.py [--cell-size 2mm] [--checkpoints 400]` prints one JSON object: CPU seconds on one
thread and ratios of one run. A forward solve is `GrowthSimulation.run`'s time loop with steps that adapt; a frozen one
takes the same steps without estimating their error.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from mni_brain import mni_brain, mni_tumour

from hybridtumor.growth_gradient import GrowthGradient
from hybridtumor.growth_simulation import TOLERANCE, GrowthSimulation
from hybridtumor.parameters import GrowthParameters
from hybridtumor.solvers.cells import Cells
from hybridtumor.solvers.growth import grow
from hybridtumor.solvers.time_grid import StepControl
from hybridtumor.therapy import Chemotherapy, DoseMap, Fractionation, TherapyPlan

DAYS, REPEATS = (0.0, 90.0, 180.0), 3


def main(cell_size: str, checkpoints: int) -> dict[str, object]:
    tissue = mni_brain()
    tumour = mni_tumour(tissue)
    dose = DoseMap((60 * np.minimum(1, 3 * tumour.values)).astype(np.float32), tumour.grid)
    plan = TherapyPlan.of(Fractionation(dose, 30, 14), Chemotherapy.temozolomide(14))
    simulation = GrowthSimulation.prepare(tissue, tumour, GrowthParameters(), DAYS[-1], cell_size=cell_size)
    gradient = GrowthGradient(simulation, plan, DAYS)
    volume = simulation.diffusion.volume

    def burden(cells: dict[float, Cells]) -> tuple[float, dict[float, Cells]]:
        return float(volume @ cells[180.0].living), {180.0: Cells(volume)}

    def gradient_with(**wanted: bool) -> Callable[[], object]:
        adjoint = gradient.adjoint(checkpoints=checkpoints, **wanted)
        return lambda: adjoint.value_and_slopes(gradient.initial, burden)

    adjoint = gradient.adjoint()
    control = StepControl(TOLERANCE, longest=20.0)
    jobs = {
        "forward": lambda: grow(
            simulation.diffusion,
            simulation.growth,
            gradient.kill,
            gradient.initial,
            DAYS,
            control,
            clearance_half_time=gradient.response.clearance_half_time,
        ),
        "frozen": lambda: adjoint.cells(gradient.initial),
        "gradient": gradient_with(),
        "gradient_grey": gradient_with(grey=True),
        "gradient_dose": gradient_with(fields=True),
    }
    seconds = {name: statistics.median(_seconds(job) for _ in range(REPEATS)) for name, job in jobs.items()}
    ratios = {
        f"{name}_over_{base}": round(seconds[name] / seconds[base], 2)
        for name in seconds
        for base in ("forward", "frozen")
        if name.startswith("gradient")
    }
    return {
        "dofs": int(volume.size),
        "steps": len(gradient.steps) - 1,
        **{f"seconds_{name}": round(value, 3) for name, value in seconds.items()},
        **ratios,
    }


def _seconds(job: Callable[[], object]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cell-size", default="2 mm")
    parser.add_argument("--checkpoints", type=int, default=400)
    options = parser.parse_args()
    print(json.dumps(main(options.cell_size, options.checkpoints), indent=1))
