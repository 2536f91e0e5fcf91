"""Send many concurrent requests to an OpenAI-compatible endpoint, with retries and throttling.

`ApiClient.call` returns the outcomes in the order of the requests. Concurrency follows AIMD: three
quarters after a 429, one more after 25 successes. Temporary failures are retried after all other
requests, with growing pauses. If the endpoint is down or refuses access, the work ends with an
error that names it. The caller decides what to send and how to use an answer.

The client does not stream, does not count money, and never writes the API key anywhere.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeVar

from llmpipe.backends.openai.api_key import NO_KEY, clean_key, without_key
from llmpipe.backends.openai.loop_thread import LoopClosedError, LoopThread
from llmpipe.errors import MissingDependencyError, ModelServerError, StageError

COOL_DOWN = 2.0
"""Seconds without new requests after a 429 without a Retry-After header."""
SUCCESSES_PER_STEP = 25
"""The number of successes after which one more concurrent request is allowed."""
BACK_OFF = (0.5, 2.0, 5.0, 10.0)
"""Seconds before the second, third … round of attempts."""
ATTEMPTS = len(BACK_OFF) + 1
"""The number of attempts before a request counts as failed."""
WINDOW = 20
"""The number of last requests; if half of them failed, the work stops."""

_TOO_LONG = ("exceed_context_size_error", "context_length_exceeded")
_FATAL = {401: "refuses the API key", 403: "refuses access", 404: "does not know the model or path"}

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
    succeeded. ``detail`` is the endpoint's own message.
    """

    problem: str
    detail: str


@dataclass(slots=True)
class Throttle:
    """The limit of concurrent requests: additive increase, multiplicative decrease."""

    ceiling: int
    limit: float = 0.0
    in_flight: int = 0
    not_before: float = 0.0
    successes: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.limit = float(self.ceiling)

    async def enter(self) -> None:
        """Wait for a free place and for the end of a cool-down, then take the place."""
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.in_flight < int(self.limit))
                pause = self.not_before - time.monotonic()
                if pause <= 0:
                    self.in_flight += 1
                    return
            await asyncio.sleep(pause)

    async def leave(self) -> None:
        """Release the place."""
        async with self.changed:
            self.in_flight -= 1
            self.changed.notify_all()

    def succeeded(self) -> None:
        """Count a success; every 25th adds one place, up to the ceiling."""
        self.successes += 1
        if self.successes % SUCCESSES_PER_STEP == 0:
            self.limit = min(float(self.ceiling), self.limit + 1)

    def overloaded(self, retry_after: float | None) -> None:
        """Handle a 429: fewer places, and none before the end of the cool-down."""
        now = time.monotonic()
        if now >= self.not_before:  # a burst of 429s counts once
            self.limit = max(1.0, self.limit * 0.75)
        self.not_before = max(self.not_before, now + (retry_after or COOL_DOWN))


@dataclass(slots=True)
class ApiClient:
    """An OpenAI-compatible endpoint. Use it as a context manager.

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
    _recent: collections.deque[bool] = field(
        default_factory=lambda: collections.deque(maxlen=WINDOW)
    )
    _throttle: Throttle = field(init=False)
    _loop: LoopThread = field(init=False)
    _api: Any = None

    def __post_init__(self) -> None:
        """Check the key and prepare the client.

        Raises:
            StageError: The key cannot be sent in a header.
        """
        self.api_key = clean_key(self.api_key, f"the API key for {self.base_url}")
        self._throttle = Throttle(self.concurrency)
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

        ``send`` gets the ``openai`` package's client and runs in the client's thread. It may be
        called several times for one request. It finishes before another request takes its place.

        Raises:
            MissingDependencyError: The ``openai`` package is not installed.
            StageError: The endpoint cannot be reached, refuses the key or the model, or fails half
                of the requests; or the client was closed.
        """
        try:
            return self._loop.run(self._call_all(requests, send))
        except LoopClosedError:
            what = f"{self.words.who} at {self.base_url} can no longer be asked"
            raise StageError(f"{what}: the client was closed") from None

    async def _call_all(
        self, requests: Sequence[RequestT], send: Callable[[Any, RequestT], Awaitable[AnswerT]]
    ) -> list[AnswerT | Failure]:
        """Send in rounds: retry temporary failures after all other requests."""
        if self._api is None:
            self._api = self._open()
        outcomes: dict[int, AnswerT | Failure] = {}
        for attempt in range(ATTEMPTS):
            waiting = [i for i in range(len(requests)) if i not in outcomes]
            if attempt and waiting:
                await asyncio.sleep(BACK_OFF[attempt - 1])
            last = attempt == ATTEMPTS - 1
            found = await _gather([self._attempt(requests[i], send, last) for i in waiting])
            outcomes |= {
                i: outcome for i, outcome in zip(waiting, found, strict=True) if outcome is not None
            }
        return [outcomes[i] for i in range(len(requests))]

    def _open(self) -> Any:
        if find_spec("openai") is None:
            raise MissingDependencyError(
                f"asking {self.words.who} needs the openai package",
                hint="pip install 'llmpipe[serve]'",
            )
        import openai

        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key,
            timeout=self.timeout,
            max_retries=0,  # our own retries wait for the others and are counted
            default_headers={"Connection": "close"} if self.local else None,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not self.local),
        )

    async def _attempt(
        self, request: RequestT, send: Callable[[Any, RequestT], Awaitable[AnswerT]], last: bool
    ) -> AnswerT | Failure | None:
        """Send a request once; return None to try again later."""
        import openai

        await self._throttle.enter()
        try:
            answer = await send(self._api, request)
            self._throttle.succeeded()
            self._recent.append(True)
            return answer
        except openai.APIConnectionError as error:  # also a timeout
            self.check_alive()
            if last:
                raise self._unreachable(error) from error
            return None
        except openai.APIStatusError as error:
            return self._after_status(error, last)
        except openai.OpenAIError as error:
            what = f"{self.words.who} at {self.base_url} cannot be asked"
            gist = f"{what}: {type(error).__name__}"
            raise ModelServerError(f"{what}: {error}", gist=gist) from error
        finally:
            await self._throttle.leave()

    def _after_status(self, error: Any, last: bool) -> Failure | None:
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
        if status == 429:
            self._throttle.overloaded(_retry_after(error))
        if status in (408, 409, 429) or status >= 500:
            return self._failed("failed", f"HTTP {status}: {detail}") if last else None
        too_long = any(word in str(error.body) for word in _TOO_LONG)
        return self._failed("too long" if too_long else "refused", detail)

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


async def _gather(work: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await all; at the first exception, cancel the others and raise it."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
