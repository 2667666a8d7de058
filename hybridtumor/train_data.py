r"""What the refiner is trained and validated on: real cases, phantoms, and how often each is drawn.

Few gliomas of the training data enhance, and what is rarely seen is badly learnt: cases are drawn so that half of the
real examples come from enhancing tumours, but none more than `MOST_OFTEN` times as often as in equal shares, because
one tumour drawn all the time is learnt by heart.

    w_i ∝ 1/(2 n_enhancing) or 1/(2 n_other),   capped at MOST_OFTEN/n
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridtumor.errors import InputError
from hybridtumor.prepare import load_patient
from hybridtumor.solvers.training import Batch
from hybridtumor.teacher import PhantomPair, RealCase, prepare_cases
from hybridtumor.training_pairs import PairSource

ENHANCING_SHARE = 0.5
"""Share of the real examples that come from enhancing tumours, where there are both kinds."""

MOST_OFTEN = 3.0
"""No case is drawn more often than this many times its equal share."""

VALIDATION_SEED = 991
"""Of the validation batches, the same in every run."""

FIRST_VALIDATION, VALIDATION_PHANTOMS = 900, 2
"""Phantoms from this number on are validated on and never trained on; how many are made."""

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Lessons:
    """What there is to learn from.

    Parameters
    ----------
    cases, phantoms
        To train on.
    held, held_phantoms
        Real cases and phantoms to validate on, never trained on.
    """

    cases: list[RealCase]
    phantoms: list[PhantomPair]
    held: list[RealCase]
    held_phantoms: list[PhantomPair]

    def source(self, crop: int, batch: int, seed: int, phantom_share: float, repainted: float = 0.0) -> PairSource:
        """Return the batches of a stage."""
        weights = case_weights(self.cases)
        return PairSource(self.cases, self.phantoms, crop, batch, seed, phantom_share, weights, repainted)

    def validation(self, crop: int, batches: int) -> list[Batch]:
        """Return the fixed validation batches, of one example each: held-out cases and phantoms in equal parts."""
        if not self.held and not self.held_phantoms:
            return []
        source = PairSource(self.held, self.held_phantoms, crop, 1, VALIDATION_SEED, 0.5)
        return [source.batch_of(number) for number in range(batches)]


def case_weights(cases: Sequence[RealCase]) -> tuple[float, ...]:
    """Return how often each case is drawn, of sum 1."""
    enhancing = sum(case.enhances for case in cases)
    if enhancing in (0, len(cases)):
        return tuple(1 / len(cases) for _ in cases)
    of_kind = {True: ENHANCING_SHARE / enhancing, False: (1 - ENHANCING_SHARE) / (len(cases) - enhancing)}
    capped = [min(of_kind[case.enhances], MOST_OFTEN / len(cases)) for case in cases]
    return tuple(weight / sum(capped) for weight in capped)


def prepare_lessons(
    data: Path | None, cache: Path, phantoms: int, hold_out: Sequence[str], *, say: Say | None = None
) -> Lessons:
    """Return the lessons, from the cache or freshly prepared: seconds per case, minutes per phantom.

    Parameters
    ----------
    data
        Folder with ``train/patients``; HYBRIDTUMOR_DATA by default.
    cache
        Folder of ``real_*.safetensors`` and ``phantom_*.safetensors``.
    phantoms
        Phantoms to make where the cache lacks them, and `VALIDATION_PHANTOMS` to validate on; all that are there are
        used.
    hold_out
        Names of cases to validate on.
    say
        Told what is done.

    Raises
    ------
    InputError
        There are no cases, or those to hold out are not among them.
    """
    folders = _folders(data)
    unknown = sorted(set(hold_out) - {folder.name for folder in folders})
    if unknown:
        raise InputError(f"hold-out: expected names of training cases, got {', '.join(unknown)}. Look at the folder.")
    tell = say or (lambda _text: None)
    everyone = prepare_cases(folders, cache, load_patient, progress=lambda name: tell(f"case {name} is ready"))
    held = [case for case in everyone if case.name in hold_out]
    cases = [case for case in everyone if case.name not in hold_out]
    if held:  # what is told of the population may not come from the cases that are held out
        cases = prepare_cases([f for f in folders if f.name not in hold_out], cache, load_patient)
    if phantoms:
        from hybridtumor.phantoms import make_phantoms  # it loads the finite-element solver

        numbers = [*range(phantoms), *range(FIRST_VALIDATION, FIRST_VALIDATION + VALIDATION_PHANTOMS)]
        make_phantoms(numbers, cache, progress=lambda name: tell(f"{name} is ready"))
    pairs = [PhantomPair.load(path) for path in sorted(cache.glob("phantom_*.safetensors"))]
    taught, kept = ([p for p in pairs if (p.number >= FIRST_VALIDATION) is later] for later in (False, True))
    if not cases and not taught:
        raise InputError("training: expected cases or phantoms to train on, all are held out. Hold out fewer.")
    return Lessons(cases, taught, held, kept)


def _folders(data: Path | None) -> list[Path]:
    root = data or Path(os.environ.get("HYBRIDTUMOR_DATA", "../shared/data"))
    folders = sorted(p for p in (root / "train" / "patients").glob("*") if p.is_dir())
    if not folders:
        raise InputError(f"{root}: expected BraTS folders in train/patients, found none. State the data folder.")
    return folders
