"""How the cost of growth on the MNI brain grows with the number of unknowns, and shrinks with the number of ranks.

`python tests/benchmarks/scaling.py [CELL_SIZE_MM …] [--ranks 2 --at CELL_SIZE_MM]` prints one JSON object: seconds of
every stage of the first arm and peak memory per unknown for each cell size (from 30 k to 1 M unknowns by default), each
in a process of its own, the exponents of seconds against unknowns fitted to them, and the solve phase on one and on
several ranks at the same size with the largest difference of the densities.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

DAYS, SIZES, LARGE = 180, (3.4, 2.4, 1.7, 1.2, 0.85), 1.0


def measure(size: float, out: Path) -> None:
    """Run the first arm in this process; rank 0 writes its figures and the density to `out`."""
    import resource

    from mni_brain import mni_brain, mni_tumour

    from hybridtumor.simulate import GrowthSimulation
    from hybridtumor.solvers.petsc import MPI

    tissue, comm = mni_brain(), MPI.COMM_WORLD
    tumour, before = mni_tumour(tissue), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    GrowthSimulation.prepare(tissue, tumour, horizon=DAYS, cell_size="8 mm").run(days=(0, DAYS))  # compiles the forms
    simulation = GrowthSimulation.prepare(tissue, tumour, horizon=DAYS, cell_size=f"{size} mm")
    forecast = simulation.run(days=(0, DAYS))
    memory = comm.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if comm.rank == 0 and forecast.mesh is not None:
        figures = forecast.figures
        seconds = {name: figures[f"seconds_{name}"] for name in ("mesh", "assemble", "solve")}
        counts = {name: int(figures[name]) for name in ("dofs", "cells", "steps", "products", "ranks")}
        np.savez(out.with_suffix(".npz"), density=forecast.mesh.density[DAYS])
        out.write_text(json.dumps(counts | {"cell_size_mm": size, "seconds": seconds, "kib": memory}))


def measured(size: float, ranks: int = 1) -> tuple[dict, np.ndarray]:
    """Figures and density of a run in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--measure", str(size), str(out)]
        launcher = ["mpiexec", "-n", str(ranks)] if ranks > 1 else []
        subprocess.run(launcher + command, check=True, stdout=subprocess.DEVNULL)
        with np.load(out.with_suffix(".npz"), allow_pickle=False) as fields:
            return json.loads(out.read_text()), fields["density"]


def exponent(dofs: list[float], seconds: list[float]) -> float:
    """The slope of log seconds against log dofs."""
    return round(float(np.polyfit(np.log(dofs), np.log(seconds), 1)[0]), 3)


def main(sizes: list[float], ranks: int, large: float) -> dict[str, object]:
    runs = [measured(size)[0] for size in sizes]
    result: dict[str, object] = {"days": DAYS, "runs": runs}
    if len(runs) > 1:
        dofs = [run["dofs"] for run in runs]
        stages = {name: [run["seconds"][name] for run in runs] for name in runs[0]["seconds"]}
        stages["first_arm"] = [sum(run["seconds"].values()) for run in runs]
        result["exponent"] = {name: exponent(dofs, seconds) for name, seconds in stages.items()}
        extra = runs[-1]["kib"][0] - runs[0]["kib"][0]
        result["bytes_per_dof"] = round(1024 * extra / (dofs[-1] - dofs[0]))
    if ranks > 1:
        (one, alone), (many, together) = measured(large), measured(large, ranks)
        result["ranks"] = {
            "ranks": ranks,
            "dofs": one["dofs"],
            "seconds_solve": [one["seconds"]["solve"], many["seconds"]["solve"]],
            "speedup_solve": round(one["seconds"]["solve"] / many["seconds"]["solve"], 2),
            "largest_difference": float(np.abs(alone - together).max()),
        }
    return result


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(float(sys.argv[2]), Path(sys.argv[3]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("sizes", type=float, nargs="*", default=list(SIZES), help="cell sizes, mm")
        parser.add_argument("--ranks", type=int, default=2)
        parser.add_argument("--at", type=float, default=LARGE, help="cell size of the runs on several ranks, mm")
        options = parser.parse_args()
        print(json.dumps(main(options.sizes, options.ranks, options.at), indent=1))
