"""What a command needs to use a stage of a spec: which one is meant, and where its inputs lie."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from llmpipe.cli.options import find_stage
from llmpipe.contracts import Artifact, reveal
from llmpipe.errors import StoreError, UsageError
from llmpipe.graph.model import Binding, Graph, StageNode
from llmpipe.graph.sources import StageOutput
from llmpipe.runner.plan import StagePlan, make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord

if TYPE_CHECKING:
    from llmpipe.retrieval.answer import Answerer


def stage_of_kind(graph: Graph, kinds: Sequence[str], name: str | None, example: str) -> StageNode:
    """Find the stage of some kinds that is meant: the one of this name, or the only one.

    Raises:
        UsageError: there is none, it is of another kind, or there are several to choose from.
    """
    wanted = " or ".join(kinds)
    if name is not None:
        node = graph.nodes[find_stage(graph, name)]
        if node.kind not in kinds:
            raise UsageError(f"{name} is a stage of kind {node.kind}, not {wanted}")
        return node
    found = [node for node in graph.nodes.values() if node.kind in kinds]
    if len(found) != 1:
        names = ", ".join(node.id for node in found)
        number = f"several {' and '.join(kinds)} stages" if found else f"no {wanted} stage"
        raise UsageError(
            f"{graph.spec.path.name} has {number}",
            hint=f"say which: {names}" if found else f"add one: {example}",
        )
    return found[0]


class Stored:
    """What the stages of a spec have made, as far as it is up to date in the store."""

    def __init__(self, project: Project, spec: str) -> None:
        self._project = project
        self._spec = spec
        self._plans: dict[str, StagePlan] | None = None

    def record(self, stage: str, label: str | None = None) -> KeyRecord:
        """Give the record of a stage; ``label`` is what messages call what is wanted of it.

        Raises:
            StoreError: the stage is not up to date.
        """
        if self._plans is None:
            self._plans = make_plan(self._project)
        plan = self._plans[stage]
        if plan.status != "cached" or plan.record is None:
            raise StoreError(
                f"{label or stage} is not up to date in the store",
                hint=f"make it first: llmpipe run {self._spec} --only {shlex.quote(stage)}",
            )
        return plan.record

    def made(self, binding: Binding) -> float | None:
        """Return when the stage that an input comes from was run, in seconds since 1970.

        None for a file of the user's own.

        Raises:
            StoreError: the stage is not up to date.
        """
        if not isinstance(binding.source, StageOutput):
            return None
        return datetime.fromisoformat(self.record(binding.source.stage).created).timestamp()

    def artifact(self, binding: Binding) -> Artifact:
        """Give what an input is bound to, as the stage itself would get it.

        Raises:
            StoreError: a stage that makes it is not up to date.
        """
        records = {}
        current: Binding | None = binding
        while current is not None:
            if isinstance(current.source, StageOutput):
                stage = current.source.stage
                records[stage] = self.record(stage, current.label)
            current = current.base
        shape = self._project.input_fingerprint(binding, records)
        if shape is None:
            raise StoreError(
                f"{binding.label} was never fetched",
                hint=f"run the spec first: llmpipe run {self._spec}",
            )
        return self._project.input_request(binding, shape, records).artifact()


@contextmanager
def open_answers(project: Project, spec: str, node: StageNode) -> Iterator[Answerer]:
    """Open what answers for a rag stage, as its check did and with the threshold that it found.

    Raises:
        StoreError: the stage is not up to date in the store.
        StageError: a part cannot be opened.
    """
    stored = Stored(project, spec)
    check = project.store.output_path(stored.record(node.id).outputs["check"])
    inputs = {port: stored.artifact(binding) for port, binding in node.bindings.items()}

    from llmpipe.stages.rag.opening import open_answerer, read_threshold

    with project.store.in_use(), open_answerer(
        node.config,  # type: ignore[arg-type]
        inputs,
        read_threshold(check),
        threads=len(os.sched_getaffinity(0)),
        reveal=reveal,
    ) as answerer:  # fmt: skip
        yield answerer
