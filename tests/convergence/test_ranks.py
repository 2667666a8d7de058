"""The number of MPI ranks cannot be seen in the result."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from figures import Figure

PROGRAM = """
import sys
import numpy as np
from ball_brain import ball_dose, ball_patient
from mpi4py import MPI
from hybridtumor.parameters import MechanicalParameters
from hybridtumor.simulate import simulate
from hybridtumor.therapy import Chemotherapy, Fractionation, TherapyPlan

patient = ball_patient()
plan = TherapyPlan.of(Fractionation(ball_dose(patient.grid, 60), 30, 7), Chemotherapy.temozolomide(7))
mechanics = MechanicalParameters(carried=True, proliferation_pressure="0.1 1/kPa") if sys.argv[2] == "coupled" else None
forecast = simulate(patient, plan=plan, days=(0, 20, 60), mechanics=mechanics, cell_size="3 mm")
comm = MPI.COMM_WORLD
assert forecast.figures["ranks"] == comm.size
moved = () if mechanics is None else forecast.displacement
everyone = comm.gather([*forecast.density, *moved, forecast.mesh.density[60], forecast.burden_curve])
if comm.rank == 0:
    for other in everyone[1:]:
        for ours, theirs in zip(everyone[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    fields = {"nodal": forecast.mesh.density[60], "curve": forecast.burden_curve, "density": forecast.density[2]}
    np.savez(sys.argv[1], **fields, **({} if mechanics is None else {"displacement": moved[-1]}))
"""

ADJOINT = """
import sys
import numpy as np
from ball_brain import ball_dose, ball_patient
from mpi4py import MPI
from hybridtumor.growth_gradient import GrowthGradient
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.solvers.cells import Cells
from hybridtumor.therapy import Chemotherapy, Fractionation, TherapyPlan

patient = ball_patient()
plan = TherapyPlan.of(Fractionation(ball_dose(patient.grid, 60), 30, 7), Chemotherapy.temozolomide(7))
simulation = GrowthSimulation.prepare(patient.tissue, patient.density, horizon=60, cell_size="3 mm")
gradient = GrowthGradient(simulation, plan, (0, 60))
volume = simulation.diffusion.volume

def squares(cells):
    u = cells[60.0].living
    return simulation.domain.comm.allreduce(float(volume @ u**2)), {60.0: Cells(2 * volume * u)}

value, slopes, _ = gradient.adjoint(grey=True, fields=True, checkpoints=20).value_and_slopes(gradient.initial, squares)
numbers = [value, slopes.diffusion, slopes.grey, slopes.proliferation, slopes.alpha, slopes.drug]
dose = gradient.dose_slopes(slopes.fields)[0]
everyone = MPI.COMM_WORLD.gather((numbers, dose))
initial = simulation.domain.gather(slopes.initial)
if MPI.COMM_WORLD.rank == 0:
    assert all(other[0] == numbers and np.array_equal(other[1], dose) for other in everyone)
    np.savez(sys.argv[1], numbers=numbers, dose=dose, initial=initial)
"""


def mpiexec() -> str:
    """The launcher that belongs to the MPI of this Python, else the one on the path."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert found is not None, "no mpiexec beside Python or on the path"
    return found


def run(ranks: int, coupling: str, folder: Path, what: str = PROGRAM) -> dict[str, np.ndarray]:
    out = folder / f"{ranks}.npz"
    launch = [mpiexec(), "-n", str(ranks)] if ranks > 1 else []
    helpers = str(Path(__file__).parents[1])
    program = f"import sys; sys.path.insert(0, {helpers!r})\n" + what
    done = subprocess.run(
        [*launch, sys.executable, "-c", program, str(out), coupling], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))


@pytest.mark.law("runs", "One and two MPI ranks give the same treated tumour, without mechanics and coupled both ways")
@pytest.mark.parametrize(("ranks", "coupling", "close"), [(2, "none", 1e-8), (2, "coupled", 1e-6)])
def test_ranks_agree(tmp_path: Path, ranks: int, coupling: str, close: float, figure: Figure) -> None:
    """Voxels carried by a displacement are float32: one rounding of it shows in their seventh digit."""
    one, many = run(1, coupling, tmp_path), run(ranks, coupling, tmp_path)
    for name, values in one.items():
        assert values.shape == many[name].shape
        loose = close if name in {"density", "displacement"} else 1e-8
        np.testing.assert_allclose(many[name], values, rtol=loose, atol=loose)
        figure("largest difference", np.abs(many[name] - values).max() / np.abs(values).max(), at_most=loose)


@pytest.mark.law("calibration", "One and two MPI ranks give the same gradient, in parameters, day-0 density and dose")
def test_ranks_agree_on_the_gradient(tmp_path: Path, figure: Figure) -> None:
    one, two = (run(ranks, "", tmp_path, ADJOINT) for ranks in (1, 2))
    for name, values in one.items():
        figure(f"difference of {name}", np.abs(two[name] - values).max() / np.abs(values).max(), at_most=1e-8)
