"""Draws of a posterior on the demonstration's three arms: their cost, and the error of the mesh that they share.

`python tests/benchmarks/draws.py [--draws 32] [--workers 2] [--spread 0.3]` prints one JSON object. The posterior is
log-normal around the demonstration's parameters, all with one spread. ``error_of_shared_mesh`` is the untreated burden
of the draw with the steepest front, on day 180 on the estimate's mesh, over that on its own mesh, minus one.
"""

import argparse
import json
import os
import sys
import time

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"

from hybridtumor.calibration_file import UNITS, CalibratedParameter, Calibration
from hybridtumor.demo import demo_scenario
from hybridtumor.draws import DrawSetting, simulate_draw
from hybridtumor.draws_pool import run_draws
from hybridtumor.draws_summary import draws_figures
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.prepare import load_patient


def posterior(spread: float) -> Calibration:
    """Return the demonstration's parameters, each ln-normal and independent."""
    scenario, _ = demo_scenario()
    values = {
        "diffusion_white": scenario.growth.diffusion_white,
        "proliferation": scenario.growth.proliferation,
        "alpha": scenario.response.alpha,
        "temozolomide": scenario.response.temozolomide,
    }
    ends = (1 / 20, 20)
    parameters = tuple(
        CalibratedParameter(
            name=name, unit=UNITS[name], scale="log", estimate=value, interval=(value, value),
            bounds=(ends[0] * value, ends[1] * value),
        )
        for name, value in values.items()
    )  # fmt: skip
    covariance = tuple(tuple(spread**2 * (i == j) for j in range(len(values))) for i in range(len(values)))
    return Calibration(patient="mni152", parameters=parameters, covariance=covariance, fixed={"grey_ratio": 0.1})


def main(count: int, workers: int, spread: float) -> dict[str, object]:
    scenario, cell_size = demo_scenario()
    patient, calibration = load_patient(scenario.patient, scenario.growth), posterior(spread)
    plans, law = scenario.plans(patient), scenario.growth

    def prepared(growth: object) -> GrowthSimulation:
        return GrowthSimulation.prepare(
            patient.tissue, patient.density, growth, scenario.horizon, cell_size=cell_size, tensor=None
        )

    simulation = prepared(law)
    setting = DrawSetting.of(simulation, patient, scenario, plans, calibration)
    draws = calibration.draw(count, seed=0)
    start = time.process_time()
    simulate_draw(simulation, setting, calibration.estimate)
    alone = time.process_time() - start
    start = time.perf_counter()
    found = run_draws(setting, draws, workers, simulation, lambda _: None)
    wall = time.perf_counter() - start
    figures = draws_figures(found, setting, 0)
    laws = [calibration.growth(law, values) for values in draws]
    steepest = min(range(count), key=lambda k: laws[k].front_width)
    own = DrawSetting.of(prepared(laws[steepest]), patient, scenario, {"untreated": plans["untreated"]}, calibration)
    finer = simulate_draw(own.simulation(), own, draws[steepest])[1]["untreated"].burden[-1]
    return {
        "draws": count,
        "workers": workers,
        "arms": len(plans),
        "cpu_seconds_of_one_draw": round(alone, 2),
        "wall_seconds_of_all": round(wall, 1),
        "wall_over_cpu_of_so_many": round(wall / (alone * count), 3),
        "steepest_front_over_estimates": round(laws[steepest].front_width / law.front_width, 3),
        "error_of_shared_mesh": round(found[steepest][1]["untreated"].burden[-1] / finer - 1, 4),
        "pairs": {f"{p['arm']} beats {p['against']}": [p["beats"], *p["interval"]] for p in figures["pairs"]},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--spread", type=float, default=0.3)
    given = parser.parse_args()
    json.dump(main(given.draws, given.workers, given.spread), sys.stdout, indent=1)
    print()
