"""The train command: stages go on where they stopped, weights load, rare tumours are drawn more often."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_training import real_case

from hybridtumor import train_command
from hybridtumor.errors import InputError
from hybridtumor.refiner_weights import load_weights
from hybridtumor.solvers.loss_history import read_rows
from hybridtumor.train import train
from hybridtumor.train_data import MOST_OFTEN, case_weights
from hybridtumor.train_options import PRESETS, STUDENTS, Recipe, TrainOptions

SMALL = Recipe(1, 1, 1, batch=1, crop=16, phantoms=0, validation=1, pairs=1, save_every=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two prepared cases, and the folders they would have been made from."""
    for name in "ab":
        (tmp_path / "data" / "train" / "patients" / name).mkdir(parents=True)
        real_case(name).save(tmp_path / "cache" / f"real_{name}.safetensors")
    return tmp_path


def options(folder: Path) -> TrainOptions:
    return TrainOptions(folder / "cache", folder / "out", folder / "data", recipe=SMALL, hold_out=("b",))


def test_training_writes_weights_that_load_and_goes_on_where_it_stopped(folder: Path) -> None:
    said: list[str] = []
    weights = load_weights(train(options(folder), say=said.append))
    about = weights.header["training"]
    assert (about["real_cases"], about["held_out"], about["steps"]) == (["a"], ["b"], 1)
    assert any(line.startswith("diffusion step 1 of 1") for line in said)
    rows = read_rows(folder / "out" / "diffusion_losses.csv")
    assert [row.step for row in rows] == [1]
    assert rows[0].validation is not None
    again = load_weights(train(options(folder)))
    assert again.header["sha256"] == weights.header["sha256"]
    longer = replace(options(folder), recipe=replace(SMALL, diffusion_steps=2))
    assert load_weights(train(longer)).header["training"]["steps"] == 2
    with pytest.raises(InputError, match="seed"):
        train(replace(options(folder), seed=1))


def test_students_are_weights_like_any_other(folder: Path) -> None:
    train(replace(options(folder), students=STUDENTS))
    for kind in STUDENTS:
        student = load_weights(folder / "out" / f"student_{kind}.safetensors")
        assert student.header["training"]["stage"] == kind
    assert student.header["sizes"]["denoiser"] == [16, 24, 32, 48]
    with pytest.raises(InputError, match="students: expected of"):
        replace(options(folder), students=("three-step",))


def test_training_starts_from_weights(folder: Path) -> None:
    first = train(options(folder))
    later = replace(options(folder), init=first, out=folder / "later", recipe=replace(SMALL, regression_steps=0))
    header = load_weights(train(later)).header
    assert header["training"]["started_from"]["steps"] == 1
    assert not (folder / "later" / "regression.safetensors").exists()


def test_enhancing_tumours_are_half_of_the_examples_and_none_is_drawn_too_often() -> None:
    few = [real_case(str(i), 24, enhances=i < 2) for i in range(6)]
    weights = case_weights(few)
    assert sum(weights) == pytest.approx(1)
    assert sum(weights[:2]) == pytest.approx(0.5)
    rare = case_weights([real_case(str(i), 24, enhances=i == 0) for i in range(20)])
    assert rare[0] == pytest.approx(rare[1] * MOST_OFTEN / 20 / (0.5 / 19))
    assert rare[0] < 0.3
    assert case_weights(few[:2]) == (0.5, 0.5)


def test_wrong_folders_and_names_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        train(replace(options(folder), data=folder / "nowhere"))
    with pytest.raises(InputError, match="hold-out"):
        train(replace(options(folder), hold_out=("c",)))
    with pytest.raises(InputError, match="all are held out"):
        train(replace(options(folder), hold_out=("a", "b")))


def test_a_recipe_changes_only_what_is_given() -> None:
    assert PRESETS["cpu"].but(batch=None, crop=None) == PRESETS["cpu"]
    assert PRESETS["gpu"].but(batch=4).batch == 4
    for wrong in ({"crop": 40}, {"batch": 0}, {"phantom_share": 1.5}, {"accumulate": -1}):
        with pytest.raises(InputError, match="training: expected"):
            PRESETS["cpu"].but(**wrong)


def test_the_command_prepares_and_stops(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_command.train(
        out=folder / "out", cache=folder / "cache", data=folder / "data", prepare=True, phantoms=0, threads=0
    )
    assert "2 cases and 0 phantom pairs" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_the_command_line_is_read_without_torch() -> None:
    code = "import sys, hybridtumor.train_command; sys.exit('torch' in sys.modules or 'dolfinx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
