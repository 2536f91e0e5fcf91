"""Run stages on this machine, each in a worker process that a fork server forks."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec

from llmpipe.graph.model import StageNode
from llmpipe.runner.executors.base import Event, Handle
from llmpipe.runner.executors.workers import Worker, Workers
from llmpipe.runner.process import group_alive, identity, signal_group
from llmpipe.runner.request import StageRequest
from llmpipe.runner.resources import Grant, Machine, device_here

GRACE = ((signal.SIGINT, 2.0), (signal.SIGTERM, 1.5), (signal.SIGKILL, 1.0))
"""The signals that stop a stage, and the seconds after each; less than 5 s in total."""

GROUP_PAUSE = 0.02
"""Seconds between two checks of a process group that is being stopped."""

STORING = "it has finished and is being stored; Ctrl-C again stops that, too"


class LocalExecutor:
    """An `Executor` for the head's machine.

    Args:
        run: The name of the run. Its processes carry it in their environment.
        kinds: The kinds of the run's stages.
        coming: The stages that will probably run. A library that several of them import is
            imported once.
        wakeup: A file descriptor that becomes readable to end a wait for events.
    """

    def __init__(
        self, run: str, kinds: Iterable[str], coming: Iterable[StageNode], wakeup: int
    ) -> None:
        # Libraries look for a device when they are imported: after that, no fork may use it.
        self._workers = Workers(run, kinds, [] if device_here() else coming)
        self._head = identity()
        self._wakeup = wakeup
        self._selector = selectors.DefaultSelector()
        self._selector.register(wakeup, selectors.EVENT_READ)
        self._stopping: dict[Worker, _Stop] = {}

    def capacity(self) -> Machine:
        """Return the resources of the machine that this process may use."""
        return Machine.here()

    def submit(self, request: StageRequest, grant: Grant) -> Handle:
        """Have a worker forked that runs a stage.

        Raises:
            StoreError: No process can be started.
        """
        worker = self._workers.start(
            msgspec.structs.replace(
                request, threads=grant.cpus, environment=grant.environment(), head=self._head
            )
        )
        self._selector.register(worker, selectors.EVENT_READ, worker)
        return worker

    def events(self, timeout: float) -> Iterator[tuple[Worker, Event]]:
        """Yield what the workers report within the timeout; nothing after an interrupt."""
        if self._stopping:
            timeout = min(timeout, GROUP_PAUSE)
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                os.read(self._wakeup, 64)
            else:
                yield from self._read(key.data)
        for worker, stop in list(self._stopping.items()):
            yield from self._rest(worker)
            if stop.advance(worker):
                yield worker, {"event": "warning", "message": STORING}
            if stop.over:
                yield from self._rest(worker)
                yield from self._end(worker)

    def stop(self, handles: Collection[Any], *, now: bool = False) -> None:
        """Send the signals of `GRACE` to each worker's group, one after the other."""
        for worker in handles:
            stop = self._stopping.setdefault(worker, _Stop())
            stop.now = stop.now or now

    def close(self) -> None:
        """End the fork servers."""
        self._workers.close()
        self._selector.close()

    def _read(self, worker: Worker) -> Iterator[tuple[Worker, Event]]:
        events = worker.read()
        for event in events or ():
            if event["event"] == "publishing":
                worker.publishing = True
            yield worker, event
        if events is not None:
            return
        if worker in self._stopping:  # other processes of its group may need the time
            self._selector.unregister(worker)
            worker.closed = True
        else:
            yield from self._end(worker)

    def _rest(self, worker: Worker) -> Iterator[tuple[Worker, Event]]:
        """Yield the unread events of a stopped worker."""
        while not worker.closed and worker.has_more():
            yield from self._read(worker)

    def _end(self, worker: Worker) -> Iterator[tuple[Worker, Event]]:
        if not worker.closed:
            self._selector.unregister(worker)
        stopped = self._stopping.pop(worker, None) is not None
        self._workers.end(worker, stopped=stopped)
        yield worker, {"event": "ended"}


class _Stop:
    """The state of stopping one worker's group."""

    def __init__(self) -> None:
        self.now = False
        self.over = False
        self._signals = 0
        self._due = 0.0
        self._waits = False

    def advance(self, worker: Worker) -> bool:
        """Send the next signal if it is due.

        Returns:
            Whether to wait for the worker from now on, because it stores its stage's outputs.
        """
        killed = self._signals == len(GRACE)
        if self._signals and not group_alive(worker.pid):
            self.over = True
        elif time.monotonic() >= self._due or (self.now and not killed):
            if killed:  # even the last signal did not end it: give up
                self.over = True
                return False
            number, seconds = GRACE[self._signals]
            if number == signal.SIGKILL and worker.publishing and not self.now:
                begins, self._waits = not self._waits, True
                return begins
            signal_group(worker.pid, number)
            self._signals += 1
            self._due = time.monotonic() + seconds
        return False
