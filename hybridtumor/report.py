"""The report: one HTML page that holds its pictures and needs no network.

Every text that came from outside (patient, arms, warnings) is escaped by the template engine.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import hybridtumor
from hybridtumor import pictures
from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.scan import write_bytes
from hybridtumor.story import ArmSource, ArmStory, Story, tell
from hybridtumor.summary import arm_figures, mesh_figures
from hybridtumor.therapy import UNTREATED, TherapyPlan

if TYPE_CHECKING:
    from hybridtumor.refine import FollowUp

ORIENTATION = "Radiological orientation: R is the patient's right."
LABEL_NAMES = {"enhancing": "Enhancing, ml", "edema": "Oedema, ml", "necrosis": "Necrosis, non-enhancing core, ml"}


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
        scan=lambda modality, day: None if follow_up is None else follow_up.at(day).mean.get(modality),
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
    top = {
        "curves.png": pictures.curves(story, plans),
        "comparison.png": pictures.comparison(story),
        "mesh.png": mesh_picture,
    }
    drawn = {name: png for name, png in top.items() if png is not None}
    arms = []
    for number, arm in enumerate(story.arms):
        found = {
            "mri": pictures.follow_up(story, arm),
            "density": pictures.density(story, arm),
            "mass_effect": pictures.mass_effect(story, arm),
            "dose": pictures.dose(story, arm),
            "spread": pictures.spread(story, arm),
        }
        drawn |= {f"{arm.name}_{kind}.png": png for kind, png in found.items() if png is not None}
        arms.append(found | _arm_text(arm, plans.get(arm.name, UNTREATED), number))
    html = _template().render(
        title="What if? Tumour growth under treatment",
        story=story,
        summary=summary,
        arms=arms,
        rows=_rows(story),
        horizon=f"{summary['horizon_days']:g}",
        pictures={name: drawn.get(f"{name}.png") for name in ("curves", "comparison", "mesh")},
        orientation=ORIENTATION,
        version=hybridtumor.__version__,
        warnings=list(warnings),
        facts=list(facts),
        figure=_figure,
    )
    return Report(html, drawn)


def require_scans(patient: Patient) -> None:
    """Raise InputError when there is no baseline scan to draw on."""
    if not patient.baseline.scans:
        raise InputError(f"patient {patient.id}: expected a baseline scan to draw on, found only a segmentation.")


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("hybridtumor"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html")


def _figure(png: bytes, caption: str) -> Markup:
    source = b64encode(png).decode()
    return Markup(
        '<figure><img alt="{0}" src="data:image/png;base64,{1}"><figcaption>{0}</figcaption></figure>'
    ).format(caption, source)


def _rows(story: Story) -> list[dict[str, Any]]:
    """Return the rows of the table at the top: day 0, then every arm on its last day."""
    first = story.arms[0].figures
    rows = [{"name": "day 0", "colour": "", "cells": ["", "", "", "", *_volumes(first, 0), ""]}]
    for number, arm in enumerate(story.arms):
        dose = arm.figures["dose"] or {}
        given = [_number(dose.get(key)) for key in ("prescribed_Gy", "mean_tumour_Gy", "BED_Gy", "EQD2_Gy")]
        progression = arm.figures["time_to_progression_days"]
        cells = [*given, *_volumes(arm.figures, -1), "–" if progression is None else f"{progression:.0f}"]
        rows.append({"name": arm.name, "colour": pictures.arm_colour(number), "cells": cells})
    return rows


def _volumes(figures: Mapping[str, Any], index: int) -> list[str]:
    values = [figures["burden_mm3"][index], *(figures["volume_mm3"][label][index] for label in LABEL_NAMES)]
    return [f"{value / 1000:.1f}" for value in values]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _arm_text(arm: ArmStory, plan: TherapyPlan, number: int) -> dict[str, Any]:
    """Return what the template says of an arm in words and numbers."""
    table = [("Burden, ml", [f"{value / 1000:.2f}" for value in arm.figures["burden_mm3"]])]
    if "imaged_burden_mm3" in arm.figures["burden_curve"]:
        imaged = [f"{value / 1000:.2f}" for value in arm.figures["imaged_burden_mm3"]]
        table.append(("Burden with damaged cells, ml", imaged))
    table += [
        (name, [f"{value / 1000:.2f}" for value in arm.figures["volume_mm3"][label]])
        for label, name in LABEL_NAMES.items()
    ]
    table += _mass_effect_rows(arm.figures)
    seen = arm.figures.get("mri") or {}
    for label, name in LABEL_NAMES.items():
        if seen.get("days") == list(arm.days):
            table.append((f"{name}, on the images", [f"{value / 1000:.2f}" for value in seen["volume_mm3"][label]]))
    return {
        "name": arm.name,
        "colour": pictures.arm_colour(number),
        "treatment": treatment(plan, arm.days[-1]),
        "days": [f"{day:g}" for day in arm.days],
        "table": table,
    }


def _mass_effect_rows(figures: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the figures of mass effect of an arm by day; nothing without mechanics."""
    volumes = figures.get("ventricle_volume_mm3")
    if volumes is None:
        return []
    change = [f" ({volume / volumes[0] - 1:+.0%})" if volumes[0] > 0 else "" for volume in volumes]
    return [
        ("Largest displacement, mm", [f"{value:.1f}" for value in figures["max_displacement_mm"]]),
        ("Ventricles, ml", [f"{v / 1000:.1f}{c}" for v, c in zip(volumes, change, strict=True)]),
        ("Midline shift, mm", [f"{value:.1f}" for value in figures["midline_shift_mm"]]),
    ]


def treatment(plan: TherapyPlan, horizon: float) -> str:
    """Return in one sentence what a plan gives before the horizon."""
    parts = []
    for course in plan.active.courses:
        days = course.fraction_days
        early = sum(day < horizon for day in days)
        part = f"{course.prescribed_dose:g} Gy in {course.fractions} fractions, days {days[0]:g} to {days[-1]:g}"
        parts.append(part if early == len(days) else f"{part}, {early} of them before day {horizon:g}")
    for drug in plan.active.drugs:
        given = [day for day, _ in drug.doses if day < horizon]
        if given:
            parts.append(f"{len(given)} doses of {drug.drug}, days {given[0]:g} to {given[-1]:g}")
    return "; ".join(parts) + "." if parts else "No treatment."
