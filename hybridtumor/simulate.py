"""simulate: from a patient and a plan to the tumour's future, on the patient's grid."""

from collections.abc import Callable, Iterable

import pint

from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.growth_simulation import TOLERANCE, GrowthSimulation, ascending_days
from hybridtumor.mesh_choice import LATTICE, MeshSource
from hybridtumor.mesh_size import CELL_SIZE
from hybridtumor.models.oxygen import local_response
from hybridtumor.parameters import GrowthParameters, MechanicalParameters, TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.therapy import UNTREATED, TherapyPlan


def simulate(
    patient: Patient,
    growth: GrowthParameters | None = None,
    plan: TherapyPlan = UNTREATED,
    days: Iterable[float] = (0, 180),
    response: TreatmentResponse | None = None,
    *,
    mechanics: MechanicalParameters | None = None,
    cell_size: str | pint.Quantity = CELL_SIZE,
    mesh: MeshSource = LATTICE,
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
    mechanics
        Tissue mechanics, for the displacement by the tumour; None: tissue stays where it is.
    cell_size
        Edge length of the cells at the front, such as ``"2 mm"``; ``"auto"``: what keeps the burden within 1 % or so.
    mesh
        Which mesh: the lattice, a smooth one, or one from a file.
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
    report_days = ascending_days(days)
    law = GrowthParameters() if growth is None else growth
    simulation = GrowthSimulation.prepare(
        patient.tissue,
        patient.density,
        law,
        report_days[-1],
        mechanics=mechanics,
        tensor=patient.diffusion_tensor,
        cell_size=cell_size,
        mesh=mesh,
        surgery=bool(plan.resections),
    )
    sensitivity = TreatmentResponse() if response is None else response
    local = local_response(patient, sensitivity)
    return simulation.run(plan, report_days, sensitivity, local=local, tolerance=tolerance, progress=progress)
