"""Weights on disk come back as they were written, and whatever is wrong with them is said."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hybridtumor.errors import ResourceError
from hybridtumor.weights_file import Weights, read_weights, write_weights

INTERFACE = {"schema_version": 3, "labels": ["a", "b"]}


def width(header: dict[str, Any]) -> int:
    if header["width"] < 1:
        raise ValueError("expected a width of at least 1")
    return int(header["width"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_weights(tmp_path / "w.safetensors", named(layer()), {**INTERFACE, "width": 2})
    return tmp_path / "w.safetensors"


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


def named(network: nn.Module) -> dict[str, torch.Tensor]:
    return {f"one.{name}": tensor for name, tensor in network.state_dict().items()}


def read(path: Path) -> Weights[int]:
    return read_weights(path, "toy weights", INTERFACE, width)


def test_weights_come_back_in_half_precision(path: Path) -> None:
    weights, network = read(path), nn.Linear(2, 2)
    assert weights.facts == 2
    weights.fill(network, "one.")
    for name, tensor in layer().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor.half().float())
    assert sorted(p.name for p in path.parent.iterdir()) == ["w.json", "w.safetensors"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, r"toy weights for this version, it differs in schema_version \(expected 3, got 2\)"),
        ({"labels": None}, r"differs in labels \(expected \['a', 'b'\], got None\)"),
        ({"width": 0}, "damaged.*width of at least 1"),
        ({"width": "wide"}, "header of toy weights, it is damaged"),
        ({"sha256": "0"}, "SHA-256"),
    ],
)
def test_a_header_of_something_else_is_refused(path: Path, change: dict[str, Any], said: str) -> None:
    header = path.with_suffix(".json")
    header.write_text(json.dumps(json.loads(header.read_text()) | change))
    with pytest.raises(ResourceError, match=said):
        read(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", "{", '{"sha256": "0"}'])
def test_a_header_that_is_none_is_refused(path: Path, text: str) -> None:
    path.with_suffix(".json").write_text(text)
    with pytest.raises(ResourceError, match="damaged"):
        read(path)


def test_what_is_missing_is_named(path: Path) -> None:
    path.with_suffix(".json").unlink()
    with pytest.raises(ResourceError, match=r"toy weights: expected \S*w\.json, found none"):
        read(path)


def test_a_file_of_another_format_is_refused(path: Path) -> None:
    path.write_bytes(b"not tensors")
    header = json.loads(path.with_suffix(".json").read_text())
    digest = hashlib.sha256(b"not tensors").hexdigest()
    path.with_suffix(".json").write_text(json.dumps(header | {"sha256": digest}))
    with pytest.raises(ResourceError, match="safetensors file"):
        read(path)


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_are_not_finite_in_half_precision_are_refused(path: Path, value: float) -> None:
    write_weights(path, {"one.bias": torch.full((2,), value)}, {**INTERFACE, "width": 2})
    with pytest.raises(ResourceError, match="finite"):
        read(path)


def test_a_network_takes_its_own_tensors_and_no_others(path: Path) -> None:
    with pytest.raises(ResourceError, match=r"names or shapes differ: of one\.bias \(3,\), got \(2,\)"):
        read(path).fill(nn.Linear(2, 3), "one.")
    with pytest.raises(ResourceError, match=r"of one\.bias none, got \(2,\)"):
        read(path).fill(nn.Linear(2, 2, bias=False), "one.")
    with pytest.raises(ResourceError, match=r"of two\.bias \(2,\), got none"):
        read(path).fill(nn.Linear(2, 2), "two.")
