"""Mesh files as they are: points, blocks of cells, and what is known of every cell.

XDMF is read by `mesh_xdmf`, VTK's formats by VTK and all others by meshio, in a process of its own (`mesh_worker`).
Nothing here raises but InputError and ResourceError, whatever the file holds.
"""

import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError, ResourceError

SUFFIXES = (".vtu", ".vtk", ".msh", ".mesh", ".meshb", ".xdmf", ".xmf", ".inp", ".bdf")
"""File formats that are read: VTK, Gmsh, Medit, XDMF with HDF5, Abaqus, Nastran."""

LARGEST_FILE = 2 << 30
"""bytes. A brain of ten million cells takes a fourth of it."""

VTK = (".vtu", ".vtk")
"""Those that need no extra."""

READ_SECONDS = 300.0
"""s. Time to read a file."""


@dataclass(frozen=True, eq=False)
class CellBlock:
    """Cells of one kind.

    Parameters
    ----------
    kind
        As meshio calls it: ``tetra``, ``tetra10``, ``triangle`` …
    cells
        Numbers of their points, (m, k).
    data
        Name to one row per cell, (m, …).
    """

    kind: str
    cells: NDArray[Any]
    data: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RawMesh:
    """A mesh as it stands in a file: points (n, d) in the file's unit and frame, and blocks of cells."""

    points: NDArray[Any]
    blocks: list[CellBlock]


def read_raw(path: Path) -> RawMesh:
    """Read a mesh file.

    Raises
    ------
    InputError
        The file is missing, too large, of another format, or damaged.
    ResourceError
        The extra `mesh` is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a mesh file, found none. Check the path.")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: expected one of {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}. Convert it."
        )
    if not 0 < path.stat().st_size <= LARGEST_FILE:
        raise InputError(
            f"{path}: expected a file of at most {LARGEST_FILE >> 20} MiB that is not empty,"
            f" got {path.stat().st_size} bytes."
        )
    if path.suffix.lower() in {".xdmf", ".xmf"}:
        from hybridtumor.mesh_xdmf import read_xdmf

        return read_xdmf(path)
    if path.suffix.lower() not in VTK and find_spec("meshio") is None:
        raise missing_extra("meshio")
    return _by_worker(path)


def missing_extra(library: str) -> ResourceError:
    """Return the error that names the extra a library comes with."""
    return ResourceError(f"mesh import: expected {library}, it is not installed. Install the extra: hybridtumor[mesh].")


def damaged(path: Path, error: object) -> InputError:
    """Return the error for a file that cannot be read."""
    reason = " ".join(str(error).split())[:200]
    return InputError(
        f"{path}: expected a mesh, the file cannot be read{f' ({reason})' if reason else ''}. Export anew."
    )


def _by_worker(path: Path) -> RawMesh:
    """Read a file in a process of its own, which may crash, run on or run out of memory."""
    with tempfile.TemporaryDirectory(prefix="hybridtumor-") as folder:
        made = Path(folder, "mesh.npz")
        command = [sys.executable, "-m", "hybridtumor.mesh_worker", str(path.resolve()), str(made)]
        try:
            run = subprocess.run(  # noqa: S603  our own module, no shell
                [*command, f"{np.ceil(READ_SECONDS):.0f}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=READ_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise damaged(path, f"no end in {READ_SECONDS:g} s") from error
        if run.returncode == -signal.SIGXCPU:  # its own limit came first
            raise damaged(path, f"no end in {READ_SECONDS:g} s")
        if run.returncode or not made.is_file():
            text = (run.stderr.strip() or run.stdout.strip()).decode(errors="replace").splitlines()
            raise damaged(path, text[-1] if text else f"the reader ended with {run.returncode}")
        with np.load(made, allow_pickle=False) as arrays:
            return _unpacked(dict(arrays))


def _unpacked(arrays: dict[str, NDArray[Any]]) -> RawMesh:
    """Return the arrays of `mesh_worker` as a mesh."""
    blocks = []
    for name, cells in arrays.items():
        if name.startswith("cells "):
            _, number, kind = name.split(" ", 2)
            mark = f"data {number} "
            data = {key.removeprefix(mark): rows for key, rows in arrays.items() if key.startswith(mark)}
            blocks.append(CellBlock(kind, cells, data))
    return RawMesh(arrays["points"], blocks)
