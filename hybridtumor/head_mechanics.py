"""The mechanics of one patient's head, shared by all arms, and what it takes to act back on growth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hybridtumor.grid import Grid
from hybridtumor.meshes.brain import BrainMesh
from hybridtumor.meshes.domain import Domain
from hybridtumor.meshes.head import head_mesh
from hybridtumor.models.ventricles import ventricles
from hybridtumor.models.warp import Origins, find_origins
from hybridtumor.parameters import GrowthParameters, MechanicalParameters
from hybridtumor.solvers.coupled import MassEffect, TwoWay, between
from hybridtumor.solvers.petsc import MPI, on_root
from hybridtumor.therapy import TherapyPlan
from hybridtumor.tissue import TissueMap

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeadMechanics:
    """The mechanics of a patient, and what it takes to act back on growth.

    Parameters
    ----------
    effect
        The head's mechanics.
    diffusivity
        Diffusivity of tissue at rest in every cell of the brain's mesh, as `hybridtumor.solvers.coupled.TwoWay` has it.
    way
        From the head's mesh to the brain's; None without a two-way coupling.
    """

    effect: MassEffect
    diffusivity: Array
    way: sparse.csr_array | None

    @classmethod
    def prepare(
        cls,
        tissue: TissueMap,
        density: NDArray[np.float32],
        parameters: MechanicalParameters,
        brain: BrainMesh,
        diffusivity: Array,
        comm: MPI.Intracomm,
    ) -> "HeadMechanics":
        """Mesh the head and set up its mechanics; `density` is that of day 0 on the grid of `tissue`."""
        inner = ventricles(tissue) if comm.rank == 0 and parameters.ventricle_pressure != 0 else None
        head = on_root(comm, lambda: head_mesh(tissue, density, ventricles=inner))
        effect = MassEffect.prepare(head, parameters, brain.transfer.nodal_values(density), brain.transfer, comm)
        way = on_root(comm, lambda: between(brain.transfer, head.transfer)) if parameters.two_way else None
        return cls(effect, diffusivity, way)

    @property
    def parameters(self) -> MechanicalParameters:
        """Parameters of the mechanics."""
        return self.effect.mechanics.parameters

    def coupling(self, growth: GrowthParameters, brain: BrainMesh, domain: Domain) -> TwoWay | None:
        """Return the two-way coupling of one arm, or None where mechanics only follows."""
        if self.way is None:
            return None
        return TwoWay(self.effect, growth, brain, domain, self.diffusivity, self.way)

    def moved(
        self, visible: Mapping[float, Array], grid: Grid, plan: TherapyPlan
    ) -> tuple[tuple[NDArray[np.float32], ...], tuple[Origins, ...]]:
        """Return displacement and origins of every day from u + d at the vertices of the brain's mesh.

        Cavities of the plan's resections are CSF from the day after surgery on.
        """
        state, fields = None, []
        for day, density in visible.items():
            if day == 0:
                fields.append(np.zeros((3, *grid.shape), np.float32))
                continue
            effect = self.effect.with_cavity(plan.cavity_on(day))
            state = effect.equilibrium(density, state)
            fields.append(effect.displacement(state))
        return tuple(fields), tuple(find_origins(field, grid) for field in fields)
