"""draws.csv and draws.json of a run: one row for each arm of each draw, and what they come to."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridtumor.draws import ArmDraw, Draw, DrawSetting
from hybridtumor.rundir import DRAWS, day_label
from hybridtumor.scan import write_bytes

TABLE = "draws.csv"


def save_draws(folder: Path, draws: Sequence[Draw], setting: DrawSetting, figures: dict[str, Any]) -> None:
    """Write both files of a run."""
    write_bytes(folder / TABLE, table(draws, setting).encode())
    write_bytes(folder / DRAWS, (json.dumps(figures, indent=1) + "\n").encode())


def table(draws: Sequence[Draw], setting: DrawSetting) -> str:
    """Return the rows as CSV: draw, arm, parameters, burden and volume at the report days (mm³), day of progression.

    A draw has as many rows as there are arms; the day of progression is empty where there is none.
    """
    labels = [day_label(day) for day in setting.days]
    names = [parameter.name for parameter in setting.calibration.parameters]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    quantities = [f"{quantity}_mm3_{label}" for quantity in ("burden", "volume") for label in labels]
    writer.writerow(["draw", "arm", *names, *quantities, "progression_day"])
    for number, (values, arms) in enumerate(draws, start=1):
        parameters = [f"{values[name]:.9g}" for name in names]
        writer.writerows([number, arm, *parameters, *_cells(found)] for arm, found in arms.items())
    return stream.getvalue()


def _cells(found: ArmDraw) -> list[str]:
    day = "" if found.progression is None else f"{found.progression:.4f}"
    return [*(f"{value:.4f}" for value in (*found.burden, *found.volume)), day]
