"""One of several processes that train together; the environment says which (see test_ddp.py)."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from small_training import train_small

from hybridtumor.solvers.ranks import joined
from hybridtumor.solvers.training import TrainingOptions


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    with joined() as (ranks, device):
        for parts in (1, 2):
            options = TrainingOptions(3, device=device, accumulate=parts, save_every=2, log_every=1, warmup=1)
            weights = train_small(folder / f"cut_{parts}.safetensors", 1, options)
            save_file(weights, folder / f"cut_{parts}_rank_{ranks.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
