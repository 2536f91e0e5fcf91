"""What the stages of a pipeline have made: what is up to date, or what one run made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from llmpipe.contracts import Artifact
from llmpipe.errors import StoreError, UsageError
from llmpipe.graph.model import Binding, StageNode
from llmpipe.graph.sources import StageOutput
from llmpipe.runner.history import all_runs, find_run, runs_of
from llmpipe.runner.messages import describe, overlaid
from llmpipe.runner.plan import StagePlan, changes, make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.store import Store


class Advice(Protocol):
    """Says what to do about what is not there, in the terms of its caller."""

    def make(self, *stages: str) -> str:
        """Describe how to build the artifacts of some stages, or without a name of all."""

    def take(self, run: str) -> str:
        """Describe how to select the artifacts of an earlier run."""

    def runs(self) -> str:
        """Describe how to list the runs of the store."""


class PythonAdvice:
    """Says what to do in Python; see `Advice`."""

    def __init__(self, spec: Path) -> None:
        self._spec = os.path.relpath(spec)

    def make(self, *stages: str) -> str:
        return f"pipe.run(only={list(stages)!r})" if stages else "pipe.run()"

    def take(self, run: str) -> str:
        return f"llmpipe.load({self._spec!r}, run={run!r})"

    def runs(self) -> str:
        return f"llmpipe runs --spec {shlex.quote(self._spec)} lists the runs"


class Stored:
    """What the stages of a pipeline have made.

    Args:
        project: the pipeline's.
        run: the record of the run whose artifacts are meant; None for what is up to date.
        advice: describes what to do about missing artifacts.
        warn: called with each difference between the run's artifacts and the current spec.
    """

    def __init__(
        self,
        project: Project,
        run: Mapping[str, Any] | None,
        advice: Advice,
        warn: Callable[[str], None],
    ) -> None:
        self.project = project
        self._run, self._advice, self._warn = run, advice, warn
        self._told: set[str] = set()

    @cached_property
    def _plans(self) -> dict[str, StagePlan]:
        return make_plan(self.project)

    def record(self, stage: str, label: str | None = None, for_: str | None = None) -> KeyRecord:
        """Return the record of a stage; ``label`` is what messages call what is wanted of it.

        The advice is to make ``for_``, the stage that needs it, if one is named.

        Raises:
            StoreError: the stage is not up to date, or the run that is meant did not make it.
        """
        if self._run is not None:
            return self._made_by_run(self._run, stage, label or stage)
        plan = self._plans[stage]
        if plan.status != "cached" or plan.record is None:
            hints = [*self._older(stage), f"make it first: {self._advice.make(for_ or stage)}"]
            what = f"{label or stage} is not up to date in the store"
            raise StoreError(what, hint="\n".join(hints))
        return plan.record

    def is_kept(self, stage: str) -> bool:
        """Return whether a stage's artifacts were kept, by ``freeze`` or ``--keep``, although the
        stage has changed since they were made.

        Raises:
            StoreError: as in `record`.
        """
        if self._run is None:
            frozen = self._plans[stage].kept
        else:
            frozen = bool(self._run["stages"].get(stage, {}).get("kept"))
        return frozen or self.record(stage).kept_from is not None

    @property
    def document(self) -> Mapping[str, Any]:
        """The resolved spec by which the artifacts were made, with secrets by name."""
        found: Mapping[str, Any] = (
            self.project.graph.spec.document if self._run is None else self._run["document"]
        )
        return found

    def _older(self, stage: str) -> Iterator[str]:
        """Yield advice on the last run whose artifacts of a stage are still stored."""
        store = self.project.store
        for run in reversed(runs_of(store, self.project.graph.spec.path).values()):
            record = _record_of(run, stage, store)
            if record is not None:
                over = shlex.join(overlaid(run["profiles"], run["set"]))
                how = f"with {over}" if over else "by the spec as it was then"
                at = datetime.fromisoformat(record.created).astimezone()
                yield f"it is there as run {run['run']} has it, {how} (made {at:%Y-%m-%d %H:%M})"
                yield f"to take that: {self._advice.take(run['run'])}"
                return

    def _made_by_run(self, run: Mapping[str, Any], stage: str, label: str) -> KeyRecord:
        record = _record_of(run, stage, self.project.store)
        if record is None:
            ended = run["stages"].get(stage, {"status": "not reached"})["status"]
            gone = ended in ("done", "cached")
            what = "is no longer in the store" if gone else f"was not made by it ({ended})"
            raise StoreError(f"run {run['run']}: {label} {what}", hint=self._others(stage))
        lacking = set(self.project.graph.required_outputs(stage)) - record.outputs.keys()
        if lacking:
            names = ", ".join(sorted(lacking))
            what = f"run {run['run']} did not make all that {stage} makes now: {names}"
            raise StoreError(what, hint=self._others(stage))
        for changed in self._changes(run, stage):
            self._warn(f"not as the spec says now: {changed}")
        return record

    def _others(self, stage: str) -> str:
        return "\n".join(self._older(stage)) or self._advice.runs()

    def _changes(self, run: Mapping[str, Any], stage: str) -> Iterator[str]:
        """Yield the differences between the spec, under the run's settings, and the run's
        artifacts."""
        graph = self.project.graph
        for name in (*graph.needs(stage), stage):
            record, plan = _record_of(run, name, self.project.store), self._plans[name]
            if record is None or name in self._told:
                continue
            self._told.add(name)
            pending = graph.nodes[name].bindings.keys() - plan.key_inputs["inputs"].keys()
            files_of = self.project.files_of
            for cause in changes(
                graph.nodes[name], record.ingredients, plan.key_inputs, files_of, pending
            ):
                if cause["cause"] != "upstream":
                    yield f"{name}: {describe(cause)}"

    def path(self, node: StageNode, output: str, label: str | None = None) -> Path:
        """Return the path of a stage's output in the store.

        Raises:
            StoreError: the stage is not up to date, or was made without that output.
        """
        found = self.record(node.id, label).outputs.get(output)
        if found is None:
            raise StoreError(
                f"{node.id} was made without its output {output}",
                hint=f"make it again, with `force`: {self._advice.make(node.id)}",
            )
        return self.project.store.output_path(found)

    def created(self, node: StageNode) -> dict[str, float]:
        """Return when each input that a stage made was made, by port, in seconds since 1970.

        Raises:
            StoreError: a stage is not up to date.
        """
        found = {}
        for port, binding in node.bindings.items():
            if isinstance(binding.source, StageOutput):
                record = self.record(binding.source.stage)
                found[port] = datetime.fromisoformat(record.created).timestamp()
        return found

    def artifact(self, binding: Binding, for_: str | None = None) -> Artifact:
        """Return what an input is bound to, as the stage ``for_`` itself would get it.

        Raises:
            StoreError: a stage that makes it is not up to date.
        """
        records = {}
        current: Binding | None = binding
        while current is not None:
            if isinstance(current.source, StageOutput):
                stage = current.source.stage
                records[stage] = self.record(stage, current.label, for_)
            current = current.base
        shape = self.project.input_fingerprint(binding, records)
        if shape is None:
            raise StoreError(
                f"{binding.label} was never fetched",
                hint=f"run the spec first: {self._advice.make()}",
            )
        return self.project.input_request(binding, shape, records).artifact(
            self.project.store.objects
        )


def named_run(store: Store, spec: Path, name: str) -> dict[str, Any]:
    """Return the record of a run of a spec: the one whose name begins so, or the ``last``.

    Raises:
        UsageError: there is none, or it is a run of another spec.
    """
    own = runs_of(store, spec)
    run = find_run(next(reversed(own), None) if name == "last" else name, all_runs(store), store)
    if run["run"] not in own:
        hint = f"runs of {spec}: {', '.join(reversed(own)) or 'none'}"
        raise UsageError(f"run {run['run']} is one of {run.get('spec')}, not of {spec}", hint=hint)
    return run


def _record_of(run: Mapping[str, Any], stage: str, store: Store) -> KeyRecord | None:
    """Return what a run made of a stage, while all of it is in the store."""
    ended = run["stages"].get(stage)
    if ended is None or ended["status"] not in ("done", "cached") or ended["key"] is None:
        return None
    record = store.record(ended["key"])
    return record if record is not None and not store.missing(record) else None
