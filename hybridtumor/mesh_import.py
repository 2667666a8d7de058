"""Anyone's mesh of a brain: read, put into mm and RAS+, cleaned, and checked against the patient.

Only tetrahedra count; of curved ones the corners. Points that coincide are merged, points without a cell dropped, cells
of the wrong orientation turned. A mesh that lies elsewhere than the patient's brain is refused, with a guess why.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from hybridtumor.errors import InputError
from hybridtumor.mesh_readers import RawMesh, read_raw
from hybridtumor.meshes.any_mesh import TISSUES
from hybridtumor.meshes.lattice import TetMesh
from hybridtumor.meshes.quality import longest_edges
from hybridtumor.meshes.transfer import cell_means
from hybridtumor.tissue import TissueMap

Frame = Literal["RAS", "LPS"]

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}
"""Length units of mesh files, mm."""

LABELS = (
    "gmsh:physical", "medit:ref", "nastran:ref", "subdomains", "subdomain", "label", "labels", "tissue", "tissues",
    "region", "regions", "material", "marker", "cell_tags", "gmsh:geometrical",
)  # fmt: skip
"""Names under which regions are usually found, the first one first."""

OVERLAP = 0.9
"""Share of the patient's parenchyma that a mesh has to cover."""

COINCIDENT = 1e-8
"""Points nearer to each other than this, in units of the mesh's extent, are one."""

FLATTEST = 1e-9
"""Volume of a cell, in units of its longest edge cubed, below which it is degenerate."""

_MOST_NAMED = 12


def load_mesh(path: Path, *, unit: str = "mm", frame: Frame = "RAS") -> tuple[TetMesh, dict[str, NDArray[Any]]]:
    """Read a mesh of tetrahedra from a file.

    Parameters
    ----------
    path
        One of `mesh_readers.SUFFIXES`.
    unit
        Length unit of the file: mm, cm, m or um.
    frame
        Frame of the file: RAS+ as in NIfTI, or LPS+ as in DICOM and ITK.

    Returns
    -------
    tuple[TetMesh, dict[str, NDArray]]
        The mesh in world RAS+ mm, positively oriented; and what the file tells of its cells, name to (m, …).

    Warns
    -----
    UserWarning
        Cells that are no tetrahedra were dropped.

    Raises
    ------
    InputError
        The file is missing or damaged, of another format, holds no tetrahedra or degenerate ones; or an unknown unit
        or frame.
    ResourceError
        The extra `mesh` is not installed.
    """
    if unit not in UNITS:
        raise InputError(f"mesh unit: expected one of {', '.join(UNITS)}, got {unit!r}.")
    if frame not in {"RAS", "LPS"}:
        raise InputError(f"mesh frame: expected RAS or LPS, got {frame!r}.")
    raw = read_raw(path)
    points, cells, data = _tetrahedra(raw, path)
    points = points * UNITS[unit] * ([-1, -1, 1] if frame == "LPS" else [1, 1, 1])
    merged, number = _merged(points)
    return _oriented(merged, number[cells], path), data


def _tetrahedra(raw: RawMesh, path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Return points, corners of all tetrahedra, and the data all of them have."""
    blocks = [block for block in raw.blocks if block.kind.startswith("tetra") and len(block.cells)]
    others = sorted({block.kind for block in raw.blocks if not block.kind.startswith("tetra") and len(block.cells)})
    if not blocks:
        raise InputError(f"{path}: expected tetrahedra, found {', '.join(others) or 'no cells'}. Mesh the volume.")
    if others:
        warnings.warn(f"{path}: cells of the kinds {', '.join(others)} are dropped", UserWarning, stacklevel=3)
    points = np.asarray(raw.points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError(f"{path}: expected finite points (n, 3), got an array of shape {points.shape}. Export anew.")
    if any(block.cells.ndim != 2 or block.cells.shape[1] < 4 or block.cells.dtype.kind not in "iu" for block in blocks):
        raise InputError(f"{path}: expected four point numbers per tetrahedron. Export anew.")
    cells = np.concatenate([np.asarray(block.cells[:, :4], np.int64) for block in blocks])
    if cells.min() < 0 or cells.max() >= len(points):
        raise InputError(
            f"{path}: expected point numbers from 0 to {len(points) - 1}, got {cells.min()} to {cells.max()}."
        )
    names = set.intersection(*(set(block.data) for block in blocks))
    data = {name: _joined([block.data[name] for block in blocks]) for name in sorted(names)}
    return points, cells, {name: rows for name, rows in data.items() if len(rows) == len(cells)}


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Join one array per block; columns of one number become flat, arrays that do not fit together empty."""
    flat = [part[:, 0] if part.ndim == 2 and part.shape[1] == 1 else np.atleast_1d(part) for part in parts]
    if len({part.shape[1:] for part in flat}) > 1:
        return np.empty(0)
    joined = np.concatenate(flat)
    return joined.astype(joined.dtype.newbyteorder("="))


def _merged(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return points without repetitions, (k, 3), and the new number of every old one, (n,)."""
    exact, number = np.unique(points, axis=0, return_inverse=True)
    number = np.asarray(number, np.int64).ravel()
    near = cKDTree(exact).query_pairs(COINCIDENT * float(np.ptp(exact, axis=0).max()), output_type="ndarray")
    if not len(near):
        return exact, number
    graph = sparse.coo_array((np.ones(len(near), np.int8), (near[:, 0], near[:, 1])), shape=(len(exact), len(exact)))
    count, group = connected_components(graph, directed=False)
    merged = np.empty((count, 3))
    merged[group] = exact
    return merged, np.asarray(group, np.int64)[number]


def _oriented(points: NDArray[np.float64], cells: NDArray[np.int64], path: Path) -> TetMesh:
    """Return a mesh of positive cells on points that belong to one."""
    mesh = TetMesh(points, cells)
    volumes = mesh.volumes
    flat = int(np.count_nonzero(~(np.abs(volumes) > FLATTEST * longest_edges(mesh.corners) ** 3)))
    if flat:
        raise InputError(f"{path}: expected cells with a volume, got {flat} degenerate ones. Repair the mesh.")
    turned = np.where((volumes < 0)[:, None], cells[:, [0, 1, 3, 2]], cells)
    return TetMesh(points, turned).submesh(np.ones(len(cells), bool))


def region_labels(data: Mapping[str, NDArray[Any]], name: str | None = None) -> NDArray[np.int64]:
    """Return the region of every cell, (m,).

    Parameters
    ----------
    data
        As `load_mesh` returns it.
    name
        The array that holds it; None: the first of `LABELS` that is there.

    Raises
    ------
    InputError
        There is no such array, or it does not hold one whole number per cell.
    """
    known = ", ".join(list(data)[:_MOST_NAMED]) or "none"
    found = name if name is not None else next((label for label in LABELS if label in data), None)
    if found is None or found not in data:
        raise InputError(
            f"mesh labels: expected {name or 'an array of labels'} per cell, found {known}. Name one of them."
        )
    values = np.asarray(data[found])
    whole = values.ndim == 1 and values.dtype.kind in "biuf" and np.isfinite(values).all()
    if not whole or (values != np.rint(values)).any():
        raise InputError(f"mesh labels: expected one whole number per cell in {found}. Name another array.")
    return np.rint(values).astype(np.int64)


def tissue_of_labels(labels: NDArray[np.int64], tissues: Mapping[int, str]) -> NDArray[np.str_]:
    """Return what every cell is, (m,): the tissue of its label, or empty where the label is not mentioned.

    Raises
    ------
    InputError
        A tissue other than white, grey and csf, or a label that no cell has.
    """
    result = np.full(len(labels), "", "U5")
    for label, tissue in tissues.items():
        if tissue not in TISSUES:
            raise InputError(f"mesh labels: expected white, grey or csf for label {label}, got {tissue!r}.")
        where = labels == label
        if not where.any():
            present = ", ".join(str(value) for value in np.unique(labels)[:_MOST_NAMED])
            raise InputError(f"mesh labels: expected label {label} on some cell, the mesh has {present}.")
        result[where] = tissue
    return result


def require_overlap(mesh: TetMesh, tissue: TissueMap) -> float:
    """Return the share of the parenchyma that a mesh covers, once it is large enough.

    Raises
    ------
    InputError
        The mesh is much smaller or larger than the brain, lies elsewhere, or covers parts of it twice.
    """
    brain = tissue.grid.world(np.argwhere(tissue.parenchyma))
    ratio = float(np.ptp(mesh.points, axis=0).max() / np.ptp(brain, axis=0).max())
    if not 0.5 < ratio < 4:
        guess = next((f" Give the unit {unit}." for unit, mm in UNITS.items() if 0.7 < ratio * mm < 1.8), "")
        raise InputError(
            f"mesh: expected about the size of the brain, {np.ptp(brain, axis=0).max():.0f} mm, got"
            f" {ratio:.3g} times that.{guess or ' Check the unit of the mesh.'}"
        )
    share = _covered(mesh, tissue)
    if share < OVERLAP:
        turned = TetMesh(mesh.points * [-1, -1, 1], mesh.cells)  # two mirrors leave the orientation
        guess = " Give the other frame (LPS or RAS)." if _covered(turned, tissue) >= OVERLAP else ""
        raise InputError(
            f"mesh: expected at least {OVERLAP:.0%} of the brain inside the mesh, got {share:.0%}."
            f"{guess or ' Register the mesh to the patient, or check unit and frame.'}"
        )
    if share > 2 - OVERLAP:
        raise InputError(
            f"mesh: expected cells that do not overlap, they cover the brain {share:.2f} times. Repair it."
        )
    return share


def _covered(mesh: TetMesh, tissue: TissueMap) -> float:
    """Return the parenchyma in the cells over that of the patient."""
    spacing = 2 * float(tissue.grid.voxel_size.max())
    inside = cell_means(mesh, tissue.grid, [tissue.parenchyma], spacing=spacing)[0] @ mesh.volumes
    return float(inside / (np.count_nonzero(tissue.parenchyma) * tissue.grid.voxel_volume))
