"""Carry over the data sets of an Axolotl file: what a spec needs to train on the same rows.

One file of rows is read by the training itself. Several files, splits, shards, and rows to hold out
go through a stage of kind `format`, which passes rows on unchanged unless their columns have other
names. What llmpipe cannot train on in the same way is a problem, never left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.config import BlockProblem, KeyPath
from llmpipe.cli.init.data import written_path
from llmpipe.errors import StageError
from llmpipe.formats.records import read_rows
from llmpipe.formats.turn import NAMES, TRAINED_KEYS
from llmpipe.graph.sources import HUB_ID
from llmpipe.stages.format import SPLIT
from llmpipe.stages.train_datasets import (
    LISTS,
    ROW_FILES,
    Place,
    entries_of,
    place_of,
    turn_keys,
)
from llmpipe.stages.train_entry import PLACE_KEYS, TEMPLATE_KEYS, kind_of_rows

ROWS = "rows"
EVAL_ROWS = "eval_rows"

_TURN_KEYS = (("role", "from"), ("content", "value"))
_CHAT_COLUMNS = (
    *("field_messages", "message_property_mappings", "message_field_role"),
    *("message_field_content", "field_tools"),
)
_DOWNLOAD = """download it in a stage, and name that:
page: {kind: command, run: "curl -fsSL URL -o ${outputs.rows}", outputs: {rows: rows.jsonl}}"""


@dataclass(slots=True)
class Told:
    """What does not go into the spec as it stands in the file."""

    notes: list[BlockProblem] = field(default_factory=list)
    """What is replaced or left out, and trains the same, or nearly: the note says how."""
    lost: list[BlockProblem] = field(default_factory=list)
    """What would train otherwise: no spec is written."""

    def note(self, where: KeyPath, message: str) -> None:
        """Add a note."""
        self.notes.append(BlockProblem(where, message, warning=True))

    def lose(self, where: KeyPath, message: str, hint: str | None = None) -> None:
        """Add a problem."""
        self.lost.append(BlockProblem(where, message, hint))


@dataclass(frozen=True, slots=True)
class Places:
    """Where relative paths of the file start, and the folder of the spec."""

    folders: Sequence[Path]
    spec: Path

    def written(self, path: Path) -> str:
        """Return a path as the spec writes it."""
        return written_path(str(path), self.spec)


@dataclass(slots=True)
class Rows:
    """What a train stage gets: fields, the keys that move to its block, and stages before it."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: str = ""
    eval_data: str | None = None
    dataset: dict[str, Any] = field(default_factory=dict)
    block: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the file: its sources for `format`, the map of its columns, its settings."""

    where: KeyPath
    sources: list[dict[str, Any]]
    kind: str | None
    columns: dict[str, str]
    settings: dict[str, Any]
    template: dict[str, Any]


def carry_rows(file: Mapping[str, Any], places: Places, told: Told) -> Rows:
    """Return what the file's data sets become."""
    train, test = ([_read(file, w, e, places, told) for w, e in entries_of(file, k)] for k in LISTS)
    rows = Rows()
    if not train:
        told.lose(("datasets",), "the file names no data set")
        return rows
    if any(entry.columns for entry in (*train, *test)):  # then format reads all turns
        for entry in (*train, *test):
            if entry.kind == "conversation" and not entry.columns:
                _judge_roles(entry.where, entry.settings, told)
    rows.dataset, rows.block = train[0].settings, train[0].template
    for other in (*train[1:], *test):
        _compare(train[0], other, told)
    held = _held_out(file, told)
    rows.data = _place(rows, ROWS, train, held, told)
    if held and not test:
        rows.eval_data = f"{ROWS}.eval"
    elif test:
        rows.eval_data = _place(rows, EVAL_ROWS, test, None, told)
    return rows


def _read(
    file: Mapping[str, Any], where: KeyPath, entry: dict[str, Any], places: Places, told: Told
) -> _Entry:
    settings = {k: v for k, v in entry.items() if k not in PLACE_KEYS and v is not None}
    template = {k: settings.pop(k) for k in TEMPLATE_KEYS if k in settings}
    if template.get("chat_template") == "tokenizer_default":
        template.pop("chat_template")  # it is the default
    for key, value in template.items():
        if file.get(key) not in (None, value):
            told.lose((*where, key), f"differs from the file's own {key}", "keep one of them")
        elif file.get(key) is None:
            told.note((*where, key), "moves to the axolotl block: the result carries it as well")
    kind = kind_of_rows(file, settings)
    if not settings.get("type"):
        told.lose(where, "has no type", "write the type of its rows, such as type: chat_template")
    columns: dict[str, str] = {}
    if kind == "conversation":
        columns = _chat_columns(where, settings, told)
    elif kind == "text":
        named = settings.pop("field", None)
        columns = {"text": str(named)} if named not in (None, "text") else {}
    sources = list(_sources(where, entry, places, told))
    if kind == "conversation" and not settings.get("message_field_training"):
        _judge_marks(where, entry, places, told)
    return _Entry(where, sources, kind, columns, settings, template)


def _chat_columns(where: KeyPath, settings: dict[str, Any], told: Told) -> dict[str, str]:
    """Take the keys that name columns out of the settings; return the `map` that replaces them."""
    named = {key: settings.pop(key) for key in _CHAT_COLUMNS if key in settings}
    column = str(named.get("field_messages") or "messages")
    tools = str(named.get("field_tools") or "tools")
    properties = named.get("message_property_mappings")
    for name, key in (properties if isinstance(properties, Mapping) else {}).items():
        if name not in ("role", "content") and name != key:
            told.lose(
                (*where, "message_property_mappings", name),
                f"llmpipe reads {name} of a turn under its own name only",
                f"rename {key} to {name} in the rows",
            )
    keys = dict(zip(("role", "content"), turn_keys(named), strict=True))
    other = {
        part: key
        for (part, key), known in zip(keys.items(), _TURN_KEYS, strict=True)
        if key not in known
    }
    if not other and tools == "tools" and column in ("messages", "conversations"):
        return {}
    _judge_roles(where, settings, told)
    return {"messages": column, **({"tools": tools} if tools != "tools" else {}), **other}


def _judge_marks(where: KeyPath, entry: Mapping[str, Any], places: Places, told: Told) -> None:
    """Require that no turn says whether it is trained on: llmpipe reads that, Axolotl would not."""
    column = str(entry.get("field_messages") or "messages")
    for file in place_of(entry, places.folders).files:
        with contextlib.suppress(StageError):  # told where the rows are counted or trained on
            for line, key in _marks(file, column):
                message = (
                    f"{file.name}:{line}: a turn has {key!r}, which Axolotl does not read here"
                )
                hint = (
                    f"llmpipe reads it: write message_field_training: {key}, or remove {key} from "
                    "the turns"
                )
                told.lose(where, message, hint)
                return


def _marks(file: Path, column: str) -> Iterator[tuple[int, str]]:
    """Yield the turns of a file that say whether they are trained on: a line and the key."""
    if not file.name.lower().endswith(ROW_FILES):
        return
    for line, row in read_rows(file, file.name):
        turns = row.get(column)
        for turn in turns if isinstance(turns, list) else []:
            if isinstance(turn, dict):
                yield from ((line, key) for key in TRAINED_KEYS if turn.get(key) is not None)


def _judge_roles(where: KeyPath, settings: dict[str, Any], told: Told) -> None:
    """Settings that a `format` stage takes care of, once it reads the turns."""
    roles = settings.pop("roles", None)
    for role, names in (roles if isinstance(roles, Mapping) else {}).items():
        for name in names if isinstance(names, list) else [names]:
            if NAMES.get(str(name)) != role:
                message = f"llmpipe's format knows no speaker {name!r}"
                told.lose((*where, "roles", role), message, "rename the speakers in the rows")
    if key := settings.get("message_field_training"):
        settings["message_field_training"] = "weight"
        if key not in ("weight", "train", "training", "trained"):
            hint = "call the key weight, train, training or trained in the rows"
            told.lose((*where, "message_field_training"), f"format does not read {key!r}", hint)


def _sources(
    where: KeyPath, entry: Mapping[str, Any], places: Places, told: Told
) -> Iterator[dict[str, Any]]:
    """Yield the sources of an entry, as `format` names them."""
    place = place_of(entry, places.folders)
    for key in ("trust_remote_code", "preprocess_shards"):
        if entry.get(key):
            told.note((*where, key), "is left out: it does not change the rows")
    if place.missing:
        told.lose((*where, "path"), f"no such file or folder: {place.missing}")
    elif place.address:
        told.lose((*where, "path"), f"llmpipe reads no rows from {place.address}", _DOWNLOAD)
    elif place.hub:
        yield from _hub_sources(where, entry, place.hub, told)
    else:
        yield from _file_sources(where, entry, place, places, told)


def _hub_sources(
    where: KeyPath, entry: Mapping[str, Any], path: str, told: Told
) -> Iterator[dict[str, Any]]:
    data = f"{path}@{entry['revision']}" if entry.get("revision") else path
    if not HUB_ID.fullmatch(data):
        told.lose((*where, "path"), f"{path} is not written as org/name", "write its full id")
        return
    split = entry.get("split")
    if split and not SPLIT.fullmatch(str(split)):
        hint = "write the first rows of a split: train[:1000]"
        told.lose((*where, "split"), f"llmpipe takes no part {split!r}", hint)
    for key in ("data_files", "shards"):
        if entry.get(key):
            hint = "write split: train[:1000]" if key == "shards" else _DOWNLOAD
            told.lose((*where, key), "is not supported for data sets of the hub", hint)
    name = entry.get("name")
    if not split:
        message = f"names no split: Axolotl takes train; write split: train if {path} has others"
        told.note(where, message)
    chosen = {"split": str(split)} if split else {}
    yield {"data": data, **chosen, **({"subset": str(name)} if name else {})}


def _file_sources(
    where: KeyPath, entry: Mapping[str, Any], place: Place, places: Places, told: Told
) -> Iterator[dict[str, Any]]:
    if len(place.files) != 1 and not entry.get("data_files"):
        message = f"{entry['path']} is a folder with {len(place.files)} files of rows"
        told.lose((*where, "path"), message, "name one file, or several entries")
        return
    if entry.get("split") not in (None, "train"):
        message = f"llmpipe takes all rows of a file, not {entry['split']!r}"
        told.lose((*where, "split"), message, "write these rows to a file of their own")
    for file in place.files:
        if not file.name.lower().endswith(ROW_FILES):
            told.lose((*where, "path"), f"llmpipe reads no rows from {file.name}", _readable())
            continue
        sample = _sample(where, entry, file, told)
        yield {"data": places.written(file), **({"sample": sample} if sample else {})}


def _readable() -> str:
    return f"write them as one of {', '.join(ROW_FILES)}"


def _sample(where: KeyPath, entry: Mapping[str, Any], file: Path, told: Told) -> int | None:
    """Return how many rows are in one of several shards, if the entry asks for one."""
    shards = entry.get("shards")
    if not isinstance(shards, int) or shards < 2:
        return None
    try:
        count = sum(1 for _ in read_rows(file, file.name))
    except StageError as error:
        told.lose((*where, "path"), error.message, error.hint)
        return None
    index = entry.get("shards_idx") or 0
    sample = count // shards + (int(index) < count % shards)
    told.note(
        (*where, "shards"), f"becomes sample: {sample}, as many of its {count:,} rows; others"
    )
    return max(1, sample)


def _compare(first: _Entry, other: _Entry, told: Told) -> None:
    """Require that two entries' rows can be trained on as one kind."""
    mine, yours = ({**entry.settings, **entry.template} for entry in (first, other))
    differing = [key for key in {**mine, **yours} if mine.get(key) != yours.get(key)]
    if differing:
        key = differing[0]
        message = (
            f"{key}: {yours.get(key)} differs from that of the first data set ({mine.get(key)})"
        )
        hint = "a stage trains on rows of one kind; convert them, or train in two stages"
        at = (*other.where, key) if key in yours else other.where
        told.lose(at, message, hint)


def _held_out(file: Mapping[str, Any], told: Told) -> dict[str, Any] | None:
    """Return the `split` of a `format` stage that holds out as many rows as ``val_set_size``."""
    size = file.get("val_set_size")
    try:
        share = float(size or 0)
    except (TypeError, ValueError):
        told.lose(("val_set_size",), f"{size!r} is not a number")
        return None
    if share <= 0:
        return None
    told.note(
        ("val_set_size",),
        "the same share is held out by a format stage: other rows, and rows that ask the same are "
        "kept together",
    )
    seed = file.get("seed")
    seed = seed if isinstance(seed, int) else 42  # Axolotl's default
    return {"eval": int(share) if share > 1 else share, "random_seed": seed}


def _place(
    rows: Rows, name: str, entries: Sequence[_Entry], held: dict[str, Any] | None, told: Told
) -> str:
    """Return the reference to the entries' rows; add the stage that makes one set of them."""
    sources = [
        {**source, **({"map": entry.columns} if entry.columns else {})}
        for entry in entries
        for source in entry.sources
    ]
    if not sources:
        return ""  # said already
    if len(sources) == 1 and sources[0].keys() == {"data"} and not held:
        return str(sources[0]["data"])
    to = "unchanged"
    if any(entry.columns for entry in entries):
        to = "completion" if entries[0].kind == "text" else "messages"
    single = len(sources) == 1 and sources[0].keys() <= {"data", "map"}
    stage: dict[str, Any] = {
        "kind": "format",
        **(sources[0] if single else {"sources": sources}),
        "to": to,
        **({"split": held} if held else {}),
        "dedup": False,
        "max_rejects": 0,
    }
    rows.stages[name] = stage
    return name
