"""The ``calibrate`` command: it loads the solver when it runs, not when the command line is parsed."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hybridtumor import terminal


def calibrate(
    patient: Annotated[str, Parameter(help="A BraTS folder (one scan), or a folder with patient.yaml and its visits.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder to make: new or empty.")],
    plan: Annotated[
        Path | None, Parameter(help="YAML list of treatments given over the visits, as under an arm of a scenario.")
    ] = None,
    baseline_date: Annotated[
        str | None, Parameter(help="Date of the baseline scan, such as 2024-03-01: the plan may then give dates.")
    ] = None,
    unknown: Annotated[
        list[str] | None,
        Parameter(help="A parameter to look for, such as alpha; default: growth, the response to what was given,"
                  " thresholds.", negative=""),
    ] = None,
    hold_out: Annotated[int, Parameter(help="Predict so many of the last visits instead of explaining them.")] = 0,
    starts: Annotated[int, Parameter(help="Descents from so many points of the prior; draws a waterfall.")] = 1,
    seed: Annotated[int, Parameter(help="Of these points.")] = 0,
    sample: Annotated[
        int, Parameter(help="Draw from the posterior too, by so many steps of 16 walkers; hundreds, with coarse cells.")
    ] = 0,
    adc_min: Annotated[
        float | None, Parameter(help="ADC at carrying capacity, mm²/s; default: that of the densest tumour.")
    ] = None,
    cell_size: Annotated[str, Parameter(help="Edge length of the mesh's cells at the tumour, with its unit.")] = "3 mm",
) -> None:  # fmt: skip
    """Find a patient's own growth and response from their scans, with intervals; simulate and compare take it."""
    from hybridtumor.calibrate import calibrate as run_calibration
    from hybridtumor.calibrate import save_fit
    from hybridtumor.calibration.fit import FitOptions
    from hybridtumor.demo import single_plan_scenario
    from hybridtumor.prepare import load_patient
    from hybridtumor.therapy import UNTREATED

    with terminal.progress() as tell:
        prepared = load_patient(patient, progress=lambda share: tell("patient", share))
        given = UNTREATED
        if plan is not None:
            last = max(prepared.visits[-1].day, 1.0)
            scenario = single_plan_scenario(patient, plan, last, last, baseline_date=baseline_date)
            given = next(p for name, p in scenario.plans(prepared).items() if name != "untreated")
        tell("fit", 0.0)
        options = FitOptions(cell_size, starts, seed, sample_steps=sample, adc_minimum=adc_min)
        fit = run_calibration(prepared, given, options=options, unknowns=unknown, hold_out=hold_out)
        tell("fit", 1.0)
        report = save_fit(fit, prepared, out)
        tell("report", 1.0)
    if not terminal.is_root():
        return
    rows = [(p.name, f"{p.estimate:.4g}", f"{p.interval[0]:.3g} to {p.interval[1]:.3g}", p.unit)
            for p in fit.calibration().parameters]  # fmt: skip
    terminal.print_table("Calibration", ("parameter", "estimate", "90 % interval", "unit"), rows)
    for sentence in fit.sentences:
        print(sentence)  # noqa: T201
    print(report)  # noqa: T201
