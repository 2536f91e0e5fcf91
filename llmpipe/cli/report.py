"""``llmpipe report``: write the page of an earlier run."""

from __future__ import annotations

from pathlib import Path

from llmpipe.cli.options import parser
from llmpipe.errors import StoreError, UsageError, did_you_mean
from llmpipe.report.page import write_report
from llmpipe.runner.history import read_runs
from llmpipe.runner.project import home_for
from llmpipe.runner.store import Store, write_hint


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "report",
        "Write a run as one HTML page that needs nothing else, and print where it is.\n"
        "`run` does so by itself when a stage ran.",
    )
    arguments.add_argument("run", metavar="RUN", nargs="?", help="which run; the last by default")
    arguments.add_argument(
        "--spec", metavar="SPEC", default="spec.yaml", help="whose store to look into (spec.yaml)"
    )
    arguments.add_argument(
        "--output", metavar="FILE", type=Path, help="where to, instead of the run's folder"
    )
    options = arguments.parse_intermixed_args(argv)
    store = Store(home_for(Path(options.spec)))
    folder = _folder(store, options.run)
    output: Path | None = options.output
    try:
        if output is not None:
            output.absolute().parent.mkdir(parents=True, exist_ok=True)
        print(write_report(store, folder, output))
    except OSError as error:
        message = f"{output or folder} cannot be written: {error.strerror}"
        raise StoreError(message, hint=write_hint(error)) from None
    return 0


def _folder(store: Store, name: str | None) -> Path:
    """Find what a run has left, or the last run of all."""
    runs = read_runs(store)
    if name is None and runs:
        return store.runs / next(reversed(runs))
    if name in runs:
        return store.runs / name
    if name is None:
        hint = f"runs lie in {store.runs}; --spec SPEC names another spec's store"
        raise UsageError("nothing has run yet", hint=hint)
    if (store.runs / Path(name).name / "events.jsonl").exists():
        hint = "what it has logged lies in its folder; run the spec again to go on"
        raise UsageError(f"the run {name!r} goes on still, or was killed before its end", hint=hint)
    hint = did_you_mean(name, runs) or f"runs lie in {store.runs}; llmpipe runs lists them"
    raise UsageError(f"there is no run {name!r}", hint=hint)
