r"""The arms of a scenario under draws of a patient's parameters, paired.

    θ⁽ᵏ⁾ ~ posterior,  k = 1 … K:  every arm grows with θ⁽ᵏ⁾, from the same density, on the same mesh, by the same steps

so that the arms of one draw differ by their treatment alone. What is kept of an arm are numbers: burden ∫u dx, the
volume in which living and damaged cells pass the threshold of FLAIR, and the day on which that volume has progressed.
Mechanics that only follows the tumour changes no burden and is left out: volumes are where the tissue was on day 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hybridtumor import outcome
from hybridtumor.calibration_file import Calibration, Values
from hybridtumor.errors import HybridTumorError, InputError
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.meshes.brain import BrainMesh
from hybridtumor.models.oxygen import LocalResponse, local_response
from hybridtumor.parameters import GrowthParameters, ImagingThresholds, MechanicalParameters, TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.scenario import Scenario
from hybridtumor.solvers.growth import Trajectory
from hybridtumor.solvers.petsc import MPI
from hybridtumor.therapy import TherapyPlan
from hybridtumor.tissue import TissueMap

CURVE_POINTS = 181
"""Most days at which a curve is kept, besides the report days."""


@dataclass(frozen=True)
class DrawOptions:
    """How posterior draws are propagated.

    Parameters
    ----------
    count
        How many; 0: none.
    seed
        Of the draws.
    workers
        Processes that share them; results do not depend on it. Under MPI all ranks work on one draw after another.
    """

    count: int = 0
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.count <= 10_000:
            raise InputError(f"draws: expected 0 to 10000 draws, got {self.count}.")
        if not 0 <= self.seed < 2**31 or self.workers < 1:
            raise InputError(
                f"draws: expected a seed from 0 to 2³¹ − 1 and at least one worker, got {self.seed} and {self.workers}."
            )


@dataclass(frozen=True)
class ArmDraw:
    """One arm of one draw.

    Parameters
    ----------
    burden, volume
        Living cells and visible tumour at the report days, mm³.
    progression
        Day on which the visible tumour has progressed; None: not within the horizon.
    curve
        Burden at `DrawSetting.curve_days`, mm³.
    """

    burden: tuple[float, ...]
    volume: tuple[float, ...]
    progression: float | None
    curve: NDArray[np.float64]


Draw = tuple[Values, dict[str, ArmDraw]]
"""Parameters of a draw, and its arms by name."""


@dataclass(frozen=True, eq=False)
class DrawSetting:
    """Everything about a scenario that draws have in common; it can be sent to another process.

    Parameters
    ----------
    tissue, density, brain, water, obtuse
        The patient and the mesh, as `GrowthSimulation.on_mesh` takes them.
    growth, response, mechanics
        Biology as the scenario states it; mechanics only where it acts back on growth.
    local
        How the response differs from place to place.
    plans
        Name to plan of every arm.
    days
        Report days.
    calibration
        Whose draws are simulated.
    """

    tissue: TissueMap
    density: NDArray[np.float32]
    brain: BrainMesh
    water: NDArray[np.float64] | None
    obtuse: bool
    growth: GrowthParameters
    response: TreatmentResponse
    mechanics: MechanicalParameters | None
    local: LocalResponse
    plans: Mapping[str, TherapyPlan]
    days: tuple[float, ...]
    calibration: Calibration

    @classmethod
    def of(
        cls,
        simulation: GrowthSimulation,
        patient: Patient,
        scenario: Scenario,
        plans: Mapping[str, TherapyPlan],
        calibration: Calibration,
    ) -> Self:
        """Return the setting of a scenario whose mesh is there; the patient has tissue."""
        if patient.tissue is None:
            raise InputError(f"patient {patient.id}: expected tissue fractions after preparation, got none.")
        return cls(
            patient.tissue,
            simulation.density,
            simulation.brain,
            simulation.water,
            simulation.diffusivity.ndim == 3,
            scenario.growth,
            scenario.response,
            scenario.mechanics if scenario.mechanics is not None and scenario.mechanics.two_way else None,
            local_response(patient, scenario.response),
            plans,
            scenario.report_days,
            calibration,
        )

    @property
    def curve_days(self) -> NDArray[np.float64]:
        """Days at which curves are kept, evenly spaced, all report days among them."""
        last = self.days[-1]
        even = np.linspace(0, last, min(int(np.ceil(last)) + 1, CURVE_POINTS))
        return np.unique(np.concatenate([even, self.days]))

    def simulation(self, comm: MPI.Intracomm = MPI.COMM_SELF) -> GrowthSimulation:
        """Return a simulation on the mesh, from which every draw starts."""
        return GrowthSimulation.on_mesh(
            self.tissue,
            self.density,
            self.growth,
            self.brain,
            mechanics=self.mechanics,
            water=self.water,
            obtuse=self.obtuse,
            comm=comm,
        )


def simulate_draw(simulation: GrowthSimulation, setting: DrawSetting, values: Values) -> Draw:
    """Grow every arm with the parameters of one draw.

    Parameters
    ----------
    simulation
        Of `setting`.
    values
        The draw.

    Raises
    ------
    ConvergenceError, ResourceError
        As `GrowthSimulation.run`; the message names the parameters.
    """
    calibration = setting.calibration
    growth, response = calibration.growth(setting.growth, values), calibration.response(setting.response, values)
    thresholds = calibration.thresholds(values=values)
    arms = {}
    try:
        own = simulation.with_growth(growth)
        own = own if setting.mechanics is not None else replace(own, effect=None)
        steps = own.shared_steps(setting.plans.values(), setting.days)
        for name, plan in setting.plans.items():
            grown = own.trajectory(plan, setting.days, response, local=setting.local, steps=steps)
            arms[name] = _arm(own, setting, grown, thresholds)
    except HybridTumorError as error:
        told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise type(error)(f"draw with {told}: {error}") from error
    return values, arms


def _arm(
    simulation: GrowthSimulation, setting: DrawSetting, grown: Trajectory, thresholds: ImagingThresholds
) -> ArmDraw:
    time, burden = grown.burden_curve.T
    volume = tuple(_volume(simulation, grown, day, thresholds) for day in setting.days)
    return ArmDraw(
        tuple(float(burden[np.abs(time - day).argmin()]) for day in setting.days),
        volume,
        outcome.time_to_progression(setting.days, volume),
        np.interp(setting.curve_days, time, burden),
    )


def _volume(simulation: GrowthSimulation, grown: Trajectory, day: float, thresholds: ImagingThresholds) -> float:
    """Return the volume in which u + d passes the threshold of FLAIR, mm³."""
    transfer = simulation.brain.transfer

    def on_grid(nodal: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.asarray(transfer.operator @ simulation.domain.gather(nodal), np.float32)

    visible = simulation.density if day == 0 else on_grid(grown.density[day])
    if day != 0 and grown.damaged is not None:
        visible = visible + on_grid(grown.damaged[day])
    return float(np.count_nonzero(visible > thresholds.edema)) * simulation.grid.voxel_volume
