"""Look for the columns that a spec names in the first rows of its files, before anything runs.

Files that stages make do not exist yet, and the stage reports a file that cannot be read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from llmpipe.contracts import FieldPath, Finding
from llmpipe.errors import StageError, did_you_mean
from llmpipe.formats.mapping import OF_TURNS, OPTIONAL
from llmpipe.formats.records import read_rows

LOOKED_AT = 100
"""Rows of a file that are looked at."""

MOST_BYTES = 4_000_000
"""The size of a JSON array above which none of its rows is: it is read whole."""

LISTED = 20
"""How many columns a message names."""


class Named(NamedTuple):
    """A column that a spec names, at a field of its stage."""

    field: FieldPath
    column: str | None
    required: bool = True
    """Whether each row must have it, and not some row."""


def named_columns(
    block: FieldPath, columns: msgspec.Struct | None, optional: Collection[str] = OPTIONAL
) -> Iterator[Named]:
    """Yield the columns that a block of a stage names, each at its field.

    Args:
        block: where the block stands in the stage.
        columns: the block; each of its fields names a column, or several.
        optional: the fields whose columns not each row must have.
    """
    for name, value in (msgspec.structs.asdict(columns) if columns else {}).items():
        if name in OF_TURNS:
            continue
        required = name not in optional
        if isinstance(value, tuple):
            yield from (Named((*block, name, i), each, required) for i, each in enumerate(value))
        else:
            yield Named((*block, name), value, required)


def absent(
    files: Sequence[str | None], named: Iterable[Named], made: Collection[str] = ()
) -> Iterator[Finding]:
    """Yield the columns that none of the first rows has.

    Args:
        files: where the rows are. What is no absolute path is a stage's, and makes all unknown.
        named: the columns. One that is not required may come in later rows, which is a warning.
        made: names that the stage adds to those of the rows, for suggestions.
    """
    columns: dict[str, None] = {}
    rows, whole, names = 0, True, []
    for file in files:
        seen = _seen(Path(file)) if file and Path(file).is_absolute() else None
        if seen is None:
            return
        count, ended, has = seen
        rows, whole = rows + count, whole and ended
        columns |= dict.fromkeys(has)
        names.append(Path(str(file)).name)
    for item in named if rows else ():
        if item.column is not None and item.column not in columns:
            known = ", ".join([*islice(columns, LISTED), *["…"] * (len(columns) > LISTED)])
            hint = did_you_mean(item.column, [*made, *columns]) or f"there are: {known}"
            which = "no row" if whole else f"none of the first {rows} rows"
            message = f"{which} of {_listed(names)} has a column {item.column!r}"
            yield Finding(item.field, message, hint, warning=not (item.required or whole))


def _seen(path: Path) -> tuple[int, bool, dict[str, None]] | None:
    """Return how many rows were looked at, whether those are all, and their columns."""
    try:
        if not path.is_file() or (
            path.suffix.lower() == ".json" and path.stat().st_size > MOST_BYTES
        ):
            return None
        reading = read_rows(path, path.name)
        rows = [row for _, row in islice(reading, LOOKED_AT)]
        ended = next(reading, None) is None
    except (StageError, OSError):
        return None
    return len(rows), ended, {column: None for row in rows for column in row}


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
