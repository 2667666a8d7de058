"""What stands in the tags of a DICOM data set, read without letting it out.

pydicom quotes values, a patient's name among them, in warnings and exceptions. Here it is silent, and what it raises
becomes an InputError that names the tag or the kind of the error and nothing else.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import HybridTumorError, InputError, ResourceError

try:
    import pydicom
    from pydicom.datadict import dictionary_VR
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset
except ImportError as error:
    raise ResourceError(
        "DICOM: expected the package pydicom, found none. Install it with: pip install 'hybridtumor[dicom]'"
    ) from error

__all__ = ["Dataset", "guarded", "number", "numbers", "text"]


@contextmanager
def guarded(label: str) -> Iterator[None]:
    """Silence pydicom and turn whatever it raises into InputError without a word of what the file says."""
    log, settings = logging.getLogger("pydicom"), pydicom.config.settings
    before, mode = log.disabled, settings.reading_validation_mode
    log.disabled, settings.reading_validation_mode = True, pydicom.config.IGNORE
    problem: HybridTumorError | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except HybridTumorError:
        raise
    except MemoryError:
        problem = ResourceError(f"{label}: expected memory for its contents, there is too little.")
    except Exception as error:  # noqa: BLE001  (its text may quote what the file says)
        problem = InputError(
            f"{label}: expected readable DICOM, got a file that is damaged or not DICOM ({type(error).__name__})."
        )
    finally:
        log.disabled, settings.reading_validation_mode = before, mode
    if problem is not None:  # raised out here it does not keep pydicom's error, and with it what was read, in memory
        raise problem


def text(dataset: Dataset, keyword: str) -> str:
    """Return a value as plain text, several joined by a backslash; empty when there is none, or a sequence.

    A sequence is never turned to text: pydicom doubles the text of an error within it at every level of nesting.
    """
    value = dataset.get(keyword)
    if isinstance(value, pydicom.Sequence):
        return ""
    parts = [] if value is None else value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
    return "\\".join(str(part).strip().strip("\0") for part in parts)


def numbers(dataset: Dataset, keyword: str, count: int | None = None, label: str = "DICOM file") -> NDArray[np.float64]:
    """Return the numbers of a tag, finite and `count` of them; InputError otherwise."""
    try:
        found = np.array([float(part) for part in _parts(dataset, keyword)], np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{label}: expected numbers in {keyword}, got something else.") from None
    if (count is not None and found.size != count) or not found.size or not np.isfinite(found).all():
        many = "finite numbers" if count is None else f"{count} finite number{'s' if count > 1 else ''}"
        raise InputError(f"{label}: expected {many} in {keyword}, got {found.size or 'none'}.")
    return found


def _parts(dataset: Dataset, keyword: str) -> Sequence[Any]:
    """Return the values of a tag, decimal strings as they stand: pydicom makes 500 bytes of each, and keeps them."""
    element = dataset.get_item(keyword)
    raw = element.value if isinstance(element, RawDataElement) else None
    if isinstance(raw, bytes) and (element.VR or dictionary_VR(element.tag)) == "DS":
        return [part.strip(b" \0") for part in raw.split(b"\\")] if raw.strip(b" \0") else []
    value = dataset.get(keyword)
    if isinstance(value, (list, pydicom.multival.MultiValue)):
        return value
    return [] if value in (None, "") else [value]


def number(dataset: Dataset, keyword: str, label: str = "DICOM file", default: float | None = None) -> float:
    """Return the number of a tag, or the default where the tag is missing or empty."""
    if default is not None and not text(dataset, keyword):
        return default
    return float(numbers(dataset, keyword, 1, label)[0])
