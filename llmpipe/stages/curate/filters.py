"""Drop rows by what each of them says, one row at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.formats.leakage import normalize
from llmpipe.stages.curate.pool import Drop, Pool
from llmpipe.stages.curate.steps import Length
from llmpipe.stages.curate.words import compared_words


def length(step: Length, pool: Pool) -> Mapping[str, Any]:
    """Drop rows that are too short or too long; return the metrics."""
    drops = {}
    for position, said in pool.each_said("counting words"):
        counts = [(t.answers, len(compared_words(normalize(t.text)))) for t in said]
        words = sum(count for _, count in counts)
        answer = sum(count for is_answer, count in counts if is_answer)
        if step.min_words and words < step.min_words:
            drops[position] = _length("min_words", f"has {_words(words)}", words)
        elif step.max_words and words > step.max_words:
            drops[position] = _length("max_words", f"has {_words(words)}", words)
        elif step.min_answer_words and answer < step.min_answer_words:
            drops[position] = _length(
                "min_answer_words", f"its answer has {_words(answer)}", answer
            )
    pool.drop(drops)
    return {}


def _length(field: str, reason: str, count: int) -> Drop:
    way = "lower" if field.startswith("min") else "raise"
    return Drop(field, reason, f"{way} {field} to {count}", count)


def _words(count: int) -> str:
    return "1 word" if count == 1 else f"{count} words"
