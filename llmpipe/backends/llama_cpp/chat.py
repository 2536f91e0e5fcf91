"""Answer a chat with a llama.cpp server: rendering, decoding and separate reasoning.

llama.cpp renders and tokenizes the chat (`/apply-template`, `/tokenize`); the parity check proves
that this equals transformers. The ids are then continued as raw text (`/completion`), because
llama.cpp's chat route treats reasoning differently if it does not recognize the template.

At temperature 0 all penalties and samplers are neutral, whatever the GGUF sets in
`general.sampling.*`. A constraint (grammar or JSON Schema) applies to the answer, not to the
reasoning: a model that may reason first reasons freely, and then writes the constrained answer.
"""

from __future__ import annotations

import http.client
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmpipe.backends.reasoning import TAG_TEXTS, Parter, Tags, may_reason, opened_by
from llmpipe.backends.streaming import Cancellation, Piece, Pieces, Thought, Usage
from llmpipe.errors import StageError

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.client import LlamaServer

GREEDY: Mapping[str, Any] = {
    "temperature": 0.0,
    "samplers": ["temperature"],
    "dynatemp_range": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "top_n_sigma": -1.0,
    "xtc_probability": 0.0,
    "mirostat": 0,
    "adaptive_target": -1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "dry_multiplier": 0.0,
    "logit_bias": [],
}
"""Greedy decoding: every field that could change the likeliest token has its neutral value."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """The decoding settings of an answer."""

    max_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token; otherwise the GGUF's own sampling settings also apply."""
    seed: int = 0
    constraint: Mapping[str, Any] | None = None
    """``grammar`` or ``json_schema`` for the answer."""
    adapter: int | None = None
    """The number of the LoRA adapter to write with, if any."""

    def body(self, ids: Sequence[int], spent: int = 0) -> dict[str, Any]:
        """Return the request that continues ``ids``, after ``spent`` generated tokens."""
        adapted = {} if self.adapter is None else {"lora": [{"id": self.adapter, "scale": 1.0}]}
        return {
            **adapted,
            **(GREEDY if self.temperature == 0 else {"temperature": self.temperature}),
            "prompt": list(ids),
            "n_predict": self.max_tokens - spent,
            "seed": self.seed,
            "preserved_tokens": list(TAG_TEXTS),
        }


def stream_chat(
    server: LlamaServer,
    messages: Sequence[Mapping[str, str]],
    decoding: Decoding,
    cancellation: Cancellation | None = None,
) -> Pieces:
    """Yield the pieces of an answer to a conversation; see `LlamaServer.stream_chat`."""
    cancellation = cancellation or Cancellation()
    try:
        yield from _Writer(server, decoding, cancellation).write(messages)
    except (OSError, http.client.HTTPException) as error:
        if cancellation.cancelled:
            return
        server.check_alive()
        raise StageError(
            f"the connection to {server.program} broke in the middle of an answer: {error!r}"
        ) from error


@dataclass(slots=True)
class _Writer:
    """Writes one reply."""

    server: LlamaServer
    decoding: Decoding
    cancellation: Cancellation

    def write(self, messages: Sequence[Mapping[str, str]]) -> Pieces:
        """Render the conversation and yield the pieces of the reply."""
        prompt = self.server.apply_template(messages)
        ids = self.server.tokenize(prompt, add_special=True)
        opened = opened_by(prompt, messages[-1]["content"])
        constraint = self.decoding.constraint
        if constraint and (opened or may_reason(self.server.template())):
            yield from self._reason_first(ids, opened, constraint)
        else:
            body = self.decoding.body(ids)
            yield from self._written({**body, **(constraint or {})}, Parter(opened), len(ids))

    def _reason_first(
        self, ids: list[int], opened: Tags | None, constraint: Mapping[str, Any]
    ) -> Pieces:
        """Let the model reason freely, then constrain its answer."""
        parter, text, written, spent = Parter(opened), "", [*ids], 0
        with closing(self._events(self.decoding.body(ids))) as events:
            for event in events:
                stretches = list(parter.feed(event["content"]))
                yield from (Thought(words) for words, thought in stretches if thought)
                text, written = text + event["content"], written + event["tokens"]
                spent = event["tokens_predicted"]
                if parter.answering:
                    break
                if event["stop"] and (parter.reasoning or event["stop_type"] == "limit"):
                    yield from _rest(parter)
                    yield _usage(event, len(ids), parter)
                    return
        if not parter.reasoned:  # it answered or ended without reasoning
            written, spent = ids, 0
        elif answer := "".join(words for words, thought in stretches if not thought):
            written = ids + self.server.tokenize(text.removesuffix(answer))
        elif len(written) - len(ids) != spent:  # tokens of an incomplete character have no event
            written = ids + self.server.tokenize(text)
        if spent == self.decoding.max_tokens:
            yield Usage(len(ids), spent, truncated=True)
            return
        body = self.decoding.body(written, spent)
        again = {"cache_prompt": True}  # the server has just computed it
        yield from self._written({**body, **constraint, **again}, Parter(), len(ids), spent)

    def _written(
        self, body: Mapping[str, Any], parter: Parter, prompt_tokens: int, spent: int = 0
    ) -> Pieces:
        with closing(self._events(body)) as events:
            for event in events:
                yield from map(_piece, parter.feed(event["content"]))
                if event["stop"]:
                    yield from _rest(parter)
                    yield _usage(event, prompt_tokens, parter, spent)

    def _events(self, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        return self.server.events("/completion", {**body, "stream": True}, self.cancellation)


def _piece(stretch: tuple[str, bool]) -> Piece:
    text, thought = stretch
    return Thought(text) if thought else text


def _rest(parter: Parter) -> Iterator[Piece]:
    return map(_piece, parter.close())


def _usage(event: Mapping[str, Any], prompt: int, parter: Parter, spent: int = 0) -> Usage:
    """Return the usage of a reply from its last event."""
    return Usage(
        prompt,
        spent + event["tokens_predicted"],
        truncated=event["stop_type"] == "limit",
        unfinished=parter.reasoning,
    )
