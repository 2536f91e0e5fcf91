"""The column ``provenance``, by which a row says that a model made it, and of which row.

    {"provenance": {"seed": "<SHA-256 of the source row>", "operators": [...], "teacher": {...}}}

`generate` writes it. People have columns of that name, too (``"provenance": "wiki"``): a row
counts as made by a model only where the column has this shape, as an object, or as the JSON text
of one in a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

PROVENANCE = "provenance"
"""The column's name."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_OURS = frozenset({"seed", "operators", "rounds", "teacher"})


def provenance_column(
    seed: str, operators: tuple[str, ...], teacher: Mapping[str, str]
) -> dict[str, Any]:
    """Return the column of a generated row.

    Args:
        seed: the digest of the source row (`llmpipe.formats.records.row_digest`).
        operators: how the row was made of it, one for each round.
        teacher: the model that wrote it.
    """
    return {
        "seed": seed,
        "operators": list(operators),
        "rounds": len(operators),
        "teacher": dict(teacher),
    }


def source_digest(row: Mapping[str, Any]) -> str | None:
    """Return the digest of the row that a generated row was made of; None of any other row."""
    seed = _as_object(row.get(PROVENANCE)).get("seed")
    return seed if isinstance(seed, str) and _DIGEST.fullmatch(seed) else None


def is_unclear(row: Mapping[str, Any]) -> bool:
    """Whether the column has fields that `generate` writes, but no digest of a source row."""
    fields = _as_object(row.get(PROVENANCE))
    return bool(_OURS & set(fields)) and source_digest(row) is None


def _as_object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}
