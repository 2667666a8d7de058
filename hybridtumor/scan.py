"""Scan and LabelMap: an array with a place in the world, read from and written to NIfTI.

Every doubtful header is refused before voxel data are touched: nibabel loads truncated files, absurd extents and
not-a-number affines without complaint and fails, if at all, later.
"""

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from hybridtumor.errors import InputError, ResourceError
from hybridtumor.grid import BoolArray, Grid

MODALITIES = ("T1w", "T1ce", "T2w", "FLAIR")
"""The four MRI contrasts, in the order in which arrays stack them."""

LABELS = ("necrosis", "edema", "enhancing")
"""Tumour labels, in the order in which arrays stack them."""

LABEL_CONVENTIONS: Mapping[str, Mapping[str, int]] = {
    "brats2021": {"necrosis": 1, "edema": 2, "enhancing": 4},
    "brats2023": {"necrosis": 1, "edema": 2, "enhancing": 3},
}
"""Voxel value of each tumour label; 0 is everything else. BraTS moved 'enhancing' from 4 to 3 in 2023."""

SYNTHETIC_NOTICE = "SYNTHETIC by hybridtumor; research use only"
"""Written into the header and the sidecar of every image that no scanner made (NIfTI `descrip` holds 79 characters)."""

DISPLACEMENT_INTENT = "displacement vector"
"""NIfTI's intent code 1006, as nibabel calls it."""

FORM_CODES = range(6)
"""Codes of NIfTI's sform and qform: unknown, scanner, aligned, Talairach, MNI 152, template."""

MAX_VOXELS = 1024**3
"""Largest image that is read; a header that promises more is refused before memory is asked for."""

MAX_BYTES = 4 * 1024**3
"""Most bytes of voxels, unpacked, that are read from one file."""

MAX_DEFLATION = 1032
"""No gzip stream unpacks to more than this many times its size."""


@dataclass(frozen=True, eq=False)
class Scan:
    """An image: finite float32 values of shape ``grid.shape`` on a grid."""

    values: NDArray[np.float32]
    grid: Grid

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float32)
        if values.shape != self.grid.shape:
            raise InputError(f"scan: expected an array of the grid's shape {self.grid.shape}, got {values.shape}.")
        object.__setattr__(self, "values", values)

    @classmethod
    def load(cls, path: Path | str) -> "Scan":
        """Read a 3-D NIfTI image.

        Raises
        ------
        InputError
            The file is missing, truncated, not NIfTI, not 3-D, too large, or holds an unusable affine, scaling or
            voxel.
        """
        values, grid = _read(Path(path))
        return cls(values, grid)

    def save(self, path: Path | str, *, description: str = "", sidecar: Mapping[str, object] | None = None) -> None:
        """Write NIfTI at full float32 precision, whole or not at all; see `write_nifti`."""
        write_nifti(path, self.values, self.grid, description=description, sidecar=sidecar)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation: integer labels of shape ``grid.shape`` on a grid, with the meaning of the integers.

    Raises
    ------
    InputError
        A value that is not an integer or that `codes` does not name.
    """

    values: NDArray[np.uint8]
    grid: Grid
    codes: Mapping[str, int] = field(default_factory=lambda: LABEL_CONVENTIONS["brats2021"])

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.shape != self.grid.shape:
            raise InputError(f"labels: expected an array of the grid's shape {self.grid.shape}, got {values.shape}.")
        strange = values[~np.isin(values, [0, *self.codes.values()])]
        if strange.size:
            unknown = [float(v) for v in np.unique(strange[:100_000])]
            known = ", ".join(f"{code} = {name}" for name, code in self.codes.items())
            raise InputError(
                f"labels: expected 0 and {known}; got also {unknown[:8]}."
                " State the right label convention or mend the map."
            )
        object.__setattr__(self, "values", values.astype(np.uint8))

    @classmethod
    def load(cls, path: Path | str, *, convention: str | None = None) -> "LabelMap":
        """Read a segmentation.

        `convention` is a key of `LABEL_CONVENTIONS`; None tells 2021 from 2023 by label 4 or 3.

        Raises
        ------
        InputError
            As `Scan.load`, and for unknown labels or an unknown convention.
        """
        values, grid = _read(Path(path))
        if convention is None:
            convention = "brats2023" if (values == 3).any() and not (values == 4).any() else "brats2021"
        if convention not in LABEL_CONVENTIONS:
            raise InputError(
                f"{path}: expected a label convention among {', '.join(LABEL_CONVENTIONS)}, got {convention!r}."
            )
        try:
            return cls(values, grid, LABEL_CONVENTIONS[convention])  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def mask(self, *names: str) -> BoolArray:
        """Return where any of the named labels is, or any label at all when none is named."""
        if not names:
            return self.values > 0
        return np.isin(self.values, [self.codes[name] for name in names])

    def save(self, path: Path | str, *, description: str = "", sidecar: Mapping[str, object] | None = None) -> None:
        """Write NIfTI (uint8), whole or not at all; see `write_nifti`."""
        write_nifti(
            path,
            self.values,
            self.grid,
            description=description,
            sidecar={"labels": dict(self.codes), **(sidecar or {})},
        )


def write_nifti(
    path: Path | str,
    values: NDArray[np.float32] | NDArray[np.uint8],
    grid: Grid,
    *,
    description: str = "",
    sidecar: Mapping[str, object] | None = None,
) -> None:
    """Write an array and its affine as NIfTI-1, and facts about it as a JSON sidecar beside it.

    Both are written under a temporary name, flushed and renamed, so a reader never meets half a file. The compressed
    stream holds no time stamp: the same array gives the same bytes.

    Displacements (3, X, Y, Z), mm RAS+, become NIfTI's displacement vectors: shape (X, Y, Z, 1, 3), intent code 1006,
    components in RAS. ITK (from 5.4 on) and 3D Slicer (from 5.2 on) turn such vectors to their own LPS when they read
    them; intent code 1007, any vector, they would take as it stands.
    """
    path = Path(path)
    vectors = values.ndim == 4
    image = nib.Nifti1Image(np.moveaxis(values, 0, -1)[:, :, :, None] if vectors else values, grid.affine)
    if vectors:
        image.header.set_intent(DISPLACEMENT_INTENT)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1, strip_shears=True)
    if not np.allclose(image.get_qform(), grid.affine, atol=1e-3):  # sheared: a quaternion cannot say so
        image.set_qform(None, code=0)
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    payload = image.to_bytes()
    if path.name.endswith(".gz"):
        payload = gzip.compress(payload, compresslevel=4, mtime=0)
    write_bytes(path, payload)
    if sidecar is not None:
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        write_bytes(
            path.with_name(f"{stem}.json"),
            (json.dumps(dict(sidecar), indent=2, sort_keys=True) + "\n").encode(),
        )


def write_bytes(path: Path, payload: bytes) -> None:
    """Write a file atomically: temporary name in the same folder, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        _flush_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_displacement(path: Path | str) -> tuple[NDArray[np.float32], Grid]:
    """Read displacements, (3, X, Y, Z), mm RAS+, as `write_nifti` writes them.

    Raises
    ------
    InputError
        As `Scan.load`, and for an image that does not hold three components of intent code 1006.
    """
    values, grid = _read(Path(path), vectors=True)
    return np.ascontiguousarray(np.moveaxis(values, -1, 0)), grid


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path, *, vectors: bool = False) -> tuple[NDArray[np.float32], Grid]:
    """Read a NIfTI file after checking its header; see `Scan.load`. Vectors are (X, Y, Z, 3)."""
    if not path.is_file():
        raise InputError(f"{path}: expected a NIfTI file, found none.")
    try:
        image = nib.load(path)
        header = image.header
        extents = [int(n) for n in header.get_data_shape()]
    except Exception as error:
        raise InputError(f"{path}: expected a NIfTI image, got a file that cannot be read as one ({error}).") from error
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise InputError(f"{path}: expected a NIfTI image, got {type(image).__name__}. Convert it to NIfTI.")
    if vectors:
        if extents[3:] != [1, 3] or header.get_intent()[0] != DISPLACEMENT_INTENT:
            raise InputError(
                f"{path}: expected displacement vectors (intent code 1006), shape (X, Y, Z, 1, 3),"
                f" got {header.get_intent()[0]!r} of shape {tuple(extents)}."
            )
        extents = extents[:3]
    components = 3 if vectors else 1
    while len(extents) > 3 and extents[-1] == 1:
        extents.pop()
    if len(extents) != 3:
        raise InputError(
            f"{path}: expected a 3-D image, got {len(extents)}-D with shape {tuple(extents)}. Extract one volume first."
        )
    if min(extents) < 1 or int(np.prod(extents, dtype=object)) > MAX_VOXELS:
        raise InputError(
            f"{path}: expected at most {MAX_VOXELS} voxels and positive extents, got shape {tuple(extents)}."
        )
    check_affine(path, image)
    check_scaling(path, image)
    promised = components * int(np.prod(extents, dtype=object)) * header.get_data_dtype().itemsize
    check_size(path, int(image.dataobj.offset), promised)
    try:
        grid = Grid((extents[0], extents[1], extents[2]), image.affine)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    try:
        shape = (*grid.shape, components) if vectors else grid.shape
        values = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except MemoryError as error:
        raise ResourceError(f"{path}: expected memory for {tuple(extents)} voxels, there is too little.") from error
    except Exception as error:
        raise InputError(
            f"{path}: expected {tuple(extents)} voxels, the data end early or are damaged ({error})."
        ) from error
    if path.name.endswith(".gz"):
        _check_stream(path, int(image.dataobj.offset) + values.size * header.get_data_dtype().itemsize)
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise InputError(
            f"{path}: expected finite voxels, got {bad} that are NaN or infinite. Fill or mask them first."
        )
    return values, grid


def check_size(path: Path, offset: int, data: int) -> None:
    """Refuse data (bytes that the header promises) that do not fit into memory or cannot be in the file."""
    if data > MAX_BYTES:
        raise InputError(f"{path}: expected at most {MAX_BYTES} bytes of voxels, the header promises {data}.")
    size, packed = path.stat().st_size, path.name.endswith(".gz")
    if offset + data > size * (MAX_DEFLATION if packed else 1):
        raise InputError(
            f"{path}: expected {offset + data} bytes as the header says, got {size}. The file is truncated."
        )


def _check_stream(path: Path, needed: int) -> None:
    """Read a gzip stream to its end, where its checksum is: nibabel stops after the last voxel."""
    length = 0
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read(2**24):
                length += len(chunk)
                if length > needed + 2**24:
                    raise InputError(f"{path}: expected {needed} bytes in the stream, got more. The header is wrong.")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a whole gzip stream, it is damaged or ends early ({error}).") from error


def check_affine(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse an affine that is not finite, a form of no known code, and two forms that put the image at two places."""
    _check_codes(path, image)
    sform, sform_code = image.get_sform(coded=True)
    try:
        qform, qform_code = image.get_qform(coded=True)
    except Exception as error:
        raise InputError(f"{path}: expected a valid qform in the header ({error}).") from error
    if sform_code and (not np.isfinite(sform).all()):
        raise InputError(f"{path}: expected a finite affine, got NaN or infinity in the sform.")
    if sform_code and qform_code and np.isfinite(qform).all():
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in image.shape[:3]])).reshape(3, -1)
        gap = float(np.abs((sform - qform)[:3, :3] @ corners + (sform - qform)[:3, 3:]).max())
        if gap > 0.1:
            raise InputError(
                f"{path}: expected sform and qform to agree, they differ by up to {gap:.3g} mm."
                " Keep one and zero the other's code."
            )


def check_scaling(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse an intensity scaling that is not finite: nibabel ignores it and forgets it when it loads the image."""
    header = _stored_header(path, image)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite([slope, intercept]).all():
        raise InputError(
            f"{path}: expected a finite intensity scaling, got slope {slope} and intercept {intercept} in the header."
        )


def _check_codes(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse codes that NIfTI does not know: nibabel sets them to 0, and the image lies where another form says."""
    header = _stored_header(path, image)
    for form in ("sform", "qform"):
        code = int(header[f"{form}_code"])
        if code not in FORM_CODES:
            raise InputError(
                f"{path}: expected {form}_code from {FORM_CODES[0]} to {FORM_CODES[-1]} in the header, got {code}."
                " Where the image lies is not known; mend the header."
            )


def _stored_header(path: Path, image: nib.Nifti1Image) -> nib.Nifti1Header:
    """Return the header as it stands in the file, nothing of it mended."""
    with ImageOpener(path) as stream:
        return type(image.header).from_fileobj(stream, check=False)
