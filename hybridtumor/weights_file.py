"""Weights of networks on disk: one safetensors file in half precision, and a JSON header beside it.

The header holds what networks and program have to agree on (the interface), what is needed to build the networks, what
they were trained on, and the SHA-256 of the safetensors file. Nothing is unpickled, and weights that do not match their
header are refused. Whatever goes wrong in reading is a ResourceError that says what to do.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from hybridtumor.errors import ResourceError
from hybridtumor.scan import write_bytes


@dataclass(frozen=True, eq=False)
class Weights[T]:
    """A file of weights whose header and digest have been checked.

    Parameters
    ----------
    path
        The safetensors file.
    header
        The JSON header.
    facts
        What the reader took out of the header.
    tensors
        Name to tensor, in half precision, all finite.
    """

    path: Path
    header: dict[str, Any]
    facts: T
    tensors: Mapping[str, Tensor]

    def fill(self, network: nn.Module, prefix: str = "") -> None:
        """Copy the tensors whose names begin with `prefix` into a network, which is to have these and no others.

        Raises
        ------
        ResourceError
            Names or shapes are not those of the network.
        """
        own = {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
        wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
        found = {name: tuple(t.shape) for name, t in own.items()}
        if wanted != found:
            first = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            raise ResourceError(
                f"{self.path}: expected the tensors of the network in its header, names or shapes differ: of"
                f" {prefix}{first} {wanted.get(first, 'none')}, got {found.get(first, 'none')}. Reinstall the package."
            )
        network.load_state_dict({name: t.float() for name, t in own.items()})


def write_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors in half precision, then their header with the digest added, each whole or not at all."""
    payload = save({k: v.detach().cpu().to(torch.float16).contiguous() for k, v in tensors.items()})
    content = {**header, "sha256": hashlib.sha256(payload).hexdigest()}
    write_bytes(path, payload)
    write_bytes(path.with_suffix(".json"), (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def read_weights[T](
    path: Path, what: str, interface: Mapping[str, Any], facts: Callable[[dict[str, Any]], T]
) -> Weights[T]:
    """Read weights and check all that can be checked without their networks.

    Parameters
    ----------
    path
        The safetensors file.
    what
        What it holds, for messages.
    interface
        What the header has to say, word for word; its ``schema_version`` among it.
    facts
        Takes what builds the networks out of a header; what it raises of ValueError, KeyError, TypeError and
        AttributeError means that the header is damaged.

    Raises
    ------
    ResourceError
        Weights or header are missing, damaged, not finite, or made for another version of the program.
    """
    header_path = path.with_suffix(".json")
    missing = [str(p) for p in (path, header_path) if not p.is_file()]
    if missing:
        raise ResourceError(
            f"{what}: expected {' and '.join(missing)}, found none. Reinstall the package or train the weights."
        )
    try:
        header: dict[str, Any] = json.loads(header_path.read_text())
        digest, _ = header["sha256"], header["schema_version"]
        _require_interface(path, what, header, interface)
        found = facts(header)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResourceError(
            f"{header_path}: expected the header of {what}, it is damaged ({error}). Reinstall the package."
        ) from error
    return Weights(path, header, found, _tensors(path, digest))


def _require_interface(path: Path, what: str, header: Mapping[str, Any], interface: Mapping[str, Any]) -> None:
    different = sorted(key for key, value in interface.items() if header.get(key) != value)
    if different:
        told = ", ".join(f"{key} (expected {interface[key]}, got {header.get(key, 'none')})" for key in different)
        raise ResourceError(
            f"{path}: expected {what} for this version, it differs in {told}. Train or install matching weights."
        )


def _tensors(path: Path, digest: object) -> dict[str, Tensor]:
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != digest:
        raise ResourceError(
            f"{path}: expected the SHA-256 of its header, the file is damaged or was replaced. Reinstall the package."
        )
    try:
        tensors: dict[str, Tensor] = load(payload)
    except SafetensorError as error:
        raise ResourceError(f"{path}: expected a safetensors file ({error}). Reinstall the package.") from error
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise ResourceError(f"{path}: expected finite weights, got NaN or infinity. Reinstall the package.")
    return tensors
