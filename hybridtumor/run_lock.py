"""One run folder, one process: a lock file that names its owner, and is taken over when the owner is gone."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridtumor.errors import InputError

LOCK_NAME = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder.

    Raises
    ------
    InputError
        Another process that is still alive, or one on another host, holds it.
    """
    path = folder / LOCK_NAME
    _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _acquire(path: Path) -> None:
    for _ in range(2):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            _refuse_if_alive(path)
            path.unlink(missing_ok=True)
            continue
        with os.fdopen(handle, "w") as stream:
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, stream)
        return
    raise InputError(
        f"{path.parent}: expected to be the only process in this run folder, another one took it just now."
        " Choose another folder."
    )


def _refuse_if_alive(path: Path) -> None:
    """Raise InputError unless the owner of the lock is a process of this host that has ended."""
    try:
        owner = json.loads(path.read_text())
        pid, host = int(owner["pid"]), str(owner["host"])
    except (OSError, ValueError, TypeError, KeyError):
        return  # a lock that was never completed: its owner was killed while writing it
    here = socket.gethostname()
    if host == here and not _is_alive(pid):
        return
    raise InputError(
        f"{path.parent}: expected a run folder that nobody else is writing, process {pid} on {host} holds it."
        f" Wait for it, choose another folder, or delete {path.name} in it if that process is gone."
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
