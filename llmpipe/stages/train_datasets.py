"""The ``datasets`` of an Axolotl file that someone already has: where each finds its rows.

An entry may name a file, a folder, a data set of the hub or an address. `place_of` tells them apart
as Axolotl does, `dataset_problems` reports what is missing, and rows that lack the columns of the
entry's type. A stage does not need this: its rows are llmpipe's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.config import BlockProblem, KeyPath
from llmpipe.errors import StageError
from llmpipe.formats.records import read_rows
from llmpipe.paths import expanded, is_path
from llmpipe.stages.train_entry import ALPACA_TYPES

LISTS = ("datasets", "test_datasets")
"""Axolotl's keys with a list of entries."""

BUILDERS = ("json", "csv", "parquet", "arrow", "text")
"""Names in ``path`` that mean the format of ``data_files``."""

ROW_FILES = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather"),
    *(".jsonl.gz", ".ndjson.gz", ".json.gz", ".csv.gz", ".tsv.gz"),
)
"""The endings of files of rows that llmpipe reads."""

_FILE_LIKE = re.compile(
    r"\.(arrow|csv|feather|jsonl?|ndjson|parquet|tsv|txt)(\.gz)?$", re.IGNORECASE
)
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of an entry are: one of the four."""

    files: tuple[Path, ...] = ()
    """Files on this machine."""
    hub: str | None = None
    """A data set of the hub."""
    address: str | None = None
    """A place on the web or in a cloud."""
    missing: str | None = None
    """A file that does not exist."""


def entries_of(block: Mapping[str, Any], key: str) -> list[tuple[KeyPath, dict[str, Any]]]:
    """Return the entries under one of `LISTS`, each with its path."""
    listed = block.get(key)
    listed = listed if isinstance(listed, list) else [listed]
    return [((key, i), dict(entry)) for i, entry in enumerate(listed) if isinstance(entry, Mapping)]


def place_of(entry: Mapping[str, Any], folders: Sequence[Path]) -> Place:
    """Return where an entry's rows are; a relative path is tried in each of the folders."""
    path, named = str(entry.get("path") or ""), entry.get("data_files")
    texts = [str(text) for text in (named if isinstance(named, list) else [named] if named else [])]
    here = found_in(path, folders)
    if texts and (path in BUILDERS or (here is not None and here.is_dir())):
        found = {text: found_in(text, folders) for text in texts}
        missing = next((text for text, file in found.items() if file is None), None)
        return Place(missing=missing) if missing else Place(tuple(filter(None, found.values())))
    if here is not None:
        return Place(_row_files(here) if here.is_dir() else (here,))
    if "://" in path:
        return Place(address=path)
    if is_path(path) or _FILE_LIKE.search(path) or path.count("/") > 1:
        return Place(missing=path)
    return Place(hub=path) if _HUB.fullmatch(path) else Place(missing=path)


def dataset_problems(block: Mapping[str, Any], folders: Sequence[Path]) -> Iterator[BlockProblem]:
    """Yield the files that do not exist, and rows that lack the columns of their entry's type."""
    for key in LISTS:
        for where, entry in entries_of(block, key):
            if not isinstance(entry.get("path"), str):
                continue
            place = place_of(entry, folders)
            if place.missing:
                at = "path" if place.missing == entry["path"] else "data_files"
                message = f"no such file or folder: {place.missing}"
                hint = "it is relative to the folder that Axolotl is started in; a data set of the "
                yield BlockProblem((*where, at), message, f"{hint}hub is written as org/name")
            readable = [file for file in place.files if file.name.lower().endswith(ROW_FILES)]
            if readable and not block.get("rl") and not block.get("reward_model"):
                yield from _column_problems(where, entry, readable[0])


def turn_keys(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return the keys of a turn with its speaker and its text, by Axolotl's names for them."""
    named = entry.get("message_property_mappings")
    named = named if isinstance(named, Mapping) else {}
    role = named.get("role") or entry.get("message_field_role") or "role"
    content = named.get("content") or entry.get("message_field_content") or "content"
    return str(role), str(content)


def _column_problems(
    where: KeyPath, entry: Mapping[str, Any], file: Path
) -> Iterator[BlockProblem]:
    kind = str(entry.get("type") or "").partition(":")[0]
    try:
        row = next((row for _, row in read_rows(file, str(entry["path"]))), None)
    except StageError as error:
        yield BlockProblem((*where, "path"), error.message, error.hint)
        return
    if row is None:
        yield BlockProblem((*where, "path"), f"{entry['path']} has no rows to train on")
        return
    if kind == "chat_template":
        yield from _turn_problems(where, entry, row)
        return
    needed: tuple[str, ...] = ("instruction", "output") if kind in ALPACA_TYPES else ()
    needed = (str(entry.get("field") or "text"),) if kind == "completion" else needed
    for column in (name for name in needed if name not in row):
        yield BlockProblem((*where, "type"), _lacks(entry, column, row, kind))


def _turn_problems(
    where: KeyPath, entry: Mapping[str, Any], row: Mapping[str, Any]
) -> Iterator[BlockProblem]:
    column = str(entry.get("field_messages") or "messages")
    turns = row.get(column, row.get("conversations"))
    first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], Mapping) else {}
    keys = turn_keys(entry)
    known = {"role": ("role", "from"), "content": ("content", "value")}
    guess = {part: next((k for k in names if k in first), None) for part, names in known.items()}
    mapping = ", ".join(f"{part}: {key}" for part, key in guess.items() if key)
    mapped = f"message_property_mappings: {{{mapping}}}"
    if column not in row:
        hint = f"write field_messages: conversations and {mapped}" if first else None
        at = "field_messages" if entry.get("field_messages") else "type"
        yield BlockProblem((*where, at), _lacks(entry, column, row, "chat_template"), hint)
    elif first and not set(keys) <= first.keys():
        message = f"the turns of {entry['path']} have the keys {', '.join(map(str, first))}"
        yield BlockProblem(
            (*where, "type"), f"{message}, not {' and '.join(keys)}", f"write {mapped}"
        )


def _lacks(entry: Mapping[str, Any], column: str, row: Mapping[str, Any], kind: str) -> str:
    has = ", ".join(map(str, row))
    return f"type: {kind} reads the column {column!r}, but the rows of {entry['path']} have {has}"


def found_in(text: str, folders: Sequence[Path]) -> Path | None:
    """Return the first file or folder that a text names in these folders, if there is one."""
    if not text or "\0" in text or "\n" in text:
        return None
    tried = (folder / expanded(text) for folder in folders)
    try:
        return next((path for path in tried if path.exists()), None)
    except OSError:
        return None


def _row_files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(file for file in folder.iterdir() if file.name.lower().endswith(ROW_FILES)))
