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
from hybridtumor.simulate import simulate
from hybridtumor.therapy import Chemotherapy, Fractionation, TherapyPlan

patient = ball_patient()
plan = TherapyPlan.of(Fractionation(ball_dose(patient.grid, 60), 30, 7), Chemotherapy.temozolomide(7))
forecast = simulate(patient, plan=plan, days=(0, 20, 60))
comm = MPI.COMM_WORLD
assert forecast.figures["ranks"] == comm.size
everyone = comm.gather([*forecast.density, forecast.mesh.density[60], forecast.burden_curve])
if comm.rank == 0:
    for other in everyone[1:]:
        for ours, theirs in zip(everyone[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.savez(sys.argv[1], nodal=forecast.mesh.density[60], curve=forecast.burden_curve, density=forecast.density[2])
"""


def mpiexec() -> str:
    """The launcher that belongs to the MPI of this Python, else the one on the path."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert found is not None, "no mpiexec beside Python or on the path"
    return found


def run(ranks: int, folder: Path) -> dict[str, np.ndarray]:
    out = folder / f"{ranks}.npz"
    launch = [mpiexec(), "-n", str(ranks)] if ranks > 1 else []
    helpers = str(Path(__file__).parents[1])
    program = f"import sys; sys.path.insert(0, {helpers!r})\n" + PROGRAM
    done = subprocess.run(
        [*launch, sys.executable, "-c", program, str(out)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))


@pytest.mark.law("runs", "One and two MPI ranks give the same treated tumour")
@pytest.mark.parametrize("ranks", [2])
def test_ranks_agree(tmp_path: Path, ranks: int, figure: Figure) -> None:
    one, many = run(1, tmp_path), run(ranks, tmp_path)
    for name, values in one.items():
        assert values.shape == many[name].shape
        np.testing.assert_allclose(many[name], values, rtol=1e-8, atol=1e-8)
        figure("largest difference", np.abs(many[name] - values).max() / np.abs(values).max(), at_most=1e-8)
