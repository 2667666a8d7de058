"""Names of structures that can be kept: those of anatomy and of targets, written as TG-263 writes them.

Whoever draws a structure may call it anything, also by the name of a patient or a doctor. Only words that are known
here survive (Mayo et al., TG-263, Int. J. Radiat. Oncol. Biol. Phys. 2018, is the source of their spelling); every
other structure becomes ``Structure1``, ``Structure2``...
"""

import re
from collections import Counter
from collections.abc import Iterable

ORGANS = (
    (r"brain ?stem|bstem", "Brainstem", False),
    (r"(optic ?)?chiasma?|opt ?chiasm", "OpticChiasm", False),
    (r"opt(ic)? ?n(e?rve?s?)?|n ?opticus|sehnerv", "OpticNrv", True),
    (r"optic ?tracts?", "OpticTrct", True),
    (r"eyes?|globes?|bulbus|auge", "Eye", True),
    (r"lens(es)?|linse", "Lens", True),
    (r"retinae?", "Retina", True),
    (r"lacrimal( ?glands?)?|glnd ?lacrimal", "Glnd_Lacrimal", True),
    (r"cochleae?|inner ?ear|ear ?internal", "Cochlea", True),
    (r"hippocamp(us|i)?", "Hippocampus", True),
    (r"temporal ?lobes?|lobe ?temporal", "Lobe_Temporal", True),
    (r"pituitary( ?gland)?|hypophysis", "Pituitary", False),
    (r"hypothalamus", "Hypothalamus", False),
    (r"cerebellum", "Cerebellum", False),
    (r"(spinal ?)?cord|spinal ?canal|myelon|medulla ?spinalis", "SpinalCord", False),
    (r"(whole ?)?brain|gehirn|hirn", "Brain", False),
    (r"body|external|skin ?outline|outline|patient ?outline|aussenkontur", "External", False),
    (r"skin", "Skin", False),
    (r"skull|bone ?skull|cranium", "Skull", False),
    (r"scalp", "Scalp", False),
    (r"ventricles?", "Ventricles", False),
    (r"parotids?( ?glands?)?", "Parotid", True),
    (r"(surgical |resection |tumou?r )?cavity|tumou?r ?bed|surgical ?bed", "Cavity", False),
    (r"o?edema", "Edema", False),
    (r"necrosis", "Necrosis", False),
    (r"enhancing( tumou?r)?", "Enhancing", False),
    (r"heart", "Heart", False),
    (r"lungs?", "Lung", True),
)  # fmt: skip
"""Pattern of the words of a name, what TG-263 calls it, and whether there is one on each side."""

TARGETS = ("GTV", "CTV", "PTV", "ITV", "PRV")

TARGET_WORDS = frozenset(
    {"n", "p", "t", "l", "r", "low", "mid", "high", "boost", "primary", "residual", "recurrence", "total", "nodal"}
    | {"t1", "t1c", "t1ce", "t2", "flair", "mr", "mri", "ct", "pet", "eval", "opt", "cavity", "edema"}
)
"""Words that may follow the kind of a target."""

_LEFT, _RIGHT = {"l", "lt", "left", "li", "links"}, {"r", "rt", "right", "re", "rechts"}
_WORD = re.compile(r"[A-Za-z]+\d?|\d+")


def clean_names(stated: Iterable[tuple[str, str]]) -> list[str]:
    """Return a safe, distinct name for each structure.

    Parameters
    ----------
    stated
        ROIName and RTROIInterpretedType of each, in order.
    """
    known = [clean_name(name, kind) for name, kind in stated]
    many, seen, result = Counter(known), Counter[str | None](), []
    taken = set(known)
    for name in known:
        seen[name] += 1
        if name is not None and seen[name] == 1:
            result.append(name)
            continue
        base, number = (name, seen[name]) if name is not None else ("Structure", seen[None])
        while (candidate := f"{base}{'~' if name is not None and many[name] else ''}{number}") in taken:
            number += 1
        taken.add(candidate)
        result.append(candidate)
    return result


def clean_name(name: str, kind: str = "") -> str | None:
    """Return the name of one structure in words that are known, or None."""
    words = [word.lower() for word in _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))]
    if (target := _target(name)) is not None:
        return target
    for side, letters in (("_L", _LEFT), ("_R", _RIGHT), ("", set[str]())):
        rest = " ".join(word for word in words if word not in letters)
        if letters and len(rest.split()) == len(words):
            continue
        for pattern, organ, paired in ORGANS:
            if re.fullmatch(pattern, rest) and (paired or not side):
                return organ + side
    kind = kind.strip().upper()
    return {"EXTERNAL": "External"}.get(kind, kind if kind in TARGETS else None)


def _target(name: str) -> str | None:
    """Return GTV, CTV, PTV and so on with those of the words after it that are known, or numbers of a dose or order."""
    match = re.match(r"\s*(gtv|ctv|ptv|itv)(n|p|t)?(?=[^A-Za-z]|$)", name, re.IGNORECASE)
    if match is None:
        return None
    kept = [match[1].upper() + (match[2] or "").lower()]
    rest = [word.lower() for word in _WORD.findall(name[match.end() :])]
    kept += [
        word if word.isdigit() else word.upper() if len(word) <= 3 else word.title() for word in rest if _safe(word)
    ]
    return (
        "_".join(kept)
        if not (len(kept) > 1 and kept[1].isdigit() and len(kept[1]) == 1)
        else ("_".join([kept[0] + kept[1], *kept[2:]]))
    )


def _safe(word: str) -> bool:
    """Tell whether a word after a target's kind says nothing of a person: known words, order, dose in Gy or cGy."""
    if word.isdigit():
        return len(word) <= 2 or (len(word) <= 4 and int(word) % 10 == 0)
    return word in TARGET_WORDS
