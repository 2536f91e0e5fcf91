"""``llmpipe runs``: list and show earlier runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmpipe.cli.options import parser, print_json
from llmpipe.errors import UsageError, did_you_mean
from llmpipe.runner.console import ended_text, seconds_text
from llmpipe.runner.project import home_for
from llmpipe.runner.store import Store


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser("runs", "List the runs of a spec's store, or show one.")
    arguments.add_argument("action", choices=["list", "show"], nargs="?", default="list")
    arguments.add_argument(
        "run", metavar="RUN", nargs="?", help="the run to show; the last by default"
    )
    arguments.add_argument(
        "--spec", metavar="SPEC", default="spec.yaml", help="whose store to look into (spec.yaml)"
    )
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_args(argv)
    store = Store(home_for(Path(options.spec)))
    runs = {record["run"]: record for record in _records(store)}
    if options.action == "list":
        if options.json:
            print_json([_short(record) for record in runs.values()])
        else:
            _print_list(runs)
        return 0
    name = options.run or next(reversed(runs), None)
    if name is None or name not in runs:
        hint = did_you_mean(name or "", runs) or f"runs lie in {store.runs}"
        raise UsageError(f"there is no run {name!r}" if name else "nothing has run yet", hint=hint)
    if options.json:
        print_json(runs[name])
    else:
        _print_run(runs[name], store.runs / name)
    return 0


def _records(store: Store) -> list[dict[str, Any]]:
    """Give what is known of each run that ended, the earliest first."""
    records: list[dict[str, Any]] = []
    for path in store.runs.glob("*/run.json"):
        try:
            records.append(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue  # a run that is just ending, or was cut off while it wrote
    return sorted(records, key=lambda record: record["started"])


def _short(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("run", "name", "started", "ended", "status", "profiles")}


def _print_list(runs: dict[str, dict[str, Any]]) -> None:
    for record in runs.values():
        stages = record["stages"].values()
        ran = sum(stage["status"] == "done" for stage in stages)
        cached = sum(stage["status"] == "cached" for stage in stages)
        time = seconds_text(sum(stage["seconds"] for stage in stages))
        print(
            f"{record['run']}  {record['status']:<11}  {record['name']}: "
            f"{ran} ran, {cached} cached, {time}"
        )
    if not runs:
        print("nothing has run yet")


def _print_run(record: dict[str, Any], folder: Path) -> None:
    print(f"run {record['run']} of {record['name']}: {record['status']}")
    print(f"started {record['started']}, llmpipe {record['llmpipe']}, Python {record['python']}")
    if record["set"]:
        print(f"with {' '.join(f'--set {text}' for text in record['set'])}")
    for stage in record["stages"].values():
        print(ended_text(stage))
    print(f"logs: {folder}")
