"""What hybridtumor needs on a machine, and whether it is there."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

State = Literal["ok", "weak", "missing"]

FORM = (
    "import mpi4py.MPI as MPI; from dolfinx import fem, mesh; import ufl;"
    "m = mesh.create_unit_cube(MPI.COMM_SELF, 1, 1, 1);"
    "V = fem.functionspace(m, ('Lagrange', 1)); u, v = ufl.TrialFunction(V), ufl.TestFunction(V);"
    "fem.form(ufl.inner(u, v) * ufl.dx, jit_options={'timeout': 600}); import dolfinx; print(dolfinx.__version__)"
)
DRAW = (
    "import pyvista as pv; p = pv.Plotter(off_screen=True); p.add_mesh(pv.Sphere()); i = p.screenshot(return_img=True);"
    "assert i.max() > i.min(); print(p.render_window.GetClassName())"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Parameters
    ----------
    state
        ``ok``; ``weak``: works without, but less well; ``missing``: essential.
    """

    name: str
    state: State
    text: str


def examine() -> list[Finding]:
    """Check everything, in the order in which a run needs it; nothing is raised."""
    return [check() for check in CHECKS]


def python() -> Finding:
    """Ask for Python 3.12 or newer."""
    good = sys.version_info >= (3, 12)
    return Finding(
        "Python", "ok" if good else "missing", platform.python_version() + ("" if good else "; expected 3.12 or newer")
    )


def machine() -> Finding:
    """Ask for Linux on x86-64, the platform of the finite-element wheels."""
    good = sys.platform == "linux" and platform.machine() in {"x86_64", "AMD64"}
    text = f"{platform.system()} {platform.machine()}"
    return Finding(
        "platform",
        "ok" if good else "weak",
        text + ("" if good else "; wheels are for Linux x86-64, install DOLFINx from conda"),
    )


def compiler() -> Finding:
    """Look for a C compiler and the headers of this Python: forms are compiled when they are first used."""
    name = (sysconfig.get_config_var("CC") or "cc").split()[0]
    found = next((path for path in map(shutil.which, (name, "cc", "gcc", "clang")) if path), None)
    header = Path(sysconfig.get_paths()["include"], "Python.h").exists()
    if found and header:
        return Finding("C compiler", "ok", found)
    lacks = [] if found else ["no C compiler; install gcc"]
    lacks += [] if header else ["no Python.h; install the headers of this Python (python3-dev)"]
    return Finding("C compiler", "missing", "; ".join(lacks))


def finite_elements() -> Finding:
    """Import DOLFINx and compile a form."""
    return _in_subprocess(
        "finite elements", FORM, lambda out: f"DOLFINx {out}, compiles forms", "missing", "install dolfinx-solver-real"
    )


def torch() -> Finding:
    """Import torch."""
    code = "import torch as t; print(t.__version__, t.get_num_threads(), 'CUDA' if t.cuda.is_available() else 'CPU')"
    return _in_subprocess(
        "torch", code, lambda out: "{0} on {2}, {1} threads".format(*out.split()), "missing", "install torch"
    )


def weights() -> Finding:
    """Load the refiner's weights."""
    code = "from hybridtumor.refine import Refiner; Refiner.load(); print('shipped weights load')"
    return _in_subprocess("refiner weights", code, str, "missing", "install hybridtumor anew")


def drawing() -> Finding:
    """Draw a ball off screen."""
    hint = "the picture of the mesh will be left out; install libegl1 libegl-mesa0 libgl1-mesa-dri"
    return _in_subprocess("OpenGL", DRAW, lambda out: f"draws off screen ({out})", "weak", hint)


def smooth_meshes() -> Finding:
    """Look for the extra `mesh`: smooth boundaries and meshes from files."""
    return _extra("mesh", ("pytetwild", "meshio", "h5py"), "smooth meshes and meshes from files are left out")


def clinic() -> Finding:
    """Look for the extra `dicom`: files of clinics in and out."""
    return _extra("dicom", ("pydicom", "highdicom"), "DICOM is left out")


def _extra(extra: str, names: Sequence[str], without: str) -> Finding:
    """Look for the distributions of an extra."""
    versions, lacks = [], []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lacks.append(name)
    if not lacks:
        return Finding(f"extra {extra}", "ok", ", ".join(versions))
    return Finding(f"extra {extra}", "weak", f"no {', '.join(lacks)}; {without}; install hybridtumor[{extra}]")


def threads() -> Finding:
    """Count the processors."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS")
    return Finding("processors", "ok", f"{available}" + (f"; OMP_NUM_THREADS={limit}" if limit else ""))


def memory() -> Finding:
    """Ask for eight gigabytes, enough for a whole brain at 1 mm."""
    try:
        gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError):
        return Finding("memory", "weak", "unknown")
    return Finding(
        "memory",
        "ok" if gigabytes >= 7.5 else "weak",
        f"{gigabytes:.0f} GB" + ("" if gigabytes >= 7.5 else "; 8 GB are advised"),
    )


def package() -> Finding:
    """Ask for the version of hybridtumor itself."""
    try:
        return Finding("hybridtumor", "ok", metadata.version("hybridtumor"))
    except metadata.PackageNotFoundError:
        return Finding("hybridtumor", "weak", "runs from a checkout, not installed")


CHECKS: tuple[Callable[[], Finding], ...] = (
    package, python, machine, threads, memory, compiler, finite_elements, torch, weights, drawing,
    smooth_meshes, clinic,
)  # fmt: skip


def _in_subprocess(name: str, code: str, text: Callable[[str], str], otherwise: State, hint: str) -> Finding:
    """Run code in a process of its own, which may crash without taking this one along."""
    try:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return Finding(name, otherwise, f"no answer in 300 s; {hint}")
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"ended with {run.returncode}"])[-1]
        return Finding(name, otherwise, f"{last}; {hint}")
    return Finding(name, "ok", text(run.stdout.strip().splitlines()[-1]))
