"""Training: resumed is uninterrupted, cut is whole, a batch can be learnt, losses are least where they should be."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_training import TINY, difference, double_precision, example, train_small
from torch import Tensor, nn

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS, VECTOR_SIZE
from hybridtumor.models.denoiser import MeanAndScale
from hybridtumor.solvers.loss_history import History, Row, picture, read_rows
from hybridtumor.solvers.losses import MEAN_PRIOR, draw_sigma, generators, objective_of
from hybridtumor.solvers.prefetch import prefetched
from hybridtumor.solvers.training import (
    Batch,
    TrainingOptions,
    averaged_weights,
    diffusion_loss,
    fit,
    new_networks,
    regression_loss,
)

__all__ = ["double_precision"]


def run_with_stops(checkpoint: Path, stage: str, options: TrainingOptions, stops: tuple[int, ...]) -> dict[str, Tensor]:
    """Train until each of `stops`, each time in new networks, and return the averaged weights of the last run."""
    result: dict[str, Tensor] = {}
    for stop in (*stops, options.steps):
        regression, denoiser = new_networks(TINY, TINY, 0)
        network: nn.Module = regression if stage == "regression" else denoiser
        loss = regression_loss if stage == "regression" else diffusion_loss(regression, options)

        def stop_at(step: int, _: float, last: int = stop) -> None:
            if step == last and last < options.steps:
                raise KeyboardInterrupt

        seen = [example(1000 + i) for i in range(2)]
        try:
            result = fit(network, loss, example, options, checkpoint, validation=seen, progress=stop_at)
        except KeyboardInterrupt:
            continue
    return result


@pytest.mark.law("images", "Training that was stopped ends in the same weights, bit for bit")
@pytest.mark.parametrize("stage", ["regression", "diffusion"])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, stage: str) -> None:
    options = TrainingOptions(
        8, 1, accumulate=2, prefetch=3, workers=2, save_every=2, log_every=1, validate_every=3, warmup=2
    )
    straight = run_with_stops(tmp_path / "a.safetensors", stage, replace(options, prefetch=0), ())
    resumed = run_with_stops(tmp_path / "b.safetensors", stage, options, (1, 3, 5, 6))  # between checkpoints too
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)
    stored, steps = averaged_weights(tmp_path / "b.safetensors")
    assert steps == 8
    assert all(torch.equal(stored[k], straight[k]) for k in straight)
    one, other = ([replace(r, seconds=0) for r in read_rows(tmp_path / f"{n}_losses.csv")] for n in "ab")
    assert one == other
    assert [row.step for row in other] == list(range(1, 9))  # each step once after four interruptions
    assert [row.step for row in other if row.validation is not None] == [3, 6, 8]
    assert (tmp_path / "b_losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.law("images", "Accumulated gradients are those of a larger batch")
@pytest.mark.usefixtures("double_precision")
def test_accumulation_is_a_larger_batch(tmp_path: Path) -> None:
    options = TrainingOptions(3, save_every=3, warmup=1)
    whole = train_small(tmp_path / "whole", 2, options)
    cut = train_small(tmp_path / "cut", 1, replace(options, accumulate=2))
    assert difference(whole, cut) < 1e-9
    assert difference(whole, train_small(tmp_path / "half", 1, options)) > 1e-4


@pytest.mark.usefixtures("double_precision")
def test_noise_belongs_to_the_example_and_not_to_its_batch() -> None:
    regression, denoiser = new_networks(TINY, TINY, 0)
    loss = diffusion_loss(regression, TrainingOptions(1))
    parts = [example(i) for i in range(2)]
    both = Batch(**{n: torch.cat([getattr(p, n) for p in parts]) for n in Batch.__dataclass_fields__})
    whole = float(loss(denoiser, both, torch.Generator().manual_seed(40)).detach())
    each = [float(loss(denoiser, p, torch.Generator().manual_seed(40 + i)).detach()) for i, p in enumerate(parts)]
    assert whole == pytest.approx(np.mean(each), rel=1e-9)
    assert each[0] != pytest.approx(
        float(loss(denoiser, parts[0], torch.Generator().manual_seed(9)).detach()), rel=0.01
    )


def test_noise_levels_of_consecutive_examples_have_their_distribution() -> None:
    options = TrainingOptions(1)
    sigma = draw_sigma(objective_of(options), generators(torch.Generator().manual_seed(5), 400))
    normal = (sigma.log().numpy() - options.sigma_log_mean) / options.sigma_log_std
    shares = np.sort([torch.special.ndtr(torch.tensor(float(z))).item() for z in normal])
    assert np.abs(shares - (np.arange(400) + 0.5) / 400).max() < 0.01  # random draws would be off by 0.04
    assert abs(float(np.mean(normal[:8]))) < 0.3
    with pytest.raises(InputError, match="expected one of"):
        objective_of(TrainingOptions(1, objective="nothing"))


@pytest.mark.parametrize(("change", "complaint"), [
    ({"seed": 1}, "seed 1"), ({"batch": 2}, "batch 2"), ({"accumulate": 2}, "batches_per_step 2"),
    ({"objective": "flow"}, "objective flow"), ({"learning_rate": 2e-3}, "learning_rate"),
])  # fmt: skip
def test_a_run_goes_on_under_its_own_options_only(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    options = TrainingOptions(1, 1, save_every=1)
    fit(MeanAndScale(TINY), regression_loss, example, options, tmp_path / "c")
    with pytest.raises(InputError, match=complaint):
        fit(MeanAndScale(TINY), regression_loss, example, replace(options, **change), tmp_path / "c")
    fit(
        MeanAndScale(TINY), regression_loss, example, replace(options, steps=2, prefetch=0, log_every=1), tmp_path / "c"
    )


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="damaged"):
        fit(MeanAndScale(TINY), regression_loss, example, TrainingOptions(1), tmp_path / "c")


def test_prefetched_batches_are_in_order_and_their_errors_surface() -> None:
    def make(number: int) -> int:
        time.sleep(0.002 * (5 - number))
        if number == 4:
            raise InputError("number: expected less than 4, got 4. Stop.")
        return number**2

    for ahead, workers in ((0, 1), (1, 1), (3, 2), (9, 4)):
        with prefetched(make, range(4), ahead, workers) as items:
            assert list(items) == [0, 1, 4, 9]
        with prefetched(make, range(6), ahead, workers) as items:
            assert [next(items) for _ in range(4)] == [0, 1, 4, 9]
            with pytest.raises(InputError, match="less than 4"):
                next(items)


def test_batches_are_made_ahead_while_the_network_computes() -> None:
    made: list[int] = []
    with prefetched(made.append, iter(range(100)), 2) as items:
        next(items)
        deadline = time.monotonic() + 10
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert made == [0, 1, 2]


def test_a_batch_that_cannot_be_made_stops_the_run(tmp_path: Path) -> None:
    def broken(number: int) -> Batch:
        if number == 2:
            raise InputError("case: expected a tumour, got none. Leave it out.")
        return example(number)

    with pytest.raises(InputError, match="expected a tumour"):
        fit(MeanAndScale(TINY), regression_loss, broken, TrainingOptions(4, 1, log_every=1), tmp_path / "c")
    assert [row.step for row in read_rows(tmp_path / "c_losses.csv")] == [1, 2]


@pytest.mark.usefixtures("double_precision")
def test_recomputing_changes_nothing_and_leaves_no_trace(tmp_path: Path) -> None:
    calls: list[int] = []

    def train_with(*, recompute: bool) -> dict[str, Tensor]:
        network = new_networks(TINY, TINY, 0)[0]
        calls.clear()
        network.net.down[0].conv1.register_forward_hook(lambda *_: calls.append(1))
        options = TrainingOptions(2, 1, save_every=2, recompute=recompute)
        result = fit(network, regression_loss, example, options, tmp_path / f"{recompute}")
        assert not any("forward" in vars(m) for m in network.modules())
        return result

    kept = train_with(recompute=False)
    assert len(calls) == 2
    assert difference(kept, train_with(recompute=True)) < 1e-9
    assert len(calls) == 4


def test_bf16_and_compile_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Callable[..., Any]] = []

    def pretend(model: Callable[..., Any]) -> Callable[..., Any]:
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", pretend)
    kinds: set[torch.dtype] = set()
    network = MeanAndScale(TINY)
    network.net.enter.register_forward_hook(lambda _m, _i, out: kinds.add(out.dtype))
    options = TrainingOptions(1, 1, bf16=True, compiled=True, save_every=1)
    weights = fit(network, regression_loss, example, options, tmp_path / "c")
    assert compiled == [network]
    assert kinds == {torch.bfloat16}
    assert {w.dtype for w in weights.values()} == {torch.float32}


def test_validation_sees_the_averaged_weights_with_the_same_noise_each_time(tmp_path: Path) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.w * torch.ones_like(x)

    def loss(network: Callable[..., Tensor], batch: Batch, generator: torch.Generator) -> Tensor:
        noise.append(generator.initial_seed())
        return (network(batch.vector) - 1).square().mean()

    noise: list[int] = []
    options = TrainingOptions(4, 1, 0.1, warmup=1, prefetch=0, validate_every=2, log_every=1, save_every=4)
    average = fit(Constant(), loss, example, options, tmp_path / "c", validation=[example(0), example(1)])
    rows = read_rows(tmp_path / "c_losses.csv")
    assert rows[-1].validation == pytest.approx((float(average["w"]) - 1) ** 2)
    assert rows[-1].validation != pytest.approx(rows[-1].loss)
    looks = [seed for seed in noise if seed >= 2**40]
    assert looks == [2**40, 2**40 + 1] * 2
    assert len(set(noise)) == 4 + 2


def test_a_history_forgets_what_will_be_done_again_and_a_line_cut_off(tmp_path: Path) -> None:
    rows = [Row(step, 1 / step, 0.3, 0.1 if step == 2 else None, 1e-3, 5.0) for step in (1, 2, 3)]
    history = History(tmp_path / "run.safetensors", 0)
    for row in rows:
        history.add(row)
    with (tmp_path / "run_losses.csv").open("a") as stream:
        stream.write("4,0.2")
    assert read_rows(tmp_path / "run_losses.csv") == rows
    assert History(tmp_path / "run.safetensors", 2).rows == rows[:2]
    assert read_rows(tmp_path / "run_losses.csv") == rows[:2]
    assert read_rows(tmp_path / "none") == []


def test_curves_are_drawn_for_negative_losses_too() -> None:
    rows = [Row(step, -1.0 + step, -0.5, None, 1e-3, 0.0) for step in range(3)]
    assert picture(rows).startswith(b"\x89PNG")


def test_tensorboard_gets_the_losses_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []

    def writer(folder: str, purge_step: int) -> SimpleNamespace:
        told.append((Path(folder).name, purge_step))
        return SimpleNamespace(add_scalar=lambda *a: told.append(a), close=lambda: told.append(("closed",)))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    options = TrainingOptions(1, 1, save_every=1)
    fit(MeanAndScale(TINY), regression_loss, example, options, tmp_path / "c", validation=[example(7)])
    assert [entry[0] for entry in told] == ["c_tensorboard", "loss", "rate", "validation", "closed"]


def test_one_batch_can_be_learnt(tmp_path: Path) -> None:
    regression, denoiser = new_networks(TINY, TINY, 0)
    losses: list[float] = []
    options = TrainingOptions(60, learning_rate=1e-2, warmup=5, save_every=60)
    batch = example(0)

    def note(_: int, loss: float) -> None:
        losses.append(loss)

    fit(regression, regression_loss, lambda _: batch, options, tmp_path / "r", progress=note)
    assert float(regression_loss(regression, batch, torch.Generator()).detach()) < losses[0] - 0.2
    losses.clear()
    regression = new_networks(TINY, TINY, 0)[0]
    coarse = torch.rand(1, len(FIELDS), 4, 4, 4, generator=torch.Generator().manual_seed(1))
    fields = torch.nn.functional.interpolate(coarse, scale_factor=4.0, mode="trilinear")
    batch = replace(batch, fields=fields, target=batch.render + 4 * fields[:, :1] - 2)  # told by a field, no noise
    fit(denoiser, diffusion_loss(regression, options), lambda _: batch, options, tmp_path / "d", progress=note)
    untrained = new_networks(TINY, TINY, 0)[1]
    late, early = (
        [
            float(diffusion_loss(regression, options)(net, batch, torch.Generator().manual_seed(k)).detach())
            for k in range(8)
        ]
        for net in (denoiser, untrained)
    )
    assert np.mean(np.log(late)) < np.mean(np.log(early)) - 0.5


def test_regression_loss_is_least_at_the_shrunk_mean_and_the_scale_that_is_left() -> None:
    class Fixed(nn.Module):
        def __init__(self, mean: float, scale: float) -> None:
            super().__init__()
            self.mean, self.scale = mean, scale

        def forward(self, baseline: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
            return torch.full_like(baseline, self.mean), torch.full_like(baseline, self.scale)

    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(1, IMAGE_CHANNELS, 16, 16, 16)
    target = 0.3 + 0.5 * torch.randn(image.shape, generator=generator)
    fields = torch.ones(1, len(FIELDS), 16, 16, 16)
    batch = Batch(image, image, target, fields, torch.zeros(1, VECTOR_SIZE), torch.ones(1, IMAGE_CHANNELS))

    def value(mean: float, scale: float) -> float:  # the β-weight is constant in the gradient: divide it out
        return float(regression_loss(Fixed(mean, scale), batch, generator)) / scale

    mean = 0.3 / (1 + MEAN_PRIOR)
    scale = (0.5**2 + (0.3 - mean) ** 2 + MEAN_PRIOR * mean**2) ** 0.5
    others = [(mean - 0.1, scale), (mean + 0.1, scale), (mean, 0.8 * scale), (mean, 1.3 * scale), (0.3, scale)]
    assert value(mean, scale) < min(value(*other) for other in others)


def test_missing_modality_and_outside_support_do_not_count() -> None:
    batch = example(0)
    network = MeanAndScale(TINY)
    present = torch.ones(1, IMAGE_CHANNELS)
    present[0, 1] = 0
    fields = batch.fields.clone()
    fields[:, FIELDS.index("support"), :4] = 0
    changed = batch.target.clone()
    changed[:, 1] += 5
    changed[:, :, :4] -= 3
    a = Batch(batch.baseline, batch.render, batch.target, fields, batch.vector, present)
    b = Batch(batch.baseline, batch.render, changed, fields, batch.vector, present)
    assert torch.equal(*(regression_loss(network, x, torch.Generator()) for x in (a, b)))
    loss = diffusion_loss(network, TrainingOptions(1))
    denoiser = new_networks(TINY, TINY, 0)[1]
    assert torch.equal(*(loss(denoiser, x, torch.Generator().manual_seed(0)) for x in (a, b)))


def test_learning_rate_warms_up_and_decays() -> None:
    options = TrainingOptions(1000, warmup=100)
    rates = [options.rate(step) for step in range(1000)]
    assert max(rates) == pytest.approx(1e-3, rel=0.05)
    assert rates[0] < 2e-5
    assert rates[-1] < 3e-5


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    batch = example(0)
    broken = Batch(batch.baseline, batch.render, batch.target * float("nan"), batch.fields, batch.vector, batch.present)
    with pytest.raises(ConvergenceError, match="step 0"):
        fit(MeanAndScale(TINY), regression_loss, lambda _: broken, TrainingOptions(2), tmp_path / "c")


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    options = TrainingOptions(1, save_every=1)
    fit(MeanAndScale(TINY), regression_loss, example, options, tmp_path / "c")
    with pytest.raises(InputError, match="another"):
        fit(MeanAndScale((16, 8, 8)), regression_loss, example, options, tmp_path / "c")
