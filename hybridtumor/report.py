"""The report: one HTML page that holds its pictures and needs no network.

Every text that came from outside (patient, arms, warnings) is escaped by the template engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridtumor
from hybridtumor import pictures, pictures_difference
from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.pages import figure, template
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.pictures_mass_effect import mass_effect
from hybridtumor.plots_curves import curves
from hybridtumor.plots_dose import dose_response, dose_volume
from hybridtumor.plots_fan import fan
from hybridtumor.plots_style import ArmStyle, arm_styles
from hybridtumor.plots_tradeoff import trade_off
from hybridtumor.report_answer import answer
from hybridtumor.report_draws import arm_rows, caption, pair_rows, parameter_rows
from hybridtumor.report_outcomes import FEW, Outcome, outcomes, reference
from hybridtumor.report_table import by_day, glance, sentences, structures, treatment
from hybridtumor.scan import write_bytes
from hybridtumor.story import ArmSource, ArmStory, Story, tell
from hybridtumor.summary import arm_figures, mesh_figures
from hybridtumor.therapy import UNTREATED, TherapyPlan

if TYPE_CHECKING:
    from hybridtumor.follow_up import FollowUp

ORIENTATION = "Radiological orientation: R is the patient's right."


@dataclass(frozen=True)
class Report:
    """A finished page and its pictures.

    Parameters
    ----------
    html
        The page, self-contained.
    pictures
        File name to PNG.
    """

    html: str
    pictures: dict[str, bytes]

    def save(self, path: Path | str) -> None:
        """Write the page whole or not at all."""
        write_bytes(Path(path), self.html.encode())


def report(
    patient: Patient,
    forecast: Forecast,
    follow_up: "FollowUp | None" = None,
    plan: TherapyPlan = UNTREATED,
    response: TreatmentResponse | None = None,
    *,
    arm: str = "forecast",
) -> Report:
    """Make the report of one forecast.

    Parameters
    ----------
    patient
        The prepared patient.
    forecast
        Its growth under `plan`.
    follow_up
        The images that go with the forecast; None: fields only.
    plan, response
        For the dose figures.
    arm
        What to call it.

    Raises
    ------
    InputError
        The patient has no baseline scan to draw on, or the forecast was treated and the plan is missing.
    """
    treated = any(kill.any() for kill in forecast.log_kill)
    if treated and not (plan.active.courses or plan.active.drugs):
        raise InputError("report: expected the plan of a treated forecast, got none. Pass the plan that was simulated.")
    figures = arm_figures(patient, forecast, plan, response or TreatmentResponse())
    source = ArmSource(
        figures=figures,
        density=lambda day: forecast.at(day)[0],
        scan=lambda modality, day: None if follow_up is None else follow_up.at(day).images.get(modality),
        spread=lambda modality, day: None if follow_up is None else follow_up.at(day).std.get(modality),
        dose=lambda: plan.active.total_dose(forecast.grid) if plan.active.courses else None,
        displacement=lambda day: (
            None if forecast.displacement is None else forecast.displacement[forecast.days.index(day)]
        ),
    )
    require_scans(patient)
    story = tell(patient, forecast.density[0], {arm: source})
    summary = {
        "patient": patient.id,
        "horizon_days": forecast.days[-1],
        "mesh": mesh_figures(forecast),
        "arms": {arm: figures},
    }
    return compose(story, {arm: plan}, summary)


def compose(
    story: Story,
    plans: dict[str, TherapyPlan],
    summary: Mapping[str, Any],
    *,
    mesh_picture: bytes | None = None,
    warnings: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
) -> Report:
    """Draw the pictures of a story and set the page.

    Parameters
    ----------
    plans
        Plan of every arm.
    summary
        Content of ``summary.json``.
    mesh_picture
        PNG of the mesh cut open.
    facts
        Name and value of what else is worth telling: versions, seconds per stage.
    """
    figures = {arm.name: arm.figures for arm in story.arms}
    plans = {name: plans.get(name, UNTREATED) for name in figures}
    styles, arms = arm_styles(plans), outcomes(figures, plans)
    draws, calibration = summary.get("draws"), summary.get("calibration")
    top = _top(story, plans, styles, arms) | {
        "mesh": mesh_picture,
        "fan": None if draws is None else fan(draws, styles),
    }
    drawn = {f"{name}.png": png for name, png in top.items() if png is not None}
    sections = []
    for arm in story.arms:
        found = _pictures_of(story, arm)
        drawn |= {f"{arm.name}_{kind}.png": png for kind, png in found.items() if png is not None}
        sections.append(found | _text_of(arm, plans[arm.name], styles[arm.name]))
    html = template("report.html").render(
        title="What if? Tumour growth under treatment",
        story=story,
        summary=summary,
        answer=answer(arms),
        draws=None if draws is None else _draws(draws),
        calibration=None if calibration is None else {**calibration, "rows": parameter_rows(calibration)},
        arms=sections,
        many=len(arms) > FEW,
        left_out=max(len(_treated(arms)) - pictures_difference.MOST, 0),
        table=glance(figures, arms, styles),
        horizon=f"{summary['horizon_days']:g}",
        pictures=top,
        orientation=ORIENTATION,
        version=hybridtumor.__version__,
        warnings=list(warnings),
        facts=list(facts),
        figure=figure,
    )
    return Report(html, drawn)


def _top(
    story: Story, plans: Mapping[str, TherapyPlan], styles: Mapping[str, ArmStyle], arms: Sequence[Outcome]
) -> dict[str, bytes | None]:
    """Draw what compares the arms; None for what they give no cause for."""
    free = reference(arms)
    return {
        "trade_off": trade_off(arms, styles),
        "dose_response": dose_response(arms, styles),
        "curves": curves(story, plans, styles),
        "dvh": dose_volume({arm.name: arm.figures for arm in story.arms}, styles),
        "difference": pictures_difference.difference(
            story, styles, [arm.name for arm in _treated(arms)], None if free is None else free.name
        ),
        "comparison": pictures.comparison(story, styles),
    }


def _draws(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template says of the draws."""
    return {
        "caption": caption(figures),
        "arms": arm_rows(figures),
        "pairs": pair_rows(figures),
        "statements": [figures["statement"], *figures["notes"]],
    }


def _pictures_of(story: Story, arm: ArmStory) -> dict[str, bytes | None]:
    """Draw one arm; nothing of an arm that is not told in full."""
    if not arm.in_full:
        return dict.fromkeys(("mri", "density", "mass_effect", "dose", "spread"))
    return {
        "mri": pictures.follow_up(story, arm),
        "density": pictures.density(story, arm),
        "mass_effect": mass_effect(story, arm),
        "dose": pictures.dose(story, arm),
        "spread": pictures.spread(story, arm),
    }


def _text_of(arm: ArmStory, plan: TherapyPlan, style: ArmStyle) -> dict[str, Any]:
    """Return what the template says of an arm in words and numbers."""
    return {
        "name": arm.name,
        "style": style,
        "in_full": arm.in_full,
        "treatment": treatment(plan, arm.days[-1]),
        "sentences": sentences(arm.figures),
        "days": [f"{day:g}" for day in arm.days],
        "table": by_day(arm.figures),
        "structures": structures(arm.figures),
        "sample": _sample(arm.figures),
    }


def _sample(figures: Mapping[str, Any]) -> str:
    """Say which of the generated images is drawn, as far as the figures tell."""
    samples = (figures.get("mri") or {}).get("samples")
    if samples is None:
        return "A generated sample"
    return "The only generated sample" if samples == 1 else f"One of {samples} generated samples"


def _treated(arms: Sequence[Outcome]) -> list[Outcome]:
    return [arm for arm in arms if arm.treated]


def require_scans(patient: Patient) -> None:
    """Raise InputError when there is no baseline scan to draw on."""
    if not patient.baseline.scans:
        raise InputError(f"patient {patient.id}: expected a baseline scan to draw on, found only a segmentation.")
