"""Domain: a tetrahedral mesh spread over the ranks, and the way between its numbering and the mesh's own.

DOLFINx renumbers vertices and cells and gives every rank a share. Whoever stands outside works with arrays in
the order of the `TetMesh`; `Domain.local` takes such an array apart and `Domain.gather` puts one together, so
the number of ranks cannot be seen.
"""

# DOLFINx cannot be loaded before MPI
import mpi4py.MPI as MPI

# isort: split
from dataclasses import dataclass
from typing import Any

import basix.ufl
import numpy as np
from dolfinx import fem
from dolfinx import mesh as dolfinx_mesh
from numpy.typing import NDArray

from hybridtumor.meshes.lattice import TetMesh


@dataclass(frozen=True, eq=False)
class Domain:
    """A mesh on the ranks of a communicator, with linear elements on it.

    Parameters
    ----------
    space
        Continuous piecewise linear functions.
    vertices
        Vertex number in the `TetMesh` of every degree of freedom this rank owns.
    cells
        Cell number in the `TetMesh` of every cell this rank holds.
    order
        Vertex numbers of all ranks, one rank after the other.
    """

    space: Any
    vertices: NDArray[np.int64]
    cells: NDArray[np.int64]
    order: NDArray[np.int64]

    @property
    def comm(self) -> MPI.Intracomm:
        """The communicator of the mesh."""
        comm: MPI.Intracomm = self.space.mesh.comm
        return comm

    def local(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return this rank's share of nodal values (n,) in the order of the `TetMesh`."""
        return np.ascontiguousarray(np.asarray(values, np.float64)[self.vertices])

    def gather(self, owned: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return nodal values (n,) in the order of the `TetMesh`, the same on all ranks, from every rank's share."""
        result = np.empty(self.order.size)
        result[self.order] = np.concatenate(self.comm.allgather(owned))
        return result

    def cell_function(self, values: NDArray[np.float64]) -> Any:
        """Return the piecewise constant DOLFINx function with one value per cell of the `TetMesh`, (m,)."""
        function = fem.Function(fem.functionspace(self.space.mesh, ("DG", 0)))
        function.x.array[function.function_space.dofmap.list[:, 0]] = np.asarray(values)[self.cells]
        return function

    def constant(self, value: float) -> Any:
        """Return a number that a form is not compiled anew for when it changes."""
        return fem.Constant(self.space.mesh, value)


def distribute(mesh: TetMesh, comm: MPI.Intracomm = MPI.COMM_WORLD) -> Domain:
    """Spread a mesh over the ranks of a communicator.

    Parameters
    ----------
    mesh
        The mesh; only what rank 0 holds is read.
    """
    first = comm.rank == 0
    points = mesh.points if first else np.zeros((0, 3))
    cells = mesh.cells if first else np.zeros((0, 4), np.int64)
    element = basix.ufl.element("Lagrange", "tetrahedron", 1, shape=(3,))
    spread = dolfinx_mesh.create_mesh(comm, np.asarray(cells, np.int64), element, np.asarray(points, np.float64))
    space = fem.functionspace(spread, ("Lagrange", 1))
    index_map = space.dofmap.index_map
    vertices = np.empty(index_map.size_local + index_map.num_ghosts, np.int64)
    vertices[space.dofmap.list.ravel()] = spread.geometry.input_global_indices[spread.geometry.dofmaps[0].ravel()]
    owned = vertices[: index_map.size_local].copy()
    return Domain(space, owned, np.asarray(spread.topology.original_cell_index), np.concatenate(comm.allgather(owned)))
