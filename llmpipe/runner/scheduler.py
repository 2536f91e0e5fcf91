"""Run a plan: start what is ready and fits, follow the workers, conclude, until nothing is left.

One loop in one thread. A stage is *waiting* until all that it reads from is there, *ready* once it
is, then *running* in a worker; what is cached never runs. Of the ready ones that fit into what is
free of the machine, those start first that most of the remaining time hangs on.
"""

from __future__ import annotations

import heapq
import itertools
import select
import selectors
import time
from collections import deque
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from llmpipe.errors import LlmpipeError
from llmpipe.graph.model import StageNode
from llmpipe.runner.active_stage import Running
from llmpipe.runner.disk import writing
from llmpipe.runner.drift import artifact_drift
from llmpipe.runner.estimate import critical_paths
from llmpipe.runner.events import EventLog, Listener
from llmpipe.runner.interrupt import Interrupt
from llmpipe.runner.options import RunOptions
from llmpipe.runner.outcome import RunOutcome, StageOutcome, content, new_run_id, write_record
from llmpipe.runner.plan import StagePlan
from llmpipe.runner.process import stop_groups
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.replan import Settler
from llmpipe.runner.resources import Grant, Machine, Pool, device_here
from llmpipe.runner.store import file_name
from llmpipe.runner.workers import Workers

RETRY_PAUSES = (1.0, 60.0)
"""Seconds before the first retry of a stage, doubled each time, and at most."""

LONGEST_WAIT = 3600.0
"""Seconds after which the scheduler looks around though nothing has happened: the system takes no
waits of a month."""

KILLED = {"message": "its worker was killed", "hint": "run again: what was finished is kept"}


def run_project(
    project: Project,
    plans: Mapping[str, StagePlan],
    options: RunOptions,
    listeners: Collection[Listener] = (),
) -> RunOutcome:
    """Bring every stage up to date.

    Args:
        project: what to run.
        plans: its plan, just made: what is cached there is not looked at again.
        options: how to run.
        listeners: called with each event as it happens.

    Raises:
        StoreError: the store cannot be written.
    """
    project.store.create()
    project.store.register(project.lock.path)
    with project.store.in_use(), Interrupt().watching() as interrupt:
        run = _Run(project, plans, options, list(listeners), interrupt)
        try:
            return run.execute()
        finally:
            run.close()


class _Run:
    def __init__(
        self,
        project: Project,
        plans: Mapping[str, StagePlan],
        options: RunOptions,
        listeners: list[Listener],
        interrupt: Interrupt,
    ) -> None:
        self.project, self.options = project, options
        self.interrupt = interrupt
        self.clock = time.monotonic()
        self.begun = datetime.now(UTC)
        self.id = new_run_id(self.begun)
        self.folder = project.store.runs / self.id
        with writing(project.store.home):
            self.folder.mkdir(parents=True)
            self.events = EventLog(self.folder / "events.jsonl", listeners)
        nodes = project.graph.nodes
        wanted = nodes if options.only is None else options.only
        coming = [nodes[name] for name in wanted if plans[name].status == "run"]
        # Libraries look at a device when they are imported: after that no fork may use it.
        sharing = [] if device_here() else coming
        self.workers = Workers(self.id, {node.kind for node in nodes.values()}, sharing)
        machine = Machine.here()
        self.pool = Pool(machine, options.jobs)
        self.settler = Settler(project, plans, options, machine, interrupt)
        self.selector = selectors.DefaultSelector()
        self.selector.register(interrupt.wakeup, selectors.EVENT_READ, None)

        self.upstream = {name: node.upstream() for name, node in nodes.items()}
        self.dependents: dict[str, list[str]] = {name: [] for name in nodes}
        for name, needed in self.upstream.items():
            for other in needed:
                self.dependents[other].append(name)
        self.waits_for = {name: len(needed) for name, needed in self.upstream.items()}
        self.settled = deque(name for name, count in self.waits_for.items() if count == 0)
        """Stages whose upstream has concluded; they are to be planned."""
        self.ready: list[tuple[float, int, StageNode, StagePlan, int]] = []
        """A heap of what is to run, by priority; the last number counts the attempts."""
        self.retries: list[tuple[float, int, Running]] = []
        """A heap of what failed and is to be tried again, by the time when."""
        self.order = itertools.count()
        self.running: dict[int, Running] = {}
        self.weights: Mapping[str, float] | None = None
        self.stopping = False
        self.remote = project.remote_address
        """Where stages look first; None once it could not be reached: nobody waits for it twice."""
        self.records: dict[str, KeyRecord] = {}
        self.outcomes: dict[str, StageOutcome] = {}

    def execute(self) -> RunOutcome:
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
            self._plan_settled()
            self._start_ready()
            if self.running or self.retries:
                self._wait()
            elif not self.settled:
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
        """Leave no worker, no server and no open file behind, whatever happened."""
        if self.running:
            self._stop_all()
        self.workers.close()
        self.selector.close()
        self.events.close()

    def _plan_settled(self) -> None:
        """Plan the stages whose upstream has concluded: what is cached concludes at once."""
        while self.settled:
            node = self.project.graph.nodes[self.settled.popleft()]
            outcome = StageOutcome(node.id, node.kind, "blocked")
            if self.options.only is not None and node.id not in self.options.only:
                outcome.status = "skipped"
            elif not self._is_blocked(node):
                plan = self.settler.settle(node, self.records, outcome)
                if plan is not None and plan.status == "run":
                    heapq.heappush(self.ready, (*self._rank(node), node, plan, 0))
                    continue
            self._conclude(node, outcome)

    def _is_blocked(self, node: StageNode) -> bool:
        needed = (self.outcomes[name].status for name in self.upstream[node.id])
        return self.stopping or any(status not in ("done", "cached") for status in needed)

    def _rank(self, node: StageNode) -> tuple[float, int]:
        """Give what sorts ready stages: the longest way to the end first, then the spec's order."""
        if self.weights is None:
            self.weights = critical_paths(self.project, self.dependents)
        return -self.weights[node.id], next(self.order)

    def _start_ready(self) -> None:
        """Start all that fits, the most urgent first."""
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
            plan.made_of,
            self.records,
            log=log,
            grant=grant,
            remote=self.remote,
            force=node.id in self.options.forced,
            resample=node.id in self.options.resampled and attempt == 0,
        )
        begun = time.monotonic()
        outcome.started = round(begun - self.clock, 3)
        try:
            worker = self.workers.start(request)
        except LlmpipeError as error:
            self.pool.give_back(grant)
            outcome.error = {"message": error.message, "hint": error.hint}
            self._conclude(node, outcome)
            return
        running = Running(node, plan, outcome, worker, grant, log, begun, attempt)
        self.running[worker.pid] = running
        self.selector.register(worker, selectors.EVENT_READ, running)
        self._emit(
            "stage-started", stage=node.id, kind=node.kind, causes=plan.causes, attempt=attempt
        )

    def _wait(self) -> None:
        """Wait for the next event of a worker, the end of its time, or a retry that is due."""
        times = [at for r in self.running.values() if (at := r.deadline()) is not None]
        times += [self.retries[0][0]] if self.retries else []
        left = max(0.0, min(times) - time.monotonic()) if times else LONGEST_WAIT
        for key, _ in self.selector.select(min(left, LONGEST_WAIT)):
            if key.data is not None:
                self._listen(key.data)
        now = time.monotonic()
        for running in list(self.running.values()):
            deadline = running.deadline()
            if deadline is not None and deadline <= now:
                self._time_out(running)

    def _listen(self, running: Running) -> None:
        events = running.worker.read()
        if events is None:
            self._ended(running)
            return
        for event in events:
            self._note(running, event.pop("event"), event)

    def _note(self, running: Running, kind: str, event: dict[str, Any]) -> None:
        """Take what a worker tells: some of it is for us, the rest for whoever listens."""
        if kind == "finished":
            running.finished = event
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
        stop_groups([running.worker.pid])
        timeout = running.node.config.timeout
        message = f"it ran longer than its timeout of {timeout:g} s"
        running.finished = {"status": "failed", "error": {"message": message, "hint": None}}
        self._ended(running, stopped=True)

    def _ended(self, running: Running, *, stopped: bool = False) -> None:
        """Conclude a stage whose worker is gone, or put it by for another try."""
        self.selector.unregister(running.worker)
        self.workers.end(running.worker, stopped=stopped)
        self.pool.give_back(running.grant)
        del self.running[running.worker.pid]
        node, outcome = running.node, running.outcome
        finished = running.finished or {"status": "failed", "error": KILLED}
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
        """Note how a stage ended and let what waited for it go on."""
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
        """Let what failed and waits for another try have failed."""
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
                self.settled.append(other)

    def _stop_all(self) -> None:
        """Stop every worker; what one of them still finished counts."""
        stop_groups(list(self.running), self.interrupt.hurry, self._is_publishing)
        for running in list(self.running.values()):
            while (events := running.worker.read()) is not None:
                for event in events:
                    self._note(running, event.pop("event"), event)
            if running.finished is None or running.finished["status"] == "failed":
                error = {"message": "interrupted", "hint": None}
                running.finished = {"status": "interrupted", "error": error}
            self._ended(running, stopped=True)

    def _is_publishing(self, pid: int) -> bool:
        """Tell whether a worker has its stage's outputs and is storing them; say that it is."""
        running = self.running[pid]
        while select.select([running.worker], [], [], 0)[0]:
            events = running.worker.read()
            if events is None:
                return False
            for event in events:
                self._note(running, event.pop("event"), event)
        if running.publishing:
            message = "it is finished and being put into the store; Ctrl-C again ends that, too"
            self._emit("warning", stage=running.node.id, message=message)
        return running.publishing

    def _concluded(self, node: StageNode) -> StageOutcome:
        """Give a stage's outcome; what an interrupt kept from its turn counts as blocked."""
        if node.id not in self.outcomes:
            only = self.options.only
            status = "skipped" if only is not None and node.id not in only else "blocked"
            self.outcomes[node.id] = outcome = StageOutcome(node.id, node.kind, status)
            self._emit("stage-ended", **outcome.as_json())
        return self.outcomes[node.id]

    def _emit(self, event: str, **fields: Any) -> None:
        self.events.emit(event, **fields)
