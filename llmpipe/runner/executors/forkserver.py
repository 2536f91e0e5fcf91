"""A small process that has imported what every worker needs, and forks workers fast.

``python -m llmpipe.runner.executors.forkserver FD MODULES KIND…`` listens on an inherited socket.
It imports the modules (separated by commas), greets the head, and then takes one request per
message. The file descriptor in the message becomes the standard output of the new worker and
carries events. A worker leads its own session. When the head closes the socket, or dies, the server
ends, but its workers continue: the next run finds what they make.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llmpipe.errors import foreign_text
from llmpipe.registry import stage_class
from llmpipe.runner.executors import worker
from llmpipe.runner.process import host, identity, mark_worker
from llmpipe.runner.request import StageRequest

GREETING = b"ready"
"""The server's first message."""

PARTS: Mapping[str, Sequence[str]] = {
    "transformers": (
        "transformers.generation",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
    )
}
"""Submodules to import from libraries that import them lazily."""

_LENGTH = struct.Struct("!I")


def send(channel: socket.socket, message: bytes, descriptor: int | None = None) -> None:
    """Send one message, with a file descriptor if there is one."""
    header = _LENGTH.pack(len(message))
    if descriptor is None:
        channel.sendall(header + message)
    else:
        socket.send_fds(channel, [header], [descriptor])
        channel.sendall(message)


def receive(channel: socket.socket) -> tuple[bytes, int | None] | None:
    """Return the next message and its file descriptor, or None at the end."""
    header, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    parts = []
    while length:
        part = channel.recv(min(length, 1 << 20))
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts), descriptors[0] if descriptors else None


def main(descriptor: int, modules: Iterable[str]) -> int:
    """Import ``modules`` and serve until the head closes the connection."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    for module in itertools.chain.from_iterable(PARTS.get(name, [name]) for name in modules):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                return 1
        except Exception:  # it may be half loaded: let the stages import it themselves
            return 1
    gc.freeze()  # nothing loaded so far becomes garbage: forks share its pages
    with contextlib.suppress(OSError):
        send(channel, GREETING)
        _serve(channel)
    return 0


def _serve(channel: socket.socket) -> None:
    while True:
        received = receive(channel)
        if received is None:
            return
        message, events = received
        if events is None:
            _reap(int(message))
            continue
        leads, begun = os.pipe()
        pid = os.fork()
        if pid == 0:
            channel.close()
            os.close(leads)
            _become_worker(message, events, begun)
        os.close(events)
        os.close(begun)
        os.read(
            leads, 1
        )  # returns when the child has closed its end: then signals to its group arrive
        os.close(leads)
        send(channel, str(pid).encode())


def _become_worker(message: bytes, events: int, begun: int) -> None:
    status = 1
    try:
        os.setsid()
        os.close(begun)
        os.dup2(events, 1)
        os.close(events)
        request = msgspec.json.decode(message, type=StageRequest)
        mark_worker()
        os.environ.update(request.environment)
        status = worker.work_on(request)
    except BaseException as error:  # only the head can be told
        _tell({"event": "finished", "status": "failed", "error": _internal(error)})
    finally:
        os._exit(status)


def _internal(error: BaseException) -> dict[str, Any]:
    if told := foreign_text(error):
        return {"message": told[0], "hint": told[1]}
    message = f"its worker failed: {type(error).__name__}: {error}"
    return {"message": message, "hint": "this is a fault in llmpipe"}


def _tell(event: dict[str, Any]) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def _reap(pid: int) -> None:
    os.waitpid(pid, 0)


def _prepare(kind: str) -> None:
    """Do once what every stage of a kind would otherwise do in a process of its own."""
    stage = stage_class(kind)  # light: a stage's run imports what is heavy
    with contextlib.suppress(Exception):  # if a package's config cannot be read, its stages tell
        msgspec.json.Decoder(stage.Config)  # reads the annotations, and keeps what they say


if __name__ == "__main__":
    host(), identity()  # both keep what they read, for all workers
    for kind in sys.argv[3:]:
        _prepare(kind)
    sys.exit(main(int(sys.argv[1]), filter(None, sys.argv[2].split(","))))
