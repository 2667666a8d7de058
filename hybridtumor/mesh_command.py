"""What ``hybridtumor mesh`` does: mesh a patient's brain, tell size and quality, write it for PyVista and ParaView."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from hybridtumor import mesh_file, units
from hybridtumor.errors import InputError
from hybridtumor.forecast import MeshFields
from hybridtumor.meshes.brain import brain_mesh
from hybridtumor.meshes.quality import dihedral_angles, edge_lengths
from hybridtumor.parameters import GrowthParameters
from hybridtumor.prepare import load_patient
from hybridtumor.simulate import margin_mm


def mesh_patient(
    reference: str, cell_size: str, horizon: float, out: Path | None, *, progress: Callable[[str, float], None]
) -> list[tuple[str, str]]:
    """Mesh a patient's brain; returns name and value of every figure.

    Raises
    ------
    InputError
        The patient cannot be used, the cell size is not a positive length, or `out` is not a .vtu file.
    """
    size = units.magnitude(cell_size, "mm", name="cell size")
    if size <= 0:
        raise InputError(f"cell size: expected a positive length, got {cell_size}.")
    if out is not None and out.suffix != ".vtu":
        raise InputError(f"{out}: expected a name that ends in .vtu. Rename it.")
    growth = GrowthParameters()
    progress("patient", 0.0)
    patient = load_patient(reference, growth)
    progress("patient", 1.0)
    if patient.tissue is None or patient.density is None:
        raise InputError(
            f"patient {patient.id}: expected tissue fractions and a day-0 density after preparation, got none."
        )
    progress("mesh", 0.0)
    start = perf_counter()
    brain = brain_mesh(patient.tissue, patient.density.values, margin_mm=margin_mm(growth, horizon), cell_size_mm=size)
    seconds = perf_counter() - start
    progress("mesh", 1.0)
    lengths, angles = edge_lengths(brain.mesh), dihedral_angles(brain.mesh)
    if out is not None:
        density = brain.transfer.to_mesh(patient.density.values)
        fields = {"white": brain.white, "grey": brain.grey, "fraction": brain.fraction}
        grid = mesh_file.to_grid(MeshFields(brain.mesh.points, brain.mesh.cells, {}, fields))
        grid.point_data["density day 0"] = np.asarray(density, np.float32)
        mesh_file.save(out, grid)
    return [
        ("cells", f"{len(brain.mesh.cells):,}"),
        ("vertices", f"{len(brain.mesh.points):,}"),
        ("edge lengths, mm", f"{lengths.min():.2f} to {lengths.max():.2f}"),
        ("dihedral angles, degrees", f"{angles.min():.1f} to {angles.max():.1f}"),
        ("seconds", f"{seconds:.1f}"),
        *([("written", str(out))] if out is not None else []),
    ]
