"""Answers of an endpoint that are journaled: what is the same, what is asked for again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_endpoint import Endpoint

from llmpipe.backends.openai.journal import Journal
from llmpipe.backends.openai.journaled_stream import JournaledStreamer
from llmpipe.backends.openai.stream import OpenAIStreamer
from llmpipe.backends.reasoning import Reply
from llmpipe.backends.streaming import Usage, whole
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

WHEN = [{"role": "user", "content": "When?"}]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that says what it is asked for how many times."""
    with Endpoint() as endpoint:
        endpoint.reply = lambda body: (f"At nine, {len(endpoint.received)}.", "length")
        yield endpoint


def ask(
    endpoint: Endpoint, folder: Path, *, model: str = "m", resample: bool = False, **given: Any
) -> tuple[str, Usage]:
    """Ask with a journal that is opened for it; return the text and what it took."""
    asked = {"messages": WHEN, "max_tokens": 9, **given}
    with (
        OpenAIStreamer(endpoint.url, model, api_key="k3y") as streamer,
        Journal(folder, resample=resample) as journal,
    ):
        *pieces, usage = JournaledStreamer(streamer, journal).stream_chat(**asked)
    assert isinstance(usage, Usage)
    return "".join(map(str, pieces)), usage


def test_what_was_answered_is_not_asked_again(endpoint: Endpoint, tmp_path: Path) -> None:
    """Text and usage are the same; no key is in the journal."""
    first = ask(endpoint, tmp_path)
    assert first == ("At nine, 1.", Usage(9, 5, truncated=True))
    assert ask(endpoint, tmp_path) == first
    assert len(endpoint.received) == 1
    assert "k3y" not in (tmp_path / "replies.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"max_tokens": 8},
        {"temperature": 0.5},
        {"seed": 1},
        {"messages": [*WHEN, {"role": "assistant", "content": "At nine."}, *WHEN]},
    ],
)
def test_what_shapes_an_answer_is_asked_for(
    endpoint: Endpoint, tmp_path: Path, other: dict[str, Any]
) -> None:
    """Another model, conversation or decoding is another question."""
    ask(endpoint, tmp_path)
    assert ask(endpoint, tmp_path, **other)[0] == "At nine, 2."


def test_another_endpoint_is_another_one(endpoint: Endpoint, tmp_path: Path) -> None:
    """Though its model has the same name."""
    ask(endpoint, tmp_path)
    with Endpoint() as other:
        other.reply = lambda body: ("At ten.", "stop")
        assert ask(other, tmp_path)[0] == "At ten."


def test_anew_passes_over_what_was_there(endpoint: Endpoint, tmp_path: Path) -> None:
    """And what it gets is what the next one finds."""
    ask(endpoint, tmp_path)
    assert ask(endpoint, tmp_path, resample=True)[0] == "At nine, 2."
    assert ask(endpoint, tmp_path)[0] == "At nine, 2."


def test_an_answer_without_a_word_is_none(endpoint: Endpoint, tmp_path: Path) -> None:
    """A server that was set up wrongly is asked again when it has been mended."""
    endpoint.reply = lambda body: (" \n", "stop")
    assert ask(endpoint, tmp_path)[0] == ""
    endpoint.reply = lambda body: ("At nine.", "stop")
    assert ask(endpoint, tmp_path)[0] == "At nine."


def test_reasoning_is_journaled_apart(endpoint: Endpoint, tmp_path: Path) -> None:
    """It comes again as it came; what an older version journaled with its tags is parted."""
    endpoint.thought = ("reasoning_content", "Hm.")
    with OpenAIStreamer(endpoint.url, "m", api_key="k3y") as streamer, Journal(tmp_path) as journal:
        journaled = JournaledStreamer(streamer, journal)
        first = whole(journaled.stream_chat(WHEN, max_tokens=9))
        assert first == Reply("At nine, 1.", "Hm.", truncated=True)
        assert whole(journaled.stream_chat(WHEN, max_tokens=9)) == first
        assert len(endpoint.received) == 1
    path = tmp_path / "replies.jsonl"
    entry = json.loads(path.read_text("utf-8"))
    old = {"text": "<think>Hm.</think>\n\nAt ten.", "usage": {"truncated": False}}
    path.write_text(json.dumps({**entry, "reply": old}) + "\n", "utf-8")
    with OpenAIStreamer(endpoint.url, "m", api_key="k3y") as streamer, Journal(tmp_path) as journal:
        pieces = JournaledStreamer(streamer, journal).stream_chat(WHEN, max_tokens=9)
        assert whole(pieces) == Reply("At ten.", "Hm.")


def test_half_an_answer_is_none(endpoint: Endpoint, tmp_path: Path) -> None:
    """What broke off, or was not read to its end, is asked for again."""
    endpoint.first_event = '{"choices": [{"index": 0, "delta": {"content": "At"}}]}'
    endpoint.reply = lambda body: (" ten", None)  # type: ignore[return-value, assignment]
    with pytest.raises(StageError, match="broke in the middle"):
        ask(endpoint, tmp_path)
    endpoint.first_event = ""
    endpoint.reply = lambda body: ("At nine.", "stop")
    with (
        OpenAIStreamer(endpoint.url, "m", api_key="none") as streamer,
        Journal(tmp_path) as journal,
    ):
        pieces = JournaledStreamer(streamer, journal).stream_chat(WHEN, max_tokens=9)
        assert next(pieces) == "At "
        pieces.close()
    assert ask(endpoint, tmp_path)[0] == "At nine."
    assert len(endpoint.received) == 3
