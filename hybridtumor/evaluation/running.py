"""An evaluation from beginning to end: figures of generated images against every simpler answer."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybridtumor import terminal
from hybridtumor.errors import InputError
from hybridtumor.evaluation import contact_sheet as sheet
from hybridtumor.evaluation.cases import EvaluationCase
from hybridtumor.evaluation.command import EvaluateOptions
from hybridtumor.evaluation.dose_series import EstimatorOf
from hybridtumor.evaluation.legend import MEANINGS
from hybridtumor.evaluation.page import page
from hybridtumor.evaluation.problems import phantom_case, real_case
from hybridtumor.evaluation.run import Evaluation, bank_of
from hybridtumor.evaluation.scoring import Score
from hybridtumor.evaluation.table import Entry, counts, gather, save
from hybridtumor.refine import Refiner
from hybridtumor.scan import write_bytes
from hybridtumor.students import TEACHER, stage_of
from hybridtumor.train_options import STUDENTS

Problem = tuple[str, Callable[[], EvaluationCase]]
"""Name of a case, and what makes it: a case fills some hundred megabytes, so there is one at a time."""


def evaluate(options: EvaluateOptions) -> None:
    """Evaluate what the options name, write the table and show its main figures."""
    refiner = Refiner.load(options.weights)
    evaluation = Evaluation(
        refiner,
        options.samples,
        options.seed,
        _estimator_of(options.estimator),
        _students(options.students),
        bank=_bank(options.cache),
        doses=options.doses,
        antithetic=not options.independent,
    )
    wanted = set(options.cases)
    found = list(_real(options.data, options.split, refiner, wanted)) if options.real else []
    found += list(_phantoms(options.phantoms, refiner, wanted)) if options.phantoms is not None else []
    if wanted and {name for name, _ in found} != wanted:
        missing = ", ".join(sorted(wanted - {name for name, _ in found}))
        raise InputError(f"evaluate: expected the cases {missing} among the data, found none of that name.")
    if not found:
        raise InputError("evaluate: expected at least one case. State --data or --phantoms.")
    about = _about(evaluation, options.split)
    with terminal.progress() as tell:
        entries, scores = run(found, evaluation, about, options.out, sheet_wanted=options.contact_sheet, tell=tell)
    _print(entries, scores)
    print(f"page: {options.out / 'evaluation.html'}")  # noqa: T201


def run(
    problems: list[Problem],
    evaluation: Evaluation,
    about: dict[str, Any],
    out: Path,
    *,
    sheet_wanted: bool = False,
    tell: terminal.Tell = lambda _stage, _share: None,
) -> tuple[list[Entry], list[Score]]:
    """Evaluate cases one after another; the files are brought up to date after every one.

    A case that is none, because nothing visible changes in it, is left out and named on the page.
    """
    scores: list[Score] = []
    tiles: list[sheet.Tile] = []
    entries: list[Entry] = []
    rng = np.random.default_rng(evaluation.seed)
    for number, (name, made) in enumerate(problems):
        tell("evaluate", number / len(problems))
        try:
            case = made()
        except InputError as error:
            about["notes"].append(f"Left out: {error}")
            continue
        found, drawn = evaluation.of(case)
        scores += found
        if sheet_wanted:
            tiles += sheet.tiles_of(case, drawn.images, rng)
        entries = gather(scores, seed=evaluation.seed)
        save(out, entries, scores, about, page(entries, scores, about))
        terminal.say(f"{name}: done")
    if not scores:
        raise InputError(f"evaluate: expected at least one usable case, got none. {' '.join(about['notes'])}")
    save(out, entries, scores, about, page(entries, scores, about))
    if sheet_wanted:
        picture, key = sheet.contact_sheet(tiles, evaluation.seed)
        write_bytes(out / "contact_sheet.png", picture)
        write_bytes(out / "contact_sheet_key.json", (json.dumps(key, indent=1) + "\n").encode())
    tell("evaluate", 1.0)
    return entries, scores


def _students(paths: Sequence[Path]) -> dict[str, Refiner]:
    """Return the students by their stages of training."""
    found: dict[str, Refiner] = {}
    for path in paths:
        refiner = Refiner.load(path)
        stage = stage_of(refiner.weights)
        if stage == TEACHER or stage in found:
            raise InputError(
                f"{path}: expected one of the students {', '.join(STUDENTS)}, each once, got the stage {stage}"
                f"{' again' if stage in found else ''}. Leave it out."
            )
        found[stage] = refiner
    return found


def _real(data: Path | None, split: str, refiner: Refiner, wanted: set[str]) -> Iterator[Problem]:
    """Yield the real cases of a split."""
    from hybridtumor.baseline import read_baseline
    from hybridtumor.prepare import load_patient

    root = data or (Path(os.environ["HYBRIDTUMOR_DATA"]) if "HYBRIDTUMOR_DATA" in os.environ else None)
    if root is None:
        raise InputError(
            "evaluate: expected a folder of real cases. State --data, set HYBRIDTUMOR_DATA, or leave them out by"
            " --no-real."
        )
    folders = sorted(p for p in (root / split / "patients").glob("*") if p.is_dir())
    if not folders:
        raise InputError(f"{root}: expected BraTS folders in {split}/patients, found none. State the data folder.")
    population, thresholds = refiner.weights.population, refiner.thresholds

    def made(folder: Path) -> EvaluationCase:
        baseline = read_baseline(load_patient(folder), population=population, thresholds=thresholds)
        return real_case(folder.name, baseline, population, thresholds)

    for folder in folders:
        if not wanted or folder.name in wanted:
            yield folder.name, lambda folder=folder: made(folder)  # type: ignore[misc]


def _phantoms(folder: Path, refiner: Refiner, wanted: set[str]) -> Iterator[Problem]:
    """Yield the phantoms of a folder."""
    from hybridtumor.teacher import PhantomPair

    paths = sorted(folder.glob("phantom_*.safetensors"))
    if not paths:
        raise InputError(f"{folder}: expected prepared phantoms (phantom_*.safetensors), found none.")
    for path in paths:
        if not wanted or path.stem in wanted:
            yield path.stem, lambda path=path: phantom_case(PhantomPair.load(path), refiner.thresholds)  # type: ignore[misc]


def _bank(cache: Path | None) -> Any:
    """Return the training crops, or None without a folder of prepared cases."""
    from hybridtumor.teacher import RealCase

    if cache is None:
        return None
    paths = sorted(cache.glob("real_*.safetensors"))
    if not paths:
        raise InputError(f"{cache}: expected prepared training cases (real_*.safetensors), found none.")
    return bank_of(RealCase.load(path) for path in paths)


def _estimator_of(path: Path | None) -> EstimatorOf | None:
    """Return what makes S_B from its weights, or None where the package has none."""
    from hybridtumor.density_weights import SHIPPED, load_density_net
    from hybridtumor.evaluation.estimator import measured_by

    if path is None and not SHIPPED.is_file():
        return None
    return measured_by(load_density_net(SHIPPED if path is None else path))


def _about(evaluation: Evaluation, split: str) -> dict[str, Any]:
    """Return what else a reader has to know."""
    refiner = evaluation.refiner
    pairs = (
        "Samples 2k and 2k + 1 share their noise with opposite sign: CRPS, spread/skill, coverage and ranks are those"
        " for antithetic pairs."
        if evaluation.antithetic
        else "Members are independent; as shipped they come in antithetic pairs, whose mean is a little better."
    )
    onset = (
        "Real cases: onset of the whole tumour in the scan's own healthy fill, with the population's contrast; the"
        " fields are fitted to the segmentation, so figures say how well images follow given fields, not how well"
        " growth is foretold."
    )
    notes = [pairs, onset]
    if split == "train":
        notes.append("These real cases were trained on: their figures say nothing of other patients.")
    if evaluation.estimator_of is None:
        notes.append("No weights that read density off images: density and dose response are left out.")
    if evaluation.bank is None:
        notes.append("No prepared training cases: memorisation is left out.")
    if not evaluation.students:
        notes.append("No student of the diffusion (--student): they have no rows.")
    return {
        "weights": _digest(refiner),
        **{f"{stage} student": _digest(own) for stage, own in evaluation.students.items()},
        "samples": evaluation.samples,
        "seed": evaluation.seed,
        "steps": refiner.steps,
        "split": split,
        "notes": notes,
    }


def _digest(refiner: Refiner) -> str:
    return str(refiner.weights.header.get("sha256", "not from a file"))[:12]


def _print(entries: list[Entry], scores: list[Score]) -> None:
    """Show the main figures inside the mask, a table for each kind."""
    figures = ("psnr", "ssim", "mae", "spectrum", "crps", "crps over render's mae")
    heads = [" ".join(MEANINGS[figure].head.split("|")) for figure in figures]
    for kind, number in counts(scores).items():
        value = {(e.method, e.figure): e for e in entries if e.kind == kind and e.region == "mask"}
        methods = dict.fromkeys(method for method, _ in value)
        rows = [(method, *(_said(value.get((method, figure))) for figure in figures)) for method in methods]
        title = f"{kind}, inside the mask, n = {number['patients']} patients, {number['cases']} cases"
        terminal.print_table(title, ("", *heads), rows)


def _said(entry: Entry | None) -> str:
    """Return mean and interval on two lines."""
    if entry is None or entry.interval is None:
        return "–"
    found, digits = entry.interval, MEANINGS[entry.figure].digits
    return f"{found.mean:.{digits}f}\n{found.low:.{digits}f}–{found.high:.{digits}f}"
