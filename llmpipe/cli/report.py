"""``llmpipe report``: write the page of an earlier run."""

from __future__ import annotations

from pathlib import Path

from llmpipe.cli.options import find_store, parser
from llmpipe.errors import StoreError, UsageError
from llmpipe.report.page import write_report
from llmpipe.runner.disk import write_hint
from llmpipe.runner.history import UNFINISHED, find_run, read_runs, read_unfinished
from llmpipe.runner.store import Store


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "report",
        "Write a run as one self-contained HTML page, and print its path.\n"
        "`run` does so by itself if a stage ran.",
    )
    arguments.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        help="the run, or the beginning of its name; the last by default",
    )
    arguments.add_argument(
        "--spec",
        metavar="SPEC",
        default="spec.yaml",
        help="the spec whose store to use (spec.yaml)",
    )
    arguments.add_argument(
        "--output", metavar="FILE", type=Path, help="the file, instead of one in the run's folder"
    )
    options = arguments.parse_intermixed_args(argv)
    store = find_store(options.spec)
    folder = _folder(store, options.run)
    output: Path | None = options.output
    if output is not None and output.is_dir():
        raise UsageError(f"--output: {output} is a folder", hint="name a file")
    try:
        if output is not None:
            output.absolute().parent.mkdir(parents=True, exist_ok=True)
        print(write_report(store, folder, output))
    except OSError as error:
        message = f"{output or folder} cannot be written: {error.strerror}"
        raise StoreError(message, hint=write_hint(error)) from None
    return 0


def _folder(store: Store, name: str | None) -> Path:
    """Return the folder of a run, or of the last run that has ended."""
    runs = read_runs(store)
    ended = [*runs] or sorted(path.parent.name for path in store.runs.glob("*/run.json"))
    wanted = next(reversed(ended), None) if name is None else name
    run = find_run(wanted, runs | read_unfinished(store), store)
    folder = store.runs / str(run["run"])
    if run["status"] == UNFINISHED:
        hint = "its logs are in its folder; run the spec again to continue"
        message = f"the run {folder.name!r} is still running, or was killed"
        raise UsageError(message, hint=hint)
    return folder
