"""Drop rows that give held-out rows away, told by runs of words.

A row is dropped if it shares a run of `words` words with a held-out row. A held-out question with
fewer words has no such run: a row is dropped if it contains the whole question. A question that is
shorter than `fewest_words` is too common for that: a row is dropped if it asks just that. System
messages and tools are not compared. What many held-out rows share is in no run, and a run does not
reach over it; a held-out turn without a run is then looked for as a whole, with what it shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats import RowError
from llmpipe.formats.records import read_rows
from llmpipe.stages.curate.held_out import Compared, HeldOut, Overlap
from llmpipe.stages.curate.pool import Drop, Pool
from llmpipe.stages.curate.rows import TOOLS, Rows, Said
from llmpipe.stages.curate.shared_text import Shared, Turn, find_shared
from llmpipe.stages.curate.steps import Decontaminate
from llmpipe.stages.curate.words import normal_words

BATCH = 500
"""Rows that are looked up together."""
SHOWN = 100
"""Letters that are shown of an overlap."""

_KEEP = "take that row out of `against`"
_NOT_COMPARED = frozenset({"system", TOOLS})


def run(
    step: Decontaminate, pool: Pool, against: Mapping[str, Artifact], columns: Sequence[str]
) -> Mapping[str, Any]:
    """Drop rows that give held-out rows away; return the metrics.

    Args:
        step: the step.
        pool: the rows that are left.
        against: the held-out rows, by what rejects call them.
        columns: the columns that are compared, if the spec names some.

    Raises:
        StageError: held-out rows cannot be read, or there are none.
    """
    held, places, shared = _read(step, pool, against, columns)
    drops: dict[int, Drop] = {}
    rows = _batches(pool)
    while batch := list(islice(rows, BATCH)):
        turns = [_turns(said, shared) for _, said in batch]
        for place, overlap in held.overlaps(turns).items():
            drops[batch[place][0]] = _drop(overlap, places[overlap.held_out])
    dropped = len({str(drop.beside) for drop in drops.values()})
    pool.drop(drops)
    return {
        "held_out": held.count,
        "held_out_found": dropped,
        "held_out_not_compared": held.uncompared,
        "left_out": shared.told,
    }


def _batches(pool: Pool) -> Iterator[tuple[int, list[Said]]]:
    return pool.each_said("comparing with held-out rows")


def _read(
    step: Decontaminate, pool: Pool, against: Mapping[str, Artifact], columns: Sequence[str]
) -> tuple[HeldOut, list[Mapping[str, Any]], Shared]:
    """Read the held-out rows."""
    rows, names = Rows(pool.work, columns), list(against)
    for number, artifact in enumerate(against.values()):
        before = len(rows)
        for line, row in read_rows(artifact.path, artifact.label):
            try:
                rows.add(row, number, line)
            except RowError as error:
                raise StageError(
                    f"{artifact.label}:{line}: {error.message}",
                    hint=error.hint or "every held-out row must be readable to be kept apart",
                ) from None
        if len(rows) == before:
            raise StageError(f"{artifact.label}: no held-out rows to compare with")
    rows.store()
    every = range(len(rows))
    shared = find_shared(Pool(rows, names, pool.rejects, pool.work, kept=every))
    held = HeldOut(step.words, step.fewest_words)
    places: list[Mapping[str, Any]] = []
    for position, said in rows.each_said(every):
        held.add(_turns(said, shared))
        places.append({"source": names[rows.source[position]], "line": rows.line[position]})
    held.finish()
    return held, places, shared


def _turns(said: Sequence[Said], shared: Shared) -> list[Compared]:
    """Return the turns of a row as they are compared."""
    compared = [turn for turn in said if turn.role not in _NOT_COMPARED]
    alone = len(compared) == 1  # a text, or a prompt: all of it asks
    return [_compared(turn, shared, alone or turn.role == "user") for turn in compared]


def _compared(said: Said, shared: Shared, asks: bool) -> Compared:
    if not shared.parts:
        words = normal_words(said.text)[1]
        return Compared(asks, words, [words])
    turn = Turn.of(said)
    return Compared(asks, turn.words, shared.runs(turn))


def _drop(overlap: Overlap, place: Mapping[str, Any]) -> Drop:
    text = overlap.words.decode("utf-8", "replace")
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    if overlap.whole:
        reason, keep = f'contains the held-out {overlap.whole} "{shown}"', _KEEP
        return Drop(f"held_out_{overlap.whole}", reason, keep, overlap.share, place)
    count = overlap.words.count(b" ") + 1
    reason, keep = f'shares "{shown}" with a held-out row', f"raise words above {count}"
    return Drop("held_out_words", reason, keep, overlap.share, place)
