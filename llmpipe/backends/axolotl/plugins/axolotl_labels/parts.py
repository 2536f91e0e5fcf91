"""Find what a chat template leaves out of rows: system texts, tools, tool calls, reasoning.

A template writes what it knows and drops the rest without an error. Small chats with a word that no
template writes show what it drops; rows that have such a part are counted. Parts that a template
refuses (it raises) are not looked at: they stop the run where a row has them.

Read are the Parquet files that llmpipe writes, whose columns hold turns as JSON texts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Turns = list[dict[str, Any]]

WORD = "quokka"
"""What is said in the part that is tried: a word that no template writes."""

COLUMNS = ("messages", "prompt", "chosen", "rejected", "completion", "tools")
"""The columns that may hold turns, or tools, as JSON texts."""

_ASK: dict[str, Any] = {"role": "user", "content": "wombat"}
_ANSWER: dict[str, Any] = {"role": "assistant", "content": "bilby"}
_SCHEMA = {"type": "object", "properties": {}}
_TOOL = {"type": "function", "function": {"name": WORD, "description": "", "parameters": _SCHEMA}}


def _call(name: str) -> dict[str, Any]:
    function = {"name": name, "arguments": {}}
    return {**_ANSWER, "tool_calls": [{"id": WORD, "type": "function", "function": function}]}


_TRIES: Mapping[str, tuple[Turns, list[Any] | None]] = {
    "system texts": ([{"role": "system", "content": WORD}, _ASK, _ANSWER], None),
    "tools": ([_ASK, _ANSWER], [_TOOL]),
    "tool calls": ([_ASK, _call(WORD)], None),
    "results of tools": (
        [_ASK, _call("f"), {"role": "tool", "content": WORD, "tool_call_id": "bilby"}, _ANSWER],
        None,
    ),
    "reasoning": ([_ASK, {**_ANSWER, "reasoning_content": WORD}], None),
    "names of speakers": ([{**_ASK, "name": WORD}, _ANSWER], None),
}
"""Each part of a row with a chat that has it, and with the tools that go with the chat."""


def dropped_by(render: Callable[[Turns, list[Any] | None], str], thinking: str) -> list[str]:
    """Return the parts that a template leaves out.

    Args:
        render: Writes a chat and tools as text; may raise anything.
        thinking: The key of a turn's reasoning that the template is given.
    """
    return [
        part
        for part, (turns, tools) in _TRIES.items()
        if not _writes(render, _renamed(turns, thinking), tools)
    ]


def count_parts(
    file: Path, wanted: Sequence[str], *, thinking: str = "reasoning_content", split: bool = False
) -> Iterator[tuple[str, int, int]]:
    """Yield each wanted part that rows of a Parquet file have: rows, and the first of them from 1.

    Args:
        file: The Parquet file.
        wanted: Names of parts.
        thinking: The key of a turn's reasoning in the rows.
        split: Whether reasoning between ``<think>`` tags is taken out of the texts of answers.
    """
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for number, row in enumerate(_rows(file), 1):
        for part in _parts_of(row, thinking, split=split).intersection(wanted):
            counts[part] += 1
            first.setdefault(part, number)
    for part in wanted:
        if part in counts:
            yield part, counts[part], first[part]


def _writes(
    render: Callable[[Turns, list[Any] | None], str], turns: Turns, tools: list[Any] | None
) -> bool:
    """Return whether the word is in what is rendered; also where the template refuses the chat."""
    try:
        return WORD in render(turns, tools)
    except Exception:  # a template raises whatever it likes
        return True


def _renamed(turns: Turns, thinking: str) -> Turns:
    return [
        {thinking if key == "reasoning_content" else key: value for key, value in turn.items()}
        for turn in turns
    ]


def _rows(file: Path) -> Iterator[Mapping[str, str | None]]:
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    names = [name for name in COLUMNS if name in opened.schema_arrow.names]
    for batch in opened.iter_batches(batch_size=1_000, columns=names):
        yield from batch.to_pylist()


def _parts_of(row: Mapping[str, str | None], thinking: str, *, split: bool) -> set[str]:
    found: set[str] = set()
    for column, text in row.items():
        if not isinstance(text, str):
            continue
        try:
            value = json.loads(text)
        except ValueError:  # text of another kind of row
            continue
        if column == "tools":
            found |= {"tools"} if value else set()
            continue
        for turn in value if isinstance(value, list) else [value]:
            if isinstance(turn, dict):
                found |= set(_parts_in(turn, thinking, split=split))
    return found


def _parts_in(turn: Mapping[str, Any], thinking: str, *, split: bool) -> Iterator[str]:
    if turn.get("role") == "system":
        yield "system texts"
    if turn.get("role") == "tool":
        yield "results of tools"
    if turn.get("tool_calls"):
        yield "tool calls"
    if turn.get(thinking) or (split and "<think>" in str(turn.get("content"))):
        yield "reasoning"
    if turn.get("name"):
        yield "names of speakers"
