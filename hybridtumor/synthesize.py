"""The command that makes synthetic patients; the work is done in `hybridtumor.cohort`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hybridtumor import terminal


def synthesize(
    *,
    count: Annotated[int, Parameter(help="How many patients; those that are there already count.")],
    out: Annotated[Path, Parameter(help="Folder of the cohort: new, or one that an earlier call has begun.")],
    seed: Annotated[int, Parameter(help="Of everything random: the same seed gives the same patients.")] = 0,
    follow_ups: Annotated[int, Parameter(help="Visits after day 0, under each patient's own plan.")] = 0,
    refine: Annotated[bool, Parameter(help="Let the trained networks make the follow-up images.", negative="")] = False,
) -> None:
    """Make a cohort of synthetic patients with labels, fields and plans, for training other models."""
    from hybridtumor.cohort import CohortSettings, make_cohort  # it loads the finite-element solver

    with terminal.progress() as tell:
        names = make_cohort(out, count, CohortSettings(seed, follow_ups, refine), progress=tell)
    print(f"{len(names)} patients: {out}")  # noqa: T201
