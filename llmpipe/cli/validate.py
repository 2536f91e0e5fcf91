"""``llmpipe validate``: check a spec, its references and the Axolotl settings in it."""

from __future__ import annotations

import argparse

from llmpipe.cli.options import add_spec, open_project, parser, print_json, print_warnings
from llmpipe.errors import SpecError
from llmpipe.graph.model import Graph
from llmpipe.runner.preflight import preflight


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
    graph, warnings = _check(options)
    print_warnings(warnings)
    derived = sum(node.derived_for is not None for node in graph.nodes.values())
    count = len(graph.nodes) - derived
    more = f" and {derived} derived" if derived else ""
    print(f"{options.spec}: valid, {count} stage{'' if count == 1 else 's'}{more}")
    return 0


def _check(options: argparse.Namespace) -> tuple[Graph, list[str]]:
    """Return the graph of a valid spec, and its warnings."""
    project = open_project(options)
    return project.graph, preflight(project, list(project.graph.nodes), strict=False)


def _as_json(options: argparse.Namespace) -> int:
    answer = {"spec": options.spec, "sound": True, "problems": [], "more": 0, "warnings": []}
    try:
        _, answer["warnings"] = _check(options)
    except SpecError as error:
        answer |= {"sound": False, **error.as_json()}
    print_json(answer)
    return 0 if answer["sound"] else SpecError.exit_code
