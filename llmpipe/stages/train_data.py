"""Bring a stage's rows into the one file that Axolotl reads, and say how it is to read them.

The copy holds only the columns that training needs: a column such as ``provenance``, whose shape
differs from row to row, would make the data set library refuse the file. It is written the same
way every time, and a folder made by ``llmpipe compile`` carries it.

Covers llmpipe's four row formats, preference pairs (``rl: dpo``, ``ipo``, ``simpo``) and rows for
a reward model. The rows' values are Axolotl's to check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl_config import DataFile
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats import FORMATS, detect
from llmpipe.formats.records import read_rows, write_rows

Row = Mapping[str, Any]

PREFERENCE = ("dpo", "ipo", "simpo")
"""The values of Axolotl's ``rl`` that train on pairs of a chosen and a rejected answer."""

PROMPT_COLUMNS = ("messages", "prompt", "question", "instruction", "input")
"""Where the question of a preference row is looked for, in this order."""

LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "messages": {"type": "chat_template", "field_messages": "messages"},
    "sharegpt": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
    },
    "alpaca": {"type": "alpaca"},
    "alpaca with system": {"type": "alpaca_w_system.load"},
    "completion": {"type": "completion", "field": "text"},
    "preference": {"type": "chat_template.default"},
    "reward": {"type": "bradley_terry.chat_template"},
}
"""How Axolotl reads each kind of row: the keys of its ``datasets`` entry."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "tools"),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "input", "output"),
    "alpaca with system": ("system", "instruction", "input", "output"),
    "completion": ("text",),
    "reward": ("system", "input", "chosen", "rejected"),
}


def prepare(artifact: Artifact, target: Path, block: Mapping[str, Any], path: str) -> DataFile:
    """Write the rows of ``artifact`` to ``target`` and describe them under the name ``path``.

    Raises:
        StageError: there are no rows, or a row is not of the kind that the first one is.
    """
    kind, count = _kind_of_all(artifact, _classifier(block))
    layout = dict(LAYOUTS[kind])
    if kind == "preference":
        first = next(read_rows(artifact.path, artifact.label))[1]
        layout["field_messages"] = _prompt_column(first)
    rows = (row for _, row in read_rows(artifact.path, artifact.label))
    write_rows(target, (_trimmed(row, kind) for row in rows))
    return DataFile(path, layout, count)


def _kind_of_all(artifact: Artifact, kind_of: Callable[[Row, str], str]) -> tuple[str, int]:
    """Give the one kind that all rows are of, and how many rows there are."""
    first, first_line, count = "", 0, 0
    for line, row in read_rows(artifact.path, artifact.label):
        count += 1
        kind = kind_of(row, f"{artifact.label}:{line}")
        if not first:
            first, first_line = kind, line
        if {first, kind} == {"alpaca", "alpaca with system"}:
            first = kind = "alpaca with system"
        if kind != first:
            raise StageError(
                f"{artifact.label}:{line}: a row of the kind {kind}, "
                f"but the row of line {first_line} is of the kind {first}",
                hint="bring all rows into one format with a stage of kind format",
            )
    if not count:
        raise StageError(f"{artifact.label} has no rows to train on")
    return first, count


def _classifier(block: Mapping[str, Any]) -> Callable[[Row, str], str]:
    if block.get("reward_model"):
        return _reward_kind
    if block.get("rl") in PREFERENCE:
        return _preference_kind
    return _chat_kind


def _chat_kind(row: Row, place: str) -> str:
    name = detect(row)
    if name is None:
        raise StageError(
            f"{place}: the columns {', '.join(sorted(row)) or '(none)'} fit no format",
            hint=f"known formats: {', '.join(FORMATS)}; a stage of kind format writes them",
        )
    return "alpaca with system" if name == "alpaca" and row.get("system") else name


def _preference_kind(row: Row, place: str) -> str:
    if not row.get("chosen") or not row.get("rejected") or not _prompt_column(row):
        raise StageError(
            f"{place}: a preference row needs chosen, rejected and the question",
            hint="messages (or prompt), chosen and rejected; the answers as text or as "
            "{role: assistant, content: …}",
        )
    return "preference"


def _reward_kind(row: Row, place: str) -> str:
    missing = [column for column in ("input", "chosen", "rejected") if not row.get(column)]
    if missing:
        raise StageError(
            f"{place}: a row for a reward model needs {missing[0]}",
            hint="input, chosen and rejected as text; system may be left out",
        )
    return "reward"


def _prompt_column(row: Row) -> str:
    return next((column for column in PROMPT_COLUMNS if row.get(column)), "")


def _trimmed(row: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "preference":
        columns: tuple[str, ...] = (*PROMPT_COLUMNS, "chosen", "rejected")
    else:
        columns = COLUMNS[kind]
    if kind in ("reward", "alpaca with system"):
        row = {"system": "", **row}  # Axolotl fails on a row without it
    return {column: row[column] for column in columns if column in row}
