"""The common part of ``push`` and ``pull``: go through the stages and move artifacts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from llmpipe.api.selection import find_stages
from llmpipe.cli.options import add_spec, open_project, parser, print_json
from llmpipe.errors import StoreError, UsageError
from llmpipe.graph.model import StageNode
from llmpipe.runner.messages import size_text
from llmpipe.runner.plan import plan_stage
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.remote import Count, Remote
from llmpipe.runner.store import Store
from llmpipe.terminal import redraw


@dataclass(frozen=True, slots=True)
class Transfer:
    """One stage's artifacts, and the stores to move them between."""

    node: StageNode
    key: str
    record: KeyRecord | None
    """The local store's record of them."""
    store: Store
    remote: Remote
    count: Count


Moved = Literal["moved", "there", "kept", "nothing"]
"""The result for a stage: moved; all of it was there already; not moved because it was made from
other inputs; or there was nothing to move."""

Move = Callable[[Transfer], Moved]


def transfer(
    argv: list[str], command: str, description: str, move: Move, words: Mapping[Moved, str]
) -> int:
    """Run a command that moves the artifacts of a spec's stages between stores.

    ``words`` describe the result of a stage. The exit status is 1 if an artifact could not be
    moved.
    """
    arguments = parser(command, description)
    add_spec(arguments)
    arguments.add_argument(
        "stage", metavar="STAGE", nargs="*", help="these stages and what they need; all by default"
    )
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    options = arguments.parse_intermixed_args(argv)
    project = open_project(options)
    address = project.remote_address
    if address is None:
        raise UsageError(
            f"{project.graph.spec.path.name} has no remote store",
            hint="add to the spec:  cache: {remote: s3://bucket/folder}",
        )
    wanted = {s for name in options.stage for s in find_stages(project.graph, name)}
    wanted |= {other for stage in wanted for other in project.graph.needs(stage)}
    project.store.create()
    project.store.register(project.lock.path)
    with project.store.in_use():
        remote = Remote(address)
        remote.reach(begin=command == "push")
        done, size = _move_all(project, remote, wanted or set(project.graph.nodes), move)
    told = {name: words[moved] for name, moved in done.items()}
    if options.json:
        print_json({"remote": address, "bytes": size, "stages": told})
    else:
        for name, what in told.items():
            print(f"{name}: {what}")
        print(f"{size_text(size)} moved", file=sys.stderr)
    return 0 if {"moved", "there"}.issuperset(done.values()) else 1


def _move_all(
    project: Project, remote: Remote, wanted: set[str], move: Move
) -> tuple[dict[str, Moved], int]:
    """Go through the stages in order: the artifact of one determines the key of the next."""
    done: dict[str, Moved] = {}
    records: dict[str, KeyRecord] = {}
    size = 0

    def count(more: int) -> None:
        nonlocal size
        size += more
        redraw(f"{size_text(size)} ")

    for name, node in project.graph.nodes.items():
        if name not in wanted:
            continue
        plan = plan_stage(project, node, records)
        record = plan.record if plan.status == "cached" else None
        key = record.key if record is not None else plan.key
        done[name] = "nothing"
        if key is not None:
            try:
                done[name] = move(Transfer(node, key, record, project.store, remote, count))
            except StoreError as error:
                raise StoreError(f"{name}: {error.message}", hint=error.hint) from None
            record = project.store.record(key) if done[name] == "moved" else record
        if record is not None:
            records[name] = record
    return done, size
