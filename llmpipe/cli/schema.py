"""``llmpipe schema``: print, write or check the JSON Schemas and the reference page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llmpipe.cli.options import parser, print_json
from llmpipe.errors import UsageError, did_you_mean
from llmpipe.registry import all_kinds
from llmpipe.spec.reference import reference_page
from llmpipe.spec.schema import (
    editor_schema,
    editor_stage_schema,
    published_schemas,
    stale_schemas,
)


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parse(argv)
    if options.check:
        stale = [options.check / name for name in stale_schemas(options.check)]
        if options.docs and not _holds(options.docs, reference_page()):
            stale.append(options.docs)
        for path in stale:
            print(f"{path} is stale", file=sys.stderr)
        return 1 if stale else 0
    if options.write or options.docs:
        _write(options)
        return 0
    if options.kind and options.kind not in all_kinds():
        hint = did_you_mean(options.kind, all_kinds()) or f"kinds: {', '.join(all_kinds())}"
        raise UsageError(f"there is no stage kind {options.kind!r}", hint=hint)
    print_json(
        editor_stage_schema(options.kind, installed=True)
        if options.kind
        else editor_schema(installed=True)
    )
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = parser("schema", "Print the JSON Schema of a whole spec, or of one stage kind.")
    arguments.add_argument("kind", metavar="KIND", nargs="?", help="a stage kind")
    what = arguments.add_mutually_exclusive_group()
    what.add_argument("--write", metavar="FOLDER", type=Path, help="write all schemas there")
    what.add_argument(
        "--check", metavar="FOLDER", type=Path, help="exit with 1 when a schema there is stale"
    )
    arguments.add_argument(
        "--docs",
        metavar="FILE",
        type=Path,
        help="write the reference page of the stage kinds; with --check, check it too",
    )
    options = arguments.parse_intermixed_args(argv)
    if options.kind and (options.write or options.check or options.docs):
        raise UsageError(f"--write, --check and --docs are for all kinds, not for {options.kind!r}")
    return options


def _write(options: argparse.Namespace) -> None:
    files = {options.docs: reference_page()} if options.docs else {}
    if options.write:
        files |= {options.write / name: text for name, text in published_schemas().items()}
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
