"""Fit: what a calibration has found, whichever way it was found, and the file it becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hybridtumor.calibration.estimation import Estimate, Multistart
from hybridtumor.calibration.identifiability import identifiability
from hybridtumor.calibration.posterior import LEVEL, Laplace
from hybridtumor.calibration_file import CalibratedParameter, CalibratedVisit, Calibration, Effort, Prior
from hybridtumor.grid import FloatArray
from hybridtumor.metrics import dice
from hybridtumor.scan import LabelMap, Scan

UNITS_IN_FILE = {"mm²/day": "mm^2/day"}
"""Units of unknowns as the file spells them."""


@dataclass(frozen=True)
class FitOptions:
    """How a patient is calibrated.

    Parameters
    ----------
    cell_size
        Edge length of the mesh's cells at the tumour.
    starts
        Descents from as many points of the prior; 1: from its median alone.
    seed
        Of the starts.
    tolerance
        Gain in −ln of the posterior that ends a descent.
    most_evaluations
        Of the objective in a descent.
    sample_steps
        Steps of an ensemble of walkers that draws from the posterior, for up to six unknowns; 0: none.
    adc_minimum
        ADC at carrying capacity, mm²/s; None: that of the densest tumour of all visits.
    """

    cell_size: str = "3 mm"
    starts: int = 1
    seed: int = 0
    tolerance: float = 0.1
    most_evaluations: int = 60
    sample_steps: int = 0
    adc_minimum: float | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """What a calibration has found.

    Parameters
    ----------
    patient
        Name of the patient.
    estimate, posterior
        Mode of the posterior, and the normal distribution around it.
    fixed
        Values of what was not looked for.
    visits
        How well each visit is met.
    predicted
        Day to visible density on the patient's grid.
    thresholds
        Densities at the borders of oedema and core.
    notes
        What a reader has to know, in sentences.
    forward_solves
        Runs of the growth model, a gradient counted as `GRADIENT_COST`.
    seconds
        Wall time.
    density
        Density of day 0 that belongs to the estimate, where the fit has changed it.
    starts
        All descents, where there were several.
    """

    patient: str
    estimate: Estimate
    posterior: Laplace
    fixed: Mapping[str, float]
    visits: tuple[CalibratedVisit, ...]
    predicted: Mapping[float, FloatArray]
    thresholds: tuple[float, float | None]
    notes: tuple[str, ...]
    forward_solves: float
    seconds: float
    density: Scan | None = None
    starts: Multistart | None = field(default=None)

    @property
    def sentences(self) -> list[str]:
        """What can be told apart and what cannot, in words, notes first."""
        return [*self.notes, *identifiability(self.posterior)]

    def calibration(self, density_file: str = "density.nii.gz") -> Calibration:
        """Return the content of ``calibration.json``."""
        priors, intervals = self.posterior.priors, self.posterior.intervals(LEVEL)
        spreads = np.array([unknown.spread for unknown in priors.unknowns])
        covariance = spreads[:, None] * self.posterior.covariance * spreads
        return Calibration(
            schema=1,
            patient=self.patient,
            parameters=tuple(
                CalibratedParameter(
                    name=unknown.name,
                    unit=UNITS_IN_FILE.get(unknown.unit, unknown.unit),
                    scale=unknown.scale,
                    estimate=self.estimate.values[unknown.name],
                    interval=(intervals[unknown.name].low, intervals[unknown.name].high),
                    prior=Prior(median=unknown.median, spread=unknown.spread),
                    bounds=(unknown.low, unknown.high),
                )
                for unknown in priors.unknowns
            ),
            covariance=tuple(tuple(map(float, row)) for row in covariance),
            fixed=dict(self.fixed),
            visits=self.visits,
            identifiability=tuple(self.sentences),
            density=None if self.density is None else density_file,
            effort=Effort(forward_solves=self.forward_solves, seconds=self.seconds),
        )


GRADIENT_COST = 2.7
"""Forward solves with the same steps that value and gradient cost together, as `tests/benchmarks/adjoint.py` finds."""


def forward_solves(effort: Mapping[str, int]) -> float:
    """Return the runs of a problem as forward solves."""
    return effort["forwards"] + GRADIENT_COST * effort["gradients"]


def visit_of(
    day: float,
    kind: str,
    misfit: float,
    density: FloatArray,
    labels: LabelMap | None,
    thresholds: tuple[float, float | None],
    *,
    held_out: bool = False,
) -> CalibratedVisit:
    """Return how well a density on the patient's grid meets a visit."""
    whole = core = None
    if labels is not None:
        whole = dice(density > thresholds[0], labels.mask())
        marked = labels.mask("necrosis", "enhancing")
        core = dice(density > thresholds[1], marked) if thresholds[1] is not None and marked.any() else None
    return CalibratedVisit(day=day, kind=kind, misfit=misfit, dice_whole=whole, dice_core=core, held_out=held_out)


def bound_notes(estimates: Sequence[Estimate]) -> list[str]:
    """Return a sentence for every estimate that ended on a bound or did not converge."""
    notes = []
    for estimate in estimates:
        if not estimate.converged:
            notes.append(f"The descent did not converge: {estimate.reason}.")
        if estimate.at_bound:
            notes.append(f"On the bound of what is allowed: {', '.join(estimate.at_bound)}.")
    return notes


LEAST_WHOLE, LEAST_CORE = 0.8, 0.65
"""Dice below which a fit is said to miss a segmentation."""


def missed(visit: CalibratedVisit) -> list[str]:
    """Return a sentence for each part of a segmentation that a fit does not meet."""
    parts = (("whole tumour", visit.dice_whole, LEAST_WHOLE), ("core", visit.dice_core, LEAST_CORE))
    return [
        f"Day {visit.day:g}: the fit misses the {what}, Dice {dice:.2f}. Do not rely on it."
        for what, dice, least in parts
        if dice is not None and dice < least
    ]
