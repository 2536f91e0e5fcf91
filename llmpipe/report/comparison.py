"""A page with runs side by side: differences first, equal rows folded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from llmpipe import __version__
from llmpipe.report.page import document
from llmpipe.report.rendering import Section, render
from llmpipe.runner.disk import atomic_write
from llmpipe.runner.history import change_text, parted, value_text
from llmpipe.runner.messages import overlaid

Rows = Mapping[str, list[Any]]

TITLES = {
    "metrics": "Metrics",
    "config": "Settings that differ",
    "data": "Inputs that differ",
    "seconds": "Seconds",
}


def write_comparison(
    runs: Sequence[Mapping[str, Any]], found: Mapping[str, Rows], path: Path
) -> Path:
    """Write the result of `llmpipe.runner.history.compare` as a page; return its path.

    Raises:
        OSError: The page cannot be written.
    """
    names = [str(run["run"]) for run in runs]
    page = document(
        "comparison.html",
        [Section(part, title, _part(names, found[part], title)) for part, title in TITLES.items()],
        title=f"{runs[-1]['name']}: {len(runs)} runs compared",
        version=__version__,
        runs=[(run["run"], _ending(run)) for run in runs],
    )
    atomic_write(path, page, durable=False)
    return path


def _ending(run: Mapping[str, Any]) -> str:
    """Return a run's status, and the profiles and settings laid over its spec."""
    return f"{run['status']} {shlex.join(overlaid(run['profiles'], run['set']))}".strip()


def _part(names: Sequence[str], rows: Rows, title: str) -> Markup:
    differing, equal = (_table(names, found) for found in parted(rows))
    return render("compared.html", title=title, differing=differing, equal=equal)


def _table(names: Sequence[str], rows: Rows) -> dict[str, list[Any]]:
    """Return a row for each name, with the change from the first run to the last."""
    told = {name: change_text(row) for name, row in rows.items()}
    heads = ["", *names, *([f"change from {names[0]}"] if any(told.values()) else [])]
    cells = [[name, *map(value_text, row), told[name]][: len(heads)] for name, row in rows.items()]
    return {"heads": heads, "rows": cells}
