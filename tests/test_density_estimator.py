"""S_A inverts the render; S_B learns density; neither sees a tumour where there is none; weights are checked."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from scipy import ndimage
from torch import Tensor

from hybridtumor.density_weights import load_density_net, save_density_net
from hybridtumor.errors import ConvergenceError, InputError, ResourceError
from hybridtumor.models.contrast import POPULATION
from hybridtumor.models.density_estimator import BLOCK, DensityNet, DensityTemplates
from hybridtumor.models.density_examples import WINDOW, DensityCase, ExampleSource, _fill, smooth_field
from hybridtumor.models.density_training import DensityExamples, DensityRecipe, train_density_net
from hybridtumor.models.smoothing import smoothed, window_mean
from hybridtumor.models.visibility import label_fractions
from hybridtumor.parameters import ImagingThresholds

THRESHOLDS = ImagingThresholds()
SIZE = 40


def ball(top: float = 0.97, size: int = SIZE, radius: float = 16.0) -> np.ndarray:
    """A density that falls linearly from `top` in the centre to 0 at `radius` mm."""
    axes = np.indices((size, size, size)) - (size - 1) / 2
    distance = np.sqrt((axes**2).sum(axis=0))
    return (top * np.clip(1 - distance / radius, 0, 1)).astype(np.float32)


def fill(seed: int = 0, size: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([0.3 * smooth_field(rng, 20, (size, size, size)) for _ in range(4)]).astype(np.float32)


def painted(density: np.ndarray, healthy: np.ndarray, *, enhances: bool = True) -> Tensor:
    fractions = label_fractions(density, THRESHOLDS, enhances=enhances)
    return torch.from_numpy(healthy + np.einsum("lm,lxyz->mxyz", POPULATION, fractions))[None]


def templates(healthy: np.ndarray, **changes: object) -> DensityTemplates:
    return DensityTemplates(torch.from_numpy(healthy), POPULATION, THRESHOLDS, **changes)  # type: ignore[arg-type]


def correlation(estimate: Tensor, density: np.ndarray, where: np.ndarray) -> float:
    return float(np.corrcoef(estimate[0, 0].detach().numpy()[where], density[where])[0, 1])


@pytest.mark.parametrize("enhances", [True, False])
def test_templates_return_the_density_of_the_render(enhances: bool) -> None:
    density, healthy = ball(), fill()
    estimate = templates(healthy, enhances=enhances)(painted(density, healthy, enhances=enhances))
    near = ball(radius=24.0) > 0  # the tumour and 8 mm around it
    assert correlation(estimate, density, near) > (0.97 if enhances else 0.95)
    grain = 0.1 * torch.randn(1, 4, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    noisy = templates(healthy, enhances=enhances)(painted(density, healthy, enhances=enhances) + grain)
    assert correlation(noisy, density, near) > 0.93


def test_more_density_never_looks_like_less() -> None:
    healthy = np.zeros((4, 6, 6, 6), np.float32)
    levels = np.linspace(0, 1, 101, dtype=np.float32)
    images = torch.cat([painted(np.full((6, 6, 6), n, np.float32), healthy) for n in levels])
    implied = templates(healthy)(images)[:, 0, 3, 3, 3]
    assert (implied.diff() >= -1e-6).all()
    assert float(implied[0]) < 0.12
    assert float(implied[-1]) > 0.9
    assert float((implied - torch.from_numpy(levels)).abs().max()) < 0.22  # half an oedema is wide


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_templates_do_without_a_modality(missing: int) -> None:
    density, healthy = ball(), fill()
    images = painted(density, healthy)
    flags = tuple(m != missing for m in range(4))
    estimator = templates(healthy, available=flags)
    near = ball(radius=24.0) > 0
    assert correlation(estimator(images), density, near) > 0.9
    spoilt = images.clone()
    spoilt[:, missing] = 7.0
    assert torch.equal(estimator(spoilt), estimator(images))


def test_templates_have_the_gradient_of_finite_differences() -> None:
    size = 8
    healthy = fill(size=size)
    estimator = DensityTemplates(torch.from_numpy(healthy).double(), POPULATION, THRESHOLDS)
    images = painted(ball(size=size, radius=5.0), healthy).double()
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    weight = torch.randn((1, 1, size, size, size), generator=generator, dtype=torch.float64)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad((weight * estimator(images)).sum(), images)
    h = 1e-5
    with torch.no_grad():
        ahead, behind = ((weight * estimator(images + s * h * direction)).sum() for s in (1, -1))
    expected = float((ahead - behind) / (2 * h))
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-4)


def test_seen_is_the_estimate_of_the_render() -> None:
    density, healthy = ball(), fill()
    estimator = templates(healthy)
    seen = estimator.seen(torch.from_numpy(density)[None, None])
    assert torch.allclose(seen, estimator(painted(density, healthy)), atol=2e-5)


def test_estimate_depends_on_nothing_beyond_its_reach() -> None:
    healthy = fill(size=24)
    estimator = templates(healthy)
    images = painted(ball(size=24, radius=10.0), healthy)
    changed = images.clone()
    changed[..., 12, 12, 12] += 3.0
    moved = (estimator(changed) != estimator(images))[0, 0].nonzero()
    assert len(moved) > 1
    assert int((moved - 12).abs().max()) == estimator.reach == 3


def test_smoothing_keeps_constants_and_follows_the_spacing() -> None:
    constant = torch.full((1, 2, 9, 8, 7), 1.7)
    assert torch.allclose(smoothed(constant, 1.3), constant)
    assert templates(fill(size=8), spacing=0.5).reach == 6
    assert torch.equal(smoothed(constant, 0.0), constant)


def test_smoothing_is_a_convolution_and_its_slope_the_adjoint() -> None:
    generator = torch.Generator().manual_seed(3)
    x, g = torch.randn(2, 1, 2, 6, 9, 5, generator=generator, dtype=torch.float64)
    expected = ndimage.gaussian_filter(x[0].numpy(), 1.0, axes=(1, 2, 3), truncate=3.0, mode="nearest")
    assert np.allclose(smoothed(x, 1.0)[0], expected, atol=1e-12)
    x.requires_grad_()
    (back,) = torch.autograd.grad(smoothed(x, 1.0), x, g)
    with torch.no_grad():
        assert float((back * x).sum()) == pytest.approx(float((g * smoothed(x, 1.0)).sum()), rel=1e-12)


def test_window_means_are_those_of_cubes_and_know_nothing_farther_away() -> None:
    x = torch.randn(1, 2, 8, 9, 10, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = nnf.avg_pool3d(x, 5, stride=1, padding=2)
    assert torch.allclose(window_mean(x, 2), expected, atol=1e-12)
    far = x.clone()
    far[..., 7, 8, 9] = 1e6
    assert torch.equal(window_mean(far, 2)[..., :5, :6, :7], window_mean(x, 2)[..., :5, :6, :7])


@pytest.mark.law("images", "The density that steers is the same bit for bit wherever else it is asked for")
def test_asking_in_fewer_places_changes_no_bit() -> None:
    healthy, generator = fill(), torch.Generator().manual_seed(5)
    images, slope = painted(ball(), healthy), torch.randn(1, 1, SIZE, SIZE, SIZE, generator=generator)
    few = torch.rand(SIZE, SIZE, SIZE, generator=generator) < 0.03
    found = []
    for within in (None, few, few | (torch.rand(few.shape, generator=generator) < 0.4)):
        x = images.clone().requires_grad_()
        implied = templates(healthy, within=within)(x)
        found.append((implied[..., few].detach(), *torch.autograd.grad(implied, x, slope * few)))
        assert within is None or not implied[..., ~within].any()
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_contrast_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="expected a contrast"):
        DensityTemplates(torch.zeros(3, 8, 8, 8), POPULATION, THRESHOLDS)


def case(seed: int) -> DensityCase:
    """A phantom on blocks: smooth tissue, texture, a ball of tumour."""
    rng = np.random.default_rng(seed)
    size = 32
    density = ball(size=size, radius=float(rng.uniform(8, 14)))
    means = fill(seed, size)
    healthy = means + 0.05 * rng.standard_normal(means.shape).astype(np.float32)
    images = healthy + np.einsum("lm,lxyz->mxyz", POPULATION, label_fractions(density, THRESHOLDS))
    return DensityCase(images.astype(np.float32), means, healthy, density, POPULATION, np.ones((size,) * 3, bool), True)


def test_an_example_belongs_to_seed_and_index() -> None:
    source, other = ExampleSource([case(0), case(1)], seed=3), ExampleSource([case(0), case(1)], seed=4)
    first, again = source.batch_of(2), source.batch_of(2)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.density, again.density)
    assert not torch.equal(first.images, other.batch_of(2).images)
    assert first.images.shape == (2, 4, WINDOW, WINDOW, WINDOW)
    assert first.density.shape == (2, 1, WINDOW, WINDOW, WINDOW)
    assert first.present.sum() >= 2


def test_examples_show_absence_as_well() -> None:
    source = ExampleSource([case(0), case(1)], batch=1)
    drawn = [source.batch_of(step) for step in range(30)]
    assert any(float(e.density.max()) == 0 for e in drawn)  # killed everywhere
    assert any(float(e.density.max()) > 0.5 for e in drawn)
    assert all(bool(torch.isfinite(e.images).all()) for e in drawn)
    assert all(float(e.density.min()) >= 0 and float(e.density.max()) <= 1 for e in drawn)


def test_fill_does_not_mark_the_tumour() -> None:
    tumour, bare = case(0), case(1)
    none = replace(bare, density=np.zeros_like(bare.density), images=bare.healthy)
    filled = [_fill(none, none.density, np.random.default_rng(i)) != none.healthy for i in range(20)]
    assert np.mean([f.any(axis=0).mean() for f in filled]) > 0.3  # healthy tissue is filled as well
    for i in range(20):
        around = _fill(tumour, tumour.density, np.random.default_rng(i))[:, tumour.density > 0.1]
        assert np.allclose(around, tumour.means[:, tumour.density > 0.1], atol=1e-6)  # the fill shows no tumour


def test_net_learns_to_read_density() -> None:
    source = ExampleSource([case(0), case(1)], batch=2)
    whole = source.batch_of(0)
    part = DensityExamples(
        *(a[..., :24, :24, :24] for a in (whole.images, whole.healthy)),
        whole.present,
        whole.density[..., :24, :24, :24],
    )
    losses: list[float] = []
    net = train_density_net(
        lambda _: part, DensityRecipe(16, rate=3e-3, burden_weight=0), progress=lambda _, loss: losses.append(loss)
    )
    assert np.mean(losses[-4:]) < 0.75 * np.mean(losses[:4])
    again = train_density_net(lambda _: part, DensityRecipe(2))
    same = train_density_net(lambda _: part, DensityRecipe(2))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), same.parameters(), strict=True))
    images = torch.zeros(1, 4, 13, 18, 9)
    assert net(images, images, torch.ones(1, 4)).shape == (1, 1, 13, 18, 9)
    present = torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    spoilt = images.clone()
    spoilt[:, 1] = 5.0
    assert torch.equal(net(spoilt, images, present), net(images, images, present))


def test_net_that_diverges_stops() -> None:
    empty = torch.full((1, 4, 8, 8, 8), torch.nan)
    bad = DensityExamples(empty, empty, torch.ones(1, 4), torch.zeros(1, 1, 8, 8, 8))
    with pytest.raises(ConvergenceError, match="finite loss"):
        train_density_net(lambda _: bad, DensityRecipe(1))


def test_weights_are_kept_and_checked(tmp_path: Path) -> None:
    net, path = DensityNet(), tmp_path / "density.safetensors"
    with pytest.raises(ResourceError, match="found none"):
        load_density_net(path)
    save_density_net(path, net, {"cases": 0})
    read = load_density_net(path)
    for kept, own in zip(read.parameters(), net.parameters(), strict=True):
        assert torch.equal(kept, own.half().float())
    header = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**header, "block_mm": BLOCK + 1}))
    with pytest.raises(ResourceError, match="block_mm"):
        load_density_net(path)
    path.with_suffix(".json").write_text(json.dumps(header))
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ResourceError, match="SHA-256"):
        load_density_net(path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ResourceError, match="damaged"):
        load_density_net(path)
