"""Imports point one way: vocabulary ← meshes, models ← solvers ← workflow ← cli. An `ast` walk keeps it so."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["vocabulary", "meshes", "models", "solvers", "workflow", "cli"]
VOCABULARY = {
    "bids", "bids_name", "bids_tables", "brats", "diffusion_tensor", "errors", "forecast", "grid", "parameters",
    "patient", "patient_folder", "scan", "therapy", "tissue", "units", "yaml_file",
}  # fmt: skip
MAY_IMPORT = {
    "vocabulary": {"vocabulary"},
    "meshes": {"vocabulary", "meshes"},
    "models": {"vocabulary", "models"},
    "solvers": {"vocabulary", "meshes", "models", "solvers"},
    "workflow": {"vocabulary", "meshes", "models", "solvers", "workflow"},
    "cli": set(LAYERS),
}
FINITE_ELEMENTS = {"dolfinx", "dolfinx_solver", "petsc4py", "mpi4py"}


def layer_of(module: str) -> str:
    parts = module.split(".")
    if len(parts) > 1 and parts[1] in {"meshes", "models", "solvers"}:
        return parts[1]
    name = parts[1] if len(parts) > 1 else ""
    if name in {"cli", "cli_clinic", "__main__"}:
        return "cli"
    return "vocabulary" if name in VOCABULARY else "workflow"


def sources() -> dict[str, Path]:
    found = {}
    for folder in ("hybridtumor", "meshes", "models", "solvers"):
        for path in sorted((ROOT / folder).glob("*.py")):
            stem = "" if path.stem == "__init__" else f".{path.stem}"
            found[("hybridtumor" if folder == "hybridtumor" else f"hybridtumor.{folder}") + stem] = path
    for folder in ("calibration", "dicom", "evaluation"):
        for path in sorted((ROOT / "hybridtumor" / folder).glob("*.py")):
            found[f"hybridtumor.{folder}" + ("" if path.stem == "__init__" else f".{path.stem}")] = path
    return found


def imports(source: str) -> set[str]:
    """Every module a source text imports, at the top or inside a function, but not under TYPE_CHECKING."""
    found = set()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            skipped |= {id(child) for statement in node.body for child in ast.walk(statement)}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def violations(module: str, source: str) -> list[str]:
    layer, found, bad = layer_of(module), imports(source), []
    for name in sorted(found):
        top = name.split(".")[0]
        if top in {"solvers", "models", "meshes"}:
            bad.append(f"{module} imports {name}: a second copy of every class; write hybridtumor.{name}")
        ours = top == "hybridtumor" and name not in {"hybridtumor", "hybridtumor.__version__"}
        if ours and module != "hybridtumor" and layer_of(name) not in MAY_IMPORT[layer]:
            bad.append(f"{module} ({layer}) imports {name} ({layer_of(name)})")
    tops = {name.split(".")[0] for name in found}
    if layer == "models" and tops & FINITE_ELEMENTS:
        bad.append(f"{module} (models) imports {tops & FINITE_ELEMENTS}")
    if "torch" in tops and tops & FINITE_ELEMENTS:
        bad.append(f"{module} imports both torch and {tops & FINITE_ELEMENTS}: the layers meet in Forecast")
    if layer == "vocabulary" and tops & (FINITE_ELEMENTS | {"torch", "pyvista", "vtk", "ufl"}):
        bad.append(f"{module} (vocabulary) imports {tops}")
    return bad


@pytest.mark.parametrize("module", sources())
def test_imports_point_one_way(module: str) -> None:
    assert violations(module, sources()[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("hybridtumor.grid", "from hybridtumor.simulate import simulate"),
        ("hybridtumor.models.growth", "import hybridtumor.solvers.growth"),
        ("hybridtumor.models.growth", "from dolfinx import fem"),
        ("hybridtumor.meshes.brain", "from hybridtumor.models import growth"),
        ("hybridtumor.solvers.growth", "from hybridtumor import simulate"),
        ("hybridtumor.simulate", "from hybridtumor import cli"),
        ("hybridtumor.refine", "import torch\nfrom dolfinx import fem"),
        ("hybridtumor.simulate", "from solvers import growth"),
        ("hybridtumor.grid", "import torch"),
    ],
)
def test_an_upward_import_is_seen(module: str, line: str) -> None:
    assert violations(module, line)


def test_top_level_is_the_owners() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    ours = folders - {"build", "dist", "run", "runs"} - {p for p in folders if p.endswith(".egg-info")}
    assert ours == {"hybridtumor", "solvers", "models", "meshes", "examples", "tests", "docs"}
    for name in ("solvers", "models", "meshes"):
        assert (ROOT / "hybridtumor" / name).resolve() == ROOT / name
