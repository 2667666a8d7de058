"""The tables of a report: all arms at a glance, and the figures of one arm day by day and structure by structure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hybridtumor.plots_style import ArmStyle
from hybridtumor.report_answer import change, millilitres, power, probability, share
from hybridtumor.report_outcomes import Outcome, of_brain, reference
from hybridtumor.therapy import TherapyPlan

LABEL_NAMES = {"enhancing": "Enhancing, ml", "edema": "Oedema, ml", "necrosis": "Necrosis, non-enhancing core, ml"}

NONE, PROGRESSION = "–", "Progression|day"

Figures = Mapping[str, Any]
Cell = Callable[[Figures], str]


def glance(
    figures: Mapping[str, Figures], arms: Sequence[Outcome], styles: Mapping[str, ArmStyle]
) -> dict[str, list[Any]]:
    """Return head and rows of the table at the top: day 0, then every arm on its last day.

    Columns in which no arm has a value are left out, but for progression, of which "none" says something.
    """
    free = reference(arms)
    columns = _columns(free)
    table = {name: [cell(entry) for _, cell in columns] for name, entry in figures.items()}
    kept = [
        i for i, (head, _) in enumerate(columns) if head == PROGRESSION or any(r[i] != NONE for r in table.values())
    ]
    first = _at_start(next(iter(figures.values())))
    rows: list[dict[str, Any]] = [
        {"name": "day 0", "style": None, "cells": [first.get(columns[i][0], "") for i in kept]},
    ]
    rows += [{"name": name, "style": styles[name], "cells": [row[i] for i in kept]} for name, row in table.items()]
    return {"head": [columns[i][0].split("|") for i in kept], "rows": rows}


def by_day(figures: Figures) -> list[tuple[str, list[str]]]:
    """Return the rows of an arm's table: name of a quantity, and its value on each report day."""
    table = [("Burden, ml", [f"{value / 1000:.2f}" for value in figures["burden_mm3"]])]
    if "imaged_burden_mm3" in figures["burden_curve"]:
        imaged = [f"{value / 1000:.2f}" for value in figures["imaged_burden_mm3"]]
        table.append(("Burden with damaged cells, ml", imaged))
    table += [(name, _millilitres(figures["volume_mm3"][label])) for label, name in LABEL_NAMES.items()]
    table += _mass_effect(figures)
    seen = figures.get("mri") or {}
    if seen.get("days") == list(figures["days"]):
        volumes = seen["volume_mm3"]
        table += [(f"{name}, on the mean image", _millilitres(volumes[label])) for label, name in LABEL_NAMES.items()]
    category = (figures.get("response") or {}).get("category")
    if category:
        table.append(("Response of the visible volume against day 0 (model)", [NONE, *category]))
    return table


def structures(figures: Figures) -> list[tuple[str, list[str]]]:
    """Return the rows of an arm's dose table: name of a structure, then its doses; empty without any."""
    found = (figures.get("dose") or {}).get("structures") or {}
    keys = ("mean_Gy", "max_Gy", "D98_Gy", "D2_Gy", "mean_EQD2_Gy", "gEUD_EQD2_Gy")
    return [
        (name, [*(_number(entry.get(key)) for key in keys), _probability(entry.get("NTCP"))])
        for name, entry in found.items()
    ]


def sentences(figures: Figures) -> list[str]:
    """Return what else is known of an arm, in words."""
    said = []
    control, coverage = figures.get("tumour_control"), figures.get("coverage")
    if control:
        cells, tcp = power(control["surviving_cells"]), probability(control["TCP"])
        said.append(f"Tumour control: {cells} surviving clonogenic cells in the model, TCP {tcp}.")
    if coverage:
        standard, region = (_share(coverage.get(key)) for key in ("standard", "density_iso_volume"))
        said.append(
            f"Of the tumour visible on the last day, {standard} lies in the volume that received at least 95 % of the"
            f" prescription ({millilitres(coverage['volume_ml'] * 1000)} ml); a volume of the same size around the"
            f" highest model density of day 0 would hold {region}."
        )
    return said


def treatment(plan: TherapyPlan, horizon: float) -> str:
    """Return in one sentence what a plan gives before the horizon."""
    parts = []
    for course in plan.active.courses:
        days = course.fraction_days
        early = sum(day < horizon for day in days)
        boost = "" if course.boost is None else f", with a boost to {course.boost:g} Gy,"
        remark = f", {course.remark}" if course.remark else ""
        part = (
            f"{course.prescribed_dose:g} Gy{boost} in {course.fractions} fractions, days {int(days[0])} to"
            f" {int(days[-1])}{remark}"
        )
        parts.append(part if early == len(days) else f"{part}, {early} of them before day {horizon:g}")
    for drug in plan.active.drugs:
        given = [day for day, _ in drug.doses if day < horizon]
        if given:
            parts.append(f"{len(given)} doses of {drug.drug}, days {int(given[0])} to {int(given[-1])}")
    parts += [f"surgery on day {resection.day:g}" for resection in plan.resections if resection.day < horizon]
    return "; ".join(parts) + "." if parts else "No treatment."


def _columns(free: Outcome | None) -> list[tuple[str, Cell]]:
    """Return head and cell of every column; a bar in a head breaks its line. `free` is the arm without treatment."""

    def dose(*keys: str) -> Cell:
        return lambda f: " / ".join(_number(f["dose"].get(key)) for key in keys) if f.get("dose") else NONE

    def against(figures: Figures) -> str:
        last = figures["burden_mm3"][-1]
        itself = free is not None and not figures.get("dose") and last == free.burden
        return NONE if free is None or itself else change(last, free.burden)

    def volume(label: str) -> Cell:
        return lambda f: millilitres(f["volume_mm3"][label][-1])

    return [
        ("Prescribed / mean in tumour|Gy", dose("prescribed_Gy", "mean_tumour_Gy")),
        ("BED / EQD2|Gy", dose("BED_Gy", "EQD2_Gy")),
        ("Brain, mean EQD2|Gy", lambda f: _number(of_brain(f, "mean_EQD2_Gy"))),
        ("Brain|NTCP", lambda f: _probability(of_brain(f, "NTCP"))),
        ("Burden|ml", lambda f: millilitres(f["burden_mm3"][-1])),
        ("Against no treatment", against),
        ("Enhancing|ml", volume("enhancing")),
        ("Oedema|ml", volume("edema")),
        ("Non-enhancing core|ml", volume("necrosis")),
        (PROGRESSION, lambda f: _whole(f["time_to_progression_days"])),
        ("Response,|best → last", _response),
        ("Surviving cells", lambda f: _control(f, "surviving_cells", power)),
        ("TCP", lambda f: _control(f, "TCP", probability)),
    ]


def _at_start(figures: Figures) -> dict[str, str]:
    """Return what the columns say of day 0."""
    volumes = figures["volume_mm3"]
    return {
        "Burden|ml": millilitres(figures["burden_mm3"][0]),
        "Enhancing|ml": millilitres(volumes["enhancing"][0]),
        "Oedema|ml": millilitres(volumes["edema"][0]),
        "Non-enhancing core|ml": millilitres(volumes["necrosis"][0]),
    }


def _response(figures: Figures) -> str:
    """Return the best of the response categories and the last, where they differ."""
    found = (figures.get("response") or {}).get("category")
    if not found:
        return NONE
    best = min(found, key=("CR", "PR", "SD", "PD").index)
    return found[-1] if best == found[-1] else f"{best} → {found[-1]}"


def _control(figures: Figures, key: str, say: Callable[[float], str]) -> str:
    value = (figures.get("tumour_control") or {}).get(key)
    return NONE if value is None else say(float(value))


def _mass_effect(figures: Figures) -> list[tuple[str, list[str]]]:
    """Return the figures of mass effect of an arm by day; nothing without mechanics."""
    volumes = figures.get("ventricle_volume_mm3")
    if volumes is None:
        return []
    change_ = [f" ({volume / volumes[0] - 1:+.0%})" if volumes[0] > 0 else "" for volume in volumes]
    return [
        ("Largest displacement, mm", [f"{value:.1f}" for value in figures["max_displacement_mm"]]),
        ("Ventricles, ml", [f"{v / 1000:.1f}{c}" for v, c in zip(volumes, change_, strict=True)]),
        ("Midline shift, mm", [f"{value:.1f}" for value in figures["midline_shift_mm"]]),
    ]


def _millilitres(volumes: Sequence[float]) -> list[str]:
    return [f"{volume / 1000:.2f}" for volume in volumes]


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _whole(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return NONE if value is None else share(value)


def _probability(value: float | None) -> str:
    return NONE if value is None else probability(value)
