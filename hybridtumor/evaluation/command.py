"""The command ``hybridtumor evaluate``: what it takes; the work is done in `hybridtumor.evaluation.running`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate, with what, and where the figures go."""

    split: Annotated[Literal["test", "train"], Parameter(help="Which real cases; those of train were learnt from.")] = (
        "test"
    )
    cases: Annotated[tuple[str, ...], Parameter(help="Only these real cases and phantoms, by name.", negative="")] = ()
    data: Annotated[
        Path | None, Parameter(help="Folder with test/patients and train/patients; HYBRIDTUMOR_DATA by default.")
    ] = None
    phantoms: Annotated[Path | None, Parameter(help="Folder of prepared phantoms to evaluate on too.")] = None
    real: Annotated[bool, Parameter(help="Evaluate on real cases.")] = True
    samples: Annotated[int, Parameter(help="Images in the ensemble: an even number of at least 4.")] = 8
    independent: Annotated[
        bool,
        Parameter(help="Draw the members independently, not in pairs: coverage and ranks become finer.", negative=""),
    ] = False
    seed: Annotated[int, Parameter(help="Of the noise, the patches and the intervals.")] = 0
    weights: Annotated[Path | None, Parameter(help="Weights of the image layer; those of the package by default.")] = (
        None
    )
    students: Annotated[
        tuple[Path, ...],
        Parameter(name="--student", help="Weights of a student, evaluated beside them; repeatable.", negative=""),
    ] = ()
    cache: Annotated[
        Path | None, Parameter(help="Folder of prepared training cases: to look whether they were learnt by heart.")
    ] = None
    estimator: Annotated[
        Path | None, Parameter(help="Weights that read density off images; those of the package by default.")
    ] = None
    contact_sheet: Annotated[
        bool, Parameter(help="Also make a blind sheet of real and generated crops, and its key.", negative="")
    ] = False
    doses: Annotated[bool, Parameter(help="Make dose series too: nine more images of each case.")] = True
    out: Annotated[Path, Parameter(help="Folder of the table: JSON, CSV and HTML.")] = Path("run/evaluation")


def evaluate(options: Annotated[EvaluateOptions, Parameter(name="*")] = EvaluateOptions()) -> None:
    """Put figures on generated images beside those of the unchanged scan, the render and the regression."""
    from hybridtumor.evaluation.running import evaluate as run_evaluate

    run_evaluate(options)
