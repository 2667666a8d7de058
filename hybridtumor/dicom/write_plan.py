"""The least RTPLAN that a dose of a plan may point to: prescriptions and fractions, no beams, not approved.

One fraction group per course. DICOM has no days in a fraction group but words, so the first and the last day are words.
A plan without beams cannot be delivered, and says that it is for research (PlanIntent RESEARCH, UNAPPROVED).
"""

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import RTPlanStorage

from hybridtumor.dicom.writing import (
    LONG_STRING,
    RESEARCH_USE,
    Series,
    date_and_time,
    decimals,
    items,
    new_dataset,
    reference,
    write_dataset,
)
from hybridtumor.therapy import Fractionation


def write_plan(
    courses: Sequence[Fractionation], series: Series, path: Path, *, structures: FileDataset | None = None
) -> FileDataset:
    """Write a plan.

    Parameters
    ----------
    courses
        In order of time; none when only the dose is known: fractions and prescription are then left blank.
    structures
        The RTSTRUCT whose geometry the plan is about, if there is one.
    """
    data = new_dataset(RTPlanStorage, series, "RTPLAN")
    data.OperatorsName = ""
    data.RTPlanLabel = "hybridtumor"
    data.RTPlanName = series.label[:LONG_STRING]
    data.RTPlanDescription = f"{series.notice}. {series.label}. {RESEARCH_USE}"
    data.RTPlanDate, data.RTPlanTime = date_and_time(series.day)
    data.PlanIntent, data.ApprovalStatus = "RESEARCH", "UNAPPROVED"
    data.RTPlanGeometry = "TREATMENT_DEVICE" if structures is None else "PATIENT"
    if structures is not None:
        data.ReferencedStructureSetSequence = reference(structures)
    if courses:
        data.DoseReferenceSequence = [_prescription(number, course) for number, course in enumerate(courses, 1)]
    data.FractionGroupSequence = [_group(number, course) for number, course in enumerate(courses or [None], 1)]
    write_dataset(data, path)
    return data


def content_of(courses: Sequence[Fractionation]) -> tuple[str, ...]:
    """Return what decides the UIDs of a plan, besides its dose."""
    return tuple(f"{course.fraction_days} {course.prescribed_dose!r}" for course in courses)


def _prescription(number: int, course: Fractionation) -> Dataset:
    dose = {
        "DoseReferenceNumber": number,
        "DoseReferenceStructureType": "SITE",
        "DoseReferenceDescription": f"target of course {number}",
        "DoseReferenceType": "TARGET",
        "TargetPrescriptionDose": decimals([course.prescribed_dose])[0],
    }
    return items(dose)[0]


def _group(number: int, course: Fractionation | None) -> Dataset:
    group: dict[str, object] = {
        "FractionGroupNumber": number,
        "NumberOfFractionsPlanned": None,
        "NumberOfBeams": 0,
        "NumberOfBrachyApplicationSetups": 0,
    }
    if course is not None:
        days = course.fraction_days
        group["NumberOfFractionsPlanned"] = course.fractions
        group["FractionGroupDescription"] = f"day {days[0]:g} to day {days[-1]:g} after the baseline scan"[:LONG_STRING]
        group["ReferencedDoseReferenceSequence"] = items({"ReferencedDoseReferenceNumber": number})
    return items(group)[0]
