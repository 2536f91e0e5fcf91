"""``llmpipe graph``: draw the stages of a spec and their dependencies."""

from __future__ import annotations

from pathlib import Path

from llmpipe.api.drawing import FORMATS
from llmpipe.cli.options import add_spec, open_pipeline, parser
from llmpipe.errors import StoreError, UsageError
from llmpipe.runner.disk import atomic_write, write_hint


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "graph",
        "Draw the compiled graph: every stage, derived ones dashed, every point of a sweep.",
    )
    add_spec(arguments)
    arguments.add_argument(
        "--format",
        choices=FORMATS,
        help="the format; by default, that of the file's extension, or mermaid",
    )
    arguments.add_argument("--output", metavar="FILE", type=Path, help="write to a file instead")
    options = arguments.parse_args(argv)
    if options.output is not None and options.output.is_dir():
        raise UsageError(f"--output: {options.output} is a folder", hint="name a file")
    ending = options.output.suffix[1:] if options.output else ""
    wanted = options.format or (ending if ending in FORMATS else "mermaid")
    text = open_pipeline(options).draw(wanted)
    if options.output is None:
        print(text, end="")
        return 0
    try:
        options.output.absolute().parent.mkdir(parents=True, exist_ok=True)
        atomic_write(options.output, text, durable=False)
    except OSError as error:
        message = f"{options.output} cannot be written: {error.strerror}"
        raise StoreError(message, hint=write_hint(error)) from None
    print(options.output)
    return 0
