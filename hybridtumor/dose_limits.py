r"""What an optimised dose has to keep: its integral in the brain, its extremes, its steepness.

    Σ_brain e(D) V ≤ Σ_brain e(D₀) V,    0 ≤ D ≤ D_max,    D ≥ D_min in the clinical target,    |∇D| ≤ G

D is the total dose of all courses, D₀ that of the uniform plan, e(D) = D, or the dose in 2 Gy fractions that does the
same late harm: e = Σ_k D_k (1 + D_k/(n_k α/β)) / (1 + 2/(α/β)) with α/β = 3 Gy for normal brain. |∇D| by central
differences, where a voxel and its neighbours have a dose. Fractions and their days stay.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hybridtumor.dose_control import DoseControl, shares, steepness
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.outcome import LATE_ALPHA_BETA
from hybridtumor.solvers.cone_program import Constraints
from hybridtumor.therapy import TherapyPlan

Array = NDArray[np.float64]
Quantity = Literal["physical", "eqd2"]

SLACK = 1e-4
"""How far inside its limit the integral is aimed at, so that round-off does not pass it."""

STEEP_SLACK = 4e-3
"""The same of the steepness."""

KEPT = 1e-6
"""What a limit may be passed by in the end, relative."""


@dataclass(frozen=True)
class DoseLimits:
    """The limits in numbers.

    Parameters
    ----------
    maximum, minimum
        Largest dose anywhere and smallest dose in the clinical target, Gy.
    steepest
        Largest |∇D|, Gy/mm.
    quantity
        What the integral is of: ``physical`` dose or ``eqd2``.
    """

    maximum: float
    minimum: float
    steepest: float
    quantity: Quantity = "physical"

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum or not np.isfinite(self.maximum):
            raise InputError(
                f"limits: expected 0 ≤ smallest dose to the target ≤ largest dose, got {self.minimum:g} Gy and"
                f" {self.maximum:g} Gy. Change one."
            )
        if not self.steepest > 0:
            raise InputError(f"limits: expected a fall-off above 0 Gy/mm, got {self.steepest:g} Gy/mm.")


@dataclass(frozen=True, eq=False)
class LimitedDose:
    """A uniform plan, how it may change, and what has to be kept.

    Parameters
    ----------
    control
        The nodes.
    plan
        The uniform plan.
    limits
        The limits.
    target, brain
        Clinical target and brain, shape of the grid.
    """

    control: DoseControl
    plan: TherapyPlan
    limits: DoseLimits
    target: BoolArray
    brain: BoolArray

    def __post_init__(self) -> None:
        room = self.spent(self.control.dose)
        least = np.where(self.target & (self.control.dose > 0), self.limits.minimum, 0.0)
        needed = self.spent(least)
        if needed > room:
            raise InputError(
                f"limits: expected room for the smallest dose to the target within the integral dose, got"
                f" {self.limits.minimum:g} Gy in the target, which alone take {needed:.4g} of {room:.4g} Gy·ml."
                " Lower the smallest dose."
            )

    def spent(self, dose: NDArray[np.floating[Any]]) -> float:
        """Return Σ_brain e(D) V, Gy·ml."""
        box = (slice(None), slice(None), slice(None))
        values = np.asarray(dose, np.float64)
        if self.limits.quantity == "eqd2":
            values = values * (1 + values * self._per_fraction(box)) / (1 + 2 / LATE_ALPHA_BETA)
        return float(values[self.brain].sum()) * self.control.grid.voxel_volume / 1000

    def constraints(
        self, nodes: Array, radius: float, voxels: NDArray[np.intp], rows: sparse.csr_array, at: Array
    ) -> Constraints:
        """Return what a step from c, (n,), has to meet within a trust radius, Gy.

        Parameters
        ----------
        voxels, rows
            Where the gradient is looked at, (m, 3) in the box, and `DoseControl.gradient_rows` there.
        at
            c, (n,), at which the integral of EQD2 is taken as linear.
        """
        control, box = self.control, self.control.box
        now = control.dose[box] + control.change(at)
        target = self.target[box]
        low = np.where(target, np.minimum(self.limits.minimum, self.limits.maximum), 0.0) - control.dose[box]
        high = np.broadcast_to(self.limits.maximum, target.shape) - control.dose[box]
        lower, upper = control.bounds(low, high)
        if (lower > upper).any():
            raise InputError(
                "limits: expected a dose between the smallest one in the target and the largest one, found none where"
                " the dose of the plan varies by more between two nodes. Widen them, or use finer nodes."
            )
        price = np.ones(now.shape)
        if self.limits.quantity == "eqd2":
            price = (1 + 2 * now * self._per_fraction(box)) / (1 + 2 / LATE_ALPHA_BETA)
        weight = control.gathered(np.where(self.brain[box], price, 0.0)) * control.grid.voxel_volume / 1000
        dose = control.dose.copy()
        uniform = self.spent(dose)
        dose[box] = now
        budget = uniform * (1 - SLACK) - self.spent(dose) + float(weight @ at)
        near_low, near_high = np.clip(nodes - radius, lower, upper), np.clip(nodes + radius, lower, upper)
        steepest = self.limits.steepest * (1 - STEEP_SLACK)
        return Constraints(near_low, near_high, weight, budget, rows, self._gradient(voxels), steepest)

    def steep_already(self, share: float, most: int) -> NDArray[np.intp]:
        """Return about `most` voxels of the box, (m, 3), evenly picked, where |∇D₀| is that share of the limit."""
        control = self.control
        steep = steepness(control.dose[control.box], control.grid, control.movable)
        found = np.argwhere(steep > share * self.limits.steepest)
        return found[:: max(1, len(found) // most)]

    def too_steep(self, plan: TherapyPlan) -> NDArray[np.intp]:
        """Return the voxels of the box, (m, 3), at which the dose is too steep, the steepest first."""
        control = self.control
        dose = plan.active.total_dose(control.grid)[control.box]
        steep = np.where(control.movable, steepness(dose, control.grid, control.inside), 0.0)
        found = np.argwhere(steep > self.limits.steepest * (1 - 0.5 * STEEP_SLACK))
        return found[np.argsort(-steep[tuple(found.T)], kind="stable")]

    def attained(self, plan: TherapyPlan) -> dict[str, float]:
        """Return what a plan gives, by the name of each limit."""
        dose = plan.active.total_dose(self.control.grid)
        seen = self.target & (self.control.dose > 0)
        return {
            "integral_Gy_ml": self.spent(dose),
            "maximum_Gy": float(dose.max()),
            "target_minimum_Gy": float(dose[seen].min()) if seen.any() else 0.0,
            "steepest_Gy_per_mm": float(steepness(dose, self.control.grid, self.control.dose > 0).max()),
        }

    def kept(self, found: dict[str, float], integral: float) -> bool:
        """Tell whether what a plan gives keeps all limits; `integral` is that of the uniform plan, Gy·ml."""
        limits = self.limits
        return (
            found["integral_Gy_ml"] <= integral * (1 + KEPT)
            and found["maximum_Gy"] <= limits.maximum * (1 + KEPT)
            and found["target_minimum_Gy"] >= limits.minimum * (1 - KEPT)
            and found["steepest_Gy_per_mm"] <= limits.steepest * (1 + KEPT)
        )

    def _gradient(self, voxels: NDArray[np.intp]) -> Array:
        """Return ∇D₀ at voxels of the box, Gy/mm, (3, m)."""
        control, parts = self.control, []
        dose = control.dose[control.box]
        for axis, size in enumerate(control.grid.voxel_size):
            one = np.eye(3, dtype=np.intp)[axis]
            ahead, behind = (dose[tuple(place.T)] for place in (voxels + one, voxels - one))
            parts.append((ahead - behind) / (2 * size))
        return np.array(parts)

    def _per_fraction(self, box: tuple[slice, slice, slice]) -> Array:
        """Return Σ_k s_k²/(n_k α/β), 1/Gy: s_k the share of course k in the dose."""
        courses, control = self.plan.active.courses, self.control
        total = np.zeros(control.dose[box].shape)
        for course, share in zip(courses, shares(self.plan, control.dose, box), strict=True):
            total += share**2 / (course.fractions * LATE_ALPHA_BETA)
        return total
