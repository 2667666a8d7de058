"""A few hundred of the cases of tests/fuzz/headers.py: damaged files end in a value or a named error, and soon."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "fuzz" / "headers.py"
sys.path.append(str(SCRIPT.parent))


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("kind", ["nifti", "dicom", "patient", "scenario"])
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    if kind == "dicom":
        pytest.importorskip("pydicom")
    run = fuzz("--kinds", kind, "--cases", "120", "--seed", "3")
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert result["crashes"] == 0
    assert result["refused"] > 20
    assert result["peak_mb"] < 1000
    assert result["refused"] + result["accepted"] == result["cases"] == 120


def test_sequences_in_sequences_where_a_word_belongs_cost_no_memory(tmp_path: Path) -> None:
    """pydicom doubles the text of an error at every level when it writes a sequence out as text."""
    pytest.importorskip("pydicom")
    from dicom_seeds import in_file, seeds
    from dicom_tree import Element, nested, parse, put

    from hybridtumor.dicom.reading import read
    from hybridtumor.errors import InputError

    tree = parse(in_file(seeds()[0]))
    which = next(n for n, element in enumerate(tree.elements) if element.tag == (0x0008, 0x0016))
    bad = Element((0x3006, 0x0050), "DS", b"no number")
    path = tmp_path / "case.dcm"
    for depth in (1, 12):
        deep = replace(nested(bad, depth, tree.implicit), tag=(0x0008, 0x0016))
        path.write_bytes(replace(tree, elements=put(tree.elements, (which,), (deep,))).in_file())
        tracemalloc.start()
        with pytest.raises(InputError, match="SOPClassUID"):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_a_crash_is_found_and_kept(tmp_path: Path) -> None:
    """A reader that lets one error through is told of, and the file that did it is there to be looked at."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import hybridtumor.scan as scan\n"
        "load = scan.Scan.load.__func__\n"
        "def careless(cls, path):\n"
        "    try:\n"
        "        return load(cls, path)\n"
        "    except scan.InputError as error:\n"
        "        if 'truncated' in str(error):\n"
        "            raise KeyError('let through') from error\n"
        "        raise\n"
        "scan.Scan.load = classmethod(careless)\n"
    )
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--kinds", "nifti", "--cases", "60"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
    )
    assert run.returncode == 1, run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert result["crashes"] > 0
    assert all("let through" in failure["what"] for failure in result["failures"])
    assert Path(result["failures"][0]["file"]).stat().st_size > 0
