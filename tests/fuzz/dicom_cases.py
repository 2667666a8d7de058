"""DICOM files with something wrong in them: hypothesis draws which element says what it should not."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from damage import FLOATS, NUMBERS, Case, damaged, flip
from dicom_seeds import SECRETS, in_file, seeds
from dicom_tree import UNDEFINED, Element, Tree, at, nested, parse, places, put
from hypothesis import strategies as st

from hybridtumor.dicom.dose import load_dose
from hybridtumor.dicom.plan import load_plan
from hybridtumor.dicom.reading import pixels
from hybridtumor.dicom.reading import read as read_header
from hybridtumor.dicom.series import sort_folder
from hybridtumor.dicom.structures import load_structures
from hybridtumor.dicom.volume import load_volume
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid

GRID = Grid((20, 21, 9), np.array([[-2.0, 0, 0, 19], [0, -2, 0, 20], [0, 0, 3, -9], [0, 0, 0, 1]]))

LOOKS: tuple[Callable[[Path], Any], ...] = (
    read_header,
    lambda path: pixels(path, read_header(path)),
    lambda path: sort_folder(path.parent),
)
"""What looks at files of any modality."""

READERS: tuple[Callable[[Path], Any], ...] = (
    lambda path: load_volume([path]),
    lambda path: load_dose(path, fractions=30),
    lambda path: load_structures(path, GRID),
    load_plan,
)
"""What makes something of one modality."""

KINDS = ("UN", "LO", "DS", "IS", "US", "UL", "SS", "FD", "FL", "OB", "OW", "AT", "SQ", "UI", "PN", "UT", "ZZ", "  ")
LENGTHS = (0, 1, 2, 7, 65535, 65536, 2**24, 2**31 - 1, 2**31, UNDEFINED - 1, UNDEFINED)
STRANGE = (
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "nan",
    "inf",
    "99999999999",
    "A" * 3000,
    "1\\2\\3\\4\\5",
    "\\",
    "ä",
    "\0",
    "1e5",
)
LONGEST = 2_000_000
"""Bytes of the largest real file that is damaged."""


def prepare(_folder: Path) -> None:
    """Nothing stands beside a file."""


def sound() -> list[Case]:
    """Files without a fault."""
    return [Case("case.dcm", in_file(dataset)) for dataset in seeds()]


def read(path: Path) -> None:
    """Read the file in every way; one that makes something of it is enough."""
    refusals: list[str] = []
    for look in LOOKS:
        _taken(look, path, refusals)
    taken = [_taken(reader, path, refusals) for reader in READERS]
    if not any(taken):
        raise InputError(refusals[-1])


def _taken(reader: Callable[[Path], Any], path: Path, refusals: list[str]) -> bool:
    try:
        reader(path)
    except InputError as error:
        refusals.append(str(error))
        if any(secret in str(error) for secret in SECRETS):
            raise RuntimeError(f"a message that tells who the patient is: {error}") from error
        return False
    return True


def cases(real: list[bytes]) -> st.SearchStrategy[Case]:
    """Elements of our own files, and of real ones, that are missing, twice, nested, of other values, kinds, lengths."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    ours = [parse(case.raw) for case in sound()]
    return _case(ours, [parse(raw) for raw in real if len(raw) < LONGEST])


@st.composite
def _case(draw: st.DrawFn, ours: list[Tree], real: list[Tree]) -> Case:
    tree = draw(st.sampled_from(real if real and draw(st.integers(0, 3)) == 3 else ours))
    way = draw(st.sampled_from(["elements"] * 6 + ["bytes", "elements, bytes", "head"]))
    for _ in range(draw(st.integers(1, 4)) if "elements" in way else 0):
        tree = _changed(draw, tree)
    raw = tree.in_file()
    if way == "head":
        raw = flip(draw, raw, within=len(tree.head) + 40)
    return Case("case.dcm", damaged(draw, raw) if "bytes" in way else raw)


def _changed(draw: st.DrawFn, tree: Tree) -> Tree:
    """One element other than it was."""
    found = places(tree.elements)
    if not found:
        return tree
    place, way = draw(st.sampled_from(found)), draw(st.sampled_from([*WAYS, "nested"]))
    old = at(tree.elements, place)
    if way == "nested":
        new: tuple[Element, ...] = (nested(old, draw(st.integers(1, 6)) ** 4, tree.implicit),)
    else:
        new = WAYS[way](draw, old)
    return replace(tree, elements=put(tree.elements, place, new))


def _valued(draw: st.DrawFn, old: Element) -> tuple[Element, ...]:
    """Another value; of a sequence other items."""
    if isinstance(old.value, bytes):
        return (replace(old, value=draw(_value(old.value, old.vr))),)
    return (replace(old, value=(old.value * draw(st.sampled_from([0, 1, 2, 3, 9])))[draw(st.integers(0, 1)) :]),)


def _value(old: bytes, vr: str) -> st.SearchStrategy[bytes]:
    """Numbers and words as the VR writes them, damage, noise."""
    words = st.sampled_from(STRANGE).map(lambda text: text.encode())
    other = st.one_of(words, st.binary(max_size=20), st.sampled_from([b"", old[:-2], old * 2]))
    if vr in ("DS", "IS"):
        parts = old.split(b"\\")
        number = st.one_of(st.sampled_from(FLOATS), st.integers(-3, 3), st.floats(), st.integers(-400, 70000))
        one = number.map(lambda value: f"{value:.9g}".encode())
        swapped = st.tuples(st.integers(0, len(parts) - 1), one).map(
            lambda drawn: b"\\".join([*parts[: drawn[0]], drawn[1], *parts[drawn[0] + 1 :]])
        )
        return st.one_of(swapped, swapped, one, st.lists(one, max_size=9).map(b"\\".join), other)
    if vr in ("US", "SS", "UL", "SL", "AT"):
        size = 2 if vr in ("US", "SS") else 4
        number = st.sampled_from(NUMBERS) | st.integers(0, 70)
        return number.map(lambda value: (value % 2 ** (8 * size)).to_bytes(size, "little")) | other
    if vr in ("FD", "FL"):
        return st.sampled_from(FLOATS).map(lambda value: struct.pack("<d", value)) | other
    return other


def _longer(draw: st.DrawFn, old: Element) -> tuple[Element, ...]:
    """A length that is not that of the value."""
    return (replace(old, length=draw(st.sampled_from(LENGTHS) | st.integers(0, 4000))),)


WAYS: dict[str, Callable[[st.DrawFn, Element], tuple[Element, ...]]] = {
    "value": _valued,
    "other value": _valued,
    "missing": lambda _draw, _old: (),
    "twice": lambda _draw, old: (old, old),
    "kind": lambda draw, old: (replace(old, vr=draw(st.sampled_from(KINDS))),),
    "length": _longer,
    "tag": lambda draw, old: (replace(old, tag=(old.tag[0], draw(st.integers(0, 65535)))),),
}
