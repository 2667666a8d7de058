"""calibration.json: what is written is read again, what is damaged is refused, draws have the covariance it states."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import Figure
from small_calibration import COVARIANCE, ESTIMATES, ZERO, small_calibration

from hybridtumor import calibration_file
from hybridtumor.calibration_file import (
    FILE_NAME,
    CalibratedParameter,
    CalibratedVisit,
    Calibration,
    Effort,
    Prior,
)
from hybridtumor.errors import InputError
from hybridtumor.parameters import GrowthParameters, ImagingThresholds, TreatmentResponse

Content = dict[str, Any]


def threshold(name: str, estimate: float) -> CalibratedParameter:
    return CalibratedParameter(
        name=name, unit="1", scale="linear", estimate=estimate, interval=(0.1, 0.8), bounds=(0.05, 0.85)
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    first, *others = small_calibration().parameters
    calibration = small_calibration(
        parameters=(first.model_copy(update={"prior": Prior(median=0.13, spread=1.0)}), *others),
        visits=(
            CalibratedVisit(day=0, kind="segmentation", misfit=12.3, dice_whole=0.9, dice_core=0.8),
            CalibratedVisit(day=30.5, kind="adc", misfit=3.0, held_out=True),
        ),
        identifiability=("D and ρ: only their product is known well.",),
        density="density.nii.gz",
        effort=Effort(forward_solves=40, seconds=31.0),
    )
    calibration.save(tmp_path / FILE_NAME)
    assert Calibration.load(tmp_path / FILE_NAME) == calibration
    assert Calibration.load(tmp_path) == calibration
    content = json.loads((tmp_path / FILE_NAME).read_text())
    assert content["schema"] == 1
    assert "Research use only" in content["research_only"]


def missing(content: Content) -> None:
    del content["parameters"][0]["estimate"]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (missing, "estimate: expected this key, it is missing"),
        (lambda c: c.update(surprise=1), "surprise: unknown key"),
        (lambda c: c.update(schema=2), "schema"),
        (lambda c: c["covariance"].pop(), "covariance: expected 4 rows of 4 numbers"),
        (lambda c: c["covariance"][0].__setitem__(1, 0.5), "symmetric"),
        (lambda c: c["covariance"][3].__setitem__(3, -4.0), "negative eigenvalue"),
        (lambda c: c["covariance"][3].__setitem__(3, float("nan")), "finite"),
        (lambda c: c["parameters"][0].update(estimate="0.2"), r"parameters\[0\].estimate"),
        (lambda c: c["parameters"][0].update(unit="cm^2/day"), "expected the unit mm"),
        (lambda c: c["parameters"][0].update(estimate=100.0), "expected an estimate within"),
        (lambda c: c["parameters"][0].update(bounds=[0.0, 1.0]), "positive bounds"),
        (lambda c: c["parameters"][0].update(interval=[0.3, 0.2]), "ascending"),
        (lambda c: c["parameters"][1].update(name="diffusion_white", unit="mm^2/day"), "each name once"),
        (lambda c: c["fixed"].update(diffusion_grey=0.1), "grey_ratio or diffusion_grey"),
        (lambda c: c["fixed"].update(threshold_edema=0.7), "0 < oedema < enhancing"),
        (lambda c: c.update(density="../density.nii.gz"), "density"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[Content], None], match: str) -> None:
    path = tmp_path / FILE_NAME
    small_calibration().save(path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=match):
        Calibration.load(path)


def test_a_file_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="found none"):
        Calibration.load(tmp_path)
    path = tmp_path / FILE_NAME
    small_calibration().save(path)
    whole = path.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="expected the JSON of a calibration"):
            Calibration.load(path)
    path.write_bytes(whole)
    monkeypatch.setattr(calibration_file, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="at most 100 bytes"):
        Calibration.load(path)


@pytest.mark.law("runs", "Draws of a calibration have the covariance of its posterior, in the scales of its parameters")
def test_draws_have_the_covariance(figure: Figure) -> None:
    calibration, count = small_calibration(), 8000
    draws = calibration.draw(count, seed=1)
    steps = np.array([[np.log(d[name] / value) for name, value in ESTIMATES.items()] for d in draws])
    steps = np.column_stack([steps, [d["seed_x_mm"] - 12 for d in draws]])
    spread = np.sqrt(np.diag(COVARIANCE))
    figure("error of a correlation", np.abs(np.cov(steps.T) - COVARIANCE) / np.outer(spread, spread), at_most=0.06)
    figure("error of a mean, standard errors", np.abs(steps.mean(0)) / spread * np.sqrt(count), at_most=4)


def test_the_first_of_many_draws_are_those_of_few() -> None:
    calibration = small_calibration()
    assert calibration.draw(20, 5)[:3] == calibration.draw(3, 5)
    assert calibration.draw(3, 5) != calibration.draw(3, 6)
    certain = small_calibration(covariance=ZERO)
    assert certain.draw(2) == (certain.estimate, certain.estimate)
    with pytest.raises(InputError, match="not negative"):
        calibration.draw(-1)


def test_draws_stay_within_their_bounds_and_possible() -> None:
    first, *others = small_calibration().parameters
    tight = small_calibration(parameters=(first.model_copy(update={"bounds": (0.2, 0.22)}), *others))
    assert all(0.2 <= d["diffusion_white"] <= 0.22 for d in tight.draw(50))
    pair = (threshold("threshold_edema", 0.45), threshold("threshold_enhancing", 0.5))
    near = small_calibration(parameters=pair, covariance=((0.04, 0.0), (0.0, 0.04)))
    assert all(d["threshold_edema"] < d["threshold_enhancing"] for d in near.draw(50))
    closed = small_calibration(parameters=(first.model_copy(update={"bounds": (0.21, 0.21)}), *others))
    with pytest.raises(InputError, match="wider bounds"):
        closed.draw(1)


def test_an_estimate_on_a_bound_may_be_off_by_round_off() -> None:
    first, *others = small_calibration().parameters
    content = first.model_dump() | {"bounds": (0.01, 3.0), "estimate": np.nextafter(3.0, 4).item()}
    certain = small_calibration(parameters=(CalibratedParameter(**content), *others), covariance=ZERO)
    assert certain.draw(1) == (certain.estimate,)


def test_estimates_and_draws_are_put_in() -> None:
    calibration = small_calibration()
    base = GrowthParameters(law="gompertz", anisotropy=3.0)
    growth = calibration.growth(base)
    assert (growth.law, growth.anisotropy) == ("gompertz", 3.0)
    assert (growth.diffusion_white, growth.proliferation) == (0.21, 0.04)
    assert growth.diffusion_grey == pytest.approx(0.042)
    values = {"diffusion_white": 0.123456789012345, "alpha": 0.0123456789012345}
    assert calibration.growth(base, values).diffusion_white == values["diffusion_white"]
    assert calibration.growth(base, values).diffusion_grey == pytest.approx(0.2 * values["diffusion_white"])
    response = calibration.response(TreatmentResponse(alpha_beta="8 Gy"), values)
    assert (response.alpha, response.alpha_beta, response.temozolomide) == (values["alpha"], 8.0, 0.15)
    assert calibration.thresholds() == ImagingThresholds()
    parameters = (threshold("threshold_edema", 0.3),)
    seen = small_calibration(parameters=parameters, covariance=((0.0,),), fixed={"temozolomide": 0.2})
    assert seen.thresholds() == ImagingThresholds(edema=0.3)
    assert seen.growth(base) == base
    assert seen.response().temozolomide == 0.2
    alone = small_calibration(fixed={})
    assert alone.growth().diffusion_grey == pytest.approx(0.021)  # the population's ratio
