"""The manifest of a run: what went in, what computed it, which stages are finished.

It is written anew, atomically, after every stage, so that a run which is killed anywhere can be resumed. It names input
files by their name and SHA-256, never by their place on a disk.
"""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hybridtumor.bids import is_bids_subject, subject_files
from hybridtumor.errors import InputError
from hybridtumor.scan import write_bytes

SCHEMA_VERSION = 2
"""1: the follow-up images were means. 2: they are samples, with the means beside them."""

LIBRARIES = (
    "dolfinx-solver-real", "matplotlib", "mpi4py", "nibabel", "nilearn", "numpy", "pint", "pydantic",
    "pyvista", "safetensors", "scipy", "SimpleITK", "torch", "vtk",
)  # fmt: skip


@dataclass
class Manifest:
    """Facts about one run; the only mutable record, kept equal to the file by `save`.

    Attributes
    ----------
    scenario_sha256
        Hash of the normalised scenario; a run is resumed only with the same one.
    inputs
        Name to SHA-256 of every input file.
    patient
        Pseudonym of the patient.
    horizon_days
        How far the run looks ahead.
    seeds
        Seeds of everything that is drawn at random.
    samples
        Images in the ensemble.
    stages
        Name of every finished stage to its wall time in seconds.
    warnings
        What went less than well without making the numbers wrong.
    figures
        What the solvers report of themselves.
    """

    scenario_sha256: str
    inputs: dict[str, str] = field(default_factory=dict)
    patient: str = ""
    horizon_days: float = 0.0
    seeds: dict[str, int] = field(default_factory=dict)
    samples: int = 1
    mpi_size: int = 1
    stages: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    hybridtumor: str = field(default_factory=lambda: _version("hybridtumor"))
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)
    libraries: dict[str, str] = field(default_factory=lambda: {name: _version(name) for name in LIBRARIES})
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    schema_version: int = SCHEMA_VERSION

    def save(self, path: Path) -> None:
        """Write the manifest whole."""
        write_bytes(path, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read a manifest.

        Raises
        ------
        InputError
            No such file, not a manifest, or one of another schema version.
        """
        try:
            content = json.loads(path.read_text())
            version = content["schema_version"]
        except FileNotFoundError:
            raise InputError(
                f"{path.parent}: expected a run folder of hybridtumor, found no {path.name} in it."
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: expected the manifest of a run, got a file that is none ({error}).") from error
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path}: expected schema_version {SCHEMA_VERSION}, got {version}. Make the run anew with this version."
            )
        try:
            return cls(**content)
        except TypeError as error:
            raise InputError(f"{path}: expected the manifest of a run ({error}).") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the hashes of all files of a folder, whatever they are called.

    Raises
    ------
    InputError
        There is neither.
    """
    if path.is_file():
        return sha256_of(path)
    if path.is_dir():
        parts = sorted(sha256_of(part) for part in path.rglob("*") if part.is_file())
        return hashlib.sha256("".join(parts).encode()).hexdigest()
    raise InputError(f"{path}: expected a file (or a folder of DICOM files), found none.")


def input_hashes(reference: str | Path) -> dict[str, str]:
    """Return name to SHA-256 of the files that a patient folder is read from; nothing for an embedded patient.

    Of a BIDS subject, whose files lie all over its dataset, that is every image, sidecar and table about it.
    """
    folder = Path(reference)
    if not folder.is_dir():
        return {}
    bids = is_bids_subject(folder)
    root, files = subject_files(folder) if bids else (folder, sorted(folder.rglob("*")))
    kinds = (".nii", ".nii.gz", ".yaml", ".yml", *((".json", ".tsv") if bids else ()))
    return {p.relative_to(root).as_posix(): sha256_of(p) for p in files if p.is_file() and p.name.endswith(kinds)}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
