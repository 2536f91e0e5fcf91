"""Stream answers from an endpoint, none of them paid for twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec

from llmpipe.backends.openai.journal import Journal, request_key
from llmpipe.backends.openai.stream import OpenAIStreamer
from llmpipe.backends.reasoning import part_unseen
from llmpipe.backends.streaming import Cancellation, Pieces, Thought, Usage


class JournalledStreamer:
    """An endpoint of which the journal holds every whole answer.

    One that breaks off, and one without a word, is asked for again another time.
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
        """Answer as `OpenAIStreamer.stream_chat` does; what is journalled comes in one piece.

        Raises:
            StageError: the endpoint cannot be reached, refuses, or breaks off.
            StoreError: the journal cannot be used.
        """
        decoding = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        key = self._key(messages, decoding)
        known = self._journal.get(key)
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
                elif (text + thought).strip():  # journalled before it is used
                    usage = msgspec.to_builtins(piece)
                    reasoning = {"reasoning": thought} if thought else {}
                    self._journal.put(key, {"text": text, "usage": usage, **reasoning})
                yield piece

    def _key(self, messages: Sequence[Mapping[str, str]], decoding: Mapping[str, float]) -> str:
        """Give the key under which an answer is journalled."""
        who = {"model": self._endpoint.model, "base_url": self._endpoint.base_url}
        return request_key(
            {"generator": who, "messages": list(messages), "decoding": dict(decoding)}
        )


def _known(reply: Mapping[str, Any]) -> Pieces:
    """Tell a journalled answer again; in old journals, reasoning still stands in the text."""
    parted = part_unseen(reply["text"])
    if thought := reply.get("reasoning") or parted.reasoning:
        yield Thought(thought)
    if text := reply["text"] if reply["text"].strip() == parted.answer else parted.answer:
        yield text
    usage = Usage(**reply["usage"])
    yield msgspec.structs.replace(usage, unfinished=usage.unfinished or parted.unfinished)
