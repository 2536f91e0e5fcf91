"""Ask a teacher behind an endpoint many questions, none of them twice.

`ChatClient.ask` sends the requests that are not in the journal, through
`llmpipe.backends.openai.client`, and returns the replies in the order of the requests. A `Ledger`
counts what they cost, and keeps the budget. How an endpoint takes a chat is up to a `ChatFormat`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from llmpipe.backends.ledger import Ledger, prompt_bound
from llmpipe.backends.llama_cpp.chat import GREEDY
from llmpipe.backends.llama_cpp.prefixes import Prefixes
from llmpipe.backends.openai.attempts import Attempts
from llmpipe.backends.openai.chat_format import OpenAIFormat
from llmpipe.backends.openai.chat_requests import ChatFormat, ChatReply, ChatRequest, Said, spent
from llmpipe.backends.openai.client import AnswerT, ApiClient, Failure, RequestT, Words
from llmpipe.backends.openai.journal import Journal, request_key
from llmpipe.backends.reasoning import part_unseen
from llmpipe.backends.spending import Usage
from llmpipe.errors import as_text

__all__ = ["TEACHER", "ChatClient", "ChatReply", "ChatRequest", "Said"]

TEACHER = Words("the teacher", "teacher.", "replies so far are journaled")

FEWEST = 1 / 8
"""Tokens for a byte of a prompt, before an endpoint has counted one: texts have about twice as
many."""
SAFELY = 0.8
"""How much less dense than all prompts so far a prompt may be."""
LONG_PROMPT = 4_000
"""Bytes of a prompt from which tokens are counted: what is added to a short one weighs too much."""
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
"""Errors after which no request has reached the endpoint."""
_MAYBE_BILLED = (408, 499, 502, 504, 520, 524)
"""Statuses with which a proxy ends a request on which the model goes on working."""


@dataclass(slots=True)
class ChatClient:
    """A teacher behind an endpoint. Use it as a context manager.

    ``identity`` (JSON) identifies the teacher in the journal. ``local`` is for our own server: no
    proxy, no keep-alive. ``check_alive`` is called in the client's thread when the endpoint cannot
    be reached, and may raise a more precise error.
    """

    base_url: str
    model: str
    identity: Mapping[str, Any]
    journal: Journal
    concurrency: int
    api_key: str = field(default="none", repr=False)
    timeout: float = 600.0
    local: bool = False
    prefixes: Prefixes | None = None
    """Prompt prefixes that our own server computes once for all requests that share them."""
    check_alive: Callable[[], None] = lambda: None
    on_reply: Callable[[int | None], None] = lambda tokens: None
    """Called for every reply, in the client's thread: with its tokens (0 if the endpoint does not
    report them), or None for a reply from the journal."""
    batched: Callable[[ChatClient, Sequence[ChatRequest]], list[ChatReply | Failure]] | None = None
    """Asks in batches; None to ask request by request."""
    prepare: Callable[[ChatClient], None] | None = None
    """Called once, before the first request is sent; None when that is done."""
    context: int | None = None
    """The tokens of prompt and reply together, where an endpoint's limit is known."""
    sent: int = 0
    """The number of requests that the endpoint answered in this run."""
    format: ChatFormat = field(default_factory=OpenAIFormat)
    """How the endpoint takes chats."""
    ledger: Ledger = field(default_factory=Ledger)
    """Counts what the replies cost, and keeps the budget."""
    _client: ApiClient = field(init=False)
    _attempts: Attempts = field(init=False)
    _density: float | None = None
    """The fewest tokens for a byte among the long prompts so far, as the endpoint counts them."""
    _met: set[str] = field(default_factory=set)
    """The keys of requests whose earlier attempts are counted."""
    _counted: set[str] = field(default_factory=set)
    """The keys of requests whose reply is counted."""

    def __post_init__(self) -> None:
        self._attempts = Attempts(self.journal)
        self._client = ApiClient(
            self.base_url,
            TEACHER,
            self.concurrency,
            api_key=self.api_key,
            timeout=self.timeout,
            local=self.local,
            check_alive=self.check_alive,
            sdk=self.format.sdk,
        )

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.__exit__(*exc_info)

    def key(self, request: ChatRequest) -> str:
        """Return the journal key of a request."""
        decoding = {
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
            **self._neutral(request),
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
        """Return a reply for every request, in order.

        Raises:
            MissingDependencyError: The SDK is not installed.
            BudgetReachedError: The budget does not allow all requests. Replies are journaled.
            StageError: The endpoint cannot be reached, refuses the key or the model, or fails half
                of the requests.
            StoreError: The journal cannot be used.
        """
        replies: dict[int, ChatReply] = {}
        keys = [self.key(request) for request in requests]
        for index, request in enumerate(requests):
            known = self._journaled(keys[index], request)
            if known is not None:
                replies[index] = _known(known)
                self.on_reply(None)
            elif detail := self._too_long(request):
                replies[index] = ChatReply(problem="too long", detail=detail)
        missing = [i for i in range(len(requests)) if i not in replies]
        if missing:
            if self.prepare is not None:
                prepare, self.prepare = self.prepare, None
                prepare(self)
            outcomes = self._outcomes({i: keys[i] for i in missing}, requests)
            replies |= dict(zip(missing, map(_reply, outcomes), strict=True))
            if self.ledger.stopped:
                error = self.ledger.error()
                error.replies = [replies[index] for index in range(len(requests))]
                raise error
        return [replies[index] for index in range(len(requests))]

    def _outcomes(
        self, keys: Mapping[int, str], requests: Sequence[ChatRequest]
    ) -> list[ChatReply | Failure]:
        """Return the outcomes of the requests with these keys; equal ones are sent once."""
        first: dict[str, int] = {}
        for index, key in keys.items():
            first.setdefault(key, index)
        asked = list(first.values())
        sent = [requests[index] for index in asked]
        outcomes = self.call(sent, self._send) if self.batched is None else self.batched(self, sent)
        for _ in range(len(keys) - len(asked)):
            self.on_reply(None)
        of = dict(zip(asked, outcomes, strict=True))
        return [of[first[key]] for key in keys.values()]

    def call(
        self, requests: Sequence[RequestT], send: Callable[[Any, RequestT], Awaitable[AnswerT]]
    ) -> list[AnswerT | Failure]:
        """Send requests; see `ApiClient.call`."""
        return self._client.call(requests, send)

    def _journaled(self, key: str, request: ChatRequest) -> Said | None:
        """Return a reply from the journal, and count what it cost and what was lost before it."""
        known: Said | None = self.journal.get(key, Said)
        self.recall(key, self.worst(request), known)
        if known is not None:
            self._learn(request, known)
        return known

    def recall(self, key: str, worst: Usage, known: Said | None) -> None:
        """Count, once, what earlier runs paid for a request: a reply, and attempts without one."""
        if key not in self._met:
            self._met.add(key)
            if self.ledger.budget is not None:
                for _ in range(self._attempts.lost(key, answered=known is not None)):
                    self.ledger.lose(None, worst)
        if known is not None and key not in self._counted:
            self.count(key, None, worst, known)

    def count(self, key: str, number: int | None, worst: Usage, said: Said) -> None:
        """Count what a reply cost, instead of its reservation if it has one."""
        self._counted.add(key)
        if number is None:
            self.ledger.recall(worst, spent(said))
        else:
            self.ledger.settle(number, worst, spent(said))

    def _too_long(self, request: ChatRequest) -> str:
        """Return why a prompt certainly exceeds the context, or an empty text if it may fit."""
        if self.context is None:
            return ""
        density = FEWEST if self._density is None else SAFELY * self._density
        tokens = int(_size(request) * density)
        if tokens + request.max_tokens <= self.context:
            return ""
        return (
            f"it was not sent: at least {tokens:,} tokens, and {request.max_tokens:,} for the "
            f"reply, in a context of {self.context:,}"
        )

    async def _send(self, api: Any, request: ChatRequest) -> ChatReply:
        async with self._begun(api, request) as extra:
            body = self.body(request)
            if extra := {**body.pop("extra_body", {}), **self._neutral(request), **extra}:
                body["extra_body"] = extra
            said = await self._paid(api, request, body)
        return self.received(said)

    def worst(self, request: ChatRequest) -> Usage:
        """Return the most tokens that a request can take."""
        return Usage(prompt_bound(request.messages, request.schema), request.max_tokens)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """Return the arguments of the SDK's call for a request."""
        return {"model": self.model, **self.format.body(request)}

    def received(self, said: Said) -> ChatReply:
        """Count a new reply, and return it."""
        self.sent += 1
        self.on_reply(usage.output if (usage := spent(said)) else 0)
        return _known(said)

    async def _paid(self, api: Any, request: ChatRequest, body: Mapping[str, Any]) -> Said:
        """Send a request within the budget, and journal the reply before anything else."""
        key, worst = self.key(request), self.worst(request)
        _, said = await self.charge(api, body, worst, key)
        self.journal.put(key, said)
        self._learn(request, said)
        return said

    def _learn(self, request: ChatRequest, said: Said) -> None:
        """Learn from a long prompt how many tokens a byte of text has at least."""
        usage, size = spent(said), _size(request)
        if usage is None or size < LONG_PROMPT:
            return
        added = prompt_bound(request.messages, request.schema) - size
        density = max(0, usage.input - added) / size
        self._density = density if self._density is None else min(density, self._density)

    async def charge(
        self, api: Any, body: Mapping[str, Any], worst: Usage, key: str
    ) -> tuple[Any, Said]:
        """Send a request within the budget; return the SDK's object and the reply.

        Raises:
            BudgetReachedError: The budget does not allow ``worst``.
        """
        number = await self.ledger.reserve(worst)
        try:
            if self.ledger.budget is not None:
                self._attempts.begin(key)
            completion = await self.format.create(api, body)
            said = self.format.read(completion)
        except BaseException as error:
            if _is_free(error):
                self.ledger.cancel(number)
                if self.ledger.budget is not None:
                    self._attempts.refused(key)
            else:  # no reply, or one that cannot be read
                self.ledger.lose(number, worst)
            raise
        self.count(key, number, worst, said)
        return completion, said

    def _begun(
        self, api: Any, request: ChatRequest
    ) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        if self.prefixes is None:
            return nullcontext({})
        return self.prefixes.begun(api, request.messages[: request.shared])

    def _neutral(self, request: ChatRequest) -> dict[str, Any]:
        """Return the extra fields with which llama.cpp decodes greedily at temperature 0."""
        return dict(GREEDY) if self.local and request.temperature == 0 else {}


def _is_free(error: BaseException) -> bool:
    """Return whether a request that ended in an error certainly costs nothing."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status >= 300 and status not in _MAYBE_BILLED
    return type(error.__cause__).__name__ in _NOT_SENT


def _size(request: ChatRequest) -> int:
    return sum(len(message["content"].encode("utf-8", "replace")) for message in request.messages)


def _known(said: Said) -> ChatReply:
    """Return a reply from a journal entry.

    An endpoint's JSON may hold half of a surrogate pair, which no file of rows can.
    """
    if refusal := said.get("refused"):
        return ChatReply(problem="refused", detail=as_text(refusal))
    parted = part_unseen(as_text(said["text"]))
    thoughts = filter(None, (as_text(said.get("reasoning", "")).strip(), parted.reasoning))
    usage = spent(said)
    tokens = None if usage is None else usage.output
    return ChatReply(parted.answer, said["truncated"], reasoning="\n".join(thoughts), tokens=tokens)


def _reply(outcome: ChatReply | Failure) -> ChatReply:
    if isinstance(outcome, Failure):
        return ChatReply(problem=outcome.problem, detail=outcome.detail)
    return outcome
