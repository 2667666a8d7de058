"""A tumour beside a ventricle of the MNI brain for one year, with and without mechanics.

`python tests/benchmarks/mass_effect.py [--picture FILE.png]` prints one JSON object: displacement, ventricle volume and
midline shift at the report days, and the wall seconds of both runs. The picture shows the atlas as it is and as the
tissue lies after a year, with the visible tumour.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib as mpl
import numpy as np
from mni_brain import mni_brain

from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.mass_effect import figures
from hybridtumor.models.carry import carried
from hybridtumor.models.warp import find_origins
from hybridtumor.parameters import MechanicalParameters
from hybridtumor.scan import Scan
from hybridtumor.tissue import TissueMap

SEED, RADIUS, WIDTH, DAYS = np.array([26.0, -18.0, 26.0]), 8.0, 2.28, (0, 120, 240, 365)


def main(picture: Path | None) -> dict[str, object]:
    tissue = mni_brain()
    grid = tissue.grid
    r = np.linalg.norm(grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - SEED, axis=-1)
    u = 1 / (1 + np.exp((r - RADIUS) / WIDTH))
    tumour = Scan(np.where(tissue.parenchyma & (u > 1e-3), u, 0), grid)
    runs, seconds = [], []
    for mechanics in (None, MechanicalParameters()):
        start = time.perf_counter()
        runs.append(GrowthSimulation.prepare(tissue, tumour, horizon=DAYS[-1], mechanics=mechanics).run(days=DAYS))
        seconds.append(round(time.perf_counter() - start, 2))
    still, moved = runs
    if picture is not None:
        draw(tissue, moved, picture)
    return {
        "days": list(DAYS),
        "burden_mm3": {"without": np.round(still.burden).tolist(), "with": np.round(moved.burden).tolist()},
        "max_displacement_mm": [round(float(np.linalg.norm(v, axis=0).max()), 2) for v in moved.displacement or ()],
        **figures(tissue, moved.displacement or ()),
        "seconds": {"without": seconds[0], "with": seconds[1]},
    }


def draw(tissue: TissueMap, forecast: Forecast, path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from nilearn import datasets

    head = np.asarray(datasets.load_mni152_template(resolution=1).get_fdata(), np.float32)
    v = (forecast.displacement or ())[-1]
    after = carried(head, find_origins(v, tissue.grid), order=3)
    k = round(float(tissue.grid.index(SEED[None])[0, 2]))
    figure, axes = plt.subplots(1, 2, figsize=(10, 6), layout="constrained")
    for axis, image, title in zip(axes, (head, after), ("day 0", f"day {DAYS[-1]}"), strict=True):
        axis.imshow(image[:, :, k].T, origin="lower", cmap="gray")
        axis.set_title(f"{title}: synthetic, research use only")
        axis.axis("off")
    axes[1].contour(forecast.density[-1][:, :, k].T, [0.2, 0.6], colors=["gold", "red"], linewidths=0.8)
    x, y = np.mgrid[0 : head.shape[0] : 8, 0 : head.shape[1] : 8]
    axes[1].quiver(x, y, *(v[:2, x, y, k]), color="cyan", angles="xy", scale_units="xy", scale=0.5, width=0.002)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--picture", type=Path)
    print(json.dumps(main(parser.parse_args().picture), indent=1))
