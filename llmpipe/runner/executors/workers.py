"""Start workers through fork servers, read their events, and end them.

One server imports what every worker needs. If several stages import the same heavy libraries, a
second server imports those once, while other stages run. Until it is ready, or if it dies, such
stages come from the first server and import the libraries themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from llmpipe.contracts import StageDefaults
from llmpipe.errors import StoreError
from llmpipe.graph.model import StageNode
from llmpipe.runner.executors.forkserver import receive, send
from llmpipe.runner.process import RUN_VARIABLE, kill_group, kill_marked, worker_mark
from llmpipe.runner.request import StageRequest

MODULE = "llmpipe.runner.executors.forkserver"
WORKER_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}


class Worker:
    """A running worker, the leader of its own session and process group, and its events."""

    def __init__(self, pid: int, events: int, server: _ForkServer) -> None:
        self.pid = pid
        self.events = events
        self.server = server
        self.publishing = False
        """Whether it is storing its stage's outputs."""
        self.closed = False
        """Whether all of its events have been read."""
        self._rest = b""

    def fileno(self) -> int:
        """Return the file descriptor to wait on."""
        return self.events

    def has_more(self) -> bool:
        """Return whether there is something to read, or the stream has ended."""
        return bool(select.select([self.events], [], [], 0)[0])

    def read(self) -> list[dict[str, Any]] | None:
        """Return the new events, or None if there will be no more."""
        chunk = os.read(self.events, 1 << 16)
        if not chunk:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


class Workers:
    """Starts and ends the workers of a run, whose stages have the given kinds.

    Libraries that two or more of the ``coming`` stages import are imported once, by a second fork
    server that ends when the last of them has started. The servers start with the first worker.
    """

    def __init__(self, run: str, kinds: Iterable[str], coming: Iterable[StageNode] = ()) -> None:
        self._run = run
        self._kinds = sorted(set(kinds))
        heavy = [(n.kind, getattr(n.stage, "imports", StageDefaults.imports)) for n in coming]
        self._coming = [kind for kind, imports in heavy if imports]
        self._modules = sorted({module for _, imports in heavy for module in imports})
        self._server: _ForkServer | None = None
        self._prepared: _ForkServer | None = None

    def start(self, request: StageRequest) -> Worker:
        """Start a worker for a request.

        Raises:
            StoreError: No process can be started.
        """
        message = msgspec.json.encode(request)
        worker = self._from_prepared(request.kind, message)
        # If the server was killed, its workers live on and a new server continues.
        worker = worker or self._from_plain(message) or self._from_plain(message)
        if worker is None:
            raise StoreError("no worker process can be started", hint="is there memory left?")
        return worker

    def end(self, worker: Worker, *, stopped: bool = False) -> None:
        """Kill what a worker left behind in its group, and forget the worker.

        If it was ``stopped``, processes that it started in other sessions are killed as well.
        """
        kill_group(worker.pid)
        if stopped:
            kill_marked(worker_mark(self._run, worker.pid))
        os.close(worker.events)
        worker.server.forget(worker)

    def close(self) -> None:
        """End the fork servers."""
        for server in (self._server, self._prepared):
            if server is not None:
                server.close()
        self._server = self._prepared = None

    def _from_plain(self, message: bytes) -> Worker | None:
        try:
            self._server = self._server or _ForkServer(self._run, self._kinds)
        except OSError:
            return None
        worker = self._server.fork(message)
        if worker is None:
            self._server.close()
            self._server = None
        return worker

    def _from_prepared(self, kind: str, message: bytes) -> Worker | None:
        if self._prepared is None and len(self._coming) > 1:
            with contextlib.suppress(
                OSError
            ):  # no process, no gain: the stages import for themselves
                self._prepared = _ForkServer(self._run, self._kinds, self._modules)
        if kind not in self._coming:
            return None
        self._coming.remove(kind)
        worker = None
        if self._prepared is not None and self._prepared.is_ready():
            worker = self._prepared.fork(message)
        if self._prepared is not None and not self._coming:
            self._prepared.close()  # it is of no more use
            self._prepared = None
        return worker


class _ForkServer:
    """The head's view of a process that forks workers."""

    def __init__(self, run: str, kinds: Sequence[str], modules: Sequence[str] = ()) -> None:
        self._channel, theirs = socket.socketpair()
        self._greeted = False
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(self._channel.close)
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", MODULE),
                    *(str(theirs.fileno()), ",".join(modules), *kinds),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Libraries report submodules that this machine has no use for.
                stderr=subprocess.DEVNULL if modules else None,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **WORKER_ENVIRONMENT, RUN_VARIABLE: run},
            )
            undo.pop_all()

    def is_ready(self) -> bool:
        """Return, without waiting, whether the server has finished its imports."""
        if not self._greeted and select.select([self._channel], [], [], 0)[0]:
            self._greet()
        return self._greeted

    def fork(self, message: bytes) -> Worker | None:
        """Have a worker forked; return None if the server has died or cannot fork."""
        read, write = os.pipe()
        try:
            if not self._greeted:
                self._greet()
            send(self._channel, message, write)
            answer = receive(self._channel)
        except OSError:
            answer = None
        finally:
            os.close(write)
        if answer is None:
            os.close(read)
            return None
        return Worker(int(answer[0]), read, self)

    def forget(self, worker: Worker) -> None:
        """Let the server reap an ended worker."""
        with contextlib.suppress(OSError):
            send(self._channel, str(worker.pid).encode())

    def close(self) -> None:
        """End the server, even during an import; its workers live on."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _greet(self) -> None:
        with contextlib.suppress(OSError):
            self._greeted = receive(self._channel) is not None
