"""What earlier runs have left: their records, and what differs between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from llmpipe.runner.store import Store

MAX_TEXT = 60
"""Characters of a value that a comparison shows."""


def read_runs(store: Store) -> dict[str, dict[str, Any]]:
    """Give the record of each run that ended, by its id, the earliest first."""
    records: list[dict[str, Any]] = []
    for path in store.runs.glob("*/run.json"):
        try:
            records.append(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue  # a run that is just ending, or was cut off while it wrote
    return {record["run"]: record for record in sorted(records, key=lambda r: r["started"])}


def compare(runs: Sequence[Mapping[str, Any]], store: Store) -> dict[str, dict[str, list[Any]]]:
    """Put runs side by side.

    Returns:
        ``config`` (what differs of the resolved specs), ``data`` (input files and artifacts from
        outside whose content differs, by stage and input), ``metrics`` (every figure) and
        ``seconds`` (of every stage that ran), each as rows: a name and one value for each run,
        None where a run has none.
    """
    documents = [dict(flatten(run["document"])) for run in runs]
    inputs = [dict(_inputs(run, store)) for run in runs]
    metrics = [dict(_metrics(run)) for run in runs]
    seconds = [
        {
            name: stage["seconds"]
            for name, stage in run["stages"].items()
            if stage["status"] == "done"
        }
        for run in runs
    ]
    return {
        "config": _rows(documents, differing=True),
        "data": _rows(inputs, differing=True),
        "metrics": _rows(metrics),
        "seconds": _rows(seconds),
    }


def flatten(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Give the leaves of JSON data with their dotted names."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{above}.{key}" if above else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from flatten(item, f"{above}.{i}" if above else str(i))
    else:
        yield above, value


def table(rows: Mapping[str, Sequence[Any]], heads: Sequence[str]) -> list[str]:
    """Lay rows out as text, a column for each run."""
    cells = [["", *heads], *([name, *map(_text, values)] for name, values in rows.items())]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _rows(columns: Sequence[Mapping[str, Any]], *, differing: bool = False) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for column in columns for name in column)
    rows = {name: [column.get(name) for column in columns] for name in names}
    if differing:
        rows = {name: row for name, row in rows.items() if any(v != row[0] for v in row)}
    return rows


def _inputs(run: Mapping[str, Any], store: Store) -> Iterator[tuple[str, str]]:
    """Give the digests of what each stage read, as far as its record is still there."""
    for name, stage in run["stages"].items():
        record = store.record(stage["key"]) if stage["key"] else None
        for port, found in (record.ingredients["inputs"] if record else {}).items():
            yield f"{name}.{port}", found["digest"][:12]


def _metrics(run: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Give every figure of every stage; curves and texts are no figures."""
    for name, stage in run["stages"].items():
        single = {k: v for k, v in stage["metrics"].items() if not isinstance(v, list)}
        for field, value in flatten(single):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield f"{name}.{field}", value


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
