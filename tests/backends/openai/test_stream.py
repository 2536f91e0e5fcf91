"""Streams from an endpoint: they come in pieces, end when they are canceled, and say what broke."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from openai_endpoint import Answer, Endpoint

from llmpipe.backends.openai.stream import OpenAIStreamer
from llmpipe.backends.reasoning import Reply
from llmpipe.backends.streaming import Cancellation, Usage, whole
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

HELLO = [{"role": "user", "content": "Hello"}]
LONG = "word " * 2000


def says(text: str, finish: str = "stop") -> Any:
    """Make a reply."""
    return lambda body: (text, finish)


def test_pieces_then_usage() -> None:
    """The text in pieces, then what it took and whether it was cut."""
    with Endpoint() as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k3y") as streamer:
        endpoint.reply = says("It opens at nine.", "length")
        *pieces, usage = streamer.stream_chat(HELLO, max_tokens=7, temperature=0.5, seed=3)
    assert pieces == ["It ", "ope", "ns ", "at ", "nin", "e."]
    assert usage == Usage(9, 5, truncated=True)
    (body,) = endpoint.received
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (7, 0.5, 3)
    assert endpoint.headers[0]["authorization"] == "Bearer k3y"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("It \ud83d\ude00 is", "It \U0001f600 is"),
        ("It\ud83d\ude00 is", "It\U0001f600 is"),
        ("It\ud83d is \ude00", "It\ufffd is \ufffd"),
        ("It\ud83d", "It\ufffd"),
    ],
)
def test_halves_of_surrogate_pairs_are_joined(sent: str, read: str) -> None:
    """An endpoint may send them in two events; what has no other half cannot be written anywhere."""
    with Endpoint() as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k") as streamer:
        endpoint.reply = says(sent)
        assert whole(streamer.stream_chat(HELLO, max_tokens=7)).answer == read


@pytest.mark.parametrize(
    ("thought", "text"),
    [
        (("reasoning_content", "Hm, nine."), "It opens at nine."),
        (("reasoning", "Hm, nine."), "It opens at nine."),
        (("reasoning", ""), "<think>Hm, nine.</think>\n\nIt opens at nine."),
    ],
)
def test_reasoning_is_apart(thought: tuple[str, str], text: str) -> None:
    """Whether the endpoint tells it apart, under either name, or leaves the tags in the answer."""
    with Endpoint() as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k") as streamer:
        endpoint.reply, endpoint.thought = says(text), thought
        pieces = list(streamer.stream_chat(HELLO, max_tokens=7))
        assert whole(pieces) == Reply("It opens at nine.", "Hm, nine.")
        endpoint.reply = says(text.partition("</think>")[0] if "<think>" in text else "", "length")
        pieces = list(streamer.stream_chat(HELLO, max_tokens=7))
        assert whole(pieces) == Reply("", "Hm, nine.", unfinished=True, truncated=True)


def test_an_endpoint_that_cannot_tell_the_usage_is_not_asked() -> None:
    """The request goes out again without what it refuses."""

    def picky(body: dict[str, Any], number: int) -> Answer | None:
        if "stream_options" in body:
            return 422, {"error": {"message": "unknown field stream_options"}}, {}
        return None

    with Endpoint(picky) as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k") as streamer:
        endpoint.reply = says("Yes.")
        assert list(streamer.stream_chat(HELLO, max_tokens=7)) == ["Yes", ".", Usage()]


def test_a_refusal_is_told_without_the_key() -> None:
    """The endpoint's own words, and which fields to look at."""

    def refuse(body: dict[str, Any], number: int) -> Answer:
        return 401, {"error": {"message": "bad key s3cret-key"}}, {}

    with (
        Endpoint(refuse) as endpoint,
        OpenAIStreamer(endpoint.url, "m", api_key="s3cret-key") as streamer,
        pytest.raises(StageError, match=r"bad key \[key\]") as caught,
    ):
        list(streamer.stream_chat(HELLO, max_tokens=7))
    assert "generator.api_key" in str(caught.value.hint)


def test_the_line_break_of_a_key_is_not_sent() -> None:
    """A key that was read from a file works, and no message shows it."""

    def refuse(body: dict[str, Any], number: int) -> Answer:
        return 401, {"error": {"message": r"bad key 's3cret\\key'"}}, {}

    with (
        Endpoint(refuse) as endpoint,
        OpenAIStreamer(endpoint.url, "m", api_key="s3cret\\key\n") as streamer,
        pytest.raises(StageError) as caught,
    ):
        list(streamer.stream_chat(HELLO, max_tokens=7))
    assert endpoint.headers[0]["authorization"] == r"Bearer s3cret\key"
    assert "s3cret" not in caught.value.render()


@pytest.mark.parametrize("key", ["s3cret-ü", "s3cret\nkey", "\udcff", " \n"])
def test_a_key_that_cannot_be_sent_is_refused(key: str) -> None:
    """At once, and without being shown."""
    with pytest.raises(StageError, match="the API key for http://x") as caught:
        OpenAIStreamer("http://x", "m", api_key=key)
    assert "s3cret" not in caught.value.render()


def test_who_stops_taking_pieces_hangs_up() -> None:
    """The endpoint notices that the reader has gone, long before it has said all."""
    with Endpoint() as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k") as streamer:
        endpoint.reply, endpoint.pause = says(LONG), 0.01
        pieces = streamer.stream_chat(HELLO, max_tokens=7)
        assert next(pieces) == "wor"
        pieces.close()
        assert endpoint.hung_up.wait(10)


def test_a_cancellation_ends_the_pieces() -> None:
    """From another thread, while this one waits: no error, no usage, and the endpoint is told."""
    with Endpoint() as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k") as streamer:
        endpoint.reply, endpoint.pause = says(LONG), 0.05
        cancellation = Cancellation()
        threading.Timer(0.3, cancellation.cancel).start()
        begun = time.monotonic()
        found = list(streamer.stream_chat(HELLO, max_tokens=7, cancellation=cancellation))
        assert time.monotonic() - begun < 5
        assert found
        assert all(isinstance(piece, str) for piece in found)
        assert endpoint.hung_up.wait(10)
        again = streamer.stream_chat(HELLO, max_tokens=7, cancellation=cancellation)
        assert list(again) == []


@pytest.mark.parametrize(
    "event",
    [
        "{oops",
        '{"detail": "quota"}',
        '{"choices": [7]}',
        '{"choices": 7}',
        '{"choices": [{"delta": 3}]}',
        "[]",
        "7",
    ],
)
def test_what_is_no_chunk_of_an_answer_is_an_error(event: str) -> None:
    """It is the endpoint's mistake, and told in its words."""
    with Endpoint() as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k") as streamer:
        endpoint.reply = says("Yes.")
        endpoint.first_event = event
        with pytest.raises(StageError, match="did not answer: it sent") as caught:
            list(streamer.stream_chat(HELLO, max_tokens=7))
    assert event.strip("{}") in caught.value.message.replace("'", '"')


@pytest.mark.parametrize(
    "event", ['{"choices": null}', '{"choices": [{"index": 0, "delta": null}]}', '{"choices": []}']
)
def test_a_chunk_that_says_nothing_is_passed_over(event: str) -> None:
    """However an endpoint writes that."""
    with Endpoint() as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k") as streamer:
        endpoint.reply = says("Yes.")
        endpoint.first_event = event
        assert list(streamer.stream_chat(HELLO, max_tokens=7)) == ["Yes", ".", Usage(9, 5)]


def test_an_answer_that_breaks_off_is_an_error() -> None:
    """Half an answer is not handed on as a whole one."""
    with Endpoint() as endpoint, OpenAIStreamer(endpoint.url, "m", api_key="k") as streamer:
        endpoint.reply = lambda body: ("Half", None)
        with pytest.raises(StageError, match="broke in the middle of an answer"):
            list(streamer.stream_chat(HELLO, max_tokens=7))
