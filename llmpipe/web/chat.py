"""OpenAI's chat completions: read requests, and write answers in the format that clients expect.

Data that OpenAI's protocol does not define is in one more field, ``llmpipe``, which clients ignore.
The service ignores callers' system messages, because the stage decides the prompt. It also ignores
the fields in `IGNORED`, and fields besides the text of an earlier answer that clients send
back. It refuses any other field that would have no effect.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmpipe.backends.reasoning import part_unseen
from llmpipe.backends.streaming import Usage
from llmpipe.retrieval.answer import Answer, Done, Event, Retrieved, Thinking, Token
from llmpipe.retrieval.prompt import Turn
from llmpipe.web.errors import ApiError, event_of, unsupported
from llmpipe.web.library import Library
from llmpipe.web.model.requests import StreamOptions
from llmpipe.web.request_fields import REFUSED, requested_fields
from llmpipe.web.request_parsing import converted

LONGEST_QUESTION = 10_000
"""The maximum number of characters of a question."""
LONGEST_HISTORY = 20_000
"""The number of characters of earlier turns that are used, from the end."""
MOST_TURNS = 20
"""The number of earlier turns that are used, from the end."""

IGNORED = frozenset(
    (
        "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p",
        "typical_p", "seed", "frequency_penalty", "presence_penalty", "repeat_penalty",
        "reasoning_effort", "cache_control", "service_tier", "store",
    )
)  # fmt: skip
"""Fields that clients always send. They are ignored, because the stage decides how to answer."""
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    **{name: nothing for name, nothing in REFUSED.items() if name not in IGNORED},
    "logit_bias": ({}, []),
    "logprobs": (False,),
    "parallel_tool_calls": (True, False),
    "stop": ("", []),
    "tool_choice": ("none", "auto"),
}

DONE = b"data: [DONE]\n\n"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a message's content. Other types than text are defined to be refused by name."""

    type: str
    text: str = ""
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    cache_control: Any = None

    def require_text(self) -> None:
        """Require that the part is only a text.

        Raises:
            ApiError: It is something else.
        """
        if self.type != "text" or any((self.image_url, self.input_audio, self.file)):
            raise unsupported("content of the type", self.type)


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of the conversation. Only its role and its text are used."""

    role: str
    content: str | list[Part] | None = None
    name: Any = None
    refusal: Any = None
    annotations: Any = None
    reasoning_content: Any = None
    cache_control: Any = None
    llmpipe: Any = None

    def text(self) -> str:
        """Return the message's text.

        Raises:
            ApiError: It contains something else.
        """
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        for part in self.content:
            part.require_text()
        return "\n".join(part.text for part in self.content)


class ChatRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields that are used, and those that are refused with their own message."""

    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    filters: Any = None
    """Only searches have filters. Ignoring them in a chat would widen the search."""

    def question(self) -> tuple[str, list[Turn]]:
        """Return the question and the earlier turns of the conversation.

        Raises:
            ApiError: There is no question, it is too long, or the request asks for something else.
        """
        self._require_an_answer_in_words()
        spoken = [m for m in self.messages if m.role not in ("system", "developer")]
        for message in spoken:
            if message.role not in ("user", "assistant"):
                raise unsupported("messages of the role", message.role)
        if not spoken or spoken[-1].role != "user":
            raise ApiError(400, "no_question", "the last message must be the user's: the question")
        return stripped(spoken[-1].text()), _turns(spoken[:-1])

    def _require_an_answer_in_words(self) -> None:
        if self.tools:
            raise unsupported("tools")
        if self.stream_options is not None:
            self.stream_options.check(stream=bool(self.stream))
        if (self.response_format or {}).get("type", "text") != "text":
            raise unsupported("a `response_format` other than text")
        if self.filters is not None:
            raise unsupported("`filters` in a chat; a search takes them, and so does the stage")


def read_chat(data: Any) -> ChatRequest:
    """Read a chat request.

    Raises:
        ApiError: It is not a conversation, or asks for something unsupported.
    """
    if isinstance(data, dict):
        known = set(ChatRequest.__struct_fields__)
        fields = requested_fields(data, known, _REFUSED)
        data = {name: value for name, value in fields.items() if name not in IGNORED}
    return converted(data, ChatRequest)


class Reply:
    """An answer in OpenAI's format: whole, or as chunks of a stream."""

    def __init__(self, model: str, library: Library, *, include_usage: bool = False) -> None:
        self._shape = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._library = library
        self._include_usage = include_usage
        self._said = ""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return the answer as one object."""
        message = {"role": "assistant", "content": answer.text}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        return {
            **self._shape,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": _finish(answer)}],
            "usage": _usage(answer.usage),
            "llmpipe": {**_rest(answer), "hits": self._library.hits(answer.hits)},
        }

    def chunks(self, event: Event) -> Iterator[bytes]:
        """Yield the chunks of a stream for an event."""
        match event:
            case Retrieved():
                hits = {"hits": self._library.hits(event.hits)}
                yield self._chunk({"role": "assistant", "content": ""}, llmpipe=hits)
            case Thinking():
                yield self._chunk({"reasoning_content": event.text})
            case Token():
                yield from self._words(event.text)
            case Done():
                yield from self._end(event.answer)

    def _words(self, text: str) -> Iterator[bytes]:
        text = text if self._said else text.lstrip()
        self._said += text
        if text:
            yield self._chunk({"content": text})

    def _end(self, answer: Answer) -> Iterator[bytes]:
        if not self._said:  # an empty reply counts as an abstention
            yield from self._words(answer.text)
        rest = {"text": answer.text, **_rest(answer)}
        yield self._chunk({}, finish=_finish(answer), llmpipe=rest)
        if self._include_usage:
            yield event_of(self._chunk_shape(choices=[], usage=_usage(answer.usage)))
        yield DONE

    def _chunk(self, delta: dict[str, str], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event_of(self._chunk_shape(choices=[choice], **more))

    def _chunk_shape(self, **fields: Any) -> dict[str, Any]:
        return {**self._shape, "object": "chat.completion.chunk", **fields}


def stripped(question: str) -> str:
    """Return a question without surrounding whitespace.

    Raises:
        ApiError: It is empty or too long.
    """
    question = question.strip()
    if not question:
        raise ApiError(400, "empty_question", "the question is empty")
    if len(question) > LONGEST_QUESTION:
        raise too_long(
            f"the question has {len(question):,} characters; the limit is {LONGEST_QUESTION:,}"
        )
    return question


def too_long(message: str) -> ApiError:
    """Return the error for a question that is too long."""
    return ApiError(400, "question_too_long", message)


def _turns(messages: list[ChatMessage]) -> list[Turn]:
    """Return the last answered questions with their answers, within the limits."""
    pairs = itertools.pairwise(messages)
    answered = [(a, b) for a, b in pairs if (a.role, b.role) == ("user", "assistant")]
    turns: list[Turn] = []
    room = LONGEST_HISTORY
    for question, said in reversed(answered[-MOST_TURNS:]):
        turn = question.text(), part_unseen(said.text()).answer
        room -= len(turn[0]) + len(turn[1])
        if room < 0:
            break
        turns.insert(0, turn)
    return turns


def _rest(answer: Answer) -> dict[str, Any]:
    """Return the fields that OpenAI's protocol does not define, except the hits."""
    return {
        "abstained": answer.abstained,
        "citations": answer.citations,
        "timings": answer.timings,
    }


def _finish(answer: Answer) -> str:
    return "length" if answer.usage.truncated else "stop"


def _usage(usage: Usage) -> dict[str, int] | None:
    """Return the token counts, or None if the model's server does not report them."""
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
