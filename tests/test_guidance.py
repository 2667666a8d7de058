"""Therapy as a source term: the laws of SCIENCE §6 on a denoiser and an estimator that are exactly linear."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from figures import Figure
from torch import Tensor

from hybridtumor.errors import InputError
from hybridtumor.models.contrast import POPULATION
from hybridtumor.models.density_estimator import DensityTemplates
from hybridtumor.models.smoothing import smoothed
from hybridtumor.models.visibility import label_fractions
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.solvers.guidance import (
    Conditions,
    Denoise,
    GuidanceOptions,
    Mode,
    Source,
    Step,
    copies,
    guided,
    told,
)
from hybridtumor.solvers.samplers import CONSISTENCY, SAMPLERS
from hybridtumor.solvers.sampling import SIGMA_MIN, START, noise_levels
from hybridtumor.students import CONSISTENCY_LEVEL, PUSHES, TEACHER_STEPS

heun = SAMPLERS["heun"]

SHAPE = (20, 20, 20)
CONTRAST = torch.tensor([0.8, -0.4, 0.5, 0.3])[None, :, None, None, None]
SCALE = 0.4
LEVELS = noise_levels(12, sigma_max=8.0)
THRESHOLDS = ImagingThresholds()
STEPS: tuple[Step, ...] = ("polyak", "annealed")


@dataclass(frozen=True)
class Linear:
    """S(x) = ⟨c, G x⟩ / |c|²: the density of x = c n, smoothed."""

    sigma: float = 0.7
    reach: int = 3

    def __call__(self, images: Tensor) -> Tensor:
        return smoothed(
            (CONTRAST.to(images) * images).sum(1, keepdim=True) / (CONTRAST**2).sum().to(images), self.sigma
        )

    def seen(self, density: Tensor) -> Tensor:
        return smoothed(density, self.sigma)


def blob(top: float, radius: float = 7.0, centre: tuple[float, float, float] = (9.5, 9.5, 9.5)) -> Tensor:
    """A smooth density, exactly 0 beyond `radius`."""
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in SHAPE], indexing="ij")
    d2 = torch.stack([(a - c) ** 2 for a, c in zip(axes, centre, strict=True)]).sum(0)
    return top * (1 - d2 / radius**2).clamp_min(0)[None, None] ** 2


UNTREATED = blob(0.8)


def network(density: Tensor, variance: float = 1.0) -> Denoise:
    """The exact denoiser of r ~ N(0, variance) around the image of a density, with μ and R those of no treatment."""

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        mean = CONTRAST * (density - UNTREATED) / SCALE
        level = sigma[:, None, None, None, None] ** 2
        return (variance * y + level * mean) / (variance + level)

    return denoise


def to_image(clean: Tensor) -> Tensor:
    return CONTRAST.to(clean) * UNTREATED.to(clean) + SCALE * clean


def source(treated: Tensor, untreated: Tensor = UNTREATED) -> Source:
    return Source(to_image, Linear(), treated, untreated)


def start(seed: int = 0, batch: int = 1) -> Tensor:
    return 8.0 * torch.randn((batch, 4, *SHAPE), generator=torch.Generator().manual_seed(seed))


def driven(
    conditions: Conditions, options: GuidanceOptions, sources: list[Source], draw: Callable[[Denoise, Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """What `draw` makes of a start with therapy as `options` say; mode source gets its copies, and gives back one."""

    def end(noise: Tensor) -> Tensor:
        number = copies(options, sources)
        return draw(guided(conditions, options, sources), noise.repeat(number, 1, 1, 1, 1))[: len(noise)]

    return end


def once(level: float) -> Callable[[Denoise, Tensor], Tensor]:
    """One evaluation at a level."""
    return lambda denoise, y: denoise(y, torch.full((len(y),), level))


def sample(treated: Tensor, mode: Mode, step: Step = "polyak", noise: Tensor | None = None, **options: Any) -> Tensor:
    told_to = Conditions(network(treated), network(UNTREATED))
    end = driven(told_to, GuidanceOptions(mode, step, **options), [source(treated)], lambda d, y: heun(d, y, LEVELS))
    return end(start() if noise is None else noise)


def burden(drawn: Tensor) -> float:
    return float(Linear()(to_image(drawn)).sum())


def killed(share: float) -> Tensor:
    return UNTREATED * (1 - share)


@pytest.mark.law("images", "Without dose the source term is zero, bit for bit")
@pytest.mark.parametrize("mode", ["condition", "source", "both"])
@pytest.mark.parametrize("step", STEPS)
def test_no_dose_is_the_untreated_sample_bit_for_bit(mode: Mode, step: Step) -> None:
    plain = heun(network(UNTREATED), start(), LEVELS)
    assert torch.equal(sample(killed(0.0), mode, step), plain)
    if mode != "condition":
        assert not torch.equal(sample(killed(0.01), mode, step), plain)


@pytest.mark.law("images", "The source term is local, bit for bit")
@pytest.mark.parametrize("mode", ["source", "both"])
@pytest.mark.parametrize("step", STEPS)
def test_drift_is_zero_where_therapy_has_changed_nothing(mode: Mode, step: Step) -> None:
    untreated = torch.full_like(UNTREATED, 0.5)
    here, there = blob(0.3, 3.0, (3.5, 3.5, 3.5)), blob(0.3, 2.5, (16.5, 16.5, 16.5))
    told_to = Conditions(network(UNTREATED), network(UNTREATED))
    options = GuidanceOptions(mode, step)
    y = start(2)
    plain = told(told_to, options)(y, torch.tensor([1.5]))
    one = driven(told_to, options, [source(untreated - here, untreated)], once(1.5))(y)
    changed = (here > 0).expand_as(y)
    assert torch.equal(one[~changed], plain[~changed])
    assert not torch.equal(one[changed], plain[changed])
    two = driven(told_to, options, [source(untreated - here - there, untreated)], once(1.5))(y)
    far = (there > 0).expand_as(y)
    assert torch.equal(two[~far], one[~far])  # a second place does not change what happens at the first
    assert not torch.equal(two[far], one[far])


@pytest.mark.parametrize("mode", ["source", "both"])
@pytest.mark.parametrize("step", STEPS)
def test_a_window_around_the_change_is_enough(mode: Mode, step: Step) -> None:
    change = blob(0.3, 3.0, (8.5, 9.5, 10.5))
    here = (slice(3, 15), slice(4, 16), slice(5, 17))  # the change and the reach of the estimator
    part = (slice(None), slice(None), *here)
    treated = UNTREATED - change

    def image(clean: Tensor) -> Tensor:
        return CONTRAST * UNTREATED[part] + SCALE * clean

    cut = Source(image, Linear(), treated[part], UNTREATED[part], here)
    told_to, options = Conditions(network(UNTREATED), network(UNTREATED)), GuidanceOptions(mode, step)
    whole, windowed = (driven(told_to, options, [s], once(1.5))(start(2)) for s in (source(treated), cut))
    assert torch.allclose(whole, windowed, atol=1e-5)
    assert not torch.allclose(whole, told(told_to, options)(start(2), torch.tensor([1.5])), atol=1e-2)


def test_annealed_source_adds_and_is_linear_in_the_kill() -> None:
    plain = heun(network(UNTREATED), start(), LEVELS)

    def effect(treated: Tensor) -> Tensor:
        return sample(treated, "source", "annealed") - plain

    ramp = torch.linspace(0.05, 0.25, SHAPE[0])[:, None, None]
    left, right = UNTREATED * ramp, UNTREATED * ramp.flip(0)
    both = effect(UNTREATED - left - right)
    apart = effect(UNTREATED - left) + effect(UNTREATED - right)
    assert float((both - apart).abs().max()) < 1e-4 * float(both.abs().max())
    twice = effect(UNTREATED - 2 * left)
    assert float((twice - 2 * effect(UNTREATED - left)).abs().max()) < 1e-4 * float(twice.abs().max())


def test_polyak_source_is_linear_for_small_kill() -> None:
    plain = burden(heun(network(UNTREATED), start(), LEVELS))
    shares = (0.02, 0.04, 0.08)
    effects = [plain - burden(sample(killed(s), "source")) for s in shares]
    order = np.log(effects[-1] / effects[0]) / np.log(shares[-1] / shares[0])
    assert order == pytest.approx(1.0, abs=0.1)


@pytest.mark.law("images", "More kill never implies more tumour (linear model)")
@pytest.mark.parametrize("mode", ["source", "both"])
@pytest.mark.parametrize("step", STEPS)
def test_more_kill_never_implies_more_tumour(mode: Mode, step: Step) -> None:
    burdens = [burden(sample(killed(s), mode, step)) for s in (0.0, 0.1, 0.25, 0.45, 0.7, 1.0)]
    assert all(a > b for a, b in pairwise(burdens))


@pytest.mark.law("images", "Modes condition and source agree for small kill (linear model)")
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_condition_and_source_agree(share: float) -> None:
    noise = start(5)
    plain = heun(network(UNTREATED), noise, LEVELS)
    start_knows = 1 - 1 / (1 + float(LEVELS[0]) ** 2) ** 0.5  # the start has no mean; what the exact denoiser adds
    demanded = start_knows * float((UNTREATED - killed(share)).sum())
    told_effect = burden(plain) - burden(sample(killed(share), "condition", noise=noise))
    driven = burden(plain) - burden(sample(killed(share), "source", noise=noise))
    assert told_effect == pytest.approx(demanded, rel=0.05)
    assert driven == pytest.approx(told_effect, rel=0.2)
    inside = (UNTREATED > 0.2)[0, 0]
    implied = [Linear()(to_image(x))[0, 0][inside] for x in (plain, sample(killed(share), "source", noise=noise))]
    assert (implied[1] < implied[0]).all()


def consistency_function(density: Tensor) -> Denoise:
    """The exact map of the ODE of `network(density)` to its end."""

    def function(y: Tensor, sigma: Tensor) -> Tensor:
        mean = CONTRAST * (density - UNTREATED) / SCALE
        return mean + ((1 + SIGMA_MIN**2) / (1 + sigma[:, None, None, None, None] ** 2)) ** 0.5 * (y - mean)

    return function


@pytest.mark.law("images", "Therapy as a source term moves a student as far as its teacher (linear model)")
@pytest.mark.parametrize(("stage", "levels"), [("one-step", [START]), ("consistency", [START, CONSISTENCY_LEVEL])])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_few_evaluations_of_a_student_push_as_far_as_the_teachers(
    share: float, stage: str, levels: list[float], figure: Figure
) -> None:
    noise = (1 + START**2) ** 0.5 / 8 * start(5)
    options = GuidanceOptions("both")

    def effect(net: Denoise, draw: Callable[[Denoise, Tensor], Tensor], how: GuidanceOptions) -> float:
        """On a network that says nothing of the therapy."""
        end = driven(Conditions(net), how, [source(killed(share))], draw)
        return burden(draw(net, noise)) - burden(end(noise))

    def teacher(denoise: Denoise, y: Tensor) -> Tensor:
        return SAMPLERS["dpmpp_2m"](denoise, y, noise_levels(TEACHER_STEPS, START, 0.03, 40.0))

    def student(function: Denoise, y: Tensor) -> Tensor:
        return CONSISTENCY(function, y, torch.tensor([*levels, 0.0]), fresh=lambda k: start(20 + k) / 8)

    net = consistency_function(UNTREATED)
    many = effect(network(UNTREATED), teacher, options)
    few = effect(net, student, replace(options, repeats=PUSHES[stage]))
    figure("effect over that on the teacher", few / many, at_least=0.8, at_most=1.25)
    assert effect(net, student, options) < 0.7 * many  # if each pushed but once


@pytest.mark.law("images", "Mode source reaches the kill in any number of evaluations, though the network pulls back")
@pytest.mark.parametrize("steps", [1, 2, 6, 12])
@pytest.mark.parametrize("variance", [1.0, 0.1])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_source_reaches_the_kill(steps: int, variance: float, share: float, figure: Figure) -> None:
    net, levels = network(UNTREATED, variance), noise_levels(steps, START, 0.03, 40.0)
    way = SAMPLERS["dpmpp_2m"]
    end = driven(
        Conditions(net, net), GuidanceOptions("source"), [source(killed(share))], lambda d, y: way(d, y, levels)
    )
    noise = start(5) / 8
    demanded = burden(torch.zeros(1)) - float(Linear().seen(killed(share)).sum())
    reached = burden(way(net, noise, levels)) - burden(end(noise))
    figure("share of the kill", reached / demanded, at_least=0.9, at_most=1.1)


@pytest.mark.parametrize("mode", ["condition", "source", "both"])
def test_copies_are_made_where_source_has_something_to_do(mode: Mode) -> None:
    options = GuidanceOptions(mode)
    assert copies(options, [source(killed(0.1))]) == (2 if mode == "source" else 1)
    assert copies(options, [source(UNTREATED)]) == copies(options) == 1


def test_a_copy_that_is_missing_is_named() -> None:
    told_to = Conditions(network(UNTREATED), network(UNTREATED))
    with pytest.raises(InputError, match="batch of copies"):
        guided(told_to, GuidanceOptions("source"), [source(killed(0.1))])(start(), torch.ones(1))


def test_the_copy_beside_a_driven_sample_is_not_pushed() -> None:
    told_to, y = Conditions(network(UNTREATED), network(UNTREATED)), start(2)
    pair = guided(told_to, GuidanceOptions("source"), [source(killed(0.3))])(torch.cat([y, y]), torch.ones(2))
    assert torch.equal(pair[1:], network(UNTREATED)(y, torch.ones(1)))
    assert not torch.equal(pair[:1], pair[1:])


def test_both_comes_closer_to_the_density_than_the_condition() -> None:
    treated, inside = killed(0.5), UNTREATED > 0.1
    wrong = Conditions(network(killed(0.3)))  # a network that underestimates the therapy
    errors = {}
    for mode in ("condition", "both"):
        drawn = heun(guided(wrong, GuidanceOptions(mode), [source(treated)]), start(), LEVELS)  # type: ignore[arg-type]
        errors[mode] = float((Linear()(to_image(drawn)) - Linear().seen(treated))[inside].abs().mean())
    assert errors["both"] < 0.6 * errors["condition"]


@pytest.mark.law("images", "The drift is the gradient of its potential")
@pytest.mark.parametrize("step", STEPS)
def test_drift_is_the_gradient_of_the_potential(step: Step) -> None:
    """σ² b is −∇U (annealed) or parallel to it voxel by voxel (polyak), against finite differences."""
    treated = killed(0.5).double()
    estimator = Linear()
    told_to = Conditions(lambda y, sigma: 0.1 * y)
    options = GuidanceOptions("both", step, density_error=0.2, annealing=3.0)
    place = Source(to_image, estimator, treated, UNTREATED.double())
    y, sigma = 0.5 * start(4).double() / 8, torch.tensor([0.7], dtype=torch.float64)
    push = guided(told_to, options, [place])(y, sigma) - 0.1 * y
    goal, bound = estimator.seen(treated), (treated - UNTREATED.double()).abs()
    kill = estimator.seen(UNTREATED.double() - treated) * (bound > 0)

    def potential(clean: Tensor) -> float:
        """U of Huber: quadratic up to a gap as large as the kill, linear beyond."""
        gap = (goal - estimator(to_image(clean))).abs()
        return float((0.5 * torch.minimum(gap, kill) ** 2 + kill * (gap - kill).clamp_min(0)).sum())

    h = 1e-4
    for voxel in ((9, 9, 9), (7, 10, 12), (12, 8, 9)):
        for channel in range(4):
            unit = torch.zeros_like(y)
            unit[(0, channel, *voxel)] = h
            slope = (potential(0.1 * y + unit) - potential(0.1 * y - unit)) / (2 * h)
            got = float(push[(0, channel, *voxel)])
            if step == "annealed":
                assert got == pytest.approx(-slope * 0.49 / (0.04 + 3 * 0.49), rel=1e-4)
            else:
                assert np.sign(got) == -np.sign(slope)


def test_one_polyak_step_closes_the_share_gamma() -> None:
    treated, gamma = UNTREATED * 0.5, 0.25
    clean = torch.zeros((1, 4, *SHAPE))
    push = guided(Conditions(lambda y, sigma: y), GuidanceOptions("both", gamma=gamma), [source(treated)])
    before, after = (Linear()(to_image(d)) for d in (clean, push(clean, torch.ones(1))))
    inside = UNTREATED > 0.3
    closed = ((after - before) / (Linear().seen(treated) - before))[inside]
    assert float(closed.mean()) == pytest.approx(gamma, rel=0.25)


def test_scale_of_the_network_does_not_change_the_polyak_image() -> None:
    treated, images = killed(0.5), []
    for scale in (0.3, 0.9):
        place = Source(lambda d, s=scale: CONTRAST * UNTREATED + s * d, Linear(), treated, UNTREATED)  # type: ignore[misc]
        options = GuidanceOptions("both", smallest_slope=1e-6)
        images.append(scale * guided(Conditions(lambda y, _: 0 * y), options, [place])(start(), torch.ones(1)))
    assert torch.allclose(*images, atol=1e-5)


def test_an_image_without_contrast_is_left_alone() -> None:
    place = Source(lambda d: CONTRAST * UNTREATED + 1e-4 * d, Linear(), killed(0.5), UNTREATED)
    push = guided(Conditions(lambda y, _: 0 * y), GuidanceOptions("both"), [place])(start(), torch.ones(1))
    assert float(push.abs().max()) < 0.1


def test_samples_of_a_batch_do_not_depend_on_each_other() -> None:
    noise = start(7, batch=2)
    together = sample(killed(0.4), "both", noise=noise)
    for k in range(2):
        assert torch.allclose(sample(killed(0.4), "both", noise=noise[k : k + 1]), together[k : k + 1], atol=1e-5)


def test_templates_steer_and_a_missing_modality_is_not_pushed() -> None:
    healthy = torch.zeros(4, *SHAPE)
    untreated, treated = blob(1.0, 9.0), blob(1.0, 9.0) * 0.4

    def rendered(density: Tensor) -> Tensor:
        fractions = label_fractions(density[0, 0].numpy(), THRESHOLDS)
        return torch.from_numpy(np.einsum("lm,lxyz->mxyz", POPULATION, fractions))[None]

    picture, flags = rendered(untreated), (True, True, False, True)
    estimator = DensityTemplates(healthy, POPULATION, THRESHOLDS, available=flags)
    place = Source(lambda d: picture + SCALE * d, estimator, treated, untreated)
    plain: Denoise = lambda y, sigma: y / (1 + sigma[:, None, None, None, None] ** 2)  # noqa: E731
    noise = start(3)
    end = driven(Conditions(plain, plain), GuidanceOptions("source"), [place], lambda d, y: heun(d, y, LEVELS))
    drawn, free = end(noise), heun(plain, noise, LEVELS)
    assert torch.equal(drawn[:, 2], free[:, 2])
    implied = [estimator(picture + SCALE * x).sum() for x in (free, drawn)]
    asked = estimator.seen(untreated).sum() - estimator.seen(treated).sum()
    assert 0.5 < float((implied[0] - implied[1]) / asked) < 1.5


def test_a_kill_that_no_image_shows_moves_nothing() -> None:
    estimator = DensityTemplates(torch.zeros(4, *SHAPE), POPULATION, THRESHOLDS)
    n = torch.full((1, 1, *SHAPE), 0.42)
    moved = guided(
        Conditions(lambda y, _: y), GuidanceOptions("both"), [Source(lambda d: 0.2 * d, estimator, n - 0.04, n)]
    )(torch.zeros(1, 4, *SHAPE), torch.ones(1))
    assert float(moved.abs().max()) < 0.05  # oedema stays oedema


class Counting:
    """A denoiser that counts its evaluations."""

    def __init__(self, value: float) -> None:
        self.value, self.calls = value, 0

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return torch.full_like(y, self.value)


@pytest.mark.parametrize(
    ("mode", "w_tumour", "w_therapy", "expected", "calls"),
    [
        ("both", 1.0, 1.0, 5.0, (1, 0, 0)),
        ("condition", 1.0, 2.0, 7.0, (1, 1, 0)),
        ("both", 1.5, 1.5, 7.0, (1, 0, 1)),
        ("both", 2.0, 3.0, 1 + 2 * 2 + 3 * 2, (1, 1, 1)),
        ("both", 1.0, 0.0, 3.0, (0, 1, 0)),
        ("both", 0.0, 0.0, 1.0, (0, 0, 1)),
        ("source", 1.0, 1.0, 3.0, (0, 1, 0)),
        ("source", 2.0, 1.0, 5.0, (0, 1, 1)),
    ],
)
def test_classifier_free_guidance(
    mode: Mode, w_tumour: float, w_therapy: float, expected: float, calls: tuple[int, int, int]
) -> None:
    parts = [Counting(5.0), Counting(3.0), Counting(1.0)]
    options = GuidanceOptions(mode, w_tumour=w_tumour, w_therapy=w_therapy)
    result = told(Conditions(*parts), options)(torch.zeros(1, 1, 2, 2, 2), torch.ones(1))
    assert torch.allclose(result, torch.full_like(result, expected))
    assert tuple(part.calls for part in parts) == calls


def test_scales_of_one_return_the_treated_denoiser_itself() -> None:
    treated = network(killed(0.3))
    assert told(Conditions(treated), GuidanceOptions("both")) is treated
    assert guided(Conditions(treated), GuidanceOptions("condition"), [source(killed(0.3))]) is treated
    assert guided(Conditions(treated), GuidanceOptions("both"), [source(UNTREATED)]) is treated


def test_the_network_is_not_differentiated() -> None:
    weight = torch.ones(1, requires_grad=True)
    denoise = guided(Conditions(lambda y, _: weight * y), GuidanceOptions("both"), [source(killed(0.5))])
    with torch.no_grad():
        assert not denoise(start(), torch.ones(1)).requires_grad


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "neither"}, {"step": "newton"}, {"gamma": 0.0}, {"density_error": -1.0}, {"smallest_slope": np.nan}],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="guidance"):
        GuidanceOptions(**wrong)


def test_a_condition_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="'untreated'"):
        told(Conditions(network(UNTREATED)), GuidanceOptions("source"))
    with pytest.raises(InputError, match="'none'"):
        told(Conditions(network(UNTREATED), network(UNTREATED)), GuidanceOptions(w_tumour=2.0, w_therapy=2.0))
