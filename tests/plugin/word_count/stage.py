"""Count how often each word stands in a column of some rows.

The rows are read one by one; the counts of all words are held in memory. Words are what Python's
``str.split`` gives; nothing is done about punctuation.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any, Literal

import msgspec

from llmpipe.contracts import (
    FieldPath,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    write_json,
)
from llmpipe.errors import StageError


class WordCountConfig(StageConfig, frozen=True, kw_only=True):
    """Count the words of a column."""

    data: str
    """The rows: a stage or a JSONL file."""
    column: str
    """The column whose words are counted."""
    case: Literal["keep", "fold"] = "fold"
    """Whether Word and word are two words (keep) or one (fold)."""
    top: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many of the most frequent words to give; all by default."""


class WordCount(StageDefaults):
    """The stage kind ``word_count``."""

    Config = WordCountConfig
    VERSION = 1
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: WordCountConfig) -> Ports:
        """Rows in, figures out."""
        inputs = {"data": Input(("data",), config.data, ("records", "dataset"))}
        return Ports(inputs, {"counts": Output("metrics")}, default="counts")

    @staticmethod
    def problems(config: WordCountConfig) -> list[tuple[FieldPath, str]]:
        """Say what the types of the fields cannot say."""
        if config.column.strip() != config.column:
            return [(("column",), "begins or ends with a blank")]
        return []

    @staticmethod
    def run(ctx: StageContext[WordCountConfig]) -> StageResult:
        """Read the rows, count, and give the most frequent words.

        Raises:
            StageError: a row has no such column.
        """
        counts: Counter[str] = Counter()
        with ctx.input("data").path.open(encoding="utf-8") as rows:
            for number, line in enumerate(rows, 1):
                counts.update(_words(json.loads(line), number, ctx.config))
                ctx.progress(number, None, "rows")
        found = dict(counts.most_common(ctx.config.top))
        figures = {"words": counts.total(), "different": len(counts)}
        counted = write_json(ctx.out / "counts.json", {**figures, "counts": found})
        return StageResult({"counts": counted}, figures, f"{counts.total()} words")


def _words(row: dict[str, Any], number: int, config: WordCountConfig) -> list[str]:
    if config.column not in row:
        raise StageError(
            f"row {number} has no column {config.column!r}", hint=f"it has: {', '.join(row)}"
        )
    text = str(row[config.column])
    return (text.casefold() if config.case == "fold" else text).split()
