"""Laws and the figures that tests see, kept as JSON for the page that `verification_page.py` writes.

A test of a law says so by `@pytest.mark.law("theme", "the law in one line")` and tells what it has computed by the
fixture `figure`, which also holds it to its bounds: a bound on the page is one that can fail.

    figure("order", orders, at_least=1.9)
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

THEMES = {
    "growth": "Growth",
    "tensor": "Diffusion with a full tensor",
    "therapy": "Therapy",
    "mechanics": "Mass effect",
    "mesh": "Meshes and transfers",
    "calibration": "Gradient and calibration",
    "images": "Images",
    "runs": "Whole runs and figures",
}
DIGITS = 3


@dataclass(frozen=True)
class Seen:
    """The range in which a test saw a figure, and the bounds that it had to keep."""

    name: str
    low: float
    high: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    def merged(self, other: "Seen") -> "Seen":
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high))


@dataclass(frozen=True)
class Figure:
    """Keeps a number, or several, that a test has computed; the test fails when one is out of bounds or not finite."""

    record: Callable[[str, object], None]

    def __call__(
        self,
        name: str,
        value: ArrayLike,
        unit: str = "",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        found = np.asarray(value, dtype=float).ravel()
        low, high = -np.inf if at_least is None else at_least, np.inf if at_most is None else at_most
        if not (np.isfinite(found) & (found >= low) & (found <= high)).all():
            pytest.fail(f"{name}: expected {low:g} to {high:g} {unit}, got {', '.join(f'{v:g}' for v in found)}.")
        lowest, highest = (float(f"{v:.{DIGITS}g}") for v in (found.min(), found.max()))
        self.record("figure", Seen(name, lowest, highest, unit, at_least, at_most))


class Recorder:
    """The plugin behind `pytest --figures=FILE`: rows of the laws that held, in a file that earlier sessions began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]):
        report, law = (yield), item.get_closest_marker("law")
        if law is not None:
            name = item.nodeid.split("[")[0]
            if not report.passed:
                self.failed.add(name)
            elif report.when == "call":
                theme, sentence = law.args
                row = self.rows.setdefault(name, {"theme": theme, "law": sentence, "figures": {}})
                gather(row["figures"], [seen for _, seen in item.user_properties if isinstance(seen, Seen)])
        return report

    def pytest_sessionfinish(self) -> None:
        kept = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        new = {name: row | {"figures": [asdict(f) for f in row["figures"].values()]} for name, row in self.rows.items()}
        rows = {name: row for name, row in (kept | new).items() if name not in self.failed}
        ordered = sorted(rows.items(), key=lambda row: row[0].split("::")[0])  # within a file as the tests stand
        lines = [f"{json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}" for name, row in ordered]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def gather(figures: dict[object, Seen], found: list[Seen]) -> None:
    """Put figures of the same name and bounds together, of one test or of the cases of a parametrised one."""
    for seen in found:
        key = (seen.name, seen.at_least, seen.at_most)
        figures[key] = figures.get(key, seen).merged(seen)
