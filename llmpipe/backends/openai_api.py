"""Ask any OpenAI-compatible endpoint many questions: concurrently, journalled, giving up in time.

`ChatClient.ask` sends what the journal does not hold and gives the replies in the order of the
requests. Concurrency follows AIMD: three quarters after a 429, one more after 25 successes. What
fails for a passing reason is sent again after the rest, with growing pauses. An endpoint that is
dead, or refuses us, ends the work with an error that names it.

It does not stream, does not count money, and never writes the API key anywhere.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from llmpipe.backends.journal import Journal, request_key
from llmpipe.errors import MissingDependencyError, StageError

COOL_DOWN = 2.0
"""Seconds without new requests after a 429 that names no time of its own."""
SUCCESSES_PER_STEP = 25
"""Successes after which one more request may be under way."""
BACK_OFF = (0.5, 2.0, 5.0, 10.0)
"""Seconds before the second, third … round of attempts."""
ATTEMPTS = len(BACK_OFF) + 1
"""How often a request is sent before it counts as failed."""
WINDOW = 20
"""When half of so many finished requests in a row have failed, the work stops."""

_TOO_LONG = ("exceed_context_size_error", "context_length_exceeded")
_FATAL = {401: "refuses the API key", 403: "refuses access", 404: "knows no such model or path"}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question; all its fields together are its identity in the journal."""

    messages: Sequence[Mapping[str, str]]
    temperature: float
    max_tokens: int
    seed: int
    schema: Mapping[str, Any] | None = None
    """JSON Schema that constrains the reply."""
    draw: int = 0
    """Counts the answers drawn for the same question."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What came of a request: ``text``, or a ``problem`` of this request alone."""

    text: str = ""
    truncated: bool = False
    """Whether the reply ends because ``max_tokens`` or the context was used up."""
    problem: str | None = None
    """``too long``: the prompt exceeds the context; ``refused``: a 400; ``failed``: no attempt
    succeeded. None when the teacher answered."""
    detail: str = ""
    """The endpoint's own words on the problem."""


@dataclass(slots=True)
class Throttle:
    """How many requests may be under way: additive increase, multiplicative decrease."""

    ceiling: int
    limit: float = 0.0
    in_flight: int = 0
    not_before: float = 0.0
    successes: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.limit = float(self.ceiling)

    async def enter(self) -> None:
        """Wait for a free place and for the end of a cool-down, and take the place."""
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.in_flight < int(self.limit))
                pause = self.not_before - time.monotonic()
                if pause <= 0:
                    self.in_flight += 1
                    return
            await asyncio.sleep(pause)

    async def leave(self) -> None:
        """Give the place back."""
        async with self.changed:
            self.in_flight -= 1
            self.changed.notify_all()

    def succeeded(self) -> None:
        """Note a success; every 25th opens one more place, up to the ceiling."""
        self.successes += 1
        if self.successes % SUCCESSES_PER_STEP == 0:
            self.limit = min(float(self.ceiling), self.limit + 1)

    def overloaded(self, retry_after: float | None) -> None:
        """Note a 429: fewer places, and none before the cool-down is over."""
        now = time.monotonic()
        if now >= self.not_before:  # a burst of 429s is one message, not many
            self.limit = max(1.0, self.limit * 0.75)
        self.not_before = max(self.not_before, now + (retry_after or COOL_DOWN))


@dataclass(slots=True)
class ChatClient:
    """A teacher behind an OpenAI-compatible endpoint. Use it as a context manager.

    ``identity`` is what tells the teacher from others in the journal (JSON). ``local`` is for a
    server of our own: no proxy, no kept-alive connections. ``check_alive`` is called when the
    endpoint cannot be reached and may raise a better error than ours.
    """

    base_url: str
    model: str
    identity: Mapping[str, Any]
    journal: Journal
    concurrency: int
    api_key: str = field(default="none", repr=False)
    timeout: float = 600.0
    local: bool = False
    check_alive: Callable[[], None] = lambda: None
    sent: int = 0
    """Requests that the endpoint answered in this run."""
    journalled: int = 0
    """Requests that the journal answered."""
    _recent: collections.deque[bool] = field(
        default_factory=lambda: collections.deque(maxlen=WINDOW)
    )
    _throttle: Throttle = field(init=False)
    _loop: asyncio.Runner = field(default_factory=asyncio.Runner)
    _api: Any = None

    def __post_init__(self) -> None:
        self._throttle = Throttle(self.concurrency)

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._api is not None:
            self._loop.run(self._api.close())
        self._loop.close()

    def key(self, request: ChatRequest) -> str:
        """Give the key under which the request's reply is journalled."""
        decoding = {
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        }
        return request_key(
            {
                "teacher": self.identity,
                "messages": list(request.messages),
                "decoding": decoding,
                "schema": request.schema,
                "draw": request.draw,
            }
        )

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Give a reply for every request, in their order.

        Raises:
            MissingDependencyError: the ``openai`` package is not installed.
            StageError: the endpoint cannot be reached, refuses the key or the model, or fails half
                of the requests.
            StoreError: the journal cannot be used.
        """
        replies: dict[int, ChatReply] = {}
        for index, request in enumerate(requests):
            known = self.journal.get(self.key(request))
            if known is not None:
                replies[index] = ChatReply(**known)
        self.journalled += len(replies)
        missing = {i: request for i, request in enumerate(requests) if i not in replies}
        if missing:
            replies |= self._loop.run(self._ask_all(missing))
        return [replies[index] for index in range(len(requests))]

    async def _ask_all(self, requests: Mapping[int, ChatRequest]) -> dict[int, ChatReply]:
        """Send in waves: what failed for a passing reason goes again after all the rest."""
        if self._api is None:
            self._api = self._open()
        replies: dict[int, ChatReply] = {}
        for attempt in range(ATTEMPTS):
            waiting = {i: request for i, request in requests.items() if i not in replies}
            if attempt and waiting:
                await asyncio.sleep(BACK_OFF[attempt - 1])
            last = attempt == ATTEMPTS - 1
            outcomes = await _gather([self._attempt(item, last) for item in waiting.values()])
            for index, outcome in zip(waiting, outcomes, strict=True):
                if outcome is not None:
                    replies[index] = outcome
        return replies

    def _open(self) -> Any:
        if find_spec("openai") is None:
            raise MissingDependencyError(
                "asking a teacher needs the openai package", hint="pip install 'llmpipe[serve]'"
            )
        import openai

        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key,
            timeout=self.timeout,
            max_retries=0,  # retries are ours: they must wait for the rest and be counted
            default_headers={"Connection": "close"} if self.local else None,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not self.local),
        )

    async def _attempt(self, request: ChatRequest, last: bool) -> ChatReply | None:
        """Send one request once. None means: try again later."""
        import openai

        await self._throttle.enter()
        try:
            completion = await self._api.chat.completions.create(**self._body(request))
            self._throttle.succeeded()
            return self._keep(request, completion)  # journalled before the next one is sent
        except openai.APIConnectionError as error:  # a timeout, too
            self.check_alive()
            if last:
                raise self._unreachable(error) from error
            return None
        except openai.APIStatusError as error:
            return self._after_status(error, last)
        except openai.OpenAIError as error:
            raise StageError(f"the teacher at {self.base_url} cannot be asked: {error}") from error
        finally:
            await self._throttle.leave()

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(request.messages),
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        }
        if request.schema is not None:
            shape = {"name": "reply", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    def _keep(self, request: ChatRequest, completion: Any) -> ChatReply:
        if not completion.choices:
            raise StageError(
                f"{self.base_url} gave a reply without choices",
                hint="is it an OpenAI-compatible endpoint? base_url usually ends in /v1",
            )
        choice = completion.choices[0]
        reply = ChatReply(choice.message.content or "", choice.finish_reason == "length")
        self.journal.put(self.key(request), {"text": reply.text, "truncated": reply.truncated})
        self.sent += 1
        self._recent.append(True)
        return reply

    def _after_status(self, error: Any, last: bool) -> ChatReply | None:
        status = error.status_code
        detail = _detail(error).replace(self.api_key, "[key]")
        if status in _FATAL:
            raise StageError(
                f"the teacher at {self.base_url} {_FATAL[status]}: {detail}",
                hint="check teacher.model, teacher.base_url and teacher.api_key",
            )
        if status == 429:
            self._throttle.overloaded(_retry_after(error))
        if status in (408, 409, 429) or status >= 500:
            if not last:
                return None
            return self._failed("failed", f"HTTP {status}: {detail}")
        too_long = any(word in str(error.body) for word in _TOO_LONG)
        return self._failed("too long" if too_long else "refused", detail)

    def _failed(self, problem: str, detail: str) -> ChatReply:
        self._recent.append(False)
        if problem != "too long" and self._recent.count(False) * 2 >= WINDOW:
            raise StageError(
                f"the teacher at {self.base_url} failed {self._recent.count(False)} of the last "
                f"{len(self._recent)} requests: {detail}",
                hint="replies so far are journalled; run again when it has recovered",
            )
        return ChatReply(problem=problem, detail=detail)

    def _unreachable(self, error: Exception) -> StageError:
        return StageError(
            f"cannot reach the teacher at {self.base_url}: {error.__cause__ or error}",
            hint="is it running, and is teacher.base_url right? replies so far are journalled",
        )


async def _gather(work: Sequence[Awaitable[ChatReply | None]]) -> list[ChatReply | None]:
    """Await all; at the first exception cancel the others, then raise it."""
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
