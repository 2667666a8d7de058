"""Training of the density net: from train folders alone, with phantoms, judged on what is held out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import real_case
from torch import Tensor

from hybridtumor import train_command
from hybridtumor.density_weights import load_density_net
from hybridtumor.errors import InputError
from hybridtumor.models.conditioning import TherapyState
from hybridtumor.models.density_estimator import BLOCK, DensityNet
from hybridtumor.models.density_examples import DensityCase, ExampleSource, _stretched
from hybridtumor.models.density_training import SMALL_BURDEN, DensityExamples, DensityRecipe, density_loss
from hybridtumor.teacher import PhantomPair
from hybridtumor.train_density import (
    DensityOptions,
    phantom_density_case,
    read,
    real_density_case,
    train_density,
)

SMALL = DensityRecipe(steps=2, batch=1)


class PerfectNet(DensityNet):
    """Reads whatever the first modality adds to the healthy fill, times a factor."""

    factor = 1.0

    def on_blocks(self, images: Tensor, healthy: Tensor, present: Tensor) -> Tensor:
        assert present.all()
        assert all(n % 4 == 0 for n in images.shape[2:])
        return self.factor * (images - healthy)[:, :1]


def round_case(edge: int = 26) -> DensityCase:
    """A case whose first modality shows the density itself."""
    axes = np.indices((edge, edge, edge)) - (edge - 1) / 2
    density = np.clip(1 - np.sqrt((axes**2).sum(axis=0)) / 7, 0, 1).astype(np.float32)
    healthy = np.zeros((4, *density.shape), np.float32)
    images = healthy.copy()
    images[0] = density
    contrast = np.ones((3, 4), np.float32)
    return DensityCase(images, healthy, healthy, density, contrast, np.ones(density.shape, bool), True)


def phantom_pair() -> PhantomPair:
    case = real_case("phantom", 24)
    zero = np.zeros_like(case.density)
    return PhantomPair(
        name="phantom_0000_untreated_030", baseline=case.healthy, healthy=case.healthy, texture=0 * case.healthy,
        baseline_labels=0 * case.labels, target=case.scans, target_labels=case.labels, density_day0=zero,
        density=case.density, density_untreated=case.density, log_kill=zero, tissue=case.tissue, displacement=zero,
        cavity=zero, contrast=case.contrast, levels=case.levels, enhances=True, spacing=1.0, day=30.0,
        therapy=TherapyState(),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two prepared training cases and a phantom; a folder of test patients that nothing may read."""
    for name in "ab":
        (tmp_path / "data" / "train" / "patients" / name).mkdir(parents=True)
        real_case(name).save(tmp_path / "cache" / f"real_{name}.safetensors")
    (tmp_path / "data" / "test" / "patients" / "c").mkdir(parents=True)
    phantom_pair().save(tmp_path / "cache" / "phantom_0000_untreated_030.safetensors")
    return tmp_path


def test_a_perfect_reading_is_told_from_a_biased_one() -> None:
    net, case = PerfectNet(), round_case()
    perfect = read(net, case)
    assert perfect.correlation == pytest.approx(1)
    assert perfect.burden == pytest.approx(1)
    assert perfect.filled == 0
    net.factor = 1.7
    biased = read(net, case)
    assert biased.correlation == pytest.approx(1)
    assert biased.burden == pytest.approx(1.7)
    far = replace(case, images=case.images + 1.0 * (np.indices(case.density.shape)[0] < 2))  # 8 mm away and more
    net.factor = 1.0
    assert read(net, far).burden == pytest.approx(1, abs=0.01)
    scar = replace(case, healthy=case.healthy + 0.25 * case.density)
    assert read(net, scar).filled == pytest.approx(0.25)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.5])
def test_the_loss_counts_an_error_of_the_whole_burden(factor: float) -> None:
    case, net = round_case(24), PerfectNet()
    images, healthy = (torch.from_numpy(np.array(a))[None] for a in (case.images, case.healthy))
    density = torch.from_numpy(case.density)[None, None]
    examples = DensityExamples(images, healthy, torch.ones(1, 4), density)
    net.factor = factor
    burden = BLOCK**3 * float(density.sum())
    expected = np.log((factor * burden + SMALL_BURDEN) / (burden + SMALL_BURDEN)) ** 2
    extra = density_loss(net, examples, 3.0) - density_loss(net, examples)
    assert float(extra) == pytest.approx(3 * expected, abs=1e-6)


def test_cases_lie_on_blocks_and_know_their_density() -> None:
    case, pair = real_case("a"), phantom_pair()
    real, phantom = real_density_case(case), phantom_density_case(pair)
    assert real.images.shape == (4, 16, 16, 16)
    assert phantom.images.shape == (4, 12, 12, 12)
    assert real.density.sum() * BLOCK**3 == pytest.approx(case.density.sum(), rel=1e-5)
    assert phantom.density.sum() * BLOCK**3 == pytest.approx(pair.density.sum(), rel=1e-5)
    far = real.density < 1e-4
    assert np.allclose(real.healthy[:, far], real.images[:, far], atol=1e-5)  # the scan itself away from the tumour
    assert not np.allclose(real.healthy[:, ~far], real.images[:, ~far], atol=0.05)


def test_phantoms_are_drawn_as_often_as_asked() -> None:
    case = round_case(24)
    phantom = replace(case, images=case.images + 50, means=case.means + 50, healthy=case.healthy + 50)
    for share in (0.0, 0.3, 1.0):
        source = ExampleSource([case], [phantom], share, batch=1)
        means = [source.example(i)[1] for i in range(40)]
        assert np.mean([m.max() > 10 for m in means]) == pytest.approx(share, abs=0.2 * (share % 1 > 0))
    assert ExampleSource([], [phantom], 0.0).example(0)[1].max() > 10


def test_stretched_contrast_leaves_healthy_tissue_alone() -> None:
    case = round_case()
    images = case.healthy + case.density
    seen = [_stretched(images, case.healthy, np.random.default_rng(i)) for i in range(40)]
    where = case.density == 0
    assert all(np.array_equal(s[:, where], case.healthy[:, where]) for s in seen)
    factors = np.log([s.max(axis=(1, 2, 3)) / images.max() for s in seen])
    assert (factors.std(axis=0) > 0.1).all()
    assert np.median(np.abs(factors[:, 2] - factors[:, 3])) < np.median(np.abs(factors[:, 2] - factors[:, 0]))


def test_training_writes_a_net_that_loads_and_figures_of_what_was_held_out(folder: Path) -> None:
    said: list[str] = []
    options = DensityOptions(folder / "cache", folder / "out", folder / "data", SMALL, 0, hold_out=("b",))
    path = train_density(options, say=said.append)
    about = json.loads(path.with_suffix(".json").read_text())["training"]
    assert (about["cases"], about["phantom_pairs"], about["recipe"]["steps"]) == (["a"], 1, 2)
    assert set(about["held_out"]) == {"b"}
    assert set(about["held_out"]["b"]) == {"correlation", "burden", "filled"}
    assert [line.split(":")[0] for line in said if line.startswith("density")] == ["density step 2 of 2"]
    assert any(line.startswith("held out b") for line in said)
    first = load_density_net(path)
    again = load_density_net(train_density(replace(options, out=folder / "again")))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    whole = train_density(replace(options, hold_out=(), out=folder / "whole"))
    about = json.loads(whole.with_suffix(".json").read_text())["training"]
    assert (about["cases"], about["held_out"]) == (["a", "b"], {})  # no test patient


def test_the_command_trains_the_density_net(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"out": folder / "out", "cache": folder / "cache", "data": folder / "data", "phantoms": 0}
    train_command.train(**places, density=True, density_steps=1, batch=1)
    assert "density.safetensors" in capsys.readouterr().out
    with pytest.raises(InputError, match="--crop, they are the refiner's"):
        train_command.train(**places, density=True, crop=48)
    with pytest.raises(InputError, match="hold-out"):
        train_command.train(**places, density=True, hold_out=("c",))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": -1}, {"rate": 0.0}, {"phantom_share": 1.2}])
def test_impossible_recipes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="density net: expected"):
        DensityRecipe().but(**wrong)
