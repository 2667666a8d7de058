"""Fifteen plans on one patient: what an extra arm costs, and whether burden falls with dose.

`python tests/benchmarks/grid.py [PATIENT] [--out RUN]` runs examples/dose_grid.yaml without images, on the embedded
brain or on a patient folder, and prints one JSON object: seconds of the first arm (patient, mesh, operators, untreated
solve), of every extra arm (its solve; and with figures and files), their ratio, and burden against BED by schedule.
"""

import argparse
import json
import os
import tempfile
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from hybridtumor.compare import compare
from hybridtumor.rundir import RunFolder
from hybridtumor.scenario import Scenario

EXAMPLE = Path(__file__).parents[2] / "examples" / "dose_grid.yaml"


def main(patient: str | None, out: Path | None) -> dict[str, object]:
    scenario = Scenario.load(EXAMPLE)
    if patient is not None:
        scenario = scenario.model_copy(update={"patient": str(Path(patient).resolve())})
    with tempfile.TemporaryDirectory() as folder:
        run = compare(scenario, out or Path(folder) / "run", images=False, overwrite=out is not None)
        return figures(run)


def figures(run: RunFolder) -> dict[str, object]:
    stages, solver = run.manifest.stages, run.manifest.figures["solver"]
    arms = [arm for arm in run.arms() if arm != "untreated"]
    first = stages["patient"] + stages["mesh"] + stages["simulate untreated"]
    solve = [solver[arm]["seconds_solve"] for arm in arms]
    whole = [stages[f"simulate {arm}"] for arm in arms]
    schedules: dict[str, list[tuple[float, float]]] = {}
    for arm in arms:
        entry = run.figures(arm)
        pair = (entry["dose"]["BED_Gy"], entry["burden_mm3"][-1])
        schedules.setdefault(arm.split("-")[1], []).append(pair)
    falls = all(b > a and v < u for pairs in schedules.values() for (a, u), (b, v) in pairwise(sorted(pairs)))
    return {
        "arms": len(arms),
        "first_arm_s": round(first, 2),
        "extra_arm_solve_s": [round(min(solve), 3), round(max(solve), 3)],
        "extra_arm_s": [round(min(whole), 2), round(max(whole), 2)],
        "solve_over_first_arm": round(max(solve) / first, 4),
        "whole_over_first_arm": round(max(whole) / first, 4),
        "report_s": stages["report"],
        "burden_falls_with_BED": falls,
        "burden_mm3_by_BED_Gy": schedules,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patient", nargs="?")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print(json.dumps(main(options.patient, options.out), indent=1))
