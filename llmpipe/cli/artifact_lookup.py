"""What a command needs to use a stage of a spec: which one is meant, and where its inputs lie."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.cli.options import find_stage, find_store, open_project
from llmpipe.contracts import Artifact, reveal
from llmpipe.errors import StoreError, UsageError
from llmpipe.graph.model import Binding, Graph, StageNode
from llmpipe.graph.sources import StageOutput
from llmpipe.runner.history import all_runs, find_run, runs_of
from llmpipe.runner.messages import describe, overlaid
from llmpipe.runner.plan import StagePlan, changes, make_plan
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.store import Store

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
    """What the stages of a spec have made: what is up to date, or what one run made.

    Args:
        options: the shared arguments and those of `add_run`.
        command: the words of the command, to say how to call it again.

    Raises:
        UsageError: ``--run`` names no run of the spec, or stands beside settings of its own.
    """

    def __init__(self, options: Namespace, command: Sequence[str]) -> None:
        self._command = ["llmpipe", *command]
        self._run = _find_run(options)
        if self._run is not None:
            options.profiles, options.settings = self._run["profiles"], self._run["set"]
        self._over = overlaid(options.profiles, options.settings)
        self._spec = options.spec
        self.project = open_project(options)

    @cached_property
    def _plans(self) -> dict[str, StagePlan]:
        return make_plan(self.project)

    def record(self, stage: str, label: str | None = None) -> KeyRecord:
        """Give the record of a stage; ``label`` is what messages call what is wanted of it.

        Raises:
            StoreError: the stage is not up to date, or the run that is meant did not make it.
        """
        if self._run is not None:
            return self._made_by_run(self._run, stage, label or stage)
        plan = self._plans[stage]
        if plan.status != "cached" or plan.record is None:
            first = ["llmpipe", "run", self._spec, *self._over, "--only", stage]
            hints = [*self._older(stage), f"make it first: {shlex.join(first)}"]
            what = f"{label or stage} is not up to date in the store"
            raise StoreError(what, hint="\n".join(hints))
        return plan.record

    def _older(self, stage: str) -> Iterator[str]:
        """Yield what to say of the last run whose making of a stage is still there."""
        store = self.project.store
        for run in reversed(runs_of(store, self.project.graph.spec.path).values()):
            record = _record_of(run, stage, store)
            if record is not None:
                over = shlex.join(overlaid(run["profiles"], run["set"]))
                how = f"with {over}" if over else "by the spec as it was then"
                at = datetime.fromisoformat(record.created).astimezone()
                yield f"it is there as run {run['run']} has it, {how} (made {at:%Y-%m-%d %H:%M})"
                yield f"to take that: {shlex.join([*self._command, '--run', run['run']])}"
                return

    def _made_by_run(self, run: Mapping[str, Any], stage: str, label: str) -> KeyRecord:
        record = _record_of(run, stage, self.project.store)
        if record is None:
            ended = run["stages"].get(stage, {"status": "not reached"})["status"]
            gone = ended in ("done", "cached")
            what = "is no longer in the store" if gone else f"was not made by it ({ended})"
            raise StoreError(f"run {run['run']}: {label} {what}", hint=self._others(stage))
        lacking = self.project.graph.nodes[stage].ports.outputs.keys() - record.outputs.keys()
        if lacking:
            names = ", ".join(sorted(lacking))
            what = f"run {run['run']} did not make all that {stage} makes now: {names}"
            raise StoreError(what, hint=self._others(stage))
        for changed in self._changes(run, stage):
            print(f"warning: not as the spec says now: {changed}", file=sys.stderr)
        return record

    def _others(self, stage: str) -> str:
        return "\n".join(self._older(stage)) or "llmpipe runs lists the runs"

    def _changes(self, run: Mapping[str, Any], stage: str) -> Iterator[str]:
        """Yield what the spec, under the run's settings, says otherwise than what the run made."""
        graph = self.project.graph
        for name in (*graph.needs(stage), stage):
            record, plan = _record_of(run, name, self.project.store), self._plans[name]
            if record is None or name in self._told:
                continue
            self._told.add(name)
            pending = graph.nodes[name].bindings.keys() - plan.made_of["inputs"].keys()
            files_of = self.project.files_of
            for cause in changes(
                graph.nodes[name], record.ingredients, plan.made_of, files_of, pending
            ):
                if cause["cause"] != "upstream":
                    yield f"{name}: {describe(cause)}"

    @cached_property
    def _told(self) -> set[str]:
        """The stages whose changes have been told."""
        return set()

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
        shape = self.project.input_fingerprint(binding, records)
        if shape is None:
            raise StoreError(
                f"{binding.label} was never fetched",
                hint=f"run the spec first: llmpipe run {self._spec}",
            )
        return self.project.input_request(binding, shape, records).artifact()


def _find_run(options: Namespace) -> dict[str, Any] | None:
    """Return the run that ``--run`` names."""
    if options.run is None:
        return None
    if options.profiles or options.settings:
        hint = "a run is taken with its own profiles and settings: leave out --profile and --set"
        raise UsageError("--run goes with neither --profile nor --set", hint=hint)
    store, spec = find_store(options.spec), Path(options.spec)
    own, name = runs_of(store, spec), options.run
    run = find_run(next(reversed(own), None) if name == "last" else name, all_runs(store), store)
    if run["run"] not in own:
        hint = f"llmpipe runs --spec {shlex.quote(options.spec)} lists the runs of the store"
        raise UsageError(f"run {run['run']} is one of {run.get('spec')}, not of {spec}", hint=hint)
    return run


def _record_of(run: Mapping[str, Any], stage: str, store: Store) -> KeyRecord | None:
    """Return what a run made of a stage, while all of it is in the store."""
    ended = run["stages"].get(stage)
    if ended is None or ended["status"] not in ("done", "cached") or ended["key"] is None:
        return None
    record = store.record(ended["key"])
    return record if record is not None and not store.missing(record) else None


@contextmanager
def open_answers(stored: Stored, node: StageNode) -> Iterator[Answerer]:
    """Open what answers for a rag stage, as its check did and with the threshold that it found.

    Raises:
        StoreError: the stage is not up to date in the store.
        StageError: a part cannot be opened.
    """
    check = stored.project.store.output_path(stored.record(node.id).outputs["check"])
    inputs = {port: stored.artifact(binding) for port, binding in node.bindings.items()}

    from llmpipe.stages.rag.factory import open_answerer, read_threshold

    with stored.project.store.in_use(), open_answerer(
        node.config,  # type: ignore[arg-type]
        inputs,
        read_threshold(check),
        threads=len(os.sched_getaffinity(0)),
        reveal=reveal,
    ) as answerer:  # fmt: skip
        yield answerer
