"""Send many concurrent requests to an endpoint, with retries and throttling.

`ApiClient.call` returns the outcomes in the order of the requests. `Throttle` limits how many are
in flight. Temporary failures are retried after the requests that wait, with growing pauses. If the
endpoint is down or refuses access, the work ends with an error that names it; replies in flight are
still received. The caller decides what to send, through which `Sdk`, and how to use an answer.

The client does not stream, does not count money, and never writes the API key anywhere.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmpipe.backends.openai.api_key import NO_KEY, clean_key, without_key
from llmpipe.backends.openai.loop_thread import LoopClosedError, LoopThread
from llmpipe.backends.openai.sdk import OPENAI, Sdk
from llmpipe.backends.openai.throttle import Throttle
from llmpipe.backends.spending import BudgetReachedError
from llmpipe.errors import ModelServerError, StageError

BACK_OFF = (0.5, 2.0, 5.0, 10.0)
"""Seconds before the second, third … attempt."""
ATTEMPTS = len(BACK_OFF) + 1
"""The number of attempts before a request counts as failed."""
OVERLOADS = 30
"""The number of 429s before a request counts as failed: they cost nothing, and say to wait."""
WINDOW = 20
"""The number of last requests; if half of them failed, the work stops."""
LAST_REPLIES = 30.0
"""Seconds for which replies in flight are awaited when the work stops early."""

_TOO_LONG = (
    "exceed_context_size_error", "context_length_exceeded", "maximum context length",
    "prompt is too long",
)  # fmt: skip
_FATAL = {
    401: "refuses the API key",
    402: "asks for payment",
    403: "refuses access",
    404: "does not know the model or path",
}

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class Words:
    """Words for messages: the endpoint, its fields in the spec, and what is kept on failure."""

    who: str
    fields: str
    kept: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of one request.

    ``problem`` is ``too long``: it exceeds the context; ``refused``: a 400; ``failed``: no attempt
    succeeded; ``malformed reply``: no attempt gave a reply that can be read; ``budget``: it was not
    sent. ``detail`` is the endpoint's own message.
    """

    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Again:
    """A failure after which a request is sent again."""

    overloaded: bool = False


@dataclass(slots=True)
class _Call:
    """What all requests of a call share."""

    send: Callable[[Any, Any], Awaitable[Any]]
    over: bool = False
    """Whether the work has stopped, so that nothing more is sent."""


class MalformedReplyError(Exception):
    """An endpoint answered 200 with something that is no reply."""


_MALFORMED = (MalformedReplyError, json.JSONDecodeError, UnicodeDecodeError)


@dataclass(slots=True)
class ApiClient:
    """An endpoint. Use it as a context manager.

    Several threads can use it at once; ``concurrency`` limits all their requests together.
    ``local`` is for our own server: no proxy, no keep-alive. ``check_alive`` is called in the
    client's thread when the endpoint cannot be reached, and may raise a more precise error.
    """

    base_url: str
    words: Words
    concurrency: int
    api_key: str = field(default=NO_KEY, repr=False)
    timeout: float = 600.0
    local: bool = False
    check_alive: Callable[[], None] = lambda: None
    sdk: Sdk = OPENAI
    _recent: collections.deque[bool] = field(
        default_factory=lambda: collections.deque(maxlen=WINDOW)
    )
    _throttle: Throttle = field(init=False)
    _loop: LoopThread = field(init=False)
    _api: Any = None
    _sending: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Check the key and prepare the client.

        Raises:
            StageError: The key cannot be sent in a header.
        """
        self.api_key = clean_key(self.api_key, f"the API key for {self.base_url}")
        self._throttle = Throttle(self.concurrency, lends=not self.local)
        self._loop = LoopThread()

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            if self._api is not None:
                with contextlib.suppress(LoopClosedError):  # already closed
                    self._loop.run(self._api.close())
        finally:
            self._loop.close()

    def call(
        self, requests: Sequence[RequestT], send: Callable[[Any, RequestT], Awaitable[AnswerT]]
    ) -> list[AnswerT | Failure]:
        """Return the result of ``send`` for every request, or its `Failure`.

        ``send`` gets the SDK's client and runs in the client's thread. It may be called several
        times for one request. It finishes before another request takes its place.

        Raises:
            MissingDependencyError: The SDK is not installed.
            StageError: The endpoint cannot be reached, refuses the key or the model, or fails half
                of the requests; or the client was closed.
        """
        return self.run(self._call_all(requests, send))

    def run(self, work: Coroutine[Any, Any, AnswerT]) -> AnswerT:
        """Return the result of a coroutine that runs in the client's thread.

        Raises:
            StageError: The client was closed.
        """
        try:
            return self._loop.run(work)
        except LoopClosedError:
            what = f"{self.words.who} at {self.base_url} can no longer be asked"
            raise StageError(f"{what}: the client was closed") from None

    def api(self) -> Any:
        """Return the SDK's client; call it in the client's thread.

        Raises:
            MissingDependencyError: The SDK is not installed.
        """
        if self._api is None:
            self._api = self.sdk.open(
                self.base_url, self.api_key, self.timeout, local=self.local, who=self.words.who
            )
        return self._api

    async def _call_all(
        self, requests: Sequence[RequestT], send: Callable[[Any, RequestT], Awaitable[AnswerT]]
    ) -> list[AnswerT | Failure]:
        self.api()
        call = _Call(send)
        tasks = [asyncio.ensure_future(self._outcome(request, call)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        except Exception:  # what is in flight may have been paid for
            for task in tasks:
                if task not in self._sending:
                    task.cancel()
            if in_flight := [task for task in tasks if not task.done()]:
                await asyncio.wait(in_flight, timeout=LAST_REPLIES)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _outcome(self, request: RequestT, call: _Call) -> AnswerT | Failure:
        """Send a request until there is an answer or no attempt is left."""
        attempt = overloads = 0
        while True:
            last = attempt == ATTEMPTS - 1 or overloads == OVERLOADS - 1
            async with self._throttle.place():
                if call.over:
                    raise asyncio.CancelledError
                try:
                    again = await self._attempt(request, call, last)
                    if isinstance(again, _Again) and again.overloaded:
                        await asyncio.sleep(self._throttle.rest)
                except Exception:
                    call.over = True
                    raise
            if not isinstance(again, _Again):
                return again
            overloads += again.overloaded
            attempt += not again.overloaded
            step = overloads if again.overloaded else attempt
            await asyncio.sleep(BACK_OFF[min(step, len(BACK_OFF)) - 1])

    async def _attempt(self, request: object, call: _Call, last: bool) -> Any | Failure | _Again:
        """Send a request once; it holds a place."""
        sdk, task, begun = self.sdk, asyncio.current_task(), self._throttle.clock()
        assert task is not None
        self._sending.add(task)
        try:
            answer = await call.send(self._api, request)
            self._throttle.succeeded(self._throttle.clock() - begun)
            self._recent.append(True)
            return answer
        except BudgetReachedError as error:
            return Failure("budget", error.message)
        except sdk.errors.APITimeoutError:
            self.check_alive()
            return self._again_or_failed(last, "failed", f"no reply in {self.timeout:g} s")
        except sdk.errors.APIConnectionError as error:
            self.check_alive()
            if last:
                raise self._unreachable(error) from error
            return _Again()
        except sdk.errors.APIStatusError as error:
            return self._after_status(error, last)
        except (*_MALFORMED, sdk.errors.APIResponseValidationError) as error:
            detail = without_key(str(error), self.api_key)[:300]
            return self._again_or_failed(last, "malformed reply", detail)
        except sdk.error as error:
            what = f"{self.words.who} at {self.base_url} cannot be asked"
            gist = f"{what}: {type(error).__name__}"
            raise ModelServerError(f"{what}: {error}", gist=gist) from error
        finally:
            self._sending.discard(task)

    def _after_status(self, error: Any, last: bool) -> Failure | _Again:
        status = error.status_code
        detail = without_key(_detail(error), self.api_key)
        if status in _FATAL:
            fields = self.words.fields
            gist = f"{self.words.who} at {self.base_url} {_FATAL[status]}"
            raise ModelServerError(
                f"{gist}: {detail}",
                gist=gist,
                hint=f"check {fields}model, {fields}base_url and {fields}api_key",
            )
        if status in self.sdk.overloaded:
            self._throttle.overloaded(_retry_after(error))
            if not last:
                return _Again(overloaded=True)
        if status in (408, 409, *self.sdk.overloaded) or status >= 500:
            return self._again_or_failed(last, "failed", f"HTTP {status}: {detail}")
        too_long = any(word in str(error.body) for word in _TOO_LONG)
        return self._failed("too long" if too_long else "refused", detail)

    def _again_or_failed(self, last: bool, problem: str, detail: str) -> Failure | _Again:
        return self._failed(problem, detail) if last else _Again()

    def _failed(self, problem: str, detail: str) -> Failure:
        self._recent.append(False)
        if problem != "too long" and self._recent.count(False) * 2 >= WINDOW:
            gist = (
                f"{self.words.who} at {self.base_url} failed {self._recent.count(False)} of the "
                f"last {len(self._recent)} requests"
            )
            raise ModelServerError(
                f"{gist}: {detail}",
                gist=gist,
                hint=f"{self.words.kept}; run again when it has recovered",
            )
        return Failure(problem, detail)

    def _unreachable(self, error: Exception) -> StageError:
        return StageError(
            f"cannot reach {self.words.who} at {self.base_url}: {error.__cause__ or error}",
            hint=f"is it running, and is {self.words.fields}base_url right? {self.words.kept}",
        )


def _detail(error: Any) -> str:
    body = error.body
    if isinstance(body, Mapping):
        return str(body.get("message") or body)
    return str(body or error.message)[:300]


def _retry_after(error: Any) -> float | None:
    try:
        return min(60.0, max(0.0, float(error.response.headers.get("retry-after"))))
    except (TypeError, ValueError):
        return None
