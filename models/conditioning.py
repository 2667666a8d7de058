"""What the networks are told: a stack of fields (where) and a vector (what was given, when, seen how).

Fields, on the working grid, each of order one:

    n_t | n_untreated − n_t | 1 − e^{−L} | |displacement| / 5 mm | white | grey | CSF | M | n_0 | κ | cavity

with n the tumour cell density, L the log-kill accumulated since day 0, M the support in which the image may change, κ
the share of tissue that keeps its own look (`hybridtumor.models.render`) and the cavity what surgery took out. The
vector holds the day, the therapy given up to that day, the modalities at hand, the contrast of the tumour and how
strong the texture of the patient's healthy tissue is in every scan. Everything that therapy brings is zero for no
treatment, so a plan of 0 Gy and no plan are the same condition.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybridtumor.models.radiation import lq_log_kill
from hybridtumor.models.texture import LEVELS_SHAPE, SCALES, TYPICAL_LEVEL
from hybridtumor.scan import LABELS, MODALITIES
from hybridtumor.therapy import TherapyPlan

FIELDS = (
    *("density", "spared", "killed", "displacement", "white", "grey", "csf"),
    *("support", "density_day0", "kept", "cavity"),
)
"""Names of the field channels in order."""

THERAPY_FIELDS = tuple(FIELDS.index(name) for name in ("spared", "killed", "cavity"))
"""Channels that only therapy makes different from zero."""

IMAGE_CHANNELS = len(MODALITIES) + len(LABELS)
"""Channels of every image the networks see or make: the modalities, then the soft tumour labels."""

ALPHA_BETA = 10.0
"""Gy. α/β at which the biologically effective dose enters the vector: a label of the course, not a prediction."""

THERAPY_SIZE = 8

VECTOR_SIZE = 1 + THERAPY_SIZE + len(MODALITIES) + len(LABELS) * len(MODALITIES) + len(MODALITIES) * len(SCALES)
"""Length of the conditioning vector."""

THERAPY_ENTRIES = slice(1, 1 + THERAPY_SIZE)
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
    kept: NDArray[np.float32]
    cavity: NDArray[np.float32]

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
                self.kept,
                self.cavity,
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
    days_since_surgery
        Days since the last resection; 0 when there was none.
    boost_bed
        Biologically effective dose that integrated boosts have given beyond `bed`, Gy.
    """

    days_since_first_fraction: float = 0.0
    days_since_last_fraction: float = 0.0
    fractions: int = 0
    bed: float = 0.0
    drug_days: int = 0
    days_since_last_drug: float = 0.0
    days_since_surgery: float = 0.0
    boost_bed: float = 0.0

    @classmethod
    def on(cls, plan: TherapyPlan, day: float) -> "TherapyState":
        """Return what `plan` has given before `day`; courses and doses of zero do not count."""
        given = [(d, c) for c in plan.active.courses for d in c.fraction_days if d < day]
        drug = [d for d, dose in plan.active.drug_doses if d < day and dose > 0]
        days = [d for d, _ in given]
        cuts = [r.day for r in plan.resections if r.day < day]
        bed = sum(_fraction_bed(c.prescribed_dose, c.fractions) for _, c in given)
        boosted = sum(_fraction_bed(c.highest_dose, c.fractions) for _, c in given)
        return cls(
            days_since_first_fraction=day - min(days) if days else 0.0,
            days_since_last_fraction=day - max(days) if days else 0.0,
            fractions=len(days),
            bed=bed,
            drug_days=len(drug),
            days_since_last_drug=day - max(drug) if drug else 0.0,
            days_since_surgery=day - max(cuts) if cuts else 0.0,
            boost_bed=boosted - bed,
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
            self.days_since_surgery / 90,
            self.boost_bed / 72,
        ]


def _fraction_bed(dose: float, fractions: int) -> float:
    return float(lq_log_kill(dose / fractions, 1.0, ALPHA_BETA))


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
    levels
        (modality, scale) strength of texture in the healthy tissue; see `hybridtumor.models.texture`.
    """

    day: float
    contrast: NDArray[np.float32]
    available: tuple[bool, ...] = (True,) * len(MODALITIES)
    therapy: TherapyState = field(default_factory=TherapyState)
    levels: NDArray[np.float32] = field(default_factory=lambda: np.full(LEVELS_SHAPE, TYPICAL_LEVEL, np.float32))

    def vector(self) -> NDArray[np.float32]:
        """Return the conditioning vector, (VECTOR_SIZE,)."""
        flags = [float(flag) for flag in self.available]
        texture = np.log(np.maximum(self.levels, 0.1 * TYPICAL_LEVEL) / TYPICAL_LEVEL)
        parts = [self.day / 180, *self.therapy.entries(), *flags, *np.ravel(self.contrast), *np.ravel(texture)]
        return np.array(parts, np.float32)
