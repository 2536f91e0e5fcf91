"""The rows of an artifact, read one by one, and a table of a few of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.api.plan import html_table
from llmpipe.contracts import ArtifactType
from llmpipe.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

SHOWN = 5
"""Rows that `Rows.head` returns unless told otherwise."""

LONGEST = 200
"""Characters of a value that a table shows."""

FILES = {
    "records": "",
    "dataset": "",
    "documents": "",
    "chunks": "chunks.jsonl",
    "embeddings": "chunks.jsonl",
}
"""Where the rows of an artifact lie, by its type: in it, or in a file below it."""


class Rows:
    """The rows of an artifact. Iterate over it, or look at a few; nothing is held in memory.

    Raises:
        UsageError: an artifact of this type has no rows.
    """

    def __init__(self, path: Path, kind: ArtifactType, label: str) -> None:
        if kind not in FILES:
            hint = f"pipe.path({label!r}) is its place"
            raise UsageError(f"{label} is of type {kind}, which has no rows", hint=hint)
        self.path = path / FILES[kind] if FILES[kind] else path
        self._label = label

    def __iter__(self) -> Iterator[Row]:
        from llmpipe.formats.records import read_rows

        return (row for _, row in read_rows(self.path, self._label))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def head(self, count: int = SHOWN) -> Table:
        """Return the first rows."""
        return Table(list(islice(self, count)))

    def sample(self, count: int = SHOWN, *, seed: int = 0) -> Table:
        """Return rows drawn by chance, in their order; the same ones for the same seed."""
        drawn = random.Random(seed)
        kept: list[tuple[int, Row]] = []
        for number, row in enumerate(self):  # reservoir sampling: one pass, nothing held
            if number < count:
                kept.append((number, row))
            elif (place := drawn.randrange(number + 1)) < count:
                kept[place] = (number, row)
        return Table([row for _, row in sorted(kept, key=lambda pair: pair[0])])

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows as a pandas data frame; pandas must be installed."""
        return self.head(len(self)).to_pandas()

    def __repr__(self) -> str:
        return f"<the rows of {self._label}: {self.path}>"


class Table(Sequence[Row]):
    """A few rows: a list of dictionaries that prints as a table."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = list(rows)

    def __getitem__(self, at: Any) -> Any:
        return self._rows[at]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the order in which they come up."""
        return list(dict.fromkeys(name for row in self._rows for name in row))

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas data frame; pandas must be installed."""
        import pandas as pd

        return pd.DataFrame(self._rows)

    def __repr__(self) -> str:
        blocks = (
            "\n".join(f"{name}: {_shown(value)}" for name, value in row.items())
            for row in self._rows
        )
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        columns = self.columns
        cells = (
            [escape(_shown(row[name])) if name in row else "" for name in columns]
            for row in self._rows
        )
        return html_table(columns, list(cells))


def _shown(value: Any) -> str:
    from llmpipe.formats.records import to_json

    text = value if isinstance(value, str) else to_json(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
