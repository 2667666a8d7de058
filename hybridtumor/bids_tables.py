"""The tables beside the images of a BIDS dataset: on which day a session was, and what the labels of a map mean."""

import csv
import datetime
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridtumor.errors import InputError
from hybridtumor.scan import LABEL_CONVENTIONS
from hybridtumor.yaml_file import MAX_BYTES

LABEL_NAMES = {
    "necrosis": ("necrosis", "necrotic", "necrotic core", "necrotic tumor core", "ncr", "non-enhancing tumor core"),
    "edema": ("edema", "oedema", "peritumoral edema", "ed", "snfh"),
    "enhancing": ("enhancing", "enhancing tumor", "enhancing tumour", "et"),
}
"""What ``_dseg.tsv`` may call the labels of a tumour, in lower case."""

_DAY = re.compile(r"day(\d{1,6})(?:p(\d{1,6}))?", re.IGNORECASE)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a ``.tsv`` as rows of stripped texts by column.

    Raises
    ------
    InputError
        The file is too large, not UTF-8, or a row is longer or shorter than the header.
    """
    lines = csv.DictReader(io.StringIO(_text(path)), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        rows = list(lines)
    except csv.Error as error:
        raise InputError(f"{path}: expected a table separated by tabs ({error}).") from error
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: expected as many cells in every row as in the header. Separate them by tabs.")
    return [{key.strip(): cell.strip() for key, cell in row.items()} for row in rows]


def read_sidecar(image: Path) -> dict[str, Any]:
    """Read the ``.json`` beside an image; empty when there is none.

    Raises
    ------
    InputError
        The file is too large or not a JSON object.
    """
    path = with_extension(image, ".json")
    if not path.is_file():
        return {}
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected a JSON object ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content


def with_extension(image: Path, extension: str) -> Path:
    """Return the path beside an image with another extension."""
    return image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + extension)


def session_days(table: Path, sessions: Sequence[str]) -> dict[str, float]:
    """Return the day of every session since the first, in order of time.

    Parameters
    ----------
    table
        ``sub-XX_sessions.tsv``, which need not exist: its ``acq_time`` (ISO 8601; the calendar date counts, of
        whatever year) or else its ``day`` or ``days`` tells the time; names such as ``day030`` tell it otherwise.
    sessions
        Labels without ``ses-``.

    Raises
    ------
    InputError
        Nothing tells the day of every session, a cell cannot be read, or two sessions are on one day.
    """
    rows = read_table(table) if table.is_file() else []
    clock = _from_table(table, rows, sessions) or _from_names(sessions)
    if clock is None and len(sessions) > 1:
        raise InputError(
            f"{table}: expected the day of each of the sessions {', '.join(sessions)}, found none. Write the table:"
            " columns session_id (ses-…) and acq_time (dates), or session_id and day, separated by a tab."
        )
    clock = clock or dict.fromkeys(sessions, 0.0)
    order = sorted(sessions, key=lambda session: clock[session])
    days = {session: clock[session] - clock[order[0]] for session in order}
    if len(set(days.values())) < len(days):
        raise InputError(f"{table}: expected sessions on different days, got {days}. Keep one session of each day.")
    return days


def label_convention(table: Path) -> str | None:
    """Return the key of `LABEL_CONVENTIONS` that a ``_dseg.tsv`` describes; None when it names no part of a tumour.

    Raises
    ------
    InputError
        It names parts of a tumour under other indices than BraTS does, or has no columns index and name.
    """
    found: dict[str, int] = {}
    for row in read_table(table):
        if not {"index", "name"} <= row.keys():
            raise InputError(f"{table}: expected columns index and name, got {', '.join(row)}.")
        label = next((key for key, names in LABEL_NAMES.items() if row["name"].lower() in names), None)
        if label is not None:
            index = _number(table, row["index"])
            if label in found or not index.is_integer():
                raise InputError(f"{table}: expected one whole index for {label}, got {row['index'][:60]!r}.")
            found[label] = int(index)
    if not found:
        return None
    for convention, codes in LABEL_CONVENTIONS.items():
        if all(codes[label] == index for label, index in found.items()):
            return convention
    known = " or ".join(str(dict(codes)) for codes in LABEL_CONVENTIONS.values())
    raise InputError(f"{table}: expected the labels of BraTS, {known}, got {found}. Renumber map and table.")


def _text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path}: expected at most {MAX_BYTES} bytes, got {size}.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text ({error}).") from error


def _from_table(table: Path, rows: list[dict[str, str]], sessions: Sequence[str]) -> dict[str, float] | None:
    """Return the time of every session in days from whatever origin; None when the table does not tell all."""
    by_session: dict[str, dict[str, str]] = {}
    for row in rows:
        session = row.get("session_id", "").removeprefix("ses-")
        if session in by_session:
            raise InputError(f"{table}: expected every session once, got ses-{session} twice.")
        by_session[session] = row
    for column, read in (("acq_time", _date), ("day", _number), ("days", _number)):
        cells = {session: by_session.get(session, {}).get(column, "n/a") for session in sessions}
        if all(cell not in {"n/a", ""} for cell in cells.values()):
            return {session: read(table, cell) for session, cell in cells.items()}
    return None


def _from_names(sessions: Sequence[str]) -> dict[str, float] | None:
    matches = {session: _DAY.fullmatch(session) for session in sessions}
    if not all(matches.values()):
        return None
    return {session: float(f"{match[1]}.{match[2] or 0}") for session, match in matches.items() if match}


def _date(table: Path, cell: str) -> float:
    try:
        return float(datetime.datetime.fromisoformat(cell).toordinal())
    except ValueError as error:
        raise InputError(f"{table}: expected acq_time such as 1924-03-01T12:00:00, got {cell[:60]!r}.") from error


def _number(table: Path, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError as error:
        raise InputError(f"{table}: expected a number, got {cell[:60]!r}.") from error
    if not math.isfinite(value):
        raise InputError(f"{table}: expected a finite number, got {cell[:60]!r}.")
    return value
