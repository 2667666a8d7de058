"""DICOM in and out: what a clinic sends becomes a patient folder, what a run makes becomes files a clinic can open.

DICOM gives positions in LPS, mm; everything that leaves this package for the rest of hybridtumor is RAS+, mm. Needs the
extra ``hybridtumor[dicom]``. No name, number, date or UID of a patient leaves this package.
"""

from importlib.util import find_spec

from hybridtumor.errors import ResourceError


def _require(package: str) -> None:
    """Refuse to go on without a package of the extra."""
    try:
        found = find_spec(package)
    except ValueError:  # it is named, but was never loaded
        found = None
    if found is None:
        raise ResourceError(
            f"DICOM: expected the package {package}, found none. Install it with: pip install 'hybridtumor[dicom]'"
        )


_require("pydicom")
_require("highdicom")
