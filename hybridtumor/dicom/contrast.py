"""Which MR contrast a series shows, guessed from how it was acquired.

Times in ms, for field strengths of 1.5 and 3 T (Bernstein, King & Zhou, Handbook of MRI Pulse Sequences, 2004): FLAIR
nulls CSF by an inversion time of 1.5 s and more at a long echo time; T2 weighting has a long echo and repetition time;
T1 weighting a short echo time with a short repetition time or an inversion time near 1 s.
Only where the times are missing do words of the series description decide; the description itself is not kept.
"""

import re

from hybridtumor.dicom.values import Dataset, guarded, number, text

FLAIR_INVERSION = 1500.0
LONG_ECHO = 60.0
SHORT_ECHO = 35.0
SHORT_REPETITION = 1100.0
LONG_REPETITION = 1800.0
GRADIENT_ECHO_T2STAR = 14.0
"""A gradient echo later than this weighs by T2*."""

_CONTRAST_WORDS = re.compile(
    r"(?:^|[^a-z])(gd|gad|gado|ce|km|post|contrast|postcontrast|[+]c|c[+]|t1c|t1ce)(?:[^a-z]|$)"
)
_WITHOUT = re.compile(r"(?:^|[^a-z])(no|non|without|w/?o|pre|ohne)[ _-]*(gd|gad|gado|ce|km|contrast|c[+]?)(?:[^a-z]|$)")
_NO_AGENT = {"", "NO", "NONE", "N", "0", "NO CONTRAST", "WITHOUT"}


def guess_contrast(dataset: Dataset) -> tuple[str | None, str]:
    """Return the name of the scan (T1w, T1ce, T2w, FLAIR, ADC), or None, and what the guess rests on.

    The reason is a phrase for the report, free of anything the file says in words.
    """
    with guarded("MR image"):
        kinds = set(text(dataset, "ImageType").upper().split("\\"))
        if "ADC" in kinds:
            return "ADC", "image type ADC"
        if kinds & {"LOCALIZER", "MOSAIC", "DIFFUSION", "TRACEW", "FA", "PROJECTION IMAGE", "MPR", "MIP", "ASL", "SWI"}:
            return None, "a localizer, projection, diffusion or other derived image"
        words = f"{text(dataset, 'SeriesDescription')} {text(dataset, 'ProtocolName')}".lower()
        weighting, why = _weighting(dataset, words)
        if weighting == "T1w" and (_agent(dataset) or _says_contrast(words)):
            return "T1ce", f"{why}, contrast agent"
        return weighting, why


def _says_contrast(words: str) -> bool:
    """Tell whether words say that contrast agent was given."""
    return bool(_CONTRAST_WORDS.search(words)) and not _WITHOUT.search(words)


def _weighting(dataset: Dataset, words: str) -> tuple[str | None, str]:
    """Return T1w, T2w or FLAIR, without regard to a contrast agent."""
    echo, repetition, inversion = _times(dataset)
    sequence = text(dataset, "ScanningSequence").upper().split("\\")
    if "EP" in sequence or "EPI" in text(dataset, "EchoPulseSequence").upper():
        return None, "echo-planar: diffusion, perfusion or functional images"
    if echo and repetition:
        return _by_times(echo, repetition, inversion, "GR" in sequence and "SE" not in sequence)
    return _by_words(words)


def _by_times(echo: float, repetition: float, inversion: float, gradient: bool) -> tuple[str | None, str]:
    """Return the weighting by echo, repetition and inversion time."""
    if inversion >= FLAIR_INVERSION and echo >= LONG_ECHO:
        return "FLAIR", "long inversion and echo time"
    if gradient and echo > GRADIENT_ECHO_T2STAR:
        return None, "late gradient echo: T2* or susceptibility weighting"
    if echo >= LONG_ECHO and repetition >= LONG_REPETITION:
        return "T2w", "long echo and repetition time"
    if echo <= SHORT_ECHO and (repetition <= SHORT_REPETITION or 300 <= inversion < FLAIR_INVERSION):
        return "T1w", "short echo time, short repetition or inversion time"
    return None, "times of no known weighting"


def _by_words(words: str) -> tuple[str | None, str]:
    """Return the weighting by words of the description."""
    for word, weighting in (("flair", "FLAIR"), ("t2w", "T2w"), ("t2", "T2w"), ("mprage", "T1w"), ("t1", "T1w")):
        if word in words and "star" not in words and "t2*" not in words:
            return weighting, "words of the series description, times are missing"
    return None, "neither times nor words that tell the weighting"


def _times(dataset: Dataset) -> tuple[float, float, float]:
    """Return echo, repetition and inversion time, ms; 0 where not stated."""
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or []), None)
    frame = next(iter(dataset.get("PerFrameFunctionalGroupsSequence") or []), None)

    def stated(keyword: str, group: str, inner: str) -> float:
        for item in (frame, shared):
            for macro in (item.get(group) or [])[:1] if item is not None else []:
                if text(macro, inner):
                    return number(macro, inner, "MR image") if "\\" not in text(macro, inner) else 0.0
        return number(dataset, keyword, "MR image", 0) if "\\" not in text(dataset, keyword) else 0.0

    return (
        stated("EchoTime", "MREchoSequence", "EffectiveEchoTime"),
        stated("RepetitionTime", "MRTimingAndRelatedParametersSequence", "RepetitionTime"),
        stated("InversionTime", "MRModifierSequence", "InversionTimes"),
    )


def _agent(dataset: Dataset) -> bool:
    """Tell whether a contrast agent is stated."""
    named = text(dataset, "ContrastBolusAgent").upper() not in _NO_AGENT
    return named or bool(dataset.get("ContrastBolusAgentSequence"))
