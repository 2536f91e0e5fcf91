"""Keep a stage up as a service, or open what answers questions for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmpipe.api.selection import find_able
from llmpipe.api.stored import Stored
from llmpipe.backends.binding import cannot_listen, require_protection
from llmpipe.backends.openai.api_key import NO_KEY, clean_key
from llmpipe.contracts import Answers, Servable, ServeContext, ServedConfig, reveal
from llmpipe.contracts.checks import raised
from llmpipe.errors import LlmpipeError, PluginError, StageError
from llmpipe.graph.model import Graph, StageNode
from llmpipe.registry import KINDS, packages_of
from llmpipe.runner.needs import require_installed
from llmpipe.runner.store import Store

if TYPE_CHECKING:
    from openai import OpenAI


class Service:
    """A stage that is being served, until `close` or the end of its ``with`` block.

    Attributes:
        stage: the stage's name; callers name the model by it.
        url: where it answers; OpenAI clients add ``/v1``.
        offers: what can be called there, in a few words.
        notes: what else is worth knowing.
    """

    def __init__(
        self,
        stored: Stored,
        node: StageNode,
        *,
        host: str | None,
        port: int | None,
        api_key: str | None,
    ) -> None:
        assert issubclass(node.stage, Servable)
        assert isinstance(node.config, ServedConfig)
        require_installed(stored.project, node.id, node.stage.SERVE_NEEDS)
        key = node.config.api_key
        if api_key is None and key:
            api_key = clean_key(reveal(key), f"the API key of {node.id}")
        host = node.config.host if host is None else host
        port = node.config.port if port is None else port
        require_protection(host, api_key)
        self.stage = node.id
        self._api_key = api_key
        with ExitStack() as opened:
            opened.enter_context(_held(stored.project.store))
            context = serve_context(stored, node, host=host, port=port, api_key=api_key)
            with _blamed(node, "serve", host, port):
                self._endpoint = opened.enter_context(node.stage.serve(context))
            self._opened = opened.pop_all()
        self.url = self._endpoint.url
        self.offers = self._endpoint.offers
        self.notes = self._endpoint.notes

    @cached_property
    def client(self) -> OpenAI:
        """A client of the openai package that calls the service."""
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}/v1", api_key=self._api_key or NO_KEY)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the service ends by itself; return whether it has."""
        return self._endpoint.ended.wait(seconds)

    def close(self) -> None:
        """Stop the service.

        Raises:
            StageError: it had ended by itself.
        """
        self._opened.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.stage}, served on {self.url}>"


def serve_context(
    stored: Stored,
    node: StageNode,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
) -> ServeContext[Any]:
    """Return what a kind's `Servable.serve` and `Answers.answerer` are given.

    Raises:
        StoreError: a stage that makes an input is not up to date.
    """
    return ServeContext(
        config=node.config,
        stage=node.id,
        pipeline=stored.project.graph.spec.name,
        inputs={port: stored.artifact(binding, node.id) for port, binding in node.bindings.items()},
        created=stored.created(node),
        output=lambda name: stored.path(node, name),
        threads=len(os.sched_getaffinity(0)),
        host=host,
        port=port,
        api_key=api_key,
    )


@contextmanager
def _blamed(node: StageNode, method: str, host: str, port: int) -> Iterator[None]:
    """Name the stage, and the package of its kind, in an error of the kind's own code.

    Raises:
        StageError: the address is taken.
        PluginError: a method of another package's kind raised something else.
    """
    try:
        yield
    except LlmpipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            told = cannot_listen(host, port)
            raise StageError(f"{node.id}: {told.message}", hint=told.hint) from error
        if node.kind in KINDS:
            raise
        whose = f"the stage kind {node.kind!r} of {packages_of(node.kind)}"
        raise PluginError(f"{node.id}: {method} of {whose} raised {raised(error)}") from error


def _held(store: Store) -> AbstractContextManager[None]:
    """Return a lock that keeps a store's objects; without a store there is nothing to lock."""
    return store.in_use() if store.objects.is_dir() else nullcontext()


def find_servable(graph: Graph, name: str | None) -> StageNode:
    """Return the stage that is to be served; see `find_able`."""
    example = "chat: {kind: serve, model: …}"
    return find_able(graph, Servable, name, can="be served", example=example)


def find_answering(graph: Graph, name: str | None) -> StageNode:
    """Return the stage that is to be asked; see `find_able`."""
    example = "answers: {kind: rag, index: …, generator: {engine: llama.cpp, model: …}}"
    return find_able(graph, Answers, name, can="answer questions", example=example)


class OpenAnswering:
    """What has been opened to answer for the stages of a pipeline, each until its index changes."""

    def __init__(self) -> None:
        self._opened: dict[str, tuple[str, Answering]] = {}

    def find(self, stored: Stored, stage: str | None) -> Answering:
        """Return what answers for a stage, opened again only if what it reads has changed."""
        node = find_answering(stored.project.graph, stage)
        require_installed(stored.project, node.id)
        key = stored.record(node.id).key
        before = self._opened.get(node.id)
        if before is not None and before[0] == key:
            return before[1]
        if before is not None:
            del self._opened[node.id]  # whether or not the next one can be opened
            before[1].close()
        opened = Answering(stored, node)
        self._opened[node.id] = (key, opened)
        return opened

    def close(self) -> None:
        """Free what was loaded."""
        while self._opened:
            _, (_, opened) = self._opened.popitem()
            opened.close()


class Answering:
    """What answers for a stage, opened once: models stay loaded until `close`."""

    def __init__(self, stored: Stored, node: StageNode) -> None:
        assert issubclass(node.stage, Answers)
        with ExitStack() as opened:
            opened.enter_context(_held(stored.project.store))
            context = serve_context(stored, node)
            with _blamed(node, "answerer", context.host, context.port):
                self.answerer = opened.enter_context(node.stage.answerer(context))
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Free what was loaded."""
        self._opened.close()
