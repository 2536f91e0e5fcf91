"""Share artifacts through the remote store that a spec names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from llmpipe.api.selection import Names, find_stages, names_of
from llmpipe.errors import StoreError, UsageError
from llmpipe.graph.model import StageNode
from llmpipe.runner.plan import plan_stage
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.registrations import register
from llmpipe.runner.remote import Count, Remote

Moved = Literal["moved", "there", "kept", "missing"]
Move = Callable[[StageNode, str, KeyRecord | None, Count], Moved]
"""Moves one stage's artifacts, given its key and the local store's record, if it has one."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a push or a pull has moved.

    Attributes:
        address: the address of the remote store.
        size: the number of bytes moved.
        stages: the result for each stage, by name: ``moved``; ``there``, when the target had
            everything; ``kept``, when `Pipeline.run` kept an artifact that was made from something
            else, which is never pushed; ``missing``, when there was nothing to move.
    """

    address: str
    size: int
    stages: Mapping[str, Moved]

    @property
    def complete(self) -> bool:
        """Whether the target now has the artifacts of every stage."""
        return {"moved", "there"}.issuperset(self.stages.values())


class RemoteStore:
    """The remote store of a spec. Made by `Pipeline.remote`."""

    def __init__(self, address: str, open_project: Callable[[], Project]) -> None:
        self.address = address
        self._open_project = open_project

    def push(
        self, stages: Names = (), *, progress: Callable[[int], None] | None = None
    ) -> Transfer:
        """Copy artifacts that are up to date from the local store to the remote one.

        Args:
            stages: push these stages and what they need; all stages by default.
            progress: called with the number of bytes moved so far.

        Raises:
            UsageError: there is no such stage.
            StoreError: a store cannot be read or written.
        """
        project, remote = self._open_project(), Remote(self.address)

        def move(node: StageNode, key: str, record: KeyRecord | None, count: Count) -> Moved:
            if record is None:
                return "missing"
            if record.kept_from is not None:  # others would take it for what its key says
                return "kept"
            return "moved" if remote.push(record, project.store, count) else "there"

        return self._transfer(project, remote, names_of(stages), move, progress, begin=True)

    def pull(
        self, stages: Names = (), *, progress: Callable[[int], None] | None = None
    ) -> Transfer:
        """Copy artifacts from the remote store to the local one. Nothing is run.

        Args:
            stages: pull these stages and what they need; all stages by default.
            progress: called with the number of bytes moved so far.

        Raises:
            UsageError: there is no such stage.
            StoreError: a store cannot be read or written.
        """
        project, remote = self._open_project(), Remote(self.address)

        def move(node: StageNode, key: str, record: KeyRecord | None, count: Count) -> Moved:
            if record is not None:
                return "there"
            outputs, required = node.ports.outputs, project.graph.required_outputs(node.id)
            types = {name: outputs[name].type for name in required}
            return "moved" if remote.fetch(key, types, project.store, count) else "missing"

        return self._transfer(project, remote, names_of(stages), move, progress, begin=False)

    def _transfer(
        self,
        project: Project,
        remote: Remote,
        names: list[str],
        move: Move,
        progress: Callable[[int], None] | None,
        *,
        begin: bool,
    ) -> Transfer:
        """Move the artifacts of stages; ``begin`` creates the remote store if there is none."""
        wanted = {stage for name in names for stage in find_stages(project.graph, name)}
        wanted |= {needed for stage in wanted for needed in project.graph.needs(stage)}
        size = 0

        def count(more: int) -> None:
            nonlocal size
            size += more
            if progress:
                progress(size)

        project.store.create()
        register(project.store, project.lock.path)
        with project.store.in_use():
            remote.reach(begin=begin)
            done = _move_all(project, wanted or set(project.graph.nodes), move, count)
        return Transfer(self.address, size, done)

    def __repr__(self) -> str:
        return f"<remote store {self.address}>"


def find_remote(open_project: Callable[[], Project]) -> RemoteStore:
    """Return the remote store that a spec names.

    Raises:
        UsageError: it names none.
    """
    project = open_project()
    if project.remote_address is None:
        raise UsageError(
            f"{project.graph.spec.path.name} has no remote store",
            hint="add to the spec:  cache: {remote: s3://bucket/folder}",
        )
    return RemoteStore(project.remote_address, open_project)


def _move_all(project: Project, wanted: set[str], move: Move, count: Count) -> dict[str, Moved]:
    """Move stage by stage, in order: the artifact of one determines the key of the next."""
    done: dict[str, Moved] = {}
    records: dict[str, KeyRecord] = {}
    for name, node in project.graph.nodes.items():
        if name not in wanted:
            continue
        plan = plan_stage(project, node, records)
        record = plan.record if plan.status == "cached" else None
        key = record.key if record is not None else plan.key
        done[name] = "missing"
        if key is not None:
            try:
                done[name] = move(node, key, record, count)
            except StoreError as error:
                raise StoreError(f"{name}: {error.message}", hint=error.hint) from None
            record = project.store.record(key) if done[name] == "moved" else record
        if record is not None:
            records[name] = record
    return done
