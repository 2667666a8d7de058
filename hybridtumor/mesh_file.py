"""mesh.vtu: the mesh with the density of every arm and report day, for PyVista and ParaView."""

from pathlib import Path
from uuid import uuid4

import numpy as np
import pyvista as pv

from hybridtumor.errors import InputError
from hybridtumor.forecast import MeshFields


def field_name(arm: str, day: float) -> str:
    """Return the name of the density of an arm on a day in the file."""
    return f"{arm} day {day:g}"


def to_grid(mesh: MeshFields) -> pv.UnstructuredGrid:
    """Return the mesh as a PyVista grid with its cell fields, without densities."""
    grid = pv.UnstructuredGrid({pv.CellType.TETRA: np.asarray(mesh.cells)}, np.asarray(mesh.points))
    for name, values in mesh.cell_fields.items():
        grid.cell_data[name] = np.asarray(values, np.float32)
    return grid


def add_arm(path: Path, arm: str, mesh: MeshFields) -> None:
    """Write the densities of one arm into the file, beside those of the arms already there.

    Raises
    ------
    InputError
        The file holds another mesh.
    """
    grid = load(path) if path.exists() else to_grid(mesh)
    if grid.n_points != len(mesh.points) or not np.allclose(grid.points, mesh.points):
        raise InputError(
            f"{path}: expected the mesh of this run, found another one. Start the run anew with --overwrite."
        )
    for day, density in mesh.density.items():
        grid.point_data[field_name(arm, day)] = np.asarray(density, np.float32)
    save(path, grid)


def save(path: Path, grid: pv.UnstructuredGrid) -> None:
    """Write a PyVista grid whole or not at all."""
    temporary = path.with_name(f".{path.stem}.{uuid4().hex}.tmp{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        grid.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> pv.UnstructuredGrid:
    """Read the file.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected the mesh of a simulated run, found none.")
    grid = pv.read(path)
    if not isinstance(grid, pv.UnstructuredGrid) or grid.n_cells == 0:
        raise InputError(f"{path}: expected a mesh of tetrahedra, got {type(grid).__name__}. The file is damaged.")
    return grid
