"""Find training rows that leak a held-out row, and duplicate rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from llmpipe.formats.leakage import QuotedQuestions, content_key
from llmpipe.stages.format_rows import KEY, Rows

BATCH = 250
"""Rows that are compared together."""

TOGETHER = 1 << 19
"""Questions that are compared together, which takes about 60 MB."""


def duplicates(rows: Rows, *, unread: bool = False) -> dict[int, str]:
    """Return the rows that repeat another, each with a reason; a row that is not generated is
    preferred, and otherwise the first is kept.

    Only rows that ask the same are compared; if they are ``unread``, by all of their columns.
    """
    repeated = _repeated(rows)
    contents = {
        position: rows.columns(position) if unread else content_key(rows.example(position))
        for position, question in enumerate(rows.questions() if repeated else ())
        if question in repeated
    }
    first: dict[bytes, int] = {}
    for position, content in contents.items():
        holder = first.setdefault(content, position)
        if rows.generated[holder] and not rows.generated[position]:
            first[content] = position
    return {
        position: "duplicate"
        for position, content in contents.items()
        if first[content] != position
    }


def _repeated(rows: Rows) -> set[bytes]:
    """Return the keys of the questions that several rows ask.

    The keys are compared in ranges of about `TOGETHER`, which bounds the memory.
    """
    ranges = max(1, -(-len(rows) // TOGETHER))
    bounds = [(2**32 * number // ranges).to_bytes(5, "big")[1:] for number in range(ranges)]
    repeated: set[bytes] = set()
    for low, high in zip_longest(bounds, bounds[1:], fillvalue=b"\xff" * (KEY + 1)):
        keys = [key for key in rows.questions() if low <= key < high]
        once = set(keys)
        if len(once) < len(keys):
            for key in keys:
                if key in once:
                    once.remove(key)
                else:
                    repeated.add(key)
    return repeated


def leaks(rows: Rows, training: Sequence[int], held: Sequence[int]) -> dict[int, str]:
    """Return the training rows that leak a held-out row, each with how it does."""
    if not held:
        return {}
    found: dict[int, str] = {}
    questions = rows.asked(held)
    asked, quoted = set(questions), QuotedQuestions(questions)
    for start in range(0, len(training), BATCH):
        positions = training[start : start + BATCH]
        texts = rows.asked(positions)
        for i in quoted.quoting(texts):
            found[positions[i]] = "quotes a held-out question"
        if not asked.isdisjoint(texts):
            for position, text in zip(positions, texts, strict=True):
                if text in asked:
                    found[position] = "repeats a held-out question"
    groups = {rows.group(i) for i in held} - {None}
    if groups:
        found |= {i: "in a held-out group" for i in training if rows.group(i) in groups}
    descendants = _descendants(rows, {rows.id(i) for i in held}) if rows.parents else ()
    if descendants:
        found |= {i: "generated from a held-out row" for i in training if i in descendants}
    return found


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
