"""What earlier runs have left: their records, and what differs between them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from llmpipe.canonical import leaves
from llmpipe.errors import UsageError, did_you_mean
from llmpipe.runner.store import Store

MAX_TEXT = 60
"""Characters of a value that a comparison shows."""

UNFINISHED = "unfinished"
"""The status of a run that goes on still, or was killed."""


class _Stage(TypedDict):
    """What every stage of a record has, as far as it is looked at."""

    status: str
    key: str | None
    seconds: float
    metrics: dict[str, Any]


class _Record(TypedDict):
    """What every record of a run has, as far as it is looked at."""

    run: str
    name: str
    profiles: list[str]
    set: list[str]
    llmpipe: str
    python: str
    started: str
    ended: str
    seconds: float
    status: str
    document: dict[str, Any]
    stages: dict[str, _Stage]


_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_runs(store: Store) -> dict[str, dict[str, Any]]:
    """Return the record of each run that ended, by its id, the earliest first."""
    found = (read_run(path.parent) for path in store.runs.glob("*/run.json"))
    records = [record for record in found if record is not None]
    return {record["run"]: record for record in sorted(records, key=lambda r: r["started"])}


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the record of one run, or None if it does not exist or does not have its shape."""
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_bytes())
        msgspec.convert(record, _Record)
    except (OSError, ValueError):  # those of msgspec are ValueErrors
        return None  # a run that is just ending, or was cut off while it wrote
    return record


def read_unfinished(store: Store) -> dict[str, dict[str, Any]]:
    """Return what is known of each run without a record, by its id: the stages that have ended."""
    found = {}
    for path in sorted(store.runs.glob("*/events.jsonl")):
        if not path.with_name("run.json").exists() and (record := _from_events(path)):
            found[path.parent.name] = record
    return found


def find_run(name: str | None, runs: dict[str, dict[str, Any]], store: Store) -> dict[str, Any]:
    """Find the run of this name, or the only one whose name begins so.

    Args:
        name: what was asked for; None where the last run was meant and there is none.
        runs: the records to look among.
        store: where they come from.

    Raises:
        UsageError: there is none, or there are several.
    """
    if name is None:
        hint = f"runs lie in {store.runs}; --spec SPEC names another spec's store"
        raise UsageError("nothing has run yet", hint=hint)
    found = [name] if name in runs else [run for run in runs if run.startswith(name)]
    if len(found) > 1:
        raise UsageError(f"{name!r} may be any of several runs", hint="\n".join(found))
    if found:
        return runs[found[0]]
    record = store.runs / Path(name).name / "run.json"
    if record.exists():
        raise UsageError(f"{record} is no record of a run that this llmpipe can read")
    hint = did_you_mean(name, runs) or f"runs lie in {store.runs}; llmpipe runs lists them"
    raise UsageError(f"there is no run {name!r}", hint=hint)


def all_runs(store: Store) -> dict[str, dict[str, Any]]:
    """Return what is known of each run of a store, by its id: those that ended, then the others."""
    return read_runs(store) | read_unfinished(store)


def runs_of(store: Store, spec: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of each run of one spec, by its id, the latest last."""
    real = os.path.realpath(spec)
    known = all_runs(store).items()
    own = (item for item in known if os.path.realpath(item[1].get("spec") or "") == real)
    return dict(sorted(own))


def _from_events(path: Path) -> dict[str, Any] | None:
    """Tell of a run from its events; None where not even the first one is there."""
    events = _events(path)
    if not events or events[0]["event"] != "run-started":
        return None
    first = events[0]
    kept = ("run", "name", "spec", "profiles", "set")
    return {
        **{key: first.get(key) for key in kept},
        "started": first["time"],
        "ended": None,
        "seconds": None,
        "status": UNFINISHED,
        "stages": {event["stage"]: event for event in events if event["event"] == "stage-ended"},
    }


def _events(path: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break  # cut off by a kill or a full disk
    return events


def compare(runs: Sequence[Mapping[str, Any]], store: Store) -> dict[str, dict[str, list[Any]]]:
    """Put runs side by side.

    Returns:
        ``config`` (what differs of the resolved specs), ``data`` (input files and artifacts from
        outside whose content differs, by stage and input, as their digests), ``metrics`` (every
        number, and texts that differ) and ``seconds`` (of every stage that ran), each as rows: a
        name and one value for each run, None where a run has none.
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
    """Part rows into those whose values differ and those whose values are equal."""
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
    """Lay rows out as text, below their heads."""
    cells = [["", *heads], *([name, *map(value_text, values)] for name, values in rows.items())]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def turned(
    rows: Mapping[str, Sequence[Any]], heads: Sequence[str]
) -> tuple[dict[str, list[Any]], list[str]]:
    """Turn rows with their heads into one row for each head."""
    return {head: [row[i] for row in rows.values()] for i, head in enumerate(heads)}, list(rows)


def _rows(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}


def _differ(row: Sequence[Any]) -> bool:
    return any(value != row[0] for value in row)


def _inputs(run: Mapping[str, Any], store: Store) -> Iterator[tuple[str, str]]:
    """Yield the digest of each input that no stage of the run has made."""
    found = {name: store.record(s["key"]) for name, s in run["stages"].items() if s["key"]}
    records = {name: record for name, record in found.items() if record is not None}
    made = {output.digest for record in records.values() for output in record.outputs.values()}
    for name, record in records.items():
        for port, content in record.ingredients["inputs"].items():
            if content["digest"] not in made:
                yield f"{name}.{port}", content["digest"]


def _metrics(run: Mapping[str, Any]) -> Iterator[tuple[str, float | str]]:
    """Yield every metric of every stage that is a number or a text; curves are left out."""
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
