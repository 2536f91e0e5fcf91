"""Cache keys: SHA-256 of canonical JSON over everything that shapes a stage's artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from llmpipe.canonical import canonical

if TYPE_CHECKING:
    from llmpipe.graph.model import StageNode

RECORD = 1
"""The version of the layout of the ingredients; it is part of every key."""


def ingredients(
    node: StageNode, inputs: Mapping[str, Any], last: Callable[[], Mapping[str, Any] | None]
) -> dict[str, Any]:
    """Return everything that shapes a stage's artifacts; its `digest` is the cache key.

    ``inputs`` holds the fingerprint of each input. ``last`` returns the ingredients of the stage's
    last run: the version of a tool that is not installed here is taken from it.
    """
    config = canonical(node.stage.fingerprint(node.config))
    for port, wanted in node.ports.inputs.items():
        replace_at(config, wanted.field, {"input": port.partition("[")[0]})
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
    """Return the installed version of a distribution from its metadata, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def replace_at(config: Any, field: tuple[str | int, ...], value: Any) -> None:
    """Set ``value`` at ``field`` if the config has the field; a fingerprint may lack it."""
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
