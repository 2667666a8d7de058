"""PETSc and the form compiler: how they are loaded, which options they get, what their failures are called."""

# DOLFINx and petsc4py cannot be loaded before MPI
import mpi4py.MPI as MPI

# isort: split
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from hybridtumor.errors import ConvergenceError, ResourceError

__all__ = ["JIT_OPTIONS", "MPI", "PETSc", "assemble", "compile_form", "on_root", "petsc_errors"]

JIT_OPTIONS = {"timeout": 120}
"""Seconds that a process waits while another compiles the same form; DOLFINx's 10 are too few when busy."""

_OUT_OF_MEMORY = 55  # PETSC_ERR_MEM


@contextmanager
def petsc_errors(doing: str) -> Iterator[None]:
    """Raise PETSc's errors as our own: memory as ResourceError, anything else as ConvergenceError."""
    try:
        yield
    except PETSc.Error as error:
        if error.args[0] == _OUT_OF_MEMORY:
            raise ResourceError(f"{doing}: out of memory. Use larger cells, or more ranks on more machines.") from error
        raise ConvergenceError(f"{doing}: PETSc stopped with error {error.args[0]}.") from error


def compile_form(form: Any) -> Any:
    """Compile a UFL form.

    Raises
    ------
    ResourceError
        The form could not be compiled; names what is missing.
    """
    try:
        return fem.form(form, jit_options=JIT_OPTIONS)
    except Exception as error:
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        lacks = []
        if not any(shutil.which(name) for name in (compiler, "cc", "gcc", "clang")):
            lacks.append("a C compiler was not found (install gcc)")
        if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
            lacks.append("Python.h was not found (install the headers of this Python, python3-dev)")
        reason = (
            "; ".join(lacks) or f"{error}. Is the cache folder, $XDG_CACHE_HOME/fenics or ~/.cache/fenics, writable?"
        )
        raise ResourceError(f"finite elements: expected to compile a form, but {reason}") from error


def assemble(form: Any) -> PETSc.Mat:
    """Compile and assemble a bilinear form into a distributed sparse matrix."""
    compiled = compile_form(form)
    with petsc_errors("assembly"):
        matrix: PETSc.Mat = fem_petsc.assemble_matrix(compiled)
        matrix.assemble()
    return matrix


def on_root[T](comm: MPI.Intracomm, function: Callable[[], T]) -> T:
    """Run a function on rank 0 alone and return its result, or raise its exception, on every rank."""
    result: T | None = None
    failure: Exception | None = None
    if comm.rank == 0:
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - raised again on every rank below
            failure = error
    if comm.size > 1:
        result, failure = comm.bcast((result, failure), root=0)
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]
