"""The losses of a training run on disk: a row of CSV per logged step, a picture of them, TensorBoard if installed.

A run that was stopped after its last checkpoint repeats the steps since: their rows are dropped when it goes on, so
each step has one row.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridtumor.scan import write_bytes

COLUMNS = ("step", "loss", "running", "validation", "rate", "seconds")
"""Step, its loss, the running mean, the loss on the validation batches (may be empty), learning rate, time spent."""


@dataclass(frozen=True)
class Row:
    """What was seen at one step; `validation` is None where it was not looked at."""

    step: int
    loss: float
    running: float
    validation: float | None
    rate: float
    seconds: float

    def line(self) -> str:
        """Return the row as a line of CSV; floats are written so that they are read back exactly."""
        seen = "" if self.validation is None else repr(self.validation)
        return f"{self.step},{self.loss!r},{self.running!r},{seen},{self.rate!r},{self.seconds:.1f}\n"

    @classmethod
    def parse(cls, line: str) -> "Row":
        """Read a line of CSV."""
        step, loss, running, validation, rate, seconds = line.split(",")
        seen = float(validation) if validation else None
        return cls(int(step), float(loss), float(running), seen, float(rate), float(seconds))


class History:
    """The growing file ``<checkpoint>_losses.csv``.

    Parameters
    ----------
    checkpoint
        File of the state; the history lies beside it.
    step
        Steps the run has done: later rows of the file are dropped.
    """

    def __init__(self, checkpoint: Path, step: int) -> None:
        self.path = checkpoint.with_name(f"{checkpoint.stem}_losses.csv")
        self.rows = [row for row in read_rows(self.path) if row.step <= step]
        header = ",".join(COLUMNS) + "\n"
        write_bytes(self.path, (header + "".join(row.line() for row in self.rows)).encode())
        self._board = _board(checkpoint.with_name(f"{checkpoint.stem}_tensorboard"), step)

    def add(self, row: Row) -> None:
        """Append a row."""
        self.rows.append(row)
        with self.path.open("a") as stream:
            stream.write(row.line())
        if self._board is not None:
            self._board.add_scalar("loss", row.loss, row.step)
            self._board.add_scalar("rate", row.rate, row.step)
            if row.validation is not None:
                self._board.add_scalar("validation", row.validation, row.step)

    def draw(self) -> None:
        """Draw the curves into ``<checkpoint>_losses.png``."""
        if self.rows:
            write_bytes(self.path.with_suffix(".png"), picture(self.rows))

    def close(self) -> None:
        """Close what is open."""
        if self._board is not None:
            self._board.close()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a history; a last line that was cut off is not one, and a missing file has none."""
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)[1:]
    return [Row.parse(line) for line in lines if line.endswith("\n")]


def picture(rows: list[Row]) -> bytes:
    """Return a PNG of loss, running mean and validation over steps; logarithmic where all are positive."""
    from matplotlib.figure import Figure  # slow to load

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    steps = [row.step for row in rows]
    axes.plot(steps, [row.loss for row in rows], color="0.8", linewidth=0.8, label="loss of the step")
    axes.plot(steps, [row.running for row in rows], color="C0", label="running mean")
    seen = [(row.step, row.validation) for row in rows if row.validation is not None]
    if seen:
        axes.plot(*zip(*seen, strict=True), color="C1", marker=".", label="validation, averaged weights")
    if all(min(row.loss, row.running, row.validation or row.loss) > 0 for row in rows):
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def _board(folder: Path, step: int) -> Any:
    """Return a TensorBoard writer that forgets steps after `step`, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
