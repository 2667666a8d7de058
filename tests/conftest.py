"""What every test may ask for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from figures import Figure, Recorder

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, metavar="FILE", help="write what tests of laws have seen, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("figures")
    if path is not None:
        config.pluginmanager.register(Recorder(path))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Tells a figure that a test of a law has computed, and holds it to its bounds."""
    return Figure(record_property)


def data_folder() -> Path | None:
    """The folder of real data: HYBRIDTUMOR_DATA, else ../shared/data beside the checkout."""
    candidates = [os.environ.get("HYBRIDTUMOR_DATA"), ROOT.parent / "shared" / "data"]
    return next((Path(c) for c in candidates if c and Path(c).is_dir()), None)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real data; the test is skipped, saying so, where there is none."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no real data: set HYBRIDTUMOR_DATA or put them into ../shared/data")
    return folder
