"""How a running command talks: progress bars on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

LINE_EVERY = 20.0
"""Seconds between two lines about the same stage where there is no terminal."""


class Tell(Protocol):
    """Takes the name of a stage and the share of it that is done, in [0, 1]."""

    def __call__(self, stage: str, share: float) -> None: ...  # noqa: D102


@contextmanager
def progress(console: Console | None = None) -> Iterator[Tell]:
    """Show the stages of a command as they go; yields the function to tell."""
    console = console or Console(stderr=True)
    if not is_root():
        yield lambda _stage, _share: None
    elif console.is_terminal:
        with _bars(console) as tell:
            yield tell
    else:
        yield _lines()


@contextmanager
def _bars(console: Console) -> Iterator[Tell]:
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=32),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0)
            bars.update(tasks[stage], completed=share)

        yield tell


def _lines() -> Tell:
    started: dict[str, float] = {}
    spoken: dict[str, float] = {}
    finished: set[str] = set()

    def tell(stage: str, share: float) -> None:
        now = time.monotonic()
        if stage in finished:
            return
        started.setdefault(stage, now)
        if share >= 1.0:
            say(f"{stage}: done in {now - started.pop(stage):.1f} s")
            finished.add(stage)
        elif now - spoken.get(stage, -LINE_EVERY) >= LINE_EVERY:
            say(f"{stage}: {share:.0%}" if stage in spoken else f"{stage} …")
            spoken[stage] = now

    return tell


def say(message: str) -> None:
    """Write one line to standard error, so that standard output keeps only results."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def is_root() -> bool:
    """Tell whether this process is the one that talks: rank 0 under MPI, any process otherwise."""
    return all(os.environ.get(name, "0") == "0" for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK"))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table on standard output."""
    table = Table(title=title, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else max(100, int(os.environ.get("COLUMNS", "100")))).print(table)
