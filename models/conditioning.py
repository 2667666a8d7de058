"""What the networks are told: a stack of fields (where) and a vector (what was given, when, seen how).

Fields, on the working grid, each of order one:

    n_t | n_untreated − n_t | 1 − e^{−L} | |displacement| / 5 mm | white | grey | CSF | M | n_0

with n the tumour cell density, L the log-kill accumulated since day 0 and M the support in which the image may
change. The vector holds the day, the therapy given up to that day, the modalities at hand and the contrast of the
tumour. Everything that therapy brings is zero for no treatment, so a plan of 0 Gy and no plan are the same condition.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybridtumor.models.radiation import lq_log_kill
from hybridtumor.scan import LABELS, MODALITIES
from hybridtumor.therapy import TherapyPlan

FIELDS = ("density", "spared", "killed", "displacement", "white", "grey", "csf", "support", "density_day0")
"""Names of the field channels in order."""

THERAPY_FIELDS = (1, 2)
"""Channels that only therapy makes different from zero."""

IMAGE_CHANNELS = len(MODALITIES) + len(LABELS)
"""Channels of every image the networks see or make: the modalities, then the soft tumour labels."""

ALPHA_BETA = 10.0
"""Gy. α/β at which the biologically effective dose enters the vector: a label of the course, not a prediction."""

VECTOR_SIZE = 1 + 6 + len(MODALITIES) + len(LABELS) * len(MODALITIES)
"""Length of the conditioning vector."""

THERAPY_ENTRIES = slice(1, 7)
"""Entries of the vector that only therapy makes different from zero."""

DISPLACEMENT_SCALE = 5.0


@dataclass(frozen=True, eq=False)
class FieldStack:
    """The fields of one day on the working grid, each (X, Y, Z); names as in `FIELDS`, before scaling."""

    density: NDArray[np.float32]
    density_untreated: NDArray[np.float32]
    log_kill: NDArray[np.float32]
    displacement: NDArray[np.float32]
    white: NDArray[np.float32]
    grey: NDArray[np.float32]
    csf: NDArray[np.float32]
    support: NDArray[np.float32]
    density_day0: NDArray[np.float32]

    def stack(self) -> NDArray[np.float32]:
        """Return the channels the networks read, (len(FIELDS), X, Y, Z)."""
        return np.stack(
            [
                self.density,
                self.density_untreated - self.density,
                -np.expm1(-self.log_kill),
                self.displacement / DISPLACEMENT_SCALE,
                self.white,
                self.grey,
                self.csf,
                self.support,
                self.density_day0,
            ]
        ).astype(np.float32)


@dataclass(frozen=True)
class TherapyState:
    """The therapy given up to a day.

    Parameters
    ----------
    days_since_first_fraction, days_since_last_fraction
        Days; 0 when no fraction was given.
    fractions
        Number of fractions given.
    bed
        Biologically effective dose given, n d (1 + d/(α/β)), Gy.
    drug_days
        Number of drug administrations given.
    days_since_last_drug
        Days; 0 when none was given.
    """

    days_since_first_fraction: float = 0.0
    days_since_last_fraction: float = 0.0
    fractions: int = 0
    bed: float = 0.0
    drug_days: int = 0
    days_since_last_drug: float = 0.0

    @classmethod
    def on(cls, plan: TherapyPlan, day: float) -> "TherapyState":
        """Return what `plan` has given before `day`; courses and doses of zero do not count."""
        given = [(d, c.prescribed_dose / c.fractions) for c in plan.active.courses for d in c.fraction_days if d < day]
        drug = [d for d, dose in plan.active.drug_doses if d < day and dose > 0]
        days = [d for d, _ in given]
        return cls(
            days_since_first_fraction=day - min(days) if days else 0.0,
            days_since_last_fraction=day - max(days) if days else 0.0,
            fractions=len(days),
            bed=float(sum(lq_log_kill(dose, 1.0, ALPHA_BETA) for _, dose in given)),
            drug_days=len(drug),
            days_since_last_drug=day - max(drug) if drug else 0.0,
        )

    def entries(self) -> list[float]:
        """Return the state as numbers of order one."""
        return [
            self.days_since_first_fraction / 90,
            self.days_since_last_fraction / 90,
            self.fractions / 30,
            self.bed / 72,
            self.drug_days / 42,
            self.days_since_last_drug / 90,
        ]


@dataclass(frozen=True, eq=False)
class Condition:
    """What is known about one image as a whole.

    Parameters
    ----------
    day
        Days since the baseline scan.
    contrast
        (label, modality) contrast of the tumour in normalised intensity; see `hybridtumor.models.contrast`.
    available
        One flag per modality.
    therapy
        What was given before.
    """

    day: float
    contrast: NDArray[np.float32]
    available: tuple[bool, ...] = (True,) * len(MODALITIES)
    therapy: TherapyState = field(default_factory=TherapyState)

    def vector(self) -> NDArray[np.float32]:
        """Return the conditioning vector, (VECTOR_SIZE,)."""
        flags = [float(flag) for flag in self.available]
        return np.array([self.day / 180, *self.therapy.entries(), *flags, *np.ravel(self.contrast)], np.float32)
