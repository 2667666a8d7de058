"""Few-step students: the ODE's map of a Gaussian is learnt, boundaries hold, pruning keeps what matters."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import TINY, example
from torch import Tensor, nn

from hybridtumor.errors import InputError
from hybridtumor.models.conditioning import FIELDS
from hybridtumor.models.denoiser import Denoiser
from hybridtumor.solvers.distillation import (
    ConsistencyDenoiser,
    PairMaker,
    Pairs,
    bounded,
    consistency_loss,
    consistency_misfit,
    discretisation,
    frozen,
    one_step_loss,
    student_of,
    teacher_step,
)
from hybridtumor.solvers.losses import remainder_of
from hybridtumor.solvers.pruning import half_width, narrower, widths_of
from hybridtumor.solvers.samplers import SAMPLERS
from hybridtumor.solvers.sampling import SIGMA_MAX, SIGMA_MIN, START, noise_levels
from hybridtumor.solvers.training import TrainingOptions, fit, new_networks, regression_loss

heun = SAMPLERS["heun"]

VARIANCE = 1.0


def gaussian_denoiser(y: Tensor, sigma: Tensor) -> Tensor:
    """E[r | y] of r ~ N(0, VARIANCE)."""
    return VARIANCE / (VARIANCE + sigma[:, None] ** 2) * y


def ode_factor(high: Tensor, low: Tensor | float) -> Tensor:
    """Exact map of the Gaussian's ODE from one level to another: a factor."""
    return ((VARIANCE + low**2) / (VARIANCE + high**2)) ** 0.5


class LinearStudent(nn.Module):
    """f(y, t_n) = bounded(a_n y): a factor per level."""

    def __init__(self, levels: Tensor) -> None:
        super().__init__()
        self.levels = levels
        self.factor = nn.Parameter(0.5 * torch.ones(len(levels)))

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        n = torch.cdist(sigma[:, None], self.levels[:, None]).argmin(dim=1)
        return bounded(self.factor[n, None] * y, y, sigma)


def errors_of_a_student(levels: int, looks: tuple[int, ...]) -> list[float]:
    """RMS error of the one-step samples of a consistency student after so many steps of training."""
    times = discretisation(levels, SIGMA_MAX)
    student, target = LinearStudent(times), LinearStudent(times)
    optimiser = torch.optim.Adam(student.parameters(), 0.02)
    generator = torch.Generator().manual_seed(0)
    start = ode_start(500)
    exact = ode_factor(torch.tensor(SIGMA_MAX), SIGMA_MIN) * start
    errors = []
    for step in range(1, looks[-1] + 1):
        n = torch.randint(levels - 1, (64,), generator=generator)
        clean, noise = VARIANCE**0.5 * torch.randn(2, 64, 4, generator=generator)
        misfit = consistency_misfit(student, target, gaussian_denoiser, clean, noise, times[n + 1], times[n])
        optimiser.zero_grad()
        misfit.mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            target.factor.lerp_(student.factor, 0.1)
            if step in looks:
                estimate = student(start, torch.full((len(start),), SIGMA_MAX))
                errors.append(float((estimate - exact).square().mean().sqrt()))
    return errors


@pytest.mark.law("images", "A consistency student of a Gaussian learns its ODE")
def test_a_consistency_student_of_a_gaussian_learns_its_ode() -> None:
    early, middle, late = errors_of_a_student(18, (5, 40, 500))
    assert early > 2 * middle
    assert middle > 4 * late
    assert late < 0.05  # of samples of unit variance
    (coarse,) = errors_of_a_student(5, (500,))
    assert late < 0.5 * coarse  # what is left is the error of the teacher's steps


def ode_start(count: int) -> Tensor:
    white = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return (VARIANCE + SIGMA_MAX**2) ** 0.5 * white


def test_a_step_of_the_teacher_is_of_second_order() -> None:
    y, high = torch.ones(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    errors = []
    for ratio in (0.8, 0.9, 0.95):
        low = ratio * high
        errors.append(float((teacher_step(gaussian_denoiser, y, high, low) - ode_factor(high, low) * y).abs()))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 3) < 0.25)  # locally third


def filled(network: nn.Module, seed: int = 0) -> None:
    """Give all weights values that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))


def test_a_consistency_denoiser_returns_what_it_is_given_at_the_least_level() -> None:
    student = student_of(new_networks(TINY, TINY, 0)[1], ConsistencyDenoiser, TINY)
    filled(student)
    batch = example(0)
    support = FIELDS.index("support")
    batch.fields[:, support, :4] = 0
    y = batch.target
    estimate = student(y, torch.full((1,), SIGMA_MIN), batch.render, 0 * y, batch.fields, batch.vector)
    inside = (batch.fields[:, support, None] > 0).expand_as(y)
    assert torch.allclose(estimate[inside], y[inside], atol=1e-6)
    assert not estimate[~inside].any()
    above = student(y, torch.full((1,), 2 * SIGMA_MIN), batch.render, 0 * y, batch.fields, batch.vector)
    assert not torch.allclose(above[inside], y[inside], atol=1e-2)
    assert set(student.state_dict()) == set(Denoiser(TINY).state_dict())


def test_consistency_training_goes_on_bit_for_bit_with_its_target(tmp_path: Path) -> None:
    regression, teacher = (frozen(network) for network in new_networks(TINY, TINY, 0))
    options = TrainingOptions(5, 1, save_every=2, log_every=1, warmup=1, ema=0.5)

    def run(path: Path, stops: tuple[int, ...]) -> dict[str, Tensor]:
        for stop in (*stops, 5):
            student = student_of(teacher, ConsistencyDenoiser, TINY)
            average: dict[str, Tensor] = {}
            loss = consistency_loss(regression, teacher, student, average, discretisation(8))

            def stop_at(step: int, _: float, last: int = stop) -> None:
                if step == last < 5:
                    raise KeyboardInterrupt

            try:
                result = fit(student, loss, example, options, path, average=average, progress=stop_at)
            except KeyboardInterrupt:
                continue
            assert all(average[k] is result[k] for k in result)
        return result

    straight, resumed = run(tmp_path / "a", ()), run(tmp_path / "b", (2, 3))
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)
    assert any(not torch.equal(straight[k], p) for k, p in teacher.named_parameters())


def test_pairs_are_made_once_and_are_the_teachers(tmp_path: Path) -> None:
    regression, teacher = (frozen(network) for network in new_networks(TINY, TINY, 0))
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    maker = PairMaker(regression, teacher, example, tmp_path, count=2, steps=3)
    pairs = maker.pairs_of(1)
    assert len(calls) == 5
    again = maker.pairs_of(3)
    assert len(calls) == 5
    assert torch.equal(again.end, pairs.end)
    assert torch.equal(again.start, pairs.start)
    _, mean_image, log_scale = remainder_of(regression, pairs.batch)
    inputs = (mean_image, log_scale, pairs.batch.fields, pairs.batch.vector)
    with torch.no_grad():
        expected = heun(lambda y, sigma: teacher(y, sigma, *inputs), pairs.start, noise_levels(3, START))
    assert torch.allclose(pairs.end, expected, atol=2e-3, rtol=2e-3)  # kept in half precision
    assert not torch.equal(maker.pairs_of(0).start, pairs.start)


def test_a_one_step_student_comes_nearer_to_the_teachers_ends(tmp_path: Path) -> None:
    regression, teacher = (frozen(network) for network in new_networks(TINY, TINY, 0))
    maker = PairMaker(regression, teacher, example, tmp_path / "pairs", count=1, steps=3)
    student = student_of(teacher, Denoiser, TINY)
    loss, generator, pairs = one_step_loss(regression), torch.Generator(), maker.pairs_of(0)
    before = float(loss(student, pairs, generator).detach())
    fit(student, loss, maker.pairs_of, TrainingOptions(25, 1, 1e-2, warmup=3, save_every=25), tmp_path / "one")
    assert float(loss(student, pairs, generator).detach()) < 0.7 * before
    assert float(loss(lambda *_: pairs.end, pairs, generator)) == 0
    assert len(Pairs.to(pairs, "cpu")) == 1


def test_pruning_to_the_same_widths_changes_nothing() -> None:
    for widths in (TINY, (8, 16, 24), (16, 16, 16)):
        denoiser = Denoiser(widths)
        filled(denoiser)
        same = narrower(denoiser, widths)
        assert widths_of(same.net) == widths
        old, new = dict(denoiser.named_parameters()), dict(same.named_parameters())
        assert old.keys() == new.keys()
        assert all(torch.equal(old[k], new[k]) for k in old)


def test_half_the_width_keeps_the_largest_channels() -> None:
    denoiser = Denoiser((16, 32, 48))
    filled(denoiser)
    large = torch.tensor([1, 4, 5, 7, 8, 11, 14, 15])
    with torch.no_grad():
        hidden, stream = denoiser.net.down[0], denoiser.net.enter
        hidden.conv1.weight[large] *= 50
        stream.weight[large.flip(0) - 1] *= 50
    half = half_width(denoiser)
    assert widths_of(half.net) == (8, 16, 24)
    kept_stream = (large - 1).sort().values
    expected = hidden.conv1.weight[large][:, kept_stream]
    assert torch.equal(half.net.down[0].conv1.weight, expected)
    assert torch.equal(half.net.enter.weight, stream.weight[kept_stream])
    assert torch.equal(half.net.embed[0].weight, denoiser.net.embed[0].weight)
    assert sum(p.numel() for p in half.parameters()) < 0.5 * sum(p.numel() for p in denoiser.parameters())


def test_importance_does_not_change_with_the_size_of_a_channel_alone() -> None:
    denoiser = Denoiser((16, 32, 48))
    filled(denoiser)
    before = half_width(denoiser).net.down[1].conv2.weight.shape, half_width(denoiser).net.down[1].norm2.weight.clone()
    with torch.no_grad():
        denoiser.net.down[1].conv1.weight[3] *= 1000
        denoiser.net.down[1].conv2.weight[:, 3] /= 1000
    after = half_width(denoiser).net.down[1].conv2.weight.shape, half_width(denoiser).net.down[1].norm2.weight
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("widths", [(8, 12, 16), (32, 32, 48), (8, 16), (16, 16, 24)])
def test_widths_that_do_not_fit_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="widths: expected"):
        narrower(Denoiser((16, 32, 48)), widths)


def test_a_frozen_network_learns_nothing() -> None:
    regression = frozen(new_networks(TINY, TINY, 0)[0])
    assert not regression_loss(regression, example(0), torch.Generator()).requires_grad
