"""Training: resumed is uninterrupted, a batch can be learnt, losses have their minimum where they should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.models.conditioning import FIELDS, IMAGE_CHANNELS, VECTOR_SIZE, TherapyState
from hybridtumor.models.denoiser import MeanAndScale
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.refiner_weights import load_weights
from hybridtumor.solvers.training import (
    Batch,
    TrainingOptions,
    averaged_weights,
    diffusion_loss,
    fit,
    new_networks,
    regression_loss,
)
from hybridtumor.teacher import PhantomPair, RealCase, population_contrast
from hybridtumor.train import TrainOptions, train
from hybridtumor.training_pairs import PairSource, growth, to_row

TINY = (8, 8, 8)


def random_batch(step: int, edge: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(step)
    baseline, render, noise = (torch.randn(1, IMAGE_CHANNELS, edge, edge, edge, generator=generator) for _ in range(3))
    fields = torch.rand(1, len(FIELDS), edge, edge, edge, generator=generator)
    target = render + 0.5 * baseline + 0.1 * noise
    vector = torch.randn(1, VECTOR_SIZE, generator=generator)
    return Batch(baseline, render, target, fields, vector, torch.ones(1, IMAGE_CHANNELS))


@pytest.mark.law("images", "Training that was stopped ends in the same weights, bit for bit")
@pytest.mark.parametrize("stage", ["regression", "diffusion"])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, stage: str) -> None:
    def run(checkpoint: Path, stops: tuple[int, ...]) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        for stop in stops:
            regression, denoiser = new_networks(TINY, TINY, 0)
            options = TrainingOptions(6, save_every=1)
            network: nn.Module = regression if stage == "regression" else denoiser
            loss = regression_loss if stage == "regression" else diffusion_loss(regression, options)

            def stop_at(step: int, _: float, last: int = stop) -> None:
                if step == last and last < 6:
                    raise KeyboardInterrupt

            try:
                result = fit(network, loss, random_batch, options, checkpoint, progress=stop_at)
            except KeyboardInterrupt:
                continue
        return result

    straight = run(tmp_path / "a.safetensors", (6,))
    resumed = run(tmp_path / "b.safetensors", (2, 4, 6))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)
    stored, steps = averaged_weights(tmp_path / "b.safetensors")
    assert steps == 6
    assert all(torch.equal(stored[k], straight[k]) for k in straight)


def test_one_batch_can_be_learnt(tmp_path: Path) -> None:
    regression, denoiser = new_networks(TINY, TINY, 0)
    losses: list[float] = []
    options = TrainingOptions(60, learning_rate=1e-2, warmup=5, save_every=60)
    batch = random_batch(0)

    def note(_: int, loss: float) -> None:
        losses.append(loss)

    fit(regression, regression_loss, lambda _: batch, options, tmp_path / "r", progress=note)
    assert float(regression_loss(regression, batch, torch.Generator()).detach()) < losses[0] - 0.2
    losses.clear()
    fit(denoiser, diffusion_loss(regression, options), lambda _: batch, options, tmp_path / "d", progress=note)
    untrained = new_networks(TINY, TINY, 0)[1]
    late, early = (
        [
            float(diffusion_loss(regression, options)(net, batch, torch.Generator().manual_seed(k)).detach())
            for k in range(8)
        ]
        for net in (denoiser, untrained)
    )
    assert np.mean(late) < np.mean(early)


def test_regression_loss_is_least_at_the_true_mean_and_scale() -> None:
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

    assert value(0.3, 0.5) < min(value(0.2, 0.5), value(0.4, 0.5), value(0.3, 0.4), value(0.3, 0.65))


def test_missing_modality_and_outside_support_do_not_count() -> None:
    batch = random_batch(0)
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
    batch = random_batch(0)
    broken = Batch(batch.baseline, batch.render, batch.target * float("nan"), batch.fields, batch.vector, batch.present)
    with pytest.raises(ConvergenceError, match="step 0"):
        fit(MeanAndScale(TINY), regression_loss, lambda _: broken, TrainingOptions(2), tmp_path / "c")


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    options = TrainingOptions(1, save_every=1)
    fit(MeanAndScale(TINY), regression_loss, random_batch, options, tmp_path / "c")
    with pytest.raises(InputError, match="another"):
        fit(MeanAndScale((16, 8, 8)), regression_loss, random_batch, options, tmp_path / "c")


def real_case(name: str = "a", edge: int = 24) -> RealCase:
    rng = np.random.default_rng(0)
    axes = np.ogrid[:edge, :edge, :edge]
    distance = np.sqrt(sum((a - edge / 2) ** 2.0 for a in axes))
    density = (0.95 / (1 + np.exp(distance - 5))).astype(np.float32)
    labels = np.stack([density > 0.9, (density > 0.2) & (density <= 0.6), (density > 0.6) & (density <= 0.9)])
    scans, healthy = rng.normal(size=(2, 4, edge, edge, edge)).astype(np.float32)
    tissue = np.zeros((3, edge, edge, edge), np.float32)
    tissue[0] = 1
    contrast = rng.normal(size=(3, 4)).astype(np.float32)
    return RealCase(
        name, scans, healthy, labels.astype(np.float32), density, tissue, np.array([[12, 12, 12, 9]], np.float32),
        healthy[None].astype(np.float16), contrast, contrast, enhances=True, spacing=2.0,
    )  # fmt: skip


def test_cases_and_pairs_survive_the_disk(tmp_path: Path) -> None:
    case = real_case()
    case.save(tmp_path / "case.safetensors")
    back = RealCase.load(tmp_path / "case.safetensors")
    assert np.array_equal(back.scans, case.scans)
    assert (back.name, back.enhances, back.spacing) == (case.name, case.enhances, case.spacing)
    n, image = case.density, case.scans
    state = TherapyState(10.0, 1.0, 5, 12.0)
    pair = PhantomPair(
        "p",
        image,
        image,
        case.labels,
        image,
        case.labels,
        n,
        n,
        n,
        n,
        case.tissue,
        case.contrast,
        True,
        2.0,
        30.0,
        state,
    )
    pair.save(tmp_path / "pair.safetensors")
    assert PhantomPair.load(tmp_path / "pair.safetensors").therapy == state
    with pytest.raises(InputError, match="expected a PhantomPair"):
        PhantomPair.load(tmp_path / "case.safetensors")


def test_batches_are_reproducible_and_finite() -> None:
    source = PairSource([real_case()], [], crop=16, batch=4)
    for step in range(4):
        a, b = source.batch_of(step), source.batch_of(step)
        for name in Batch.__dataclass_fields__:
            assert torch.equal(getattr(a, name), getattr(b, name))
            assert torch.isfinite(getattr(a, name)).all()
        outside = (a.support == 0).expand_as(a.render)
        assert torch.equal(a.render[outside], a.baseline[outside])
    assert not torch.equal(source.batch_of(0).target, source.batch_of(1).target)


def test_an_untreated_example_has_an_untreated_condition() -> None:
    for seed in range(30):
        example = growth(real_case(), np.random.default_rng(seed), 16, ImagingThresholds(), from_nothing=True)
        if example.therapy != TherapyState():
            continue
        row = to_row(example, (True,) * 4, ImagingThresholds())
        assert not row["fields"][[1, 2]].any()
        assert not row["vector"][1:7].any()


def test_population_contrast_is_a_mean() -> None:
    a, b = real_case("a"), real_case("b")
    assert np.allclose(population_contrast([a, b]), a.contrast, atol=1e-6)


def test_train_writes_weights_that_load_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    (tmp_path / "data" / "train" / "patients" / "a").mkdir(parents=True)
    real_case("a").save(tmp_path / "real_a.safetensors")
    options = TrainOptions(
        tmp_path, tmp_path / "out", tmp_path / "data", regression_steps=1, diffusion_steps=1, batch=1, crop=16
    )
    weights = load_weights(train(options))
    assert weights.header["training"]["real_cases"] == ["a"]
    assert weights.header["training"]["diffusion_steps"] == 1
    first = weights.header["sha256"]
    assert load_weights(train(options)).header["sha256"] == first
    with pytest.raises(InputError, match="found none"):
        train(TrainOptions(tmp_path, tmp_path / "out", tmp_path / "nowhere"))
