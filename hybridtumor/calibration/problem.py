r"""Problem: the misfit of a patient's scans as a function of the unknowns, with its gradient and its information.

    Φ(x) = Σ_visits −ln L(n(x)),     n = u + d, living and damaged cells: what MRI sees

∂Φ/∂x is exact, by the adjoint of the scheme (`hybridtumor.solvers.adjoint`). The Fisher information F = Σ J W Jᵀ needs
the densities' own slopes J = ∂n/∂x: differences of runs that take the same steps, one more for each unknown that growth
depends on. This is the one seam between growth and estimators: `Problem.objective` and `Problem.information`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hybridtumor.calibration.start import KnownStart, Start
from hybridtumor.calibration.unknowns import Priors
from hybridtumor.errors import InputError
from hybridtumor.growth_gradient import GrowthGradient
from hybridtumor.models.observation import DataTerm
from hybridtumor.parameters import GrowthParameters, TreatmentResponse
from hybridtumor.solvers.adjoint import Adjoint, Slopes
from hybridtumor.solvers.cells import Cells

Array = NDArray[np.float64]

GROWTH_NAMES = ("diffusion_white", "grey_ratio", "proliferation", "alpha", "temozolomide", "age")
"""Unknowns of growth and response; `age`, days, is that of a seed."""

DIFFERENCE = 0.02
"""Step of the differences for the information, in standard deviations of the prior."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be explained, and by what.

    Parameters
    ----------
    gradient
        The patient's run, which reports on the days of all terms.
    terms
        What the scans say.
    priors
        The unknowns: of `GROWTH_NAMES`, of `start` and of the terms' own.
    fixed
        Values of parameters that are no unknowns but are not those of `gradient` either, and of the terms' own.
    start
        The density on the first day of the run; None: the patient's, known.
    start_day
        Day of the terms that is day 0 of the run.
    span
        Days of a run whose length is an unknown `age`; None: a run takes as long as it takes.

    Raises
    ------
    InputError
        No terms, an unknown that nothing depends on, a parameter of a term's own without a value, or a day that the run
        does not report.
    """

    gradient: GrowthGradient
    terms: tuple[DataTerm, ...]
    priors: Priors
    fixed: Mapping[str, float] = field(default_factory=dict)
    start: Start | None = None
    start_day: float = 0.0
    span: float | None = None
    effort: dict[str, int] = field(default_factory=lambda: {"gradients": 0, "forwards": 0})

    def __post_init__(self) -> None:
        if not self.terms:
            raise InputError("calibration: expected at least one scan to explain, got none.")
        own = {name for term in self.terms for name in term.own}
        known = {*GROWTH_NAMES, *self.source.names, *own}
        if strange := [name for name in self.priors.names if name not in known]:
            raise InputError(
                f"calibration: expected unknowns among {', '.join(sorted(known))}, got {', '.join(strange)}."
            )
        if missing := sorted((own | set(self.source.names)) - {*self.priors.names, *self.fixed}):
            raise InputError(f"calibration: expected a value or a prior of {', '.join(missing)}, got neither.")
        days = {self._run_day(term.day) for term in self.terms}
        if missed := sorted(days - set(self.gradient.report_days)):
            raise InputError(f"calibration: expected a run that reports on day {missed[0]:g} of the run, it does not.")

    @property
    def source(self) -> Start:
        """Where runs start."""
        return KnownStart(self.gradient.initial) if self.start is None else self.start

    def values(self, x: Array) -> dict[str, float]:
        """Return the values of all unknowns and fixed parameters at coordinates (p,)."""
        return {**self.fixed, **self.priors.values(x)}

    def objective(self, x: Array) -> tuple[float, Array]:
        """Return Φ and ∂Φ/∂x at coordinates (p,); raises ConvergenceError when growth cannot be computed there."""
        values = self.values(x)
        own_slopes: dict[str, float] = {}

        def functional(cells: Mapping[float, Cells]) -> tuple[float, Mapping[float, Cells]]:
            total, at_reports = 0.0, dict[float, Cells]()
            for term, way in zip(self.terms, self._ways, strict=True):
                day = self._run_day(term.day)
                misfit = term.misfit(way @ self._visible(cells[day]), values)
                total += misfit.value
                for name, slope in misfit.own.items():
                    own_slopes[name] = own_slopes.get(name, 0.0) + slope
                slopes = self.gradient.simulation.domain.local(way.T @ misfit.slope)
                before = at_reports.get(day)
                slopes = slopes if before is None else before.living + slopes
                at_reports[day] = Cells(slopes, slopes)
            return total, at_reports

        adjoint = self._run(values, grey="grey_ratio" in self.priors.names)
        self.effort["gradients"] += 1
        value, slopes, _ = adjoint.value_and_slopes(self.source.density(values), functional)
        by_value = self._by_value(values, slopes)
        for name, slope in own_slopes.items():
            by_value[name] = by_value.get(name, 0.0) + slope
        gradient = np.array([by_value[name] for name in self.priors.names])
        return value, gradient * self.priors.slopes(x)

    def densities(self, x: Array) -> dict[float, Array]:
        """Return the visible density at the mesh's nodes, (n,), at every report day of the run."""
        return self.visible(self.values(x))

    def visible(self, values: Mapping[str, float]) -> dict[float, Array]:
        """Return the visible density at the mesh's nodes, (n,), at every report day of a run with these values."""
        self.effort["forwards"] += 1
        cells = self._run(values).cells(self.source.density(values))
        return {day: self._visible(now) for day, now in cells.items()}

    def misfits(self, x: Array) -> tuple[float, ...]:
        """Return −ln L of every term."""
        densities, values = self.densities(x), self.values(x)
        return tuple(
            term.misfit(way @ densities[self._run_day(term.day)], values).value
            for term, way in zip(self.terms, self._ways, strict=True)
        )

    def information(self, x: Array) -> Array:
        """Return the Fisher information of the data, (p, p), in coordinates."""
        names, values = self.priors.names, self.values(x)
        base = self.densities(x)
        moved: list[dict[float, Array] | None] = []
        for number, name in enumerate(names):
            if name in GROWTH_NAMES or name in self.source.names:
                step = np.zeros(len(x))
                step[number] = DIFFERENCE if x[number] + DIFFERENCE < self.priors.bounds[number, 1] else -DIFFERENCE
                there = self.densities(x + step)
                moved.append({day: (there[day] - base[day]) / step[number] for day in base})
            else:
                moved.append(None)
        total, factors = np.zeros((len(x), len(x))), self.priors.slopes(x)
        for term, way in zip(self.terms, self._ways, strict=True):
            day = self._run_day(term.day)
            jacobian = np.stack(
                [
                    np.zeros(len(term.voxels)) if slope is None else (way @ slope[day]) / factor
                    for slope, factor in zip(moved, factors, strict=True)
                ]
            )
            twice = [i for i, name in enumerate(names) if name in term.own and moved[i] is not None]
            parted = (*names, *(f"{names[i]} by the start" for i in twice))
            found = term.information(way @ base[day], values, np.concatenate([jacobian, jacobian[twice]]), parted)
            both = np.concatenate([np.eye(len(x)), np.eye(len(x))[twice]])
            total += both.T @ found @ both
        return factors[:, None] * total * factors

    def growth(self, values: Mapping[str, float]) -> GrowthParameters:
        """Return the parameters of growth, in days of the patient."""
        base = self.gradient.simulation.growth
        white = values.get("diffusion_white", base.diffusion_white)
        ratio = values.get("grey_ratio", base.diffusion_grey / base.diffusion_white)
        rate = values.get("proliferation", base.proliferation)
        return base.model_copy(
            update={"diffusion_white": white, "diffusion_grey": ratio * white, "proliferation": rate}
        )

    def response(self, values: Mapping[str, float]) -> TreatmentResponse:
        """Return the sensitivity to treatment."""
        base = self.gradient.response
        known = {name: values[name] for name in ("alpha", "temozolomide") if name in values}
        return base.model_copy(update=known)

    def _run(self, values: Mapping[str, float], *, grey: bool = False) -> Adjoint:
        growth = self.growth(values)
        if self.span is not None:
            pace = values["age"] / self.span
            growth = growth.model_copy(
                update={
                    name: pace * getattr(growth, name)
                    for name in ("diffusion_white", "diffusion_grey", "proliferation")
                }
            )
        return self.gradient.adjoint(growth, self.response(values), grey=grey)

    def _by_value(self, values: Mapping[str, float], slopes: Slopes) -> dict[str, float]:
        """Return ∂Φ/∂value of the parameters of growth and start that are unknowns."""
        logarithmic = {
            "diffusion_white": slopes.diffusion,
            "grey_ratio": slopes.grey,
            "proliferation": slopes.proliferation,
            "alpha": slopes.alpha,
            "temozolomide": slopes.drug,
            "age": slopes.diffusion + slopes.proliferation,
        }
        found = {name: slope / values[name] for name, slope in logarithmic.items() if name in self.priors.names}
        comm = self.gradient.simulation.domain.comm
        for name, by_start in self.source.slopes(values).items():
            found[name] = found.get(name, 0.0) + float(comm.allreduce(float(by_start @ slopes.initial)))
        return found

    def _visible(self, cells: Cells) -> Array:
        seen = cells.living if cells.damaged is None else cells.living + cells.damaged
        return self.gradient.simulation.domain.gather(seen)

    def _run_day(self, day: float) -> float:
        return float(self.span) if self.span is not None else day - self.start_day

    @cached_property
    def _ways(self) -> tuple[sparse.csr_array, ...]:
        """The rows of the transfer that belong to the voxels of every term, (k, n)."""
        return tuple(rows_of(self.gradient, term.voxels) for term in self.terms)


def rows_of(gradient: GrowthGradient, voxels: Sequence[int] | NDArray[np.int64]) -> sparse.csr_array:
    """Return what maps nodal values (n,) to voxels of the patient's grid, given by their flat numbers, (k, n).

    Raises
    ------
    InputError
        A voxel outside the mesh.
    """
    transfer = gradient.simulation.brain.transfer
    number = np.full(transfer.domain.size, -1)
    number[transfer.domain.ravel()] = np.arange(np.count_nonzero(transfer.domain))
    rows = number[np.asarray(voxels)]
    if (rows < 0).any():
        raise InputError(
            f"calibration: expected voxels of the parenchyma, {int((rows < 0).sum())} of {len(rows)} lie outside."
            " Leave them out."
        )
    return transfer.operator[rows]
