"""``llmpipe gc``: free what no lock file and no recent run needs."""

from __future__ import annotations

from llmpipe.cli.options import add_store, open_store, parser, print_json, whole_number
from llmpipe.runner.gc import KEEP_RUNS, find_garbage, free
from llmpipe.runner.messages import size_text


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "gc",
        "Free the artifacts that no lock file, no stage's last run and no recent run needs.\n"
        "Replies of teachers are never freed.",
    )
    add_store(arguments)
    arguments.add_argument(
        "--keep-runs",
        type=whole_number(at_least=1),
        default=KEEP_RUNS,
        metavar="N",
        help=f"number of recent runs to keep, with their logs and artifacts ({KEEP_RUNS})",
    )
    arguments.add_argument(
        "-n", "--dry-run", action="store_true", help="only print what would be freed"
    )
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    options = arguments.parse_intermixed_args(argv)
    store = open_store(options)
    with store.alone("gc"):
        garbage = find_garbage(store, options.keep_runs)
        if not options.dry_run:
            free(garbage, store)
    counts = {
        "artifacts": len(garbage.objects),
        "records": len(garbage.keys),
        "unfinished": len(garbage.work),
        "runs": len(garbage.runs),
    }
    if options.json:
        print_json({**counts, "bytes": garbage.size, "freed": not options.dry_run})
        return 0
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"{'would free' if options.dry_run else 'freed'} {size_text(garbage.size)}: {told}")
    return 0
