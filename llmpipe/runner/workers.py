"""The head's side of its workers: start them through a fork server, read their events, end them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import msgspec

from llmpipe.errors import StoreError
from llmpipe.runner.forkserver import receive, send
from llmpipe.runner.process import RUN_VARIABLE, kill_group, kill_marked, worker_mark
from llmpipe.runner.request import StageRequest

MODULE = "llmpipe.runner.forkserver"
WORKER_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}


class Worker:
    """A running worker: the leader of its own session and process group, and its events."""

    def __init__(self, pid: int, events: int) -> None:
        self.pid = pid
        self.events = events
        self._rest = b""

    def fileno(self) -> int:
        """Give the file descriptor to wait on."""
        return self.events

    def read(self) -> list[dict[str, Any]] | None:
        """Give the events that have come since; None when there will be no more."""
        chunk = os.read(self.events, 1 << 16)
        if not chunk:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


class Workers:
    """Starts and ends the workers of a run, whose stages are of the given kinds.

    Its fork server is started with the first of them.
    """

    def __init__(self, run: str, kinds: Iterable[str]) -> None:
        self._run = run
        self._kinds = sorted(set(kinds))
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self, request: StageRequest) -> Worker:
        """Start a worker on a request.

        Raises:
            StoreError: no process can be started.
        """
        message = msgspec.json.encode(request)
        worker = self._ask(message)
        if worker is None:  # something killed the server: its workers live on, a new one goes on
            self.close()
            worker = self._ask(message)
        if worker is None:
            raise StoreError("no worker process can be started", hint="is there memory left?")
        return worker

    def end(self, worker: Worker, *, stopped: bool = False) -> None:
        """Kill what a worker has left behind in its group, and forget it.

        Of one that was ``stopped``, what it started in sessions of their own is killed, too.
        """
        kill_group(worker.pid)
        if stopped:
            kill_marked(worker_mark(self._run, worker.pid))
        os.close(worker.events)
        if self._channel is not None:
            with contextlib.suppress(OSError):
                send(self._channel, str(worker.pid).encode())

    def close(self) -> None:
        """End the fork server."""
        if self._channel is not None and self._server is not None:
            self._channel.close()
            self._server.wait()
            self._channel = self._server = None

    def _ask(self, message: bytes) -> Worker | None:
        read, write = os.pipe()
        try:
            send(self._open(), message, write)
            answer = receive(self._open())
        except OSError:
            answer = None
        finally:
            os.close(write)
        if answer is None:
            os.close(read)
            return None
        return Worker(int(answer[0]), read)

    def _open(self) -> socket.socket:
        if self._channel is None:
            self._channel, theirs = socket.socketpair()
            with theirs:
                self._server = subprocess.Popen(
                    [sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), *self._kinds],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **WORKER_ENVIRONMENT, RUN_VARIABLE: self._run},
                )
        return self._channel
