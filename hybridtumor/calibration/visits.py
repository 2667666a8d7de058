r"""Several visits: D, ρ, the response to treatment and the thresholds of the images from scans over time.

The density of day 0 is taken as known, that of the patient (`hybridtumor.prepare`). Visits after it are explained: by
their segmentations (`hybridtumor.models.observation_borders`), by ADC inside the tumour where there is a map
(`hybridtumor.models.observation_maps`), or both. The last ones may be held out, and are then predicted.
"""

import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hybridtumor.calibration.fit import Fit, FitOptions, bound_notes, forward_solves, missed, visit_of
from hybridtumor.calibration.problem import Problem, rows_of
from hybridtumor.calibration.search import around, sampled, sampled_notes, search
from hybridtumor.calibration.unknowns import UNKNOWNS, Priors
from hybridtumor.errors import InputError
from hybridtumor.growth_gradient import GrowthGradient
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models.observation import DataTerm
from hybridtumor.models.observation_borders import Borders
from hybridtumor.models.observation_maps import Cellularity
from hybridtumor.models.oxygen import local_response
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.patient import Patient, Visit
from hybridtumor.therapy import UNTREATED, TherapyPlan

ADC = "ADC"
"""Name of the scan that tells cellularity."""

DENSEST = 1.0
"""Percentile of ADC inside the tumour, all visits together, that stands for ADC_min."""

DENSEST_NOTE = (
    "ADC at carrying capacity was taken from the densest tumour of all visits: where none is that dense, densities and"
    " growth come out too high. State it if you know it."
)

STEP_ERROR = 1e-3
"""Relative error of a time step."""

KINDS = {Borders: "segmentation", Cellularity: "ADC"}


def fit_visits(
    patient: Patient,
    plan: TherapyPlan = UNTREATED,
    growth: GrowthParameters | None = None,
    response: TreatmentResponse | None = None,
    options: FitOptions | None = None,
    *,
    unknowns: Sequence[str] | None = None,
    hold_out: int = 0,
) -> Fit:
    """Fit the visits after day 0.

    Parameters
    ----------
    patient
        With tissue, density and visits whose segmentations or ADC maps are to be explained.
    plan
        What was given over the time of the visits.
    growth, response
        Parameters where they are no unknowns, and medians of the priors of D and ρ, α and the drug's kill rate.
    options
        How.
    unknowns
        What is looked for; None: D, ρ, the response to what the plan gives, and thresholds of segmentations.
    hold_out
        How many of the last visits are predicted instead of explained.

    Raises
    ------
    InputError
        No visit is left to explain, or an unknown that nothing depends on.
    ConvergenceError
        Growth could not be computed at the start.
    """
    start, how = time.perf_counter(), options or FitOptions()
    law, sensitivity = growth or GrowthParameters(), response or TreatmentResponse()
    if patient.tissue is None or patient.density is None:
        raise InputError(f"patient {patient.id}: expected tissue and a density on day 0, got none. Prepare it.")
    told = [visit for visit in patient.visits[1:] if visit.labels is not None or ADC in visit.scans]
    if not 0 <= hold_out < len(told):
        raise InputError(
            f"patient {patient.id}: expected visits after day 0 with segmentation or ADC to explain, got {len(told)},"
            f" of which {hold_out} are held out. Add visits, or hold out fewer."
        )
    terms = terms_of(patient, told, how.adc_minimum)
    seen = [term for term in terms if term.day <= told[len(told) - hold_out - 1].day]
    names = default_unknowns(plan, seen) if unknowns is None else tuple(unknowns)
    priors = centred(Priors.of(*names), law, sensitivity)
    fixed = {name: UNKNOWNS[name].median for term in terms for name in term.own if name not in names}
    fixed["grey_ratio"] = law.diffusion_grey / law.diffusion_white
    if "grey_ratio" in names:
        del fixed["grey_ratio"]
    horizon = max(term.day for term in terms)
    simulation = GrowthSimulation.prepare(
        patient.tissue, patient.density, law, horizon, cell_size=how.cell_size, surgery=bool(plan.resections)
    )
    local = local_response(patient, sensitivity)
    days = sorted({0.0, *(term.day for term in seen)})
    gradient = GrowthGradient(simulation, plan, days, sensitivity, local, STEP_ERROR)
    problem = Problem(gradient, tuple(seen), priors, fixed)
    estimate, starts = search(problem, how, how.tolerance)
    posterior = around(problem, estimate)
    samples = sampled(problem, posterior, how)
    values = problem.values(estimate.coordinates)
    whole = GrowthGradient(simulation, plan, sorted({0.0, *(t.day for t in terms)}), sensitivity, local, STEP_ERROR)
    nodal = Problem(whole, tuple(terms), priors, fixed).densities(estimate.coordinates)
    predicted = {day: simulation.brain.transfer.to_grid(n).astype(np.float32) for day, n in nodal.items()}
    thresholds = (values.get("threshold_edema", 0.2), values.get("threshold_enhancing"))
    labels = {visit.day: visit.labels for visit in told}
    visits = tuple(
        visit_of(
            term.day,
            KINDS[type(term)],
            term.misfit(rows_of(whole, term.voxels) @ nodal[term.day], values).value,
            predicted[term.day],
            labels[term.day] if isinstance(term, Borders) else None,
            thresholds,
            held_out=term not in seen,
        )
        for term in terms
    )
    notes = ["The density of day 0 is taken as known: what is uncertain of it is in no interval."]
    if how.adc_minimum is None and any(isinstance(term, Cellularity) for term in terms):
        notes.append(DENSEST_NOTE)
    return Fit(
        patient=patient.id,
        estimate=estimate,
        posterior=posterior,
        fixed=fixed,
        visits=visits,
        predicted=predicted,
        thresholds=thresholds,
        notes=(
            *notes,
            *bound_notes([estimate]),
            *(note for visit in visits for note in missed(visit)),
            *sampled_notes(samples),
        ),
        forward_solves=forward_solves(problem.effort) + 1,
        seconds=time.perf_counter() - start,
        starts=starts,
    )


def terms_of(
    patient: Patient, visits: Iterable[Visit], adc_minimum: float | None = None
) -> list[Borders | Cellularity]:
    """Return what visits say, in order of time.

    Around the tumour of any visit there is a margin in which a voxel counts on every visit, so that a tumour that went
    away is seen as gone. ADC counts where the visit's own or the latest segmentation before it shows tumour; its least
    value, that of the densest tumour, is one for all visits, or they could not be compared.
    """
    tissue, baseline = patient.tissue, patient.baseline.labels
    if tissue is None:
        raise InputError(f"patient {patient.id}: expected tissue, got none. Prepare it.")
    visits = list(visits)
    drawn = [visit.labels.mask() for visit in visits if visit.labels is not None]
    drawn += [] if baseline is None else [baseline.mask()]
    ever: NDArray[np.bool_] = np.any(drawn, axis=0) if drawn else tissue.parenchyma
    latest = baseline.mask() if baseline is not None else ever
    terms: list[Borders | Cellularity] = []
    maps: list[tuple[Visit, NDArray[np.bool_]]] = []
    for visit in visits:
        if visit.labels is not None:
            latest = visit.labels.mask()
            core = bool(visit.labels.mask("necrosis", "enhancing").any())
            terms.append(Borders.from_labels(visit.labels, tissue.parenchyma, visit.day, core=core, around=ever))
        if ADC in visit.scans:
            maps.append((visit, latest & tissue.parenchyma))
    if maps:
        least = adc_minimum
        if least is None:
            least = float(np.percentile(np.concatenate([v.scans[ADC].values[region] for v, region in maps]), DENSEST))
        terms += [Cellularity.from_adc(v.scans[ADC], region, v.day, minimum=least) for v, region in maps]
    return sorted(terms, key=lambda term: term.day)


def default_unknowns(plan: TherapyPlan, terms: Sequence[DataTerm]) -> tuple[str, ...]:
    """Return what is looked for when nobody says: growth, the response to what was given, and the terms' own."""
    names = ["diffusion_white", "proliferation"]
    last = max(term.day for term in terms)
    given = plan.active
    if any(course.fraction_days[0] < last for course in given.courses):
        names.append("alpha")
    if any(drug.doses[0][0] < last for drug in given.drugs):
        names.append("temozolomide")
    own = [name for term in terms for name in term.own]
    return (*names, *dict.fromkeys(own))


def centred(priors: Priors, growth: GrowthParameters, response: TreatmentResponse) -> Priors:
    """Return the priors with the stated parameters as medians."""
    stated = {
        "diffusion_white": growth.diffusion_white,
        "proliferation": growth.proliferation,
        "grey_ratio": growth.diffusion_grey / growth.diffusion_white,
        "alpha": response.alpha,
        "temozolomide": response.temozolomide,
    }
    for name, value in stated.items():
        if name in priors.names:
            priors = priors.changed(name, median=value)
    return priors
