"""The commands that read and write what clinics and archives keep: DICOM and BIDS."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hybridtumor.errors import InputError
from hybridtumor.terminal import print_table

Overwrite = Annotated[bool, Parameter(help="Replace what an earlier call has written there.", negative="")]


def import_dicom(
    source: Annotated[Path, Parameter(help="Folder of DICOM files of one patient: images, RTDOSE, RTSTRUCT, RTPLAN.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Patient folder to make.")],
    identity: Annotated[
        str | None, Parameter(name="--id", help="Pseudonym of the patient; by default the name of the folder.")
    ] = None,
    name: Annotated[
        list[str] | None,
        Parameter(help="What a series is, such as MR2=T1ce; MR2=none leaves it out.", negative=""),
    ] = None,
    fractions: Annotated[
        int | None, Parameter(help="Number of fractions, where the dose is that of one of them.")
    ] = None,
    allow_other_frame: Annotated[
        bool, Parameter(help="Take the coordinates of all frames of reference as one.", negative="")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn a clinic's DICOM files into a patient folder; nothing that tells who the patient is goes with them."""
    from hybridtumor.dicom.importing import import_dicom as run_import

    found = run_import(
        source,
        out,
        identity=identity,
        names=_pairs(name or [], "name"),
        overwrite=overwrite,
        fractions=fractions,
        allow_other_frame=allow_other_frame,
    )
    print_table(
        "Imported",
        ("found", "taken as", ""),
        [(row.name, row.taken_as or "left out", row.detail) for row in found.rows],
    )
    print(f"patient {found.id}: {found.folder}")  # noqa: T201


def export_dicom(
    source: Annotated[Path, Parameter(help="Run folder or patient folder.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder to make: new or empty.")],
    arm: Annotated[str | None, Parameter(help="Only this arm of a run.")] = None,
    day: Annotated[float | None, Parameter(help="Only the follow-up of this day.")] = None,
    dose_bits: Annotated[Literal[16, 32], Parameter(help="Of a stored dose; 16 is read by more programs.")] = 16,
    overwrite: Overwrite = False,
) -> None:
    """Write scans, dose, structures and segmentation as DICOM: MR, RTDOSE, RTPLAN, RTSTRUCT, SEG."""
    from hybridtumor.dicom.exporting import export_dicom as run_export

    rows = run_export(source, out, arm=arm, day=day, dose_bits=dose_bits, overwrite=overwrite)
    print_table(
        "Exported", ("", "what", "files", "where"), [(r.kind, r.label, str(r.files), r.file or r.note) for r in rows]
    )


def export_bids(
    source: Annotated[Path, Parameter(help="Run folder or patient folder.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Dataset to make: new or empty.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a BIDS dataset: the patient's scans, and the arms under derivatives."""
    from hybridtumor.bids_export import export_bids as run_export

    print_table("Exported", ("what", "how much"), run_export(source, out, overwrite=overwrite))


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Return what texts such as ``MR2=T1ce`` say."""
    parts = [text.partition("=") for text in texts]
    if any(not (key and sign and value) for key, sign, value in parts):
        raise InputError(f"--{option}: expected such as MR2=T1ce, got {' '.join(texts)!r}.")
    return {key.strip(): value.strip() for key, _, value in parts}
