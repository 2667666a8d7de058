"""Training on two processes is training on one: the same weights to round-off, written once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_training import difference, double_precision, train_small

from hybridtumor.solvers.loss_history import read_rows
from hybridtumor.solvers.training import TrainingOptions

__all__ = ["double_precision"]

HERE = Path(__file__).parent


def two_ranks(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(HERE),
    }  # fmt: skip
    command = [sys.executable, str(HERE / "ddp_worker.py"), str(folder)]
    processes = [
        subprocess.Popen(command, env=common | {"RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE)
        for r in range(2)
    ]
    for process in processes:
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint.decode()


@pytest.mark.law("images", "Training on two ranks is training on one")
@pytest.mark.usefixtures("double_precision")
def test_two_ranks_are_one_rank(tmp_path: Path) -> None:
    two_ranks(tmp_path)
    options = TrainingOptions(3, save_every=2, log_every=1, warmup=1)
    for parts in (1, 2):
        one = train_small(tmp_path / f"one_{parts}.safetensors", 2 * parts, options)
        first, second = (load_file(tmp_path / f"cut_{parts}_rank_{r}.safetensors") for r in range(2))
        assert difference(first, second) == 0
        assert difference(first, one) < 1e-9  # round-off: single precision would be amplified by Adam
        ours, theirs = (read_rows(tmp_path / f"{name}_{parts}_losses.csv") for name in ("cut", "one"))
        assert [row.step for row in ours] == [1, 2, 3]
        assert [row.loss for row in ours] == pytest.approx([row.loss for row in theirs], rel=1e-9)
