"""Refuse secrets where a run would record them, and values in clear text where a secret belongs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llmpipe.contracts import SECRET
from llmpipe.errors import Location, Problem
from llmpipe.spec.load import Node
from llmpipe.type_errors import Steps, dotted

_NAMED_LIKE_ONE = re.compile(
    r"""(?xi) (?: (?:API|ACCESS|SECRET) [_-]?KEY | SECRET | PASSW(?:OR)?D | (?<![a-z])(?:PASS|PAT)
    | (?:HF|HUB|HUGGING_?FACE|AUTH|ACCESS|SESSION|API|GITHUB|GITLAB|WANDB|BEARER) [_-]?TOKEN )$"""
)
"""The ends of names of variables that hold secrets."""
_ADDRESSES = frozenset({"mlflow_tracking_uri"})
"""Settings and variables (in any case) whose address may have credentials in it."""
_CREDENTIALS = re.compile(r"://[^/@\s]*@")
_SHORTEST = 8
"""Shorter values are placeholders, such as ``none``, not secrets."""


def misplaced_secrets(
    data: Any, schema: dict[str, Any], root: Node, base: Steps
) -> Iterator[Problem]:
    """Refuse ``${secret:…}`` outside the fields that the schema marks ``writeOnly``.

    A field for a secret refuses a value in clear text, and so does an environment variable with the
    name of a secret; short placeholders are allowed. The line is not shown, because messages end up
    in logs.
    """

    def walk(value: Any, node: dict[str, Any], path: Steps, allowed: bool) -> Iterator[Problem]:
        node = _resolve(node, schema)
        allowed = allowed or bool(node.get("writeOnly"))
        if isinstance(value, str) and SECRET.search(value) and not allowed:
            name = dotted((*base, *path))
            yield Problem(
                f"{name}: a secret is not allowed here: it would be stored and hashed",
                root.locate(path),
                "secrets are allowed in api_key fields and in a command's env",
            )
        elif isinstance(value, str) and _is_for_a_secret(node, path):
            if len(value) >= _SHORTEST and not SECRET.search(value):
                yield Problem(
                    f"{dotted((*base, *path))}: a secret in clear text: every run's records would "
                    "show it",
                    _without_value(root.locate(path)),
                    "write ${secret:NAME}, and export NAME=… before llmpipe is called",
                )
        elif isinstance(value, str) and path and _has_credentials(value, str(path[-1])):
            yield Problem(
                f"{dotted((*base, *path))}: the address has credentials: every run's records would "
                "show them",
                _without_value(root.locate(path)),
                "write it without them, and set the variables MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, in launch.env as ${secret:NAME}",
            )
        elif isinstance(value, dict):
            for key, item in value.items():
                below = node.get("properties", {}).get(key) or node.get("additionalProperties")
                below = below if isinstance(below, dict) else {}
                yield from walk(item, below, (*path, key), allowed)
        elif isinstance(value, list):
            items = node.get("items")
            for i, item in enumerate(value):
                below = items if isinstance(items, dict) else {}
                yield from walk(item, below, (*path, i), allowed)

    yield from walk(data, schema, (), allowed=False)


def _without_value(place: Location) -> Location:
    """Return a place without its line, and without the value of a command line option."""
    option, equals, _ = place.file.partition("=")
    return place._replace(text="", file=option if equals and option[:2] == "--" else place.file)


def _has_credentials(value: str, name: str) -> bool:
    return name.lower() in _ADDRESSES and bool(_CREDENTIALS.search(value))


def _is_for_a_secret(node: dict[str, Any], path: Steps) -> bool:
    named = len(path) > 1 and path[-2] == "env" and _NAMED_LIKE_ONE.search(str(path[-1]))
    return node.get("format") == "password" or bool(named)


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow ``$ref`` and unwrap ``X | None``."""
    for choice in node.get("anyOf", []):
        if "$ref" in choice or choice.get("writeOnly"):
            return _resolve(
                {**choice, **{key: node[key] for key in ("writeOnly", "format") if key in node}},
                schema,
            )
    if "$ref" in node:
        return {**node, **schema["$defs"][node["$ref"].rpartition("/")[2]]}
    return node
