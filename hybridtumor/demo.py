"""Ready-made scenarios: the demonstration on the embedded brain, and one plan beside no treatment."""

import math
import re
from importlib import resources
from pathlib import Path

from hybridtumor.errors import InputError
from hybridtumor.mesh_size import CELL_SIZE
from hybridtumor.scenario import EMBEDDED_PATIENT, RefineOptions, Scenario
from hybridtumor.yaml_file import load_yaml

FAST_CELL_SIZE = "4 mm"
FAST_HORIZON = 60.0


def demo_scenario(*, fast: bool = False) -> tuple[Scenario, str]:
    """Return ``examples/dose_what_if.yaml``, which the package carries, and the cell size to run it with.

    Parameters
    ----------
    fast
        Shorten it to a smoke test: coarse cells, 60 days, one image per day.
    """
    with resources.as_file(resources.files("hybridtumor") / "templates" / "dose_what_if.yaml") as path:
        scenario = Scenario.load(path)
    if not fast:
        return scenario, CELL_SIZE
    return scenario.model_copy(
        update={
            "horizon": FAST_HORIZON,
            "report_days": (0.0, FAST_HORIZON),
            "refine": RefineOptions(samples=1, seed=scenario.refine.seed),
        }
    ), FAST_CELL_SIZE


def single_plan_scenario(
    patient: str,
    plan: Path | None,
    days: float,
    every: float,
    *,
    mechanics: bool = False,
    baseline_date: str | None = None,
) -> Scenario:
    """Return the scenario that compares one plan with no treatment.

    Parameters
    ----------
    patient
        ``mni152``, a BraTS folder or a patient folder.
    plan
        YAML list of treatments, as under an arm of a scenario; None: no treatment alone.
    days, every
        Horizon and distance of the report days, days.
    mechanics
        Let the tumour push the tissue aside.
    baseline_date
        Date of the baseline scan; the plan may then give dates.

    Raises
    ------
    InputError
        No such plan, or one that cannot be used.
    """
    if not (0 < days < math.inf) or not (0 < every < math.inf):
        raise InputError(
            f"days: expected a positive horizon and a positive distance of reports, got {days:g} and {every:g}."
        )
    arms: dict[str, object] = {"untreated": []}
    folder = Path()
    if plan is not None:
        arms[_arm_name(plan)] = load_yaml(plan)
        folder = plan.parent
    reports = [every * i for i in range(math.ceil(days / every))]
    content = {
        "schema_version": 1,
        "patient": EMBEDDED_PATIENT if patient == EMBEDDED_PATIENT else str(Path(patient).resolve()),
        "horizon": f"{days:g} days",
        "report_days": [*reports, days],
        "arms": arms,
        **({"mechanics": {}} if mechanics else {}),
        **({} if baseline_date is None else {"baseline_date": baseline_date}),
    }
    return Scenario.parse(content, folder=folder, name="plan" if plan is None else str(plan))


def _arm_name(plan: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", plan.name.split(".")[0]).strip("-")
    return name if name and name != "untreated" else "plan"
