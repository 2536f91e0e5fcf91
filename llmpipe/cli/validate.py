"""``llmpipe validate``: check a spec, its references and the Axolotl settings in it."""

from __future__ import annotations

import argparse

from llmpipe.cli.options import add_spec, open_pipeline, parser, print_json, print_warnings
from llmpipe.errors import SpecError


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "validate", "Check a spec: its keys, its references and the Axolotl settings in it."
    )
    add_spec(arguments)
    arguments.add_argument("--json", action="store_true", help="print problems as JSON")
    options = arguments.parse_args(argv)
    if options.json:
        return _as_json(options)
    pipeline = open_pipeline(options)
    print_warnings(pipeline.validate())
    derived = sum(node.derived_for is not None for node in pipeline.graph.nodes.values())
    count = len(pipeline.stages) - derived
    more = f" and {derived} derived" if derived else ""
    print(f"{options.spec}: valid, {count} stage{'' if count == 1 else 's'}{more}")
    return 0


def _as_json(options: argparse.Namespace) -> int:
    answer = {"spec": options.spec, "sound": True, "problems": [], "more": 0, "warnings": []}
    try:
        answer["warnings"] = open_pipeline(options).validate()
    except SpecError as error:
        answer |= {"sound": False, **error.as_json()}
    print_json(answer)
    return 0 if answer["sound"] else SpecError.exit_code
