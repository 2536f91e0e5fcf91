"""``llmpipe compile``: write what a training stage would run, so that it runs without llmpipe."""

from __future__ import annotations

import sys
from pathlib import Path

from llmpipe.cli.options import add_spec, open_pipeline, parser


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "compile",
        "Write what a stage would run: config, data, environment and run.sh. Its inputs must be\n"
        "in the store: llmpipe run SPEC --only STAGE makes them.",
    )
    add_spec(arguments)
    arguments.add_argument("stage", metavar="STAGE", help="a train stage")
    arguments.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder")
    options = arguments.parse_args(argv)
    for note in open_pipeline(options).compile(options.stage, options.out):
        print(f"note: {note}", file=sys.stderr)
    print(options.out)
    return 0
