"""summary.json: the figures of a run, per arm."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor import mass_effect, metrics
from hybridtumor.dose_planning import gross_tumour
from hybridtumor.forecast import Forecast
from hybridtumor.models.initial_density import enhances
from hybridtumor.models.visibility import visible_volumes
from hybridtumor.parameters import ImagingThresholds, TreatmentResponse
from hybridtumor.patient import Patient
from hybridtumor.scan import LABELS
from hybridtumor.therapy import TherapyPlan


def arm_figures(
    patient: Patient,
    forecast: Forecast,
    plan: TherapyPlan,
    response: TreatmentResponse,
    thresholds: ImagingThresholds | None = None,
) -> dict[str, Any]:
    """Return the figures of one arm as ``summary.json`` holds them.

    Volumes of the labels and the time to progression follow what MRI sees, living and damaged cells alike; so does
    ``imaged_burden_mm3``. ``burden_mm3`` counts living cells alone. The curve of the imaged burden is there when cells
    wait for clearance.

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
        "dose": _dose(patient, plan, response, thresholds),
        "time_to_progression_days": metrics.time_to_progression(forecast.days, visible),
        "burden_curve": _curve(forecast),
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
) -> dict[str, float] | None:
    """Return the dose figures; the mean is taken in the gross tumour of day 0."""
    if not plan.active.courses:
        return None
    tumour = gross_tumour(patient, thresholds)
    figures = metrics.dose_figures(plan, tumour, response.alpha_beta)
    return None if figures is None else {name: round(value, 4) for name, value in figures.items()}


def _rounded(values: Sequence[float] | NDArray[np.floating[Any]]) -> list[float]:
    return [round(float(value), 4) for value in values]
