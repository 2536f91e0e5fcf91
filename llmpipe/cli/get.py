"""``llmpipe get``: copy an artifact out of the store."""

from __future__ import annotations

from llmpipe.cli.options import add_run, add_spec, open_pipeline, parser
from llmpipe.errors import UsageError


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser("get", "Copy what a stage made out of the store.")
    add_spec(arguments)
    add_run(arguments)
    arguments.add_argument(
        "artifact", metavar="STAGE[.OUTPUT]", help="the stage or output to copy, as a spec names it"
    )
    arguments.add_argument(
        "path",
        metavar="PATH",
        help="the target: a new name, or for a single file an existing folder",
    )
    options = arguments.parse_args(argv)
    if options.path == "-":
        raise UsageError("get does not write to standard output", hint="name a new path, or ./-")
    command = ["get", options.spec, options.artifact, options.path]
    print(open_pipeline(options, command).copy(options.artifact, options.path))
    return 0
