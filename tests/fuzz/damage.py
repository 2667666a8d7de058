"""What can be wrong with a file of bytes, whatever its format; hypothesis draws which of it, and where."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

NUMBERS = (0, 1, -1, 2, 3, 7, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-38, 1e-45, 1e38, 1e300, float("nan"), float("inf"), float("-inf"), 1e6, 0.1)


@dataclass(frozen=True)
class Case:
    """A file to be read: its name and what is in it."""

    name: str
    raw: bytes

    def __repr__(self) -> str:
        return f"{self.name}, {len(self.raw)} bytes"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))


def flip(draw: st.DrawFn, raw: bytes, within: int | None = None) -> bytes:
    """Other bytes at a few places, among the first `within`."""
    changed = bytearray(raw)
    place = st.integers(0, max(0, min(len(raw), within or len(raw)) - 1))
    for at, value in draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=8)):
        changed[at : at + 1] = bytes([value])
    return bytes(changed)


def cut(draw: st.DrawFn, raw: bytes) -> bytes:
    """The beginning of the file only."""
    return raw[: draw(st.integers(0, len(raw)))]


def extend(draw: st.DrawFn, raw: bytes) -> bytes:
    """More bytes at the end than there should be."""
    return raw + draw(st.binary(min_size=1, max_size=16)) * draw(st.integers(1, 300))


def remove(draw: st.DrawFn, raw: bytes) -> bytes:
    """A piece missing from the middle."""
    start = draw(st.integers(0, len(raw)))
    return raw[:start] + raw[start + draw(st.integers(1, 64)) :]


def insert(draw: st.DrawFn, raw: bytes) -> bytes:
    """A piece too much in the middle: noise, or a copy of another piece."""
    place, start = draw(st.integers(0, len(raw))), draw(st.integers(0, len(raw)))
    copied = raw[start : start + draw(st.integers(1, 400))]
    return raw[:place] + draw(st.one_of(st.just(copied), st.binary(min_size=1, max_size=64))) + raw[place:]


def number(draw: st.DrawFn, raw: bytes, within: int | None = None) -> bytes:
    """An integer of one to eight bytes, of either order, that somebody may not have thought of."""
    size = draw(st.sampled_from([1, 2, 4, 8]))
    value = draw(st.sampled_from(NUMBERS) | st.integers(-(2**63), 2**64)) % 2 ** (8 * size)
    place = draw(st.integers(0, max(0, min(len(raw), within or len(raw)) - size)))
    order = draw(st.sampled_from(["little", "big"]))
    return raw[:place] + value.to_bytes(size, order) + raw[place + size :]  # type: ignore[arg-type]


ANY = (flip, cut, extend, remove, insert, number)


def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """One to three kinds of damage."""
    for way in draw(st.lists(st.sampled_from(ANY), min_size=1, max_size=3)):
        raw = way(draw, raw)
    return raw
