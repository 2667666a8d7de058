"""simulate: from a patient and a plan to the tumour's future, on the patient's grid.

    tissue, density → mesh → growth under therapy → Forecast

A `GrowthSimulation` holds the mesh and the operators of one patient, which every arm of a scenario shares;
`simulate` prepares one and runs one plan. Under MPI every rank calls them alike and gets the same Forecast.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pint
from numpy.typing import NDArray

from hybridtumor import units
from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast, MeshFields
from hybridtumor.grid import Grid
from hybridtumor.meshes.brain import BrainMesh, brain_mesh
from hybridtumor.meshes.domain import Domain, distribute
from hybridtumor.meshes.quality import edge_lengths
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.scan import Scan
from hybridtumor.solvers.diffusion import Diffusion, assemble_diffusion
from hybridtumor.solvers.growth import Trajectory, grow
from hybridtumor.solvers.petsc import MPI, on_root
from hybridtumor.solvers.time_grid import StepControl
from hybridtumor.therapy import UNTREATED, DoseMap, TherapyPlan
from hybridtumor.tissue import TissueMap

CELL_SIZE = "2 mm"
"""Edge length of the cells where the front is and will be."""

TOLERANCE = 1e-4
"""Largest relative error of a time step: at most 2e-4 of the burden after 180 days (docs/decisions/0002)."""

COARSEST = 8.0
"""mm. Largest cells, far from the tumour."""

LONGEST_STEP = 10.0
"""days. The error would allow longer steps; this keeps burden curves smooth."""

INSIDE = 0.99
"""Share of the day-0 burden that has to lie in the parenchyma."""

LONGEST_MARGIN = 60.0
"""mm. Farther than this from today's tumour the cells are never fine."""


def simulate(
    patient: Patient,
    growth: GrowthParameters | None = None,
    plan: TherapyPlan = UNTREATED,
    days: Iterable[float] = (0, 180),
    response: TreatmentResponse | None = None,
    *,
    cell_size: str | pint.Quantity = CELL_SIZE,
    tolerance: float = TOLERANCE,
    progress: Callable[[float], None] | None = None,
) -> Forecast:
    """Simulate the growth of a patient's tumour under a plan.

    Parameters
    ----------
    patient
        With tissue fractions and the day-0 density (`hybridtumor.prepare.load_patient` fills them).
    growth, response
        Parameters; None: the defaults of `hybridtumor.parameters`.
    plan
        What is given.
    days
        Report days, not negative. The state of a report day is the one before a fraction of that day.
    cell_size
        Edge length of the cells at the front, such as ``"2 mm"``.
    tolerance
        Largest relative error of a time step.
    progress
        Called with the share of the time that is done, in [0, 1].

    Raises
    ------
    InputError
        Tissue or density are missing, the tumour is empty or outside the brain, the dose lies on another
        grid, a day is negative.
    ConvergenceError
        The solver failed.
    ResourceError
        No C compiler for the forms, or not enough memory.
    """
    if patient.tissue is None or patient.density is None:
        missing = "tissue fractions" if patient.tissue is None else "day-0 density"
        raise InputError(
            f"patient {patient.id}: expected {missing}, got none. Prepare the patient with load_patient first."
        )
    report_days = _report_days(days)
    law = GrowthParameters() if growth is None else growth
    simulation = GrowthSimulation.prepare(patient.tissue, patient.density, law, report_days[-1], cell_size=cell_size)
    return simulation.run(plan, report_days, response, tolerance=tolerance, progress=progress)


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
        The mesh on the ranks, and the diffusion operator.
    seconds
        Wall time of each stage of the preparation.
    """

    grid: Grid
    density: NDArray[np.float32]
    growth: GrowthParameters
    brain: BrainMesh
    domain: Domain
    diffusion: Diffusion
    seconds: dict[str, float]

    @classmethod
    def prepare(
        cls,
        tissue: TissueMap,
        density: Scan,
        growth: GrowthParameters | None = None,
        horizon: float = 180.0,
        *,
        cell_size: str | pint.Quantity = CELL_SIZE,
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
        cell_size
            Edge length of the cells there.
        comm
            The ranks that work together.

        Raises
        ------
        InputError
            The tumour is empty or outside the brain, or the cell size is not a positive length.
        """
        size = require_size(cell_size)
        law = GrowthParameters() if growth is None else growth
        tissue.grid.require_same(density.grid, "density")
        values = require_tumour(tissue, density)
        seconds: dict[str, float] = {}
        with _timed(seconds, "mesh"):
            margin = margin_mm(law, horizon)
            brain = on_root(
                comm,
                lambda: brain_mesh(
                    tissue, values, margin_mm=margin, cell_size_mm=size, coarsest_mm=max(size, COARSEST)
                ),
            )
            domain = distribute(brain.mesh, comm)
        with _timed(seconds, "assemble"):
            rates = (law.diffusion_white, law.diffusion_grey)
            diffusion = assemble_diffusion(
                domain, brain.white, brain.grey, brain.fraction, rates, brain.transfer.node_volume
            )
        return cls(tissue.grid, values, law, brain, domain, diffusion, seconds)

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
        events = {day for plan in plans for course in plan.active.courses for day in course.fraction_days}
        report_days = _report_days(days)
        landings = tuple(sorted({*report_days, *(day for day in events if day < report_days[-1])}))
        nothing = KillSchedule.from_plan(UNTREATED, TreatmentResponse(), lambda dose: dose.values)
        return self._grow(nothing, landings, _step_control(tolerance), None, None).days

    def run(
        self,
        plan: TherapyPlan = UNTREATED,
        days: Iterable[float] = (0, 180),
        response: TreatmentResponse | None = None,
        *,
        tolerance: float = TOLERANCE,
        steps: Sequence[float] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Forecast:
        """Grow the tumour under one plan; arguments and errors as for `simulate`.

        `steps` of `shared_steps` make arms comparable to round-off; None lets the steps adapt to this plan.
        """
        report_days = _report_days(days)
        control = _step_control(tolerance)
        therapy = plan.active
        for course in therapy.courses:
            self.grid.require_same(course.dose.grid, "dose")
        sensitivity = TreatmentResponse() if response is None else response
        transfer, seconds = self.brain.transfer, dict(self.seconds)

        def at_nodes(dose: DoseMap) -> NDArray[np.float64]:
            return self.domain.local(transfer.to_mesh(dose.values))

        with _timed(seconds, "transfer"):
            kill = KillSchedule.from_plan(therapy, sensitivity, at_nodes)
        products = self.diffusion.products
        with _timed(seconds, "solve"):
            trajectory = self._grow(kill, report_days, control, steps, progress)
        with _timed(seconds, "transfer"):
            nodal = {day: self.domain.gather(trajectory.density[day]) for day in report_days}
            fields = tuple(
                self.density if day == 0 else np.asarray(transfer.to_grid(nodal[day]), np.float32)
                for day in report_days
            )
            on_grid = KillSchedule.from_plan(therapy, sensitivity, lambda dose: dose.values, shape=self.grid.shape)
            log_kill = tuple(np.asarray(on_grid.log_kill(0.0, day), np.float32) for day in report_days)
        effort = {
            "steps": float(trajectory.steps),
            "steps_refused": float(trajectory.refused),
            "products": float(self.diffusion.products - products),
        }
        mesh = self.brain.mesh
        return Forecast(
            grid=self.grid,
            days=report_days,
            density=fields,
            log_kill=log_kill,
            burden_curve=trajectory.burden_curve,
            mesh=MeshFields(mesh.points, mesh.cells, nodal, {"white": self.brain.white, "grey": self.brain.grey}),
            figures=self.figures | effort | {f"seconds_{stage}": value for stage, value in seconds.items()},
        )

    def _grow(
        self,
        kill: KillSchedule,
        report_days: tuple[float, ...],
        control: StepControl,
        steps: Sequence[float] | None,
        progress: Callable[[float], None] | None,
    ) -> Trajectory:
        """Grow the day-0 density on the mesh."""
        initial = self.domain.local(self.brain.transfer.to_mesh(self.density))
        return grow(self.diffusion, self.growth, kill, initial, report_days, control, progress, steps=steps)

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


def margin_mm(growth: GrowthParameters, horizon: float) -> float:
    """Return how far beyond today's tumour the mesh has to be fine: the way of the front, or of diffusion alone, mm.

    The tumour ends where its density is 0.01, four front widths ahead of the front: the way is generous.
    """
    spread = np.sqrt(2 * growth.diffusion_white * horizon)
    return float(min(max(growth.front_speed * horizon, spread) + 2.0, LONGEST_MARGIN))


def _step_control(tolerance: float) -> StepControl:
    """Return the control of the time steps for a tolerance."""
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance: expected a number between 0 and 1, got {tolerance}.")
    return StepControl(tolerance, longest=LONGEST_STEP)


def _report_days(days: Iterable[float]) -> tuple[float, ...]:
    """Return the report days as ascending floats, each once."""
    result = tuple(sorted({float(day) for day in days}))
    if not result or result[0] < 0 or not np.isfinite(result).all():
        raise InputError(f"days: expected at least one report day, none before day 0, got {result}.")
    return result


def require_size(cell_size: str | pint.Quantity) -> float:
    """Return a cell size in mm.

    Raises
    ------
    InputError
        It is not a positive length.
    """
    size = units.magnitude(cell_size, "mm", name="cell size")
    if size <= 0:
        raise InputError(f"cell size: expected a positive length, got {cell_size}.")
    return size


def require_tumour(tissue: TissueMap, density: Scan) -> NDArray[np.float32]:
    """Return the day-0 density once it is one that can grow.

    Raises
    ------
    InputError
        The density leaves [0, 1], is empty, or less than `INSIDE` of it lies in the parenchyma.
    """
    values = np.asarray(density.values, np.float32)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise InputError(f"density: expected values between 0 and 1, got {values.min():.3g} to {values.max():.3g}.")
    total = float(values.sum(dtype=np.float64))
    if total <= 0:
        raise InputError("density: expected a tumour, got an empty density. Check the segmentation.")
    share = float(values[tissue.parenchyma].sum(dtype=np.float64)) / total
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
