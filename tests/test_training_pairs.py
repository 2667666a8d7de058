"""Training pairs: whole on disk, reproducible, and told of no therapy where there was none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import real_case

from hybridtumor.errors import InputError
from hybridtumor.models.conditioning import TherapyState
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.solvers.training import Batch
from hybridtumor.teacher import PhantomPair, RealCase, population_contrast
from hybridtumor.training_examples import growth
from hybridtumor.training_pairs import PairSource, to_row


def test_cases_and_pairs_survive_the_disk(tmp_path: Path) -> None:
    case = real_case()
    case.save(tmp_path / "case.safetensors")
    back = RealCase.load(tmp_path / "case.safetensors")
    assert np.allclose(back.scans, case.scans, atol=2e-3)  # half precision
    assert (back.name, back.enhances, back.spacing) == (case.name, case.enhances, case.spacing)
    n, image, none = case.density, case.scans, np.zeros_like(case.density)
    state = TherapyState(10.0, 1.0, 5, 12.0)
    pair = PhantomPair(
        "p", image, image, image, case.labels, image, case.labels, n, n, n, n, case.tissue, none, none, case.contrast,
        case.levels, enhances=True, spacing=1.0, day=30.0, therapy=state,
    )  # fmt: skip
    pair.save(tmp_path / "pair.safetensors")
    assert PhantomPair.load(tmp_path / "pair.safetensors").therapy == state
    with pytest.raises(InputError, match="expected a PhantomPair"):
        PhantomPair.load(tmp_path / "case.safetensors")


def test_batches_are_reproducible_and_finite() -> None:
    source = PairSource([real_case()], [], crop=16, batch=4)
    for step in range(4):
        a, b = source.batch_of(step), source.batch_of(step)
        for name in Batch.__dataclass_fields__:
            assert torch.equal(getattr(a, name), getattr(b, name))
            assert torch.isfinite(getattr(a, name)).all()
        outside = (a.support == 0).expand_as(a.render)
        assert torch.equal(a.render[outside], a.baseline[outside])
    assert not torch.equal(source.batch_of(0).target, source.batch_of(1).target)


def test_an_untreated_example_has_an_untreated_condition() -> None:
    for seed in range(30):
        example = growth(real_case(), np.random.default_rng(seed), 16, ImagingThresholds(), from_nothing=True)
        if example.therapy != TherapyState():
            continue
        row = to_row(example, (True,) * 4, ImagingThresholds())
        assert not row["fields"][[1, 2]].any()
        assert not row["vector"][1:7].any()


def test_population_contrast_is_a_mean() -> None:
    a, b = real_case("a"), real_case("b")
    assert np.allclose(population_contrast([a, b]), a.contrast, atol=1e-6)
