"""Files of a synthetic cohort: images, fields, plan and table, every one marked as synthetic."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.scan import SYNTHETIC_NOTICE, LabelMap, Scan, write_bytes, write_nifti
from hybridtumor.therapy import TherapyPlan
from hybridtumor.yaml_file import load_yaml

Array = NDArray[np.float32]

SUFFIXES = {"T1w": "t1", "T1ce": "t1ce", "T2w": "t2", "FLAIR": "flair"}
"""How BraTS 2021 calls the modalities."""

FIELDS = {
    "density": ("tumour cell density", "fraction of carrying capacity"),
    "dose": ("absorbed dose, total of the plan", "Gy"),
    "log_kill": ("log-kill since day 0", "1"),
    "displacement": ("displacement of the tissue since day 0", "mm"),
    "cavity": ("taken out by surgery", "1"),
}


def save_visit(folder: Path, name: str, images: Mapping[str, Array], labels: LabelMap | None) -> None:
    """Write the images of a visit and its segmentation, each marked as synthetic."""
    if labels is None:
        raise InputError(f"{name}: expected a segmentation, got none.")
    for modality, values in images.items():
        sidecar = {"modality": modality, "notice": SYNTHETIC_NOTICE}
        path = folder / f"{name}_{SUFFIXES[modality]}.nii.gz"
        Scan(values, labels.grid).save(path, description=SYNTHETIC_NOTICE, sidecar=sidecar)
    labels.save(folder / f"{name}_seg.nii.gz", description=SYNTHETIC_NOTICE, sidecar={"notice": SYNTHETIC_NOTICE})


def save_fields(folder: Path, name: str, grid: Grid, fields: Mapping[str, Array]) -> None:
    """Write fields by name (a key of `FIELDS`), each marked as synthetic."""
    for key, values in fields.items():
        quantity, unit = FIELDS[key]
        sidecar = {"quantity": quantity, "unit": unit, "notice": SYNTHETIC_NOTICE}
        write_nifti(folder / f"{name}_{key}.nii.gz", values, grid, description=SYNTHETIC_NOTICE, sidecar=sidecar)


def save_plan(folder: Path, name: str, plan: TherapyPlan, grid: Grid) -> None:
    """Write ``plan.yaml`` as a scenario's arm states treatments, with the dose maps and cavities it names."""
    entries: list[dict[str, Any]] = []
    for number, cut in enumerate(plan.resections, start=1):
        file = f"{name}_cavity{number}.nii.gz"
        sidecar = {"quantity": FIELDS["cavity"][0], "notice": SYNTHETIC_NOTICE}
        write_nifti(folder / file, cut.cavity.astype(np.uint8), grid, description=SYNTHETIC_NOTICE, sidecar=sidecar)
        entries.append({"resection": {"day": cut.day, "cavity": file, "residual": cut.residual}})
    for number, course in enumerate(plan.courses, start=1):
        file = f"{name}_dose{number}.nii.gz"
        sidecar = {"quantity": "absorbed dose, total of the course", "unit": "Gy", "notice": SYNTHETIC_NOTICE}
        write_nifti(folder / file, course.dose.values, grid, description=SYNTHETIC_NOTICE, sidecar=sidecar)
        entries.append(
            {
                "radiation": {
                    "prescription": f"{course.highest_dose:.6g} Gy",
                    "fractions": course.fractions,
                    "days": list(course.fraction_days),
                    "dose": file,
                    "dose_unit": "Gy",
                }
            }
        )
    entries += [{"chemotherapy": {"drug": drug.drug, "first_day": drug.doses[0][0]}} for drug in plan.drugs]
    if plan.courses:
        save_fields(folder, name, grid, {"dose": plan.total_dose(grid)})
    write_bytes(folder / "plan.yaml", f"# {SYNTHETIC_NOTICE}\n".encode() + yaml_bytes(entries))


def table_of(out: Path) -> str:
    """Return ``participants.tsv`` of the patients that are there."""
    found = [load_yaml(path) for path in sorted(out.glob("*/parameters.yaml"))]
    rows = [{k: v for k, v in row.items() if k != "notice"} for row in found if isinstance(row, dict)]
    columns = list(rows[0]) if rows else []
    lines = ["\t".join(columns)] + ["\t".join(_cell(row.get(column)) for column in columns) for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(v) for v in value) or "n/a"
    return "n/a" if value is None else str(value)


def yaml_bytes(content: object) -> bytes:
    """Return a value as a YAML file."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
