"""GrowthSimulation: the mesh and the operators of one patient, and the forecast of a plan on them.

    tissue, density → mesh → growth under therapy → mass effect → Forecast

Every arm of a scenario shares one. Under MPI every rank calls it alike and gets the same Forecast.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pint
from numpy.typing import NDArray

from hybridtumor.diffusion_tensor import DiffusionTensor
from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast, MeshFields
from hybridtumor.grid import Grid
from hybridtumor.head_mechanics import HeadMechanics
from hybridtumor.mesh_choice import LATTICE, MeshSource, choose_mesh
from hybridtumor.mesh_size import CELL_SIZE, COARSEST, margin_mm, size_for
from hybridtumor.meshes.brain import BrainMesh
from hybridtumor.meshes.domain import Domain, distribute
from hybridtumor.meshes.quality import edge_lengths
from hybridtumor.meshes.transfer import cell_means
from hybridtumor.models.anisotropy import sharpened, symmetric, tissue_tensor
from hybridtumor.models.carry import carried
from hybridtumor.models.cell_kill import KillSchedule, log_kill_on_grid
from hybridtumor.models.growth import diffusivity
from hybridtumor.models.oxygen import UNIFORM, LocalResponse
from hybridtumor.parameters import GrowthParameters, MechanicalParameters, TreatmentResponse
from hybridtumor.scan import Scan
from hybridtumor.solvers.coupled import coupling_days, operator_of
from hybridtumor.solvers.growth import Coupling, Operator, Trajectory, grow
from hybridtumor.solvers.petsc import MPI, on_root
from hybridtumor.solvers.resected import Resected
from hybridtumor.solvers.time_grid import StepControl
from hybridtumor.therapy import UNTREATED, TherapyPlan
from hybridtumor.tissue import TissueMap

TOLERANCE = 1e-4
"""Largest relative error of a time step: at most 2e-4 of the burden after 180 days (docs/decisions/0002)."""

LONGEST_STEP = 20.0
"""days. The error would allow longer steps; this keeps burden curves smooth."""

INSIDE = 0.99
"""Share of the day-0 burden that has to lie in the parenchyma."""


@dataclass(frozen=True, eq=False)
class GrowthSimulation:
    """The mesh and the operators of one patient, shared by all arms.

    Parameters
    ----------
    grid
        The patient's grid.
    density
        Density on day 0, on the grid.
    growth
        Parameters of growth.
    brain
        The mesh, its tissue and the transfer to the grid.
    domain, diffusion
        The mesh on the ranks, and the diffusion operator of tissue at rest.
    diffusivity
        D of tissue at rest in every cell: scalars, (m,), or tensors, (m, 3, 3), mm²/day.
    effect
        Mechanics of the head and what it needs to act back on growth; None: tissue stays where it is.
    seconds
        Wall time of each stage of the preparation.
    water
        Diffusion tensor of water in every cell, (m, 3, 3), for growth along the tracts; None: the same in all
        directions.
    """

    grid: Grid
    density: NDArray[np.float32]
    growth: GrowthParameters
    brain: BrainMesh
    domain: Domain
    diffusion: Operator
    diffusivity: NDArray[np.float64]
    effect: HeadMechanics | None
    seconds: dict[str, float]
    water: NDArray[np.float64] | None = None

    @classmethod
    def prepare(
        cls,
        tissue: TissueMap,
        density: Scan,
        growth: GrowthParameters | None = None,
        horizon: float = 180.0,
        *,
        mechanics: MechanicalParameters | None = None,
        tensor: DiffusionTensor | None = None,
        cell_size: str | pint.Quantity = CELL_SIZE,
        mesh: MeshSource = LATTICE,
        surgery: bool = False,
        comm: MPI.Intracomm = MPI.COMM_WORLD,
    ) -> "GrowthSimulation":
        """Mesh the brain and assemble the operators.

        Parameters
        ----------
        tissue, density
            Tissue fractions and day-0 density on one grid.
        growth
            Parameters of growth; None: the defaults.
        horizon
            Last day of interest: the mesh is fine where the front can be until then.
        mechanics
            Tissue mechanics; None: tissue stays where it is.
        tensor
            Diffusion tensor of water, for growth along the tracts; None: the same in all directions.
        cell_size
            Edge length of the cells there, or ``"auto"``.
        mesh
            Which mesh: the lattice, a smooth one, or one from a file.
        surgery
            Whether a plan takes tissue out, whose sharp edge needs small cells.
        comm
            The ranks that work together.

        Raises
        ------
        InputError
            The tumour is empty or outside the brain, or the cell size is neither a positive length nor ``"auto"``.
        """
        law = GrowthParameters() if growth is None else growth
        size = size_for(cell_size, law, horizon, surgery=surgery)
        tissue.grid.require_same(density.grid, "density")
        values = require_tumour(tissue, density)
        seconds: dict[str, float] = {}
        with _timed(seconds, "mesh"):
            margin = margin_mm(law, horizon)
            brain, _ = on_root(
                comm,
                lambda: choose_mesh(
                    mesh, tissue, values, margin_mm=margin, cell_size_mm=size, coarsest_mm=max(size, COARSEST)
                ),
            )
            water = None if tensor is None else _water(brain, tensor)
        return cls.on_mesh(
            tissue,
            values,
            law,
            brain,
            mechanics=mechanics,
            water=water,
            obtuse=mesh != LATTICE,
            seconds=seconds,
            comm=comm,
        )

    @classmethod
    def on_mesh(
        cls,
        tissue: TissueMap,
        density: NDArray[np.float32],
        growth: GrowthParameters,
        brain: BrainMesh,
        *,
        mechanics: MechanicalParameters | None = None,
        water: NDArray[np.float64] | None = None,
        obtuse: bool = False,
        seconds: dict[str, float] | None = None,
        comm: MPI.Intracomm = MPI.COMM_WORLD,
    ) -> "GrowthSimulation":
        """Assemble the operators on a mesh that is there.

        Parameters
        ----------
        tissue, growth, mechanics, comm
            As for `prepare`.
        density
            Day-0 density that `require_tumour` has let pass.
        brain, water, seconds
            As the attributes.
        obtuse
            Whether the mesh has angles that call for the flux limiter, as the lattice has not.
        """
        seconds = {} if seconds is None else seconds
        with _timed(seconds, "mesh"):
            domain = distribute(brain.mesh, comm)
        with _timed(seconds, "assemble"):
            diffusivity = _diffusivity(growth, brain, water, obtuse=obtuse)
            diffusion = _at_rest(domain, brain, diffusivity)
        effect = None
        if mechanics is not None:
            with _timed(seconds, "mechanics"):
                effect = HeadMechanics.prepare(tissue, density, mechanics, brain, diffusivity, comm)
        return cls(tissue.grid, density, growth, brain, domain, diffusion, diffusivity, effect, seconds, water)

    def with_growth(self, growth: GrowthParameters) -> "GrowthSimulation":
        """Return the simulation of other parameters of growth on the same mesh: only operators are assembled anew."""
        diffusivity = _diffusivity(growth, self.brain, self.water, obtuse=self.diffusivity.ndim == 3)
        return replace(
            self,
            growth=growth,
            diffusion=_at_rest(self.domain, self.brain, diffusivity),
            diffusivity=diffusivity,
            effect=None if self.effect is None else replace(self.effect, diffusivity=diffusivity),
        )

    def shared_steps(
        self, plans: Iterable[TherapyPlan], days: Iterable[float] = (0, 180), *, tolerance: float = TOLERANCE
    ) -> tuple[float, ...]:
        """Return the steps (days) that suit all arms of a scenario: those of no treatment, landing on every event.

        Arms run with the same steps differ by their treatment alone, to round-off: more dose never gives more burden,
        and dose where there is no tumour changes nothing.

        Parameters
        ----------
        plans
            The plans of the arms.
        days, tolerance
            As for `run`.
        """
        events = {day for plan in plans for day in plan.active.landing_days}
        report_days = ascending_days(days)
        if self.effect is not None and self.effect.parameters.two_way:
            events |= set(coupling_days(self.effect.parameters, report_days[-1]))
        landings = tuple(sorted({*report_days, *(day for day in events if day < report_days[-1])}))
        return self._grow(KillSchedule(), landings, _step_control(tolerance), None, None, 0.0, None).days

    def run(
        self,
        plan: TherapyPlan = UNTREATED,
        days: Iterable[float] = (0, 180),
        response: TreatmentResponse | None = None,
        *,
        local: LocalResponse = UNIFORM,
        tolerance: float = TOLERANCE,
        steps: Sequence[float] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Forecast:
        """Grow the tumour under one plan; arguments and errors as for `simulate`.

        `local` says how the response differs from place to place (`hybridtumor.models.oxygen.local_response`). `steps`
        of `shared_steps` make arms comparable to round-off; None lets the steps adapt to this plan.
        """
        report_days = ascending_days(days)
        therapy = plan.active
        sensitivity = TreatmentResponse() if response is None else response
        transfer, seconds = self.brain.transfer, dict(self.seconds)
        trajectory = self.trajectory(
            plan,
            report_days,
            sensitivity,
            local=local,
            tolerance=tolerance,
            steps=steps,
            progress=progress,
            seconds=seconds,
        )
        with _timed(seconds, "transfer"):
            nodal = {day: self.domain.gather(trajectory.density[day]) for day in report_days}
            density = tuple(
                self.density if day == 0 else np.asarray(transfer.to_grid(nodal[day]), np.float32)
                for day in report_days
            )
            dead = None
            if trajectory.damaged is not None:
                dead = {day: self.domain.gather(trajectory.damaged[day]) for day in report_days}
            damaged = None if dead is None else tuple(transfer.to_grid(d).astype(np.float32) for d in dead.values())
            log_kill = log_kill_on_grid(therapy, sensitivity, report_days, self.grid.shape, local)
        displacement = None
        if self.effect is not None:
            with _timed(seconds, "mechanics"):
                visible = {day: nodal[day] + (0 if dead is None else dead[day]) for day in report_days}
                displacement, origins = self.effect.moved(visible, self.grid, therapy)
                density = tuple(map(partial(carried, order=3), density, origins))
                log_kill = tuple(map(partial(carried, order=1), log_kill, origins))
                damaged = None if damaged is None else tuple(map(partial(carried, order=3), damaged, origins))
        effort = {
            "steps": float(trajectory.steps),
            "steps_refused": float(trajectory.refused),
            "products": float(trajectory.products),
        }
        mesh = self.brain.mesh
        return Forecast(
            grid=self.grid,
            days=report_days,
            density=density,
            log_kill=log_kill,
            burden_curve=trajectory.burden_curve,
            displacement=displacement,
            mesh=MeshFields(mesh.points, mesh.cells, nodal, {"white": self.brain.white, "grey": self.brain.grey}),
            damaged=damaged,
            damaged_curve=trajectory.damaged_curve,
            figures=self.figures | effort | {f"seconds_{stage}": value for stage, value in seconds.items()},
        )

    def trajectory(
        self,
        plan: TherapyPlan,
        report_days: tuple[float, ...],
        response: TreatmentResponse,
        *,
        local: LocalResponse = UNIFORM,
        tolerance: float = TOLERANCE,
        steps: Sequence[float] | None = None,
        progress: Callable[[float], None] | None = None,
        seconds: dict[str, float] | None = None,
    ) -> Trajectory:
        """Grow the tumour under one plan and stay on the mesh; arguments and errors as for `run`.

        Wall times are added to `seconds`.
        """
        control, therapy = _step_control(tolerance), plan.active
        for course in therapy.courses:
            self.grid.require_same(course.dose.grid, "dose")
        for cut in therapy.resections:
            self.grid.require_same(cut.grid, "resection")
        seconds = {} if seconds is None else seconds

        def at_nodes(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
            return self.domain.local(self.brain.transfer.to_mesh(values))

        with _timed(seconds, "transfer"):
            kill = KillSchedule.from_plan(therapy, response, at_nodes, local=local)
        coupling = self._coupling(therapy)
        with _timed(seconds, "solve"):
            return self._grow(kill, report_days, control, steps, progress, response.clearance_half_time, coupling)

    def _coupling(self, plan: TherapyPlan) -> Coupling | None:
        """Return what changes the tissue during one arm: mechanics that acts back, surgery, or nothing."""
        two_way = None if self.effect is None else self.effect.coupling(self.growth, self.brain, self.domain)
        if not plan.resections:
            return two_way

        def share(values: NDArray[np.float32]) -> NDArray[np.float64]:
            spacing = float(self.grid.voxel_size.min())
            return np.asarray(cell_means(self.brain.mesh, self.grid, [values], spacing=spacing)[0], np.float64)

        return Resected(plan, self.growth, self.brain, self.domain, self.diffusivity, share, two_way)

    def _grow(
        self,
        kill: KillSchedule,
        report_days: tuple[float, ...],
        control: StepControl,
        steps: Sequence[float] | None,
        progress: Callable[[float], None] | None,
        half_time: float,
        coupling: Coupling | None,
    ) -> Trajectory:
        """Grow the day-0 density on the mesh."""
        return grow(
            self.diffusion,
            self.growth,
            kill,
            self.domain.local(self.brain.transfer.nodal_values(self.density)),
            report_days,
            control,
            progress,
            steps=steps,
            clearance_half_time=half_time,
            coupling=coupling,
        )

    @cached_property
    def figures(self) -> dict[str, float]:
        """What there is to say about the mesh and the operators."""
        lengths = edge_lengths(self.brain.mesh)
        return {
            "cells": float(len(self.brain.mesh.cells)),
            "dofs": float(len(self.brain.mesh.points)),
            "cell_size_min_mm": float(lengths.min()),
            "cell_size_max_mm": float(lengths.max()),
            "ranks": float(self.domain.comm.size),
            "positive_offdiagonal_share": self.diffusion.positive_share,
            "positive_offdiagonal_size": self.diffusion.positive_size,
            "exchange_rate_per_day": self.diffusion.rate,
        }


def _diffusivity(
    growth: GrowthParameters, brain: BrainMesh, water: NDArray[np.float64] | None, *, obtuse: bool
) -> NDArray[np.float64]:
    """Return the diffusivity in every cell: scalars, (m,), or tensors, (m, 3, 3), where the limiter is needed."""
    if water is not None:
        rates = (growth.diffusion_white, growth.diffusion_grey)
        return tissue_tensor(brain.white, brain.grey, rates, sharpened(water, growth.anisotropy))
    scalar = diffusivity(growth, brain.white, brain.grey)
    return scalar[:, None, None] * np.eye(3) if obtuse else scalar


def _water(brain: BrainMesh, tensor: DiffusionTensor) -> NDArray[np.float64]:
    """Return the diffusion tensor of water in every cell, (m, 3, 3)."""
    spacing = float(tensor.grid.voxel_size.min())
    return symmetric(cell_means(brain.mesh, tensor.grid, tensor.fields, spacing=spacing))


def _at_rest(domain: Domain, brain: BrainMesh, diffusivity: NDArray[np.float64]) -> Operator:
    """Return the diffusion operator of tissue at rest."""
    return operator_of(domain, brain, diffusivity, np.ones(len(brain.mesh.cells)), brain.transfer.node_volume)


def _step_control(tolerance: float) -> StepControl:
    """Return the control of the time steps for a tolerance."""
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance: expected a number between 0 and 1, got {tolerance}.")
    return StepControl(tolerance, longest=LONGEST_STEP)


def ascending_days(days: Iterable[float]) -> tuple[float, ...]:
    """Return the report days as ascending floats, each once."""
    result = tuple(sorted({float(day) for day in days}))
    if not result or result[0] < 0 or not np.isfinite(result).all():
        raise InputError(f"days: expected at least one report day, none before day 0, got {result}.")
    return result


def require_tumour(tissue: TissueMap, density: Scan) -> NDArray[np.float32]:
    """Return the day-0 density once it is one that can grow.

    Raises
    ------
    InputError
        The density leaves [0, 1], is empty, or less than `INSIDE` of it lies in the parenchyma.
    """
    values = np.asarray(density.values, np.float32)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:  # not a number fails too
        raise InputError(f"density: expected values between 0 and 1, got {low:.3g} to {high:.3g}.")
    total = float(values.sum())
    if total <= 0:
        raise InputError("density: expected a tumour, got an empty density. Check the segmentation.")
    share = float(values[tissue.parenchyma].sum()) / total
    if share < INSIDE:
        raise InputError(
            f"density: expected at least {INSIDE:.0%} of the tumour inside the brain, got {share:.1%}."
            " Check that segmentation and tissue are aligned."
        )
    return values


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the wall time of a block to a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
