r"""summary.json: the figures of a run, per arm.

Structures of an arm with radiation are ``tumour`` (gross tumour of day 0), ``brain`` (parenchyma without it) and those
that the patient brings; EQD2 of the tumour takes the α/β of its cells, of all others 3 Gy. What is not defined is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor import dosimetry, mass_effect, outcome
from hybridtumor.forecast import Forecast
from hybridtumor.grid import BoolArray, FloatArray
from hybridtumor.models.cell_kill import log_kill_on_grid
from hybridtumor.models.initial_density import enhances
from hybridtumor.models.oxygen import local_response
from hybridtumor.models.visibility import visible_volumes
from hybridtumor.parameters import ImagingThresholds, TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.scan import LABELS
from hybridtumor.targets import gross_tumour
from hybridtumor.therapy import DoseMap, Fractionation, TherapyPlan

TUMOUR, BRAIN = "tumour", "brain"

TUMOUR_EXPONENT = -10.0
"""a of the gEUD of a tumour, which its coldest part decides; value in common use."""

HIGH_DOSE = 0.95
"""Share of the prescription of a course from which on tissue counts as treated (ICRU 50)."""

LEVELS = 31
"""Doses at which a dose-volume histogram is kept: so many evenly spaced ones, and so many with equal volume between."""


def arm_figures(
    patient: Patient,
    forecast: Forecast,
    plan: TherapyPlan,
    response: TreatmentResponse,
    thresholds: ImagingThresholds | None = None,
) -> dict[str, Any]:
    """Return the figures of one arm as ``summary.json`` holds them.

    Volumes of the labels, the time to progression and the response follow what MRI sees, living and damaged cells
    alike; so does ``imaged_burden_mm3``. ``burden_mm3`` counts living cells alone. The curve of the imaged burden is
    there when cells wait for clearance.

    Parameters
    ----------
    patient
        The prepared patient; whether its tumour enhances decides how the core is named.
    forecast
        Fields at the report days.
    plan, response
        What was given and how sensitive the cells are, for the dose figures.
    """
    thresholds = thresholds or ImagingThresholds()
    shows_enhancement = enhances(patient.baseline.labels)
    volumes = [
        visible_volumes(forecast.visible(day), forecast.grid.voxel_volume, thresholds, enhances=shows_enhancement)
        for day in forecast.days
    ]
    visible = [sum(volume.values()) for volume in volumes]
    return {
        "days": list(forecast.days),
        "burden_mm3": _rounded(forecast.burden),
        "imaged_burden_mm3": _rounded(forecast.imaged_burden),
        "volume_mm3": {label: _rounded([volume[label] for volume in volumes]) for label in LABELS},
        "max_displacement_mm": _rounded(_displacement(forecast)),
        **_mass_effect(patient, forecast),
        **_dose(patient, plan, response, thresholds),
        "tumour_control": _tumour_control(patient, forecast, plan, response),
        "response": {"category": outcome.response_categories(visible)},
        "coverage": _coverage(patient, forecast, plan, thresholds),
        "time_to_progression_days": outcome.time_to_progression(forecast.days, visible),
        "burden_curve": _curve(forecast),
    }


def structure_figures(
    dose: FloatArray,
    in_two_gray: FloatArray,
    mask: BoolArray,
    tolerance: outcome.Tolerance | None,
    a: float | None = None,
) -> dict[str, float | None]:
    """Return the figures of dose of one structure for the summary.

    Parameters
    ----------
    dose
        Physical dose, Gy.
    in_two_gray
        EQD2, Gy, with the α/β of the structure.
    mask
        The structure.
    tolerance
        Of the organ; None: its NTCP is None.
    a
        Parameter of the gEUD; None: 1/n of the tolerance. Without either the gEUD is None.
    """
    exponent = 1 / tolerance.n if a is None and tolerance is not None else a
    uniform = None if exponent is None else dosimetry.geud(in_two_gray, mask, exponent)
    return {
        "mean_Gy": dosimetry.mean_dose(dose, mask),
        "max_Gy": dosimetry.max_dose(dose, mask),
        "D98_Gy": dosimetry.dose_at_volume(dose, mask, 98),
        "D2_Gy": dosimetry.dose_at_volume(dose, mask, 2),
        "mean_EQD2_Gy": dosimetry.mean_dose(in_two_gray, mask),
        "gEUD_EQD2_Gy": uniform,
        "NTCP": None if tolerance is None or uniform is None else outcome.ntcp(uniform, tolerance),
    }


def mesh_figures(forecast: Forecast) -> dict[str, Any]:
    """Return size and shape of the mesh as ``summary.json`` holds them."""
    figures = dict(forecast.figures)
    mesh: dict[str, Any] = {
        "cells": int(figures.get("cells", 0)),
        "dofs": int(figures.get("dofs", 0)),
        "cell_size_mm": {"min": figures.get("cell_size_min_mm"), "max": figures.get("cell_size_max_mm")},
    }
    return mesh


def _curve(forecast: Forecast) -> dict[str, list[float]]:
    curve = {"days": _rounded(forecast.burden_curve[:, 0]), "burden_mm3": _rounded(forecast.burden_curve[:, 1])}
    if forecast.damaged_curve is not None:
        curve["imaged_burden_mm3"] = _rounded(forecast.imaged_curve[:, 1])
    return curve


def _displacement(forecast: Forecast) -> list[float]:
    if forecast.displacement is None:
        return [0.0 for _ in forecast.days]
    return [float(np.linalg.norm(v, axis=0).max()) for v in forecast.displacement]


def _mass_effect(patient: Patient, forecast: Forecast) -> dict[str, list[float]]:
    """Return ventricle volumes and midline shifts; nothing without mechanics or without tissue."""
    if forecast.displacement is None or patient.tissue is None:
        return {}
    return mass_effect.figures(patient.tissue, forecast.displacement)


def _dose(
    patient: Patient, plan: TherapyPlan, response: TreatmentResponse, thresholds: ImagingThresholds
) -> dict[str, Any]:
    """Return dose figures and dose-volume histograms, both None without radiation."""
    given = plan.active
    if not given.courses:
        return {"dose": None, "dvh": None}
    tumour, repair = gross_tumour(patient, thresholds), response.repair_half_time
    figures = dosimetry.dose_figures(given, tumour, response.alpha_beta, repair_half_time=repair) or {}
    masks = _structures(patient, tumour)
    box = ndimage.find_objects(np.logical_or.reduce(list(masks.values())).astype(np.uint8))[0]
    part = _cropped(given, box)
    physical = part.total_dose(part.courses[0].dose.grid)
    slow = max(repair, outcome.LATE_REPAIR_HALF_TIME) if repair > 0 else 0.0
    late = dosimetry.eqd2_map(part, outcome.LATE_ALPHA_BETA, repair_half_time=slow)
    early = dosimetry.eqd2_map(part, response.alpha_beta, repair_half_time=repair)
    structures = {
        name: structure_figures(physical, late, mask[box], outcome.tolerance_of(name))
        for name, mask in masks.items()
        if name != TUMOUR
    }
    seen = structure_figures(physical, early, tumour[box], None, TUMOUR_EXPONENT)
    return {
        "dose": _short(figures)
        | {"structures": {name: _short(f) for name, f in ({TUMOUR: seen} | structures).items()}},
        "dvh": {name: _dvh(physical, mask[box]) for name, mask in masks.items()},
    }


def _structures(patient: Patient, tumour: BoolArray) -> dict[str, BoolArray]:
    """Return the structures by name; the two that are derived go before a patient's of the same name."""
    derived = {TUMOUR: tumour}
    if patient.tissue is not None and (brain := patient.tissue.parenchyma & ~tumour).any():
        derived[BRAIN] = brain
    return derived | {name: mask for name, mask in patient.structures.items() if name not in derived}


def _cropped(plan: TherapyPlan, box: tuple[slice, ...]) -> TherapyPlan:
    """Return the courses of a plan on a part of their grid."""
    grid = plan.courses[0].dose.grid.crop([part.start for part in box], [part.stop for part in box])
    return TherapyPlan(tuple(replace(c, dose=DoseMap(c.dose.values[box], grid)) for c in plan.courses))


def _dvh(dose: NDArray[np.float32], mask: BoolArray) -> dict[str, list[float]]:
    """Return the dose-volume histogram at a few doses, dense where it is steep."""
    dense, part = dosimetry.dvh(dose, mask, 1001, subvoxel=True)
    even = np.linspace(0, dense.size - 1, LEVELS).astype(int)
    steep = np.minimum(np.searchsorted(-part, -np.linspace(0, 1, LEVELS)), dense.size - 1)
    chosen = np.unique(np.concatenate([even, steep]))
    levels, first = np.unique(dense[chosen].round(3), return_index=True)
    return {  # one more point, above every dose
        "dose_Gy": _rounded([*levels, levels[-1] + 0.01]),
        "share": _rounded([*part[chosen][first], 0.0]),
    }


def _tumour_control(
    patient: Patient, forecast: Forecast, plan: TherapyPlan, response: TreatmentResponse
) -> dict[str, float] | None:
    """Return what therapy leaves of the cells of day 0, and what the model counts on the last day; None untreated."""
    if plan.gives_nothing:
        return None
    log_kill = forecast.log_kill[-1]
    if forecast.displacement is not None:  # both where the tissue was on day 0
        local = local_response(patient, response)
        log_kill = log_kill_on_grid(plan.active, response, forecast.days[-1:], forecast.grid.shape, local)[0]
    cells = (forecast.density[0], log_kill, forecast.grid.voxel_volume)
    figures = {
        "surviving_cells": outcome.surviving_cells(*cells),
        "TCP": outcome.tcp(*cells),
        "cells_last_day": forecast.burden[-1] * outcome.CARRYING_CAPACITY,
    }
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _coverage(
    patient: Patient, forecast: Forecast, plan: TherapyPlan, thresholds: ImagingThresholds
) -> dict[str, float] | None:
    """Return how much of the tumour that shows on the last day was treated; None without radiation or tumour.

    Treated is tissue that gets 95 % of the prescription of at least one course, all of its phases together. The region
    of the same volume holds the highest density of day 0. Both lie in the parenchyma and the tumour of day 0.
    """
    courses = plan.active.courses
    recurrence = forecast.visible(forecast.days[-1]) > thresholds.edema
    if not courses or patient.tissue is None or not recurrence.any():
        return None
    domain = patient.tissue.parenchyma | (forecast.density[0] > thresholds.edema)
    target = domain & np.logical_or.reduce([_high_dose(phases) for phases in _entries(courses)])
    voxels = int(np.count_nonzero(target))
    region = outcome.iso_volume_region(forecast.density[0], voxels, domain)
    figures = {
        "volume_ml": voxels * forecast.grid.voxel_volume / 1000,
        "standard": outcome.coverage(recurrence, target),
        "density_iso_volume": outcome.coverage(recurrence, region),
    }
    return {name: round(value, 4) for name, value in figures.items() if value is not None}


def _entries(courses: Sequence[Fractionation]) -> list[list[Fractionation]]:
    """Return the courses, the phases of one together."""
    entries: dict[object, list[Fractionation]] = {}
    for number, course in enumerate(courses):
        entries.setdefault(("own", number) if course.entry is None else course.entry, []).append(course)
    return list(entries.values())


def _high_dose(phases: Sequence[Fractionation]) -> BoolArray:
    """Return where the phases of a course together give `HIGH_DOSE` of their prescription."""
    total = np.sum([phase.dose.values for phase in phases], axis=0)
    return np.asarray(total >= HIGH_DOSE * sum(phase.prescribed_dose for phase in phases))


def _short(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in figures.items()}


def _rounded(values: Sequence[float] | NDArray[np.floating[Any]]) -> list[float]:
    return [round(float(value), 4) for value in values]
