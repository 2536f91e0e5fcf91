"""Read a user's Axolotl file as Axolotl does: YAML 1.1, in which ``no`` is false.

A duplicate key in a mapping is refused, because PyYAML, and so Axolotl, silently keeps the last
one.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from llmpipe.errors import StageError
from llmpipe.foreign_files import is_spec

MAX_VALUES = 100_000
"""The maximum number of values in a file."""


def read_axolotl_file(path: Path, label: str) -> dict[str, Any]:
    """Return the content of a file; ``label`` is its name in messages.

    Raises:
        StageError: The file cannot be read, is not a YAML mapping, or is a spec.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(path.read_text("utf-8"))
        node = loader.get_single_node()
        _refuse_twins(node, label, count())
        data = loader.construct_document(node) if node else None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise StageError(f"{label} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise StageError(f"{label} is not an Axolotl file: it is not a mapping of keys")
    found = {str(key): value for key, value in data.items()}
    if is_spec(found):
        message = f"{label} is an llmpipe spec, not an Axolotl configuration"
        raise StageError(message, hint=f"llmpipe validate {shlex.quote(label)}")
    return found


def _refuse_twins(node: Any, label: str, seen_before: Iterator[int]) -> None:
    """Refuse duplicate keys at any depth, and aliases that expand to too many values.

    ``seen_before`` counts the values, each alias as often as it is used.
    """
    import yaml

    if next(seen_before) > MAX_VALUES:
        raise StageError(f"{label}: its aliases expand to more than {MAX_VALUES:,} values")
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_twins(item, label, seen_before)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name in seen and name != "<<":
            raise StageError(
                f"{label}:{line}: the key {name!r} appears twice, first at line {seen[name]}",
                hint="Axolotl would use the last one; remove the other",
            )
        if name is not None:
            seen[name] = line
        _refuse_twins(value, label, seen_before)
