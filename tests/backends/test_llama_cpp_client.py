"""Streaming from llama.cpp: it obeys the grammar, tells the usage, and lets go of its slot."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpipe.backends.llama_cpp import serve_gguf
from llmpipe.backends.llama_cpp_client import LlamaServer
from llmpipe.backends.streaming import Cancellation, Usage
from llmpipe.errors import StageError
from llmpipe.retrieval.generator import BATCH, citation_grammar

pytestmark = pytest.mark.heavy

STORY = [{"role": "user", "content": "Write a long story about a dog."}]


@pytest.fixture(scope="module")
def server(smollm2_gguf: Path) -> Iterator[LlamaServer]:
    """The embedded model with a single slot."""
    with serve_gguf(smollm2_gguf, threads=1, batch=BATCH) as server:
        yield server


def first_piece(server: LlamaServer) -> float:
    """Give the seconds until the slot answers a short question."""
    begun = time.monotonic()
    pieces = server.stream_chat([{"role": "user", "content": "Hi"}], max_tokens=4)
    next(pieces)
    pieces.close()
    return time.monotonic() - begun


def test_a_stream_is_the_answer_in_pieces(server: LlamaServer) -> None:
    """Together they are what the same question gets at once; then comes what it took."""
    *pieces, usage = server.stream_chat(STORY, max_tokens=12)
    assert "".join(map(str, pieces)) == server.chat(STORY, max_tokens=12)
    assert len(pieces) > 5
    assert isinstance(usage, Usage)
    assert (usage.completion_tokens, usage.truncated) == (12, True)


def test_a_grammar_holds_the_stream(server: LlamaServer) -> None:
    """No number but those of the sources, whatever the model is asked to write."""
    wanted = [{"role": "user", "content": "Repeat this exactly: [5] [6] [7] a[0] [5] [6]"}]
    *pieces, _ = server.stream_chat(wanted, max_tokens=24, grammar=citation_grammar(2))
    text = re.sub(r"\[\d*$", "", "".join(map(str, pieces)))  # it is cut somewhere
    assert text
    assert set(re.findall(r"\[[^\]]*\]?", text)) <= {"[1]", "[2]"}


def test_a_refusal_is_told(server: LlamaServer) -> None:
    """A prompt longer than the context, in llama.cpp's own words."""
    with pytest.raises(StageError, match="context"):
        list(server.stream_chat([{"role": "user", "content": "word " * 3000}], max_tokens=4))


def test_who_stops_taking_pieces_frees_the_slot(server: LlamaServer) -> None:
    """The next question does not wait for the rest of a long story."""
    idle = first_piece(server)
    pieces = server.stream_chat(STORY, max_tokens=1500)
    next(pieces)
    pieces.close()
    assert first_piece(server) < 1 + 3 * idle  # a busy core takes longer over both


def test_a_cancellation_frees_the_slot_in_the_middle_of_a_prompt(server: LlamaServer) -> None:
    """Before the first word is written, from another thread, and within a second."""
    idle = first_piece(server)
    cancellation = Cancellation()
    threading.Timer(0.5, cancellation.cancel).start()
    long = [{"role": "user", "content": "the big house " * 600}]
    begun = time.monotonic()
    assert list(server.stream_chat(long, max_tokens=4, cancellation=cancellation)) == []
    assert time.monotonic() - begun < 1
    assert first_piece(server) < 1 + 3 * idle  # a busy core takes longer over both
