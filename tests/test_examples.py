"""Every example runs, on a small patient."""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import small_run

import hybridtumor
from hybridtumor.scenario import Scenario

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("patients") / "small"
    small_run.small_patient().save(folder)
    return str(folder)


def main_of(name: str) -> Callable[..., Any]:
    spec = spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[..., Any] = module.main
    return main


def test_every_example_is_run_here() -> None:
    tests = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'main_of("{path.stem}")' in tests


def test_dose_what_if(patient: str, tmp_path: Path) -> None:
    main_of("dose_what_if")(patient, tmp_path / "what-if.html", samples=1, cell_size="4 mm")
    assert "Follow-up MRI" in (tmp_path / "what-if.html").read_text()


def test_the_readme_holds_the_example() -> None:
    script = (EXAMPLES / "dose_what_if.py").read_text()
    for parameter, value in (
        ("samples=samples", "samples=4"),
        (", cell_size=cell_size", ""),
        ("(reference)", '("mni152")'),
    ):
        script = script.replace(parameter, value)
    script = script.replace("save(out)", 'save("what-if.html")')
    readme = (EXAMPLES.parent / "README.md").read_text().partition("## Ten lines")[2]
    for line in readme.partition("```python\n")[2].partition("```")[0].splitlines():
        assert line.partition("  #")[0].strip() in script, line


def test_how_much_dose(patient: str) -> None:
    burdens = main_of("how_much_dose")(patient, doses=(0, 30, 60), cell_size="4 mm")
    assert burdens == sorted(burdens, reverse=True)
    assert burdens[-1] < 0.5 * burdens[0]


def test_start_later(patient: str) -> None:
    burdens = main_of("start_later")(patient, starts=(7, 49), cell_size="4 mm")
    assert burdens[0] > 0


def test_own_patient(patient: str, tmp_path: Path) -> None:
    report = main_of("own_patient")(patient, str(tmp_path / "run"), samples=1, cell_size="4 mm")
    assert report.is_file()


def test_the_demo_is_the_example() -> None:
    carried = Path(hybridtumor.__file__).parent / "templates" / "dose_what_if.yaml"
    assert carried.read_text() == (EXAMPLES / "dose_what_if.yaml").read_text()
    assert list(Scenario.load(carried).arms) == ["untreated", "stupp", "short-course"]
