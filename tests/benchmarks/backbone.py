"""Our U-Net against MONAI's diffusion U-Net at equal widths, on what the denoiser gives its backbone.

`python tests/benchmarks/backbone.py [--crop 64] [--batch 1] [--widths 48,64,96] [--repeats 7]` prints one JSON object.
A training step is forward, backward and AdamW; an evaluation is forward without gradient. Both networks take turns in
one process on one thread, after one uncounted turn each; ratios are of neighbours in time (MONAI's over ours), each
figure with min, median and max. Seconds are CPU seconds, which other processes disturb least.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import nn

from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS, VECTOR_SIZE
from hybridtumor.models.denoiser import BANDS, GAINS, LEVELS, NOISE_FEATURES, NetworkSizes
from hybridtumor.models.monai_backbone import MonaiUNet
from hybridtumor.models.unet import UNet

C_IN = BANDS * IMAGE_CHANNELS * 3 + IMAGE_CHANNELS + len(FIELDS)
C_OUT = (BANDS + GAINS) * IMAGE_CHANNELS
VECTOR = NOISE_FEATURES + VECTOR_SIZE


def evaluation(network: nn.Module, x: torch.Tensor, vector: torch.Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            network(x, vector)

    return run


def training_step(network: nn.Module, x: torch.Tensor, vector: torch.Tensor) -> Callable[[], object]:
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)
    target = torch.randn((len(x), C_OUT, *x.shape[2:]), generator=torch.Generator().manual_seed(1))

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        (network(x, vector) - target).square().mean().backward()
        optimiser.step()

    return run


def spread(values: list[float]) -> dict[str, float]:
    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def in_turns(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {"ours": [], "monai": []}
    for repeat in range(repeats + 1):
        for name, run in (("ours", ours), ("monai", theirs)):
            began = time.process_time()
            run()
            if repeat > 0:
                seconds[name].append(time.process_time() - began)
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["monai"], strict=True)]
    return {name: spread(values) for name, values in seconds.items()} | {"ratio": spread(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crop", type=int, default=64, help="voxels along each side of the image")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--widths", default=",".join(str(w) for w in NetworkSizes().denoiser))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    widths = tuple(int(w) for w in options.widths.split(","))
    ours, theirs = (kind(C_IN, C_OUT, VECTOR, widths) for kind in (UNet, MonaiUNet))
    side = options.crop // 2**LEVELS
    x, vector = torch.randn((options.batch, C_IN, side, side, side)), torch.randn((options.batch, VECTOR))
    parameters = {"ours": ours, "monai": theirs}
    result = {
        "input": list(x.shape),
        "widths": widths,
        "repeats": options.repeats,
        "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in parameters.items()},
        "evaluation_s": in_turns(evaluation(ours, x, vector), evaluation(theirs, x, vector), options.repeats),
        "training_step_s": in_turns(training_step(ours, x, vector), training_step(theirs, x, vector), options.repeats),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
