"""What every test may ask for."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
