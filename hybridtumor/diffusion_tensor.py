r"""DiffusionTensor: which way, and how unevenly, water moves in every voxel.

Six components of a symmetric tensor on a grid, in world axes (RAS+). Only directions and ratios count, not the unit:
a growth model takes T̂ = 3 T / tr T. Files keep the six in different orders and in different axes; who loads one
states what the header does not.

========  ==========================  ==============================  =========================================
order     shape                       components                      axes, unless stated
========  ==========================  ==============================  =========================================
nifti     (x, y, z, 1, 6), intent     xx, xy, yy, xz, yz, zz          the header does not tell: state them
          SYMMATRIX
fsl       (x, y, z, 6)                xx, xy, xz, yy, yz, zz          fsl (dtifit)
mrtrix    (x, y, z, 6)                xx, yy, zz, xy, xz, yz          world (dwi2tensor)
========  ==========================  ==============================  =========================================

Axes are ``world``, ``voxel`` (along the array's), or ``fsl``: those of the array, the first one turned round when the
affine has a positive determinant. With A the affine's 3×3 part and R = A (AᵀA)^(−½) its rotation, turned round as the
axes are, a tensor becomes R T Rᵀ and a direction R g in the world.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError, ResourceError
from hybridtumor.grid import BoolArray, FloatArray, Grid
from hybridtumor.scan import MAX_BYTES, check_affine, check_scaling, check_size, write_bytes

Array = NDArray[np.float64]
Order = Literal["nifti", "fsl", "mrtrix"]
Axes = Literal["world", "voxel", "fsl"]

COMPONENTS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Row and column of the six components, in the order in which arrays keep them: xx, xy, xz, yy, yz, zz."""

ORDERS: dict[Order, tuple[int, ...]] = {
    "nifti": (0, 1, 3, 2, 4, 5),
    "fsl": (0, 1, 2, 3, 4, 5),
    "mrtrix": (0, 3, 4, 1, 5, 2),
}
"""Where a file of each order keeps the six."""

USUAL_AXES: dict[Order, Axes] = {"fsl": "fsl", "mrtrix": "world"}
"""In which axes the programs of that name write them."""

NOISE = 0.1
"""A negative eigenvalue is noise, and set to 0, up to this share of the largest one in the voxel."""

MAX_BAD = 0.01
"""Share of the voxels with a tensor that may be worse than that; they count as unknown."""

_SYMMETRIC_MATRIX = 1005  # NIFTI_INTENT_SYMMATRIX


@dataclass(frozen=True, eq=False)
class DiffusionTensor:
    """A symmetric tensor without negative eigenvalues in every voxel.

    Parameters
    ----------
    values
        (nx, ny, nz, 6) in the order of `COMPONENTS`, or (nx, ny, nz, 3, 3); world RAS+ axes, any unit. Zero where no
        tensor is known. Kept as six components; negative eigenvalues that are noise are set to 0.
    grid
        Where the voxels lie.

    Raises
    ------
    InputError
        Another shape, a value that is not finite, asymmetry, negative eigenvalues beyond noise, no tensor at all.
    """

    values: FloatArray
    grid: Grid

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float64)
        if values.shape == (*self.grid.shape, 3, 3):
            if not np.allclose(values, values.swapaxes(-1, -2), rtol=0, atol=1e-5 * np.abs(values).max(initial=0)):
                raise InputError("diffusion tensor: expected symmetric tensors, got others.")
            values = np.stack([values[..., i, j] for i, j in COMPONENTS], -1)
        if values.shape != (*self.grid.shape, 6):
            raise InputError(
                f"diffusion tensor: expected an array of shape {(*self.grid.shape, 6)}, got {np.shape(self.values)}."
            )
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            raise InputError(
                f"diffusion tensor: expected finite components, got {bad} NaN or infinite. Mask them first."
            )
        object.__setattr__(self, "values", _semidefinite(values).astype(np.float32))

    @property
    def known(self) -> BoolArray:
        """Where there is a tensor, shape ``grid.shape``."""
        return np.asarray((self.values != 0).any(-1))

    @property
    def fields(self) -> tuple[NDArray[np.float32], ...]:
        """The six components of T̂, each of shape ``grid.shape``; the unit tensor where none is known.

        Their means over a cell, being those of semi-definite tensors of trace 3, are such a tensor again.
        """
        unit = unit_mean(symmetric(np.moveaxis(self.values, -1, 0)))
        return tuple(unit[..., i, j].astype(np.float32) for i, j in COMPONENTS)

    @classmethod
    def load(cls, path: Path | str, *, order: Order | None = None, axes: Axes | None = None) -> "DiffusionTensor":
        """Read a tensor image.

        Parameters
        ----------
        path
            NIfTI, of one of the shapes above.
        order
            How the six components are ordered; may be left out for an image with the intent SYMMATRIX.
        axes
            In which axes they are; may be left out for ``fsl`` and ``mrtrix``.

        Raises
        ------
        InputError
            The file cannot be read, has another shape, leaves order or axes open, or as above.
        """
        path = Path(path)
        image, values = read_series(path)
        order = _order(path, image, order)
        axes = axes or USUAL_AXES.get(order)
        if axes is None or axes not in get_args(Axes):
            raise InputError(
                f"{path}: expected axes among {', '.join(get_args(Axes))}, got {axes!r}. State those of the gradient"
                " table that the tensor was fitted with."
            )
        parts = np.moveaxis(values.reshape(*image.shape[:3], 6), -1, 0)[list(ORDERS[order])]
        try:
            grid = Grid(tuple(image.shape[:3]), image.affine)
            turn = rotation(grid, axes)
            return cls(turn @ symmetric(parts) @ turn.T, grid)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, path: Path | str) -> None:
        """Write the components, (x, y, z, 6): order ``fsl``, axes ``world``; the file is whole or not there."""
        image = nib.Nifti1Image(self.values, self.grid.affine)
        image.header.set_xyzt_units("mm", "sec")
        payload = image.to_bytes()
        path = Path(path)
        write_bytes(path, gzip.compress(payload, mtime=0) if path.name.endswith(".gz") else payload)


def symmetric(components: NDArray[Any]) -> Array:
    """Return tensors (..., 3, 3) from their six components (6, ...) in the order of `COMPONENTS`."""
    parts = np.asarray(components, np.float64)
    result = np.empty((*parts.shape[1:], 3, 3))
    for part, (i, j) in zip(parts, COMPONENTS, strict=True):
        result[..., i, j] = result[..., j, i] = part
    return result


def unit_mean(tensor: Array) -> Array:
    """Return T̂ = 3 T / tr T, (..., 3, 3); the unit tensor where T is zero."""
    trace = np.trace(tensor, axis1=-2, axis2=-1)[..., None, None]
    return np.where(trace > 0, 3 * tensor / np.where(trace > 0, trace, 1), np.eye(3))


def rotation(grid: Grid, axes: Axes) -> Array:
    """Return R, (3, 3): what turns a direction in these axes into one in the world."""
    if axes == "world":
        return np.eye(3)
    left, _, right = np.linalg.svd(grid.affine[:3, :3])
    turned = axes == "fsl" and np.linalg.det(grid.affine[:3, :3]) > 0
    return np.asarray(left @ right @ np.diag([-1.0 if turned else 1.0, 1.0, 1.0]))


def read_series(path: Path) -> tuple[nib.Nifti1Image, Array]:
    """Read a 4-D or 5-D NIfTI image whole; its values are finite."""
    if not path.is_file():
        raise InputError(f"{path}: expected a NIfTI file, found none.")
    try:
        image = nib.load(path)
        size = int(np.prod(image.shape, dtype=object)) * 8
    except Exception as error:
        raise InputError(f"{path}: expected a NIfTI image, got a file that cannot be read as one ({error}).") from error
    if not isinstance(image, nib.Nifti1Image | nib.Nifti2Image) or len(image.shape) not in (4, 5):
        raise InputError(f"{path}: expected a 4-D or 5-D NIfTI image, got shape {getattr(image, 'shape', None)}.")
    if not 0 < size <= MAX_BYTES:
        raise InputError(f"{path}: expected at most {MAX_BYTES} bytes of values, the header promises {size}.")
    check_affine(path, image)
    check_scaling(path, image)
    check_size(path, int(image.dataobj.offset), size // 8 * image.header.get_data_dtype().itemsize)
    try:
        values = np.asarray(image.dataobj, np.float64)
    except MemoryError as error:
        raise ResourceError(f"{path}: expected memory for {image.shape} values, there is too little.") from error
    except Exception as error:
        raise InputError(
            f"{path}: expected {image.shape} values, the data end early or are damaged ({error})."
        ) from error
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise InputError(f"{path}: expected finite values, got {bad} that are NaN or infinite. Mask them first.")
    return image, values


def _order(path: Path, image: nib.Nifti1Image, order: Order | None) -> Order:
    """Return the order of the six components, and refuse a shape that has not got them."""
    marked = int(image.header["intent_code"]) == _SYMMETRIC_MATRIX
    if image.shape[3:] not in {(6,), (1, 6)}:
        raise InputError(
            f"{path}: expected a tensor image, shape (x, y, z, 6) or (x, y, z, 1, 6), got {tuple(image.shape)}."
        )
    if marked and order not in {None, "nifti"}:
        raise InputError(f"{path}: expected order 'nifti', as the header says SYMMATRIX, got {order!r}.")
    order = "nifti" if marked else order
    if order not in ORDERS:
        raise InputError(
            f"{path}: expected an order of the six components among {', '.join(ORDERS)}, got {order!r}."
            " The header does not tell; state that of the program that wrote the file."
        )
    return order


def _semidefinite(values: Array) -> Array:
    """Set negative eigenvalues that are noise to 0 and tensors with worse ones, if they are few, to unknown."""
    known = (values != 0).any(-1)
    if not known.any():
        raise InputError("diffusion tensor: expected at least one voxel with a tensor, all are zero.")
    eigenvalues, vectors = np.linalg.eigh(symmetric(values[known].T))
    bad = eigenvalues[:, 0] < -NOISE * np.abs(eigenvalues[:, 2])
    if bad.mean() > MAX_BAD:
        raise InputError(
            f"diffusion tensor: expected no negative eigenvalues beyond noise, got them in {bad.mean():.1%} of the"
            " voxels with a tensor. Check the order of the components, or mask what is not brain."
        )
    mended = vectors * np.maximum(eigenvalues, 0)[:, None, :] @ vectors.swapaxes(1, 2)
    touched = eigenvalues[:, 0] < 0
    result = values.copy()
    inside = values[known]
    inside[touched] = np.stack([mended[touched][:, i, j] for i, j in COMPONENTS], -1)
    inside[bad] = 0
    result[known] = inside
    return result
