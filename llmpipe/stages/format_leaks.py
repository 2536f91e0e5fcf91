"""Find training rows that leak a held-out row, and duplicate rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmpipe.formats.leakage import QuotedQuestions, content_key
from llmpipe.stages.format_rows import Rows


BATCH = 250
"""Rows that are compared together."""


def duplicates(rows: Rows, positions: Sequence[int]) -> Iterator[str | None]:
    """Yield a reason for each row that repeats another; a row that is not generated is preferred,
    and otherwise the first is kept.

    Only rows that ask the same are compared.
    """
    repeated = _repeated(rows)
    first: dict[bytes, int] = {}
    contents: dict[int, bytes] = {}
    for position in positions:
        if rows.question(position) in repeated:
            content = contents[position] = content_key(rows.example(position))
            holder = first.setdefault(content, position)
            if rows.generated[holder] and not rows.generated[position]:
                first[content] = position
    for position in positions:
        content = contents.get(position)
        yield None if content is None or first[content] == position else "duplicate"


def _repeated(rows: Rows) -> set[bytes]:
    """Return the keys of the questions that several rows ask."""
    seen: set[bytes] = set()
    return {key for key in rows.questions() if key in seen or seen.add(key)}


def leaks(rows: Rows, training: Sequence[int], held: Sequence[int]) -> Iterator[str | None]:
    """Yield, for each training row, how it leaks a held-out row, or None."""
    if not held:
        yield from (None for _ in training)
        return
    questions = {rows.question(i) for i in held}
    groups = {rows.group(i) for i in held} - {None}
    descendants = _descendants(rows, {rows.id(i) for i in held})
    quoted = QuotedQuestions(rows.asked(held))
    for start in range(0, len(training), BATCH):
        positions = training[start : start + BATCH]
        quoting = quoted.quoting(rows.asked(positions))
        for number, position in enumerate(positions):
            if position in descendants:
                yield "generated from a held-out row"
            elif groups and rows.group(position) in groups:
                yield "in a held-out group"
            elif rows.question(position) in questions:
                yield "repeats a held-out question"
            else:
                yield "quotes a held-out question" if number in quoting else None


def _descendants(rows: Rows, held: set[bytes]) -> set[int]:
    """Return the rows made from held-out ones, over any number of steps."""
    ids, found = set(held), set[int]()
    waiting = dict(rows.parents)
    while True:
        reached = [i for i, parents in waiting.items() if not ids.isdisjoint(parents)]
        if not reached:
            return found
        found.update(reached)
        for position in reached:
            ids.add(rows.id(position))
            del waiting[position]
