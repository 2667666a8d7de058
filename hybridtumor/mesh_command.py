"""What ``hybridtumor mesh`` does: mesh a patient's brain, tell size and quality, write it for PyVista and ParaView."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from hybridtumor import mesh_file
from hybridtumor.errors import InputError
from hybridtumor.forecast import MeshFields
from hybridtumor.mesh_choice import MeshSource, choose_mesh
from hybridtumor.mesh_size import COARSEST, auto_size, margin_mm, require_size
from hybridtumor.meshes.quality import dihedral_angles, edge_lengths, stiffness_signs
from hybridtumor.parameters import GrowthParameters
from hybridtumor.prepare import load_patient


def mesh_patient(
    reference: str,
    cell_size: str,
    horizon: float,
    out: Path | None,
    source: MeshSource | None = None,
    *,
    progress: Callable[[str, float], None],
) -> list[tuple[str, str]]:
    """Mesh a patient's brain; returns name and value of every figure.

    `source` says where the mesh comes from; None: the lattice.

    Raises
    ------
    InputError
        The patient cannot be used, the cell size is neither a positive length nor ``auto``, the mesh of a file does
        not fit the patient, or `out` is not a .vtu file.
    ResourceError
        A file needs the extra `mesh`, and it is not installed.
    """
    if out is not None and out.suffix != ".vtu":
        raise InputError(f"{out}: expected a name that ends in .vtu. Rename it.")
    if not 0 <= horizon < math.inf:
        raise InputError(f"days: expected a horizon that is not negative, got {horizon:g}.")
    growth = GrowthParameters()
    size = require_size(cell_size) or auto_size(growth, horizon)
    progress("patient", 0.0)
    patient = load_patient(reference, growth)
    progress("patient", 1.0)
    if patient.tissue is None or patient.density is None:
        raise InputError(
            f"patient {patient.id}: expected tissue fractions and a day-0 density after preparation, got none."
        )
    progress("mesh", 0.0)
    start = perf_counter()
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("always", RuntimeWarning)
        brain, method = choose_mesh(
            MeshSource() if source is None else source,
            patient.tissue,
            patient.density.values,
            margin_mm=margin_mm(growth, horizon),
            cell_size_mm=size,
            coarsest_mm=max(size, COARSEST),
        )
    seconds = perf_counter() - start
    progress("mesh", 1.0)
    lengths, angles = edge_lengths(brain.mesh), dihedral_angles(brain.mesh)
    inside = np.isclose(angles, 60, atol=0.01) | np.isclose(angles, 90, atol=0.01)
    diffusivity = growth.diffusion_white * brain.white + growth.diffusion_grey * brain.grey
    positive, largest = stiffness_signs(brain.mesh, diffusivity * brain.fraction)
    if out is not None:
        density = brain.transfer.to_mesh(patient.density.values)
        fields = {"white": brain.white, "grey": brain.grey, "fraction": brain.fraction}
        grid = mesh_file.to_grid(MeshFields(brain.mesh.points, brain.mesh.cells, {}, fields))
        grid.point_data["density day 0"] = np.asarray(density, np.float32)
        mesh_file.save(out, grid)
    return [
        ("made by", method),
        ("cells", f"{len(brain.mesh.cells):,}"),
        ("vertices", f"{len(brain.mesh.points):,}"),
        ("edge lengths, mm", f"{lengths.min():.2f} to {lengths.max():.2f}"),
        ("dihedral angles of 60° or 90°", f"{inside.mean():.1%}"),
        ("dihedral angles elsewhere (transitions)", f"{angles.min():.0f}° to {angles.max():.0f}°"),
        ("positive off-diagonal stiffness entries", f"{positive:.2%}, largest {largest:.2%} of the diagonal"),
        ("seconds", f"{seconds:.1f}"),
        *(("note", str(note.message)) for note in notes if issubclass(note.category, (UserWarning, RuntimeWarning))),
        *([("written", str(out))] if out is not None else []),
    ]
