"""The page of verification names the tests of laws, all of them and no others, and is what its generator writes."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import verification_page
from figures import THEMES, Figure, Seen, gather

TESTS = Path(__file__).parent


def a_run(dofs: int, cell_size: float) -> dict[str, object]:
    seconds = dict.fromkeys(("mesh", "assemble", "solve"), dofs / 1e5)
    return {"dofs": dofs, "cell_size_mm": cell_size, "cells": 5 * dofs, "steps": 9, "products": 70, "seconds": seconds}


def marked() -> dict[str, tuple[str, str]]:
    """Theme and law of every test that carries the marker, read off the sources."""
    found = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.law":
                    theme, law = map(ast.literal_eval, call.args)
                    found[f"{path.relative_to(TESTS.parent).as_posix()}::{node.name}"] = theme, law
    return found


def test_the_page_names_every_test_of_a_law_and_no_other() -> None:
    text = (verification_page.DOCS / "verification.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "` in `" in line]
    assert sorted(rows) == sorted(set(rows))
    expected = marked()
    assert {theme for theme, _ in expected.values()} <= set(THEMES)
    for test, (_, law) in expected.items():
        path, name = test.split("::")
        end = f"| `{name}` in `{path.removeprefix('tests/')}` |"
        assert [row for row in rows if row.startswith(f"| {law} |") and row.endswith(end)], test
    assert len(rows) == len(expected)


def test_the_page_is_what_the_kept_figures_make() -> None:
    docs = verification_page.DOCS
    assert (docs / "verification.md").read_text(encoding="utf-8") == verification_page.page(docs / "figures")


def kept(folder: Path) -> Path:
    """A folder of documentation with a few figures."""
    order = {"name": "order", "low": 1.98, "high": 2.05, "unit": "", "at_least": 1.9, "at_most": None}
    shift = {"name": "shift", "low": 2.0, "high": 2.0, "unit": "mm", "at_least": 1.5, "at_most": 2.5}
    tests = {
        "tests/test_b.py::test_holds": {"theme": "therapy", "law": "0 Gy is nothing", "figures": []},
        "tests/test_a.py::test_order": {"theme": "growth", "law": "Second order", "figures": [order, shift]},
    }
    files = {
        "tests": tests,
        "growth": {"dofs": 12345, "finite_differences": {"euler, 300 steps": {"burden": 0.01, "seconds": 9.5}}},
        "scaling": {
            "finer": {"runs": [a_run(30_000, 3.4), a_run(240_000, 1.7)], "exponent": {"solve": 1.02}},
            "ranks": {"seconds_solve": [4.0, 2.2]},
        },
        "other": {"some_figure": 3},
    }
    (folder / "figures").mkdir()
    for name, content in files.items():
        (folder / "figures" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_the_generator_writes_tables_of_laws_and_cost(tmp_path: Path) -> None:
    docs = kept(tmp_path)
    verification_page.write(docs)
    text = (docs / "verification.md").read_text(encoding="utf-8")
    assert (
        "| Second order | order 1.98 to 2.05<br>shift 2 mm | ≥ 1.9<br>1.5 to 2.5 | `test_order` in `test_a.py` |"
        in text
    )
    assert "| 0 Gy is nothing | holds | – | `test_holds` in `test_b.py` |" in text
    assert text.index("## Growth") < text.index("## Therapy") < text.index("## Cost") < text.index("### Other")
    assert "| 240 000 | 1.7 | 1 200 000 | 9 | 70 | 2.4 | 2.4 | 2.4 |" in text
    assert "| exponent, solve | 1.02 |" in text
    assert "| ranks, seconds solve | 4, 2.2 |" in text
    assert "| euler, 300 steps | 0.01 | 9.5 |" in text
    assert str(tmp_path) not in text
    drawn = (docs / "images" / "scaling.png").read_bytes()
    verification_page.write(docs)
    assert (docs / "verification.md").read_text(encoding="utf-8") == text
    assert (docs / "images" / "scaling.png").read_bytes() == drawn


def test_a_page_without_benchmarks_is_one_of_laws(tmp_path: Path) -> None:
    folder = kept(tmp_path) / "figures"
    for path in folder.glob("*.json"):
        if path.stem != "tests":
            path.unlink()
    verification_page.write(tmp_path)
    assert "## Cost" not in (tmp_path / "verification.md").read_text(encoding="utf-8")
    assert not (tmp_path / "images").exists()


def test_an_unknown_theme_is_refused() -> None:
    with pytest.raises(SystemExit, match="weather"):
        verification_page.laws({"tests/test_a.py::test_b": {"theme": "weather", "law": "It rains", "figures": []}})


def test_a_figure_is_kept_and_held_to_its_bounds() -> None:
    told: list[tuple[str, object]] = []
    figure = Figure(lambda *what: told.append(what))
    figure("order", [2.0444, 1.98], at_least=1.9)
    assert told == [("figure", Seen("order", 1.98, 2.04, "", 1.9))]
    for value, bounds in (
        (1.89, {"at_least": 1.9}),
        ([0, 2], {"at_most": 1}),
        (float("nan"), {}),
        ([0, float("nan")], {}),
    ):
        with pytest.raises(pytest.fail.Exception, match=r"order: expected"):
            figure("order", value, **bounds)
    assert len(told) == 1


def test_figures_of_the_cases_of_one_test_are_one_range() -> None:
    figures: dict[object, Seen] = {}
    gather(figures, [Seen("order", 1.9, 2.0, at_least=1.9), Seen("error", 1, 1, at_most=4)])
    gather(figures, [Seen("order", 1.95, 2.1, at_least=1.9), Seen("error", 0.2, 0.2, at_most=1)])
    assert list(figures.values()) == [
        Seen("order", 1.9, 2.1, at_least=1.9),
        Seen("error", 1, 1, at_most=4),
        Seen("error", 0.2, 0.2, at_most=1),
    ]


def test_a_session_keeps_the_laws_that_held_and_drops_those_that_did_not(tmp_path: Path) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.law('growth', 'One')\n@pytest.mark.parametrize('x', [1, 3])\n"
        "def test_one(figure, x): figure('x', x, at_most=3)\n"
        "@pytest.mark.law('growth', 'Two')\ndef test_two(figure): figure('y', 2, at_most=1)\n"
        "def test_three(): pass\n"
    )
    row = {"theme": "growth", "law": "Before", "figures": []}
    before = {"test_a.py::test_zero": row, "test_some.py::test_two": row}
    (tmp_path / "kept.json").write_text(json.dumps(before), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir=.", "--figures=kept.json", "test_some.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(TESTS)}, capture_output=True, text=True, timeout=120
    )
    assert "1 failed, 3 passed" in done.stdout
    after = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))
    seen = {"name": "x", "low": 1.0, "high": 3.0, "unit": "", "at_least": None, "at_most": 3}
    expected = {"theme": "growth", "law": "One", "figures": [seen]}
    assert after == {"test_a.py::test_zero": row, "test_some.py::test_one": expected}
