"""``llmpipe runs``: list, show and compare earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmpipe.cli.options import parser, print_json
from llmpipe.errors import UsageError, did_you_mean
from llmpipe.runner.console import ended_text, seconds_text
from llmpipe.runner.history import compare, read_runs, table
from llmpipe.runner.project import home_for
from llmpipe.runner.store import Store


def main(argv: list[str]) -> int:
    """Run the command."""
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
        help="the run to show (the last by default), or those to compare (the last two)",
    )
    arguments.add_argument(
        "--spec", metavar="SPEC", default="spec.yaml", help="whose store to look into (spec.yaml)"
    )
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_args(argv)
    store = Store(home_for(Path(options.spec)))
    runs = read_runs(store)
    if options.action == "list":
        if options.json:
            print_json([_short(record) for record in runs.values()])
        else:
            _print_list(runs)
        return 0
    if options.action == "compare":
        chosen = [_find(name, runs, store) for name in options.runs or list(runs)[-2:]]
        if len(chosen) < 2:
            raise UsageError("two runs at least are needed to compare")
        _compare(chosen, store, as_json=options.json)
        return 0
    record = _find(next(iter(options.runs), None) or next(reversed(runs), None), runs, store)
    if options.json:
        print_json(record)
    else:
        _print_run(record, store.runs / record["run"])
    return 0


def _find(name: str | None, runs: dict[str, dict[str, Any]], store: Store) -> dict[str, Any]:
    if name is None or name not in runs:
        hint = did_you_mean(name or "", runs) or f"runs lie in {store.runs}"
        raise UsageError(f"there is no run {name!r}" if name else "nothing has run yet", hint=hint)
    return runs[name]


def _compare(runs: list[dict[str, Any]], store: Store, *, as_json: bool) -> None:
    found = compare(runs, store)
    names = [run["run"] for run in runs]
    if as_json:
        print_json({"runs": names, **found})
        return
    titles = {
        "config": "settings that differ",
        "data": "inputs that differ",
        "metrics": "figures",
        "seconds": "seconds",
    }
    for part, title in titles.items():
        if found[part]:
            print(f"{title}:")
            print("\n".join(f"  {line}" for line in table(found[part], names)))
    if not any(found.values()):
        print("nothing differs")


def _short(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("run", "name", "started", "ended", "status", "profiles")}


def _print_list(runs: dict[str, dict[str, Any]]) -> None:
    for record in runs.values():
        stages = record["stages"].values()
        ran = sum(stage["status"] == "done" for stage in stages)
        cached = sum(stage["status"] == "cached" for stage in stages)
        time = seconds_text(record["seconds"])
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
