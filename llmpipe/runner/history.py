"""Read the records of earlier runs, and compare them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from llmpipe.canonical import leaves
from llmpipe.errors import UsageError, did_you_mean
from llmpipe.runner.disk import read_json
from llmpipe.runner.store import Store

MAX_TEXT = 60
"""Characters of a value that a comparison shows."""

UNFINISHED = "unfinished"
"""The status of a run that is still running, or was killed."""


class _Error(TypedDict):
    """Why a stage failed."""

    message: str
    hint: NotRequired[str | None]
    tail: NotRequired[list[str]]
    log: NotRequired[str | None]


class _Stage(TypedDict):
    """What every stage of a record has, and the event of its end."""

    stage: str
    kind: str
    status: Literal["cached", "done", "failed", "interrupted", "blocked", "skipped"]
    key: str | None
    seconds: float
    causes: list[dict[str, Any]]
    metrics: dict[str, Any]
    summary: str
    error: _Error | None


class _Started(TypedDict):
    """What is known of a run from its beginning."""

    run: str
    spec: NotRequired[str]
    name: str
    profiles: list[str]
    set: list[str]


class _Record(_Started):
    """What every record of a run has, as far as it is looked at."""

    llmpipe: str
    python: str
    started: str
    ended: str
    seconds: float
    status: str
    document: dict[str, Any]
    stages: dict[str, _Stage]


class _FirstEvent(_Started):
    """The event that a run begins with."""

    event: Literal["run-started"]
    time: str


_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_runs(store: Store) -> dict[str, dict[str, Any]]:
    """Return the record of each run that has ended, by id, earliest first."""
    found = (read_run(path.parent) for path in store.runs.glob("*/run.json"))
    records = [record for record in found if record is not None]
    return {record["run"]: record for record in sorted(records, key=lambda r: r["started"])}


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the record of a run, or None if there is none or it is not valid."""
    try:
        record: dict[str, Any] = read_json(folder / "run.json")
        msgspec.convert(record, _Record)
    except msgspec.ValidationError:
        return None  # the run is just ending, was killed while it wrote, or the file is damaged
    return {**record, "run": folder.name}


def unreadable_runs(store: Store) -> list[Path]:
    """Return the records of runs that are damaged, or of a newer llmpipe."""
    return sorted(p for p in store.runs.glob("*/run.json") if read_run(p.parent) is None)


def read_unfinished(store: Store) -> dict[str, dict[str, Any]]:
    """Return what is known of each run without a record, by id: the stages that have ended."""
    found = {}
    for path in sorted(store.runs.glob("*/events.jsonl")):
        if not path.with_name("run.json").exists() and (record := _from_events(path)):
            found[path.parent.name] = record
    return found


def find_run(name: str | None, runs: dict[str, dict[str, Any]], store: Store) -> dict[str, Any]:
    """Find the run with this name, or the only one whose name begins with it.

    Args:
        name: What the user asked for. None if they asked for the last run and there is none.
        runs: The records to search.
        store: The store of the runs.

    Raises:
        UsageError: No run fits, or several do.
    """
    if name is None:
        hint = f"runs are in {store.runs}; --spec SPEC names another spec's store"
        raise UsageError("nothing has run yet", hint=hint)
    found = [name] if name in runs else [run for run in runs if run.startswith(name)]
    if len(found) > 1:
        raise UsageError(f"{name!r} matches several runs", hint="\n".join(found))
    if found:
        return runs[found[0]]
    record = store.runs / Path(name).name / "run.json"
    if record.exists():
        raise UsageError(f"{record} is not a run record that this llmpipe can read")
    hint = did_you_mean(name, runs) or f"runs are in {store.runs}; llmpipe runs lists them"
    raise UsageError(f"there is no run {name!r}", hint=hint)


def all_runs(store: Store) -> dict[str, dict[str, Any]]:
    """Return what is known of each run of a store, by id: first the ended ones, then the others."""
    return read_runs(store) | read_unfinished(store)


def runs_of(store: Store, spec: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of each run of one spec, by id, latest last."""
    real = os.path.realpath(spec)
    known = all_runs(store).items()
    own = (item for item in known if os.path.realpath(item[1].get("spec") or "") == real)
    return dict(sorted(own))


def _from_events(path: Path) -> dict[str, Any] | None:
    """Rebuild the record of a run from its events, or return None if there is no event."""
    events = _events(path)
    try:
        first = msgspec.convert(next(events), _FirstEvent)
    except (StopIteration, OSError, msgspec.ValidationError):
        return None
    return {
        "run": path.parent.name,
        **{key: first.get(key) for key in ("name", "spec", "profiles", "set")},
        "started": first["time"],
        "ended": None,
        "seconds": None,
        "status": UNFINISHED,
        "stages": {event["stage"]: event for event in events if _is_end(event)},
    }


def _events(path: Path) -> Iterator[Any]:
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            return  # cut off by a kill or a full disk


def _is_end(event: Any) -> bool:
    """Return whether an event is the end of a stage, with all that it must say."""
    if not isinstance(event, dict) or event.get("event") != "stage-ended":
        return False
    try:
        msgspec.convert(event, _Stage)
    except msgspec.ValidationError:
        return False
    return True


def compare(runs: Sequence[Mapping[str, Any]], store: Store) -> dict[str, dict[str, list[Any]]]:
    """Compare runs side by side.

    Returns:
        ``config`` (settings that differ between the resolved specs), ``data`` (digests of input
        files and external artifacts that differ, by stage and input), ``metrics`` (all numbers, and
        texts that differ) and ``seconds`` (of every stage that ran). Each maps a name to one value
        per run, or None if a run has none.
    """
    config = _rows([dict(flatten(run["document"])) for run in runs])
    data = _rows([dict(_inputs(run, store)) for run in runs])
    metrics = _rows([dict(_metrics(run)) for run in runs])
    seconds = _rows([dict(_seconds(run)) for run in runs])
    return {
        "config": {name: row for name, row in config.items() if _differ(row)},
        "data": {name: row for name, row in data.items() if _differ([v for v in row if v])},
        "metrics": {
            name: row
            for name, row in metrics.items()
            if _differ(row) or not isinstance(row[0], str)
        },
        "seconds": seconds,
    }


def parted(rows: Mapping[str, list[Any]]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Split rows into those whose values differ and those whose values are equal."""
    differing = {name: row for name, row in rows.items() if _differ(row)}
    return differing, {name: row for name, row in rows.items() if name not in differing}


def change(row: Sequence[Any]) -> float | None:
    """Return the change of a metric from the first run to the last, or None if either lacks it."""
    first, last = row[0], row[-1]
    if type(first) not in (int, float) or type(last) not in (int, float):
        return None
    return float(last - first)


def change_text(row: Sequence[Any]) -> str:
    """Return the change of a metric as text, with its share of the first value; "" if none."""
    by = change(row)
    if not by:
        return ""
    part = f" ({100 * by / abs(row[0]):+.3g} %)" if row[0] else ""
    return f"{by:+.4g}{part}"


def flatten(value: Any) -> Iterator[tuple[str, Any]]:
    """Return the leaves of JSON data with their dotted names."""
    return ((".".join(map(str, path)), leaf) for path, leaf in leaves(value))


def table(rows: Mapping[str, Sequence[Any]], heads: Sequence[str]) -> list[str]:
    """Format rows as a text table with heads."""
    cells = [["", *heads], *([name, *map(value_text, values)] for name, values in rows.items())]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def turned(
    rows: Mapping[str, Sequence[Any]], heads: Sequence[str]
) -> tuple[dict[str, list[Any]], list[str]]:
    """Transpose rows and their heads: one row for each head."""
    return {head: [row[i] for row in rows.values()] for i, head in enumerate(heads)}, list(rows)


def _rows(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}


def _differ(row: Sequence[Any]) -> bool:
    return any(value != row[0] for value in row)


def _inputs(run: Mapping[str, Any], store: Store) -> Iterator[tuple[str, str]]:
    """Yield the digest of each input that is not made by a stage of the run."""
    found = {name: store.record(s["key"]) for name, s in run["stages"].items() if s["key"]}
    records = {name: record for name, record in found.items() if record is not None}
    made = {output.digest for record in records.values() for output in record.outputs.values()}
    for name, record in records.items():
        for port, content in record.ingredients["inputs"].items():
            if content["digest"] not in made:
                yield f"{name}.{port}", content["digest"]


def _metrics(run: Mapping[str, Any]) -> Iterator[tuple[str, float | str]]:
    """Yield every metric that is a number or a text; curves are left out."""
    for name, stage in run["stages"].items():
        single = {k: v for k, v in stage["metrics"].items() if not isinstance(v, list)}
        for field, value in flatten(single):
            if isinstance(value, (int, float, str)) and not isinstance(value, bool):
                yield f"{name}.{field}", value


def _seconds(run: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, stage in run["stages"].items():
        if stage["status"] == "done":
            yield name, stage["seconds"]


def value_text(value: Any) -> str:
    """Return a value as a cell of a comparison."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if _DIGEST.fullmatch(text):
        return text[:12]
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
