"""NIfTI files with something wrong in them."""

import gzip
import zlib
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from damage import FLOATS, NUMBERS, Case, cut, damaged, flip, number
from hypothesis import strategies as st

from hybridtumor.diffusion_tensor import DiffusionTensor
from hybridtumor.errors import InputError
from hybridtumor.scan import LabelMap, Scan, load_displacement

BOMB = 64 * 2**20
"""Bytes of zeros that a bomb unpacks to."""


def _seeds() -> list[bytes]:
    """Sound files: kinds of voxels, both versions, both byte orders, vectors, tensors, with extensions."""
    rng = np.random.default_rng(5)
    affine = np.array([[-2.0, 0.1, 0, 9], [0, 2, 0.3, -8], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    shape = (7, 8, 9)
    tensor = np.broadcast_to([2e-3, 0, 1e-3, 0, 0, 1e-3], (*shape, 6)).astype(np.float32)
    vectors = nib.Nifti1Image(rng.normal(size=(*shape, 1, 3)).astype(np.float32), affine)
    vectors.header.set_intent(1006)
    scaled = nib.Nifti1Image(rng.integers(-99, 99, shape).astype(np.int16), affine)
    scaled.header.set_slope_inter(0.5, 3)
    extended = nib.Nifti1Image(rng.normal(size=shape).astype(np.float32), affine)
    extended.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment of some bytes"))
    images = [
        nib.Nifti1Image(rng.normal(size=shape).astype(np.float32), affine),
        nib.Nifti1Image(rng.choice([0, 1, 2, 4], shape).astype(np.uint8), affine),
        nib.Nifti2Image(rng.normal(size=shape), affine),
        nib.Nifti1Image(rng.normal(size=shape).astype(np.float32), affine, nib.Nifti1Header(endianness=">")),
        nib.Nifti1Image(tensor, affine),
        scaled,
        extended,
        vectors,
    ]
    return [image.to_bytes() for image in images]


SEEDS = _seeds()
HEADERS = (nib.Nifti1Header, nib.Nifti2Header)
FIELDS = ("dim", "pixdim", "srow_x", "srow_y", "srow_z", "vox_offset", "datatype", "bitpix", "scl_slope", "sform_code")
"""What decides about places, sizes and values."""

PACKED_ZEROS = gzip.compress(bytes(BOMB), compresslevel=1, mtime=0)


def prepare(_folder: Path) -> None:
    """Nothing stands beside an image."""


def sound() -> list[Case]:
    """Files without a fault."""
    return [Case("case.nii", raw) for raw in SEEDS] + [Case("case.nii.gz", gzip.compress(raw)) for raw in SEEDS]


def read(path: Path) -> None:
    """Read the file in every way; one that takes it is enough."""
    refusals: list[str] = []  # texts: an exception would keep the reader's arrays alive
    for reader in (Scan.load, LabelMap.load, load_displacement, partial(DiffusionTensor.load, order="fsl")):
        try:
            reader(path)
        except InputError as error:
            refusals.append(str(error))
    if len(refusals) == 4:
        raise InputError(refusals[0])


def cases(_real: list[bytes]) -> st.SearchStrategy[Case]:
    """Fields of the header, bytes anywhere, promises that the file does not keep; plain and packed."""
    return _case()


@st.composite
def _case(draw: st.DrawFn) -> Case:
    raw = draw(st.sampled_from(SEEDS))
    way = draw(st.sampled_from(["fields"] * 12 + ["number"] * 3 + ["flip"] * 3 + ["any"] * 4 + ["fields, any", "bomb"]))
    for _ in range(draw(st.integers(1, 4)) if "fields" in way else 0):
        raw = _field(draw, raw)
    if way == "number":
        raw = number(draw, raw, within=552)
    if way == "flip":
        raw = flip(draw, raw, within=552)
    if "any" in way:
        raw = damaged(draw, raw)
    if way == "bomb":
        return _bomb(draw)
    if not draw(st.booleans()):
        return Case("case.nii", raw)
    packed = gzip.compress(raw, compresslevel=1, mtime=0)
    return Case("case.nii.gz", _stream(draw, packed) if draw(st.integers(0, 3)) == 3 else packed)


def _field(draw: st.DrawFn, raw: bytes) -> bytes:
    """Another value in a field of the header, also where nibabel would mend it on writing."""
    order = ">" if raw[:1] == b"\x00" else "<"
    dtype = HEADERS[raw[:2] in (b"\x1c\x02", b"\x02\x1c")].template_dtype.newbyteorder(order)
    header = np.frombuffer(raw[: dtype.itemsize].ljust(dtype.itemsize, b"\0"), dtype).copy()
    name = draw(st.sampled_from(FIELDS) | st.sampled_from(dtype.names or ()))
    values = header[name].reshape(-1)
    place = draw(st.integers(0, values.size - 1))
    if values.dtype.kind in "iu":
        bounds = np.iinfo(values.dtype)
        wanted = draw(st.sampled_from(NUMBERS) | st.integers(-5, 300) | st.integers(bounds.min, bounds.max))
        values[place] = min(max(wanted, bounds.min), bounds.max)
    elif values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values[place] = draw(st.sampled_from(FLOATS) | st.floats() | st.floats(-300, 300))
    else:
        values[place] = draw(st.binary(max_size=values.dtype.itemsize))
    header[name] = values.reshape(header[name].shape)
    return bytes(header.tobytes()) + raw[dtype.itemsize :]


def _bomb(draw: st.DrawFn) -> Case:
    """Few bytes that promise, and unpack to, many: extents to match, or not."""
    head = bytearray(SEEDS[draw(st.sampled_from([0, 1, 5]))][:352])
    extent = draw(st.sampled_from([200, 254, 400, 2000, 32767]))
    head[40:56] = np.array([3, extent, extent, extent, 1, 1, 1, 1], "<i2").tobytes()
    packed = gzip.compress(bytes(head), compresslevel=1, mtime=0) + PACKED_ZEROS
    return Case("case.nii.gz", damaged(draw, packed) if draw(st.booleans()) else packed)


def _stream(draw: st.DrawFn, packed: bytes) -> bytes:
    """A gzip stream that is damaged, cut, doubled, followed by something else, or of another checksum."""
    way = draw(st.sampled_from(["any", "cut", "twice", "junk", "checksum", "zeros", "zlib", "packed twice"]))
    return {
        "any": lambda: damaged(draw, packed),
        "cut": lambda: cut(draw, packed),
        "twice": lambda: packed + packed,
        "junk": lambda: packed + bytes(100) + b"junk",
        "checksum": lambda: packed[:-8] + draw(st.binary(min_size=8, max_size=8)),
        "zeros": lambda: packed + PACKED_ZEROS,
        "zlib": lambda: zlib.compress(packed),
        "packed twice": lambda: gzip.compress(packed, mtime=0),
    }[way]()
