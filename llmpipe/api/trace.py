"""Trace a row: what it was made from, which stages kept or dropped it, and which models it is in.

Rows are told apart by the ids of `llmpipe.formats.provenance`. Every artifact with rows is read
once, row by row, and so are the files that stages read. Only what is found is held, and of that
only so much as `MOST` says. Not covered: the prompts and replies of a generation, which its journal
keeps without the ids of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.api.rows import FILES
from llmpipe.api.selection import find_output, find_stage
from llmpipe.api.stored import Stored
from llmpipe.api.trace_models import REJECTS, ModelUse, is_made, trained_models
from llmpipe.contracts import ArtifactType
from llmpipe.errors import LlmpipeError, UsageError
from llmpipe.formats.bad_line import BadLine
from llmpipe.formats.provenance import PROVENANCE, Provenance, read_provenance, row_id
from llmpipe.formats.records import read_rows, to_json
from llmpipe.formats.row import RowError
from llmpipe.graph.model import Graph
from llmpipe.graph.sources import LocalPath, Source, StageOutput

MOST = 20
"""Rows of one relation that are listed for each artifact; more are only counted."""

EXCERPT = 100
"""Characters of a row that are shown."""

SHORTEST = 4
"""Characters of an id that must be given."""

LONGEST_ID = 64
"""Characters of what was given for an id that messages show."""

MOST_DIGITS = 10
"""Digits of the number of a line; a longer row of digits begins an id."""

NAMED = frozenset({"documents", "chunks", "embeddings"})
"""The types of artifacts whose rows have an id of their own."""

PASSES_ROWS_ON = frozenset({"format", "curate"})
"""The kinds in whose outputs a row keeps its id."""


@dataclass(frozen=True, slots=True)
class Place:
    """A row in an artifact, or in a file that a stage reads.

    Attributes:
        artifact: the artifact or file.
        line: its line there, from 1.
        id: its id; None for what a generation rejected before it became a row.
        text: the beginning of the row, as JSON.
        made: how it was made: method, operators, teacher; empty for a person's own row.
        rejected: why it was dropped: rule, reason, score, how to keep it; None if it was not.
    """

    artifact: str
    line: int
    id: str | None
    text: str
    made: Mapping[str, Any] = field(default_factory=dict)
    rejected: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Related:
    """Rows with one relation to the traced one: how many each artifact has, and the first ones."""

    counts: dict[str, int] = field(default_factory=dict)
    first: list[Place] = field(default_factory=list)

    def add(self, place: Place) -> None:
        """Count a row, and keep it if it is among the first of its artifact."""
        count = self.counts[place.artifact] = self.counts.get(place.artifact, 0) + 1
        if count <= MOST:
            self.first.append(place)


@dataclass(slots=True)
class Trace:
    """The way of a row through a pipeline.

    Attributes:
        row: the row as it was asked for.
        parents: the ids of all rows that it descends from.
        places: all places where it lies, rejects included.
        made_from: the rows that it descends from.
        made_of_it: the rows that descend from it.
        models: the models that train on it, or on rows that descend from it.
        notes: what was not searched, and what was not found.
    """

    row: Place
    parents: list[str]
    places: Related = field(default_factory=Related)
    made_from: Related = field(default_factory=Related)
    made_of_it: Related = field(default_factory=Related)
    models: list[ModelUse] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Read:
    """A row as it was read; ``row`` is None for what never became one."""

    place: Place
    made: Provenance
    row: Mapping[str, Any] | None

    def begins_with(self, start: str) -> bool:
        """Return whether its id, or that of its content as it is now, begins so."""
        own = self.place.id
        if own is None or self.row is None:
            return False
        return own.startswith(start) or row_id(self.row).startswith(start)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows to search: an artifact in the store, or a file."""

    source: Source
    label: str
    path: Path
    type: ArtifactType

    def read(self, notes: list[str]) -> Iterator[_Read]:
        """Yield every row; note what is not a row."""
        bad: Counter[str] = Counter()

        def count(line: BadLine) -> None:
            bad[line.error.reason or "not a row"] += 1

        for line, row in read_rows(self.path, self.label, bad=count):
            try:
                yield self._read(line, row)
            except RowError as error:
                bad[error.reason or error.message] += 1
        for reason, number in bad.items():
            lines = "line" if number == 1 else "lines"
            notes.append(f"{self.label}: {number} {lines} cannot be traced ({reason})")

    def _read(self, line: int, row: Mapping[str, Any]) -> _Read:
        rejected = None
        rejects = isinstance(self.source, StageOutput) and self.source.output == REJECTS
        if rejects and "reason" in row:
            rejected = {k: v for k, v in row.items() if k not in ("row", "text") and v is not None}
            if not isinstance(row.get("row"), Mapping):
                told = rejected.pop("parents", None)
                parents = tuple(map(str, told)) if isinstance(told, list) else ()
                text = row.get("row", row.get("text", ""))
                place = Place(self.label, line, None, _excerpt(text), {}, rejected)
                return _Read(place, Provenance("", parents), None)
            row = row["row"]
        if self.type in NAMED and isinstance(row.get("id"), str):
            made = Provenance(row["id"])
        else:
            made = read_provenance(row)
        place = Place(self.label, line, made.id, _excerpt(row), made.details, rejected)
        return _Read(place, made, row)


def trace_row(stored: Stored, artifact: str, wanted: int | str) -> Trace:
    """Return the way of a row; see `Pipeline.trace`."""
    found = _find(stored, artifact, wanted)
    search = _Search(Trace(found.place, list(found.made.parents)))
    trace = search.trace
    for rows in _all_rows(stored, trace.notes):
        try:
            for each in rows.read(trace.notes):
                search.add(rows.source, each)
        except LlmpipeError as error:
            trace.notes.append(f"not searched to its end: {error.message}")
    if found.place.id is None:
        trace.places.add(found.place)
    search.note_parents()
    trace.notes += _left_out(stored, search.lies)
    trace.models = trained_models(stored, search.lies, search.descend)
    return trace


class _Search:
    """Collects the rows that are the traced one, or related to it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.lies: dict[Source, None] = {}
        """Where the row lies, in the order of the graph."""
        self.descend: dict[Source, None] = {}
        """Where rows lie that descend from it."""
        self._parents = frozenset(trace.parents)
        self._found: set[str] = set()

    def add(self, source: Source, read: _Read) -> None:
        """Add a row if it is the traced one or related to it."""
        place, own = read.place, self.trace.row.id
        if place.id is not None and place.id == own:
            self.trace.places.add(place)
            self.lies[source] = None
        elif place.id is not None and place.id in self._parents:
            self.trace.made_from.add(place)
            self._found.add(place.id)
        elif own is not None and own in read.made.parents:
            self.trace.made_of_it.add(place)
            self.descend[source] = None

    def note_parents(self) -> None:
        """Note the parents that lie nowhere."""
        gone = [parent for parent in self.trace.parents if parent not in self._found]
        if gone:
            more = f" and {len(gone) - 5} more" if len(gone) > 5 else ""
            listed = ", ".join(gone[:5]) + more
            self.trace.notes.append(f"parents that are in nothing that was searched: {listed}")


def _find(stored: Stored, artifact: str, wanted: int | str) -> _Read:
    """Find the row that is meant.

    Raises:
        UsageError: there is none, or there are several.
        StoreError: the stage is not up to date.
    """
    number = _line_number(wanted)
    if number is not None:
        return _in_line(_one_artifact(stored, artifact), number)
    start = _id_start(str(wanted))
    found: dict[str | None, Place] = {}
    first = None
    for rows in _rows_of(stored, artifact):
        for read in rows.read([]):
            if len(found) <= MOST and read.begins_with(start):
                first = first or read
                found.setdefault(read.place.id, read.place)
    if first is None:
        shown = start if len(start) <= LONGEST_ID else f"{start[:LONGEST_ID]}…"
        hint = "name the stage or the output with the row, or the number of its line"
        raise UsageError(f"{artifact} has no row whose id begins with {shown!r}", hint=hint)
    if len(found) > 1:
        listed = [f"{place.id}: {place.artifact}:{place.line}" for place in found.values()]
        what = f"several rows of {artifact} have ids that begin with {start!r}"
        raise UsageError(what, hint="\n".join(listed[:5]))
    return first


def _in_line(rows: _Rows, number: int) -> _Read:
    """Return the row in a line.

    Raises:
        UsageError: there is none.
    """
    last, notes = 0, list[str]()
    for read in rows.read(notes):
        last = read.place.line
        if last == number:
            return read
        if last > number:
            break
    hint = "\n".join([f"its last row is in line {last}" if last else "it has no rows", *notes])
    raise UsageError(f"{rows.label} has no row in line {number}", hint=hint)


def _line_number(wanted: int | str) -> int | None:
    """Return the number of the line that is meant, or None if it is an id."""
    text = str(wanted)
    if isinstance(wanted, str) and (not text.isdecimal() or len(text) > MOST_DIGITS):
        return None
    if int(text) < 1:
        raise UsageError(f"row {text}: rows are numbered by their lines, from 1")
    return int(text)


def _id_start(text: str) -> str:
    text = text.strip()
    if len(text) < SHORTEST:
        hint = f"at least {SHORTEST} characters of its id, or the number of its line"
        raise UsageError(f"{text!r} does not tell which row is meant", hint=hint)
    return text


def _one_artifact(stored: Stored, artifact: str) -> _Rows:
    """Return the rows of an artifact or input; of a stage, those of its default output.

    Raises:
        UsageError: there is no such artifact, or it has no rows.
        StoreError: the stage is not up to date.
    """
    read = _read_by(stored.project.graph).get(artifact)
    if read is not None:
        return read
    node, output = find_output(stored.project.graph, artifact)
    kind = node.ports.outputs[output].type
    if kind not in FILES:
        hint = "name a stage that makes or keeps rows"
        raise UsageError(f"{artifact} is of type {kind}, which has no rows", hint=hint)
    path = stored.path(node, output, artifact)
    return _artifact_rows(StageOutput(node.id, output), path, kind)


def _rows_of(stored: Stored, artifact: str) -> Iterator[_Rows]:
    """Yield the rows of an artifact; of a stage, those of all its outputs and of the files that it
    reads."""
    graph = stored.project.graph
    if artifact not in graph.nodes and artifact not in graph.families:
        yield _one_artifact(stored, artifact)
        return
    node = find_stage(graph, artifact)
    made = stored.record(node.id, artifact).outputs
    outputs = [name for name, o in node.ports.outputs.items() if o.type in FILES and name in made]
    if not outputs:
        hint = "name a stage that makes or keeps rows"
        raise UsageError(f"{artifact} is of kind {node.kind}, which has no rows", hint=hint)
    for output in outputs:
        yield _one_artifact(stored, f"{node.id}.{output}")
    for name, rows in _read_by(graph).items():
        if name.startswith(f"{node.id}."):
            yield rows


def _read_by(graph: Graph) -> dict[str, _Rows]:
    """Return the files with rows that stages read, each as ``STAGE.INPUT``."""
    return {
        f"{node.id}.{port}": _Rows(binding.source, binding.label, binding.source.path, binding.type)
        for node in graph.nodes.values()
        for port, binding in node.bindings.items()
        if isinstance(binding.source, LocalPath)
        and binding.source.path.is_file()
        and binding.type in FILES
        and port not in node.ports.outputs
    }


def _artifact_rows(source: StageOutput, path: Path, kind: ArtifactType) -> _Rows:
    inside = path / FILES[kind] if FILES[kind] else path
    return _Rows(source, f"{source.stage}.{source.output}", inside, kind)


def _all_rows(stored: Stored, notes: list[str]) -> Iterator[_Rows]:
    """Yield the files with rows that stages read, then the artifacts, each once."""
    graph, seen = stored.project.graph, set[Source]()
    for node in graph.nodes.values():
        for binding in node.bound():
            source = binding.source
            if source in seen or isinstance(source, StageOutput) or binding.type not in FILES:
                continue
            seen.add(source)
            if isinstance(source, LocalPath) and source.path.is_file():
                yield _Rows(source, binding.label, source.path, binding.type)
            elif binding.type in ("records", "dataset"):
                notes.append(f"{binding.label} is not searched: it is not a file here")
    for node in graph.nodes.values():
        kinds = {name: o.type for name, o in node.ports.outputs.items() if o.type in FILES}
        if not kinds:
            continue
        try:
            made = stored.record(node.id).outputs
        except LlmpipeError:
            notes.append(f"{node.id} is not searched: it is not up to date in the store")
            continue
        for output in [name for name in kinds if name in made]:
            path = stored.path(node, output)
            yield _artifact_rows(StageOutput(node.id, output), path, kinds[output])


def _left_out(stored: Stored, lies: Mapping[Source, None]) -> Iterator[str]:
    """Yield a note on each stage that passes rows on, reads this one, and has it in no output.

    All that such a stage drops is among its rejects, except what `sample` does not draw.
    """
    with_it = {source.stage for source in lies if isinstance(source, StageOutput)}
    for node in stored.project.graph.nodes.values():
        if node.kind not in PASSES_ROWS_ON or node.id in with_it or not is_made(stored, node.id):
            continue
        for port, binding in node.bindings.items():
            if binding.source in lies and not node.ports.inputs[port].compared:
                yield (
                    f"{node.id} reads {binding.label} and has the row in no output: its `sample` "
                    "left it out"
                )
                break


def _excerpt(value: Any) -> str:
    if isinstance(value, Mapping):
        value = {k: v for k, v in value.items() if k != PROVENANCE}
    text = value if isinstance(value, str) else to_json(value)
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 1]}…"
