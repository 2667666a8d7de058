"""calibrate: a patient's own parameters from their scans, with intervals, and the folder that says so.

    patient, plan → Fit → calibration.json, density.nii.gz, pictures, report.html

With visits after day 0 growth and response are found over time (`hybridtumor.calibration.visits`); with one scan a seed
and a field (`hybridtumor.calibration.single_scan`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hybridtumor
from hybridtumor import plots_calibration
from hybridtumor.calibration.fit import Fit, FitOptions
from hybridtumor.calibration.single_scan import fit_single_scan
from hybridtumor.calibration.visits import ADC, fit_visits
from hybridtumor.calibration_file import FILE_NAME, RESEARCH_ONLY
from hybridtumor.errors import InputError
from hybridtumor.pages import figure, template
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.patient import Patient, Visit
from hybridtumor.plots_fit import Overlay, overlays
from hybridtumor.scan import write_bytes
from hybridtumor.therapy import UNTREATED, TherapyPlan

DENSITY_FILE, REPORT_FILE = "density.nii.gz", "report.html"
BACKGROUNDS = ("FLAIR", "T1ce", "T2w", "T1w")
"""Scans that borders are drawn on, the first that is there."""


def calibrate(
    patient: Patient,
    plan: TherapyPlan = UNTREATED,
    growth: GrowthParameters | None = None,
    response: TreatmentResponse | None = None,
    options: FitOptions | None = None,
    *,
    unknowns: Sequence[str] | None = None,
    hold_out: int = 0,
) -> Fit:
    """Find a patient's own parameters.

    Parameters
    ----------
    patient
        Prepared (`hybridtumor.prepare.load_patient`), with a segmentation on day 0, or with visits after it that have a
        segmentation or an ADC map.
    plan
        What was given over the time of the visits.
    growth, response
        Parameters where they are no unknowns, and medians of the priors.
    options
        How.
    unknowns
        What is looked for over visits; None: growth, the response to what was given, thresholds.
    hold_out
        How many of the last visits are predicted instead of explained.

    Raises
    ------
    InputError
        Nothing to explain, or unknowns that nothing depends on.
    ConvergenceError
        Growth could not be computed where the search starts.
    """
    if any(visit.labels is not None or ADC in visit.scans for visit in patient.visits[1:]):
        return fit_visits(patient, plan, growth, response, options, unknowns=unknowns, hold_out=hold_out)
    if hold_out or unknowns or not plan.gives_nothing:
        raise InputError(
            f"patient {patient.id}: expected visits after day 0 for a plan, unknowns of your own or visits held out,"
            " got a single scan. Leave these out."
        )
    return fit_single_scan(patient, growth, options)


def save_fit(fit: Fit, patient: Patient, out: Path) -> Path:
    """Write a calibration's folder: JSON, the density of day 0 if the fit has changed it, pictures, report.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    InputError
        The folder holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: expected a new or empty folder, it holds files. Choose another.")
    out.mkdir(parents=True, exist_ok=True)
    if fit.density is not None:
        fit.density.save(out / DENSITY_FILE, description=RESEARCH_ONLY[:79], sidecar={"notice": RESEARCH_ONLY})
    content = fit.calibration(DENSITY_FILE)
    content.save(out / FILE_NAME)
    pictures = _pictures(fit, patient)
    for name, (image, _) in pictures.items():
        write_bytes(out / f"{name}.png", image)
    page = template("calibration.html").render(
        version=hybridtumor.__version__,
        patient=fit.patient,
        parameters=content.parameters,
        visits=content.visits,
        sentences=content.identifiability,
        effort=content.effort,
        evaluations=fit.estimate.evaluations,
        converged=fit.estimate.converged,
        reason=fit.estimate.reason,
        figures=[figure(image, caption) for image, caption in pictures.values()],
        research_only=RESEARCH_ONLY,
    )
    write_bytes(out / REPORT_FILE, page.encode())
    return out / REPORT_FILE


def _pictures(fit: Fit, patient: Patient) -> dict[str, tuple[bytes, str]]:
    """Return name to PNG and caption."""
    found = {
        "fit": (
            overlays(_overlays(fit, patient), patient.grid, _brain(patient)),
            "Borders that were drawn (broad) and those of the fitted density (thin), through the tumour's middle.",
        ),
        "profiles": (
            plots_calibration.profiles(fit.posterior),
            "What was believed of each parameter before the scans (prior) and after them (posterior).",
        ),
        "corner": (
            plots_calibration.corner(fit.posterior),
            "The posterior, two parameters at a time; lines that lean show what cannot be told apart.",
        ),
    }
    if fit.starts is not None:
        found["waterfall"] = (
            plots_calibration.waterfall(fit.starts),
            "Where descents from several starts ended: a flat beginning means that they agree.",
        )
    return found


def _overlays(fit: Fit, patient: Patient) -> list[Overlay]:
    shown = []
    for visit in patient.visits:
        if visit.day not in fit.predicted or (visit.day == 0 and fit.density is None):
            continue
        met = [v for v in fit.visits if v.day == visit.day and v.dice_whole is not None]
        words = [f"day {visit.day:g}", *(["held out"] if any(v.held_out for v in met) else [])]
        if met and met[0].dice_whole is not None:
            words.append(f"Dice {met[0].dice_whole:.2f}")
        if met and met[0].dice_core is not None:
            words.append(f"core {met[0].dice_core:.2f}")
        labels = visit.labels
        core = None if labels is None else labels.mask("necrosis", "enhancing")
        shown.append(
            Overlay(
                " · ".join(words),
                _background(visit, patient),
                fit.predicted[visit.day],
                fit.thresholds,
                None if labels is None else labels.mask(),
                core if core is not None and core.any() else None,
            )
        )
    return shown


def _background(visit: Visit, patient: Patient) -> Any:
    for scans in (visit.scans, patient.baseline.scans):
        for name in (*BACKGROUNDS, *scans):
            if name in scans:
                return scans[name].values
    return _brain(patient).astype("float32")


def _brain(patient: Patient) -> Any:
    if patient.tissue is None:
        raise InputError(f"patient {patient.id}: expected tissue, got none. Prepare it.")
    return patient.tissue.head
