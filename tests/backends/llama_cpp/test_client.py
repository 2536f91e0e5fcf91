"""Streaming from llama.cpp: it obeys the grammar, tells the usage, and lets go of its slot."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_model import KNOWS_THINKING, OPENS_THINKING, write_gguf, write_model

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.backends.reasoning import Reply
from llmpipe.backends.streaming import Cancellation, Thought, Usage, whole
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.retrieval.generator import BATCH, citation_grammar
from llmpipe.stages.serve import Serve, ServeConfig

pytestmark = pytest.mark.heavy

STORY = [{"role": "user", "content": "Write a long story about a dog."}]


@pytest.fixture(scope="module")
def server(smollm2_gguf: Path) -> Iterator[LlamaServer]:
    """The embedded model with a single slot."""
    with serve_gguf(smollm2_gguf, threads=1, batch=BATCH) as server:
        yield server


def first_piece(server: LlamaServer) -> float:
    """Return the seconds until the slot answers a short question."""
    begun = time.monotonic()
    pieces = server.stream_chat([{"role": "user", "content": "Hi"}], max_tokens=4)
    next(pieces)
    pieces.close()
    return time.monotonic() - begun


def test_a_stream_is_the_answer_in_pieces(server: LlamaServer) -> None:
    """Together they are what the same question gets at once; then comes what it took."""
    *pieces, usage = server.stream_chat(STORY, max_tokens=12)
    assert "".join(map(str, pieces)).strip() == server.chat(STORY, max_tokens=12).answer
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


@pytest.fixture(scope="module")
def thinker(
    tiny_llama: Path, tools_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaServer]:
    """A model whose template opens the thinking, in which it names sources that there are not."""
    root = tmp_path_factory.mktemp("thinker")
    text = "Hm [9 so</think> Paris[7<|im_end|>"
    model = write_model(root / "model", tiny_llama, text, template=OPENS_THINKING)
    with serve_gguf(write_gguf(model, root / "work", tools_dir), threads=1) as server:
        yield server


def test_a_grammar_holds_the_answer_and_not_the_reasoning(thinker: LlamaServer) -> None:
    """The model thinks of [9, and cites none but a source."""
    grammar = citation_grammar(2)
    *pieces, usage = thinker.stream_chat(STORY, max_tokens=16, grammar=grammar)
    assert isinstance(usage, Usage)
    reply = whole([*pieces, usage])
    assert reply.reasoning == "Hm [9 so"
    assert reply.answer.startswith(("Paris[1]", "Paris[2]"))
    assert usage.completion_tokens is not None
    assert usage.completion_tokens <= 16
    cut = thinker.stream_chat(STORY, max_tokens=2, grammar=grammar)
    assert whole(cut) == Reply("", "Hm", unfinished=True, truncated=True)


def test_a_model_without_a_grammar_thinks_first_too(thinker: LlamaServer) -> None:
    """Whole and in pieces, and no engine's parser takes part."""
    assert thinker.chat(STORY, max_tokens=16) == Reply("Paris[7", "Hm [9 so")
    pieces = list(thinker.stream_chat(STORY, max_tokens=16))
    assert "".join(piece.text for piece in pieces if isinstance(piece, Thought)) == "Hm [9 so"
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == "Paris[7"


def test_a_model_that_ends_at_once_is_held_to_the_grammar(
    tiny_llama: Path, tools_dir: Path, tmp_path: Path
) -> None:
    """It may think, and does not: it answers, as one does that cannot think."""
    model = write_model(tmp_path / "model", tiny_llama, "<|im_end|>", template=KNOWS_THINKING)
    with serve_gguf(write_gguf(model, tmp_path / "work", tools_dir), threads=1) as server:
        assert whole(server.stream_chat(STORY, max_tokens=16)) == Reply("", "")
        held = server.stream_chat(STORY, max_tokens=16, grammar='root ::= "yes" | "no"')
        assert whole(held).answer in ("yes", "no")


def test_the_check_of_serving_keeps_reasoning_apart(thinker: LlamaServer, tmp_path: Path) -> None:
    """The summary shows the answers; a question that got none is told of."""
    model = Path(thinker.props()["model_path"])
    for number, (tokens, answer) in enumerate([(16, "Paris[7"), (2, "")]):
        config = ServeConfig(kind="serve", model="gguf", sample=("Hi?",), max_tokens=tokens)
        folder = tmp_path / str(number)
        folder.mkdir()
        events: list[dict[str, Any]] = []
        inputs = {"model": Artifact(model, "gguf", "", "m")}
        ctx = StageContext(config, "chat", inputs, *[folder] * 5, 1, events.append)
        (found,) = Serve.run(ctx).metrics["answers"]
        assert found["answer"] == answer
        assert found["reasoning"].startswith("Hm")
        assert any("no answer" in str(event) for event in events) == (not answer)
