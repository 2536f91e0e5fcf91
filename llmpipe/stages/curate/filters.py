"""Drop rows by what each of them says, one row at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.formats.json_schema import json_value, mismatch
from llmpipe.formats.leakage import normalize
from llmpipe.formats.provenance import PROVENANCE
from llmpipe.formats.records import Row
from llmpipe.stages.curate.phrases import OF_ITSELF, REFUSALS, Phrases
from llmpipe.stages.curate.pool import NO_STEP, Drop, Pool, raised
from llmpipe.stages.curate.rows import REJECTED
from llmpipe.stages.curate.steps import Length, Refusals, Repetition, Schema
from llmpipe.stages.curate.words import compared_words

LONGEST_REASON = 300
"""Letters of a reason. The text that a schema does not accept may be long."""


def length(step: Length, pool: Pool) -> Mapping[str, Any]:
    """Drop rows that are too short or too long; return the metrics."""
    drops = {}
    for position, said in pool.each_said("counting words"):
        counts = [
            (turn.answers, len(compared_words(normalize(turn.text))))
            for turn in said
            if turn.is_turn
        ]
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


def repetition(step: Repetition, pool: Pool) -> Mapping[str, Any]:
    """Drop rows in which a turn repeats itself; return the metrics."""
    drops = {}
    for position, said in pool.each_said("looking for repetition"):
        share = max((_repeated(turn.text, step) for turn in said if turn.is_turn), default=0.0)
        if share > step.most:
            reason = f"{share:.0%} of the runs of {step.words} words in a turn are repeated"
            drops[position] = Drop("repetition", reason, raised("most to", share), share)
    pool.drop(drops)
    return {}


def refusals(step: Refusals, pool: Pool) -> Mapping[str, Any]:
    """Drop rows with an answer that refuses; return the metrics."""
    refusing, of_itself = Phrases(REFUSALS), Phrases(OF_ITSELF)
    own = Phrases(map(_plain, step.phrases))
    drops = {}
    for position, said in pool.each_said("looking for refusals"):
        for turn in (turn for turn in said if turn.answers and turn.role != REJECTED):
            whole, answer = _plain(turn.text), _plain(turn.text[turn.begin :])
            if found := refusing.find(answer[: step.begin]):
                drops[position] = _phrase("refusal", found, NO_STEP)
            elif found := of_itself.find(whole):
                drops[position] = _phrase("language_model", found, NO_STEP)
            elif found := own.find(whole):
                drops[position] = _phrase("phrase", found, "take it out of phrases")
    pool.drop(drops)
    return {}


def schema(step: Schema, pool: Pool) -> Mapping[str, Any]:
    """Drop rows that the schema does not accept; return the metrics."""
    drops = {}
    for position, row in pool.each_row("validating"):
        told = _refused(step, row)
        if told:
            drops[position] = Drop("schema", told[:LONGEST_REASON], "change the schema")
    pool.drop(drops)
    return {}


def _refused(step: Schema, row: Row) -> str:
    """Return why the schema does not accept a row, or an empty text."""
    if step.column is None:
        return mismatch(step.schema, {name: row[name] for name in row if name != PROVENANCE})
    if step.column not in row:
        return f"has no column {step.column}"
    value = row[step.column]
    try:
        told = mismatch(step.schema, json_value(value) if isinstance(value, str) else value)
    except ValueError as error:
        told = f"not JSON: {error}"
    return f"{step.column}: {told}" if told else ""


def _repeated(text: str, step: Repetition) -> float:
    """Return the share of a turn's runs of words that it had before."""
    words = compared_words(normalize(text))
    runs = len(words) - step.words + 1
    if len(words) < step.fewest_words or runs < 1:
        return 0.0
    different = {b" ".join(words[i : i + step.words]) for i in range(runs)}
    return 1 - len(different) / runs


def _plain(text: str) -> str:
    return normalize(text).replace("’", "'")


def _phrase(rule: str, found: str, keep: str) -> Drop:
    return Drop(rule, f'an answer says "{found}"', keep)


def _length(field: str, reason: str, count: int) -> Drop:
    way = "lower" if field.startswith("min") else "raise"
    keep = f"{way} {field} to {count}" if count else f"leave {field} out"
    return Drop(field, reason, keep, count)


def _words(count: int) -> str:
    return "1 word" if count == 1 else f"{count} words"
