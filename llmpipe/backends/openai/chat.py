"""Ask a teacher behind an OpenAI-compatible endpoint many questions, none of them twice.

`ChatClient.ask` sends what the journal does not hold, by `llmpipe.backends.openai.client`, and
gives the replies in the order of the requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from llmpipe.backends.llama_cpp.chat import GREEDY
from llmpipe.backends.llama_cpp.prefixes import Prefixes
from llmpipe.backends.openai.client import ApiClient, Failure, Words
from llmpipe.backends.openai.journal import Journal, request_key
from llmpipe.backends.reasoning import part_unseen
from llmpipe.errors import StageError

TEACHER = Words("the teacher", "teacher.", "replies so far are journalled")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question; all its fields but ``shared`` are its identity in the journal."""

    messages: Sequence[Mapping[str, str]]
    temperature: float
    max_tokens: int
    seed: int
    schema: Mapping[str, Any] | None = None
    """JSON Schema that constrains the reply."""
    draw: int = 0
    """Counts the answers drawn for the same question."""
    shared: int = 0
    """How many of the first messages other requests begin with as well; no part of the identity."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What came of a request: ``text``, or a ``problem`` of this request alone."""

    text: str = ""
    """The answer alone."""
    truncated: bool = False
    """Whether the reply ends because ``max_tokens`` or the context was used up."""
    problem: str | None = None
    """``too long``: the prompt exceeds the context; ``refused``: a 400; ``failed``: no attempt
    succeeded. None when the teacher answered."""
    detail: str = ""
    """The endpoint's own words on the problem."""
    reasoning: str = ""
    """What the teacher thought first: what the endpoint tells apart, or what stands in tags."""


@dataclass(slots=True)
class ChatClient:
    """A teacher behind an OpenAI-compatible endpoint. Use it as a context manager.

    ``identity`` is what tells the teacher from others in the journal (JSON). ``local`` is for a
    server of our own: no proxy, no kept-alive connections. ``check_alive`` is called, in the
    client's thread, when the endpoint cannot be reached, and may raise a better error than ours.
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
    """What a server of our own computes once for all requests that begin alike."""
    check_alive: Callable[[], None] = lambda: None
    on_reply: Callable[[int | None], None] = lambda tokens: None
    """Called for every reply, in the client's thread: with its tokens (0 where the endpoint does
    not say them), or None for one that the journal held."""
    sent: int = 0
    """Requests that the endpoint answered in this run."""
    _client: ApiClient = field(init=False)

    def __post_init__(self) -> None:
        self._client = ApiClient(
            self.base_url,
            TEACHER,
            self.concurrency,
            api_key=self.api_key,
            timeout=self.timeout,
            local=self.local,
            check_alive=self.check_alive,
        )

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.__exit__(*exc_info)

    def key(self, request: ChatRequest) -> str:
        """Give the key under which the request's reply is journalled."""
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
                replies[index] = _known(known)
                self.on_reply(None)
        missing = [i for i in range(len(requests)) if i not in replies]
        if missing:
            outcomes = self._client.call([requests[i] for i in missing], self._send)
            replies |= dict(zip(missing, map(_reply, outcomes), strict=True))
        return [replies[index] for index in range(len(requests))]

    async def _send(self, api: Any, request: ChatRequest) -> ChatReply:
        async with self._begun(api, request) as extra:
            completion = await api.chat.completions.create(**self._body(request, extra))
        return self._keep(request, completion)  # journalled before the next one is sent

    def _begun(
        self, api: Any, request: ChatRequest
    ) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        if self.prefixes is None:
            return nullcontext({})
        return self.prefixes.begun(api, request.messages[: request.shared])

    def _body(self, request: ChatRequest, extra: Mapping[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(request.messages),
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        }
        if extra_body := {**self._neutral(request), **extra}:
            body["extra_body"] = extra_body
        if request.schema is not None:
            shape = {"name": "reply", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        return body

    def _neutral(self, request: ChatRequest) -> dict[str, Any]:
        """Return what llama.cpp is asked besides, so that temperature 0 is the likeliest token."""
        return dict(GREEDY) if self.local and request.temperature == 0 else {}

    def _keep(self, request: ChatRequest, completion: Any) -> ChatReply:
        if not completion.choices:
            raise StageError(
                f"{self.base_url} gave a reply without choices",
                hint="is it an OpenAI-compatible endpoint? base_url usually ends in /v1",
            )
        choice = completion.choices[0]
        said: dict[str, Any] = {
            "text": choice.message.content or "",
            "truncated": choice.finish_reason == "length",
        }
        if thought := _thought(choice.message):
            said["reasoning"] = thought
        self.journal.put(self.key(request), said)
        self.sent += 1
        self.on_reply(completion.usage.completion_tokens if completion.usage else 0)
        return _known(said)


def _thought(message: Any) -> str:
    """Return the reasoning that an endpoint tells apart, under whichever of the names in use."""
    said = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    return next((text for text in said if isinstance(text, str)), "")


def _known(said: Mapping[str, Any]) -> ChatReply:
    """Make a reply of what is journalled: the message as it came, tags of reasoning and all."""
    parted = part_unseen(said["text"])
    thoughts = filter(None, (said.get("reasoning", "").strip(), parted.reasoning))
    return ChatReply(parted.answer, said["truncated"], reasoning="\n".join(thoughts))


def _reply(outcome: ChatReply | Failure) -> ChatReply:
    if isinstance(outcome, Failure):
        return ChatReply(problem=outcome.problem, detail=outcome.detail)
    return outcome
