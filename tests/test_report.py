"""The report stands alone, escapes what came from outside, and says what is synthetic."""

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import small_run
from ball_brain import ball_dose

from hybridtumor.errors import InputError
from hybridtumor.forecast import Forecast
from hybridtumor.patient import Patient, Visit
from hybridtumor.refine import FollowUp
from hybridtumor.report import Report, report, treatment
from hybridtumor.therapy import Chemotherapy, Fractionation, TherapyPlan

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
