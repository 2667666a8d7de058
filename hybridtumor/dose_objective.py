r"""Expected tumour burden as a function of the dose map, with its exact slope and a diagonal curvature.

    J(D) = (1/K) Σ_k ∫ u_k(x, T) dx,     ∂J/∂D by the adjoint of every draw k,     ∂²J/∂D² ≈ |∂J/∂D| ∂L/∂D

T is the horizon, u_k the living cells under the parameters of draw k, L = α D + β D²/n the log-kill. The curvature is
that of cells which do not migrate: each voxel's part of J falls as e^{−L}. It decides how far a step goes, never what
is a minimum. All draws share the mesh, and each has the steps of the uniform plan throughout: differences are exact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.dose_control import Box, shares
from hybridtumor.errors import InputError
from hybridtumor.growth_gradient import GrowthGradient
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models.oxygen import UNIFORM, LocalResponse
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.solvers.cells import Cells
from hybridtumor.therapy import TherapyPlan

Array = NDArray[np.float64]

Biology = tuple[GrowthParameters, TreatmentResponse]
"""The parameters of one draw."""


@dataclass(frozen=True, eq=False)
class BurdenSlopes:
    """Burden and what one more Gray of total dose changes.

    Parameters
    ----------
    burdens
        ∫u dx at the horizon of every draw, mm³, (K,).
    slope
        ∂J/∂D of the whole plan's dose in every voxel, mm³/Gy, shape of the grid.
    curvature
        The same of the second derivative in the box of the control, mm³/Gy², not negative.
    """

    burdens: Array
    slope: Array
    curvature: Array

    @property
    def mean(self) -> float:
        """J, mm³."""
        return float(self.burdens.mean())


@dataclass(frozen=True, eq=False)
class ExpectedBurden:
    """J of one patient and one plan.

    Parameters
    ----------
    draws
        The run of every draw under the uniform plan.
    horizon
        T, days.
    dose
        D₀ of the uniform plan, Gy.
    """

    draws: tuple[GrowthGradient, ...]
    horizon: float
    dose: Array

    @classmethod
    def of(
        cls,
        simulation: GrowthSimulation,
        plan: TherapyPlan,
        horizon: float,
        biology: Sequence[Biology],
        local: LocalResponse = UNIFORM,
    ) -> "ExpectedBurden":
        """Return J over draws on the mesh of a simulation.

        Raises
        ------
        InputError
            The plan gives no radiation before the horizon, or cells do not respond to it.
        """
        first = min((day for course in plan.active.courses for day in course.fraction_days), default=horizon)
        if first >= horizon:
            raise InputError(
                f"optimise: expected a plan with radiation before the horizon of {horizon:g} days, got none."
                " State a course with a dose, or a later horizon."
            )
        if not any(response.alpha > 0 for _, response in biology):
            raise InputError(
                "optimise: expected cells that radiation kills, got a radiosensitivity α of 0: no dose is better than"
                " another. State response.alpha."
            )
        draws = tuple(
            GrowthGradient(simulation.with_growth(growth), plan, (0.0, horizon), response, local)
            for growth, response in biology
        )
        return cls(draws, horizon, plan.active.total_dose(simulation.grid).astype(np.float64))

    def burdens(self, plan: TherapyPlan) -> Array:
        """Return the burden of every draw at the horizon under a plan, mm³, (K,)."""
        found = []
        for draw in self.draws:
            moved = draw.with_plan(plan)
            found.append(self._burden(draw)(moved.adjoint().cells(moved.initial))[0])
        return np.array(found)

    def slopes(
        self, plan: TherapyPlan, box: Box, progress: Callable[[float], None] = lambda _share: None
    ) -> BurdenSlopes:
        """Return burdens and slopes under a plan."""
        burdens, slope = [], np.zeros(self.dose.shape)
        curvature = np.zeros(self.dose[box].shape)
        parts = list(shares(self.draws[0].plan, self.dose, box))
        given = list(shares(self.draws[0].plan, self.dose, (slice(None), slice(None), slice(None))))
        for number, draw in enumerate(self.draws):
            moved = draw.with_plan(plan)
            value, slopes, _ = moved.adjoint(fields=True).value_and_slopes(moved.initial, self._burden(draw))
            burdens.append(value)
            maps = moved.dose_slopes(slopes.fields)
            own = np.zeros(self.dose.shape)
            for part, share in zip(maps, given, strict=True):
                own += part * share
            response, lengths = draw.response, np.zeros(curvature.shape)
            for course, share in zip(plan.active.courses, parts, strict=True):
                per_fraction = course.dose.values[box] / course.fractions
                lengths += share * response.alpha * (1 + 2 * per_fraction / response.alpha_beta)
            slope += own / len(self.draws)
            curvature += np.abs(own[box]) * lengths / len(self.draws)
            progress((number + 1) / len(self.draws))
        return BurdenSlopes(np.array(burdens), slope, curvature)

    def _burden(self, draw: GrowthGradient) -> Callable[[Mapping[float, Cells]], tuple[float, dict[float, Cells]]]:
        """Return ∫u dx at the horizon, with its slope, of cells at the nodes this rank owns."""
        volume, comm = draw.simulation.diffusion.volume, draw.simulation.domain.comm

        def functional(cells: Mapping[float, Cells]) -> tuple[float, dict[float, Cells]]:
            value = comm.allreduce(float(volume @ cells[self.horizon].living))
            return value, {self.horizon: Cells(volume, np.zeros_like(volume))}

        return functional
