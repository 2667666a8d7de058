r"""Where a calibrated run starts: a density that is known, one that a segmentation shows, or a seed that is looked for.

A segmentation shows the density at its borders, the thresholds τ, and its profile between and beyond them follows from
the width of the front λ = √(D/ρ) (`hybridtumor.models.initial_density`). Both are looked for, so the start is a
function of them; taken at their defaults it would be wrong and believed. How far its borders are off is left out.

A seed is a small ball of cells that fades like a Gaussian,

    u(x) = a e^{−|x − c|²/2r²},     ∂u/∂c = u (x − c)/r²

at an age T before the scan. Untreated growth knows only D T and ρ T: a seed twice as old in a tumour half as fast gives
the same scan. Runs therefore always last the same `SEED_DAYS`, with D and ρ times T/`SEED_DAYS`, and the steps of all
of them are the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hybridtumor.grid import BoolArray
from hybridtumor.models.initial_density import density_from_labels
from hybridtumor.parameters import GrowthParameters, ImagingThresholds
from hybridtumor.scan import LabelMap

Array = NDArray[np.float64]

DRAWN_NAMES = ("diffusion_white", "proliferation", "threshold_edema", "threshold_enhancing")

DIFFERENCE = 1e-3
"""Relative step of the differences of a drawn start."""

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
class DrawnStart:
    """The density that shows as a segmentation, at the thresholds and the width of the front that are looked for.

    Parameters
    ----------
    labels
        Segmentation of the first day.
    brain
        Where cells can live, shape ``labels.grid.shape``.
    to_nodes
        A density on the grid to the nodes this rank owns.
    """

    labels: LabelMap
    brain: BoolArray
    to_nodes: Callable[[NDArray[np.float32]], Array]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of D, ρ and the thresholds."""
        return DRAWN_NAMES

    def density(self, values: Mapping[str, float]) -> Array:
        """Return the density at the nodes; errors as `density_from_labels`."""
        D, ρ, τ_e, τ_c = (values[name] for name in DRAWN_NAMES)
        growth = GrowthParameters().model_copy(update={"diffusion_white": D, "proliferation": ρ})
        thresholds = ImagingThresholds().model_copy(update={"edema": τ_e, "enhancing": τ_c})
        return self.to_nodes(density_from_labels(self.labels, self.brain, growth, thresholds))

    def slopes(self, values: Mapping[str, float]) -> dict[str, Array]:
        """Return ∂u/∂parameter at the nodes, by name, from central differences; D and ρ matter by their ratio."""
        found = {name: self._slope(values, name) for name in DRAWN_NAMES if name != "proliferation"}
        ratio = values["diffusion_white"] / values["proliferation"]
        return found | {"proliferation": -ratio * found["diffusion_white"]}

    def _slope(self, values: Mapping[str, float], name: str) -> Array:
        step = DIFFERENCE * values[name]
        ends = (self.density({**values, name: values[name] + sign * step}) for sign in (1, -1))
        after, before = ends
        return np.asarray((after - before) / (2 * step))


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
