"""The chat completions route: answer questions in OpenAI's format.

Questions wait in line for a slot of the generator. When a client disconnects, its question leaves
the line or its answer is stopped.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmpipe.backends.streaming import Cancellation
from llmpipe.errors import StageError
from llmpipe.retrieval.answer import Answer, Answerer, Done, Event, Events, Retrieved, SearchError
from llmpipe.retrieval.prompt import QuestionError, Turn
from llmpipe.web.chat import Reply, read_chat, too_long
from llmpipe.web.errors import (
    ApiError,
    event_of,
    gist_of,
    internal_error,
    json_response,
    one_line,
    search_failed,
    stopping,
)
from llmpipe.web.library import Library
from llmpipe.web.metrics import Metrics
from llmpipe.web.queueing import Line, unless_gone
from llmpipe.web.request_parsing import read_as
from llmpipe.web.running import Running


class Answers:
    """Answers questions, as many at once as the line has places."""

    def __init__(
        self, answerer: Answerer, name: str, library: Library, metrics: Metrics, line: Line
    ) -> None:
        self._answerer = answerer
        self._name = name
        self._library = library
        self._metrics = metrics
        self._line = line

    async def chat(self, request: Request) -> Response:
        """Answer a question, as a stream or as a whole."""
        asked = await read_as(request, read_chat)
        question, history = asked.question()
        self.require_generator()

        async def begin() -> Running:
            await self._line.enter()
            return Running(partial(self._made, question, history), self._line)

        options = asked.stream_options
        usage = bool(options and options.include_usage)
        reply = Reply(self._name, self._library, include_usage=usage)
        running = await unless_gone(request.receive, begin())
        try:
            if not asked.stream:
                answer = await unless_gone(request.receive, self._end(running))
                return json_response(reply.whole(answer))
            first = await unless_gone(request.receive, self.next(running))
        except BaseException:
            running.stop()
            raise
        return _Stream(first, running, reply, self)

    def _made(self, question: str, history: list[Turn], cancellation: Cancellation) -> Events:
        """Yield the events of an answer; runs in its own thread."""
        with closing(self._answerer.stream(question, history, cancellation=cancellation)) as events:
            for event in events:
                if isinstance(event, Retrieved):
                    self._library.hits(event.hits)  # caches their titles
                yield event

    def require_generator(self) -> None:
        """Require that the generator is alive.

        Raises:
            ApiError: It has died.
        """
        try:
            self._answerer.generator.check_alive()
        except StageError as error:  # callers must not see its hint, the end of a log
            message = f"{error.message}; start `llmpipe serve` again"
            raise ApiError(503, "generator_unavailable", message) from None

    async def next(self, running: Running) -> Event | None:
        """Return the next event of an answer, or None at the end.

        Raises:
            ApiError: The answer failed.
        """
        try:
            event = await running.next()
        except QuestionError as error:
            raise too_long(error.message) from None
        except StageError as error:
            raise self._failed(error) from None
        if isinstance(event, Done):
            self._metrics.count_answer(event.answer)
        return event

    def _failed(self, error: StageError) -> ApiError:
        """Return the error of a failed answer."""
        if isinstance(error, SearchError):
            return search_failed(error)
        self.require_generator()
        return ApiError(503, "generator_unavailable", one_line(error), reason=gist_of(error))

    async def _end(self, running: Running) -> Answer:
        while event := await self.next(running):
            if isinstance(event, Done):
                return event.answer
        raise ClientDisconnect  # without `Done` it was stopped


class _Stream(Response):
    """An answer as a stream. An error after the first event is sent as an event."""

    media_type = "text/event-stream"

    def __init__(
        self, first: Event | None, running: Running, reply: Reply, answers: Answers
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})  # proxies must not buffer it
        del self.headers["content-length"]
        self._first = first
        self._running = running
        self._reply = reply
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._write(send))
        except ClientDisconnect:
            pass  # the client is gone
        finally:
            self._running.stop()

    async def _write(self, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        event = self._first
        try:
            while event is not None:
                for chunk in self._reply.chunks(event):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                event = await self._answers.next(self._running)
            last = b""
        except ApiError as error:
            error.note()
            last = event_of(error.data())
        except asyncio.CancelledError:  # the server stops, or the client is gone
            await self._say_last(send, event_of(stopping().data()))
            raise
        except Exception:
            await self._say_last(send, event_of(internal_error().data()))
            raise
        await self._say_last(send, last)

    async def _say_last(self, send: Send, event: bytes) -> None:
        await send({"type": "http.response.body", "body": event, "more_body": False})
