"""The process in which fTetWild runs: arrays in one .npz file, arrays out in another, no pickles.

``python -m hybridtumor.meshes.tetwild_worker ORDER MESH``. ORDER holds points (n, 3) mm, triangles (f, 3), edge_mm,
envelope_mm and cpu_s; where cells are to be smaller also field_points (k, 3), field_cells (c, 4) and field_mm (k,).
MESH holds points (n, 3) and cells (m, 4). Beyond `cpu_s` seconds of work the kernel ends the process, even when the one
that waited for it is gone.
"""

import os
import resource
import sys
from pathlib import Path

import numpy as np


def work(given: Path, made: Path) -> None:
    """Read the order, mesh, write the mesh under a temporary name and rename it."""
    from pytetwild import tetrahedralize

    with np.load(given, allow_pickle=False) as order:
        _limit_time(int(order["cpu_s"]))
        os.chdir(made.parent)  # fTetWild leaves a file where it works
        points = order["points"]
        field = {}
        if "field_mm" in order:
            field = {
                "bg_vertices": order["field_points"],
                "bg_tets": order["field_cells"],
                "bg_values": order["field_mm"],
            }
        vertices, cells = tetrahedralize(
            points,
            order["triangles"],
            edge_length_abs=float(order["edge_mm"]),
            epsilon=float(order["envelope_mm"] / np.linalg.norm(np.ptp(points, axis=0))),
            num_threads=1,  # two are hardly faster
            quiet=True,
            **field,
        )
    temporary = made.with_name(f"part-{made.name}")
    np.savez(temporary, points=np.asarray(vertices, np.float64), cells=np.asarray(cells, np.int64))
    temporary.replace(made)


def _limit_time(seconds: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    allowed = seconds if hard == resource.RLIM_INFINITY else min(seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, hard))


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
