"""``llmpipe runs``: list, show and compare earlier runs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from typing import Any

from llmpipe.cli.options import find_store, parser, print_json
from llmpipe.errors import UsageError
from llmpipe.runner.history import (
    UNFINISHED,
    all_runs,
    compare,
    find_run,
    table,
    turned,
)
from llmpipe.runner.store import Store
from llmpipe.runner.words import ended_text, overlaid, seconds_text

SIDE_BY_SIDE = 3
"""Runs up to which each is a column; more are a line each."""

TITLES = {
    "config": "settings that differ",
    "data": "inputs that differ",
    "metrics": "figures",
    "seconds": "seconds",
}


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parse(argv)
    store = find_store(options.spec)
    runs = all_runs(store)
    if options.action == "list":
        _list(runs.values(), as_json=options.json)
    elif options.action == "compare":
        _compare(_compared(options, runs, store), store, options.only, as_json=options.json)
    else:
        name = options.runs[0] if options.runs else next(reversed(_ended(runs)), None)
        _show(find_run(name, runs, store), store, as_json=options.json)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = parser(
        "runs",
        "List the runs of a spec's store, show one, or put several side by side:\n"
        "what differs in settings and data, every figure, and the times.",
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
        "--last", type=_count, metavar="N", help="compare the last N runs instead"
    )
    arguments.add_argument(
        "--only",
        metavar="TEXT",
        action="append",
        help="of a comparison only what has this in its name, such as dev.loss (repeatable)",
    )
    arguments.add_argument(
        "--spec", metavar="SPEC", default="spec.yaml", help="whose store to look into (spec.yaml)"
    )
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_intermixed_args(argv)
    most = {"list": 0, "show": 1}.get(options.action, len(options.runs))
    if len(options.runs) > most:
        raise UsageError(f"runs {options.action} takes {'one run' if most else 'no runs'}")
    if options.last and (options.action != "compare" or options.runs):
        raise UsageError("--last goes with compare, instead of the names of runs")
    if options.only and options.action != "compare":
        raise UsageError("--only goes with compare")
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"a whole number from 2 on is needed, not {text!r}")
    return int(text)


def _ended(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: record for name, record in runs.items() if record["status"] != UNFINISHED}


def _compared(
    options: argparse.Namespace, runs: dict[str, dict[str, Any]], store: Store
) -> list[dict[str, Any]]:
    """Give the records of the runs to compare: those named, or the last of all."""
    names = options.runs or list(_ended(runs))[-(options.last or 2) :]
    chosen = [find_run(name, runs, store) for name in names]
    for record in chosen:
        if record["status"] == UNFINISHED:
            raise UsageError(
                f"the run {record['run']} goes on still, or was killed: it has no figures yet"
            )
    if len(chosen) < 2:
        raise UsageError("two runs at least are needed to compare")
    return chosen


def _compare(
    runs: list[dict[str, Any]], store: Store, only: list[str] | None, *, as_json: bool
) -> None:
    found = {
        part: {name: row for name, row in rows.items() if _wanted(name, only)}
        for part, rows in compare(runs, store).items()
    }
    names = [run["run"] for run in runs]
    if as_json:
        print_json({"runs": names, **found})
        return
    for part, title in TITLES.items():
        rows, heads = found[part], names
        if rows:
            if len(names) > SIDE_BY_SIDE:
                rows, heads = turned(rows, names)
            print(f"{title}:")
            print("\n".join(f"  {line}" for line in table(rows, heads)))
    if not any(found.values()):
        print("nothing differs")


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
