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
"""Seconds that answers in progress get to finish when the server stops."""


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
    """Serve the answers of a stage until SIGINT or SIGTERM.

    Args:
        opening: Opens the answerer, after the address is bound.
        name: The spec's name.
        stage: The stage's name.
        host: The address to bind.
        port: The port to bind; 0 lets the system choose a free one.
        slots: The number of questions that are answered at the same time.
        api_key: The key that callers must send as a bearer token, if any.
        on_ready: Called with the URL when the server answers.
        index_made: Returns when the index was made, in seconds since 1970, or None to use the time
            of its file.

    Raises:
        UsageError: Other machines could reach the address, and there is no key.
        MissingDependencyError: A package is not installed.
        StageError: The address is in use, or the answerer cannot be opened.
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
    """Serve a GGUF over the OpenAI API until SIGINT or SIGTERM.

    llama.cpp's server listens on loopback with a key that only this process knows. Callers reach
    the guard in front of it.

    Args:
        model: The GGUF file.
        stage: The stage's name, which is also the model's name.
        host: The address to bind.
        port: The port to bind; 0 lets the system choose a free one.
        context: The maximum tokens of one conversation, prompt and reply together.
        slots: The number of conversations that are answered at the same time.
        threads: The number of CPU threads.
        batch: The tokens of a prompt that are computed at once; None measures a good number.
        api_key: The key that callers must send as a bearer token, if any.
        tells_cached: Whether callers can see how much of a prompt was cached.
        on_ready: Called with the URL and the batch when the server answers.

    Raises:
        UsageError: Other machines could reach the address, and there is no key.
        MissingDependencyError: A package is not installed.
        StageError: The address is in use, the model cannot be served, or its server dies.
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
    except OSError as error:  # two services started together can both bind
        raise cannot_listen(host, port, error) from None


def _end_by_signals(server: uvicorn.Server) -> None:
    """Let signals only stop the server; uvicorn would raise them again afterward."""

    @contextmanager
    def captured() -> Iterator[None]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        yield

    server.capture_signals = captured  # type: ignore[method-assign]


def _run(
    service: ASGIApp, listening: socket.socket, until: Callable[[], object] | None = None
) -> None:
    """Serve until a signal arrives, or until ``until`` returns in its own thread."""
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
    # An answer cut off by the end is not a failure, but uvicorn would log its traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    if until is not None:

        def watch(wait: Callable[[], object]) -> None:
            wait()
            server.should_exit = True

        threading.Thread(target=watch, args=(until,), daemon=True).start()
    try:
        server.run(sockets=[listening])
    finally:
        gc.freeze()  # saves seconds of garbage collection when Python ends
