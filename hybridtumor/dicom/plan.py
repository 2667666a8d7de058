"""RTPLAN becomes what a scenario states of a course: prescribed dose and number of fractions.

Prescribed dose: TargetPrescriptionDose of a volume or site, else of a point, the largest of them; where there is none,
fractions · Σ BeamDose.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hybridtumor.dicom.reading import read
from hybridtumor.dicom.values import Dataset, guarded, number, text
from hybridtumor.errors import InputError

LABEL = "plan"

MAX_FRACTIONS = 200
"""More than this are no course."""


@dataclass(frozen=True)
class PlanFacts:
    """A planned course of external-beam radiation.

    Attributes
    ----------
    fractions
        Number of fractions planned.
    prescription
        Total prescribed dose, Gy; None when the plan does not tell.
    beams
        Number of beams that treat.
    meterset
        Sum of the beams' metersets of one fraction (monitor units); None when not stated for all.
    plan
        UID of the plan.
    """

    fractions: int
    prescription: float | None
    beams: int
    meterset: float | None
    plan: str = field(repr=False)


def load_plan(path: Path | str) -> PlanFacts:
    """Read an RTPLAN.

    Raises
    ------
    InputError
        Not an RTPLAN; brachytherapy; not exactly one fraction group; no usable number of fractions; a doubtful file.
    """
    header = read(path, label=LABEL)
    with guarded(LABEL):
        if text(header, "Modality") != "RTPLAN":
            raise InputError(f"{LABEL}: expected an RTPLAN file, got another modality.")
        groups = list(header.get("FractionGroupSequence") or [])
        if len(groups) != 1:
            raise InputError(
                f"{LABEL}: expected one fraction group, got {len(groups)}. State the courses by hand in a scenario."
            )
        group = groups[0]
        if number(group, "NumberOfBrachyApplicationSetups", LABEL, 0) > 0 or header.get("ApplicationSetupSequence"):
            raise InputError(f"{LABEL}: expected external beams, got brachytherapy, which is not modelled.")
        fractions = number(group, "NumberOfFractionsPlanned", LABEL)
        if fractions != int(fractions) or not 1 <= fractions <= MAX_FRACTIONS:
            raise InputError(f"{LABEL}: expected 1 to {MAX_FRACTIONS} fractions, got {fractions:g}.")
        beams = [beam for beam in group.get("ReferencedBeamSequence") or [] if _treats(beam)]
        return PlanFacts(
            int(fractions),
            _prescription(header, int(fractions), beams),
            len(beams),
            _total(beams, "BeamMeterset"),
            text(header, "SOPInstanceUID"),
        )


def _treats(beam: Dataset) -> bool:
    """Tell whether a beam gives dose; beams that only set up have no meterset, or none but 0."""
    return not text(beam, "BeamMeterset") or number(beam, "BeamMeterset", LABEL) > 0


def _prescription(header: Dataset, fractions: int, beams: Iterable[Dataset]) -> float | None:
    """Return the total prescribed dose, Gy, if the plan tells."""
    volume: list[float] = []
    point: list[float] = []
    for reference in header.get("DoseReferenceSequence") or []:
        dose = number(reference, "TargetPrescriptionDose", LABEL, 0)
        if text(reference, "DoseReferenceType") == "TARGET" and dose > 0:
            of_volume = text(reference, "DoseReferenceStructureType") in ("VOLUME", "SITE")
            (volume if of_volume else point).append(dose)
    if volume or point:
        return max(volume or point)
    one = _total(beams, "BeamDose")
    return None if one is None or one <= 0 else fractions * one


def _total(beams: Iterable[Dataset], keyword: str) -> float | None:
    """Return the sum of a number over beams, or None when one of them does not state it."""
    listed = list(beams)
    if not listed or not all(text(beam, keyword) for beam in listed):
        return None
    return sum(number(beam, keyword, LABEL) for beam in listed)
