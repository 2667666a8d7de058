r"""Where a calibrated run starts: the density that is known on its first day, or a seed that is looked for.

A seed is a small ball of cells that fades like a Gaussian,

    u(x) = a e^{−|x − c|²/2r²},     ∂u/∂c = u (x − c)/r²

at an age T before the scan. Untreated growth knows only D T and ρ T: a seed twice as old in a tumour half as fast gives
the same scan. Runs therefore always last the same `SEED_DAYS`, with D and ρ times T/`SEED_DAYS`, and the steps of all
of them are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SEED_NAMES = ("seed_x", "seed_y", "seed_z")

SEED_DAYS = 360.0
"""Days that a run from a seed is computed over, whatever its age."""

SEED_DENSITY, SEED_RADIUS = 0.8, 4.0
"""a and r, mm: a few cells of the mesh, and small against any tumour that is seen."""


class Start(Protocol):
    """The density on the first day of a run, as a function of parameters."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters it depends on."""

    def density(self, values: Mapping[str, float]) -> Array:
        """Return the density at the nodes this rank owns."""

    def slopes(self, values: Mapping[str, float]) -> dict[str, Array]:
        """Return ∂u/∂parameter at those nodes, by name."""


@dataclass(frozen=True, eq=False)
class KnownStart:
    """A density that does not depend on parameters, at the nodes this rank owns."""

    nodal: Array

    @property
    def names(self) -> tuple[str, ...]:
        """No names: it depends on nothing."""
        return ()

    def density(self, values: Mapping[str, float]) -> Array:  # noqa: ARG002
        """Return the density."""
        return self.nodal

    def slopes(self, values: Mapping[str, float]) -> dict[str, Array]:  # noqa: ARG002
        """Return no slopes."""
        return {}


@dataclass(frozen=True, eq=False)
class Seed:
    """A seed whose place, mm RAS+, is looked for.

    Parameters
    ----------
    points
        The nodes this rank owns, (n, 3), mm.
    density_at_centre, radius
        a, and r in mm.
    """

    points: Array
    density_at_centre: float = SEED_DENSITY
    radius: float = SEED_RADIUS

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the three coordinates."""
        return SEED_NAMES

    def density(self, values: Mapping[str, float]) -> Array:
        """Return the density of the seed at the nodes."""
        away = self._away(values)
        return np.asarray(self.density_at_centre * np.exp(-(away**2).sum(axis=1) / (2 * self.radius**2)))

    def slopes(self, values: Mapping[str, float]) -> dict[str, Array]:
        """Return ∂u/∂c at the nodes, by name of the coordinate, 1/mm."""
        u, away = self.density(values), self._away(values)
        return {name: u * away[:, axis] / self.radius**2 for axis, name in enumerate(SEED_NAMES)}

    def _away(self, values: Mapping[str, float]) -> Array:
        return np.asarray(self.points - np.array([values[name] for name in SEED_NAMES]))
