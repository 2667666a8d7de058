r"""A narrower denoiser from a trained one: the channels that matter least are left out.

A channel is written by some weights and read by others. What it matters is the product of their norms,

    I_j = ‖ w_{written into j} ‖₂ · ‖ w_{read from j} ‖₂,

which does not change when a channel is made larger and what reads it smaller by the same factor (structured magnitude
pruning, Li et al., ICLR 2017). Channels that a skip connection adds to each other stay or go together: they share a
space. The narrower network is a start for fine-tuning, not a replacement: group norms see other neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybridtumor.errors import InputError
from hybridtumor.models.denoiser import Denoiser
from hybridtumor.models.unet import GROUPS, UNet

Kept = dict[str, Tensor]
"""Name of a space of channels to the numbers of those that stay, ascending."""


@dataclass(frozen=True)
class Part:
    """A block of the network: its name, the spaces it reads side by side, the one it writes."""

    name: str
    reads: tuple[str, ...]
    writes: str

    @property
    def hidden(self) -> str:
        """Space between its two convolutions."""
        return f"{self.name}.hidden"


def narrower(denoiser: Denoiser, widths: tuple[int, ...]) -> Denoiser:
    """Return a denoiser of `widths` with the most important channels of a trained one.

    Parameters
    ----------
    denoiser
        The trained network.
    widths
        Channels per level, multiples of 8, none larger than before.

    Raises
    ------
    InputError
        The widths do not fit.
    """
    old = denoiser.net
    _check(widths_of(old), widths)
    parts = tuple(_parts(old))
    sizes = _sizes(parts, widths)
    weights: dict[str, Tensor] = {name: p.detach() for name, p in old.named_parameters()}
    kept = {space: _largest(_importance(space, parts, weights), count) for space, count in sizes.items()}
    student = type(denoiser)(widths).to(next(iter(weights.values())).device)
    new = dict(student.net.named_parameters())
    with torch.no_grad():
        for name, value in _chosen(parts, weights, kept).items():
            if new.get(name, value).shape != value.shape or name not in new:
                raise InputError(f"widths: expected skips where {widths_of(old)} has them, got {widths}. Halve all.")
            new[name].copy_(value)
    return student


def half_width(denoiser: Denoiser) -> Denoiser:
    """Return `narrower` with half the channels on each level, rounded up to a multiple of 8."""
    return narrower(denoiser, tuple(-(-width // (2 * GROUPS)) * GROUPS for width in widths_of(denoiser.net)))


def widths_of(net: UNet) -> tuple[int, ...]:
    """Return the channels per level of a U-Net."""
    weights = dict(net.named_parameters())
    return tuple(len(weights[f"down.{level}.conv2.weight"]) for level in range(len(net.down)))


def _check(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    fits = len(old) == len(new) and all(0 < n <= o and n % GROUPS == 0 for o, n in zip(old, new, strict=True))
    if not fits:
        raise InputError(f"widths: expected multiples of {GROUPS} up to {old}, got {new}. Choose smaller ones.")


def _parts(net: UNet) -> Iterator[Part]:
    """Yield the blocks; where a skip adds channels one to one, both ends are the same space."""
    streams = ["stream0"]
    for level, block in enumerate(net.down):
        tied = isinstance(block.skip, nn.Identity)
        streams.append(streams[-1] if tied else f"stream{level}")
        yield Part(f"down.{level}", (streams[-2],), streams[-1])
    levels = streams[1:]
    yield Part("middle", (levels[-1],), levels[-1])
    below = levels[-1]
    for k, level in enumerate(reversed(range(len(levels)))):
        yield Part(f"up.{k}", (below, levels[level]), f"risen{level}")
        below = f"risen{level}"


def _sizes(parts: tuple[Part, ...], widths: tuple[int, ...]) -> dict[str, int]:
    """Return how many channels each space is to have."""
    sizes: dict[str, int] = {"stream0": widths[0]}
    for part in parts:
        kind, _, number = part.name.partition(".")
        level = {"down": int(number or 0), "middle": -1, "up": len(widths) - 1 - int(number or 0)}[kind]
        if sizes.setdefault(part.writes, widths[level]) != widths[level]:
            raise InputError(f"widths: expected equal levels to stay equal, got {widths}. Choose other widths.")
        sizes[part.hidden] = widths[level]
    return sizes


def _importance(space: str, parts: tuple[Part, ...], weights: dict[str, Tensor]) -> Tensor:
    """Return I_j of the channels of a space."""
    writing, reading = [], []
    if space == "stream0":
        writing.append(weights["enter.weight"])
    if space == "risen0":
        reading.append(weights["leave.weight"])
    for part in parts:
        block = {k: w for k in ("conv1", "conv2", "skip") if (w := weights.get(f"{part.name}.{k}.weight")) is not None}
        if space == part.hidden:
            writing.append(block["conv1"])
            reading.append(block["conv2"])
        if space == part.writes:
            writing += [block[k] for k in ("conv2", "skip") if k in block]
        for where in _where(space, part, parts, weights):
            reading += [block[k][:, where] for k in ("conv1", "skip") if k in block]
    return _norm(writing, 0) * _norm(reading, 1)


def _where(space: str, part: Part, parts: tuple[Part, ...], weights: dict[str, Tensor]) -> Iterator[slice]:
    """Yield where a block reads a space among its input channels."""
    start = 0
    for name in part.reads:
        stop = start + _old_size(name, parts, weights)
        if name == space:
            yield slice(start, stop)
        start = stop


def _old_size(space: str, parts: tuple[Part, ...], weights: dict[str, Tensor]) -> int:
    return next(len(weights[f"{part.name}.conv2.weight"]) for part in parts if part.writes == space)


def _norm(tensors: list[Tensor], axis: int) -> Tensor:
    """Return the norm over all but one axis of several tensors together."""
    squares = [t.detach().double().square().movedim(axis, 0).flatten(1).sum(dim=1) for t in tensors]
    return torch.stack(squares).sum(dim=0).sqrt()


def _largest(importance: Tensor, count: int) -> Tensor:
    return importance.topk(count).indices.sort().values


def _chosen(parts: tuple[Part, ...], weights: dict[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    """Return the weights of the narrower network."""
    chosen = {name: w for name, w in weights.items() if name.startswith("embed.") or name == "leave.bias"}
    chosen |= {f"enter.{k}": weights[f"enter.{k}"][kept["stream0"]] for k in ("weight", "bias")}
    chosen |= {f"norm.{k}": weights[f"norm.{k}"][kept["risen0"]] for k in ("weight", "bias")}
    chosen["leave.weight"] = weights["leave.weight"][:, kept["risen0"]]
    for part in parts:
        chosen |= _chosen_block(part, parts, weights, kept)
    return chosen


def _chosen_block(part: Part, parts: tuple[Part, ...], weights: dict[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    hidden, out, read, start = kept[part.hidden], kept[part.writes], [], 0
    for name in part.reads:
        read.append(kept[name] + start)
        start += _old_size(name, parts, weights)
    inside = torch.cat(read)
    film = torch.cat([hidden, hidden + len(weights[f"{part.name}.conv1.weight"])])
    rows = {"norm1": inside, "conv1": hidden, "film": film, "norm2": hidden, "conv2": out, "skip": out}
    columns = {"conv1": inside, "conv2": hidden, "skip": inside}
    result = {}
    for layer, keep in rows.items():
        for kind in ("weight", "bias"):
            name = f"{part.name}.{layer}.{kind}"
            if name in weights:
                value = weights[name][keep]
                result[name] = value[:, columns[layer]] if kind == "weight" and layer in columns else value
    return result
