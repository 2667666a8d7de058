"""The one way YAML is read: plain data, no key twice, no aliases, no file too large to have been typed."""

from collections.abc import Hashable
from pathlib import Path

import yaml

from hybridtumor.errors import InputError

MAX_BYTES = 1_000_000
"""Largest YAML file that is read."""

MAX_DEPTH = 32
"""Deepest nesting that is read."""


class _PlainLoader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys, deep nesting and aliases (a few of them expand to gigabytes)."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one node; count the nesting."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed; write the value out")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Construct a mapping; refuse a key that occurs twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.YAMLError(f"key {key.value!r} occurs twice, again on line {key.start_mark.line + 1}")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def load_yaml(path: Path | str) -> object:
    """Read a YAML file as plain dictionaries, lists, strings, numbers, dates and None.

    Raises
    ------
    InputError
        The file is missing, larger than `MAX_BYTES`, not UTF-8, not YAML, asks for a Python object, has a key
        twice or an alias, or is nested deeper than `MAX_DEPTH`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a YAML file, found none.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path}: expected a YAML file of at most {MAX_BYTES} bytes, got {size}.")
    try:
        loader = _PlainLoader(path.read_text(encoding="utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except Exception as error:  # PyYAML's constructors raise IndexError, KeyError, AttributeError and more
        raise InputError(f"{path}: expected plain YAML, got something else: {error}") from error
