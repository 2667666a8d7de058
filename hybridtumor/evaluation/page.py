"""The page of an evaluation: one HTML file that needs no network, a section for each kind of case."""

from collections.abc import Mapping
from typing import Any

import hybridtumor
from hybridtumor.evaluation.bootstrap import FEW
from hybridtumor.evaluation.legend import GROUPS, MEANINGS, REGIONS
from hybridtumor.evaluation.predictions import METHODS
from hybridtumor.evaluation.scoring import Score
from hybridtumor.evaluation.table import Entry, counts
from hybridtumor.pages import template

TITLES = {
    "real": "Real scans: onset of a tumour",
    "phantom": "Phantoms: follow-up of virtual patients",
}


def page(entries: list[Entry], scores: list[Score], about: Mapping[str, Any]) -> str:
    """Return the HTML of an evaluation.

    Parameters
    ----------
    entries, scores
        The table, and the single scores it came from.
    about
        Name and value of what else is worth telling: weights, samples, seed; ``notes`` holds sentences.
    """
    sections = [
        {
            "title": TITLES[kind],
            "patients": found["patients"],
            "cases": found["cases"],
            "few": found["patients"] < FEW,
            "tables": _tables([e for e in entries if e.kind == kind], found["cases"]),
            "singles": _singles([s for s in scores if s.kind == kind]),
        }
        for kind, found in counts(scores).items()
    ]
    return str(
        template("evaluation.html").render(
            sections=sections,
            meanings=[m for m in MEANINGS.values() if m.says],
            methods={method: says for method, says in METHODS.items() if method in {s.method for s in scores}},
            notes=list(about.get("notes", ())),
            facts=[(key, str(value)) for key, value in about.items() if key != "notes"],
            version=hybridtumor.__version__,
        )
    )


def _tables(entries: list[Entry], cases: int) -> list[dict[str, Any]]:
    """Return the tables of one kind: title, heads, rows of method and cells."""
    tables = []
    for group, (regions, figures) in GROUPS.items():
        for region in regions:
            found = {(e.method, e.figure): e for e in entries if e.region == region and e.figure in figures}
            columns = [figure for figure in figures if any(figure == f for _, f in found)]
            methods = list(dict.fromkeys(method for method, _ in found))
            if columns:
                rows = [(m, [_cell(found.get((m, f)), cases) for f in columns]) for m in methods]
                heads = [(MEANINGS[f].head.split("|"), MEANINGS[f].better) for f in columns]
                tables.append({"title": f"{group}, {REGIONS[region]}", "heads": heads, "rows": rows})
    return tables


def _cell(entry: Entry | None, cases: int) -> tuple[str, str]:
    """Return the mean, and the interval with the number of cases where some are left out."""
    if entry is None or entry.interval is None:
        return "–", ""
    digits, found = MEANINGS[entry.figure].digits, entry.interval
    fewer = f", n = {found.cases}" if found.cases != cases else ""
    return f"{found.mean:.{digits}f}", f"{found.low:.{digits}f} to {found.high:.{digits}f}{fewer}"


def _singles(scores: list[Score]) -> dict[str, Any]:
    """Return the main figures inside the mask case by case: heads and rows."""
    figures = ("psnr", "ssim", "mae", "spectrum", "patches", "crps", "crps over render's mae", "spread/skill")
    value = {(s.case, s.method, s.figure): s.value for s in scores if s.region == "mask"}
    rows = [
        (
            case,
            method,
            [
                f"{value[case, method, f]:.{MEANINGS[f].digits}f}" if (case, method, f) in value else "–"
                for f in figures
            ],
        )
        for case, method in dict.fromkeys((case, method) for case, method, _ in value)
    ]
    return {"heads": [MEANINGS[f].head.replace("|", " ") for f in figures], "rows": rows}
