"""The worker's supervision of its stage: a child process for the stage's code, and three pipes.

Log lines go into the stage's log file, and events to the head; secrets are removed from both. The
answer (outputs, or the error) comes through a pipe, not a file, so that it arrives on a full disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmpipe.runner.executors.execute import execute
from llmpipe.runner.executors.usage import session_memory
from llmpipe.runner.redact import Redactor, secret_values
from llmpipe.runner.request import StageRequest
from llmpipe.terminal import uncolored

USAGE_PAUSE = 1.0
"""Seconds between two measurements of a stage's memory."""

MAX_LINE = 1 << 16
"""Bytes after which a line is passed on in pieces."""

LOG_LINE = 400
"""Characters of a log line that the head shows."""


def supervise(request: StageRequest, scratch: Path) -> tuple[int, dict[str, Any]]:
    """Run a stage in its own process; return its exit status and its answer.

    The answer holds ``outputs``, ``metrics`` and ``summary``, or an ``error``.
    """
    redactor = Redactor(secret_values(request.config))
    answer = bytearray()
    with Path(request.log).open("ab", buffering=0) as log:

        def log_line(line: bytes) -> None:
            with contextlib.suppress(
                OSError
            ):  # a full disk need not stop a stage that can continue
                log.write(line + b"\n")
            text = uncolored(line.decode("utf-8", "replace")).rstrip()
            if text:
                emit({"event": "log", "line": text[-LOG_LINE:]})

        def pass_event(line: bytes) -> None:
            with contextlib.suppress(ValueError):  # incomplete: its process was killed
                emit(redactor.in_json(json.loads(line)))

        lines, events = _Lines(log_line, redactor), _Lines(pass_event)
        pipes = [os.pipe() for _ in range(3)]
        child = os.fork()
        if child == 0:
            _become_stage(request, scratch, *(write for _, write in pipes))
        for _, write in pipes:
            os.close(write)
        takers = (lines.take, events.take, answer.extend)
        reads = {read: take for (read, _), take in zip(pipes, takers, strict=True)}
        status = _carry(child, reads, _UsageMeter().tick)
        lines.end()
    found = _understood(bytes(answer), status)
    told = redactor.in_json({k: v for k, v in found.items() if k != "outputs"})
    return status, {**found, **told}


def emit(event: Mapping[str, Any]) -> None:
    """Report an event to the head through standard output."""
    with contextlib.suppress(OSError):  # the head may have gone; the work continues
        os.write(1, json.dumps(event).encode() + b"\n")


def _become_stage(request: StageRequest, scratch: Path, log: int, events: int, answer: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(
        signal.SIGALRM, signal.SIG_DFL
    )  # the worker's heartbeat; timers are not inherited
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        status = execute(request, scratch, events, answer)
    finally:
        os._exit(status)


def _carry(
    child: int, takers: Mapping[int, Callable[[bytes], object]], tick: Callable[[], None]
) -> int:
    """Pass on what comes through the pipes until the child has ended and they are empty.

    Processes that the child started may hold them open for longer. ``tick`` is called several times
    a second.
    """
    status: int | None = None
    with selectors.DefaultSelector() as selector:
        for descriptor in takers:
            selector.register(descriptor, selectors.EVENT_READ)
        while status is None or selector.get_map():
            tick()
            ready = selector.select(timeout=0.2 if status is None else 0)
            if status is not None and not ready:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if chunk:
                    takers[key.fd](chunk)
                else:
                    selector.unregister(key.fd)
            if status is None:
                wait = os.WNOHANG if selector.get_map() else 0
                done, raw = os.waitpid(child, wait)
                status = os.waitstatus_to_exitcode(raw) if done else None
    for descriptor in takers:
        os.close(descriptor)
    return status


class _UsageMeter:
    """Reports from time to time how much memory the worker's session holds."""

    def __init__(self) -> None:
        self._due = time.monotonic() + USAGE_PAUSE

    def tick(self) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + USAGE_PAUSE
            emit({"event": "usage", "memory": session_memory(os.getpid())})


class _Lines:
    """Cuts a stream into lines and passes them on.

    With a redactor, secrets are removed. A line without end is passed on in pieces; no piece ends
    within a secret.
    """

    def __init__(self, hand_on: Callable[[bytes], None], redactor: Redactor | None = None) -> None:
        self._hand_on = hand_on
        self._redactor = redactor
        self._rest = b""

    def take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._hand_on(self._clean(line))
        if self._redactor and len(self._rest) > MAX_LINE + self._redactor.longest:
            rest = self._clean(self._rest)
            kept = len(rest) - self._redactor.longest
            self._hand_on(rest[:kept])
            self._rest = rest[kept:]

    def end(self) -> None:
        if self._rest:
            self._hand_on(self._clean(self._rest))

    def _clean(self, line: bytes) -> bytes:
        return self._redactor.in_bytes(line) if self._redactor else line


def _understood(answer: bytes, status: int) -> dict[str, Any]:
    """Decode a stage's answer; a stage without one has failed."""
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError:
        hint = None
        if status == -signal.SIGKILL:
            hint = "something killed it: most often the kernel, when memory runs out"
        ended = f"signal {-status}" if status < 0 else f"status {status}"
        return {"error": {"message": f"the stage's process ended with {ended}", "hint": hint}}
    return found
