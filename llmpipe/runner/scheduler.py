"""Run a plan: one stage after the other, each in its worker, and keep the record of the run."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from llmpipe import __version__
from llmpipe.backends import hub
from llmpipe.errors import LlmpipeError
from llmpipe.graph.compile import StageNode
from llmpipe.graph.sources import HubRepo
from llmpipe.runner.events import EventLog, Listener
from llmpipe.runner.plan import StagePlan, plan_stage
from llmpipe.runner.process import reap_group, stop_group
from llmpipe.runner.project import Project
from llmpipe.runner.store import KeyRecord, atomic_write, file_name, writing

LOG_TAIL = 15
"""Lines of a failed stage's log that its error shows."""


@dataclass(slots=True)
class StageOutcome:
    """How a stage of a run ended. ``status`` is cached, done, failed, interrupted, blocked (what
    it needs failed) or skipped (not asked for)."""

    id: str
    kind: str
    status: str
    key: str | None = None
    seconds: float = 0.0
    causes: list[dict[str, Any]] = field(default_factory=list)
    record: KeyRecord | None = None
    error: dict[str, Any] | None = None


@dataclass(slots=True)
class RunOutcome:
    """How a run ended: ``status`` is done, failed or interrupted."""

    id: str
    folder: Path
    status: str
    stages: dict[str, StageOutcome]

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return {"done": 0, "failed": 1, "interrupted": 130}[self.status]


def run_project(
    project: Project,
    *,
    only: Collection[str] | None = None,
    forced: Collection[str] = (),
    keep_going: bool = False,
    listeners: Collection[Listener] = (),
    settings: Collection[str] = (),
) -> RunOutcome:
    """Bring every stage (or those in ``only``) up to date.

    Args:
        project: what to run.
        only: stages to consider, those they need included; all by default.
        forced: stages to run even when cached.
        keep_going: after a failure, go on with what does not hang on it.
        listeners: called with each event as it happens.
        settings: the ``--set`` texts, for the record.

    Raises:
        StoreError: the store cannot be written.
    """
    run = _Run(project, set(forced), keep_going, list(listeners), list(settings))
    try:
        return run.execute(only)
    finally:
        run.events.close()


class _Run:
    def __init__(
        self,
        project: Project,
        forced: set[str],
        keep_going: bool,
        listeners: list[Listener],
        settings: list[str],
    ) -> None:
        self.project, self.forced, self.keep_going = project, forced, keep_going
        self.settings = settings
        project.store.create()
        self.begun = datetime.now(UTC)
        self.id = f"{self.begun:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.folder = project.store.runs / self.id
        with writing(project.store.home):
            self.folder.mkdir(parents=True)
            self.events = EventLog(self.folder / "events.jsonl", listeners)
        self.records: dict[str, KeyRecord] = {}
        self.outcomes: dict[str, StageOutcome] = {}

    def execute(self, only: Collection[str] | None) -> RunOutcome:
        nodes = self.project.graph.nodes
        self._emit("run-started", spec=str(self.project.graph.spec.path), stages=list(nodes))
        stopped: str | None = None
        for node in nodes.values():
            if only is not None and node.id not in only:
                outcome = StageOutcome(node.id, node.kind, "skipped")
            elif self._blocked(node) or stopped:
                outcome = StageOutcome(node.id, node.kind, "blocked")
            else:
                outcome = self._stage(node)
            self.outcomes[node.id] = outcome
            self._emit("stage-ended", **_outcome_json(outcome))
            if outcome.status == "interrupted":
                stopped = "interrupted"
            elif outcome.status == "failed" and not self.keep_going:
                stopped = "failed"
        failed = any(o.status == "failed" for o in self.outcomes.values())
        status = "interrupted" if stopped == "interrupted" else "failed" if failed else "done"
        result = RunOutcome(self.id, self.folder, status, self.outcomes)
        self._emit("run-ended", status=status)
        self._write_record(result)
        return result

    def _blocked(self, node: StageNode) -> bool:
        return any(self.outcomes[name].status not in ("done", "cached") for name in node.upstream())

    def _stage(self, node: StageNode) -> StageOutcome:
        begun = time.monotonic()
        try:
            self._resolve_hub(node)
            plan = plan_stage(self.project, node, self.records, forced=node.id in self.forced)
            if plan.status == "cached":
                outcome = StageOutcome(node.id, node.kind, "cached", plan.key, record=plan.record)
            else:
                outcome = self._run_worker(node, plan)
        except LlmpipeError as error:
            outcome = StageOutcome(node.id, node.kind, "failed")
            outcome.error = {"message": error.message, "hint": error.hint}
        except KeyboardInterrupt:
            outcome = StageOutcome(node.id, node.kind, "interrupted")
        outcome.seconds = round(time.monotonic() - begun, 3)
        if outcome.record is not None:
            self.records[node.id] = outcome.record
            self.project.store.remember_latest(
                self.project.graph.spec.path, node.id, outcome.record.ingredients
            )
        return outcome

    def _resolve_hub(self, node: StageNode) -> None:
        """Resolve unpinned hub repositories to commits, once and for all."""
        for binding in node.bindings.values():
            source = binding.source
            if isinstance(source, HubRepo) and self.project.commit_of(source) is None:
                commit = hub.resolve_commit(source.repo, source.revision)
                self.project.remember_commit(source, commit)

    def _run_worker(self, node: StageNode, plan: StagePlan) -> StageOutcome:
        outcome = StageOutcome(node.id, node.kind, "failed", plan.key, causes=plan.causes)
        assert plan.key is not None
        request = self.project.request(
            node,
            plan.key,
            plan.made_of,
            self.records,
            log=self.folder / f"{file_name(node.id)}.log",
            force=plan.record is not None,
        )
        path = self.folder / f"{file_name(node.id)}.request.json"
        with writing(self.project.store.home):
            path.write_bytes(msgspec.json.encode(request))
        self._emit("stage-started", stage=node.id, kind=node.kind, causes=plan.causes)
        command = [sys.executable, "-m", "llmpipe.runner.worker", str(path)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        try:
            finished = self._follow(node, process)
        except KeyboardInterrupt:
            stop_group(process)
            outcome.status = "interrupted"
            return outcome
        finally:
            reap_group(process)
            process.wait()
        self._conclude(outcome, finished, node, request.log)
        return outcome

    def _conclude(
        self, outcome: StageOutcome, finished: dict[str, Any], node: StageNode, log: str
    ) -> None:
        outcome.status = finished["status"]
        if outcome.status in ("done", "cached"):
            assert outcome.key is not None
            outcome.record = self.project.store.record(outcome.key)
            if outcome.record is not None:
                return
            outcome.status = "failed"
            finished = {"error": {"message": "its record is not in the store", "hint": None}}
        outcome.error = {**finished["error"], "log": log, "tail": _tail(Path(log))}

    def _follow(self, node: StageNode, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Pass the worker's events on; give its last word."""
        finished: dict[str, Any] = {
            "status": "failed",
            "error": {
                "message": "its worker was killed",
                "hint": "run again: what was finished is kept",
            },
        }
        for event in _events(process, node.config.timeout):
            if event["event"] == "finished":
                finished = event
            elif event["event"] == "timeout":
                stop_group(process)
                message = f"it ran longer than its timeout of {node.config.timeout:g} s"
                return {"status": "failed", "error": {"message": message, "hint": None}}
            else:
                self._emit(event.pop("event"), stage=node.id, **event)
        return finished

    def _emit(self, event: str, **fields: Any) -> None:
        self.events.emit(event, **fields)

    def _write_record(self, result: RunOutcome) -> None:
        spec = self.project.graph.spec
        record = {
            "run": self.id,
            "spec": str(spec.path),
            "name": spec.name,
            "profiles": list(spec.profiles),
            "set": self.settings,
            "llmpipe": __version__,
            "python": sys.version.split()[0],
            "started": self.begun.isoformat(timespec="milliseconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": result.status,
            "document": spec.document,
            "stages": {o.id: _outcome_json(o) for o in result.stages.values()},
        }
        with writing(self.project.store.home):
            atomic_write(self.folder / "run.json", json.dumps(record, indent=1) + "\n")


def _outcome_json(outcome: StageOutcome) -> dict[str, Any]:
    record = outcome.record
    return {
        "stage": outcome.id,
        "kind": outcome.kind,
        "status": outcome.status,
        "key": outcome.key,
        "seconds": outcome.seconds,
        "causes": outcome.causes,
        "metrics": record.metrics if record else {},
        "summary": record.summary if record else "",
        "error": outcome.error,
    }


def _events(process: subprocess.Popen[bytes], timeout: float | None) -> Iterator[dict[str, Any]]:
    """Give the worker's events until its output ends; one ``timeout`` event when time is up."""
    assert process.stdout is not None
    deadline = None if timeout is None else time.monotonic() + timeout
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not selector.select(left):
                yield {"event": "timeout"}
                return
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 20_000))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-LOG_TAIL:]
