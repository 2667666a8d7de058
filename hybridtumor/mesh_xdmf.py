"""XDMF with HDF5, as DOLFINx, FEniCS, meshio and ParaView write it.

DOLFINx puts the mesh in one grid and the tags of its cells in others, with cells in another order and not always all of
them; they are matched by their vertices. Time series are left out. The XML may name no file but one in the same folder,
and sizes are checked before anything is allocated.
"""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import HybridTumorError, InputError
from hybridtumor.mesh_readers import LARGEST_FILE, CellBlock, RawMesh, damaged, missing_extra

KINDS = {
    "tetrahedron": "tetra",
    "tetrahedron_10": "tetra10",
    "tet_10": "tetra10",
    "triangle": "triangle",
    "triangle_6": "triangle6",
    "tri_6": "triangle6",
}
MIXED = {1: ("vertex", 1), 2: ("line", 2), 4: ("triangle", 3), 5: ("quad", 4), 6: ("tetra", 4), 38: ("tetra10", 10)}
"""XDMF's number of a kind of cell in a mixed topology: name and number of points."""

UNLABELLED = -1
"""Label of a cell that the tags of the file leave out."""

LARGEST_XML = 64 << 20
"""bytes."""


def read_xdmf(path: Path) -> RawMesh:
    """Read the mesh of an XDMF file and the data of its cells.

    Raises
    ------
    InputError
        The file is damaged, names files elsewhere, or holds no mesh.
    ResourceError
        The extra `mesh` is not installed.
    """
    try:
        return _read(path)
    except HybridTumorError:
        raise
    except (ElementTree.ParseError, OSError, KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        raise damaged(path, error) from error


def _read(path: Path) -> RawMesh:
    text = path.read_bytes() if path.stat().st_size <= LARGEST_XML else b""
    if not text or b"<!ENTITY" in text:
        raise InputError(
            f"{path}: expected XML of at most {LARGEST_XML >> 20} MiB without entities. Keep data in HDF5."
        )
    domain = ElementTree.fromstring(text).find("Domain")  # noqa: S314  entities are refused above
    grids = [] if domain is None else [g for g in domain.findall("Grid") if g.get("GridType", "Uniform") == "Uniform"]
    meshes = [g for g in grids if g.find("Geometry/DataItem") is not None and g.find("Topology/DataItem") is not None]
    if not meshes:
        raise InputError(
            f"{path}: expected a mesh with points and cells, found none. Export the mesh without time steps."
        )
    main = meshes[0]
    points = _array(main.find("Geometry/DataItem"), path)
    blocks = _blocks(main, path)
    for grid in grids:
        if grid is not main and grid.find("Topology/DataItem") is not None:
            for tags in _blocks(grid, path):
                for block in blocks:
                    if block.kind == tags.kind:
                        block.data.update({name: _matched(block, tags, rows) for name, rows in tags.data.items()})
    return RawMesh(points, blocks)


def _blocks(grid: ElementTree.Element, path: Path) -> list[CellBlock]:
    """Return the cells of a grid, by kind, with their data."""
    topology = grid.find("Topology")
    cells = _array(grid.find("Topology/DataItem"), path)
    kind = "" if topology is None else str(topology.get("TopologyType", topology.get("Type", ""))).lower()
    data = {
        attribute.get("Name", "data"): _array(attribute.find("DataItem"), path)
        for attribute in grid.findall("Attribute")
        if attribute.get("Center") == "Cell"
    }
    if kind == "mixed":
        return _unmixed(cells.ravel(), data)
    return [CellBlock(KINDS.get(kind, kind), cells, {name: np.squeeze(rows) for name, rows in data.items()})]


def _unmixed(stream: NDArray[Any], data: dict[str, NDArray[Any]]) -> list[CellBlock]:
    """Split a stream of kind and points, kind and points … into blocks."""
    found: dict[str, list[NDArray[Any]]] = {}
    owner: dict[str, list[int]] = {}
    position = number = 0
    values = stream.tolist()
    while position < len(values):
        name, count = MIXED[values[position]]
        position += 2 if count < 3 else 1  # vertices and lines tell their number of points
        if position + count > len(values):
            raise ValueError("the list of cells ends within a cell")
        found.setdefault(name, []).append(stream[position : position + count])
        owner.setdefault(name, []).append(number)
        position, number = position + count, number + 1
    return [
        CellBlock(name, np.stack(cells), {label: np.squeeze(rows)[owner[name]] for label, rows in data.items()})
        for name, cells in found.items()
    ]


def _matched(block: CellBlock, tags: CellBlock, rows: NDArray[Any]) -> NDArray[Any]:
    """Return the tags, one per tagged cell, in the order of the mesh's cells; `UNLABELLED` where there are none."""
    both = np.sort(np.concatenate([block.cells, tags.cells]), axis=1)
    _, key = np.unique(both, axis=0, return_inverse=True)
    key = key.ravel()
    result = np.full(int(key.max()) + 1, UNLABELLED, np.result_type(rows, np.int32))
    result[key[len(block.cells) :]] = np.atleast_1d(rows)
    return np.asarray(result[key[: len(block.cells)]])


def _array(item: ElementTree.Element | None, path: Path) -> NDArray[Any]:
    """Read one array, in the XML itself or in an HDF5 file beside it."""
    if item is None:
        raise ValueError("an array is missing")
    shape = tuple(int(n) for n in str(item.get("Dimensions")).split())
    if not shape or min(shape) < 0 or 8 * float(np.prod(np.array(shape, float))) > LARGEST_FILE:
        raise ValueError(f"it promises an array of shape {shape}")
    text = (item.text or "").strip()
    if item.get("Format") == "XML":
        whole = str(item.get("DataType", item.get("NumberType", "Float"))) in {"Int", "UInt", "Char", "UChar"}
        return np.array(text.split(), np.int64 if whole else np.float64).reshape(shape)
    if item.get("Format") != "HDF":
        raise ValueError(f"arrays of format {item.get('Format')} are not read, only HDF and XML")
    return _from_hdf5(text, path).reshape(shape)


def _from_hdf5(reference: str, path: Path) -> NDArray[Any]:
    """Read ``file.h5:/group/array``."""
    name, _, inner = reference.partition(":")
    if Path(name).name != name or not inner:
        raise ValueError(f"it refers to {name!r}, expected an HDF5 file in the same folder")
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise missing_extra("h5py") from error
    with h5py.File(path.with_name(name), "r") as file:
        array = file[inner.strip()]
        if not isinstance(array, h5py.Dataset) or array.size * array.dtype.itemsize > LARGEST_FILE:
            raise ValueError(f"{inner} is no array of a mesh")
        return np.asarray(array[()])
