"""Errors of set-up: the dose moves against the patient, once for the whole course or anew in every fraction.

    systematic:   d'(x) = d(R⁻¹(x − c − t) + c)
    random:       d'(x) = ∫ d(x − y) N(y; 0, σ² I) dy

t is the shift, mm, R the rotation about the isocentre c, σ the standard deviation of the daily shift along each axis.
The dose moves as a rigid cloud: its change with the depth of tissue that the beams pass is left out. Trilinear.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.margins import require_mask
from hybridtumor.therapy import DoseMap

HIGH_DOSE = 0.95
"""Share of the maximum from which on a dose counts as high; ICRU 62 takes a target to get 95 to 107 %."""


def displaced(
    dose: DoseMap,
    shift: ArrayLike = (0.0, 0.0, 0.0),
    rotation: ArrayLike = (0.0, 0.0, 0.0),
    *,
    about: ArrayLike | None = None,
    head: BoolArray | None = None,
) -> DoseMap:
    """Return a dose that moved rigidly against the patient: a systematic error of set-up.

    Parameters
    ----------
    shift
        t, mm RAS+, (3,): where the dose goes. A patient who lies off by v gets the dose at −v.
    rotation
        Degrees, (3,), right-handed, about the world axes x (to the right), y (to the front), z (up), in this order.
    about
        c, the point that the rotation leaves where it is, (3,), mm RAS+; None: the `isocentre` of the dose.
    head
        Where the patient is, shape ``dose.grid.shape``. The beam is then taken to go on in the air as in the nearest
        voxel of the head, and the dose is 0 outside the head again: no cold rim where air without dose moves in. None:
        zero moves in.

    Raises
    ------
    InputError
        Not three finite numbers each, a head of another shape.
    """
    t, angles = _vector("shift", shift), _vector("rotation", rotation)
    c = isocentre(dose) if about is None else _vector("about", about)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    motion[:3, 3] = c + t - motion[:3, :3] @ c
    return _in_head(_moved(_continued(dose, head), motion, dose.grid, edge=head is not None), head, dose.grid)


def isocentre(dose: DoseMap) -> NDArray[np.float64]:
    """Return the middle of the high dose, (3,), mm RAS+: the mean of the voxels with at least 95 % of the maximum.

    It stands in for the isocentre of the plan, which a dose map does not say.
    """
    high = dose.values >= HIGH_DOSE * dose.values.max()
    return np.asarray(dose.grid.world(np.argwhere(high)).mean(axis=0))


def blurred(dose: DoseMap, sigma: float, *, head: BoolArray | None = None) -> DoseMap:
    """Return the expected dose under random errors of set-up: the dose convolved with a Gaussian.

    Holds for many fractions (van Herk et al., Int. J. Radiat. Oncol. Biol. Phys. 2000): a few fractions scatter about
    it.

    Parameters
    ----------
    sigma
        Standard deviation of the daily shift along each axis, mm.
    head
        As for `displaced`.

    Raises
    ------
    InputError
        A negative standard deviation, a head of another shape.
    """
    if not (sigma >= 0 and np.isfinite(sigma)):
        raise InputError(f"random errors: expected a standard deviation that is not negative, got {sigma:g} mm.")
    mode = "constant" if head is None else "nearest"
    values = ndimage.gaussian_filter(_continued(dose, head), sigma / dose.grid.voxel_size, mode=mode)
    return _in_head(values, head, dose.grid)


def _vector(name: str, values: ArrayLike) -> NDArray[np.float64]:
    vector = np.asarray(values, np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise InputError(f"{name}: expected three finite numbers, got {values!r}.")
    return vector


def _moved(
    values: NDArray[np.float32], motion: NDArray[np.float64], grid: Grid, *, edge: bool
) -> NDArray[np.floating[Any]]:
    """Return values that moved with `motion`, (4, 4) in the world; beyond the grid zero, or what is at its `edge`."""
    source = Grid(grid.shape, motion @ grid.affine)
    if source.same_as(grid, tolerance=1e-9):
        return values
    back = np.linalg.inv(source.affine) @ grid.affine
    mode = "nearest" if edge else "grid-constant"
    return np.asarray(ndimage.affine_transform(values, back[:3, :3], back[:3, 3], order=1, mode=mode))


def _continued(dose: DoseMap, head: BoolArray | None) -> NDArray[np.float32]:
    """Return the dose with, outside the head, that of the nearest voxel of the head."""
    if head is None:
        return dose.values
    require_mask(head, dose.grid, "head")
    nearest = ndimage.distance_transform_edt(
        ~head, sampling=dose.grid.voxel_size, return_distances=False, return_indices=True
    )
    return np.asarray(dose.values[tuple(nearest)])


def _in_head(values: NDArray[np.floating[Any]], head: BoolArray | None, grid: Grid) -> DoseMap:
    return DoseMap(np.asarray(values if head is None else np.where(head, values, 0), np.float32), grid)
