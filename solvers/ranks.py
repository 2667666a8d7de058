"""Training on several processes: each takes its share of every batch, gradients are averaged, the first one writes.

Started by ``torchrun --nproc-per-node N``, which tells each process its rank in the environment. Without that there is
one rank and nothing is communicated. CPUs talk through gloo, GPUs through nccl.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """Where a process stands among the others."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Return the place of this process in the group, if there is one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a value over all ranks."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: str = "cpu") -> Iterator[tuple[Ranks, str]]:
    """Join the group that the environment names, if any; yield this process's place and its device."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks(), device
        return
    gpu = device.startswith("cuda")
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if gpu else device
    if gpu:
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield Ranks.current(), own
    finally:
        dist.destroy_process_group()
