"""Fuzz what hybridtumor reads: damaged NIfTI, DICOM and YAML end in a value or a named error, never in anything else.

    python tests/fuzz/headers.py --cases 10000 --seed 0

hypothesis draws what is wrong with a sound file (`*_cases.py`), a worker with a cap on its memory reads it. InputError
and ResourceError are answers; every other exception, more than `LIMIT_S` seconds, much more memory than the file has
bytes, and the death of the worker are crashes. Of a crash hypothesis looks for the least damage that still does it;
that file goes to a temporary folder. One JSON object is printed; the exit code is 1 when there was a crash.

With HYBRIDTUMOR_DATA, or ../shared/data beside the checkout, the real DICOM files there are damaged as well, in memory.
"""

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from damage import Case
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.errors import Flaky
from worker import work

KINDS = ("nifti", "dicom", "patient", "scenario")

FORGIVEN_S = 60
"""Seconds after which a worker that does not even hear its alarm is ended."""


class CrashError(Exception):
    """What is looked for."""


@dataclass
class Tally:
    """What became of the cases of one kind."""

    ends: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: float = 0.0
    failure: dict[str, Any] | None = None

    def add(self, answer: dict[str, Any]) -> None:
        self.ends[answer["end"]] += 1
        self.slowest, self.peak = max(self.slowest, answer["seconds"]), max(self.peak, answer["peak_mb"])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # pydicom's of what stands in the real files
    keep = Path(tempfile.mkdtemp(prefix="hybridtumor-fuzz-"))
    real, kinds = _real(), options.kinds
    shares = [options.cases * (i + 1) // len(kinds) - options.cases * i // len(kinds) for i in range(len(kinds))]
    told = {k: _fuzz(k, share, options.seed, real, keep) for k, share in zip(kinds, shares, strict=True)}
    failures = [tally.failure for tally in told.values() if tally.failure]
    if not failures:
        keep.rmdir()
    ends = sum((tally.ends for tally in told.values()), Counter[str]())
    result = {
        "cases": ends.total(),
        "seed": options.seed,
        "refused": ends["refused"],
        "accepted": ends["accepted"],
        "crashes": ends["crash"],
        "slowest_s": round(max(tally.slowest for tally in told.values()), 3),
        "peak_mb": round(max(tally.peak for tally in told.values())),
        "real_files": len(real),
        "by_kind": {
            kind: dict(tally.ends) | {"slowest_s": round(tally.slowest, 3), "peak_mb": round(tally.peak)}
            for kind, tally in told.items()
        },
        "failures": failures,
    }
    print(json.dumps(result, indent=2))
    return 1 if failures else 0


def _fuzz(kind: str, cases: int, number: int, real: list[bytes], keep: Path) -> Tally:
    """Let a worker read cases until there are enough of them or one crashes, and then smaller ones like that."""
    tally = Tally()

    @seed(number)
    @settings(
        max_examples=max(cases, 1),
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
    @given(case=importlib.import_module(f"{kind}_cases").cases(real))
    def check(case: Case) -> None:
        answer = worker.ask(case)
        tally.add(answer)
        if answer["end"] == "crash":
            file = keep / f"{kind}_{case.name}"
            file.write_bytes(case.raw)
            tally.failure = {"kind": kind, "what": answer["what"], "file": str(file)}
            raise CrashError

    with Worker(kind) as worker, contextlib.suppress(CrashError, Flaky):
        check()
    return tally


class Worker:
    """One process that reads, replaced when it dies."""

    def __init__(self, kind: str) -> None:
        self.kind, self.context = kind, multiprocessing.get_context("spawn")
        self.process: Any = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, case: Case) -> dict[str, Any]:
        """Let the worker read one case; a worker that dies or hangs for good is a crash."""
        if self.process is None:
            self.pipe, other = self.context.Pipe()
            self.process = self.context.Process(target=work, args=(other, self.kind), daemon=True)
            self.process.start()
            other.close()
        try:
            self.pipe.send(case)
            if self.pipe.poll(FORGIVEN_S):
                answer = dict(self.pipe.recv())
                if "broken" in answer:
                    raise SystemExit(f"{self.kind}: sound files cannot be read, there is nothing to damage.\n{answer}")
                if answer["end"] == "crash":
                    self._end()  # what a crash leaves behind is not the next case's fault
                return answer
            what = f"no answer for {FORGIVEN_S} s"
        except (EOFError, OSError):
            what = "the worker died"
        self._end()
        return {"end": "crash", "what": what, "seconds": 0.0, "peak_mb": 0.0}

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def _real() -> list[bytes]:
    """Return the real DICOM files, if they are there."""
    root = Path(os.environ.get("HYBRIDTUMOR_DATA", Path(__file__).parents[3] / "shared" / "data"))
    found = [path.read_bytes() for path in sorted((root / "dicom_rt").rglob("*.dcm"))]
    return [raw for raw in found if raw[128:132] == b"DICM"]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
