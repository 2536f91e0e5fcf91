"""``llmpipe run``: bring every stage of a spec up to date.

If nothing has changed since a run that had nothing to do, this is reported without reading the
spec. Everything else is imported only if something has to run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llmpipe.cli.main import unheard
from llmpipe.cli.options import add_spec, parser, whole_number
from llmpipe.runner.console import make_view
from llmpipe.runner.messages import closing_text
from llmpipe.runner.recall import recall, repeat
from llmpipe.runner.store import Store, home_for


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parse(argv)
    if _is_plain(options) and _has_recalled(options):
        return 0
    from llmpipe.cli.run_stages import run_stages

    return run_stages(options)


def _is_plain(options: argparse.Namespace) -> bool:
    """Return whether the options only ask to bring everything up to date."""
    changing = ("settings", "only", "from_", "force", "resample", "keep", "locked")
    showing = ("dry_run", "json")
    return not any(getattr(options, name) for name in (*changing, *showing))


def _has_recalled(options: argparse.Namespace) -> bool:
    """Repeat the result of an earlier run that found nothing to do, if it is still valid."""
    spec = Path(options.spec)
    store = Store(home_for(spec))
    content = recall(store, spec, options.profiles)
    if content is None:
        return False
    view = make_view(quiet=options.quiet, plain=options.plain)
    try:
        run, seconds = repeat(store, content, [view])
    finally:
        view.close()
    if not options.quiet:
        with unheard(sys.stderr):
            statuses = [stage["status"] for stage in content["stages"].values()]
            print(closing_text("done", seconds, statuses, run), file=sys.stderr)
    return True


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = parser(
        "run", "Bring every stage of a spec up to date; cached stages are not run again."
    )
    add_spec(arguments)
    arguments.add_argument(
        "--only",
        metavar="STAGE",
        action="append",
        help="run only this stage and what it needs (repeatable)",
    )
    arguments.add_argument(
        "--from",
        metavar="STAGE",
        action="append",
        default=[],
        dest="from_",
        help="run this stage and all that depend on it, even if cached (repeatable)",
    )
    arguments.add_argument(
        "--force",
        metavar="STAGE",
        action="append",
        default=[],
        help="run this stage even if cached (repeatable)",
    )
    arguments.add_argument(
        "--resample",
        metavar="STAGE",
        action="append",
        default=[],
        help="run this stage and ask its model again, ignoring the journal (repeatable)",
    )
    arguments.add_argument(
        "--keep",
        metavar="STAGE",
        action="append",
        default=[],
        help="treat this stage's last artifacts as fresh, from now on (repeatable)",
    )
    arguments.add_argument(
        "-j",
        "--jobs",
        type=whole_number(at_least=1),
        metavar="N",
        help="number of stages that may run at once; by default, as many as fit",
    )
    arguments.add_argument(
        "-k",
        "--keep-going",
        action="store_true",
        help="after a failure, continue with stages that do not depend on it",
    )
    arguments.add_argument(
        "-n", "--dry-run", action="store_true", help="show the plan and run nothing"
    )
    arguments.add_argument(
        "--locked",
        action="store_true",
        help="refuse differences from the lock file: settings, inputs, versions, exact artifacts",
    )
    arguments.add_argument(
        "-y",
        "--yes",
        action="store_true",
        help="do not ask before repeating long work, or if space may be short",
    )
    arguments.add_argument(
        "--ignore-estimate",
        action="store_true",
        help="run a stage although it seems to need more memory than there is",
    )
    arguments.add_argument(
        "--plain", action="store_true", help="print plain lines, without a live view"
    )
    arguments.add_argument("-q", "--quiet", action="store_true", help="show failures only")
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    return arguments.parse_args(argv)
