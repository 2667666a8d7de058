"""File names of BIDS: ``sub-007_ses-day000_ce-gadolinium_T1w.nii.gz`` is entities, a suffix and an extension.

Entities are written in the order of `ENTITY_ORDER`; they are read in any order. BIDS 1.10 (Gorgolewski et al., Sci.
Data 2016, and the specification's appendix on entities); ``desc``, ``label`` and ``space`` are those of derivatives.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hybridtumor.errors import InputError

ENTITY_ORDER = (
    "sub", "ses", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run", "mod",
    "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "seg", "res", "den",
    "label", "desc",
)  # fmt: skip
"""The order in which BIDS 1.10 wants entities."""

KINDS = ("T1w", "T1ce", "T2w", "FLAIR", "ADC", "PET", "CT")
"""The scans of a visit; T1ce is a T1w with the entity ``ce``, the others are called by their suffix."""

MAX_LABEL = 32
"""Longest label that is written; a name with several stays within the 255 characters of a file system."""

_NO_MAGNITUDE = {"phase", "real", "imag"}
_PAIR = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")
_NAME = re.compile(r"((?:[a-z]+-[A-Za-z0-9+]+_)*)([A-Za-z0-9]+)(\.[A-Za-z0-9]+(?:\.gz)?)")


@dataclass(frozen=True)
class BidsName:
    """The parts of a file name.

    Parameters
    ----------
    suffix
        What the file holds, such as ``T1w`` or ``dseg``.
    entities
        Key to label, keys among `ENTITY_ORDER`, labels of letters, digits and ``+``.
    extension
        With its dot.

    Raises
    ------
    InputError
        An unknown entity, or a label or suffix with other characters.
    """

    suffix: str
    entities: Mapping[str, str] = field(default_factory=dict)
    extension: str = ".nii.gz"

    def __post_init__(self) -> None:
        if unknown := [key for key in self.entities if key not in ENTITY_ORDER]:
            raise InputError(f"BIDS name: expected entities among {', '.join(ENTITY_ORDER)}, got {unknown}.")
        if not _NAME.fullmatch(str(self)):
            raise InputError(f"BIDS name: expected labels of letters and digits, got {str(self)[:200]!r}.")

    @classmethod
    def parse(cls, text: str) -> "BidsName | None":
        """Take a file name apart; None when it is not one of BIDS, has an unknown entity or one of them twice."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        pairs = _PAIR.findall(match[1])
        entities = dict(pairs)
        if len(entities) < len(pairs) or not entities.keys() <= set(ENTITY_ORDER):
            return None
        return cls(match[2], entities, match[3])

    def __str__(self) -> str:
        """Return the file name, entities in the order of BIDS."""
        pairs = [f"{key}-{self.entities[key]}" for key in ENTITY_ORDER if key in self.entities]
        return "_".join([*pairs, self.suffix]) + self.extension


@dataclass(frozen=True)
class BidsImage:
    """An image: its file, the parts of the file's name, and its place, 0 for the dataset or n for its nth pipeline."""

    path: Path
    name: BidsName
    place: int

    @property
    def kind(self) -> str | None:
        """Name of the scan this is, among `KINDS`; None when it is none, or no magnitude, or processed."""
        if "desc" in self.name.entities or self.name.entities.get("part") in _NO_MAGNITUDE:
            return None
        kind = "T1ce" if self.name.suffix == "T1w" and "ce" in self.name.entities else self.name.suffix
        return kind if kind in KINDS else None

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """The lowest of several images of one kind is taken: few entities, then a low run, then the name."""
        run = self.name.entities.get("run", "0")
        others = len(self.name.entities.keys() - {"run"})
        return self.place, others, int(run) if run.isdecimal() else 0, str(self.name)


def as_label(text: str, *, otherwise: str, taken: Iterable[str] = ()) -> str:
    """Return what a label may hold of a text: its ASCII letters and digits, at most `MAX_LABEL`.

    `otherwise` stands for a text that has none; a label that is taken, in whatever case, gets the lowest free number
    from 2 on.
    """
    stem = re.sub(r"[^A-Za-z0-9]", "", text)[:MAX_LABEL] or otherwise
    used, label, number = {name.lower() for name in taken}, stem, 1
    while label.lower() in used:
        number += 1
        label = f"{stem[: MAX_LABEL - len(str(number))]}{number}"
    return label
