"""``llmpipe schema``: print, write or check the JSON Schemas of the spec language."""

from __future__ import annotations

import sys
from pathlib import Path

from llmpipe.cli.options import parser, print_json
from llmpipe.errors import UsageError, did_you_mean
from llmpipe.registry import all_kinds
from llmpipe.spec.schema import (
    editor_schema,
    editor_stage_schema,
    published_schemas,
    stale_schemas,
)


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser("schema", "Print the JSON Schema of a whole spec, or of one stage kind.")
    arguments.add_argument("kind", metavar="KIND", nargs="?", help="a stage kind")
    arguments.add_argument("--write", metavar="FOLDER", type=Path, help="write all schemas there")
    arguments.add_argument(
        "--check", metavar="FOLDER", type=Path, help="exit with 1 when a schema there is stale"
    )
    options = arguments.parse_args(argv)
    if options.write:
        for name, text in published_schemas().items():
            path = options.write / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return 0
    if options.check:
        stale = stale_schemas(options.check)
        for name in stale:
            print(f"{options.check / name} is stale", file=sys.stderr)
        return 1 if stale else 0
    if options.kind and options.kind not in all_kinds():
        hint = did_you_mean(options.kind, all_kinds()) or f"kinds: {', '.join(all_kinds())}"
        raise UsageError(f"there is no stage kind {options.kind!r}", hint=hint)
    print_json(editor_stage_schema(options.kind) if options.kind else editor_schema())
    return 0
