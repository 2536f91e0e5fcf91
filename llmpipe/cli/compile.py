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
    arguments.add_argument(
        "--device",
        metavar="DEVICE",
        help="the device of the machine that will run it: cpu, cuda or cuda:N for N GPUs (this\n"
        "machine's); models of the hub keep their ids and are not downloaded",
    )
    arguments.add_argument(
        "--base-model",
        choices=["path", "copy", "relative"],
        default="path",
        help="name a local base model by its path here (path), copy it into DIR, or name it\n"
        "relative to DIR",
    )
    options = arguments.parse_args(argv)
    notes = open_pipeline(options).compile(
        options.stage, options.out, device=options.device, base_model=options.base_model
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(options.out)
    return 0
