"""The service: answers as OpenAI's clients read them, searches, documents, errors, and its guard."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
from openai_endpoint import Answer
from town_service import AFTER, BEFORE, HOSTILE, PASSAGE, SAYS, TEXTS, WHEN, Serve, Served, waited

from llmpipe.documents.model import Document
from llmpipe.retrieval.passages import Passages
from llmpipe.retrieval.prompt import ABSTENTION
from llmpipe.web.guard import Admission
from llmpipe.web.lookups import PLACES
from llmpipe.web.waiting import WORKER

pytestmark = pytest.mark.heavy


def client(served: Served, key: str = "none") -> openai.OpenAI:
    """OpenAI's own client."""
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0)


def question(text: str = WHEN) -> list[Any]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    """Give the status, type and code of an error in OpenAI's shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code"}
    assert error["message"]
    return response.status_code, error["type"], error["code"]


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Tell whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# Answers


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


def test_a_conversation_goes_on(serve: Serve) -> None:
    """Earlier turns reach the model in their order; callers' system messages do not."""
    served = serve()
    messages = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "Which dogs?"},
        {"role": "assistant", "content": "All dogs."},
        {"role": "user", "content": "not answered"},
        {"role": "user", "content": [{"type": "text", "text": WHEN}]},
    ]
    assert served.ask(messages=messages, temperature=1.5, user="me", seed=3).status_code == 200
    (asked,) = served.asked()
    assert asked["messages"][0]["role"] == "system"
    assert "pirate" not in json.dumps(asked)
    assert [message["content"] for message in asked["messages"][1:3]] == [
        "Which dogs?",
        "All dogs.",
    ]
    assert len(asked["messages"]) == 4
    assert asked["messages"][-1]["content"].endswith(WHEN)
    assert asked["temperature"] == 0


def test_long_conversations_are_forgotten_from_the_front(serve: Serve) -> None:
    """What the last turns leave no room for is not heeded, whatever a caller sends."""
    served = serve()
    turn = [{"role": "user", "content": "a" * 9_000}, {"role": "assistant", "content": "b" * 9_000}]
    short = [{"role": "user", "content": "Short?"}, {"role": "assistant", "content": "Yes."}]
    served.ask(messages=[*turn, *turn, *short, *question()])
    contents = [message["content"] for message in served.asked()[0]["messages"]]
    assert "Short?" in contents


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_json"),
        (b"[]", "invalid_request"),
        (b"{}", "invalid_request"),
        (b'{"messages": [{"role": "user", "content": 3}]}', "invalid_request"),
        (b'{"messages": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_request"),
        (b'{"messages": []}', "no_question"),
        (b'{"messages": [{"role": "system", "content": "x"}]}', "no_question"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}', "no_question"),
        (b'{"messages": [{"role": "user", "content": "  "}]}', "empty_question"),
        (b'{"messages": [{"role": "user"}]}', "empty_question"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', "unsupported"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "unsupported"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": 2}', "unsupported"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}', "unsupported"),
        (
            b'{"messages": [], "response_format": {"type": "json_schema", "json_schema": {}}}',
            "unsupported",
        ),
    ],
)
def test_what_is_no_question_is_refused(serve: Serve, body: bytes, code: str) -> None:
    """With 400 and a word that programs tell it by; the model is not asked."""
    served = serve()
    response = served.http.post("/v1/chat/completions", content=body)
    assert error_of(response) == (400, "invalid_request_error", code)
    assert served.asked() == []


def test_what_is_too_long_is_refused(serve: Serve) -> None:
    """By its letters, by the tokens that the model has room for, and by the bytes of a request."""
    served = serve()
    assert error_of(served.ask("a" * 10_001))[2] == "question_too_long"
    assert error_of(served.ask("word " * 1_900))[::2] == (400, "question_too_long")
    assert error_of(served.ask("a" * 1_000_001))[::2] == (413, "body_too_large")
    with pytest.raises(openai.APIError, match="too long") as raised:
        list(
            client(served).chat.completions.create(
                model="m", messages=question("word " * 1_900), stream=True
            )
        )
    assert raised.value.code == "question_too_long"


def test_a_body_of_unknown_length_has_the_same_limit(serve: Serve) -> None:
    """A chunked request cannot fill the memory; the service goes on."""
    served = serve()
    parts = (b" " * 50_000 for _ in range(60))
    assert error_of(served.http.post("/v1/search", content=parts))[::2] == (413, "body_too_large")
    assert served.ask().status_code == 200


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
            assert "does not take a question of 13 characters" in message
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


# Searches and documents


def test_a_search_says_why(serve: Serve) -> None:
    """Every hit comes with its place, its text and both rankings' evidence."""
    served = serve()
    hits = served.http.post("/v1/search", json={"query": "bridge metres long"}).json()["hits"]
    assert len(hits) == 4
    first = hits[0]
    assert set(first) == {
        "rank", "chunk", "document", "title", "section", "pages", "start", "end", "text",
        "score", "dense_rank", "dense_score", "bm25_rank", "bm25_score", "rerank_score",
    }  # fmt: skip
    assert (first["rank"], first["document"], first["title"]) == (1, "bridge.pdf", "The bridge")
    assert (first["section"], first["pages"]) == (["About bridge.pdf"], [2, 2])
    assert (first["start"], first["end"], first["text"]) == (
        len(BEFORE), len(BEFORE) + len(PASSAGE), PASSAGE,
    )  # fmt: skip
    assert (first["dense_rank"], first["bm25_rank"]) == (1, 1)
    assert first["rerank_score"] is None
    assert served.asked() == []


def test_a_search_is_asked_for_its_way(serve: Serve) -> None:
    """How many, by what, and from which documents."""
    served = serve()

    def found(**fields: Any) -> list[str]:
        body = {"query": "kiosk morning", **fields}
        hits = served.http.post("/v1/search", json=body).json()["hits"]
        return [hit["document"] for hit in hits]

    assert found(k=1) == ["kiosk.md"]
    assert found(mode="bm25") == ["kiosk.md"]
    assert found(filters={"language": "de"}) == ["permits.md"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"query": " "}, "empty_question"),
        ({"query": "a" * 10_001}, "question_too_long"),
        ({"query": "a", "k": 0}, "invalid_request"),
        ({"query": "a", "k": 101}, "invalid_request"),
        ({"query": "a", "mode": "psychic"}, "invalid_request"),
        ({"query": "a", "filters": {"year": {"over": 3}}}, "invalid_filter"),
        ({"query": "a", "filters": {"year": {"min": 10**400}}}, "invalid_filter"),
        ({"query": "a", "filters": {"year": [1, -(10**400)]}}, "invalid_filter"),
        ({}, "invalid_request"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    serve: Serve, fields: dict[str, Any], code: str
) -> None:
    """With 400 and a word for it."""
    response = serve().http.post("/v1/search", json=fields)
    assert error_of(response) == (400, "invalid_request_error", code)


def test_the_filters_of_the_stage_bound_everything(serve: Serve) -> None:
    """A caller narrows them further, cannot lift them, and reads no document around them."""
    served = serve(filters={"language": "en", "document": "*.*"})
    hits = served.http.post("/v1/search", json={"query": "permit"}).json()["hits"]
    assert {hit["document"] for hit in hits} == {"kiosk.md", "bridge.pdf"}
    lifted = {"query": "permit", "filters": {"language": "de"}}
    assert error_of(served.http.post("/v1/search", json=lifted))[::2] == (400, "invalid_filter")
    assert served.http.get("/v1/documents/kiosk.md").status_code == 200
    for hidden in ("permits.md", "rules/dogs & cats#2"):
        response = served.http.get(f"/v1/documents/{quote(hidden, safe='')}")
        assert error_of(response)[::2] == (404, "not_found")


def test_a_passage_comes_with_what_is_around_it(serve: Serve) -> None:
    """Counted in characters, up to a limit on either side, with its section and page."""
    served = serve()
    start, end = len(BEFORE), len(BEFORE) + len(PASSAGE)
    found = served.http.get(f"/v1/documents/bridge.pdf?start={start}&end={end}").json()
    assert found == {
        "document": "bridge.pdf",
        "title": "The bridge",
        "section": ["About bridge.pdf"],
        "pages": [2, 2],
        "before": BEFORE[-20_000:],
        "quote": PASSAGE,
        "after": AFTER[:20_000],
        "cut_before": True,
        "cut_after": True,
    }


def test_places_count_characters_not_their_halves(serve: Serve) -> None:
    """A text with emoji is cut where Python counts, under a name that must be escaped."""
    served = serve()
    name, text = "rules/dogs & cats#2", TEXTS["rules/dogs & cats#2"]
    start = text.index("Cats")
    found = served.http.get(f"/v1/documents/{quote(name, safe='')}?start={start}&end={start + 4}")
    assert found.json()["quote"] == "Cats"
    assert found.json()["before"].endswith("🐈 ")
    assert found.json()["after"].endswith(HOSTILE)
    assert served.http.get(f"/v1/documents/{quote(name)}").json()["document"] == name


@pytest.mark.parametrize(
    "query", ["start=-1&end=2", "start=5&end=2", "end=76", "start=x", "start=²", "end=" + "9" * 40]
)
def test_a_place_that_is_not_there_is_refused(serve: Serve, query: str) -> None:
    """With 400, whatever the number looks like."""
    response = serve().http.get(f"/v1/documents/kiosk.md?{query}")
    assert error_of(response)[::2] == (400, "invalid_place")


def test_a_passage_that_is_too_long_is_cut(serve: Serve) -> None:
    """What there is room for is given, and that it goes on; a caller reads on from there."""
    text = BEFORE + PASSAGE + AFTER
    found = serve().http.get("/v1/documents/bridge.pdf?start=10&end=30010").json()
    assert (found["before"], found["quote"], found["after"]) == (text[:10], text[10:20_010], "")
    assert (found["cut_before"], found["cut_after"]) == (False, True)


# What the service says of itself


def test_the_service_says_what_it_is(serve: Serve) -> None:
    """Its health, its one model, and what is in the index."""
    served = serve()
    assert served.http.get("/health").json() == {
        "status": "ok", "name": "town-docs", "stage": "answers", "key_required": False,
    }  # fmt: skip
    (model,) = client(served).models.list().data
    assert (model.id, model.owned_by) == ("answers", "llmpipe")
    assert model.model_extra["llmpipe"] == {
        "documents": 4, "chunks": 4, "modes": ["hybrid", "dense", "bm25"],
    }  # fmt: skip


def test_the_metrics_count(serve: Serve) -> None:
    """Requests by route and status, answers and what they took; names of documents in no label."""
    served = serve()
    served.ask()
    served.http.get("/v1/documents/kiosk.md")
    served.http.get("/nowhere/at/all")
    chat = 'route="/v1/chat/completions"'
    assert served.metric(f'llmpipe_requests_total{{{chat},status="200"}}') == 1
    assert served.metric(f"llmpipe_request_seconds_count{{{chat}}}") == 1
    assert (
        served.metric('llmpipe_requests_total{route="/v1/documents/{id:path}",status="200"}') == 1
    )
    assert served.metric('llmpipe_requests_total{route="other",status="404"}') == 1
    assert served.metric("llmpipe_answers_total") == 1
    assert served.metric("llmpipe_generated_tokens_total") == 5
    assert served.metric("llmpipe_retrieval_seconds_count") == 1
    assert served.metric("llmpipe_generation_seconds_count") == 1
    assert served.metric("llmpipe_requests_in_flight") == 1  # the one that reads them
    assert "kiosk" not in served.http.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/health/", 404, "not_found"),
        ("GET", "/v1/search", 405, "method_not_allowed"),
        ("DELETE", "/", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
    ],
)
def test_an_unknown_route_is_told_as_json(
    serve: Serve, method: str, path: str, status: int, code: str
) -> None:
    """In OpenAI's shape like every other error."""
    assert error_of(serve().http.request(method, path))[::2] == (status, code)


def test_every_answer_is_closed_to_other_sites(serve: Serve) -> None:
    """The page's policy, no guessing of types, nothing kept, and no header that opens it (CORS)."""
    served = serve()
    for path in ("/", "/page.js", "/page.css", "/health", "/nowhere"):
        headers = served.http.get(path, headers={"Origin": served.url}).headers
        policy = headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert not [name for name in headers if name.startswith("access-control")]
        assert headers["cache-control"] == (
            "no-cache" if "page" in path or path == "/" else "no-store"
        )


# Who may call


def test_the_key_is_asked_for(serve: Serve) -> None:
    """For everything but the page itself and the health; a wrong one is as good as none."""
    served = serve(admission=Admission(api_key="s3cret ü"))
    for path in ("/", "/page.css", "/page.js", "/health"):
        assert served.http.get(path).status_code == 200
    for path in ("/metrics", "/v1/models", "/v1/documents/kiosk.md", "/v1/search", "/nowhere"):
        response = served.http.get(path)
        assert error_of(response) == (401, "authentication_error", "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    wrong = ("Bearer wrong", "Bearer s3cret ü".encode()[:-1], "Basic s3cret ü".encode(), "Bearer")
    for value in wrong:
        headers = {"Authorization": value}
        assert served.http.get("/v1/models", headers=headers).status_code == 401
    right = {"Authorization": "Bearer s3cret ü".encode()}
    assert served.http.get("/v1/models", headers=right).status_code == 200
    assert served.http.get("/health").json()["key_required"] is True


def test_an_empty_key_admits_nobody(serve: Serve) -> None:
    """Least of all those who send none."""
    served = serve(admission=Admission(api_key=""))
    for headers in ({}, {"Authorization": "Bearer"}):
        assert served.http.get("/v1/models", headers=headers).status_code == 401


def test_openais_client_sends_the_key(serve: Serve) -> None:
    """With it there is an answer, with another one its own error."""
    served = serve(admission=Admission(api_key="right"))
    create = client(served, "right").chat.completions.create
    assert create(model="m", messages=question()).choices[0].message.content == SAYS
    with pytest.raises(openai.AuthenticationError, match="not the one of this service"):
        client(served, "wrong").chat.completions.create(model="m", messages=question())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:1", 200),
        ("[::1]:9", 200),
        ("127.9.9.9", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_only_this_machine_names_a_loopback_service(serve: Serve, host: str, status: int) -> None:
    """A site that gives its own name our address (DNS rebinding) gets nothing."""
    assert serve().http.get("/health", headers={"Host": host}).status_code == status


def test_other_machines_name_an_open_service_as_they_like(serve: Serve) -> None:
    """What is bound beyond loopback is protected by its key."""
    served = serve(admission=Admission(loopback=False, api_key="k"))
    assert served.http.get("/health", headers={"Host": "docs.example"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "", "http://[", "http://[x]"]
)
def test_pages_of_other_sites_may_not_call(serve: Serve, origin: str) -> None:
    """Their requests need no leave to be sent, but compute nothing here."""
    served = serve()
    body = json.dumps({"messages": question()})
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    response = served.http.post("/v1/chat/completions", content=body, headers=headers)
    assert error_of(response)[::2] == (403, "wrong_origin")
    assert served.asked() == []


# Many at once, and those who leave


def raw_question(served: Served, **fields: Any) -> socket.socket:
    """Ask over a bare connection, and do not read what comes."""
    return raw_request(served, "/v1/chat/completions", {"messages": question(), **fields})


def raw_request(served: Served, path: str, fields: dict[str, Any]) -> socket.socket:
    """Send a request over a bare connection, and do not read what comes."""
    place = served.url.removeprefix("http://")
    host, port = place.split(":")
    connection = socket.create_connection((host, int(port)))
    body = json.dumps(fields)
    head = f"POST {path} HTTP/1.1\r\nHost: {place}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_frees_the_slot(serve: Serve, stream: bool) -> None:
    """Within a second, streamed or not: the endpoint hears it, and the next question is answered."""
    served = serve(slots=1)
    served.endpoint.pause = 0.2
    served.endpoint.reply = lambda body: ("The kiosk opens. " * 200, "stop")
    connection = raw_question(served, stream=stream)
    assert until(lambda: len(served.asked()) == 1, 5)
    time.sleep(0.5)
    connection.close()
    begun = time.monotonic()
    served.endpoint.reply = lambda body: (SAYS, "stop")
    assert served.endpoint.hung_up.wait(10)
    served.endpoint.pause = 0
    assert served.ask().json()["choices"][0]["message"]["content"] == SAYS
    assert time.monotonic() - begun < 1.5


def test_who_hangs_up_leaves_the_line(serve: Serve) -> None:
    """A question whose asker is gone is never put to the model."""
    served = serve(slots=1)
    held = threading.Event()
    served.endpoint.before = lambda body, number: waited(held) if number == 1 else None
    first = raw_question(served)
    assert until(lambda: len(served.asked()) == 1, 5)
    second = raw_question(served)
    assert until(lambda: served.metric("llmpipe_questions_waiting") == 1, 5)
    second.close()
    assert until(lambda: served.metric("llmpipe_questions_waiting") == 0, 1)
    held.set()
    assert first.recv(12).endswith(b"200")
    first.close()
    assert len(served.asked()) == 1
    line = 'llmpipe_requests_total{route="/v1/chat/completions",status="499"}'
    assert served.metric(line) == 1


def test_searches_that_nobody_waits_for_take_no_threads(serve: Serve) -> None:
    """They keep their places until they have ended; those behind them are never searched for."""
    served = serve(asks_embedder=True)
    held = threading.Event()
    served.endpoint.before = lambda body, number: waited(held)
    for number in range(1, 13):
        connection = raw_request(served, "/v1/search", {"query": "kiosk"})
        begun = min(number, PLACES)
        assert until(lambda begun=begun: len(served.endpoint.received) == begun, 5)
        time.sleep(0.02)
        connection.close()
    gone = 'llmpipe_requests_total{route="/v1/search",status="499"}'
    assert until(lambda: served.metric(gone) == 12, 5)
    assert len([each for each in threading.enumerate() if each.name == WORKER]) == PLACES
    held.set()
    assert served.http.post("/v1/search", json={"query": "kiosk"}).status_code == 200
    assert len(served.endpoint.received) == PLACES + 1


def test_a_thread_that_cannot_start_costs_no_slot(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said that the service is busy, and the next question is answered."""

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    served = serve(slots=1)
    with monkeypatch.context() as patch:
        patch.setattr("llmpipe.web.waiting.Thread", NoThread)
        for _ in range(PLACES + 1):
            for response in (served.ask(), served.http.post("/v1/search", json={"query": "a"})):
                assert error_of(response) == (503, "server_error", "busy")
                assert int(response.headers["retry-after"]) > 0
    assert served.ask().status_code == 200
    assert served.http.post("/v1/search", json={"query": "a"}).status_code == 200


def test_a_full_line_is_said(serve: Serve) -> None:
    """503 with when to come again; searches and the health go on, and nobody who waits is lost."""
    served = serve(slots=1, waiting=2)
    held = threading.Event()
    served.endpoint.before = lambda body, number: waited(held)
    waiting = [raw_question(served) for _ in range(3)]
    assert until(lambda: served.metric("llmpipe_questions_waiting") == 2, 5)
    refused = served.ask()
    assert error_of(refused) == (503, "server_error", "busy")
    assert int(refused.headers["retry-after"]) > 0
    assert served.http.get("/health").status_code == 200
    assert served.http.post("/v1/search", json={"query": "kiosk"}).status_code == 200
    held.set()
    for connection in waiting:
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert SAYS in response.read().decode()
        connection.close()


def test_slots_are_used_and_no_more(serve: Serve) -> None:
    """Two questions are answered at the same time, the third when one of them is done."""
    served = serve(slots=2)
    met = threading.Barrier(2)
    served.endpoint.before = lambda body, number: waited(met)
    connections = [raw_question(served) for _ in range(4)]
    for connection in connections:
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200
        connection.close()
    assert served.endpoint.most_in_flight == 2
