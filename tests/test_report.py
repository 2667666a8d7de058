"""The report stands alone, escapes what came from outside, and says what is synthetic."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
from ball_brain import ball_dose
from markupsafe import escape

from hybridtumor.errors import InputError
from hybridtumor.follow_up import FollowUp
from hybridtumor.forecast import Forecast
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.patient import Patient, Visit
from hybridtumor.report import Report, compose, report
from hybridtumor.report_outcomes import CHOSEN, FEW, outcomes, shown_in_full
from hybridtumor.report_table import treatment
from hybridtumor.story import ArmSource, tell
from hybridtumor.summary import arm_figures
from hybridtumor.therapy import Chemotherapy, Fractionation, TherapyPlan

LARGEST_PAGE = 12e6
"""Bytes of a page of 15 arms."""

LATER_KEYS = ("structures", "dvh", "tumour_control", "response", "coverage")
"""Figures that runs of earlier versions do not have."""

HOSTILE = "<script>alert('x')<img src=x>&\"'"


def forecast_of(patient: Patient, days: tuple[float, ...] = (0.0, 30.0)) -> Forecast:
    assert patient.density is not None
    fields = tuple(patient.density.values * np.float32(1 - day / 100) for day in days)
    curve = np.array([(day, float(u.sum())) for day, u in zip(days, fields, strict=True)])
    return Forecast(patient.grid, days, fields, tuple(np.zeros_like(u) for u in fields), curve)


@cache
def page_of(hostile: bool = False, *, images: bool = True) -> Report:
    """A page that several tests read."""
    return page(small_run.small_patient(HOSTILE if hostile else "small"), HOSTILE if hostile else "arm", images=images)


def page(patient: Patient, arm: str = "arm", plan: TherapyPlan | None = None, *, images: bool = True) -> Report:
    forecast = forecast_of(patient)
    refiner = small_run.StandInRefiner()
    visits = refiner.visits(forecast, patient, plan, untreated=None, samples=2, seed=0, progress=lambda *_: None)
    follow_up = FollowUp(patient.grid, tuple(visits)) if images else None
    return report(patient, forecast, follow_up, plan or TherapyPlan(), arm=arm)


def made_up(name: str, treated: bool, level: float, base: dict[str, Any]) -> dict[str, Any]:
    """Figures of an arm that have all keys; `level` from 0 to 1 is how much is given."""
    structure = {"mean_Gy": 20.0, "max_Gy": 60.0, "D98_Gy": 1.0, "D2_Gy": 59.0, "mean_EQD2_Gy": 30 * level,
                 "gEUD_EQD2_Gy": 25.0, "NTCP": 0.02}  # fmt: skip
    doses = list(np.linspace(0, 60 * level, 50))
    dose = {"prescribed_Gy": 60 * level, "mean_tumour_Gy": 60 * level, "BED_Gy": 72 * level, "EQD2_Gy": 60 * level}
    histogram = {"dose_Gy": doses, "share": list(np.linspace(1, 0, 50))}
    given = ("tumour", "brain", HOSTILE)
    return base | {
        "burden_mm3": [17000.0, 50000 * (1 - 0.9 * level)],
        "dose": dose | {"structures": dict.fromkeys(given, structure)} if treated else None,
        "dvh": dict.fromkeys(given, histogram) if treated else None,
        "tumour_control": {"surviving_cells": 3.2e7 * (1 - level), "TCP": level} if treated else None,
        "response": {"category": ["PD" if name == "untreated" else "PR"]},
        "coverage": {"volume_ml": 20.0, "standard": 0.8, "density_iso_volume": 0.85} if treated else None,
    }


def many_arms(names: Sequence[str], *, images: bool = False, without: tuple[str, ...] = (), samples: int = 2) -> Report:
    """The page of plans and of no treatment, of one patient, with figures that are made up: the last gives most."""
    patient = small_run.small_patient()
    forecast = forecast_of(patient)
    base = arm_figures(patient, forecast, TherapyPlan(), TreatmentResponse())
    plans, figures = {"untreated": TherapyPlan()}, {"untreated": made_up("untreated", False, 0, base)}
    for number, name in enumerate(names, start=1):
        level = number / len(names)
        course = Fractionation(ball_dose(patient.grid, 60 * level), 10 + 10 * (number % 3), 1, prescription=60 * level)
        plans[name] = TherapyPlan.of(course)
        figures[name] = made_up(name, True, level, base)
    for entry in figures.values():
        entry["mri"] = {"samples": samples} if images else {}
        for key in without:
            (entry if key in entry else entry["dose"] or {}).pop(key, None)

    def scan(modality: str, _: float) -> np.ndarray | None:
        return patient.baseline.scans[modality].values if images else None

    def source(arm: str) -> ArmSource:
        return ArmSource(
            figures[arm], lambda day: forecast.at(day)[0], scan, scan, lambda: plans[arm].total_dose(patient.grid)
        )

    full = shown_in_full(outcomes(figures, plans))
    story = tell(patient, forecast.density[0], {arm: source(arm) for arm in figures}, full)
    return compose(story, plans, {"horizon_days": 30.0, "mesh": {"cells": 7}, "arms": figures})


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags_of(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.tags


def test_names_are_escaped() -> None:
    html = page_of(True).html
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;" in html
    assert {tag for tag, _ in tags_of(html)}.isdisjoint({"script", "iframe", "object"})


def test_the_page_needs_no_network() -> None:
    html = page_of().html
    assert not re.findall(r"(?:https?:)?//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html))
    images = [attributes for tag, attributes in tags_of(html) if tag == "img"]
    assert len(images) == 5
    assert all((a["src"] or "").startswith("data:image/png;base64,") and a["alt"] for a in images)


def test_it_says_that_it_is_research_and_synthetic() -> None:
    html = page_of().html
    assert "Research use only" in html
    assert "Every follow-up image below is synthetic" in html
    assert "The baseline scan is synthetic too" in html
    assert "Only the day-0 scan is real" in page(replace(small_run.small_patient(), synthetic=False)).html


def test_images_are_one_sample_and_the_captions_say_so() -> None:
    patient, seen = small_run.small_patient(), forecast_of(small_run.small_patient())
    visits = tuple(small_run.StandInRefiner().visits(
        seen, patient, None, untreated=None, samples=2, seed=0, progress=lambda *_: None
    ))  # fmt: skip
    bland = tuple(replace(visit, images=visit.mean) for visit in visits)
    pictures = [report(patient, seen, FollowUp(patient.grid, some)).pictures for some in (visits, bland)]
    assert pictures[0]["forecast_mri.png"] != pictures[1]["forecast_mri.png"]
    assert "A generated sample on each report day" in page_of().html
    assert "of each arm one generated sample" in page_of().html
    assert "ean of the generated images" not in page_of().html


@pytest.mark.parametrize(
    ("samples", "said"), [(1, "The only generated sample on"), (8, "One of 8 generated samples on")]
)
def test_captions_count_the_samples_of_a_run(samples: int, said: str) -> None:
    assert said in many_arms("a", images=True, samples=samples).html


def test_dose_is_drawn_when_there_is_one() -> None:
    patient = small_run.small_patient()
    plan = TherapyPlan.of(
        Fractionation(ball_dose(patient.grid, 60.0), 30, 5, prescription=60.0), Chemotherapy.temozolomide(5)
    )
    treated, untreated = page(patient, plan=plan), page_of()
    assert "arm_dose.png" in treated.pictures
    assert "arm_dose.png" not in untreated.pictures
    assert "60 Gy in 30 fractions" in treated.html
    assert "No treatment." in untreated.html


def test_fields_alone_make_a_report() -> None:
    made = page_of(images=False)
    assert set(made.pictures) == {"curves.png", "arm_density.png"}


def test_pictures_are_png_and_repeatable() -> None:
    one, other = page_of(), page(small_run.small_patient())
    assert all(png.startswith(b"\x89PNG") for png in one.pictures.values())
    assert one.pictures == other.pictures
    assert one.html == other.html


@cache
def fifteen() -> Report:
    return many_arms([f"p{number}" for number in range(1, 16)], images=True)


def test_fifteen_plans_make_one_page_that_is_not_too_large() -> None:
    made = fifteen()
    assert len(made.html.encode()) < LARGEST_PAGE
    for name in ("trade_off.png", "dose_response.png", "dvh.png", "difference.png", "comparison.png", "curves.png"):
        assert made.pictures[name].startswith(b"\x89PNG")
    assert all(f"p{number}" in made.html for number in range(1, 16))
    assert sum(tag == "details" for tag, _ in tags_of(made.html)) == 16


def test_of_many_arms_a_few_are_shown_in_full_and_the_page_says_which() -> None:
    drawn = {name.removesuffix("_mri.png") for name in fifteen().pictures if name.endswith("_mri.png")}
    assert len(drawn) == CHOSEN
    assert {"untreated", "p15"} < drawn
    said = re.search(r"Pictures are drawn of ([^:]*):", fifteen().html)
    assert said is not None
    assert set(said[1].split(", ")) == drawn


def test_few_arms_are_all_shown_in_full() -> None:
    made = many_arms("abcdef"[: FEW - 1])
    assert sum(name.endswith("_density.png") for name in made.pictures) == FEW
    assert "details" not in {tag for tag, _ in tags_of(made.html)}


def test_the_page_answers_above_its_table() -> None:
    html = fifteen().html
    assert "Of 15 plans, p15 leaves the least tumour burden on day 30" in html
    assert html.index("Of 15 plans, p15") < html.index("<table")
    assert "Model output, not advice." in html
    assert "<th>TCP</th>" in html


@pytest.mark.parametrize("count", [1, 5])
def test_runs_of_earlier_versions_make_a_report(count: int) -> None:
    made = many_arms("abcdef"[:count], without=LATER_KEYS)
    assert "dvh.png" not in made.pictures
    assert "<th>TCP</th>" not in made.html


def test_no_name_of_an_arm_becomes_anything_but_text() -> None:
    names = ["_p", "$p$_{", "\\frac$", HOSTILE, "%s{{ p }}", "a" * 200]
    made = many_arms(names)
    assert {tag for tag, _ in tags_of(made.html)}.isdisjoint({"script", "iframe", "object"})
    assert all(png.startswith(b"\x89PNG") for png in made.pictures.values())
    assert "<script" not in made.html
    assert "<img src=x" not in made.html
    assert all(made.html.count(str(escape(name))) >= 3 for name in names)


def test_without_images_there_is_no_comparison_of_them() -> None:
    made = many_arms("abcde")
    assert "comparison.png" not in made.pictures
    assert not [name for name in made.pictures if name.endswith(("_mri.png", "_spread.png"))]


def test_a_tumour_that_never_shows_can_be_reported() -> None:
    patient = small_run.small_patient()
    forecast = forecast_of(patient)
    faint = replace(forecast, density=tuple(u * np.float32(0.1) for u in forecast.density))
    assert report(patient, faint).html


def test_a_patient_without_scans_is_refused() -> None:
    patient = small_run.small_patient()
    labels = next(small_run.StandInRefiner().visits(
        forecast_of(patient), patient, None, untreated=None, samples=1, seed=0, progress=lambda *_: None
    )).labels  # fmt: skip
    bare = replace(patient, visits=(Visit(0, {}, labels),))
    with pytest.raises(InputError, match="baseline scan"):
        report(bare, forecast_of(patient))


def test_saving_is_whole(tmp_path: Path) -> None:
    Report("<html>", {}).save(tmp_path / "new" / "x.html")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.html"]


def test_treatment_counts_what_is_given_before_the_horizon() -> None:
    plan = TherapyPlan.of(
        Fractionation(ball_dose(small_run.small_patient().grid, 60.0), 30, 14, prescription=60.0),
        Chemotherapy.temozolomide(14),
    )
    assert treatment(plan, 180).startswith("60 Gy in 30 fractions, days 14 to 53; 62 doses of temozolomide")
    assert "10 of them before day 26" in treatment(plan, 26)
