"""What ``push`` and ``pull`` have in common: their arguments and their output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from llmpipe.api.remote import Moved, RemoteStore, Transfer
from llmpipe.cli.options import add_spec, open_pipeline, parser, print_json
from llmpipe.runner.messages import size_text
from llmpipe.terminal import redraw


def transfer(
    argv: list[str],
    command: str,
    description: str,
    move: Callable[..., Transfer],
    words: Mapping[Moved, str],
) -> int:
    """Run a command that moves the artifacts of a spec's stages; return the exit code.

    Args:
        argv: the arguments of the command.
        command: the name of the command.
        description: what the command does.
        move: the method of `RemoteStore` that does it.
        words: describe the result for a stage.
    """
    arguments = parser(command, description)
    add_spec(arguments)
    arguments.add_argument(
        "stage", metavar="STAGE", nargs="*", help="these stages and what they need; all by default"
    )
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    options = arguments.parse_intermixed_args(argv)
    remote: RemoteStore = open_pipeline(options).remote
    done = move(remote, options.stage, progress=lambda size: redraw(f"{size_text(size)} "))
    told = {name: words[moved] for name, moved in done.stages.items()}
    if options.json:
        print_json({"remote": done.address, "bytes": done.size, "stages": told})
    else:
        for name, what in told.items():
            print(f"{name}: {what}")
        print(f"{size_text(done.size)} moved", file=sys.stderr)
    return 0 if done.complete else 1
