"""What can be wrong with a text in YAML; hypothesis draws which of it, and where."""

import re

from hypothesis import strategies as st

VALUES = (
    *(
        "",
        "null",
        "~",
        "true",
        "no",
        "-1",
        "0",
        "1",
        ".nan",
        ".inf",
        "-.inf",
        "1e999",
        "1e-400",
        "9" * 400,
        "0x7fffffff",
    ),
    *("0b1", "1_000", "12:30:45", "[]", "{}", "[[]]", "[1, 2]", "{a: 1}", "{? [1]: 2}", "? x", "!!int x", "!!float ''"),
    *("2024-02-30", "2024-03-01", "0001-01-01", "9999-12-31", "2024-03-01T12:00:00Z", "2024-03-01 23:59:60 +25:00"),
    *("!!timestamp 2024-13-01", "!!binary x", "!!set {a}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!str 7", "!!null x"),
    *("!!python/object/apply:os.getpid []", "&a [1]", "*a", "<<: {a: 1}", "{<<: 7}", "{<<: [1]}", "=", "|", ">"),
    *("../x", "/dev/zero", "/etc/passwd", "folder.nii.gz", "loop.nii.gz", "text.nii.gz", "zero.nii.gz", "dose.nii.gz"),
    *('"\\x00"', '"\\ud800"', '"\\U0001F600"', '"' + "a" * 5000 + '"', "6000 Gy", "60 Sv", "60 mg/m^2", "1 ** 9 ** 9"),
    *("1e400 days", "nan days", "inf Gy", "-5 days", "1/0 day", "9**9**9 day", "day", "Gy Gy Gy", "1 day + 1 Gy", "()"),
    *("1" + " day" * 300, "(" * 300 + "1 day", "1 day^1e9", "10^10^10 mm", "0 degC", "1 kilokilometer", "1 %", "١ day"),
    *("[" * 60 + "]" * 60, "{a: " * 60 + "}" * 60, "[" + "1," * 20000 + "]", "{" + "a: 1," * 50 + "}"),
)
"""Values that a person, a program or an enemy may write."""

_VALUE = re.compile(r"(?<=: )[^\s,{}\[\]]+|(?<=\[)[^\s,{}\[\]]+")
_KEY = re.compile(r"[A-Za-z_0-9]+(?=:)")


def told_wrong(draw: st.DrawFn, text: str) -> str:
    """One to three things wrong: values, keys, lines, indentation."""
    for way in draw(st.lists(st.sampled_from(_WAYS), min_size=1, max_size=3)):
        text = way(draw, text)
    return text


def _value(draw: st.DrawFn, text: str) -> str:
    return _replaced(draw, text, _VALUE)


def _key(draw: st.DrawFn, text: str) -> str:
    return _replaced(draw, text, _KEY)


def _replaced(draw: st.DrawFn, text: str, pattern: re.Pattern[str]) -> str:
    found = list(pattern.finditer(text))
    if not found:
        return text
    chosen = draw(st.sampled_from(found))
    return text[: chosen.start()] + draw(_STRANGE) + text[chosen.end() :]


def _line(draw: st.DrawFn, text: str) -> str:
    """A line missing, twice, moved in, of another value, new, the last one, or a document of its own."""
    lines = text.split("\n")
    place, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
    way = draw(st.sampled_from(["missing", "twice", "in", "value", "new", "last", "documents"]))
    if way == "missing":
        del lines[place]
    elif way == "twice":
        lines.insert(other, lines[place])
    elif way == "in":
        lines[place] = " " * draw(st.integers(1, 4)) + lines[place]
    elif way == "value":
        lines[place] = lines[place].replace(": ", ":", 1) + draw(_STRANGE)
    elif way == "new":
        lines.insert(place, f"{draw(st.sampled_from('abc'))}: {draw(_STRANGE)}")
    else:
        lines = lines[:place] if way == "last" else ["---", *lines, "---", *lines]
    return "\n".join(lines)


_STRANGE = st.one_of(st.sampled_from(VALUES), st.sampled_from(VALUES), st.text(max_size=20), st.floats().map(str))
_WAYS = (_value, _value, _value, _key, _line, _line)
