"""Scenarios with something wrong in them."""

from pathlib import Path

from damage import Case, flip
from hypothesis import strategies as st
from yaml_damage import told_wrong

from hybridtumor.scenario import Scenario

TEXT = """\
schema_version: 1
patient: mni152
horizon: 180 days
report_days: [0, 60, 120, 180]
growth: {diffusion_white: "0.13 mm^2/day", proliferation: "0.025 1/day", law: logistic}
response: {alpha: "0.035 1/Gy", alpha_beta: "10 Gy"}
mechanics: {growth_strain: 0.15}
arms:
  untreated: []
  stupp:
    - radiation: {prescription: "60 Gy", fractions: 30, first_day: 14, target: estro-eano-2023}
    - chemotherapy: {drug: temozolomide, first_day: 14}
  days:
    - radiation: {prescription: 40 Gy, fractions: 3, days: [1, 2, 3.5], dose: plan.nii.gz, dose_unit: Gy}
refine: {samples: 4, seed: 0}
"""


def prepare(_folder: Path) -> None:
    """Nothing stands beside a scenario."""


def sound() -> list[Case]:
    """What is to be damaged."""
    return [Case("scenario.yaml", TEXT.encode())]


def read(path: Path) -> None:
    """Read the scenario, and write it where it is sound."""
    Scenario.load(path).to_yaml()


def cases(_real: list[bytes]) -> st.SearchStrategy[Case]:
    """What is told wrong, and bytes that are no text."""
    return _case()


@st.composite
def _case(draw: st.DrawFn) -> Case:
    raw = told_wrong(draw, TEXT).encode("utf-8", "surrogatepass")
    return Case("scenario.yaml", flip(draw, raw) if draw(st.integers(0, 4)) == 4 else raw)
