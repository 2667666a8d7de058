r"""What maps of ADC and PET say about the tumour cell density: Gaussian data terms.

Cells hinder water, so the apparent diffusion coefficient falls with the density of cells; a tracer is taken up by them:

    ADC   N = (ADC_w − ADC)/(ADC_w − ADC_min),    −ln L = (1/m) Σ (n − N)²/2σ²,   σ = σ_ADC/(ADC_w − ADC_min)
    PET   −ln L = (1/m) Σ (b + g n − U)²/2σ²

ADC_w of free water, ADC_min where cells are densest (n = 1); Atuegwu et al., Magn. Reson. Med. 2011. Background b and
gain g of the uptake U are known or are unknowns of their own. m and the rest as in `hybridtumor.models.observation`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.models.observation import (
    Array,
    Misfit,
    Voxels,
    check_density,
    check_term,
    growth_rows,
    own_value,
    voxels_per_datum,
)
from hybridtumor.scan import Scan

PET_GAIN, PET_BACKGROUND = "pet_gain", "pet_background"

ADC_WATER = 3.0e-3
"""ADC_w, mm²/s: free water at 37 °C."""

ADC_ERROR = 1.0e-4
"""σ_ADC, mm²/s, of one voxel. A value in common use; state that of the scanner."""

PLAUSIBLE_ADC = (1.0e-4, 5.0e-3)
"""mm²/s. The median of a map that lies outside is in another unit."""

NOISE_REACH = 3.0
"""A cellularity may leave [0, 1] by this many errors; what lies beyond is no noise and is brought back to there."""

SMOOTHED = 1.0
"""ℓ, mm, of the noise of a map that was interpolated to 1 mm. A convention, not a measurement."""


@dataclass(frozen=True, eq=False)
class Cellularity:
    """Density of cells as an ADC map gives it.

    Parameters
    ----------
    day
        Day of the scan.
    voxels
        Flat numbers (C order) of the k voxels in the patient's grid, (k,).
    values
        N, (k,), fraction of carrying capacity.
    error
        σ, (k,) or one for all.
    voxels_per_datum
        m ≥ 1; see `hybridtumor.models.observation.voxels_per_datum`.

    Raises
    ------
    InputError
        Arrays that do not fit together, values that are not finite, errors that are not positive or m < 1.
    """

    day: float
    voxels: Voxels
    values: Array
    error: Array | float
    voxels_per_datum: float = 1.0

    def __post_init__(self) -> None:
        check_term("cellularity", self.day, self.voxels, self.voxels_per_datum)
        _check_values("cellularity", self.voxels, self.values, self.error)

    @classmethod
    def from_adc(
        cls,
        adc: Scan,
        region: BoolArray,
        day: float,
        *,
        minimum: float | None = None,
        water: float = ADC_WATER,
        error: float = ADC_ERROR,
        correlation_length: float = SMOOTHED,
    ) -> "Cellularity":
        """Turn an ADC map into cellularity inside a region of interest.

        N is kept as it is where noise carries it out of [0, 1]; clipping there would bias the mean.

        Parameters
        ----------
        adc
            ADC on the patient's grid, mm²/s.
        region
            Where tumour is: ADC of healthy brain is low for other reasons than tumour cells, and necrosis and oedema
            raise it. Shape ``adc.grid.shape``.
        day
            Day of the scan.
        minimum
            ADC_min, mm²/s; None: the first percentile in the region. One value for all visits makes them comparable.
        water
            ADC_w, mm²/s.
        error
            σ_ADC of one voxel, mm²/s.
        correlation_length
            ℓ of the noise, mm.

        Raises
        ------
        InputError
            A region that does not fit or is empty, a map in another unit, or ADC_min not below ADC_w.
        """
        voxels, found = _inside("ADC", adc, region)
        low, high = PLAUSIBLE_ADC
        if not low <= np.median(found) <= high:
            raise InputError(
                f"ADC: expected mm²/s, with a median between {low:g} and {high:g}, got {np.median(found):g}."
                " Convert the map: 1 µm²/ms = 1e-3 mm²/s."
            )
        least = float(np.percentile(found, 1)) if minimum is None else minimum
        if not 0 <= least < water:
            raise InputError(f"ADC: expected 0 ≤ ADC_min < ADC_w, got {least:g} and {water:g} mm²/s.")
        σ = error / (water - least)
        n = np.clip((water - found) / (water - least), -NOISE_REACH * σ, 1 + NOISE_REACH * σ)
        return cls(float(day), voxels, n, σ, voxels_per_datum(correlation_length, adc.grid.voxel_size))

    @property
    def own(self) -> tuple[str, ...]:
        """No parameter of its own."""
        return ()

    def misfit(self, density: Array, own: Mapping[str, float]) -> Misfit:  # noqa: ARG002
        """Return minus the log-likelihood of a density (k,) and its slopes."""
        r = (check_density(density, self.voxels.size) - self.values) / self.error
        return Misfit(float(r @ r) / (2 * self.voxels_per_datum), r / self.error / self.voxels_per_datum, {})

    def information(
        self,
        density: Array,  # noqa: ARG002
        own: Mapping[str, float],  # noqa: ARG002
        jacobian: Array,
        names: Sequence[str],
    ) -> Array:
        """Return the Fisher information (p, p) of the parameters `names`; see `hybridtumor.models.observation`."""
        rows = growth_rows(jacobian, names, self.own, self.voxels.size) / self.error
        return np.asarray(rows @ rows.T / self.voxels_per_datum)


@dataclass(frozen=True, eq=False)
class Uptake:
    """Uptake of a PET tracer.

    Parameters
    ----------
    day
        Day of the scan.
    voxels
        Flat numbers (C order) of the k voxels in the patient's grid, (k,).
    values
        U, (k,), in any unit (SUV, ratio to healthy brain).
    error
        σ, (k,) or one for all, in the unit of U.
    gain
        g: uptake that full density adds; None: an unknown, ``pet_gain``.
    background
        b: uptake without tumour; None: an unknown, ``pet_background``.
    voxels_per_datum
        m ≥ 1; see `hybridtumor.models.observation.voxels_per_datum`.

    Raises
    ------
    InputError
        Arrays that do not fit together, values that are not finite, errors that are not positive or m < 1.
    """

    day: float
    voxels: Voxels
    values: Array
    error: Array | float
    gain: float | None = None
    background: float | None = None
    voxels_per_datum: float = 1.0

    def __post_init__(self) -> None:
        check_term("uptake", self.day, self.voxels, self.voxels_per_datum)
        _check_values("uptake", self.voxels, self.values, self.error)

    @classmethod
    def from_scan(
        cls,
        pet: Scan,
        region: BoolArray,
        day: float,
        *,
        error: float,
        resolution: float,
        gain: float | None = None,
        background: float | None = None,
    ) -> "Uptake":
        """Take the voxels of a region: tumour and healthy brain around it, which fixes the background.

        Parameters
        ----------
        pet
            Uptake on the patient's grid.
        region
            Shape ``pet.grid.shape``.
        day
            Day of the scan.
        error
            σ, in the unit of the scan.
        resolution
            Full width at half maximum of the scanner, mm. Noise behind a Gaussian of standard deviation s has the
            correlation length √2 s.
        gain, background
            See `Uptake`.

        Raises
        ------
        InputError
            A region that does not fit or is empty.
        """
        voxels, found = _inside("PET", pet, region)
        length = math.sqrt(2) * resolution / math.sqrt(8 * math.log(2))
        per_datum = voxels_per_datum(length, pet.grid.voxel_size)
        return cls(float(day), voxels, found, error, gain, background, per_datum)

    @property
    def own(self) -> tuple[str, ...]:
        """Names of what is unknown of gain and background."""
        free = {PET_GAIN: self.gain, PET_BACKGROUND: self.background}
        return tuple(name for name, value in free.items() if value is None)

    def misfit(self, density: Array, own: Mapping[str, float]) -> Misfit:
        """Return minus the log-likelihood of a density (k,) and its slopes."""
        n, g = check_density(density, self.voxels.size), self._gain(own)
        b = own_value(own, PET_BACKGROUND) if self.background is None else self.background
        r = (b + g * n - self.values) / self.error
        part = r / self.error / self.voxels_per_datum
        slopes = {PET_GAIN: float(part @ n), PET_BACKGROUND: float(part.sum())}
        value = float(r @ r) / (2 * self.voxels_per_datum)
        return Misfit(value, g * part, {name: slopes[name] for name in self.own})

    def information(self, density: Array, own: Mapping[str, float], jacobian: Array, names: Sequence[str]) -> Array:
        """Return the Fisher information (p, p) of the parameters `names`; see `hybridtumor.models.observation`."""
        n = check_density(density, self.voxels.size)
        rows = self._gain(own) * growth_rows(jacobian, names, self.own, self.voxels.size)
        for i, name in enumerate(names):
            if name in self.own:
                rows[i] = n if name == PET_GAIN else 1.0
        rows = rows / self.error
        return np.asarray(rows @ rows.T / self.voxels_per_datum)

    def _gain(self, own: Mapping[str, float]) -> float:
        return own_value(own, PET_GAIN) if self.gain is None else self.gain


def _check_values(what: str, voxels: Voxels, values: Array, error: Array | float) -> None:
    """Refuse values or errors that do not fit."""
    if values.shape != voxels.shape or not np.isfinite(values).all():
        raise InputError(f"{what}: expected {voxels.size} finite values, got shape {values.shape} or some not finite.")
    σ = np.asarray(error)
    if σ.shape not in {(), voxels.shape} or not (np.isfinite(σ) & (σ > 0)).all():
        raise InputError(f"{what}: expected one positive error, or {voxels.size}, got shape {σ.shape}, {σ.min():g}.")


def _inside(what: str, scan: Scan, region: BoolArray) -> tuple[NDArray[np.int64], Array]:
    """Return numbers and values of the voxels of a region."""
    if region.shape != scan.grid.shape or not region.any():
        raise InputError(
            f"{what}: expected a region of the grid's shape {scan.grid.shape} with a voxel in it,"
            f" got shape {region.shape} with {np.count_nonzero(region)}."
        )
    voxels = np.flatnonzero(region).astype(np.int64)
    return voxels, scan.values.ravel()[voxels].astype(np.float64)
