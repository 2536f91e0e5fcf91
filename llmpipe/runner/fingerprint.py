"""Cache keys: SHA-256 of canonical JSON over all that shapes a stage's artifacts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from llmpipe.graph.compile import StageNode

RECORD = 1
"""The version of the ingredients' layout; it is part of every key."""


def canonical_json(value: Any) -> str:
    """Give JSON text that is the same for equal values: sorted keys, ``1.0`` as ``1``.

    Raises:
        TypeError: the value is not JSON; nothing is ever pickled into a key.
        ValueError: it holds infinity or not-a-number.
    """
    return json.dumps(
        _normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """Give the SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def ingredients(
    node: StageNode, inputs: Mapping[str, Any], last: Callable[[], Mapping[str, Any] | None]
) -> dict[str, Any]:
    """Give all that shapes a stage's artifacts, as JSON data; its `digest` is the cache key.

    ``inputs`` holds the fingerprint of each input; ``last`` gives the ingredients of the stage's
    last run: a tool that is not installed here is taken to be what it was then.
    """
    config = json.loads(canonical_json(node.stage.fingerprint(node.config)))
    for port, wanted in node.ports.inputs.items():
        _replace(config, wanted.field, {"input": port})
    tools = {name: tool_version(name) for name in node.stage.tools(node.config)}
    if None in tools.values():
        known = (last() or {}).get("tools", {})
        tools = {name: found or known.get(name) for name, found in tools.items()}
    return {
        "record": RECORD,
        "kind": node.kind,
        "version": node.stage.VERSION,
        "config": config,
        "inputs": dict(inputs),
        "tools": tools,
    }


@cache
def tool_version(distribution: str) -> str | None:
    """Give the installed version of a distribution from its metadata, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _normal(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key that is not a text cannot enter a cache key")
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normal(item) for item in value]
    return value


def _replace(config: Any, field: tuple[str | int, ...], value: Any) -> None:
    """Put ``value`` at ``field`` where the config has it; a fingerprint may have dropped it."""
    *parents, leaf = field
    for step in parents:
        try:
            config = config[step]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(config, dict) and leaf in config:
        config[str(leaf)] = value
    elif isinstance(config, list) and isinstance(leaf, int) and leaf < len(config):
        config[leaf] = value
