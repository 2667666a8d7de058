"""Content of a file checked against its model: everything that is wrong, each with place, reason and remedy."""

from difflib import get_close_matches

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hybridtumor.errors import InputError


def validated[M: BaseModel](model: type[M], content: object, name: str) -> M:
    """Check content against a model; all that is wrong becomes one InputError.

    Parameters
    ----------
    model
        What the content has to be.
    content
        Plain dictionaries and lists.
    name
        What to call it in the error.

    Raises
    ------
    InputError
        One line for each place that is wrong.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_explain(detail, model) for detail in error.errors(include_url=False)]
        if len(lines) == 1:
            raise InputError(f"{name}: {lines[0]}") from error
        raise InputError("\n  ".join([f"{name}: {len(lines)} places to mend:", *lines])) from error


_EXPECTED = {
    "dict_type": "expected a mapping (key: value)",
    "model_type": "expected a mapping (key: value)",
    "tuple_type": "expected a list",
    "too_short": "expected at least one entry",
    "string_too_short": "expected text",
    "invalid_key": "expected a key that is text",
}
"""Kinds of error whose wording would otherwise be that of the programming language."""


def _explain(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """Return one line on one thing that is wrong: where, what was expected, what came."""
    parts = [part for part in detail["loc"] if part != "[key]"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".") or "file"
    came = repr(detail["input"])
    came = came if len(came) <= 60 else f"{came[:57]}…"
    kind: str = detail["type"]
    if kind == "extra_forbidden":
        key = str(detail["loc"][-1])
        near = get_close_matches(key, _known_keys(model), n=1)
        if near == [key]:
            return f"{place}: expected this key elsewhere, not here. Move it."
        return f"{place}: unknown key. {f'Did you mean {near[0]}?' if near else 'Remove it.'}"
    if kind == "missing":
        return f"{place}: expected this key, it is missing. Add it."
    if "[key]" in detail["loc"]:
        return f"{place}: expected a name of letters, digits, '_' and '-', got {came}. Rename it."
    if kind == "value_error":
        return f"{place}: {str(detail['ctx']['error']).removeprefix('value: ')[:400]}"
    expected = _EXPECTED.get(kind) or detail["msg"].replace("Input should be", "expected")
    if not expected.startswith("expected"):
        expected = f"expected another value ({expected[0].lower()}{expected[1:]})"
    return f"{place}: {expected}, got {came}."


def _known_keys(model: type[BaseModel]) -> list[str]:
    """Return every key that a model or a part of it knows."""
    schema = model.model_json_schema()
    return sorted({key for table in (schema, *schema.get("$defs", {}).values()) for key in table.get("properties", {})})
