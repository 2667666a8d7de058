"""Real test cases inside the mask: persistence, render, one sample and the mean of the ensemble against the real scan.

`python tests/benchmarks/refiner.py [--split test] [--samples 4] [CASE …]` prints a table and one JSON object.

There are no real follow-up scans here, so the question is onset: the baseline is the scan with its tumour filled by
healthy tissue, the density is the one that shows as the segmentation, the contrast is the population's (the
patient's own would be read off the answer), the target is the real scan. Intensities are in units of the healthy range
(2nd to 98th percentile); PSNR and SSIM take a data range of `DATA_RANGE`. Mean over the four modalities, where M > 1/2.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hybridtumor.baseline import Baseline, read_baseline
from hybridtumor.metrics import dice, psnr, ssim
from hybridtumor.models.conditioning import IMAGE_CHANNELS, Condition
from hybridtumor.models.resolution import working_shape
from hybridtumor.prepare import load_patient
from hybridtumor.refine import Refiner
from hybridtumor.refiner_scene import DayFields, Scene, changed_box
from hybridtumor.scan import LabelMap
from hybridtumor.solvers.sampling import SIGMA_MAX, start_noise

DATA_RANGE = 3.0

Array = NDArray[np.float32]


def onset_scene(real: Baseline, refiner: Refiner, contrast: Array) -> Scene:
    """The scene in which the whole tumour of a real case appears in its healthy fill."""
    zero = np.zeros_like(real.density)
    nothing = LabelMap(np.zeros(real.grid.shape, np.uint8), real.grid, real.labels.codes)
    before = replace(real, images=real.healthy, labels=nothing, density=zero, contrast=contrast)
    fields = DayFields(zero, real.density, real.density, zero)
    box = changed_box(zero, real.density, before)
    assert box is not None
    return Scene.cut(before, fields, box, Condition(180.0, contrast, real.available), refiner.thresholds)


def log_spectrum(images: Array, mask: NDArray[np.bool_]) -> Array:
    """Log of the radial power spectrum of each modality inside the mask, (4, bands)."""
    found = np.argwhere(mask)
    box = tuple(slice(a, b + 1) for a, b in zip(found.min(axis=0), found.max(axis=0), strict=True))
    part = np.where(mask[box], images[(slice(None), *box)], 0)
    window = np.einsum("i,j,k->ijk", *[np.hanning(n) for n in part.shape[1:]])
    power = np.abs(np.fft.fftn(part * window, axes=(1, 2, 3))) ** 2
    k = np.sqrt(sum(q**2 for q in np.meshgrid(*[np.fft.fftfreq(n) for n in part.shape[1:]], indexing="ij")))
    band = np.clip((k * 20).astype(int), 0, 10)
    return np.log(np.array([[p[band == b].mean() for b in range(1, 10)] for p in power], np.float32))


def scores(image: Array, real: Array, mask: NDArray[np.bool_]) -> dict[str, float]:
    pairs = list(zip(image, real, strict=True))
    return {
        "psnr": float(np.mean([psnr(a, b, mask, data_range=DATA_RANGE) for a, b in pairs])),
        "ssim": float(np.mean([ssim(a, b, mask, data_range=DATA_RANGE) for a, b in pairs])),
        "mae": float(np.abs(image - real)[:, mask].mean()),
        "spectrum": float(np.abs(log_spectrum(image, mask) - log_spectrum(real, mask)).mean()),
    }


def evaluate(folder: Path, refiner: Refiner, samples: int, seed: int = 0) -> dict[str, object]:
    patient = load_patient(folder)
    real = read_baseline(patient, population=refiner.weights.population)
    scene = onset_scene(real, refiner, refiner.weights.population)
    fields = [start_noise(IMAGE_CHANNELS, working_shape(real.grid), seed, k, SIGMA_MAX) for k in range(samples)]
    start = torch.stack([torch.from_numpy(scene.box.take(field.numpy())) for field in fields])
    began = time.perf_counter()
    ensemble, soft = scene.compose(refiner.sample(scene, start))
    regression, _ = scene.compose(refiner.regression_mean(scene)[None])
    seconds = time.perf_counter() - began
    fine = scene.box.scaled(scene.factor)
    target, mask = fine.take(real.images), scene.drawn.support > 0.5
    own = onset_scene(real, refiner, real.contrast).drawn.images
    spread = (
        np.mean([np.abs(a - b)[:, mask].mean() for i, a in enumerate(ensemble) for b in ensemble[:i]])
        if samples > 1
        else 0.0
    )
    error = np.mean([np.abs(a - target)[:, mask].mean() for a in ensemble])
    whole = fine.take(real.soft_labels).sum(axis=0) > 0.5
    return {
        "mask_ml": float(mask.sum()) * real.grid.voxel_volume / 1e3,
        "crop": list(scene.box.extent),
        "seconds": round(seconds, 1),
        "persistence": scores(scene.baseline, target, mask),
        "render": scores(scene.drawn.images, target, mask),
        "render, patient's own contrast (oracle)": scores(own, target, mask),
        "regression mean": scores(regression[0], target, mask),
        "one sample": scores(ensemble[0], target, mask),
        f"mean of {samples}": scores(ensemble.mean(axis=0), target, mask),
        "crps": float(error - 0.5 * spread),
        "crps_over_render_mae": float((error - 0.5 * spread) / np.abs(scene.drawn.images - target)[:, mask].mean()),
        "dice_whole_render": dice(scene.drawn.labels.sum(axis=0) > 0.5, whole),
        "dice_whole_generated": dice(soft.sum(axis=0) > 0.5, whole),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--split", default="test", choices=["test", "train"])
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    root = Path(os.environ.get("HYBRIDTUMOR_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folders = [
        p for p in sorted((root / options.split / "patients").iterdir()) if not options.cases or p.name in options.cases
    ]
    refiner = Refiner.load(options.weights)
    results = {folder.name: evaluate(folder, refiner, options.samples) for folder in folders}
    print(f"{'case':24}{'':42}{'PSNR':>8}{'SSIM':>8}{'MAE':>8}{'spectrum':>10}")
    for name, result in results.items():
        for row, values in result.items():
            if isinstance(values, dict):
                figures = f"{values['psnr']:8.2f}{values['ssim']:8.3f}{values['mae']:8.3f}{values['spectrum']:10.2f}"
                print(f"{name:24}{row:42}{figures}")
    print(json.dumps({"training": refiner.weights.header["training"], "cases": results}))


if __name__ == "__main__":
    main()
