r"""Growth in a brain from which surgery takes tissue.

From the day of a resection on, cells neither spread into the cavity nor out of it:

    D ← D (1 − c (1 − r))

in every cell of the mesh, c its share of cavity and r the residual share of cells. The cells themselves go by the event
of `hybridtumor.models.cell_kill`. The cavity counts as CSF for mechanics.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.meshes.brain import BrainMesh
from hybridtumor.meshes.domain import Domain
from hybridtumor.parameters import GrowthParameters
from hybridtumor.solvers.cells import Cells
from hybridtumor.solvers.coupled import TwoWay, operator_of
from hybridtumor.solvers.growth import Medium
from hybridtumor.therapy import TherapyPlan

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Resected:
    """One arm's coupling where tissue is taken out, with or without mechanics that acts back on growth.

    Parameters
    ----------
    plan
        Whose resections are meant.
    growth
        Parameters of growth.
    brain, domain
        The brain's mesh, and it on the ranks.
    diffusion
        Diffusivity of the tissue in every cell: scalars, (m,), or tensors, (m, 3, 3), mm²/day.
    share
        Maps a share on the patient's grid to its means in the cells, (m,).
    two_way
        The coupling of mechanics, if it acts back.
    """

    plan: TherapyPlan
    growth: GrowthParameters
    brain: BrainMesh
    domain: Domain
    diffusion: Array
    share: Callable[[NDArray[np.float32]], Array]
    two_way: TwoWay | None = None

    @property
    def highest(self) -> float:
        """Density up to which moved tissue may concentrate the cells."""
        return 1.0 if self.two_way is None else self.two_way.highest

    def days(self, last: float) -> tuple[float, ...]:
        """Return the days until `last` on which the medium changes."""
        cuts = {cut.day for cut in self.plan.resections if cut.day < last}
        return tuple(sorted(cuts | set(() if self.two_way is None else self.two_way.days(last))))

    def medium(self, cells: Cells, day: float) -> Medium:
        """Return the medium from `day` on."""
        left = self._left(day)
        if self.two_way is not None:
            self.two_way.diffusion = (self.diffusion.T * left).T
            self.two_way.cavity = self.plan.cavity_until(day)
            return self.two_way.medium(cells, day)
        operator = operator_of(self.domain, self.brain, self.diffusion, left, self.brain.transfer.node_volume)
        return Medium(operator, self.growth.proliferation)

    def _left(self, day: float) -> Array:
        """Return the share of every cell's tissue that is left after the resections up to `day`, that day included."""
        cavity = self.plan.cavity_until(day)
        return np.ones(len(self.brain.mesh.cells)) if cavity is None else 1 - np.clip(self.share(cavity), 0, 1)
