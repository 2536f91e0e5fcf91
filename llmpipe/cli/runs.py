"""``llmpipe runs``: list, show and compare earlier runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmpipe.cli.options import find_store, parser, print_json, whole_number
from llmpipe.errors import StoreError, UsageError
from llmpipe.runner.disk import write_hint
from llmpipe.runner.history import (
    UNFINISHED,
    all_runs,
    change,
    change_text,
    compare,
    find_run,
    parted,
    table,
    turned,
    unreadable_runs,
)
from llmpipe.runner.messages import ended_text, overlaid, seconds_text
from llmpipe.runner.store import Store

FAILED = ("failed", "interrupted", UNFINISHED)

SIDE_BY_SIDE = 3
"""Number of runs up to which each is a column; more are a line each."""

COUNTED = ("metrics", "seconds")
"""The parts of a comparison that hold numbers, which are shown with their change."""

TITLES = {
    "config": "settings that differ",
    "data": "inputs that differ",
    "metrics": "metrics",
    "seconds": "seconds",
}


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parse(argv)
    store = find_store(options.spec)
    runs = all_runs(store)
    for path in unreadable_runs(store):
        print(f"passed over: {path} is no record of a run that can be read", file=sys.stderr)
    if options.action == "list":
        _list(runs.values(), as_json=options.json)
    elif options.action == "compare":
        _compare(_compared(options, runs, store), store, options)
    else:
        name = options.runs[0] if options.runs else next(reversed(_ended(runs)), None)
        _show(find_run(name, runs, store), store, as_json=options.json)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = parser(
        "runs",
        "List the runs of a spec's store, show one, or compare several:\n"
        "settings and data that differ, every metric, and the times.",
    )
    arguments.add_argument("action", choices=["list", "show", "compare"], nargs="?", default="list")
    arguments.add_argument(
        "runs",
        metavar="RUN",
        nargs="*",
        help="the run to show (the last by default), or those to compare (the last two); "
        "the beginning of its name is enough",
    )
    arguments.add_argument(
        "--last", type=whole_number(at_least=2), metavar="N", help="compare the last N runs instead"
    )
    arguments.add_argument(
        "--only",
        metavar="TEXT",
        action="append",
        help="compare only names that contain this, such as dev.loss (repeatable)",
    )
    arguments.add_argument(
        "--spec",
        metavar="SPEC",
        default="spec.yaml",
        help="the spec whose store to use (spec.yaml)",
    )
    arguments.add_argument(
        "--all", action="store_true", help="show equal metrics in a comparison, too"
    )
    arguments.add_argument(
        "--html", metavar="FILE", type=Path, help="write the comparison as one page"
    )
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_intermixed_args(argv)
    most = {"list": 0, "show": 1}.get(options.action, len(options.runs))
    if len(options.runs) > most:
        raise UsageError(f"runs {options.action} takes {'one run' if most else 'no runs'}")
    if options.last and (options.action != "compare" or options.runs):
        raise UsageError("--last requires compare, without names of runs")
    for option in ("only", "all", "html"):
        if getattr(options, option) and options.action != "compare":
            raise UsageError(f"--{option} requires compare")
    if options.html is not None and options.html.is_dir():
        raise UsageError(f"--html: {options.html} is a folder", hint="name a file")
    return options


def _ended(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: record for name, record in runs.items() if record["status"] != UNFINISHED}


def _compared(
    options: argparse.Namespace, runs: dict[str, dict[str, Any]], store: Store
) -> list[dict[str, Any]]:
    """Return the records of the runs to compare: the named ones, or the last finished ones."""
    done = [name for name, record in runs.items() if record["status"] not in FAILED]
    names = options.runs or done[-(options.last or 2) :]
    passed = [name for name in runs if names and name > names[0] and runs[name]["status"] in FAILED]
    if passed and not options.runs:
        told = ", ".join(f"{name} ({runs[name]['status']})" for name in passed)
        print(f"skipped: {told}; name a run to compare it", file=sys.stderr)
    chosen = [find_run(name, runs, store) for name in names]
    for record in chosen:
        if record["status"] == UNFINISHED:
            raise UsageError(
                f"the run {record['run']} is still running, or was killed: it has no metrics yet"
            )
    if len(chosen) < 2:
        hint = "failed runs are compared only if they are named" if len(runs) > 1 else None
        raise UsageError("at least two runs are needed to compare", hint=hint)
    return chosen


def _compare(runs: list[dict[str, Any]], store: Store, options: argparse.Namespace) -> None:
    found = {
        part: {name: row for name, row in rows.items() if _wanted(name, options.only)}
        for part, rows in compare(runs, store).items()
    }
    if options.html is not None:
        _write_page(runs, found, options.html)
    if options.json:
        changes = {
            part: {name: by for name, row in found[part].items() if (by := change(row)) is not None}
            for part in COUNTED
        }
        print_json({"runs": [run["run"] for run in runs], **found, "changes": changes})
    elif options.html is None:
        for run in runs:
            over = shlex.join(overlaid(run["profiles"], run["set"]))
            print(f"{run['run']}: {run['status']}, {f'with {over}' if over else 'as the spec is'}")
        _print_comparison(found, [run["run"] for run in runs], everything=options.all)


def _write_page(runs: list[dict[str, Any]], found: Mapping[str, Any], path: Path) -> None:
    from llmpipe.report.comparison import write_comparison

    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        print(write_comparison(runs, found, path))
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise StoreError(message, hint=write_hint(error)) from None


def _print_comparison(
    found: Mapping[str, dict[str, list[Any]]], names: list[str], *, everything: bool
) -> None:
    """Print what differs: metrics with their change, and the number of equal ones."""
    folded = 0
    for part, title in TITLES.items():
        differing, equal = parted(found[part])
        rows = {**differing, **(equal if everything else {})}
        folded += len(equal) - (len(rows) - len(differing))
        heads = names
        if rows and len(names) > SIDE_BY_SIDE:
            rows, heads = turned(rows, names)
        elif rows and part in COUNTED:
            rows = {name: [*row, change_text(row)] for name, row in rows.items()}
            heads = [*names, f"change from {names[0]}"]
        if rows:
            print(f"{title}:")
            print("\n".join(f"  {line}" for line in table(rows, heads)))
    if not any(parted(rows)[0] for rows in found.values()):
        print("nothing differs")
    if folded:
        print(f"{folded} metrics are equal; --all shows them")


def _wanted(name: str, only: list[str] | None) -> bool:
    return only is None or any(text in name for text in only)


def _list(runs: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    ordered = sorted(runs, key=lambda record: str(record["started"]))
    if as_json:
        fields = ("run", "name", "started", "ended", "status", "profiles")
        print_json([{field: record[field] for field in fields} for record in ordered])
        return
    for record in ordered:
        statuses = [stage["status"] for stage in record["stages"].values()]
        told = f"{statuses.count('done')} ran, {statuses.count('cached')} cached"
        if record["seconds"] is not None:
            told += f", {seconds_text(record['seconds'])}"
        over = shlex.join(overlaid(record["profiles"], record["set"]))
        told += f", with {over}" if over else ""
        print(f"{record['run']}  {record['status']:<11}  {record['name']}: {told}")
    if not ordered:
        print("nothing has run yet")


def _show(record: dict[str, Any], store: Store, *, as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    print(f"run {record['run']} of {record['name']}: {record['status']}")
    with_what = ""
    if record["status"] != UNFINISHED:
        with_what = f", llmpipe {record['llmpipe']}, Python {record['python']}"
    print(f"started {record['started']}{with_what}")
    if record["set"]:
        print(f"with {' '.join(f'--set {text}' for text in record['set'])}")
    for stage in record["stages"].values():
        print(ended_text(stage))
    print(f"logs: {store.runs / record['run']}")
