"""The route that answers: whole and streamed as OpenAI's clients read it, and what goes wrong."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai_endpoint import Answer
from town_service import SAYS, Serve
from web.calling import client, error_of, question

from llmpipe.documents.model import Document
from llmpipe.retrieval.passages import Passages
from llmpipe.retrieval.prompt import ABSTENTION
from llmpipe.web.queueing import WORKER

pytestmark = pytest.mark.heavy


def test_an_answer_is_read_by_openais_client(serve: Serve) -> None:
    """Whole: the words, what they took, and in the field of our own what they rest on."""
    served = serve(k=2)
    answer = client(served).chat.completions.create(model="any", messages=question())
    assert answer.choices[0].message.content == SAYS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "answers"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (9, 14)
    more = answer.model_extra["llmpipe"]
    assert more["abstained"] is False
    (citation,) = more["citations"]
    assert citation["quote"] == "The kiosk opens at nine in the morning."
    assert citation["number"] == more["hits"][0]["rank"] == 1
    assert [hit["rank"] for hit in more["hits"]] == [1, 2]
    assert set(more["timings"]) == {"retrieve", "rerank", "prompt", "generate"}


def test_an_answer_is_streamed_to_openais_client(serve: Serve) -> None:
    """What was found comes first, then the words, and in the end what they rest on."""
    served = serve()
    stream = client(served).chat.completions.create(
        model="any", messages=question(), stream=True, stream_options={"include_usage": True}
    )
    first, *pieces, end, usage = list(stream)
    assert first.choices[0].delta.role == "assistant"
    assert first.model_extra["llmpipe"]["hits"][0]["document"] == "kiosk.md"
    assert len(pieces) > 3
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == SAYS
    assert end.choices[0].finish_reason == "stop"
    assert end.model_extra["llmpipe"]["text"] == SAYS
    assert end.model_extra["llmpipe"]["citations"][0]["document"] == "kiosk.md"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 5


def test_the_words_come_as_they_are_written(serve: Serve) -> None:
    """The first one is there long before the last one is written, and the hits before it."""
    served = serve()
    served.endpoint.pause = 0.1
    begun, times = time.monotonic(), []
    with client(served).chat.completions.create(
        model="m", messages=question(), stream=True
    ) as stream:
        for _ in stream:
            times.append(time.monotonic() - begun)
    assert times[0] < times[-1] - 0.8


def test_what_the_model_leaves_out_is_said(serve: Serve) -> None:
    """A model that says nothing abstains, in words, also to a client that knows no fields of ours."""
    served = serve()
    served.endpoint.reply = lambda body: ("  ", "stop")
    stream = client(served).chat.completions.create(model="m", messages=question(), stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ABSTENTION
    assert chunks[-1].model_extra["llmpipe"]["abstained"] is True


def test_space_before_an_answer_is_not_told(serve: Serve) -> None:
    """The pieces of a stream make up the very text that the places of citations count in."""
    served = serve()
    served.endpoint.reply = lambda body: ("\n \n  " + SAYS, "stop")
    chunks = list(
        client(served).chat.completions.create(model="m", messages=question(), stream=True)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAYS


def test_an_answer_that_was_cut_says_so(serve: Serve) -> None:
    """As OpenAI's API does, by its reason to finish."""
    served = serve()
    served.endpoint.reply = lambda body: ("The kiosk opens at", "length")
    answer = client(served).chat.completions.create(model="m", messages=question())
    assert answer.choices[0].finish_reason == "length"


def test_what_nothing_is_near_to_is_not_answered(serve: Serve) -> None:
    """The model is not asked, and the metrics count an abstention."""
    served = serve(threshold=1.0)
    reply = served.ask().json()
    assert reply["choices"][0]["message"]["content"] == ABSTENTION
    assert (reply["llmpipe"]["abstained"], reply["llmpipe"]["hits"]) == (True, [])
    assert served.asked() == []
    assert served.metric("llmpipe_abstentions_total") == 1


def test_an_endpoint_that_fails_is_told(serve: Serve) -> None:
    """503 with what to do, before the stream where it can be, else within; and counted."""
    served = serve()
    served.endpoint.before = lambda body, number: (400, {"error": {"message": "no such model"}}, {})
    response = served.ask()
    assert error_of(response) == (503, "server_error", "generator_unavailable")
    assert "no such model" in response.json()["error"]["message"]
    assert "check generator.model" in response.json()["error"]["message"]
    with pytest.raises(openai.APIError, match="no such model"):
        list(client(served).chat.completions.create(model="m", messages=question(), stream=True))
    line = 'llmpipe_requests_total{route="/v1/chat/completions",status="503"}'
    assert served.metric(line) == 1


def test_a_bug_in_the_middle_of_an_answer_is_told(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream ends by saying so; it does not just break."""

    def broken(*given: Any, **more: Any) -> Iterator[str]:
        yield "The kiosk "
        raise ZeroDivisionError

    served = serve(slots=1)
    with monkeypatch.context() as patch:
        patch.setattr(served.generator, "stream", broken)
        create = client(served).chat.completions.create
        stream = create(model="m", messages=question(), stream=True)
        with pytest.raises(openai.APIError, match="llmpipe has a bug here") as raised:
            list(stream)
        assert raised.value.code == "internal_error"
    assert served.ask().status_code == 200


def test_an_embedder_that_fails_is_told(
    serve: Serve, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a search that failed, to those who ask and those who search; no log holds the question."""
    served = serve(asks_embedder=True)

    def refuse(body: dict[str, Any], number: int) -> Answer | None:
        refused = {"error": {"message": f"cannot read {body.get('input')}"}}
        return (400, refused, {}) if "input" in body else None

    served.endpoint.before = refuse
    secret = "is Alice ill?"
    with caplog.at_level(logging.DEBUG, "llmpipe"):
        for response in (
            served.ask(secret),
            served.ask(secret, stream=True),
            served.http.post("/v1/search", json={"query": secret}),
        ):
            assert error_of(response) == (503, "server_error", "search_failed")
            message = response.json()["error"]["message"]
            assert message.startswith("the embedder at")
            assert "refuses a question of 13 characters" in message
    noted = {record.getMessage() for record in caplog.records}
    place = f"the embedder at {served.endpoint.url}"
    assert noted == {f"503 search_failed: {place} refuses a question of 13 characters"}
    assert len(caplog.records) == 3
    assert "Alice" not in caplog.text + capfd.readouterr().err


@pytest.mark.parametrize("stream", [True, False])
def test_no_document_is_read_where_it_would_hold_up_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Those of an answer are read in its own thread: a long one takes a while."""
    threads, document = set(), Passages.document

    def noted(passages: Passages, name: str) -> Document | None:
        threads.add(threading.current_thread().name)
        return document(passages, name)

    monkeypatch.setattr(Passages, "document", noted)
    assert serve().ask(stream=stream).status_code == 200
    assert threads == {WORKER}


def test_reasoning_has_a_field_of_its_own(serve: Serve) -> None:
    """Whole and streamed, as other servers tell it; the answer is the same as without."""
    served = serve(k=2)
    served.endpoint.thought = ("reasoning", "Hm, nine [2].")
    message = served.ask().json()["choices"][0]["message"]
    assert message["content"] == SAYS
    assert message["reasoning_content"] == "Hm, nine [2]."
    chunks = list(
        client(served).chat.completions.create(model="any", messages=question(), stream=True)
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == SAYS
    thought = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert "".join(thought) == "Hm, nine [2]."
