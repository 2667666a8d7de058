"""A DICOM file as a tree of raw elements, which may say of themselves what is not so.

pydicom mends or refuses much of what is wrong when it writes, so the bytes are laid out here: tag, VR, length, value;
sequences hold items; explicit or implicit VR, little endian (DICOM PS3.5, 7.1 and 7.5).
"""

import io
import struct
from dataclasses import dataclass, replace
from typing import Any

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element

LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT", "SV", "UV")
"""Value representations whose length has four bytes."""

UNDEFINED = 0xFFFFFFFF
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)

Items = tuple[tuple["Element", ...], ...]


@dataclass(frozen=True)
class Element:
    """One element: `length` is what the file says of it, None the truth."""

    tag: tuple[int, int]
    vr: str
    value: bytes | Items
    length: int | None = None


@dataclass(frozen=True)
class Tree:
    """A file: everything up to the data set, its elements, and whether they go without their VR."""

    head: bytes
    elements: tuple[Element, ...]
    implicit: bool

    def __repr__(self) -> str:
        return f"{len(self.elements)} elements"

    def in_file(self) -> bytes:
        """The bytes of the file."""
        return self.head + _written(self.elements, self.implicit)


def parse(raw: bytes) -> Tree:
    """Return the tree of a sound file, little endian."""
    dataset = pydicom.dcmread(io.BytesIO(raw))
    implicit = dataset.file_meta.TransferSyntaxUID.is_implicit_VR
    start = 144 + struct.unpack("<I", raw[140:144])[0]  # the group of the meta information states its length
    return Tree(raw[:start], _elements(dataset), implicit)


def _elements(dataset: Any) -> tuple[Element, ...]:
    return tuple(_element(element) for element in dataset)


def _element(element: Any) -> Element:
    tag = (element.tag.group, element.tag.element)
    if element.VR == "SQ":
        return Element(tag, "SQ", tuple(_elements(item) for item in element.value))
    if element.is_undefined_length:
        return Element(tag, element.VR, element.value + struct.pack("<HHI", *_END, 0), UNDEFINED)
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, True
    write_data_element(stream, element)
    return Element(tag, element.VR, stream.getvalue()[8:])


def _written(elements: tuple[Element, ...], implicit: bool) -> bytes:
    return b"".join(_laid_out(element, implicit) for element in elements)


def _laid_out(element: Element, implicit: bool) -> bytes:
    value = element.value
    if not isinstance(value, bytes):
        parts = [_written(item, implicit) for item in value]
        value = b"".join(struct.pack("<HHI", *_ITEM, len(part)) + part for part in parts)
    length = len(value) if element.length is None else element.length
    head = struct.pack("<HH", *element.tag)
    if implicit:
        return head + struct.pack("<I", length) + value
    vr = element.vr.encode("latin-1")[:2].ljust(2)
    if element.vr in LONG:
        return head + vr + bytes(2) + struct.pack("<I", length) + value
    return head + vr + struct.pack("<H", length % 65536) + value


def nested(element: Element, depth: int, implicit: bool) -> Element:
    """Return an element within sequences within sequences; written at once, whatever the depth."""
    inner = element
    for _ in range(depth):
        written = _laid_out(inner, implicit)
        inner = Element((0x300C, 0x0002), "SQ", struct.pack("<HHI", *_ITEM, len(written)) + written)
    return Element(element.tag, "SQ", inner.value)


Place = tuple[int, ...]
"""Which element, which of its items, which element of that, and so on."""


def places(elements: tuple[Element, ...], most_items: int = 4) -> list[Place]:
    """Return where the elements are, of long sequences in the first items only."""
    found: list[Place] = []
    for number, element in enumerate(elements):
        found.append((number,))
        for which, item in enumerate(() if isinstance(element.value, bytes) else element.value[:most_items]):
            found += [(number, which, *inner) for inner in places(item, most_items)]
    return found


def at(elements: tuple[Element, ...], place: Place) -> Element:
    """Return the element of a place."""
    element = elements[place[0]]
    return element if len(place) == 1 else at(element.value[place[1]], place[2:])  # type: ignore[arg-type]


def put(elements: tuple[Element, ...], place: Place, new: tuple[Element, ...]) -> tuple[Element, ...]:
    """Return the elements with others, or none, in place of one."""
    number = place[0]
    if len(place) > 1:
        items = list(elements[number].value)
        items[place[1]] = put(items[place[1]], place[2:], new)  # type: ignore[arg-type, call-overload]
        new = (replace(elements[number], value=tuple(items)),)
    return elements[:number] + new + elements[number + 1 :]
