"""The process in which VTK or meshio reads a mesh: a file in, arrays in an .npz file out, no pickles.

``python -m hybridtumor.mesh_worker MESH ARRAYS.npz SECONDS``. ARRAYS holds ``points`` (n, d) and for block i of cells
``cells i KIND`` (m, k) and ``data i NAME`` (m, …). A damaged file can crash VTK, and its sizes can send meshio into an
endless loop or ask for all memory: time and memory are limited, and the process may end in any way. VTK tells of damage
in a log and goes on with what it has; here any complaint is an error.
"""

import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEMORY = 8 << 30
"""bytes of address space, besides twenty times the size of the file."""

Arrays = dict[str, NDArray[Any]]


def convert(given: Path, made: Path) -> None:
    """Read a file and write its arrays."""
    arrays = by_vtk(given) if given.suffix.lower() in {".vtk", ".vtu"} else by_meshio(given)
    np.savez(made, **{name: rows for name, rows in arrays.items() if rows.dtype.kind in "biuf"})  # type: ignore[arg-type]


def by_vtk(path: Path) -> Arrays:
    """Read a .vtu or .vtk file."""
    import pyvista as pv
    from vtkmodules.vtkCommonCore import vtkCommand
    from vtkmodules.vtkIOLegacy import vtkUnstructuredGridReader
    from vtkmodules.vtkIOXML import vtkXMLUnstructuredGridReader

    reader = vtkXMLUnstructuredGridReader() if path.suffix.lower() == ".vtu" else vtkUnstructuredGridReader()
    complaints: list[str] = []
    reader.AddObserver(vtkCommand.ErrorEvent, lambda *_: complaints.append("VTK finds it damaged"))
    reader.SetFileName(str(path))
    if isinstance(reader, vtkUnstructuredGridReader):
        reader.ReadAllScalarsOn()
        reader.ReadAllFieldsOn()
    reader.Update()
    grid = pv.wrap(reader.GetOutput())
    if complaints or not isinstance(grid, pv.UnstructuredGrid) or grid.n_cells == 0:
        sys.exit(complaints[0] if complaints else "VTK finds no unstructured grid with cells in it")
    kinds = {pv.CellType.TETRA: "tetra", pv.CellType.QUADRATIC_TETRA: "tetra10", pv.CellType.TRIANGLE: "triangle"}
    types, arrays = np.asarray(grid.celltypes), {"points": np.asarray(grid.points)}
    for i, (kind, cells) in enumerate(grid.cells_dict.items()):
        arrays[f"cells {i} {kinds.get(pv.CellType(kind), f'VTK type {int(kind)}')}"] = np.asarray(cells)
        for name, values in grid.cell_data.items():
            arrays[f"data {i} {name}"] = np.asarray(values)[types == kind]
    return arrays


def by_meshio(path: Path) -> Arrays:
    """Read a file of another format."""
    import meshio

    mesh = meshio.read(path)
    arrays = {"points": np.asarray(mesh.points)}
    for i, block in enumerate(mesh.cells):
        arrays[f"cells {i} {block.type}"] = np.asarray(block.data)
        for name, blocks in mesh.cell_data.items():
            arrays[f"data {i} {name}"] = np.asarray(blocks[i])
    return arrays


def limit(seconds: int, size: int) -> None:
    """Bound the time and the memory of this process."""
    for kind, wanted in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, MEMORY + 20 * size)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    limit(int(sys.argv[3]), Path(sys.argv[1]).stat().st_size)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
