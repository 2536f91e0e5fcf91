"""Ask a teacher behind an OpenAI-compatible endpoint many questions, none of them twice.

`ChatClient.ask` sends the requests that are not in the journal, through
`llmpipe.backends.openai.client`, and returns the replies in the order of the requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from llmpipe.backends.llama_cpp.chat import GREEDY
from llmpipe.backends.llama_cpp.prefixes import Prefixes
from llmpipe.backends.openai.client import ApiClient, Failure, Words
from llmpipe.backends.openai.journal import Journal, request_key
from llmpipe.backends.reasoning import part_unseen
from llmpipe.errors import StageError, as_text

TEACHER = Words("the teacher", "teacher.", "replies so far are journaled")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request; all its fields except ``shared`` are its identity in the journal."""

    messages: Sequence[Mapping[str, str]]
    temperature: float
    max_tokens: int
    seed: int
    schema: Mapping[str, Any] | None = None
    """A JSON Schema that constrains the reply."""
    draw: int = 0
    """The number of this sample, if the same question is asked several times."""
    shared: int = 0
    """The number of first messages that other requests share; not part of the identity."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The result of a request: ``text``, or a ``problem`` of this request."""

    text: str = ""
    """The answer without the reasoning."""
    truncated: bool = False
    """Whether ``max_tokens`` or the context cut the reply off."""
    problem: str | None = None
    """``too long``: the prompt exceeds the context; ``refused``: a 400; ``failed``: no attempt
    succeeded. None if the teacher answered."""
    detail: str = ""
    """The endpoint's own message about the problem."""
    reasoning: str = ""
    """The teacher's reasoning, from the endpoint's own field or from tags."""


class Said(TypedDict):
    """A reply as the journal keeps it; its text still contains reasoning tags."""

    text: str
    truncated: bool
    reasoning: NotRequired[str]


@dataclass(slots=True)
class ChatClient:
    """A teacher behind an OpenAI-compatible endpoint. Use it as a context manager.

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
    sent: int = 0
    """The number of requests that the endpoint answered in this run."""
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
            MissingDependencyError: The ``openai`` package is not installed.
            StageError: The endpoint cannot be reached, refuses the key or the model, or fails half
                of the requests.
            StoreError: The journal cannot be used.
        """
        replies: dict[int, ChatReply] = {}
        for index, request in enumerate(requests):
            known: Said | None = self.journal.get(self.key(request), Said)
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
        return self._keep(request, completion)  # journaled before the next one is sent

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
        """Return the extra fields with which llama.cpp decodes greedily at temperature 0."""
        return dict(GREEDY) if self.local and request.temperature == 0 else {}

    def _keep(self, request: ChatRequest, completion: Any) -> ChatReply:
        if not completion.choices:
            raise StageError(
                f"{self.base_url} returned a reply without choices",
                hint="is it an OpenAI-compatible endpoint? base_url usually ends in /v1",
            )
        choice = completion.choices[0]
        said: Said = {
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
    """Return the reasoning in an endpoint's own field, under either of its common names."""
    said = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    return next((text for text in said if isinstance(text, str)), "")


def _known(said: Said) -> ChatReply:
    """Return a reply from a journal entry.

    An endpoint's JSON may hold half of a surrogate pair, which no file of rows can.
    """
    parted = part_unseen(as_text(said["text"]))
    thoughts = filter(None, (as_text(said.get("reasoning", "")).strip(), parted.reasoning))
    return ChatReply(parted.answer, said["truncated"], reasoning="\n".join(thoughts))


def _reply(outcome: ChatReply | Failure) -> ChatReply:
    if isinstance(outcome, Failure):
        return ChatReply(problem=outcome.problem, detail=outcome.detail)
    return outcome
