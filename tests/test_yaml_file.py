"""YAML is read as plain data, and everything that is more than data is refused."""

from datetime import date
from pathlib import Path

import pytest

from hybridtumor.errors import InputError
from hybridtumor.yaml_file import MAX_BYTES, load_yaml


def test_plain_data_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: {b: [1, 2.5, x, null, true]}\nc: 2024-02-01\nµ: ä\n", encoding="utf-8")
    assert load_yaml(path) == {"a": {"b": [1, 2.5, "x", None, True]}, "c": date(2024, 2, 1), "µ": "ä"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: 1\nb: 2\na: 3", "'a' occurs twice, again on line 3"),
        ("a: {b: 1, b: 2}", "'b' occurs twice"),
        ("!!python/object/apply:os.system ['true']", "python/object"),
        ("a: " + "[" * 60 + "]" * 60, "nested"),
        ("{[1]: 2}", "unhashable"),
        ("a: 2024-13-01", "month"),
        ("a: [1, 2", "expected"),
        ("a: \x00", "special characters"),
    ],
)
def test_what_is_more_than_data_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bad\.yaml") as caught:
        load_yaml(path)
    assert why in str(caught.value)


def test_a_file_that_cannot_have_been_typed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"# " + b"x" * MAX_BYTES)
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\xfe")
    for name in ("a.yaml", "b.yaml", "nowhere.yaml"):
        with pytest.raises(InputError, match=name):
            load_yaml(tmp_path / name)
