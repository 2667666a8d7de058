"""A therapy plan on disk: one JSON file for what was given when, a NIfTI file per dose map (Gy) and per cavity."""

import json
from pathlib import Path

import numpy as np

from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray, Grid
from hybridtumor.scan import SYNTHETIC_NOTICE, Scan, write_bytes, write_nifti
from hybridtumor.therapy import Chemotherapy, DoseMap, Fractionation, Resection, TherapyPlan

DOSE_SIDECAR = {"quantity": "absorbed dose, total of the course", "unit": "Gy", "notice": SYNTHETIC_NOTICE}


def map_name(arm: str, kind: str, number: int) -> str:
    """Return the file name of a dose map or a cavity of an arm; no arm can be called so."""
    return f"{arm}~{kind}{number}.nii.gz"


def save_plan(plan: TherapyPlan, path: Path) -> None:
    """Write a plan as JSON and its dose maps beside it; the JSON comes last, so that it never names a missing file."""
    courses = []
    for number, course in enumerate(plan.courses, start=1):
        name = map_name(path.name.removesuffix(".json"), "course", number)
        write_nifti(
            path.with_name(name),
            course.dose.values,
            course.dose.grid,
            description=SYNTHETIC_NOTICE,
            sidecar=DOSE_SIDECAR,
        )
        courses.append(
            {
                "dose": name,
                "fractions": course.fractions,
                "first_day": course.first_day,
                "days": None if course.days is None else list(course.days),
                "prescription_Gy": course.prescription,
                "delivery_time_days": course.delivery_time,
                "boost_Gy": course.boost,
                "entry": course.entry,
                "remark": course.remark,
            }
        )
    drugs = [{"drug": drug.drug, "doses_day_mg_per_m2": [list(dose) for dose in drug.doses]} for drug in plan.drugs]
    resections = []
    for number, cut in enumerate(plan.resections, start=1):
        name = map_name(path.name.removesuffix(".json"), "cavity", number)
        write_nifti(
            path.with_name(name),
            cut.cavity.astype(np.uint8),
            cut.grid,
            description=SYNTHETIC_NOTICE,
            sidecar={"quantity": "cavity of a resection", "notice": SYNTHETIC_NOTICE},
        )
        resections.append({"cavity": name, "day": cut.day, "residual": cut.residual})
    content = {"courses": courses, "drugs": drugs, "resections": resections}
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def load_plan(path: Path, grid: Grid) -> TherapyPlan:
    """Read a plan that `save_plan` wrote for a patient on `grid`.

    Raises
    ------
    InputError
        The file or a dose map is missing or damaged, or lies on another grid.
    """
    try:
        content = json.loads(path.read_text())
        courses, drugs, resections = content["courses"], content["drugs"], content.get("resections", [])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: expected the plan of an arm, got a file that is none ({error}).") from error
    return TherapyPlan(
        tuple(
            Fractionation(
                dose=_dose(path.with_name(course["dose"]), grid),
                fractions=course["fractions"],
                first_day=course["first_day"],
                days=None if course["days"] is None else tuple(course["days"]),
                prescription=course["prescription_Gy"],
                delivery_time=course.get("delivery_time_days", 0.0),
                boost=course.get("boost_Gy"),
                entry=course.get("entry"),
                remark=course.get("remark", ""),
            )
            for course in courses
        ),
        tuple(
            Chemotherapy(tuple((day, dose) for day, dose in drug["doses_day_mg_per_m2"]), drug["drug"])
            for drug in drugs
        ),
        tuple(
            Resection(_mask(path.with_name(cut["cavity"]), grid), grid, cut["day"], cut["residual"])
            for cut in resections
        ),
    )


def _mask(path: Path, grid: Grid) -> BoolArray:
    scan = Scan.load(path)
    grid.require_same(scan.grid, str(path))
    return np.asarray(scan.values > 0)


def _dose(path: Path, grid: Grid) -> DoseMap:
    scan = Scan.load(path)
    grid.require_same(scan.grid, str(path))
    return DoseMap(scan.values, grid)
