"""How do I bring my own patient? A BraTS folder, or a folder with patient.yaml, through the whole line.

python examples/own_patient.py PATIENT_FOLDER RUN_FOLDER
"""

import sys
from pathlib import Path

import hybridtumor as ht

PLAN = {"prescription": "60 Gy", "fractions": 30, "first_day": 14, "target": "estro-eano-2023"}


def main(patient: str, run: str, samples: int = 4, cell_size: str = "auto") -> Path:
    scenario = ht.Scenario.parse(
        {
            "schema_version": 1,
            "patient": patient,
            "horizon": "120 days",
            "report_days": [0, 60, 120],
            "arms": {"untreated": [], "radiotherapy": [{"radiation": PLAN}]},
            "refine": {"samples": samples, "seed": 0},
        }
    )
    folder = ht.compare(scenario, run, cell_size=cell_size)
    print(f"report: {folder.report_path}")
    return folder.report_path


if __name__ == "__main__":
    main(*sys.argv[1:3])
