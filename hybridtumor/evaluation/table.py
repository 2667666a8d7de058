"""The table of an evaluation: scores gathered over patients, every figure with its number of patients and interval.

Real and phantom are never merged: an entry belongs to one kind, and there is no entry of both.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridtumor.evaluation.bootstrap import Interval, interval
from hybridtumor.evaluation.scoring import Score
from hybridtumor.scan import write_bytes

KINDS = ("real", "phantom")

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Entry:
    """One figure of one method in one region over the patients of one kind.

    Parameters
    ----------
    kind, method, region, figure
        What it is.
    interval
        Mean and interval; None where it is defined in no case.
    undefined
        Cases in which it is not defined and that are left out, such as the Hausdorff distance to an empty label.
    """

    kind: str
    method: str
    region: str
    figure: str
    interval: Interval | None
    undefined: int


def gather(scores: Iterable[Score], *, level: float = 0.95, seed: int = 0) -> list[Entry]:
    """Return the entries of a table, in the order in which their figures first appear.

    Parameters
    ----------
    scores
        Of any number of cases and kinds.
    level, seed
        Of the bootstrap intervals.
    """
    found: dict[Key, dict[str, list[float]]] = {}
    missing: dict[Key, int] = {}
    for score in scores:
        key = (score.kind, score.method, score.region, score.figure)
        patients = found.setdefault(key, {})
        if np.isfinite(score.value):
            patients.setdefault(score.patient, []).append(score.value)
        else:
            missing[key] = missing.get(key, 0) + 1
    return [
        Entry(*key, interval(patients, level=level, seed=seed) if patients else None, missing.get(key, 0))
        for key, patients in found.items()
    ]


def counts(scores: Iterable[Score]) -> dict[str, dict[str, int]]:
    """Return the number of patients and cases of each kind."""
    pairs = {(s.kind, s.patient, s.case) for s in scores}
    return {
        kind: {
            "patients": len({patient for k, patient, _ in pairs if k == kind}),
            "cases": sum(k == kind for k, _, _ in pairs),
        }
        for kind in KINDS
        if any(k == kind for k, _, _ in pairs)
    }


def to_json(entries: list[Entry], scores: list[Score], about: Mapping[str, Any]) -> str:
    """Return table and single cases as JSON; a figure that is not defined is null."""
    content = {
        "notice": "research use only; synthetic images",
        "about": dict(about),
        "counts": counts(scores),
        "table": {kind: [_flat(e) for e in entries if e.kind == kind] for kind in counts(scores)},
        "cases": [asdict(s) | {"value": s.value if np.isfinite(s.value) else None} for s in scores],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(entries: list[Entry]) -> str:
    """Return the table as CSV, one row per entry."""
    return _csv([_flat(entry) for entry in entries])


def cases_to_csv(scores: list[Score]) -> str:
    """Return every score of every case as CSV."""
    return _csv([asdict(score) for score in scores])


def save(folder: Path, entries: list[Entry], scores: list[Score], about: Mapping[str, Any], page: str) -> None:
    """Write ``evaluation.json``, ``.csv`` and ``.html`` and ``evaluation_cases.csv``, each whole or not at all."""
    write_bytes(folder / "evaluation.json", to_json(entries, scores, about).encode())
    write_bytes(folder / "evaluation.csv", to_csv(entries).encode())
    write_bytes(folder / "evaluation_cases.csv", cases_to_csv(scores).encode())
    write_bytes(folder / "evaluation.html", page.encode())


def _flat(entry: Entry) -> dict[str, Any]:
    """Return an entry as one row."""
    found = entry.interval
    return {
        "kind": entry.kind,
        "method": entry.method,
        "region": entry.region,
        "figure": entry.figure,
        "mean": None if found is None else round(found.mean, 6),
        "low": None if found is None else round(found.low, 6),
        "high": None if found is None else round(found.high, 6),
        "patients": 0 if found is None else found.patients,
        "cases": 0 if found is None else found.cases,
        "undefined": entry.undefined,
        "interval_of_little_worth": found is None or found.of_little_worth,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
