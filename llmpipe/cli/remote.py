"""What ``push`` and ``pull`` have in common: go through the stages and move what can be moved."""

from __future__ import annotations

import sys
from collections.abc import Callable

from llmpipe.cli.options import add_spec, find_stages, open_project, parser, print_json
from llmpipe.errors import UsageError
from llmpipe.runner.console import size_text
from llmpipe.runner.plan import plan_stage
from llmpipe.runner.project import Project
from llmpipe.runner.remote import Count, Remote
from llmpipe.runner.store import KeyRecord

Move = Callable[[Project, Remote, str, KeyRecord | None, Count], "str | None"]
"""Moves one stage's artifacts; says what it did, or None where there was nothing to move."""


def transfer(argv: list[str], command: str, description: str, move: Move) -> int:
    """Run a command that moves the artifacts of a spec's stages from store to store."""
    arguments = parser(command, description)
    add_spec(arguments)
    arguments.add_argument("stage", metavar="STAGE", nargs="*", help="these only; all by default")
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    options = arguments.parse_args(argv)
    project = open_project(options)
    address = project.remote_address
    if address is None:
        raise UsageError(
            f"{project.graph.spec.path.name} names no remote store",
            hint="add to the spec:  cache: {remote: s3://bucket/folder}",
        )
    wanted = {s for name in options.stage for s in find_stages(project.graph, name)}
    wanted |= {other for stage in wanted for other in project.graph.needs(stage)}
    project.store.create()
    with project.store.in_use():
        done, size = _move_all(project, Remote(address), wanted or set(project.graph.nodes), move)
    if options.json:
        print_json({"remote": address, "bytes": size, "stages": done})
    else:
        for name, what in done.items():
            print(f"{name}: {what or 'not there'}")
        print(f"{size_text(size)} moved", file=sys.stderr)
    return 0 if all(done.values()) else 1


def _move_all(
    project: Project, remote: Remote, wanted: set[str], move: Move
) -> tuple[dict[str, str | None], int]:
    """Go through the stages in their order: what one brings tells the key of the next."""
    done: dict[str, str | None] = {}
    records: dict[str, KeyRecord] = {}
    size = 0

    def count(more: int) -> None:
        nonlocal size
        size += more
        if sys.stderr.isatty():
            print(f"\r{size_text(size)} ", end="", file=sys.stderr, flush=True)

    for name, node in project.graph.nodes.items():
        if name not in wanted:
            continue
        plan = plan_stage(project, node, records)
        record = plan.record if plan.status == "cached" else None
        key = plan.key if record is None else record.key
        done[name] = move(project, remote, key, record, count) if key else None
        record = record or (project.store.record(key) if key and done[name] else None)
        if record is not None:
            records[name] = record
    return done, size
