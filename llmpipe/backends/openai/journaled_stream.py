"""Stream answers from an endpoint through the journal, so that none is paid for twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import NotRequired, TypedDict

import msgspec

from llmpipe.backends.openai.journal import Journal, request_key
from llmpipe.backends.openai.stream import OpenAIStreamer
from llmpipe.backends.reasoning import part_unseen
from llmpipe.backends.streaming import Cancellation, Pieces, Thought, Usage


class Said(TypedDict):
    """An answer as the journal keeps it; in old journals, the text still contains the reasoning."""

    text: str
    usage: Usage
    reasoning: NotRequired[str]


class JournaledStreamer:
    """An endpoint with a journal of all complete answers.

    An answer that breaks off, and an empty one, is requested again the next time.
    """

    def __init__(self, endpoint: OpenAIStreamer, journal: Journal) -> None:
        self._endpoint = endpoint
        self._journal = journal

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Pieces:
        """Answer like `OpenAIStreamer.stream_chat`; a journaled answer comes in one piece.

        Raises:
            StageError: The endpoint cannot be reached, refuses, or breaks off.
            StoreError: The journal cannot be used.
        """
        decoding = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        key = self._key(messages, decoding)
        known: Said | None = self._journal.get(key, Said)
        if known is not None:
            yield from _known(known)
            return
        pieces = self._endpoint.stream_chat(
            messages,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            cancellation=cancellation,
        )
        text = thought = ""
        with closing(pieces):
            for piece in pieces:
                if isinstance(piece, Thought):
                    thought += piece.text
                elif not isinstance(piece, Usage):
                    text += piece
                elif (text + thought).strip():  # journaled before it is used
                    usage = msgspec.to_builtins(piece)
                    reasoning = {"reasoning": thought} if thought else {}
                    self._journal.put(key, {"text": text, "usage": usage, **reasoning})
                yield piece

    def _key(self, messages: Sequence[Mapping[str, str]], decoding: Mapping[str, float]) -> str:
        """Return the journal key of an answer."""
        who = {"model": self._endpoint.model, "base_url": self._endpoint.base_url}
        return request_key(
            {"generator": who, "messages": list(messages), "decoding": dict(decoding)}
        )


def _known(reply: Said) -> Pieces:
    """Yield a journaled answer."""
    parted = part_unseen(reply["text"])
    if thought := reply.get("reasoning") or parted.reasoning:
        yield Thought(thought)
    if text := reply["text"] if reply["text"].strip() == parted.answer else parted.answer:
        yield text
    usage = reply["usage"]
    yield msgspec.structs.replace(usage, unfinished=usage.unfinished or parted.unfinished)
