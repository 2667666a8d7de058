r"""GrowthGradient: one patient's run under one plan as a function of parameters, with every slope.

    ln D_w, ln D_g, ln ρ, ln α, ln s, u on day 0, log-kill fields  →  densities at the report days, J, ∂J/∂all

The mesh, the plan and the days of the steps stay; parameters change (`hybridtumor.solvers.adjoint`). It covers what
calibration and planning need: radiation, drugs and resections on the lattice, with scalar diffusivities and without
mechanics that acts back. Mechanics that only moves the tissue does not enter the density and is left to the forecast.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.growth_simulation import TOLERANCE, GrowthSimulation, ascending_days
from hybridtumor.meshes.transfer import cell_means
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.models.dose_slopes import dose_slopes
from hybridtumor.models.oxygen import UNIFORM, LocalResponse
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.solvers.adjoint import CHECKPOINTS, Adjoint
from hybridtumor.solvers.diffusion import Diffusion
from hybridtumor.solvers.frozen_run import FrozenRun
from hybridtumor.solvers.tissue_diffusion import TissueDiffusion, TissueOperator
from hybridtumor.therapy import UNTREATED, TherapyPlan

Array = NDArray[np.float64]


@dataclass(eq=False)
class GrowthGradient:
    """A run whose parameters may change.

    Parameters
    ----------
    simulation
        Mesh and operators of the patient.
    plan, days, response, local
        As for `GrowthSimulation.run`; `response` is where α and s start from.
    tolerance
        Largest relative error of a step of the run that the steps are taken from.

    Raises
    ------
    InputError
        The simulation has a diffusion tensor, another mesh than the lattice, or mechanics that acts back on growth.
    """

    simulation: GrowthSimulation
    plan: TherapyPlan = UNTREATED
    days: Iterable[float] = (0, 180)
    response: TreatmentResponse = field(default_factory=TreatmentResponse)
    local: LocalResponse = UNIFORM
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        self.report_days = ascending_days(self.days)
        effect = self.simulation.effect
        if not isinstance(self.simulation.diffusion, Diffusion):
            raise InputError(
                "gradient: expected the lattice and scalar diffusivities, got a diffusion tensor or another mesh."
                " Calibrate and optimise without them."
            )
        if effect is not None and effect.parameters.two_way:
            raise InputError(
                "gradient: expected growth that mechanics does not act back on, got a two-way coupling."
                " Calibrate and optimise without it."
            )
        self._ratio: tuple[float, list[tuple[float, float, TissueOperator]]] | None = None

    def with_plan(self, plan: TherapyPlan) -> "GrowthGradient":
        """Return the gradient of a plan of other doses with these steps and operators: runs differ by dose alone.

        Raises
        ------
        InputError
            The plan lands on other days: fractions, deliveries or resections are not those of this plan.
        """
        before = self.plan
        if plan.active.landing_days != before.active.landing_days or plan.resections != before.resections:
            raise InputError("gradient: expected a plan with treatments on the same days. Change doses alone.")
        other = replace(self, plan=plan, days=self.report_days)
        other._ratio = self._ratio
        for name in ("steps", "initial", "_parts"):
            other.__dict__[name] = getattr(self, name)
        return other

    @cached_property
    def steps(self) -> tuple[float, ...]:
        """The days that every run lands on, those that suit the simulation's own parameters."""
        return self.simulation.shared_steps([self.plan], self.report_days, tolerance=self.tolerance)

    @cached_property
    def initial(self) -> Array:
        """Density of the patient on day 0 at the nodes this rank owns."""
        brain = self.simulation.brain
        return self.simulation.domain.local(brain.transfer.nodal_values(self.simulation.density))

    @cached_property
    def kill(self) -> KillSchedule:
        """What the plan does to cells at the nodes this rank owns, at the response this was made with."""
        return KillSchedule.from_plan(self.plan.active, self.response, self._at_nodes, local=self.local)

    def dose_slopes(self, fields: Sequence[Array]) -> tuple[Array, ...]:
        """Return ∂J/∂D of every course, per Gy of its total dose, on the patient's grid, the same on all ranks.

        `fields` are those of `hybridtumor.solvers.adjoint.Slopes`, found at `response`.
        """
        domain, transfer = self.simulation.domain, self.simulation.brain.transfer

        def spread(values: Array) -> Array:
            return transfer.to_mesh_transposed(domain.gather(values))

        return dose_slopes(self.plan, self.response, self.kill, fields, self._at_nodes, spread, self.local)

    def _at_nodes(self, values: NDArray[np.floating[Any]]) -> Array:
        return self.simulation.domain.local(self.simulation.brain.transfer.to_mesh(values))

    def adjoint(
        self,
        growth: GrowthParameters | None = None,
        response: TreatmentResponse | None = None,
        *,
        grey: bool = False,
        fields: bool = False,
        checkpoints: int = CHECKPOINTS,
    ) -> Adjoint:
        """Return the run with other parameters, ready for values and slopes.

        Parameters
        ----------
        growth, response
            The parameters; None: those of the simulation and of `response`. Of the response α and the drug's kill rate
            may differ from what this was made with, nothing else.
        grey, fields, checkpoints
            As for `hybridtumor.solvers.adjoint.Adjoint`.
        """
        law = self.simulation.growth if growth is None else growth
        run = FrozenRun(
            law.law,
            law.proliferation,
            self._kill(self.response if response is None else response),
            self._media(law.diffusion_white, law.diffusion_grey),
            self.steps,
            self.report_days,
            self.response.clearance_half_time,
        )
        return Adjoint(run, checkpoints, grey=grey, fields=fields)

    def smoothness(self) -> Diffusion:
        """Return the operator with D = 1 mm²/day everywhere: volume · excess(u) is the slope of ½ ∫ |∇u|² dx."""
        return self._parts[0][1].operator(1.0, 1.0).diffusion

    def _kill(self, response: TreatmentResponse) -> KillSchedule:
        """Return the kill at another α and s."""
        changed = {name: getattr(response, name) for name in ("alpha", "temozolomide")}
        if self.response.model_copy(update=changed) != response:
            raise InputError("gradient: expected a response that differs in α and temozolomide alone. Make it anew.")
        return self.kill.scaled(
            _relative("alpha", response.alpha, self.response.alpha),
            _relative("temozolomide", response.temozolomide, self.response.temozolomide),
        )

    def _media(self, white: float, grey: float) -> tuple[tuple[float, TissueOperator], ...]:
        """Return the media of D_w and D_g; while their ratio stays, operators are those of before, scaled."""
        ratio = grey / white
        if self._ratio is None or not np.isclose(self._ratio[0], ratio, rtol=1e-12, atol=0):
            made = [(day, white, parts.operator(white, grey)) for day, parts in self._parts]
            self._ratio = (ratio, made)
        return tuple((day, operator.scaled(white / at)) for day, at, operator in self._ratio[1])

    @cached_property
    def _parts(self) -> list[tuple[float, TissueDiffusion]]:
        """K_w and K_g from day 0 and from every resection on."""
        simulation, brain = self.simulation, self.simulation.brain
        spacing = float(simulation.grid.voxel_size.min())
        last = max(self.report_days)
        cuts = sorted({cut.day for cut in self.plan.resections if cut.day < last})
        parts = []
        for day in (0.0, *cuts) if 0.0 not in cuts else cuts:
            cavity, left = self.plan.cavity_until(day), 1.0
            if cavity is not None:
                left = 1 - np.clip(cell_means(brain.mesh, simulation.grid, [cavity], spacing=spacing)[0], 0, 1)
            fraction = brain.fraction * left
            volume = brain.transfer.node_volume
            parts.append((day, TissueDiffusion.assemble(simulation.domain, brain.white, brain.grey, fraction, volume)))
        return parts


def _relative(what: str, value: float, base: float) -> float:
    """Return a parameter relative to what the kill was made with."""
    if value == base:
        return 1.0
    if base <= 0:
        raise InputError(f"gradient: expected a positive {what} to start from, got {base:g}. Set one.")
    return value / base
