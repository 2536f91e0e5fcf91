"""``llmpipe validate``: check a spec, its references and the Axolotl settings in it."""

from __future__ import annotations

import sys

from llmpipe.cli.options import add_spec, open_project, parser
from llmpipe.runner.preflight import preflight


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "validate", "Check a spec: its keys, its references and the Axolotl settings in it."
    )
    add_spec(arguments)
    options = arguments.parse_args(argv)
    project = open_project(options)
    for warning in preflight(project, list(project.graph.nodes), strict=False):
        print(f"warning: {warning}", file=sys.stderr)
    derived = sum(node.derived_for is not None for node in project.graph.nodes.values())
    count = len(project.graph.nodes) - derived
    more = f" and {derived} derived" if derived else ""
    print(f"{options.spec}: sound, {count} stage{'' if count == 1 else 's'}{more}")
    return 0
