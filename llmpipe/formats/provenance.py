"""The column ``llmpipe_provenance``: which row this is, and which rows it was made from.

    {"llmpipe_provenance": {"id": "9f2c…", "parents": ["41d0…"], "method": "evol-instruct", …}}

Every stage that writes rows carries it on. ``id`` is the digest of the row as it was first read, so
a row keeps it through all stages. ``parents`` are the ids of all rows that a generated row descends
from, its parents' parents included. Further keys say how the row was made. A user's own column
``provenance`` is an ordinary column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from llmpipe.formats.row import RowError, json_text, kind_of

PROVENANCE = "llmpipe_provenance"
"""The column's name."""


class Provenance(msgspec.Struct, frozen=True):
    """Where a row comes from.

    Attributes:
        id: the row's own id.
        parents: the ids of all rows that it descends from.
        details: how it was made: method, teacher and so on.
    """

    id: str
    parents: tuple[str, ...] = ()
    details: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def generated(self) -> bool:
        """Whether a model made the row."""
        return bool(self.parents) or "method" in self.details

    def lineage(self) -> tuple[str, ...]:
        """Return the row's id and those of its parents: the parents of a row made from it."""
        return (self.id, *self.parents)

    def column(self) -> dict[str, Any]:
        """Return the value of the column; a row of a person's own has only an id."""
        parents = {"parents": list(self.parents)} if self.parents else {}
        return {"id": self.id, **parents, **self.details}


def provenance_column(
    row: Mapping[str, Any], made_from: Iterable[Provenance], **details: Any
) -> dict[str, Any]:
    """Return the column of a generated row.

    Args:
        row: the new row without the column; its id is its digest.
        made_from: the provenance of each row that it was made from.
        details: how it was made: at least ``method``.
    """
    parents = tuple(dict.fromkeys(parent for each in made_from for parent in each.lineage()))
    return Provenance(row_id(row), parents, details).column()


def read_provenance(row: Mapping[str, Any]) -> Provenance:
    """Return where a row comes from; a row without the column gets its id.

    Raises:
        RowError: the column is not what llmpipe writes.
    """
    value = row.get(PROVENANCE)
    if value is None or value == "":
        return Provenance(row_id(row))
    if isinstance(value, str):
        value = json_text(value, f"column {PROVENANCE!r}")
    if not isinstance(value, Mapping):
        raise _malformed(f"must hold an object, not {kind_of(value)}")
    details = dict(value)
    own, parents = details.pop("id", None), details.pop("parents", [])
    if not isinstance(own, str) or not own:
        raise _malformed("needs the text 'id'")
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise _malformed("must hold a list of ids under 'parents'")
    return Provenance(own, tuple(parents), details)


def row_id(row: Mapping[str, Any]) -> str:
    """Return the id of a row: 32 hex digits of its canonical JSON, without its provenance.

    The order of columns and the spelling of fractions (``1.10``) do not matter.
    """
    if PROVENANCE in row:
        row = {name: value for name, value in row.items() if name != PROVENANCE}
    text = bytearray(_ROOM)  # written into at once; an encoder's own buffer grows step by step
    _canonical_into(row, text)
    return sha256(text).hexdigest()[:32]


_ROOM = 2048
"""Bytes that the text of most rows fits in."""

_canonical_into = msgspec.json.Encoder(enc_hook=float, order="deterministic").encode_into


def _malformed(problem: str) -> RowError:
    return RowError(
        f"column {PROVENANCE!r} {problem}",
        hint="llmpipe's stages write this column; leave it as they wrote it, or take it out",
        reason="malformed provenance",
    )
