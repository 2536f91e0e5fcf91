"""Serve a model, or the answers of a rag stage, until Ctrl-C."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmpipe.backends.binding import (
    bind,
    cannot_listen,
    is_loopback,
    reachable_url,
    require_protection,
)
from llmpipe.errors import MissingDependencyError
from llmpipe.needs import packages

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from llmpipe.backends.llama_cpp.batch import Batch
    from llmpipe.retrieval.answer import Answerer

NEEDED = ("starlette", "uvicorn", "h11", "prometheus-client")

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
    index_made: Callable[[], float | None] = lambda: None,
) -> None:
    """Serve the answers of a stage until SIGINT or SIGTERM ends it.

    Args:
        opening: opens what answers; it is entered when the address is ours.
        name: the spec's name.
        stage: the stage's name.
        host: the address to bind.
        port: the port to bind; 0 lets the system choose a free one.
        slots: questions that are answered at the same time.
        api_key: when given, callers must send it as a bearer token.
        on_ready: is called with the URL when the server answers.
        index_made: tells when the index was made, in seconds since 1970; None goes by its file.

    Raises:
        UsageError: other machines could reach the address and no key is asked for.
        MissingDependencyError: a package is not installed.
        StageError: the address is taken, or what answers cannot be opened.
    """
    require_protection(host, api_key)
    _require_packages("llmpipe[rag,serve]")
    from llmpipe.web.middleware import Admission
    from llmpipe.web.service import Identity, make_service

    with bind(host, port) as bound, opening as answerer:
        address, port = bound.getsockname()[:2]
        admission = Admission(loopback=is_loopback(address), api_key=api_key)
        service = make_service(
            answerer, Identity(name, stage, index_made()), admission, slots=slots
        )
        _listen(bound, host, port)
        on_ready(reachable_url(address, port))
        _run(service, bound)


def serve_model(
    model: Path,
    stage: str,
    *,
    host: str,
    port: int,
    context: int,
    slots: int,
    threads: int,
    batch: int | None,
    api_key: str | None,
    tells_cached: bool,
    on_ready: Callable[[str, Batch], None],
) -> None:
    """Serve a GGUF over the OpenAI API until SIGINT or SIGTERM ends it.

    llama.cpp's server listens on loopback, by a key that only this process knows. What callers
    reach is the guard before it.

    Args:
        model: the GGUF file.
        stage: the stage's name, which callers name the model by.
        host: the address to bind.
        port: the port to bind; 0 lets the system choose a free one.
        context: tokens that one conversation may hold, prompt and reply together.
        slots: conversations that are answered at the same time.
        threads: CPU threads that compute.
        batch: tokens of a prompt that are computed in one go; None has them measured.
        api_key: when given, callers must send it as a bearer token.
        tells_cached: whether callers read how much of a prompt was computed before.
        on_ready: is called with the URL and the batch when the server answers.

    Raises:
        UsageError: other machines could reach the address and no key is asked for.
        MissingDependencyError: a package is not installed.
        StageError: the address is taken, the model cannot be served, or its server dies.
    """
    require_protection(host, api_key)
    _require_packages("llmpipe[serve]")
    from llmpipe.backends.llama_cpp.batch import serve_fluently
    from llmpipe.web.middleware import Admission
    from llmpipe.web.model.service import make_model_service

    with bind(host, port) as bound, serve_fluently(
        model, threads=threads, context=context, slots=slots, alias=stage,
        batch=batch,
    ) as (server, chosen):  # fmt: skip
        address, port = bound.getsockname()[:2]
        admission = Admission(loopback=is_loopback(address), api_key=api_key)
        service = make_model_service(
            server, model, admission, slots=slots, tells_cached=tells_cached
        )
        _listen(bound, host, port)
        on_ready(reachable_url(address, port), chosen)
        _run(service, bound, until=server.process.wait)
        if server.process.poll() is not None:
            server.check_alive()


def _require_packages(extra: str) -> None:
    missing = [need.name for need in packages(*NEEDED) if not need.here]
    if missing:
        message = f"serving needs {', '.join(missing)}"
        raise MissingDependencyError(message, hint=f"pip install '{extra}'")


def _listen(bound: socket.socket, host: str, port: int) -> None:
    try:
        bound.listen()
    except OSError as error:  # two that began at the same time could both bind
        raise cannot_listen(host, port, error) from None


def _end_by_signals(server: uvicorn.Server) -> None:
    """Let signals end a server, and nothing else: uvicorn would raise them once more afterwards."""

    @contextmanager
    def captured() -> Iterator[None]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        yield

    server.capture_signals = captured  # type: ignore[method-assign]


def _run(
    service: ASGIApp, listening: socket.socket, until: Callable[[], object] | None = None
) -> None:
    """Answer until a signal comes, or until a call in a thread of its own returns."""
    import uvicorn

    from llmpipe.web.connections import Connection, bounds

    bounded = bounds()
    logging.getLogger("asyncio").addFilter(bounded.hear)
    config = uvicorn.Config(
        service,
        access_log=False,
        backlog=bounded.backlog,
        http=partial(Connection, bounds=bounded),  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        loop="asyncio",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
        ws="none",
    )
    server = uvicorn.Server(config)
    _end_by_signals(server)
    # What is cut short at the end is no failure, and uvicorn would report it with its traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    if until is not None:

        def watch(wait: Callable[[], object]) -> None:
            wait()
            server.should_exit = True

        threading.Thread(target=watch, args=(until,), daemon=True).start()
    try:
        server.run(sockets=[listening])
    finally:
        gc.freeze()  # the end of Python looks for garbage in all that is loaded: seconds of waiting
