r"""What a scan says about the tumour cell density: the contract of a data term.

A term is minus the log-likelihood −ln L of k voxels given their density n. It gives its slope ∂(−ln L)/∂n, that in the
parameters of its own, and the Fisher information of parameters θ, E[−∂² ln L/∂θ²] = J W Jᵀ with the Jacobian
J = ∂n/∂θ, (p, k). Errors of neighbouring voxels are alike, so a voxel is less than a datum: every sum over voxels is
divided by m, the number of voxels that make up one independent datum (a tempered composite likelihood). For errors with
correlation c(r) = exp(−r²/2ℓ²) the mean over N voxels varies as if there were N/m of them,

    m = Σ_j c(|x_j − x_0|)       over the voxels of the grid.

`hybridtumor.models.observation_labels` has the term of segmentations, `hybridtumor.models.observation_maps` those of
ADC and PET.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridtumor.errors import InputError

Array = NDArray[np.float64]
Voxels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Misfit:
    """Minus log-likelihood of a data term, up to a constant.

    Parameters
    ----------
    value
        −ln L.
    slope
        ∂(−ln L)/∂n, (k,).
    own
        ∂(−ln L)/∂ of each parameter of the term's own.
    """

    value: float
    slope: Array
    own: dict[str, float]


class DataTerm(Protocol):
    """What one scan of one day says about the density at k voxels of the patient's grid."""

    @property
    def day(self) -> float:
        """Day of the scan."""

    @property
    def voxels(self) -> Voxels:
        """Flat numbers (C order) of the k voxels in the patient's grid, (k,)."""

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the parameters that belong to the scan and not to the tumour."""

    def misfit(self, density: Array, own: Mapping[str, float]) -> Misfit:
        """Return minus the log-likelihood of a density (k,) and its slopes."""

    def information(self, density: Array, own: Mapping[str, float], jacobian: Array, names: Sequence[str]) -> Array:
        """Return the Fisher information (p, p) of the parameters `names`.

        `jacobian` is ∂n/∂parameter, (p, k); the rows of parameters of the term's own are not read.
        """


def voxels_per_datum(correlation_length: float, voxel_size: ArrayLike) -> float:
    """Return m = Σ exp(−r²/2ℓ²) over the voxels of a grid, at least 1; 1 for errors that are independent (ℓ = 0).

    Parameters
    ----------
    correlation_length
        ℓ, mm.
    voxel_size
        Edge lengths of a voxel, (3,), mm (`Grid.voxel_size`).

    Raises
    ------
    InputError
        A length that is negative or edges that are not positive.
    """
    sizes = np.atleast_1d(np.asarray(voxel_size, np.float64))
    if not (np.isfinite(correlation_length) and correlation_length >= 0 and (sizes > 0).all()):
        raise InputError(
            "correlation: expected a length that is not negative and a positive voxel size,"
            f" got {correlation_length:g} mm and {sizes.tolist()} mm."
        )
    if correlation_length < 0.02 * sizes.min():  # what is left, e⁻¹²⁵⁰, is 0
        return 1.0
    reach = [np.arange(1, np.ceil(8 * correlation_length / size) + 1) * size for size in sizes]
    return float(np.prod([1 + 2 * np.exp(-0.5 * (r / correlation_length) ** 2).sum() for r in reach]))


def check_term(what: str, day: float, voxels: Voxels, per_datum: float) -> None:
    """Refuse a data term whose day, voxels or tempering make no sense."""
    if not np.isfinite(day):
        raise InputError(f"{what}: expected a finite day, got {day}.")
    if voxels.ndim != 1 or voxels.size == 0 or not np.issubdtype(voxels.dtype, np.integer):
        raise InputError(f"{what}: expected numbers of voxels (k,), got {voxels.dtype} of shape {voxels.shape}.")
    if not (np.isfinite(per_datum) and per_datum >= 1):
        raise InputError(f"{what}: expected at least 1 voxel per datum, got {per_datum:g}.")


def check_density(density: Array, count: int) -> Array:
    """Return a density (k,) that fits the term and is finite."""
    n = np.asarray(density, np.float64)
    if n.shape != (count,) or not np.isfinite(n).all():
        raise InputError(
            f"density: expected {count} finite values, got shape {n.shape}"
            f"{'' if n.shape != (count,) else ' with values that are not finite'}. Evaluate it at the term's voxels."
        )
    return n


def own_value(own: Mapping[str, float], name: str) -> float:
    """Return a parameter of a term's own."""
    if name not in own:
        raise InputError(
            f"observation: expected a value of {name!r}, got {', '.join(own) or 'none at all'}. Add it to the unknowns."
        )
    return float(own[name])


def growth_rows(jacobian: Array, names: Sequence[str], own: Sequence[str], count: int) -> Array:
    """Return a copy of a Jacobian (p, k) whose rows of own parameters are 0."""
    rows = np.array(jacobian, np.float64)
    if rows.shape != (len(names), count):
        raise InputError(f"jacobian: expected shape {(len(names), count)}, got {rows.shape}.")
    rows[[i for i, name in enumerate(names) if name in own]] = 0.0
    return rows
