"""Find training rows that leak a held-out row, and duplicate rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llmpipe.formats.leakage import QuotedQuestions
from llmpipe.stages.format_rows import Rows


def duplicates(rows: Rows, positions: Iterable[int]) -> Iterator[str | None]:
    """Yield a reason for each row that repeats another; a row that is not generated is preferred,
    and otherwise the first is kept.
    """
    first: dict[bytes, int] = {}
    positions = list(positions)
    for position in positions:
        holder = first.setdefault(rows.content(position), position)
        if rows.generated[holder] and not rows.generated[position]:
            first[rows.content(position)] = position
    for position in positions:
        yield None if first[rows.content(position)] == position else "duplicate"


def leaks(rows: Rows, training: Sequence[int], held: Sequence[int]) -> Iterator[str | None]:
    """Yield, for each training row, how it leaks a held-out row, or None."""
    if not held:
        yield from (None for _ in training)
        return
    questions = {rows.question(i) for i in held}
    groups = {rows.group(i) for i in held} - {None}
    descendants = _descendants(rows, {rows.id(i) for i in held})
    quoted = QuotedQuestions(rows.asked(i).split() for i in held)
    for position in training:
        if position in descendants:
            yield "generated from a held-out row"
        elif groups and rows.group(position) in groups:
            yield "in a held-out group"
        elif rows.question(position) in questions:
            yield "repeats a held-out question"
        elif rows.words[position] > quoted.shortest and quoted.quoted_in(
            rows.asked(position).split()
        ):
            yield "quotes a held-out question"
        else:
            yield None


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
