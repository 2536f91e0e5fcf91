"""Runs side by side as one page: what differs first, what is equal folded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmpipe import __version__
from llmpipe.graph.markup import Markup, element, join
from llmpipe.report.page import document
from llmpipe.report.parts import Section, details, pairs, table
from llmpipe.runner.disk import atomic_write
from llmpipe.runner.history import change_text, parted, value_text
from llmpipe.runner.messages import overlaid

Rows = Mapping[str, list[Any]]

TITLES = {
    "metrics": "Figures",
    "config": "Settings that differ",
    "data": "Inputs that differ",
    "seconds": "Seconds",
}


def write_comparison(
    runs: Sequence[Mapping[str, Any]], found: Mapping[str, Rows], path: Path
) -> Path:
    """Write what `llmpipe.runner.history.compare` found of runs as a page; return where it is.

    Raises:
        OSError: the page cannot be written.
    """
    names = [str(run["run"]) for run in runs]
    sections = [
        Section(part, title, _part(names, found[part], title)) for part, title in TITLES.items()
    ]
    shown = [section for section in sections if section.content]
    title = f"{runs[-1]['name']}: {len(runs)} runs compared"
    page = document(title, _header(runs, title), shown, f"Written by llmpipe {__version__}.")
    atomic_write(path, page, durable=False)
    return path


def _header(runs: Sequence[Mapping[str, Any]], title: str) -> Markup:
    told = (
        (run["run"], f"{run['status']} {shlex.join(overlaid(run['profiles'], run['set']))}".strip())
        for run in runs
    )
    return element("header", element("h1", title), pairs(told))


def _part(names: Sequence[str], rows: Rows, title: str) -> Markup:
    differing, equal = parted(rows)
    parts = [_table(names, differing, title)] if differing else []
    if equal:
        parts.append(details(f"{len(equal)} are equal", _table(names, equal, f"{title}, equal")))
    return join(parts)


def _table(names: Sequence[str], rows: Rows, title: str) -> Markup:
    """Return a row for each name, with the change from the first run to the last."""
    told = {name: change_text(row) for name, row in rows.items()}
    heads = ["", *names, *([f"change from {names[0]}"] if any(told.values()) else [])]
    cells = [[name, *map(value_text, row), told[name]][: len(heads)] for name, row in rows.items()]
    return table(title, heads, cells, numbers=range(1, len(heads)))
