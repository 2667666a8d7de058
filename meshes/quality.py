r"""Shape of tetrahedra and what it does to the P1 stiffness matrix.

With barycentric coordinates λᵢ the element stiffness is Kᵢⱼ = D |T| ∇λᵢ·∇λⱼ, and ∇λᵢ·∇λⱼ = −|∇λᵢ||∇λⱼ| cos θᵢⱼ with the
dihedral angle θᵢⱼ between the faces opposite to i and j: no obtuse angle, no positive off-diagonal entry, and the
diffusion keeps its maximum principle.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hybridtumor.meshes.lattice import TetMesh, signed_volumes

_PAIRS = list(combinations(range(4), 2))


def barycentric_gradients(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ∇λ of tetrahedra with vertices (4, 3, m), vertex, axis, cell: (4, 3, m), in the inverse unit of theirs."""
    edge = corners[1:] - corners[0]
    volume = 6 * signed_volumes(corners)
    result = np.empty_like(corners)
    for j in range(3):
        p, q = edge[(j + 1) % 3], edge[(j + 2) % 3]
        for d in range(3):
            d1, d2 = (d + 1) % 3, (d + 2) % 3
            result[j + 1, d] = (p[d1] * q[d2] - p[d2] * q[d1]) / volume
    result[0] = -(result[1] + result[2] + result[3])
    return result


def dihedral_angles(mesh: TetMesh) -> NDArray[np.float64]:
    """Return the six dihedral angles of every cell, (m, 6), degrees."""
    gradient = barycentric_gradients(mesh.corners)
    gradient /= np.linalg.norm(gradient, axis=1, keepdims=True)
    cosine = np.stack([-(gradient[i] * gradient[j]).sum(0) for i, j in _PAIRS], 1)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))  # rounding alone takes a cosine beyond 1


def edge_lengths(mesh: TetMesh) -> NDArray[np.float64]:
    """Return the lengths of the six edges of every cell, (m, 6), mm."""
    x = mesh.corners
    return np.stack([np.sqrt(((x[i] - x[j]) ** 2).sum(0)) for i, j in _PAIRS], 1)


def longest_edges(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the longest edge of tetrahedra with vertices (4, 3, m): (m,)."""
    longest = np.zeros(corners.shape[2])
    for i, j in _PAIRS:
        np.maximum(longest, ((corners[i] - corners[j]) ** 2).sum(0), out=longest)
    return np.sqrt(longest)


def stiffness(mesh: TetMesh, diffusion: NDArray[np.float64] | float = 1.0) -> sparse.csr_array:
    """Assemble the P1 stiffness matrix ∫ D ∇φᵢ·∇φⱼ, (n, n); `diffusion` is constant per cell, (m,), or everywhere."""
    gradient = barycentric_gradients(mesh.corners)
    weight = mesh.volumes * diffusion
    entries = np.einsum("idc,jdc,c->cij", gradient, gradient, weight, optimize=True)
    rows = np.repeat(mesh.cells, 4, axis=1).ravel()
    columns = np.tile(mesh.cells, (1, 4)).ravel()
    n = len(mesh.points)
    return sparse.csr_array((entries.ravel(), (rows, columns)), shape=(n, n))


def stiffness_signs(mesh: TetMesh, diffusion: NDArray[np.float64] | float = 1.0) -> tuple[float, float]:
    """Tell how far the stiffness matrix is from an M-matrix.

    Returns
    -------
    tuple[float, float]
        The share of off-diagonal entries that are positive, and the largest of them over the largest diagonal entry.
    """
    matrix = stiffness(mesh, diffusion).tocoo()
    largest = float(matrix.data.max())
    off = matrix.data[matrix.coords[0] != matrix.coords[1]]
    return float(np.mean(off > 1e-12 * largest)), max(0.0, float(off.max()) / largest)


def stiffness_diagonal(mesh: TetMesh, diffusion: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
    """Return the diagonal of `stiffness`, (n,), without assembling the rest."""
    corners = mesh.corners
    entries = (barycentric_gradients(corners) ** 2).sum(1) * (signed_volumes(corners) * diffusion)
    return np.bincount(mesh.cells.ravel(), entries.T.ravel(), minlength=len(mesh.points))


def vertex_volumes(mesh: TetMesh) -> NDArray[np.float64]:
    """Return a quarter of the volume of the cells around every vertex, ∫φᵢ, (n,), mm³."""
    return np.bincount(mesh.cells.ravel(), np.repeat(mesh.volumes / 4, 4), minlength=len(mesh.points))


def face_neighbours(mesh: TetMesh) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two cells at every interior face, (f, 2), and the vertices of the mesh's outer faces, (b, 3)."""
    cells = np.sort(mesh.cells, axis=1)
    triples = [np.delete(np.arange(4), j) for j in range(4)]
    n = len(mesh.points)
    pair = np.concatenate([cells[:, t[0]] * n + cells[:, t[1]] for t in triples])
    third = np.concatenate([cells[:, t[2]] for t in triples])
    if n < 2_000_000:  # three vertices fit one 64-bit key
        key = pair * n + third
        order = np.argsort(key)
        same = np.diff(key[order]) == 0
    else:
        order = np.lexsort((third, pair))
        same = (np.diff(pair[order]) == 0) & (np.diff(third[order]) == 0)
    owner = order % len(cells)
    alone = np.ones(len(order), bool)
    alone[1:] &= ~same
    alone[:-1] &= ~same
    boundary = order[alone]
    faces = np.stack([pair[boundary] // n, pair[boundary] % n, third[boundary]], 1)
    return np.stack([owner[:-1][same], owner[1:][same]], 1), faces
