"""Which cells of a mesh form one piece that holds tissue."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from hybridtumor.meshes.lattice import TetMesh
from hybridtumor.meshes.quality import face_neighbours

MIN_FILL = 0.05
"""A vertex with less tissue than this share of its own volume is given up together with its cells."""


def carrying_piece(mesh: TetMesh, candidates: NDArray[np.bool_], held: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which cells form the largest face-connected piece all of whose vertices hold some tissue, (m,).

    Parameters
    ----------
    mesh
        The mesh.
    candidates
        Cells that may belong to it, (m,).
    held
        Tissue that every vertex holds, (n,), mm³.
    """
    keep, volumes, one_piece = candidates.copy(), mesh.volumes, False
    while keep.any():
        cells = mesh.cells[keep]
        capacity = np.bincount(cells.ravel(), np.repeat(volumes[keep] / 4, 4), minlength=len(mesh.points))
        staying = (held >= MIN_FILL * capacity)[cells].all(1)
        if staying.all():
            if one_piece:
                break
            staying, one_piece = largest_piece(TetMesh(mesh.points, cells), volumes[keep]), True
        else:
            one_piece = False
        keep[keep] = staying
    return keep


def largest_piece(mesh: TetMesh, volumes: NDArray[np.float64] | None = None) -> NDArray[np.bool_]:
    """Tell which cells belong to the largest piece, by volume, of those that hang together by faces, (m,)."""
    volumes = mesh.volumes if volumes is None else volumes
    m = len(mesh.cells)
    pairs, _ = face_neighbours(mesh)
    graph = sparse.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(m, m))
    _, piece = connected_components(graph, directed=False)
    return np.asarray(piece == np.bincount(piece, volumes, minlength=1).argmax())
