"""The answer names the plan with the least burden, the trade-off line what no plan beats, and names stand apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import small_patient

from hybridtumor.pictures_difference import difference_map
from hybridtumor.plots_frame import label
from hybridtumor.plots_labels import POINT, Box, places
from hybridtumor.plots_style import arm_styles
from hybridtumor.report_answer import answer, change, millilitres, power, probability, share
from hybridtumor.report_outcomes import CHOSEN, Outcome, pareto, reference, same, shown_in_full
from hybridtumor.therapy import DoseMap, Fractionation, TherapyPlan

UNTREATED = Outcome("untreated", False, 180.0, 17000.0, 80000.0, 0.0, None, 0.0, "no treatment")
PLAN = Outcome("p00", True, 180.0, 17000.0, 20000.0, 12.0, None, 72.0, "30 fractions")

burdens = st.floats(0, 1e6)
brains = st.one_of(st.none(), st.floats(0, 60))
plans = st.lists(st.tuples(burdens, brains), min_size=1, max_size=18).map(
    lambda found: [replace(PLAN, name=f"p{i:02}", burden=b, brain=d) for i, (b, d) in enumerate(found)]
)


@given(plans, st.booleans())
def test_the_first_plan_that_is_named_leaves_the_least_burden(arms: list[Outcome], compared: bool) -> None:
    text = answer([UNTREATED, *arms] if compared else arms)
    least = min(arms, key=lambda arm: arm.burden)
    named = sorted((text.index(arm.name), arm.burden) for arm in arms if arm.name in text)
    if named and not text.startswith("All"):
        assert named[0][1] == least.burden
    else:
        assert all(same(arm.burden, least.burden) for arm in arms)
    assert text.endswith("Model output, not advice.")


@given(plans, burdens)
def test_it_never_says_that_a_plan_helps_when_it_does_not(arms: list[Outcome], free: float) -> None:
    text = answer([replace(UNTREATED, burden=free), *arms])
    if min(arm.burden for arm in arms) >= free:
        assert "below no treatment" not in text


def test_the_answer_in_words() -> None:
    gentle = replace(PLAN, name="p01", burden=25000.0, brain=8.0)
    text = answer([UNTREATED, replace(PLAN, ntcp=0.04), gentle])
    assert text == (
        "Of 2 plans, p00 leaves the least tumour burden on day 180: 20.0 ml, 75 % below no treatment (80.0 ml), at a"
        " mean brain EQD2 of 12.0 Gy (NTCP of the brain 4 %). Of the plans that spare the brain more, p01 leaves the"
        " least: 25.0 ml, at a mean brain EQD2 of 8.0 Gy. Model output, not advice."
    )


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ([UNTREATED], "Without treatment the model's tumour burden goes from 17.0 ml on day 0 to 80.0 ml on day 180."),
        ([UNTREATED, PLAN], "Under p00 the model's tumour burden goes from 17.0 ml on day 0 to 20.0 ml on day 180,"),
        ([PLAN], "there is no arm without treatment to compare with"),
        ([UNTREATED, replace(PLAN, burden=80001.0)], "practically the same as no treatment"),
        ([UNTREATED, replace(PLAN, burden=90000.0)], "more than no treatment (80.0 ml)"),
        ([PLAN, replace(PLAN, name="p01", burden=20005.0, brain=9.0)], "All 2 plans leave practically the same"),
        ([PLAN, replace(PLAN, name="p01", burden=20005.0, brain=9.0)], "of these p01 gives the brain least"),
        ([PLAN, replace(PLAN, name="p01", burden=3e4, brain=None)], "Next comes p01 with 30.0 ml."),
    ],
)  # fmt: skip
def test_ties_and_arms_without_treatment(arms: list[Outcome], words: str) -> None:
    assert words in answer(arms)


@given(plans)
def test_the_pareto_set_is_what_no_plan_beats(arms: list[Outcome]) -> None:
    def beats(a: Outcome, b: Outcome) -> bool:
        assert a.brain is not None
        assert b.brain is not None
        return a.brain <= b.brain and a.burden <= b.burden and (a.brain, a.burden) != (b.brain, b.burden)

    known = [arm for arm in arms if arm.brain is not None]
    front = pareto([UNTREATED, *arms])
    assert {arm.name for arm in front} == {b.name for b in known if not any(beats(a, b) for a in known)}
    burden = [arm.burden for arm in front]
    assert burden == sorted(burden, reverse=True)
    assert all(any(beats(a, b) for a in front) for b in known if b not in front)


@given(plans)
def test_what_is_shown_in_full_has_no_treatment_and_the_best_plan(arms: list[Outcome]) -> None:
    shown = shown_in_full([*arms, UNTREATED])
    assert "untreated" in shown
    assert any(arm.name in shown and arm.burden == min(a.burden for a in arms) for arm in arms)
    assert len(shown) == (CHOSEN if len(arms) > 3 else len(arms) + 1)
    assert reference(arms) is None


@given(st.lists(st.tuples(st.floats(0, 800), st.floats(0, 500)), max_size=30), st.floats(10, 120))
def test_no_name_lies_on_another_or_on_a_point(points: list[tuple[float, float]], width: float) -> None:
    room = Box(0, 0, 800, 500)
    found = places(points, [(width, 14.0)] * len(points), room)
    boxes = [box for box in found if box is not None]
    marks = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points]
    for i, box in enumerate(boxes):
        assert box.inside(room)
        assert not any(box.meets(other) for other in [*boxes[:i], *marks])


def test_every_name_of_fifteen_plans_finds_room() -> None:
    points = [(40 + 45.0 * i, 450 - 25.0 * i) for i in range(15)]
    assert None not in places(points, [(70.0, 14.0)] * 15, Box(0, 0, 800, 500), points)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 15, 40])
def test_no_two_arms_look_alike(count: int) -> None:
    grid = small_patient().grid
    doses = [DoseMap(np.full(grid.shape, 10.0 * (1 + i), np.float32), grid) for i in range(8)]
    arms = {
        f"p{i}": TherapyPlan.of(Fractionation(doses[i % 8], 10 + 5 * (i // 8), 3.0)) for i in range(count)
    } | {"untreated": TherapyPlan()}  # fmt: skip
    styles = arm_styles(arms)
    assert list(styles) == list(arms)
    assert len({(style.colour, style.marker) for style in styles.values()}) == count + 1
    assert arm_styles({name: TherapyPlan() for name in "abcdefghij"})


def test_arms_that_no_grid_holds_differ_all_the_same() -> None:
    grid = small_patient().grid
    course = Fractionation(DoseMap(np.full(grid.shape, 10, np.float32), grid), 10, 3.0)
    styles = arm_styles({f"p{i}": TherapyPlan.of(replace(course, first_day=3.0 + i)) for i in range(20)})
    assert len({(style.colour, style.marker) for style in styles.values()}) == 20


def test_a_grid_is_coloured_by_dose_and_marked_by_schedule() -> None:
    grid = small_patient().grid
    doses = {total: DoseMap(np.full(grid.shape, total, np.float32), grid) for total in (30.0, 40.0, 50.0)}
    cells = {f"{d:g}-{n}": (d, n) for d in doses for n in (10, 15, 30)}
    styles = arm_styles({name: TherapyPlan.of(Fractionation(doses[d], n, 3.0)) for name, (d, n) in cells.items()})
    for a, (dose_a, n_a) in cells.items():
        for b, (dose_b, n_b) in cells.items():
            assert (styles[a].colour == styles[b].colour) == (dose_a == dose_b)
            assert (styles[a].marker == styles[b].marker) == (n_a == n_b)


def test_a_difference_is_negative_where_a_plan_leaves_fewer_cells() -> None:
    untreated = np.array([[0.2, 0.9]], np.float32)
    assert np.allclose(difference_map(untreated * np.float32(0.5), untreated), -untreated / 2)
    assert not difference_map(untreated, untreated).any()


def test_numbers_as_a_report_writes_them() -> None:
    assert [millilitres(v) for v in (0, 12345, 995, 123, 1.5, 2e-4)] == [
        "0.0",
        "12.3",
        "1.0",
        "0.12",
        "0.0015",
        "2.0 × 10⁻⁷",
    ]
    assert [power(v) for v in (0, 12, 3.2e7, 9.99e6, 0.05)] == ["0", "12", "3.2 × 10⁷", "1.0 × 10⁷", "5.0 × 10⁻²"]
    assert [share(v) for v in (0, 1e-5, 0.004, 0.41, 0.997, 0.99999, 1)] == [
        "0 %", "<0.1 %", "0.4 %", "41 %", "99.7 %", ">99.9 %", "100 %",
    ]  # fmt: skip
    assert [change(v, 100) for v in (59, 100, 100.2, 134, 0.5, 0.01, 0)] == [
        "−41 %", "0 %", "0 %", "+34 %", "−99.5 %", "<−99.9 %", "<−99.9 %",
    ]  # fmt: skip
    assert change(1, 0) == "–"
    assert [probability(v) for v in (0, 0.04, 1)] == ["<0.1 %", "4 %", ">99.9 %"]


def test_a_label_is_no_formula_and_stays_in_the_legend() -> None:
    assert label("a$b$") == r"a\$b\$"
    assert label("_hidden").startswith(" ")
    assert len(label("x" * 300)) < 30
