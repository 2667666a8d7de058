"""DICOM files read with distrust: every doubtful file is refused before its pixels are touched.

pydicom takes garbage after the prefix ``DICM`` for an empty data set, asks for as much memory as a length in the file
claims, and quotes values in warnings and exceptions. Here no read asks for more than the file holds, lengths are
checked against what the image needs, and messages name tags, never what stands in them.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hybridtumor.dicom.values import Dataset, guarded, number, text  # first: it says what to do without pydicom
from hybridtumor.errors import InputError
from hybridtumor.scan import MAX_BYTES, MAX_VOXELS

import pydicom  # isort: skip
from pydicom.filereader import read_partial  # isort: skip
from pydicom.pixels import get_decoder  # isort: skip
from pydicom.uid import UID  # isort: skip

MAX_HEADER_BYTES = 128 * 1024**2
"""Most bytes that are read from one file beside its pixels; the largest structure sets have some tens of MB."""

MAX_ITEMS = 1_000_000
"""Most sequence items of one file: each becomes an object a hundred times its size."""

NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
"""Transfer syntaxes without compression."""

_PIXELS, _OTHER_PIXELS = 0x7FE00010, {0x7FE00008, 0x7FE00009}
LONGEST_CHARACTER_SET = 1024
"""Bytes of SpecificCharacterSet."""

_CHARACTER_SET = 0x00080005
_ITEM = b"\xfe\xff\x00\xe0"
_UNDEFINED = 0xFFFFFFFF


class _Bounded:
    """A file that never reads more than it holds, nor more of a header than `MAX_HEADER_BYTES`."""

    def __init__(self, stream: BinaryIO, size: int, label: str, budget: int) -> None:
        self._stream, self._size, self._label = stream, size, label
        self._budget, self._items = budget, MAX_ITEMS

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise InputError(f"{self._label}: expected a data set that is not deflated. Store it uncompressed.")
        chunk = self._stream.read(min(size, max(self._size - self._stream.tell(), 0)))
        self._budget -= len(chunk)
        self._items -= chunk.count(_ITEM)
        if self._budget < 0 or self._items < 0:
            raise InputError(
                f"{self._label}: expected at most {MAX_HEADER_BYTES} bytes and {MAX_ITEMS} items beside the pixels,"
                " got more."
            )
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def is_dicom(path: Path) -> bool:
    """Tell whether a file has the prefix of DICOM's file format; raises OSError when it cannot be opened."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read(path: Path | str, *, label: str = "DICOM file") -> Dataset:
    """Read everything of a DICOM file but its pixels, after checking that the pixels are there.

    Parameters
    ----------
    path
        The file. Its name may hold the name of a patient: it is in no message.
    label
        What messages call the file.

    Raises
    ------
    InputError
        Not DICOM, damaged, truncated, too large, without SOP class or modality, with pixels that do not fit the
        extents, are not integers of 8, 16 or 32 bits in one sample, or are packed in a way no decoder is there for.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{label}: expected a DICOM file, found none.")
    with guarded(label):
        if not is_dicom(path):
            raise InputError(f"{label}: expected DICOM with the prefix DICM, got another file.")
        dataset, pixels = _header(path, label)
        for keyword in ("SOPClassUID", "Modality"):
            if not text(dataset, keyword):
                raise InputError(f"{label}: expected {keyword}, found none. The file is damaged or not an object.")
        if pixels is not None and text(dataset, "Modality") != "SEG":  # never read, so it may be a bit mask
            _check_pixels(path, dataset, pixels, label)
        return dataset


def _header(path: Path, label: str) -> tuple[Dataset, tuple[int, int, int] | None]:
    """Return what stands before the pixels, and (tag, length, position) of the pixels."""
    size, found = path.stat().st_size, []
    if size > MAX_BYTES + MAX_HEADER_BYTES:
        raise InputError(f"{label}: expected at most {MAX_BYTES} bytes, got {size}.")
    with path.open("rb") as stream:

        def at_pixels(tag: int, _vr: str | None, length: int) -> bool:
            if (
                int(tag) == _CHARACTER_SET and length > LONGEST_CHARACTER_SET
            ):  # an error of pydicom repeats it ten times
                raise InputError(f"{label}: expected the name of a character set, got {length} bytes. It is damaged.")
            if int(tag) == _PIXELS or int(tag) in _OTHER_PIXELS:
                found.append((int(tag), length, stream.tell()))
            return bool(found)

        dataset = read_partial(_Bounded(stream, size, label, MAX_HEADER_BYTES), at_pixels)
    for element in dataset.elements():
        value, length = getattr(element, "value", None), getattr(element, "length", _UNDEFINED)
        if isinstance(value, bytes) and length != _UNDEFINED and len(value) < length:
            raise InputError(f"{label}: expected a whole file, its data end early. It is truncated.")
    return dataset, found[0] if found else None


def _check_pixels(path: Path, dataset: Dataset, found: tuple[int, int, int], label: str) -> None:
    """Refuse pixels that the file cannot hold or that cannot be decoded; see `read`."""
    tag, length, position = found
    shape, bits = frame_shape(dataset, label), _bits(dataset, label)[0]
    if tag != _PIXELS or number(dataset, "SamplesPerPixel", label, 1) != 1 or bits not in (8, 16, 32):
        raise InputError(
            f"{label}: expected one integer sample of 8, 16 or 32 bits in each pixel. Colour images, bit masks and"
            " floating-point pixels are not read."
        )
    voxels = shape[0] * shape[1] * shape[2]
    needed = voxels * bits // 8
    if voxels > MAX_VOXELS or needed > MAX_BYTES:
        raise InputError(f"{label}: expected at most {MAX_VOXELS} voxels, got {shape}.")
    syntax = _syntax(dataset, label)
    if syntax not in NATIVE:
        _check_decoder(syntax, label)
    elif not needed <= length <= needed + 1 or position + length > path.stat().st_size:
        raise InputError(
            f"{label}: expected {needed} bytes of pixels for {shape} (frames, rows, columns) at {bits} bits, got"
            f" {max(0, min(length, path.stat().st_size - position))}. The file is truncated or its header is wrong."
        )


def _check_decoder(syntax: UID, label: str) -> None:
    """Refuse a compression that nothing here can undo."""
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        name = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "a private one"
        raise InputError(
            f"{label}: expected pixels that are uncompressed or packed in a way known here, got the transfer syntax"
            f" {name!r}. Install a decoder (pylibjpeg with its plug-ins) or decompress the images first."
        )


def pixels(path: Path | str, dataset: Dataset, *, label: str = "DICOM file") -> NDArray[Any]:
    """Return stored pixel values, (frames, rows, columns), of a file that `read` has accepted.

    Raises
    ------
    InputError
        The file has no pixels, or they cannot be decoded.
    """
    path = Path(path)
    with guarded(label):
        shape = frame_shape(dataset, label)
        found = _header(path, label)[1]
        if found is None:
            raise InputError(f"{label}: expected pixels, found none.")
        allocated, stored, signed = _bits(dataset, label)
        spare = allocated - stored  # bits beyond those stored are no part of the value
        if _syntax(dataset, label) not in NATIVE:
            values = _decoded(path, shape, label)
            return (values << spare) >> spare if spare and values.itemsize * 8 == allocated else values
        order = ">" if _syntax(dataset, label) == "1.2.840.10008.1.2.2" else "<"
        kind = np.dtype(f"{order}{'i' if signed else 'u'}{allocated // 8}")
        with path.open("rb") as stream:
            values = np.fromfile(stream, kind, shape[0] * shape[1] * shape[2], offset=found[2]).reshape(shape)
        return (values << spare) >> spare if spare else values


def _decoded(path: Path, shape: tuple[int, int, int], label: str) -> NDArray[Any]:
    """Return the pixels of a compressed file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        dataset = pydicom.dcmread(_Bounded(stream, size, label, size + MAX_HEADER_BYTES))
        values = np.asarray(dataset.pixel_array)
    if values.size != shape[0] * shape[1] * shape[2]:
        raise InputError(f"{label}: expected {shape} pixels (frames, rows, columns), got {values.shape}.")
    return values.reshape(shape)


def frame_shape(dataset: Dataset, label: str = "DICOM file") -> tuple[int, int, int]:
    """Return frames, rows, columns."""
    extents = [number(dataset, k, label, d) for k, d in (("NumberOfFrames", 1), ("Rows", None), ("Columns", None))]
    if min(extents) < 1 or max(extents) > MAX_VOXELS or any(n != int(n) for n in extents):
        raise InputError(f"{label}: expected positive whole extents, got {[f'{n:g}' for n in extents]}.")
    return int(extents[0]), int(extents[1]), int(extents[2])


def _bits(dataset: Dataset, label: str) -> tuple[int, int, bool]:
    """Return bits allocated and stored of a pixel, and whether it has a sign."""
    allocated = number(dataset, "BitsAllocated", label)
    stored, high = number(dataset, "BitsStored", label, allocated), number(dataset, "HighBit", label, -1)
    if not 1 <= stored <= allocated <= 64 or high not in (-1, stored - 1):
        raise InputError(f"{label}: expected BitsStored and HighBit that fit BitsAllocated, got others.")
    return int(allocated), int(stored), number(dataset, "PixelRepresentation", label, 0) == 1


def _syntax(dataset: Dataset, label: str) -> UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise InputError(f"{label}: expected TransferSyntaxUID in the file's meta information, found none.")
    return UID(str(syntax))
