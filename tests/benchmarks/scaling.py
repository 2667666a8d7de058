"""How the cost of growth on the MNI brain grows with the number of unknowns, and shrinks with the number of ranks.

`python tests/benchmarks/scaling.py [--ranks 2]` prints one JSON object: seconds of every stage of the first arm and
peak memory per unknown, each run in a process of its own, with the exponents of seconds against unknowns fitted to
them,

    larger      cells of one size, where the region in which they are fine grows from the tumour to most of the brain
    finer       the same region in ever smaller cells, whose diffusion also takes more averages per day

and the solve phase on one and on several ranks at the same size, with the largest difference of the densities.
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

DAYS, LARGE = 180, 1.0
FINER = dict.fromkeys((3.4, 2.4, 1.7, 1.2, 0.85), DAYS)
"""Cell size, mm, and the horizon that sets the fine region, days."""

LARGER_SIZE, RADIUS, LARGER = 1.4, 6.0, (0, 60, 180, 400, 900)
"""Cell size, radius of the tumour, mm, and horizons, days: the fine region reaches farther for a longer one."""


def measure(size: float, horizon: float, radius: float, out: Path) -> None:
    """Run the first arm in this process; rank 0 writes its figures and the density to `out`."""
    import resource

    from mni_brain import mni_brain, mni_tumour

    from hybridtumor.growth_simulation import GrowthSimulation
    from hybridtumor.solvers.petsc import MPI

    tissue, comm = mni_brain(), MPI.COMM_WORLD
    tumour, before = mni_tumour(tissue, radius), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    GrowthSimulation.prepare(tissue, tumour, horizon=DAYS, cell_size="8 mm").run(days=(0, DAYS))  # compiles the forms
    simulation = GrowthSimulation.prepare(tissue, tumour, horizon=horizon, cell_size=f"{size} mm")
    forecast = simulation.run(days=(0, DAYS))
    memory = comm.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if comm.rank == 0 and forecast.mesh is not None:
        figures = forecast.figures
        seconds = {name: figures[f"seconds_{name}"] for name in ("mesh", "assemble", "solve")}
        counts = {name: int(figures[name]) for name in ("dofs", "cells", "steps", "products", "ranks")}
        np.savez(out.with_suffix(".npz"), density=forecast.mesh.density[DAYS])
        out.write_text(json.dumps(counts | {"cell_size_mm": size, "seconds": seconds, "kib": memory}))


def measured(size: float, horizon: float = DAYS, radius: float = 14.0, ranks: int = 1) -> tuple[dict, np.ndarray]:
    """Figures and density of a run in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--measure", str(size), str(horizon), str(radius), str(out)]
        launcher = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)] if ranks > 1 else []
        subprocess.run(launcher + command, check=True, stdout=subprocess.DEVNULL)
        with np.load(out.with_suffix(".npz"), allow_pickle=False) as fields:
            return json.loads(out.read_text()), fields["density"]


def exponent(dofs: list[float], seconds: list[float]) -> float:
    """The slope of log seconds against log dofs."""
    return round(float(np.polyfit(np.log(dofs), np.log(seconds), 1)[0]), 3)


def family(cases: list[tuple[float, ...]]) -> dict[str, object]:
    """Runs of cell sizes, horizons and radii, the exponents fitted to them, and the memory that an unknown takes."""
    runs = [measured(*case)[0] for case in cases]
    dofs = [run["dofs"] for run in runs]
    stages = {name: [run["seconds"][name] for run in runs] for name in runs[0]["seconds"]}
    stages["first_arm"] = [sum(run["seconds"].values()) for run in runs]
    memory = 1024 * (runs[-1]["kib"][0] - runs[0]["kib"][0]) / (dofs[-1] - dofs[0])
    exponents = {name: exponent(dofs, seconds) for name, seconds in stages.items()}
    return {"runs": runs, "exponent": exponents, "bytes_per_dof": round(memory)}


def on_ranks(size: float, ranks: int) -> dict[str, object]:
    """The solve phase on one and on several ranks."""
    (one, alone), (many, together) = measured(size), measured(size, ranks=ranks)
    seconds = [run["seconds"]["solve"] for run in (one, many)]
    return {
        "ranks": ranks,
        "dofs": one["dofs"],
        "seconds_solve": seconds,
        "speedup_solve": round(seconds[0] / seconds[1], 2),
        "largest_difference": float(np.abs(alone - together).max()),
    }


def main(ranks: int, families: list[str]) -> dict[str, object]:
    result: dict[str, object] = {"days": DAYS}
    if "ranks" in families:
        result["ranks"] = on_ranks(LARGE, ranks)
    if "larger" in families:
        result["larger"] = family([(LARGER_SIZE, horizon, RADIUS) for horizon in LARGER])
    if "finer" in families:
        result["finer"] = family(list(FINER.items()))
    return result


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(*map(float, sys.argv[2:5]), Path(sys.argv[5]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--ranks", type=int, default=2)
        parser.add_argument("--only", nargs="*", default=["ranks", "larger", "finer"])
        options = parser.parse_args()
        print(json.dumps(main(options.ranks, options.only), indent=1))
