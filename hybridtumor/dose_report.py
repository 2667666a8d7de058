r"""What `optimize-dose` writes: the dose, where one more Gray helps most, the figures, and a plan to simulate.

    OUT/dose.nii.gz  gradient.nii.gz  plan.yaml  optimization.json  dvh.csv  dvh.png  dose.png

gain = 1 − J(optimised)/J(uniform), of every draw and of their mean; plans of one draw differ by their dose alone.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hybridtumor.calibration_file import RESEARCH_ONLY
from hybridtumor.dosimetry import dvh
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.scan import write_bytes, write_nifti
from hybridtumor.therapy import Fractionation, TherapyPlan
from hybridtumor.treatments import Treatment

Array = NDArray[np.float64]
Figures = Mapping[str, Any]

DESCRIPTION = "Research use only, not for treatment; model output by hybridtumor"
JSON, PLAN, DOSE, GRADIENT = "optimization.json", "plan.yaml", "dose.nii.gz", "gradient.nii.gz"
FILES = (JSON, PLAN, DOSE, GRADIENT, "dvh.csv", "dvh.png", "dose.png")

INTERVAL = (0.05, 0.5, 0.95)
"""Quantiles of the gain over draws."""


def gain_figures(uniform: Array, optimised: Array) -> dict[str, Any]:
    """Return what an optimised plan gains over the uniform one, given the burdens of all draws, mm³."""
    gain = 1 - optimised / uniform
    low, median, high = (float(value) for value in np.quantile(gain, INTERVAL))
    return {
        "burden_uniform_mm3": _rounded(uniform),
        "burden_optimised_mm3": _rounded(optimised),
        "expected_uniform_mm3": round(float(uniform.mean()), 3),
        "expected_optimised_mm3": round(float(optimised.mean()), 3),
        "gain_expected": round(1 - float(optimised.mean() / uniform.mean()), 6),
        "gain_per_draw": [round(float(value), 6) for value in gain],
        "gain_median": round(median, 6),
        "gain_interval_90": [round(low, 6), round(high, 6)],
        "share_of_draws_better": round(float(np.mean(gain > 0)), 4),
    }


def limit_figures(limits: Mapping[str, float], uniform: Figures, optimised: Figures) -> dict[str, Any]:
    """Return every limit beside what both plans give."""
    return {
        name: {"limit": _short(value), "uniform": _short(uniform[name]), "optimised": _short(optimised[name])}
        for name, value in limits.items()
    }


def histograms(
    uniform: NDArray[np.floating[Any]], optimised: NDArray[np.floating[Any]], structures: Mapping[str, BoolArray]
) -> dict[str, Array]:
    """Return dose-volume histograms on common doses: ``dose_Gy``, and a share for each structure and plan."""
    top = float(max(uniform.max(), optimised.max()))
    levels = np.linspace(0.0, 1.01 * top, 200)
    table = {"dose_Gy": levels}
    for name, mask in structures.items():
        for plan, dose in (("uniform", uniform), ("optimised", optimised)):
            table[f"{name}, {plan}"] = dvh(dose, mask, levels)[1]
    return table


def save_histograms(table: Mapping[str, Array], path: Path) -> None:
    """Write histograms as CSV, under a line that says what it is for."""
    text = io.StringIO()
    text.write(f"# {RESEARCH_ONLY}\n")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(table)
    rows.writerows([f"{value:.5g}" for value in row] for row in zip(*table.values(), strict=True))
    write_bytes(path, text.getvalue().encode())


def save_json(figures: Figures, path: Path) -> None:
    """Write the figures; every file of the command says what it may be used for."""
    content = {"schema": 1, "research_only": RESEARCH_ONLY, **figures}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def save_maps(dose: NDArray[np.floating[Any]], slope: Array, grid: Grid, folder: Path) -> None:
    """Write the total dose of the optimised plan and the slope of the expected burden at the uniform one."""
    sidecars = {
        DOSE: {"quantity": "absorbed dose, total of all courses", "unit": "Gy"},
        GRADIENT: {
            "quantity": "change of the expected tumour burden at the horizon by one more Gray, at the uniform plan",
            "unit": "mm^3 per Gy and voxel",
        },
    }
    for name, values in ((DOSE, dose), (GRADIENT, slope)):
        sidecar = sidecars[name] | {"notice": RESEARCH_ONLY}
        write_nifti(folder / name, values.astype(np.float32), grid, description=DESCRIPTION, sidecar=sidecar)


def save_plan(plan: TherapyPlan, treatments: Sequence[Treatment], folder: Path) -> None:
    """Write the plan as a list of treatments, as under an arm of a scenario, its courses reading their dose files."""
    courses, entries = plan.active.courses, []
    for number, course in enumerate(courses, start=1):
        name = DOSE if len(courses) == 1 else f"dose_course{number}.nii.gz"
        if len(courses) > 1:
            sidecar = {"quantity": "absorbed dose, total of the course", "unit": "Gy", "notice": RESEARCH_ONLY}
            write_nifti(folder / name, course.dose.values, course.dose.grid, description=DESCRIPTION, sidecar=sidecar)
        entries.append({"radiation": _entry(course, name)})
    cuts = iter(plan.resections)
    surgery = sorted((t for t in treatments if t.resection is not None), key=lambda t: t.first_day)
    for number, (treatment, cut) in enumerate(zip(surgery, cuts, strict=True), start=1):
        name = f"cavity{number}.nii.gz"
        write_nifti(folder / name, cut.cavity.astype(np.uint8), cut.grid, description=DESCRIPTION)
        entries.append(treatment.with_copy(name).model_dump(mode="json", exclude_none=True))
    entries += [t.model_dump(mode="json", exclude_none=True) for t in treatments if t.chemotherapy is not None]
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=110)
    write_bytes(folder / PLAN, f"# {RESEARCH_ONLY}\n{text}".encode())


def _entry(course: Fractionation, name: str) -> dict[str, Any]:
    """Return a course as a file states it."""
    entry: dict[str, Any] = {
        "prescription": f"{course.prescribed_dose:.12g} Gy",
        "fractions": course.fractions,
        "days": [int(day) if float(day).is_integer() else float(day) for day in course.fraction_days],
        "dose": name,
        "dose_unit": "Gy",
    }
    if course.delivery_time > 0:
        entry["delivery_time"] = f"{course.delivery_time:.12g} day"
    return entry


def _rounded(values: Array) -> list[float]:
    return [round(float(value), 3) for value in values]


def _short(value: float) -> float:
    return float(f"{value:.7g}")
