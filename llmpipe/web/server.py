"""Serve a rag stage until Ctrl-C."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

from llmpipe.backends.binding import (
    bind,
    cannot_listen,
    is_loopback,
    reachable_url,
    require_protection,
)
from llmpipe.errors import MissingDependencyError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from llmpipe.retrieval.answer import Answerer

NEEDED = ("starlette", "uvicorn", "prometheus_client")

BACKLOG = 256
"""Connections that may wait to be taken."""
PATIENCE = 2
"""Seconds that answers under way are given when the server stops."""


def serve_answers(
    opening: AbstractContextManager[Answerer],
    name: str,
    stage: str,
    *,
    host: str,
    port: int,
    slots: int,
    api_key: str | None,
    on_ready: Callable[[str], None],
) -> int:
    """Serve the answers of a stage until Ctrl-C; give the exit code, 0.

    Args:
        opening: opens what answers; it is entered when the address is ours.
        name: the spec's name.
        stage: the stage's name.
        host: the address to bind.
        port: the port to bind; 0 lets the system choose a free one.
        slots: questions that are answered at the same time.
        api_key: when given, callers must send it as a bearer token.
        on_ready: is called with the URL when the server answers.

    Raises:
        UsageError: other machines could reach the address and no key is asked for.
        MissingDependencyError: a package is not installed.
        StageError: the address is taken, or what answers cannot be opened.
    """
    require_protection(host, api_key)
    for package in NEEDED:
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"serving answers needs {package}", hint="pip install 'llmpipe[rag,serve]'"
            )
    from llmpipe.web.guard import Admission
    from llmpipe.web.service import Identity, make_service

    try:
        with _terminated_as_interrupted(), bind(host, port) as bound, opening as answerer:
            address, port = bound.getsockname()[:2]
            admission = Admission(loopback=is_loopback(address), api_key=api_key)
            service = make_service(answerer, Identity(name, stage), admission, slots=slots)
            _listen(bound, host, port)
            on_ready(reachable_url(address, port))
            _run(service, bound)
    except KeyboardInterrupt:
        pass  # how a server is meant to be stopped
    return 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let a supervisor's SIGTERM do what Ctrl-C does, also while the models are loaded."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listen(bound: socket.socket, host: str, port: int) -> None:
    try:
        bound.listen(BACKLOG)
    except OSError as error:  # two that began at the same time could both bind
        raise cannot_listen(host, port, error) from None


def _run(service: ASGIApp, listening: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        service,
        access_log=False,
        backlog=BACKLOG,
        http="h11",
        lifespan="off",
        log_config=None,
        loop="asyncio",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
        ws="none",
    )
    server = uvicorn.Server(config)
    # What is cut short at the end is no failure, and uvicorn would report it with its traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    server.run(sockets=[listening])
