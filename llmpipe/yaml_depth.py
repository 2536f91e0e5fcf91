"""Load YAML without overflowing the stack: libyaml recurses in C, where that ends the process."""

from __future__ import annotations

from typing import Any

MOST_LEVELS = 200
"""How deep collections may be nested; the loader's limit is some 20,000 in a thread."""


def load_bounded(text: str, loader: Any) -> Any:
    """Return the data of a YAML document whose nesting is moderate.

    Args:
        text: The document.
        loader: The loader class, such as ``yaml.CSafeLoader``.

    Raises:
        yaml.YAMLError: It is not valid YAML, or is nested too deeply.
    """
    import yaml

    depth = 0
    for event in iter(yaml.CSafeLoader(text).get_event, None):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_LEVELS:
            raise yaml.YAMLError(f"it is nested deeper than {MOST_LEVELS} levels")
    return yaml.load(text, Loader=loader)
