"""Single-scan fits of real gliomas: overlap of the fitted density with the segmentation, and what a fit costs.

`python tests/benchmarks/single_scan.py --data DATA [--out DIR] [--only NAME ...]` fits every patient of DATA/train and
DATA/test with the command's defaults, prints a row as each is done and one JSON object at the end. With --out every fit
gets its folder with pictures and report. Seconds are wall and CPU seconds of the fit alone; preparing a patient (tissue
classes from its T1) is told beside it.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from hybridtumor.calibrate import calibrate, save_fit
from hybridtumor.errors import HybridTumorError
from hybridtumor.prepare import load_patient


def main(data: Path, out: Path | None, only: list[str]) -> dict[str, object]:
    rows = []
    for split in ("train", "test"):
        for folder in sorted((data / split / "patients").iterdir()):
            if only and not any(name in folder.name for name in only):
                continue
            rows.append({"split": split, "patient": folder.name, **fitted(folder, out)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    whole = [row["dice_whole"] for row in rows if "dice_whole" in row]
    core = [row["dice_core"] for row in rows if row.get("dice_core") is not None]
    return {
        "patients": len(rows),
        "failed": sum("error" in row for row in rows),
        "median_dice_whole": round(statistics.median(whole), 3),
        "median_dice_core": round(statistics.median(core), 3),
        "rows": rows,
    }


def fitted(folder: Path, out: Path | None) -> dict[str, object]:
    begun = time.process_time()
    try:
        patient = load_patient(folder)
        prepared = time.process_time()
        fit = calibrate(patient)
    except HybridTumorError as error:
        return {"error": str(error)}
    if out is not None:
        save_fit(fit, patient, out / folder.name)
    field, seed = fit.visits
    values = fit.estimate.values
    return {
        "dice_whole": _rounded(field.dice_whole),
        "dice_core": _rounded(field.dice_core),
        "one_seed_dice_whole": _rounded(seed.dice_whole),
        "one_seed_dice_core": _rounded(seed.dice_core),
        "converged": fit.estimate.converged,
        "at_bound": fit.estimate.at_bound,
        "D_mm2_per_day": _rounded(values["diffusion_white"]),
        "rho_per_day": _rounded(values["proliferation"], 4),
        "age_days": _rounded(values["age"], 0),
        "forward_solves": _rounded(fit.forward_solves, 0),
        "seconds_wall": _rounded(fit.seconds, 1),
        "seconds_cpu": round(time.process_time() - prepared, 1),
        "seconds_cpu_patient": round(prepared - begun, 1),
    }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    print(json.dumps(main(options.data, options.out, options.only), indent=1))
