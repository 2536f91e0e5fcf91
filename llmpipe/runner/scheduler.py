"""Run a plan: start stages that are ready and fit, and follow the executor's events.

It is one loop in one thread. A stage is *waiting* until all of its inputs exist, then *ready*, then
*running* in the executor; a cached stage never runs. Of the ready stages that fit into the free
resources, the one on the longest remaining path starts first.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from llmpipe.errors import LlmpipeError
from llmpipe.graph.model import StageNode
from llmpipe.runner.active_stage import Running
from llmpipe.runner.disk import writing
from llmpipe.runner.drift import artifact_drift
from llmpipe.runner.estimate import critical_paths
from llmpipe.runner.events import EventLog, Listener
from llmpipe.runner.executors.base import Executor, Handle
from llmpipe.runner.interrupt import Interrupt
from llmpipe.runner.options import RunOptions
from llmpipe.runner.outcome import RunOutcome, StageOutcome, content, write_record
from llmpipe.runner.plan import StagePlan
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.replan import Replanner
from llmpipe.runner.resources import Grant, Pool
from llmpipe.runner.store import file_name

RETRY_PAUSES = (1.0, 60.0)
"""Seconds before the first retry of a stage, doubled for each further retry, and the limit."""

LONGEST_WAIT = 3600.0
"""Seconds after which the scheduler wakes up without an event: the system does not take waits of a
month."""

INTERRUPTED = {"status": "interrupted", "error": {"message": "interrupted", "hint": None}}
KILLED = {"message": "its worker was killed", "hint": "run again: what was finished is kept"}


class Scheduler:
    """One run of a plan.

    Args:
        run: The name of the run, and when it began.
        project: What to run.
        plans: Its current plan; stages that are cached there are not checked again.
        options: How to run.
        listeners: Called with each event as it happens.
        interrupt: Counts the requests to stop.
        executor: Runs the stages.
    """

    def __init__(
        self,
        run: tuple[str, datetime],
        project: Project,
        plans: Mapping[str, StagePlan],
        options: RunOptions,
        listeners: Collection[Listener],
        interrupt: Interrupt,
        executor: Executor,
    ) -> None:
        self.project, self.options = project, options
        self.interrupt, self.executor = interrupt, executor
        self.clock = time.monotonic()
        self.id, self.begun = run
        self.folder = project.store.runs / self.id
        with writing(project.store.home):
            self.folder.mkdir(parents=True)
            self.events = EventLog(self.folder / "events.jsonl", list(listeners))
        nodes = project.graph.nodes
        machine = executor.capacity()
        self.pool = Pool(machine, options.jobs)
        self.replanner = Replanner(project, plans, options, machine, interrupt)

        self.upstream = {name: node.upstream() for name, node in nodes.items()}
        self.dependents: dict[str, list[str]] = {name: [] for name in nodes}
        for name, needed in self.upstream.items():
            for other in needed:
                self.dependents[other].append(name)
        self.waits_for = {name: len(needed) for name, needed in self.upstream.items()}
        self.to_plan = deque(name for name, count in self.waits_for.items() if count == 0)
        """Stages whose upstream has concluded and that have to be planned."""
        self.ready: list[tuple[float, int, StageNode, StagePlan, int]] = []
        """A heap of the ready stages, by priority; the last number counts the attempts."""
        self.retries: list[tuple[float, int, Running]] = []
        """A heap of failed stages that will be retried, by time."""
        self.order = itertools.count()
        self.running: dict[Handle, Running] = {}
        self.weights: Mapping[str, float] | None = None
        self.stopping = False
        """Whether no stage is started any more because one has failed."""
        self.halting = False
        """Whether all running stages are being stopped."""
        self.remote = project.remote_address
        """The remote store to look in first, or None after it could not be reached once."""
        self.records: dict[str, KeyRecord] = {}
        self.outcomes: dict[str, StageOutcome] = {}

    def execute(self) -> RunOutcome:
        """Bring every stage up to date."""
        nodes = self.project.graph.nodes
        spec = self.project.graph.spec
        self._emit(
            "run-started",
            run=self.id,
            name=spec.name,
            spec=str(spec.path),
            profiles=list(spec.profiles),
            set=list(self.options.settings),
            stages=list(nodes),
        )
        while not self.interrupt.count:
            self._plan_next()
            self._start_ready()
            if self.running or self.retries:
                self._follow()
            elif not self.to_plan:
                break
        if self.interrupt.count:
            self._stop_all()
            self._give_up_retries()
        outcomes = {name: self._concluded(node) for name, node in nodes.items()}
        statuses = {outcome.status for outcome in outcomes.values()}
        failed = "failed" if "failed" in statuses else "done"
        status = "interrupted" if self.interrupt.count else failed
        seconds = round(time.monotonic() - self.clock, 3)
        result = RunOutcome(self.id, self.folder, status, outcomes, seconds)
        self._emit("run-ended", status=status, seconds=seconds)
        told = content(self.project.graph, self.options.settings, outcomes.values())
        with writing(self.project.store.home):
            write_record(self.folder, self.begun, status, seconds, told)
        return result

    def close(self) -> None:
        """End running stages and close open files, whatever happened."""
        if self.running:
            self._stop_all()
        self.events.close()

    def _plan_next(self) -> None:
        """Plan the stages whose upstream has concluded; cached ones conclude at once."""
        while self.to_plan:
            node = self.project.graph.nodes[self.to_plan.popleft()]
            outcome = StageOutcome(node.id, node.kind, "blocked")
            if self.options.only is not None and node.id not in self.options.only:
                outcome.status = "skipped"
            elif not self._is_blocked(node):
                plan = self.replanner.replan(node, self.records, outcome)
                if plan is not None and plan.status == "run":
                    heapq.heappush(self.ready, (*self._rank(node), node, plan, 0))
                    continue
            self._conclude(node, outcome)

    def _is_blocked(self, node: StageNode) -> bool:
        needed = (self.outcomes[name].status for name in self.upstream[node.id])
        return self.stopping or any(status not in ("done", "cached") for status in needed)

    def _rank(self, node: StageNode) -> tuple[float, int]:
        """Return the sort key of ready stages: longest path first, then the order of the spec."""
        if self.weights is None:
            self.weights = critical_paths(self.project, self.dependents)
        return -self.weights[node.id], next(self.order)

    def _start_ready(self) -> None:
        """Start all stages that fit, most urgent first."""
        now = time.monotonic()
        while self.retries and self.retries[0][0] <= now:
            *_, failed = heapq.heappop(self.retries)
            again = (failed.node, failed.plan, failed.attempt + 1)
            heapq.heappush(self.ready, (*self._rank(failed.node), *again))
        too_big = []
        while self.ready and not self.stopping and not self.pool.full:
            item = heapq.heappop(self.ready)
            grant = self.pool.take(item[2])
            if grant is None:
                too_big.append(item)
            else:
                self._start(*item[2:], grant)
        for item in too_big:
            heapq.heappush(self.ready, item)

    def _start(self, node: StageNode, plan: StagePlan, attempt: int, grant: Grant) -> None:
        assert plan.key is not None
        outcome = StageOutcome(node.id, node.kind, "failed", plan.key, causes=plan.causes)
        log = self.folder / f"{file_name(node.id)}.log"
        request = self.project.request(
            node,
            plan.key,
            plan.key_inputs,
            self.records,
            log=log,
            remote=self.remote,
            force=node.id in self.options.forced,
            resample=node.id in self.options.resampled and attempt == 0,
        )
        begun = time.monotonic()
        outcome.started = round(begun - self.clock, 3)
        try:
            handle = self.executor.submit(request, grant)
        except LlmpipeError as error:
            self.pool.give_back(grant)
            outcome.error = {"message": error.message, "hint": error.hint}
            self._conclude(node, outcome)
            return
        running = Running(node, plan, outcome, handle, grant, log, begun, attempt)
        self.running[handle] = running
        self._emit(
            "stage-started", stage=node.id, kind=node.kind, causes=plan.causes, attempt=attempt
        )

    def _follow(self) -> None:
        """Wait for the executor's next events, a stage's timeout, or a retry that is due."""
        times = [at for r in self.running.values() if (at := r.deadline()) is not None]
        times += [self.retries[0][0]] if self.retries else []
        left = max(0.0, min(times) - time.monotonic()) if times else LONGEST_WAIT
        self._take_events(min(left, LONGEST_WAIT))
        now = time.monotonic()
        for running in self.running.values():
            deadline = running.deadline()
            if deadline is not None and deadline <= now:
                self._time_out(running)

    def _take_events(self, timeout: float) -> None:
        for handle, event in self.executor.events(timeout):
            fields = dict(event)
            self._note(self.running[handle], fields.pop("event"), fields)

    def _note(self, running: Running, kind: str, event: dict[str, Any]) -> None:
        """Handle an event: use what concerns the scheduler, pass the rest to the listeners."""
        if kind == "ended":
            self._ended(running)
        elif kind == "finished":
            running.finished = running.finished or event
        elif kind == "working":
            running.working = time.monotonic()
        elif kind == "publishing":
            running.publishing = True
        else:
            if kind == "unreachable":
                self.remote = None
            elif kind == "usage":
                running.outcome.memory = max(event["memory"], running.outcome.memory or 0)
            self._emit(kind, stage=running.node.id, **event)

    def _time_out(self, running: Running) -> None:
        timeout = running.node.config.timeout
        message = f"it ran longer than its timeout of {timeout:g} s"
        running.finished = {"status": "failed", "error": {"message": message, "hint": None}}
        running.timed_out = True
        self.executor.stop([running.handle])

    def _ended(self, running: Running) -> None:
        """Conclude a stage that has ended, or schedule a retry."""
        self.pool.give_back(running.grant)
        del self.running[running.handle]
        node, outcome = running.node, running.outcome
        finished = running.finished or {"status": "failed", "error": KILLED}
        if self.halting and finished["status"] == "failed" and not running.timed_out:
            finished = INTERRUPTED
        outcome.seconds = round(time.monotonic() - running.begun, 3)
        outcome.status = finished["status"]
        if outcome.status in ("done", "cached"):
            assert outcome.key is not None
            outcome.record = self.project.store.record(outcome.key)
            if outcome.record is None:
                outcome.status = "failed"
                finished = {"error": {"message": "its record is not in the store", "hint": None}}
        if outcome.record is None:
            error = finished["error"]
            outcome.error = {**error, "log": str(running.log), "tail": running.log_tail()}
            if outcome.status == "failed" and self._retry(running):
                return
        self._conclude(node, outcome)

    def _retry(self, running: Running) -> bool:
        node, attempt = running.node, running.attempt + 1
        if attempt > node.config.retries or self.interrupt.count or self.stopping:
            return False
        first, most = RETRY_PAUSES
        pause = min(most, first * 2 ** (attempt - 1))
        due = time.monotonic() + pause
        heapq.heappush(self.retries, (due, next(self.order), running))
        self._emit(
            "stage-retry",
            stage=node.id,
            attempt=attempt,
            retries=node.config.retries,
            pause=pause,
            error=running.outcome.error,
        )
        return True

    def _conclude(self, node: StageNode, outcome: StageOutcome) -> None:
        """Note how a stage ended, and release the stages that waited for it."""
        self.outcomes[node.id] = outcome
        if self.options.locked and outcome.record is not None:
            drifted = artifact_drift(self.project, node, outcome.record)
            if drifted:
                outcome.status, outcome.record = "failed", None
                outcome.error = {"message": drifted, "hint": "run without --locked to accept it"}
        if outcome.record is not None:
            self.records[node.id] = outcome.record
            ingredients = outcome.record.ingredients
            self.project.remember_latest(node.id, ingredients)
        if outcome.status == "failed" and not self.options.keep_going:
            self.stopping = True
            for *_, waiting, _, _ in self.ready:
                self._conclude_blocked(waiting)
            self.ready = []
            self._give_up_retries()
        self._emit("stage-ended", **outcome.as_json())
        self._release(node.id)

    def _give_up_retries(self) -> None:
        """Conclude failed stages that wait for a retry."""
        waiting, self.retries = self.retries, []
        for *_, failed in waiting:
            self._conclude(failed.node, failed.outcome)

    def _conclude_blocked(self, node: StageNode) -> None:
        outcome = self.outcomes[node.id] = StageOutcome(node.id, node.kind, "blocked")
        self._emit("stage-ended", **outcome.as_json())
        self._release(node.id)

    def _release(self, name: str) -> None:
        for other in self.dependents[name]:
            self.waits_for[other] -= 1
            if self.waits_for[other] == 0:
                self.to_plan.append(other)

    def _stop_all(self) -> None:
        """Stop every stage; one that still finishes counts as finished."""
        self.halting = True
        self.executor.stop(list(self.running))
        while self.running:
            if self.interrupt.hurry():
                self.executor.stop(list(self.running), now=True)
            self._take_events(LONGEST_WAIT)

    def _concluded(self, node: StageNode) -> StageOutcome:
        """Return a stage's outcome; one that an interrupt kept from starting is blocked."""
        if node.id not in self.outcomes:
            only = self.options.only
            status = "skipped" if only is not None and node.id not in only else "blocked"
            self.outcomes[node.id] = outcome = StageOutcome(node.id, node.kind, status)
            self._emit("stage-ended", **outcome.as_json())
        return self.outcomes[node.id]

    def _emit(self, event: str, **fields: Any) -> None:
        self.events.emit(event, **fields)
