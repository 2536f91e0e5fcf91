"""Find training rows that leak a held-out row, and duplicate rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, count
from pathlib import Path

from llmpipe.formats.leakage import KEY, QuotedQuestions, content_key
from llmpipe.stages.format_columns import Records, split_block
from llmpipe.stages.format_keys import repeated, repeats
from llmpipe.stages.format_rows import TRAIN, Fates, Rows, key_of

TOGETHER = 1 << 16
"""Held-out rows that are looked for together, which takes about 120 MB."""

REPEATS, QUOTES = "repeats a held-out question", "quotes a held-out question"


def duplicates(rows: Rows, folder: Path, *, unread: bool = False) -> Iterator[int]:
    """Return the rows that repeat another; a row that is not generated is preferred, and otherwise
    the first is kept.

    Only rows that ask the same are compared; if they are ``unread``, by all of their columns.
    """
    again = repeated(rows.questions)
    contents = Records(folder, f"{KEY}s")
    for position in compress(count(), again):
        columns = rows.columns(position) if unread else None
        contents.add(content_key(rows.example(position)) if columns is None else key_of(columns))
    return repeats(contents, again, rows.generated)


def leaks(rows: Rows, fates: Fates, held: Sequence[int]) -> None:
    """Turn the training rows away that leak a held-out row, each with how it does."""
    training = fates.of(TRAIN)
    for start in range(0, len(held), TOGETHER):
        questions = [rows.words(i) for i in held[start : start + TOGETHER]]
        _find_questions(rows, fates, training, questions)
    groups = {rows.group(i) for i in held} - {None}
    if groups:
        grouped = (i for i, group in enumerate(rows.groups()) if group in groups)
        fates.give("in a held-out group", (i for i in grouped if training[i]))
    descendants = _descendants(rows, held)
    fates.give("generated from a held-out row", (i for i in descendants if training[i]))


def _find_questions(rows: Rows, fates: Fates, training: bytes, questions: list[bytes]) -> None:
    """Turn the training rows away that quote or repeat one of the questions."""
    asked, quoted = set(questions), QuotedQuestions(questions)
    for every, block in rows.asked():
        texts = split_block(block)
        here = [every[i] for i in quoted.quoting(texts)]
        fates.give(QUOTES, [i for i in here if training[i] and fates[i] == TRAIN])
        if not asked.isdisjoint(texts):
            here = [every[i] for i, text in enumerate(texts) if text in asked]
            fates.give(REPEATS, [i for i in here if training[i]])


def _descendants(rows: Rows, held: Sequence[int]) -> Iterator[int]:
    """Yield the rows made from held-out ones, over any number of steps."""
    if not rows.has_parents:
        return
    ids, found = {rows.id(i) for i in held}, bytearray(len(rows))
    growing = True
    while growing:
        growing = False
        for position, parents in rows.parents():
            if not found[position] and not ids.isdisjoint(parents):
                found[position] = growing = True
                ids.add(rows.id(position))
    yield from compress(count(), found)
