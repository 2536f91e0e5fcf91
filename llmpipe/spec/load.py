"""Read YAML into a tree in which every value knows its line and column.

Scalars follow YAML 1.2's core schema (``5e-4`` is a number, ``no`` is a text). The tree is built
from the events of the C parser, so that duplicate keys, unknown tags and bombs (aliases, merge
keys, nesting) are refused before they cost anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import yaml

from llmpipe.errors import Location, Problem, SpecError
from llmpipe.spec.yaml_errors import explain

MAX_BYTES = 2 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 100_000

Scalar = str | int | float | bool | None
Value = Union[Scalar, "dict[str, Node]", "list[Node]"]

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_INT = re.compile(r"[-+]?[0-9]+")
_OCT = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Source:
    """A file that values come from: its name in messages, and its lines."""

    name: str
    lines: tuple[str, ...] = ()

    def at(self, line: int, column: int, length: int = 1) -> Location:
        """Return the location of a place in this file; both numbers count from 1."""
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        room = len(text) - column + 1
        return Location(self.name, line, column, text, max(1, min(length, room)))


@dataclass(slots=True)
class Node:
    """A value of the tree (a scalar, a dict of nodes or a list of nodes) and its place.

    For a mapping, ``keys`` holds the location of each key. ``size`` counts the values below, each
    alias as often as it is used. Aliases share nodes, which are never changed once built.
    """

    value: Value
    location: Location
    keys: dict[str, Location] = field(default_factory=dict)
    size: int = 1

    def plain(self) -> Any:
        """Return the value as plain Python data."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def find(self, path: tuple[str | int, ...]) -> Node | None:
        """Return the node at ``path`` below this one, or None."""
        node: Node = self
        for step in path:
            if isinstance(node.value, dict) and str(step) in node.value:
                node = node.value[str(step)]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
            else:
                return None
        return node

    def children(self) -> dict[str, Node]:
        """Return the entries of a mapping, or an empty dict for any other value."""
        return self.value if isinstance(self.value, dict) else {}

    def without(self, key: str) -> Node:
        """Return this mapping without one key."""
        assert isinstance(self.value, dict)
        value = {name: child for name, child in self.value.items() if name != key}
        return Node(value, self.location, self.keys, self.size)

    def replace(self, path: tuple[str, ...], leaf: Node, key: Location) -> Node:
        """Return this mapping with another value at a path; missing mappings are created.

        ``key`` is the location of the created keys.
        """
        if not path:
            return leaf
        below = self.value if isinstance(self.value, dict) else {}
        step, rest = path[0], path[1:]
        child = below.get(step) or Node({}, leaf.location)
        keys = {step: key, **self.keys}
        size = self.size + leaf.size
        return Node({**below, step: child.replace(rest, leaf, key)}, self.location, keys, size)

    def locate(self, path: tuple[str | int, ...], *, key: bool = False) -> Location:
        """Return the place of the value (or ``key``) at ``path``, or of the nearest one."""
        node, best = self, self.location
        for i, step in enumerate(path):
            child = node.find((step,))
            if child is None:
                return best
            last = i == len(path) - 1
            best = (
                node.keys[str(step)] if (key or not last) and step in node.keys else child.location
            )
            node = child
        return best


def load_file(path: Path) -> Node:
    """Read a YAML file.

    Raises:
        SpecError: The file cannot be read, is not UTF-8, is empty, or is not one YAML mapping.
    """
    return load_bytes(read_bytes(path), str(path))


def place_in(file: Path, path: tuple[str | int, ...]) -> Location:
    """Return the place of a key in a YAML file, or of the whole file if it is not valid for a spec.

    Other programs' files may use tags, for example; that is not a reason to refuse them here.
    """
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    try:
        return load_file(shown).locate(path, key=True)
    except SpecError:
        return Location(str(shown), 0, 0)


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file that may be a spec.

    Raises:
        SpecError: The file cannot be read, or is too large for a spec.
    """
    name = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _error(Location(name, 0, 0), "no such file") from None
    except OSError as error:
        raise _error(Location(name, 0, 0), f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise _error(Location(name, 0, 0), f"larger than {MAX_BYTES // 2**20} MiB: not a spec")
    return raw


def load_bytes(raw: bytes, name: str) -> Node:
    """Read the bytes of a YAML file; see `load_text`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _error(Location(name, line, 1), "not UTF-8 text") from None
    return load_text(text, name)


def load_text(text: str, name: str = "<text>") -> Node:
    """Read YAML text that is a mapping. ``name`` is the name of the file in messages."""
    node = parse_value(text, Source(name, tuple(text.split("\n"))))
    if node is None:
        raise _error(
            Location(name, 1, 1),
            "the file is empty",
            "a spec begins with `version: 1` and `stages:`",
        )
    if not isinstance(node.value, dict):
        kind = "a list" if isinstance(node.value, list) else "a single value"
        raise _error(node.location, f"the top must be a mapping, not {kind}")
    return node


def parse_value(text: str, source: Source) -> Node | None:
    """Read one YAML value of any kind; return None if there is none."""
    builder = _Builder(source)
    try:
        return builder.document(iter(yaml.CSafeLoader(text).get_event, None))
    except yaml.MarkedYAMLError as error:
        line, column, length, problem, hint = explain(text, error)
        where = source.at(line, column, length)
        raise _error(where, f"not valid YAML: {problem}", hint) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _error(source.at(line, 1), f"not valid YAML: {error.reason}") from None
    except RecursionError:
        raise _error(source.at(1, 1), f"nested deeper than {MAX_DEPTH} levels") from None


def parse_scalar(text: str) -> Scalar:
    """Resolve a plain scalar by YAML 1.2's core schema.

    Raises:
        ValueError: It is infinite or not a number, which a cache key cannot hold.
    """
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) > 300:  # too long for a number; int() refuses it
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _OCT.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ValueError(text)
        return number
    if _SPECIAL_FLOAT.fullmatch(text):
        raise ValueError(text)
    return text


class _Builder:
    """Builds nodes from the parser's events."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.anchors: dict[str, Node] = {}

    def document(self, events: Iterator[Any]) -> Node | None:
        node = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if node is not None:
                    raise _error(self._at(event), "one document per file, not several")
                node = self._node(next(events), events, 0)
        if node is not None and node.value is None and node.location.text.strip() in ("", "---"):
            return None
        return node

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise _error(self._at(event), f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _error(
                    self._at(event), f"no anchor &{event.anchor} is defined above this alias"
                )
            return self.anchors[event.anchor]
        elif isinstance(event, yaml.MappingStartEvent):
            self._no_tag(event, "tag:yaml.org,2002:map")
            node = self._mapping(event, events, depth)
        else:
            self._no_tag(event, "tag:yaml.org,2002:seq")
            node = self._sequence(event, events, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _scalar(self, event: Any) -> Node:
        self._no_tag(event, "tag:yaml.org,2002:str")
        where = self._at(event)
        if event.style or event.tag:
            return Node(event.value, where)
        try:
            return Node(parse_scalar(event.value), where)
        except ValueError:
            raise _error(where, f"{event.value} is not a number that can be used here") from None

    def _sequence(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        items: list[Node] = []
        size = 1
        for child in events:
            if isinstance(child, yaml.SequenceEndEvent):
                break
            items.append(self._node(child, events, depth + 1))
            size = self._grow(size, items[-1])
        return Node(items, self._at(event), size=size)

    def _mapping(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        entries: dict[str, Node] = {}
        keys: dict[str, Location] = {}
        merges: list[Node] = []
        size = 1
        for key_event in events:
            if isinstance(key_event, yaml.MappingEndEvent):
                break
            where = self._at(key_event)
            if not isinstance(key_event, yaml.ScalarEvent):
                raise _error(where, "a key must be a word, not a list, a mapping or an alias")
            key = key_event.value
            child = self._node(next(events), events, depth + 1)
            size = self._grow(size, child)
            if key == "<<" and not key_event.style:
                merges.append(child)
                continue
            if key in entries:
                raise _error(
                    where, f"the key {key!r} appears twice", f"first at line {keys[key].line}"
                )
            entries[key], keys[key] = child, where
        for merge in merges:
            size = self._merge(merge, entries, keys, size)
        return Node(entries, self._at(event), keys, size)

    def _merge(
        self, merge: Node, entries: dict[str, Node], keys: dict[str, Location], size: int
    ) -> int:
        parts = merge.value if isinstance(merge.value, list) else [merge]
        for part in parts:
            if not isinstance(part.value, dict):
                raise _error(
                    part.location, "a merge key `<<` takes a mapping or a list of mappings"
                )
            for key, child in part.value.items():
                if key not in entries:
                    entries[key], keys[key] = child, part.keys[key]
                    size = self._grow(size, child)
        return size

    def _grow(self, size: int, child: Node) -> int:
        size += child.size
        if size > MAX_VALUES:
            raise _error(
                child.location,
                f"aliases and merge keys expand to more than {MAX_VALUES:,} values: "
                "an alias bomb, or not a spec",
            )
        return size

    def _no_tag(self, event: Any, allowed: str) -> None:
        if event.tag and event.tag not in (allowed, "!"):
            raise _error(self._at(event), f"the tag {event.tag} is not allowed in a spec")

    def _at(self, event: Any) -> Location:
        start, end = event.start_mark, event.end_mark
        length = end.column - start.column if end.line == start.line else 1
        return self.source.at(start.line + 1, start.column + 1, length)


def _error(where: Location, message: str, hint: str | None = None) -> SpecError:
    return SpecError([Problem(message, where, hint)])
