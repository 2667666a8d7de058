r"""Few-step students of a trained denoiser: the same call, fewer calls.

The teacher's ODE (`hybridtumor.solvers.sampling`) maps a start y_max at σ_max, the level at which samples start, to an
end r. Two students learn the map:

*One step.* f(y_max, σ_max) ≈ r by regression on pairs that the teacher has made (Luhman & Luhman, 2021):

    ℓ = E [ (0.1 + M) (f(y_max, σ_max) − r)² ]

*Consistency* (Song et al., ICML 2023). On levels σ_min = t_1 < … < t_N = σ_max, f gives the same end for two
neighbours on one path of the ODE, one step of the teacher apart; f⁻ has the averaged weights:

    ℓ = E_{n, ε} [ (0.1 + M) w(t_{n+1}) ( f(y_{n+1}, t_{n+1}) − f⁻(ŷ_n, t_n) )² ],    y_{n+1} = r + t_{n+1} ε

and keeps what fixes it, f(y, σ_min) = y, by construction, around any denoiser D:

    f(y, σ) = (1 − b) D(y; σ) + b y,    b = (σ_min/σ)²

The one-step student draws a sample in one step of any sampler, the other by the sampler of its own
(`hybridtumor.solvers.samplers.CONSISTENCY`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hybridtumor.models.denoiser import Denoiser, MeanAndScale
from hybridtumor.models.heterogeneity import remainder, smooth_noise
from hybridtumor.models.resolution import WORKING_SPACING
from hybridtumor.models.spectrum import filtered, wiener_error
from hybridtumor.scan import write_bytes
from hybridtumor.solvers.losses import SUPPORT, Batch, Loss, generators, noise_like, remainder_of, weighted_mean
from hybridtumor.solvers.samplers import sampler
from hybridtumor.solvers.sampling import SIGMA_MIN, START, Denoise, noise_levels

DISCRETISATION = 18
"""N, levels of the consistency loss."""


class ConsistencyDenoiser(Denoiser):
    """A denoiser's weights, called as the consistency function f; zero outside the support."""

    def forward(
        self, y: Tensor, sigma: Tensor, mean_image: Tensor, log_scale: Tensor, fields: Tensor, vector: Tensor
    ) -> Tensor:
        """Return f(y, σ); as `Denoiser.forward`."""
        estimate = super().forward(y, sigma, mean_image, log_scale, fields, vector)
        return torch.where(fields[:, SUPPORT, None] > 0, bounded(estimate, y, sigma), 0.0)


def bounded(estimate: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    """Return f = (1 − b) D + b y from D(y; σ), y (B, …) and σ (B,), not below σ_min."""
    share = ((SIGMA_MIN / sigma) ** 2).reshape(-1, *[1] * (y.ndim - 1))
    return estimate + share * (y - estimate)


def teacher_step(denoise: Denoise, y: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """Return one Heun step of the teacher's ODE from levels `high` to `low`, (B,) each, for y (B, …)."""
    span = (-1, *[1] * (y.ndim - 1))
    top, bottom = high.reshape(span), low.reshape(span)
    slope = (y - denoise(y, high)) / top
    ahead = y + (bottom - top) * slope
    slope_ahead = (ahead - denoise(ahead, low)) / bottom
    return y + (bottom - top) * (slope + slope_ahead) / 2


def discretisation(count: int = DISCRETISATION, sigma_max: float = START) -> Tensor:
    """Return t_1 … t_N, ascending, σ_min to `sigma_max`."""
    return noise_levels(count, sigma_max, SIGMA_MIN)[:-1].flip(0).float()


def consistency_misfit(
    student: Denoise, target: Denoise, teacher: Denoise, clean: Tensor, noise: Tensor, high: Tensor, low: Tensor
) -> Tensor:
    """Return (f(y_{n+1}) − f⁻(ŷ_n))² of clean examples (B, …) at neighbouring levels (B,)."""
    y = clean + high.reshape(-1, *[1] * (clean.ndim - 1)) * noise
    with torch.no_grad():
        aim = target(teacher_step(teacher, y, high, low), low)
    return (student(y, high) - aim) ** 2


def consistency_loss(
    regression: MeanAndScale,
    teacher: Denoiser,
    student: ConsistencyDenoiser,
    average: dict[str, Tensor],
    levels: Tensor,
) -> Loss:
    """Return the consistency loss around a trained regression and denoiser.

    Parameters
    ----------
    regression, teacher
        Trained; they get no gradient.
    student
        The network that `fit` trains.
    average
        Its averaged weights: the dictionary that `fit` is given as ``average``.
    levels
        t_1 … t_N of `discretisation`.
    """

    def loss(network: Callable[..., Any], batch: Batch, generator: torch.Generator) -> Tensor:
        clean, mean_image, log_scale = remainder_of(regression, batch)
        inputs = (mean_image, log_scale, batch.fields, batch.vector)
        sources = generators(generator, len(clean))
        n = torch.cat([torch.randint(len(levels) - 1, (1,), generator=g) for g in sources])
        high, low = levels[n + 1].to(clean), levels[n].to(clean)
        misfit = consistency_misfit(
            lambda y, sigma: network(y, sigma, *inputs),
            lambda y, sigma: torch.func.functional_call(student, average, (y, sigma, *inputs)),
            lambda y, sigma: teacher(y, sigma, *inputs),
            clean,
            noise_like(clean, sources),
            high,
            low,
        )
        by_level = wiener_error(high)[:, None, None, None, None] ** -2
        return weighted_mean(by_level * misfit, batch.weight)

    return loss


@dataclass(frozen=True, eq=False)
class Pairs:
    """Starts and ends of the teacher's ODE, (B, 7, X, Y, Z) each, and the batch they belong to."""

    batch: Batch
    start: Tensor
    end: Tensor

    def __len__(self) -> int:
        """Return B."""
        return len(self.end)

    def to(self, device: str) -> Self:
        """Return the pairs on a device."""
        return type(self)(self.batch.to(device), self.start.to(device), self.end.to(device))


@dataclass(frozen=True, eq=False)
class PairMaker:
    """Makes pairs once, with the teacher, and keeps their ends as ``pair_NNNNN.safetensors`` in a folder.

    Parameters
    ----------
    regression, teacher
        Trained.
    batch_of
        Number to batch; see `hybridtumor.solvers.training.fit`.
    folder
        Of the ends, for this teacher and this source of batches alone.
    count
        Different pairs: number k is pair k mod `count`.
    steps
        Heun steps of the teacher.
    """

    regression: MeanAndScale
    teacher: Denoiser
    batch_of: Callable[[int], Batch]
    folder: Path
    count: int = 256
    steps: int = 12

    def pairs_of(self, number: int) -> Pairs:
        """Return the pairs of a number, made now or before."""
        number %= self.count
        batch = self.batch_of(number)
        start = self.start_of(number, batch)
        path = self.folder / f"pair_{number:05d}.safetensors"
        if not path.is_file():
            write_bytes(path, save({"end": self.end_of(batch, start).half().contiguous()}))
        return Pairs(batch, start, load_file(path)["end"].to(start))

    def start_of(self, number: int, batch: Batch) -> Tensor:
        """Return starts of the ODE, r₀ + σ_max ε, as samples have them (`hybridtumor.solvers.place_noise`)."""
        sources = generators(torch.Generator().manual_seed(number * len(batch)), len(batch))
        drawn = filtered(noise_like(batch.target, sources), torch.sqrt)
        for own, source in zip(drawn, sources, strict=True):
            rng = np.random.default_rng([source.initial_seed(), *b"regions"])
            regions = remainder(rng, partial(smooth_noise, rng, tuple(own.shape[1:])), WORKING_SPACING)
            own[: len(regions)] = torch.from_numpy(regions[: len(own)])
        return drawn + START * noise_like(batch.target, sources)

    def end_of(self, batch: Batch, start: Tensor) -> Tensor:
        """Return the ends that the teacher's ODE takes the starts to."""
        device = str(next(self.teacher.parameters()).device)
        there = batch.to(device)
        with torch.no_grad():
            _, mean_image, log_scale = remainder_of(self.regression, there)
            inputs = (mean_image, log_scale, there.fields, there.vector)
            heun = sampler("heun")
            end = heun(
                lambda y, sigma: self.teacher(y, sigma, *inputs), start.to(device), noise_levels(self.steps, START)
            )
            return end.cpu()


def one_step_loss(regression: MeanAndScale) -> Callable[[Callable[..., Any], Pairs, torch.Generator], Tensor]:
    """Return the loss of a one-step student on pairs of the teacher."""

    def loss(network: Callable[..., Any], pairs: Pairs, _generator: torch.Generator) -> Tensor:
        batch = pairs.batch
        _, mean_image, log_scale = remainder_of(regression, batch)
        sigma = pairs.start.new_full((len(pairs),), START)
        estimate = network(pairs.start, sigma, mean_image, log_scale, batch.fields, batch.vector)
        return weighted_mean((estimate - pairs.end) ** 2, batch.weight)

    return loss


def student_of[D: Denoiser](teacher: Denoiser, kind: Callable[[tuple[int, ...]], D], widths: tuple[int, ...]) -> D:
    """Return a student of the teacher's widths that starts with its weights."""
    student = kind(widths)
    student.load_state_dict(teacher.state_dict())
    return student


def frozen[N: nn.Module](network: N) -> N:
    """Return the network for use as a teacher: no gradient, evaluation mode."""
    network.requires_grad_(requires_grad=False).eval()
    return network
