"""``hybridtumor optimize-dose``: the dose of one plan, redistributed for the least expected burden."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from hybridtumor import terminal

YAML = {".yaml", ".yml"}


def optimize_dose(
    patient: Annotated[
        str, Parameter(help="mni152, a BraTS folder, a folder with patient.yaml; or a scenario file with its arms.")
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder to make: new or empty.")],
    plan: Annotated[
        Path | None, Parameter(help="YAML list of treatments: the uniform plan, unless a scenario is given.")
    ] = None,
    arm: Annotated[str | None, Parameter(help="Arm of the scenario; default: the only one with radiation.")] = None,
    days: Annotated[float, Parameter(help="Horizon, unless a scenario is given.")] = 180,
    calibration: Annotated[
        Path | None,
        Parameter(help="calibration.json or its folder: draws are from its posterior, else from the prior."),
    ] = None,
    draws: Annotated[int, Parameter(help="Draws of the parameters; 0: the parameters alone.")] = 8,
    seed: Annotated[int, Parameter(help="Of the draws and of the perturbations.")] = 0,
    max_dose: Annotated[
        str | None, Parameter(help="Largest dose, or share of the prescription; default: 120 %.")
    ] = None,
    min_target_dose: Annotated[
        str | None, Parameter(help="Smallest dose in the clinical target, or share; default: 90 %.")
    ] = None,
    fall_off: Annotated[
        str | None, Parameter(help="Steepest dose, such as '4 Gy/mm'; default: that of the uniform plan.")
    ] = None,
    integral: Annotated[
        Literal["physical", "eqd2"], Parameter(help="What may not grow in the brain: dose, or EQD2 with α/β = 3 Gy.")
    ] = "physical",
    reach: Annotated[float, Parameter(help="How far beyond the target the dose may change, mm.")] = 20.0,
    spacing: Annotated[
        float | None, Parameter(help="Distance of the nodes that move, mm; default: at least 4.")
    ] = None,
    iterations: Annotated[int, Parameter(help="Steps at most.")] = 12,
    perturbations: Annotated[int, Parameter(help="Random changes that have to be worse than the optimum.")] = 8,
    cell_size: Annotated[str, Parameter(help="Edge length of the cells while the dose is sought, or auto.")] = "auto",
    overwrite: Annotated[bool, Parameter(help="Replace what an earlier call has written.", negative="")] = False,
) -> None:
    """Redistribute the dose of a plan, within limits, for the least expected burden. Not for treatment."""
    from hybridtumor.demo import single_plan_scenario
    from hybridtumor.dose_options import DoseOptions
    from hybridtumor.errors import InputError
    from hybridtumor.optimize_dose import optimize_plan
    from hybridtumor.scenario import Scenario

    options = DoseOptions(max_dose, min_target_dose, fall_off, integral, reach, spacing, iterations, perturbations)
    if Path(patient).suffix.lower() in YAML:
        if plan is not None:
            raise InputError("plan: expected either a scenario file or --plan, got both. Remove one.")
        scenario = Scenario.load(patient)
    else:
        scenario = single_plan_scenario(patient, plan, days, days)
    with terminal.progress() as tell:
        figures = optimize_plan(
            scenario,
            out,
            arm=arm,
            options=options,
            calibration=calibration,
            draws=draws,
            seed=seed,
            cell_size=cell_size,
            overwrite=overwrite,
            progress=tell,
        )
    if terminal.is_root():
        _print(figures, out)


def _print(figures: dict[str, Any], out: Path) -> None:
    """Show the gain, the limits and whether the optimum was confirmed."""
    from hybridtumor.calibration_file import RESEARCH_ONLY

    limits = figures["limits"]
    rows = [
        (name, f"{limits[name]['limit']:.4g}", f"{limits[name]['uniform']:.4g}", f"{limits[name]['optimised']:.4g}")
        for name in ("integral_Gy_ml", "maximum_Gy", "target_minimum_Gy", "steepest_Gy_per_mm")
    ]
    terminal.print_table("Limits", ("", "limit", "uniform", "optimised"), rows)
    gain = figures.get("gain_on_default_mesh", figures["gain"])
    low, high = gain["gain_interval_90"]
    print(  # noqa: T201
        f"expected burden on day {figures['horizon_days']:g}: {gain['expected_uniform_mm3'] / 1000:.3f} ml uniform,"
        f" {gain['expected_optimised_mm3'] / 1000:.3f} ml optimised ({-gain['gain_expected']:+.2%})"
    )
    print(  # noqa: T201
        f"gain per draw: median {gain['gain_median']:.2%}, 90 % interval {low:.2%} to {high:.2%},"
        f" better in {gain['share_of_draws_better']:.0%} of {figures['draws']['count']} draws"
        f" ({figures['draws']['source']})"
    )
    around = figures["perturbations"]
    if around["tried"]:
        print(  # noqa: T201
            f"the best of {around['tried']} random changes changes the burden by"
            f" {around['best_relative_change']:+.3%}: the optimum is"
            f" {'confirmed' if around['optimum_confirmed'] else 'not confirmed'}"
        )
    print(figures["search"]["reason"])  # noqa: T201
    print(f"{out / 'optimization.json'}\n{RESEARCH_ONLY}")  # noqa: T201
