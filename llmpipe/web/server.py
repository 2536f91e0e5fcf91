"""Serve a model, or the answers of a rag stage, in a thread of its own until the context ends."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
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
from llmpipe.contracts import Endpoint
from llmpipe.errors import MissingDependencyError
from llmpipe.needs import SERVING, packages

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from llmpipe.backends.llama_cpp.batch import Batch
    from llmpipe.backends.llama_cpp.client import Limits, LlamaServer
    from llmpipe.backends.llama_cpp.engines import EngineName
    from llmpipe.retrieval.answer import Answerer

PATIENCE = 2
"""Seconds that answers in progress get to finish when the server stops."""


@contextmanager
def serve_answers(
    opening: AbstractContextManager[Answerer],
    name: str,
    stage: str,
    *,
    host: str,
    port: int,
    slots: int,
    api_key: str | None,
    index_made: float | None = None,
) -> Iterator[Endpoint]:
    """Serve the answers of a stage.

    Args:
        opening: Opens the answerer, after the address is bound.
        name: The spec's name.
        stage: The stage's name.
        host: The address to bind.
        port: The port to bind; 0 lets the system choose a free one.
        slots: The number of questions that are answered at the same time.
        api_key: The key that callers must send as a bearer token, if any.
        index_made: When the index was made, in seconds since 1970, or None to use the time of its
            file.

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
        service = make_service(answerer, Identity(name, stage, index_made), admission, slots=slots)
        _listen(bound, host, port)
        url = reachable_url(address, port)
        with _answering(service, bound) as ended:
            yield Endpoint(url, f"a page to ask on, OpenAI API at {url}/v1", ended=ended)


@contextmanager
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
    compare: Path | None = None,
    engine: EngineName = "xllamacpp",
    adapters: Mapping[str, Path] | None = None,
) -> Iterator[Endpoint]:
    """Serve a model over the OpenAI API and as a page, beside a second one if there is one.

    The engine's server listens on loopback with a key that only this process knows. Callers reach
    the guard in front of it.

    Args:
        model: The GGUF file, or the folder for the engine transformers.
        stage: The stage's name, which is also the model's name.
        host: The address to bind.
        port: The port to bind; 0 lets the system choose a free one.
        context: The maximum tokens of one conversation, prompt and reply together.
        slots: The number of conversations that are answered at the same time.
        threads: The number of CPU threads.
        batch: The tokens of a prompt that are computed at once; None measures a good number.
        api_key: The key that callers must send as a bearer token, if any.
        tells_cached: Whether callers can see how much of a prompt was cached.
        compare: A second model, called ``STAGE.compare``. It takes the same settings, and its
            conversations share the slots.
        engine: The engine to serve with.
        adapters: LoRA adapters of the model by name, as GGUF files. A caller chooses one by giving
            its name as the model's.

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

    with ExitStack() as held:
        bound = held.enter_context(bind(host, port))
        serving = partial(
            serve_fluently, threads=threads, context=context, slots=slots, engine=engine
        )
        adapters = adapters or {}
        server, chosen = held.enter_context(
            serving(model, alias=stage, batch=batch, adapters=tuple(adapters.values()))
        )
        servers, second = [server], None
        if compare is not None:
            beside = serving(compare, alias=f"{stage}.compare", batch=chosen.tokens)
            second = (held.enter_context(beside)[0], compare)
            servers.append(second[0])
        address, port = bound.getsockname()[:2]
        admission = Admission(loopback=is_loopback(address), api_key=api_key)
        service = make_model_service(
            server, model, admission, slots=slots, tells_cached=tells_cached,
            adapters=tuple(adapters), compared=second,
        )  # fmt: skip
        _listen(bound, host, port)
        url = reachable_url(address, port)
        offers = f"a page to chat on, OpenAI API at {url}/v1; {_limits(server.limits)}"
        with _answering(service, bound) as ended:
            for each in servers:
                _set_after(each.process, ended)
            yield Endpoint(
                url,
                offers,
                (_told(chosen, engine, given=batch is not None), *_warnings(servers)),
                ended,
            )
        for each in servers:
            if each.process.poll() is not None:
                each.check_alive()


def _limits(limits: Limits) -> str:
    threads = "1 thread" if limits.threads == 1 else f"{limits.threads} threads"
    slots = "1 conversation" if limits.slots == 1 else f"{limits.slots} conversations"
    return f"{slots} at a time, {limits.context:,} tokens each, {threads}"


def _warnings(servers: Sequence[LlamaServer]) -> Iterator[str]:
    """Yield what callers of these servers would not expect."""
    from llmpipe.backends.llama_cpp.engines import ENGINES
    from llmpipe.backends.reasoning import may_reason

    for server in servers:
        if not ENGINES[server.engine].parts_reasoning and may_reason(server.template()):
            yield (
                f"{server.model}: the engine {server.engine} leaves reasoning in the answers, with"
                " its tags; xllamacpp separates it"
            )


def _told(batch: Batch, engine: EngineName, *, given: bool) -> str:
    from llmpipe.backends.llama_cpp.engines import ENGINES

    if not ENGINES[engine].batches:
        return f"prompts are computed whole (one conversation, by {engine})"
    reason = "as the stage says" if given else f"one conversation, by {engine}"
    if batch.speed is not None:
        reason = f"measured: {batch.speed:,.0f} tokens a second where the context is full"
    return f"prompts are computed {batch.tokens} tokens at a time ({reason})"


def _set_after(process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    """Set an event when a process is gone."""

    def watch() -> None:
        process.wait()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()


def _require_packages(extra: str) -> None:
    missing = [need.name for need in packages(*SERVING) if not need.here]
    if missing:
        message = f"serving needs {', '.join(missing)}"
        raise MissingDependencyError(message, hint=f"pip install '{extra}'")


def _listen(bound: socket.socket, host: str, port: int) -> None:
    try:
        bound.listen()
    except OSError as error:  # two services started together can both bind
        raise cannot_listen(host, port, error) from None


@contextmanager
def _answering(service: ASGIApp, listening: socket.socket) -> Iterator[threading.Event]:
    """Answer in a thread with an event loop of its own; yield the event of its end."""
    import uvicorn

    from llmpipe.web.connections import Connection, bounds

    bounded, ended = bounds(), threading.Event()
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

    def answer() -> None:
        try:
            server.run(sockets=[listening])
        finally:
            ended.set()

    thread = threading.Thread(target=answer, name="llmpipe serve", daemon=True)
    with _quiet(server, bounded.hear):
        thread.start()
        try:
            yield ended
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _quiet(server: uvicorn.Server, hear: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Keep off the log what is not a failure: connections that are refused or cut short."""

    def unless_ending(record: logging.LogRecord) -> bool:
        return not server.should_exit  # uvicorn reports what is cut short with its traceback

    filters = {"asyncio": hear, "uvicorn.error": unless_ending}
    for name, each in filters.items():
        logging.getLogger(name).addFilter(each)
    try:
        yield
    finally:
        for name, each in filters.items():
            logging.getLogger(name).removeFilter(each)
