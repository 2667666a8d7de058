r"""Growth and mechanics together: the tumour pushes the tissue, the tissue acts back on the tumour.

One way, the density of a day tells the displacement of that day. Two ways, equilibrium is solved at least every
`interval` days, and until the next time its stress and its deformation gradient F, J = det F, change the medium:

    D ← D e^{−η_D σ_vM},    ρ ← ρ e^{−η_ρ p⁺}                        (Helmlinger et al., Nat. Biotechnol. 1997, measured
                                                                      that stress inhibits growth)
    D ← J F⁻¹ D F⁻ᵀ,        M ← J M,       u ← u J_before / J         where the cells are carried with the tissue:

the growth equation is then solved on the tissue as it was on day 0, and J u is conserved. The medium is that of the
interval's beginning: an error of first order in its length.

Mechanics lives on the head's mesh, which is coarser. Fields go from one mesh to the other through the voxels they
share: n by P1 interpolation and its adjoint mean, F, σ_vM and p, which are constant in a cell, by their means around
the head's vertices first.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hybridtumor.meshes.brain import BrainMesh
from hybridtumor.meshes.domain import Domain
from hybridtumor.meshes.head import HeadMesh
from hybridtumor.meshes.transfer import GridTransfer, cell_means
from hybridtumor.models.anisotropy import pulled_back
from hybridtumor.parameters import GrowthParameters, MechanicalParameters
from hybridtumor.solvers.cells import Cells
from hybridtumor.solvers.diffusion import Diffusion, assemble_diffusion
from hybridtumor.solvers.growth import Medium, Operator
from hybridtumor.solvers.limited import LimitedDiffusion, assemble_limited
from hybridtumor.solvers.mechanics import Equilibrium, Mechanics
from hybridtumor.solvers.petsc import MPI

Array = NDArray[np.float64]

CROWDED = 1.25
"""Density up to which carried tissue may concentrate cells; the growth law thins them out again."""


@dataclass(frozen=True, eq=False)
class MassEffect:
    """What a tumour does to the head: the mechanics of a patient, shared by all arms.

    Parameters
    ----------
    mechanics
        The head's mechanics.
    transfer
        The way between the patient's grid and the brain's mesh.
    """

    mechanics: Mechanics
    transfer: GridTransfer

    @classmethod
    def prepare(
        cls,
        head: HeadMesh,
        parameters: MechanicalParameters,
        initial: Array,
        transfer: GridTransfer,
        comm: MPI.Intracomm = MPI.COMM_WORLD,
    ) -> "MassEffect":
        """Set up the mechanics of a head.

        Parameters
        ----------
        head
            The head's mesh.
        parameters
            Stiffness, growth strain, coupling.
        initial
            n_0 at the vertices of the brain's mesh, (n,).
        transfer
            The way between the patient's grid and the brain's mesh.
        comm
            The ranks that work together.
        """
        on_head = head.transfer.to_mesh(transfer.to_grid(initial))
        return cls(Mechanics.prepare(head, parameters, on_head, comm), transfer)

    def with_cavity(self, cavity: NDArray[np.float32] | None) -> "MassEffect":
        """Return the same head with CSF in a cavity, a share of every voxel of the patient's grid."""
        if cavity is None:
            return self
        head = self.mechanics.head
        spacing = float(head.transfer.grid.voxel_size.min())
        share = cell_means(head.mesh, head.transfer.grid, [cavity], spacing=spacing)[0]
        csf = np.maximum(head.csf, np.clip(share, 0, 1))
        return replace(self, mechanics=replace(self.mechanics, head=replace(head, csf=csf)))

    def equilibrium(self, density: Array, start: Equilibrium | None = None) -> Equilibrium:
        """Return the head at rest under n = u + d at the vertices of the brain's mesh, (n,).

        `start` is a state near the one sought, None: day 0. Raises ConvergenceError when no rest is found.
        """
        on_head = self.mechanics.head.transfer.to_mesh(self.transfer.to_grid(density))
        return self.mechanics.solve(on_head, start)

    def displacement(self, state: Equilibrium) -> NDArray[np.float32]:
        """Return v on the patient's grid, (3, X, Y, Z), mm RAS; 0 outside the head."""
        to_grid = self.mechanics.head.transfer.to_grid
        return np.stack([to_grid(component).astype(np.float32) for component in state.displacement.T])


@dataclass(eq=False)
class TwoWay:
    """One arm's coupling in both directions; it remembers the last equilibrium and the last swelling.

    Parameters
    ----------
    effect
        The head's mechanics.
    growth
        Parameters of growth.
    brain, domain
        The brain's mesh, and it on the ranks.
    diffusion
        Diffusivity of the tissue at rest in every cell: scalars, (m,), or tensors, (m, 3, 3), mm²/day.
    way
        Sparse (brain's vertices, head's vertices): values on the head around every vertex of the brain (`between`).
    cavity
        Share of every voxel of the patient's grid that surgery has taken out so far.
    """

    effect: MassEffect
    growth: GrowthParameters
    brain: BrainMesh
    domain: Domain
    diffusion: Array
    way: sparse.csr_array
    cavity: NDArray[np.float32] | None = None
    state: Equilibrium | None = field(default=None, init=False)
    swelling: Array | None = field(default=None, init=False)

    @property
    def parameters(self) -> MechanicalParameters:
        """Parameters of the mechanics."""
        return self.effect.mechanics.parameters

    @property
    def highest(self) -> float:
        """Density up to which moved tissue may concentrate the cells."""
        return CROWDED if self.parameters.carried else 1.0

    def days(self, last: float) -> tuple[float, ...]:
        """Return the days on which equilibrium is solved, equally far apart."""
        return coupling_days(self.parameters, last)

    def medium(self, cells: Cells, day: float) -> Medium:
        """Return the medium from `day` on."""
        del day  # the tissue at rest knows no time
        visible = cells.living if cells.damaged is None else cells.living + cells.damaged
        effect = self.effect.with_cavity(self.cavity)
        self.state = effect.equilibrium(self.domain.gather(visible), self.state)
        von_mises, pressure = self._on_brain(self.state.von_mises), self._on_brain(self.state.pressure)
        slower = np.exp(-self.parameters.diffusion_stress * von_mises[self.brain.mesh.cells].mean(1))
        operator, crowding = self._operator(slower)
        return Medium(operator, self._rate(pressure), crowding)

    def _rate(self, pressure: Array) -> float | Array:
        """Return ρ e^{−η_ρ p⁺} at the degrees of freedom of this rank."""
        rate, sensitivity = self.growth.proliferation, self.parameters.proliferation_pressure
        if sensitivity == 0:
            return float(rate)
        slowed: Array = self.domain.local(np.asarray(rate * np.exp(-sensitivity * np.maximum(pressure, 0))))
        return slowed

    def _operator(self, slower: Array) -> tuple[Operator, Array | None]:
        """Return the diffusion operator of the medium, and what it does to the density of the cells."""
        volume = self.brain.transfer.node_volume
        if not self.parameters.carried:
            return operator_of(self.domain, self.brain, self.diffusion, slower, volume), None
        state, cells = self.state, self.brain.mesh.cells
        if state is None:
            raise RuntimeError("the medium is asked for before the state")
        gradient = np.stack([self._on_brain(column) for column in state.gradient.reshape(-1, 9).T], 1)
        tensor = pulled_back(self.diffusion, gradient[cells].mean(1).reshape(-1, 3, 3))
        swelling = self.domain.local(np.linalg.det(gradient.reshape(-1, 3, 3)))
        before = np.ones_like(swelling) if self.swelling is None else self.swelling
        self.swelling = swelling
        operator = assemble_limited(
            self.domain, tensor, self.brain.fraction * slower, volume * self.domain.gather(swelling)
        )
        return operator, before / swelling

    def _on_brain(self, values: Array) -> Array:
        """Return a field that is constant in the head's cells, (m,), at the brain's vertices, (n,)."""
        mesh = self.effect.mechanics.head.mesh
        weight, count = np.repeat(mesh.volumes, 4), len(mesh.points)
        around = np.bincount(mesh.cells.ravel(), np.repeat(values * mesh.volumes, 4), minlength=count)
        mean = around / np.bincount(mesh.cells.ravel(), weight, minlength=count)
        return np.asarray(self.way @ mean)


def coupling_days(parameters: MechanicalParameters, last: float) -> tuple[float, ...]:
    """Return the days until `last` on which equilibrium is solved in a two-way coupling, equally far apart."""
    intervals = max(1, int(np.ceil(last / parameters.interval - 1e-9)))
    return tuple(round(last * k / intervals, 6) for k in range(intervals))  # meets report days in spite of rounding


def between(brain: GridTransfer, head: GridTransfer) -> sparse.csr_array:
    """Return the mean of the head's P1 fields around every vertex of the brain's mesh, sparse (n, n_head).

    Both meshes share the grid; the head's domain holds the brain's.
    """
    number = np.full(head.domain.shape, -1)
    number[head.domain] = np.arange(np.count_nonzero(head.domain))
    rows = number[brain.domain]
    scaled = sparse.diags_array(brain.grid.voxel_volume / brain.node_volume) @ brain.operator.T
    return sparse.csr_array(scaled[:, rows >= 0] @ head.operator[rows[rows >= 0]])


def operator_of(domain: Domain, brain: BrainMesh, diffusion: Array, slower: Array, volume: Array) -> Operator:
    """Return the diffusion operator of tissue at rest.

    Parameters
    ----------
    domain, brain
        Where.
    diffusion
        Scalars, (m,), or tensors, (m, 3, 3), mm²/day.
    slower
        Factor of the diffusivity in every cell, (m,).
    volume
        Volume of each node, (n,), mm³.
    """
    fraction = brain.fraction * slower
    if diffusion.ndim == 3:
        operator: Diffusion | LimitedDiffusion = assemble_limited(domain, diffusion, fraction, volume)
    else:
        operator = assemble_diffusion(domain, diffusion, fraction, volume)
    return operator
