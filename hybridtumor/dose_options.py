r"""What a user may ask of an optimised dose, in words: limits as a dose or a share of the prescription.

"72 Gy", "120 %" → Gy;    "4 Gy/mm" → Gy/mm;    what is not said is what the uniform plan gives
"""

import re
from dataclasses import dataclass

from hybridtumor import units
from hybridtumor.dose_limits import DoseLimits, Quantity
from hybridtumor.errors import InputError

MAXIMUM, MINIMUM = "120 %", "90 %"
"""Of the prescription: largest dose anywhere, smallest dose in the target. Boosts of glioma trials go this far."""

_SHARE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*")


@dataclass(frozen=True)
class DoseOptions:
    """Limits and effort as stated.

    Parameters
    ----------
    maximum, minimum
        Largest dose, and smallest in the clinical target: a dose with its unit, or a percentage of the prescription.
        None: `MAXIMUM` and `MINIMUM`, or what the uniform plan gives where that is more, or less.
    falloff
        Largest |∇D|, such as ``"4 Gy/mm"``; None: that of the uniform plan.
    quantity
        What the integral in the brain is of: ``physical`` dose, or ``eqd2`` with α/β of 3 Gy.
    reach
        How far beyond the clinical target the dose may change, mm.
    spacing
        Distance of the nodes, mm; None: as many as are quick.
    iterations
        Steps at most.
    perturbations
        Random changes to confirm the optimum with.
    """

    maximum: str | None = None
    minimum: str | None = None
    falloff: str | None = None
    quantity: Quantity = "physical"
    reach: float = 20.0
    spacing: float | None = None
    iterations: int = 12
    perturbations: int = 8

    def __post_init__(self) -> None:
        if not (self.reach > 0 and (self.spacing is None or self.spacing > 0)):
            raise InputError("optimise: expected a reach and a distance of nodes above 0 mm.")
        if self.iterations < 1 or self.perturbations < 0:
            raise InputError("optimise: expected at least one iteration, and no negative number of perturbations.")

    def limits(self, prescription: float, top: float, least: float, steepest: float) -> DoseLimits:
        """Return the limits, given the prescription and what the uniform plan gives: its extremes and its |∇D|."""
        highest = max(_gray(MAXIMUM, prescription), top)
        lowest = min(_gray(MINIMUM, prescription), least)
        maximum = highest if self.maximum is None else _gray(self.maximum, prescription, "largest dose")
        minimum = lowest if self.minimum is None else _gray(self.minimum, prescription, "smallest dose")
        steep = steepest if self.falloff is None else units.magnitude(self.falloff, "Gy/mm", name="fall-off")
        return DoseLimits(maximum, minimum, steep, self.quantity)


def _gray(text: str, prescription: float, name: str = "dose") -> float:
    """Return a dose, Gy, of a text with a unit or a percentage."""
    share = _SHARE.fullmatch(text)
    return float(share[1]) / 100 * prescription if share else units.magnitude(text, "Gy", name=name)
