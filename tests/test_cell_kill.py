"""Laws of the log-kill: closed forms, additivity over any split, more treatment never kills less."""

from itertools import pairwise

import numpy as np
import pytest
from figures import Figure
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid
from hybridtumor.models.cell_kill import KillSchedule
from hybridtumor.models.drug_kinetics import drug_terms, integral
from hybridtumor.models.radiation import lq_log_kill
from hybridtumor.parameters import DrugResponse, TreatmentResponse
from hybridtumor.therapy import UNTREATED, Chemotherapy, DoseMap, Fractionation, TherapyPlan

GRID = Grid((4, 3, 2), np.eye(4))
RESPONSE = TreatmentResponse()
RAMP = np.linspace(0, 60, 24, dtype=np.float32).reshape(GRID.shape)


def course(
    total: np.ndarray | float = RAMP, fractions: int = 30, first_day: float = 14, **options: object
) -> Fractionation:
    return Fractionation(DoseMap(np.broadcast_to(np.float32(total), GRID.shape), GRID), fractions, first_day, **options)


def drug_log_kill(doses, start, end, peak_rate: float, clearance: float) -> float:
    """Log-kill of temozolomide over [start, end]."""
    response = (
        TreatmentResponse()
        .model_copy(update={"temozolomide": peak_rate, "temozolomide_clearance": clearance})
        .drug("temozolomide")
    )
    return integral(drug_terms(doses, response), start, end)


def schedule(*treatments: Fractionation | Chemotherapy, response: TreatmentResponse = RESPONSE) -> KillSchedule:
    return KillSchedule.from_plan(TherapyPlan.of(*treatments), response, lambda values: values, shape=GRID.shape)


@pytest.mark.law("therapy", "Thirty times 2 Gy kill 72 α")
def test_thirty_times_two_gray_in_closed_form(figure: Figure) -> None:
    """30 (α 2 + α/10 · 2²) = 72 α."""
    total = schedule(course(60.0)).log_kill(0, 1000)
    figure("error", np.abs(total / (72 * 0.035) - 1).max(), at_most=1e-14)


@pytest.mark.law("therapy", "More dose never kills less: any dose, α and α/β")
@given(dose=st.floats(0, 30), more=st.floats(0, 30), alpha=st.floats(0, 1), ratio=st.floats(0.5, 30))
def test_more_dose_kills_more(dose: float, more: float, alpha: float, ratio: float) -> None:
    assert lq_log_kill(dose + more, alpha, ratio) >= lq_log_kill(dose, alpha, ratio) >= 0


def test_one_formula_serves_every_algebra() -> None:
    torch, ufl = pytest.importorskip("torch"), pytest.importorskip("ufl")
    dose = np.linspace(0, 3, 7)
    expected = 0.3 * dose + 0.03 * dose**2
    np.testing.assert_allclose(lq_log_kill(dose, 0.3, 10.0), expected, rtol=1e-14)
    np.testing.assert_allclose(lq_log_kill(torch.from_numpy(dose), 0.3, 10.0).numpy(), expected, rtol=1e-14)
    assert lq_log_kill(ufl.as_ufl(2.0), 0.3, 10.0)(()) == pytest.approx(0.72)


def test_single_drug_dose_in_closed_form() -> None:
    """All of it kills s/λ · m/75; after one half-life half of that remains to be killed."""
    s, clearance = 0.15, np.log(2) / 0.075
    assert drug_log_kill([(3.0, 150.0)], 0, 1000, s, clearance) == pytest.approx(2 * s / clearance, rel=1e-14)
    assert drug_log_kill([(3.0, 75.0)], 3.075, 1000, s, clearance) == pytest.approx(0.5 * s / clearance, rel=1e-12)
    assert drug_log_kill([(3.0, 75.0)], 0, 3, s, clearance) == 0.0
    assert drug_log_kill([(3.0, 75.0)], 3.5, 3.5, s, clearance) == 0.0


@pytest.mark.law("therapy", "The kill of a drug is the integral of its rate")
def test_drug_kill_is_the_integral_of_the_rate(figure: Figure) -> None:
    doses, s, clearance = Chemotherapy.temozolomide(1.0, concurrent_days=5, adjuvant_cycles=0).doses, 0.15, 2.0
    time = np.linspace(0.4, 4.7, 200_001)
    rate = s * sum(
        m / 75 * np.where(time >= day, np.exp(-clearance * np.clip(time - day, 0, None)), 0) for day, m in doses
    )
    closed = drug_log_kill(doses, 0.4, 4.7, s, clearance)
    figure("difference from quadrature", abs(closed / np.trapezoid(rate, time) - 1), at_most=1e-5)


@pytest.mark.law("therapy", "No dose kills exactly nothing")
def test_nothing_given_kills_exactly_nothing() -> None:
    assert drug_log_kill((), 0, 180, 0.15, 9.24) == 0.0
    for plan in (UNTREATED, TherapyPlan.of(course(0.0), Chemotherapy(((3.0, 0.0),)))):
        empty = KillSchedule.from_plan(plan, RESPONSE, lambda values: values)
        assert empty.event_days == ()
        assert not len(empty.drug_terms)
        assert empty.drug_log_kill(0, 180) == 0.0
        assert not empty.log_kill(0, 180).any()
    assert schedule().log_kill(0, 180).shape == GRID.shape


def test_cells_that_do_not_respond_have_no_events() -> None:
    deaf = TreatmentResponse(alpha="0 1/Gy", temozolomide="0 1/day")
    kill = schedule(course(), Chemotherapy.temozolomide(14), response=deaf)
    assert kill.event_days == ()
    assert not len(kill.drug_terms)
    assert not kill.log_kill(0, 1000).any()


@pytest.mark.law("therapy", "Log-kill adds over any split of time, to 1e-12")
@settings(max_examples=60)
@given(
    cuts=st.lists(st.one_of(st.floats(0, 180), st.integers(0, 180).map(float)), max_size=40),
    fractions=st.integers(1, 40),
    first_day=st.floats(0, 60),
)
def test_log_kill_adds_over_any_split(cuts: list[float], fractions: int, first_day: float) -> None:
    """Also where cuts fall exactly on fractions and drug doses."""
    kill = schedule(course(RAMP, fractions, first_day), Chemotherapy.temozolomide(first_day))
    edges = [0.0, *sorted(cuts), 180.0]
    parts = sum(kill.log_kill(a, b) for a, b in pairwise(edges))
    np.testing.assert_allclose(parts, kill.log_kill(0, 180), rtol=0, atol=1e-12)
    drug = sum(kill.drug_log_kill(a, b) for a, b in pairwise(edges))
    assert abs(drug - kill.drug_log_kill(0, 180)) <= 1e-12


@given(n=st.integers(1, 5000))
@settings(max_examples=20, deadline=None)
def test_drug_kill_does_not_depend_on_the_step(n: int) -> None:
    doses = Chemotherapy.temozolomide(14).doses
    edges = np.linspace(0, 400, n + 1)
    parts = sum(drug_log_kill(doses, a, b, 0.15, 9.2419624) for a, b in pairwise(edges))
    assert parts == pytest.approx(drug_log_kill(doses, 0, 400, 0.15, 9.2419624), abs=1e-12)


@given(factor=st.floats(1, 3), start=st.floats(0, 90), length=st.floats(0, 90))
@settings(max_examples=40)
def test_more_prescription_never_kills_less(factor: float, start: float, length: float) -> None:
    less, more = (schedule(course(RAMP * np.float32(f))).log_kill(start, start + length) for f in (1.0, factor))
    assert (more >= less).all()


@pytest.mark.parametrize("absorption", ["20 min", "3 h", "36 h"])
def test_absorption_delays_the_kill_and_keeps_its_total(absorption: str) -> None:
    """Against the two-compartment equations: gut' = −k_a gut, C' = k_a gut − λ C; equal rates included."""
    how = DrugResponse(
        kill_rate="0.2 1/day", half_life="36 h", reference_dose="110 mg/m^2", absorption_half_life=absorption
    )
    terms = drug_terms([(2.0, 220.0)], how)
    start, end, n = 2.5, 7.0, 20000
    step = end / n
    gut, blood, killed = 2.0, 0.0, 0.0
    for i in range(int((end - 2.0) / step)):  # midpoint rule from the dose on
        half = gut * np.exp(-how.absorption * step / 2)
        middle = blood + step / 2 * (how.absorption * gut - how.clearance * blood)
        killed += step * how.kill_rate * middle * (2.0 + (i + 0.5) * step >= start)
        blood += step * (how.absorption * half - how.clearance * middle)
        gut *= np.exp(-how.absorption * step)
    assert integral(terms, start, end) == pytest.approx(killed, rel=1e-3)
    assert integral(terms, 0, 1000) == pytest.approx(2 * how.kill_rate / how.clearance, rel=1e-9)
    assert integral(terms, 0, 2) == 0


def test_an_event_belongs_to_the_interval_it_starts() -> None:
    kill = schedule(course(fractions=2, first_day=10))
    assert kill.event_days == (10.0, 11.0)
    np.testing.assert_array_equal(kill.log_kill(10, 11), kill.event_log_kill(10))
    assert not kill.log_kill(9, 10).any()
    with pytest.raises(InputError, match="expected a day among"):
        kill.event_log_kill(9.5)
    with pytest.raises(InputError, match="order of time"):
        kill.log_kill(2, 1)


def test_five_fractions_a_week() -> None:
    assert schedule(course(fractions=6, first_day=14)).event_days == (14.0, 15.0, 16.0, 17.0, 18.0, 21.0)


def test_fields_are_few_however_many_fractions_there_are() -> None:
    assert len(schedule(course()).fields) == 2


def test_courses_at_the_same_time_are_one_fraction() -> None:
    """A boost given in the same session: the doses add, and LQ acts on the sum."""
    first, boost = course(fractions=30), course(20.0, fractions=10, first_day=14)
    kill, alone = schedule(first, boost), schedule(first)
    assert kill.event_days == alone.event_days
    together = lq_log_kill(RAMP.astype(float) / 30 + 2, RESPONSE.alpha, RESPONSE.alpha_beta)
    np.testing.assert_allclose(kill.event_log_kill(14), together, rtol=1e-6)
    np.testing.assert_array_equal(kill.event_log_kill(42), alone.event_log_kill(42))
    assert len(kill.fields) == 5


def test_two_fractions_at_one_time_are_one_of_twice_the_dose() -> None:
    kill = schedule(course(fractions=2, days=(14.0, 14.0)))
    np.testing.assert_allclose(kill.event_log_kill(14), schedule(course(fractions=1)).event_log_kill(14), rtol=1e-13)


def test_fractions_that_overlap_otherwise_are_refused() -> None:
    long = course(fractions=2, days=(14.0, 15.0), delivery_time=0.02)
    for day, time in ((14.01, 0.02), (14.0, 0.01), (14.01, 0.0)):
        with pytest.raises(InputError, match="overlap on day 14"):
            schedule(long, course(fractions=1, days=(day,), delivery_time=time))
    schedule(long, course(fractions=1, days=(14.02,), delivery_time=0.02))


def test_events_do_not_depend_on_where_they_are_sampled() -> None:
    """A process whose points receive no dose still has the events of the others."""
    plan = TherapyPlan.of(course())
    kill = KillSchedule.from_plan(plan, RESPONSE, lambda values: np.zeros(5))
    assert len(kill.event_days) == 30
    assert not kill.log_kill(0, 180).any()


def test_shared_fields_cannot_be_written_into() -> None:
    with pytest.raises(ValueError, match="read-only"):
        schedule(course()).fields[0][:] = 0
