"""The process that reads damaged files: under a cap on its memory and an alarm, and measured."""

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from damage import Case

LIMIT_S = 10
"""Seconds that a case may take; the largest sound images here, 64 million voxels read by four readers, take two."""

CAP = 1024**3
"""Bytes of memory that the worker may ask for beyond what the imported libraries hold."""

MODEST = (64, 24)
"""MB, and times its size, that reading a plain file may take; a packed one may need what its header promises."""


class _Hang(BaseException):
    """The alarm: no `except Exception` of a reader may swallow it."""


def work(pipe: Connection, kind: str) -> None:
    """Read cases until the pipe closes."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _alarm)
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(EOFError), Path(os.devnull).open("w") as nowhere:
        folder = Path(name)
        try:
            module = _prepared(kind, folder)
        except Exception:  # noqa: BLE001 - told to the parent, which stops
            pipe.recv()
            pipe.send({"broken": traceback.format_exc()})
            return
        while True:
            case = pipe.recv()
            with contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
                answer = _answer(module, folder, case)
            pipe.send(answer)


def _prepared(kind: str, folder: Path) -> ModuleType:
    """Import what reads files of a kind, read the sound ones, and cap the memory from there on."""
    module = importlib.import_module(f"{kind}_cases")
    module.prepare(folder)
    for case in module.sound():
        _read(module, folder, case)
    gc.collect()
    gc.freeze()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + CAP, resource.RLIM_INFINITY))
    return module


def _read(module: ModuleType, folder: Path, case: Case) -> None:
    path = folder / case.name
    path.write_bytes(case.raw)
    try:
        module.read(path)
    finally:
        path.unlink()


def _answer(module: ModuleType, folder: Path, case: Case) -> dict[str, Any]:
    from hybridtumor.errors import InputError, ResourceError

    end, what = "accepted", ""
    before, start = _forget_peak(), time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        _read(module, folder, case)
    except (InputError, ResourceError) as error:
        end = "refused"
        if "expected" not in str(error) and "unknown key" not in str(error):
            end, what = "crash", f"an error that explains nothing: {error!r}"
    except _Hang:
        end, what = "crash", f"more than {LIMIT_S} s: {traceback.format_exc(limit=-3)}"
    except BaseException as error:  # noqa: BLE001 - whatever else it is, it is what is looked for
        end, what = "crash", f"{type(error).__name__}: {traceback.format_exc(limit=-3)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, peak = time.perf_counter() - start, _resident("VmHWM") - before
    if not case.name.endswith(".gz") and peak > MODEST[0] + MODEST[1] * len(case.raw) / 2**20:
        end, what = "crash", f"{peak:.0f} MB for a file of {len(case.raw)} bytes"
    return {"end": end, "what": what[:2000], "seconds": seconds, "peak_mb": peak}


def _forget_peak() -> float:
    """Give back what is free, start the kernel's record of the largest memory anew, and return what is held, MB."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(which: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise _Hang
