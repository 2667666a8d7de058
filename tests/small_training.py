"""Small batches, networks and runs that several tests of training share."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS, VECTOR_SIZE
from hybridtumor.solvers.training import Batch, TrainingOptions, fit, new_networks, regression_loss
from hybridtumor.teacher import RealCase

TINY = (8, 16, 16)
EDGE = 16


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Double precision: what is equal to round-off stays so, although Adam amplifies it."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def example(number: int) -> Batch:
    """The example of a number, a batch of one."""
    generator = torch.Generator().manual_seed(number)
    shape = (1, IMAGE_CHANNELS, EDGE, EDGE, EDGE)
    baseline, render, noise = (torch.randn(shape, generator=generator) for _ in range(3))
    fields = torch.rand(1, len(FIELDS), EDGE, EDGE, EDGE, generator=generator)
    target = render + 0.5 * baseline + 0.1 * noise
    vector = torch.randn(1, VECTOR_SIZE, generator=generator)
    return Batch(baseline, render, target, fields, vector, torch.ones(1, IMAGE_CHANNELS))


def stacked(size: int, number: int) -> Batch:
    """Batch `number` of `size` consecutive examples."""
    parts = [example(number * size + i) for i in range(size)]
    names = Batch.__dataclass_fields__
    return Batch(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


def train_small(checkpoint: Path, batch: int, options: TrainingOptions) -> dict[str, Tensor]:
    """Train the regression on batches of `batch` consecutive examples."""
    return fit(
        new_networks(TINY, TINY, 0)[0],
        regression_loss,
        lambda number: stacked(batch, number),
        replace(options, batch=batch),
        checkpoint,
    )


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference of two sets of weights."""
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def real_case(name: str = "a", edge: int = 32, *, enhances: bool = True) -> RealCase:
    """A round tumour in white matter, scanned as noise."""
    rng = np.random.default_rng(0)
    axes = np.ogrid[:edge, :edge, :edge]
    distance = np.sqrt(sum((a - edge / 2) ** 2.0 for a in axes))
    density = (0.95 / (1 + np.exp(distance - 5))).astype(np.float32)
    labels = np.stack([density > 0.9, (density > 0.2) & (density <= 0.6), (density > 0.6) & (density <= 0.9)])
    scans, healthy, pocket_fill = rng.normal(size=(3, 4, edge, edge, edge)).astype(np.float32)
    tissue = np.zeros((3, edge, edge, edge), np.float32)
    tissue[0] = 1
    contrast = rng.normal(size=(3, 4)).astype(np.float32)
    return RealCase(
        name=name, scans=scans, healthy=healthy, fill=(density > 0.1).astype(np.float32),
        labels=labels.astype(np.float32), density=density, tissue=tissue,
        pockets=np.array([[8, 8, 8, 6]], np.float32), pocket_fill=pocket_fill, contrast=contrast, population=contrast,
        levels=np.ones((4, 2), np.float32), enhances=enhances, spacing=1.0,
    )  # fmt: skip
