r"""A mesh of the brain with a smooth boundary.

The lattice of `brain` follows cortex and ventricles in stair-steps. fTetWild (Hu et al., ACM Trans. Graphics 2020)
fills the surface of `surface` with tetrahedra whose own surface stays within `ENVELOPE`·h_s of it, with the spacing h_s
of the surface.

fTetWild makes obtuse angles, so the stiffness matrix has positive entries off the diagonal. It may also run for very
long or crash: it works in a process of its own (`tetwild_worker`) with a time limit, what it returns is checked, and
`meshed` falls back on the lattice. Two runs give two meshes, even on one thread: who wants the same mesh again keeps it
in a file (`mesh_import`).
"""

import os
import subprocess
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import ConvergenceError, InputError, ResourceError
from hybridtumor.grid import FloatArray
from hybridtumor.meshes.any_mesh import brain_mesh_on
from hybridtumor.meshes.brain import BrainMesh, brain_mesh
from hybridtumor.meshes.lattice import SizeField, TetMesh, uniform_lattice
from hybridtumor.meshes.pieces import largest_piece
from hybridtumor.meshes.quality import longest_edges
from hybridtumor.meshes.sizes import SLOPE_OF_EDGES, around_tumour
from hybridtumor.meshes.surface import FINEST_SURFACE, Surface, smooth_brain_surface
from hybridtumor.tissue import TissueMap

WORKER = (sys.executable, "-m", "hybridtumor.meshes.tetwild_worker")
"""The command that reads the arrays of one file and writes those of another."""

ENVELOPE = 0.25
"""Largest distance of the mesh's boundary from the surface, in units of the surface's spacing."""

VOLUME_TOLERANCE = 0.05
"""Largest relative difference between the volumes of mesh and surface."""

FLATTEST = 1e-3
"""Smallest volume of a cell allowed, in units of that of a regular tetrahedron with its longest edge."""

TIMEOUT = 900.0
"""s. Time that fTetWild gets; the MNI152 brain with 4 mm cells takes about 40 s."""


def tetwild_mesh(
    surface: Surface, cell_size_mm: float, timeout_s: float = TIMEOUT, *, size: SizeField | None = None
) -> TetMesh:
    """Fill a closed surface with tetrahedra.

    Parameters
    ----------
    surface
        Closed and oriented.
    cell_size_mm
        Wanted edge length.
    timeout_s
        Seconds after which the mesher is stopped.
    size
        Wanted edge length at points (k, 3), (k,), mm; None: `cell_size_mm` everywhere.

    Returns
    -------
    TetMesh
        Positively oriented, its largest face-connected piece. The same input gives another mesh at every run.

    Raises
    ------
    InputError
        The surface has open edges, or a size or time is not positive.
    ResourceError
        The extra `mesh` is not installed, or time ran out.
    ConvergenceError
        The mesher failed, or its mesh has inverted or flat cells or another volume than the surface.
    """
    if surface.open_edges or not surface.volume > 0:
        raise InputError(f"surface: expected a closed one, found {surface.open_edges} open edges.")
    if not (0 < cell_size_mm < np.inf and 0 < timeout_s < np.inf):
        raise InputError(f"mesh: expected a positive size and time, got {cell_size_mm:g} mm, {timeout_s:g} s.")
    if find_spec("pytetwild") is None:
        raise ResourceError("tetwild: expected pytetwild, it is not installed. Install the extra: hybridtumor[mesh].")
    order: dict[str, NDArray[Any]] = {
        "points": surface.points,
        "triangles": surface.triangles.astype(np.int32),
        "edge_mm": np.array(cell_size_mm),
        "envelope_mm": np.array(ENVELOPE * surface.spacing),
        "cpu_s": np.array(2 * timeout_s + 60),
    }
    if size is not None:
        order |= _background(surface, size)
    made = _run_worker(order, timeout_s)
    return checked(made["points"], made["cells"], surface)


def _background(surface: Surface, size: SizeField) -> dict[str, NDArray[Any]]:
    """Sample a size field at the vertices of a lattice around a surface."""
    pad = 2 * surface.spacing
    lattice = uniform_lattice(surface.points.min(0) - pad, surface.points.max(0) + pad, pad)
    sizes = np.asarray(size(lattice.points), np.float64)
    return {"field_points": lattice.points, "field_cells": lattice.cells.astype(np.int32), "field_mm": sizes}


def _run_worker(order: dict[str, NDArray[Any]], timeout_s: float) -> dict[str, NDArray[Any]]:
    """Hand arrays to the mesher and return its own; the process is gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="hybridtumor-") as folder:
        given, made = Path(folder, "order.npz"), Path(folder, "mesh.npz")  # absolute: the mesher works there
        np.savez(given, **order)  # type: ignore[arg-type]  # numpy's stubs take the names for flags
        try:
            run = subprocess.run(  # noqa: S603  our own module, no shell
                [*WORKER, str(given), str(made)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=timeout_s,
                check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        except subprocess.TimeoutExpired as error:
            raise ResourceError(
                f"tetwild: expected a mesh within {timeout_s:g} s, got none. Choose larger cells or allow more time."
            ) from error
        if run.returncode or not made.is_file():
            text = run.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {run.returncode}"]
            raise ConvergenceError(
                f"tetwild: expected a mesh, the mesher failed: {text[-1][:300]}. Choose other cells."
            )
        try:
            with np.load(made, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in ("points", "cells")}
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise ConvergenceError(
                "tetwild: expected a mesh, what it wrote cannot be read. Choose other cells."
            ) from error


def checked(points: NDArray[Any], cells: NDArray[Any], surface: Surface) -> TetMesh:
    """Return what a mesher made of a surface as a mesh.

    Raises
    ------
    ConvergenceError
        It is none, has cells of both orientations or flat ones, or its volume is not that of the surface.
    """
    if len(cells) == 0 or not np.isfinite(np.asarray(points, np.float64)).all():
        raise ConvergenceError("tetwild: expected a mesh, got none. Choose other cells.")
    mesh = TetMesh(np.asarray(points, np.float64), np.asarray(cells, np.int64))
    if mesh.volumes.sum() < 0:
        mesh = TetMesh(mesh.points, np.ascontiguousarray(mesh.cells[:, [0, 1, 3, 2]]))
    regular = longest_edges(mesh.corners) ** 3 / np.sqrt(72)
    bad = int(np.count_nonzero(~(mesh.volumes > FLATTEST * regular)))
    if bad:
        raise ConvergenceError(f"tetwild: expected proper cells, got {bad} inverted or flat ones. Choose other cells.")
    mesh = mesh.submesh(largest_piece(mesh))
    volume, wanted = float(mesh.volumes.sum()), surface.volume
    if abs(volume - wanted) > VOLUME_TOLERANCE * wanted:
        raise ConvergenceError(
            f"tetwild: expected the volume of the smoothed brain, {wanted / 1000:.1f} ml within"
            f" {VOLUME_TOLERANCE:.0%}, got {volume / 1000:.1f} ml. Choose smaller cells."
        )
    return mesh


def meshed(
    tissue: TissueMap,
    density: FloatArray,
    *,
    margin_mm: float,
    cell_size_mm: float = 2.0,
    coarsest_mm: float = 8.0,
    timeout_s: float = TIMEOUT,
) -> tuple[BrainMesh, str]:
    """Mesh the parenchyma with a smooth boundary, or on the lattice when that fails.

    Parameters
    ----------
    tissue, density, margin_mm, cell_size_mm, coarsest_mm
        As for `brain.brain_mesh`.
    timeout_s
        Seconds that the mesher gets.

    Returns
    -------
    tuple[BrainMesh, str]
        The mesh, and its method: ``"tetwild"``, or ``"lattice"`` after a RuntimeWarning that gives the reason.

    Raises
    ------
    InputError
        As `brain.brain_mesh`.
    """
    try:
        size = around_tumour(
            density,
            tissue.grid,
            margin_mm=margin_mm,
            finest=cell_size_mm,
            coarsest=coarsest_mm,
            slope=SLOPE_OF_EDGES,
        )
        surface = smooth_brain_surface(tissue, max(cell_size_mm, FINEST_SURFACE))
        mesh = tetwild_mesh(surface, coarsest_mm, timeout_s, size=size)
        return brain_mesh_on(mesh, tissue), "tetwild"
    except (ResourceError, ConvergenceError) as error:
        warnings.warn(f"the lattice takes the place of the smooth mesh: {error}", RuntimeWarning, stacklevel=2)
    brain = brain_mesh(
        tissue, density, margin_mm=margin_mm, cell_size_mm=cell_size_mm, coarsest_mm=max(cell_size_mm, coarsest_mm)
    )
    return brain, "lattice"
