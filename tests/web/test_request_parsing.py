"""How the service reads what a request says."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message, Receive
from town_service import Serve
from web.calling import error_of

from llmpipe.web.chat import ChatRequest
from llmpipe.web.errors import ApiError
from llmpipe.web.request_parsing import converted, read_as
from llmpipe.web.search_routes import SearchRequest
from llmpipe.web.validation_errors import complaint

pytestmark = pytest.mark.heavy


def test_a_body_of_unknown_length_has_the_same_limit(serve: Serve) -> None:
    """A chunked request cannot fill the memory; the service goes on."""
    served = serve()
    parts = (b" " * 50_000 for _ in range(60))
    assert error_of(served.http.post("/v1/search", content=parts))[::2] == (413, "body_too_large")
    assert served.ask().status_code == 200


SEARCH, CHAT = "/v1/search", "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (SEARCH, {}, "'query' is missing"),
        (SEARCH, [], "must be an object, not []"),
        (SEARCH, {"query": 3}, "query: must be a string, not 3"),
        (SEARCH, {"query": "a", "k": 0}, "k: must be a whole number from 1 to 100, not 0"),
        (SEARCH, {"query": "a", "k": "9"}, 'k: must be a whole number from 1 to 100, not "9"'),
        (
            SEARCH,
            {"query": "a", "mode": "hybird"},
            "mode: must be one of bm25, dense, hybrid, not \"hybird\"; did you mean 'hybrid'?",
        ),
        (SEARCH, {"query": "a", "mode": 1}, "mode: must be one of bm25, dense, hybrid, not 1"),
        (
            SEARCH,
            {"query": "a", "filter": {}},
            "unknown field \"filter\"; did you mean 'filters'?",
        ),
        (SEARCH, {"query": "a", "x": 1}, 'unknown field "x"; known: query, k, mode, filters'),
        (SEARCH, {"query": "a", "filters": []}, "filters: must be an object, not []"),
        (SEARCH, {"query": ["a" * 99]}, f'query: must be a string, not ["{"a" * 57}…'),
        (
            SEARCH,
            {"query": "a", " - at `$.k": 1},
            'unknown field " - at `$.k"; known: query, k, mode, filters',
        ),
        (
            SEARCH,
            {"query": "a", f" - at `$[{'9' * 5000}]": 1},
            f'unknown field " - at `$[{"9" * 49}…; known: query, k, mode, filters',
        ),
        (CHAT, {}, "'messages' is missing"),
        (CHAT, {"messages": {}}, "messages: must be a list, not {}"),
        (CHAT, {"messages": [{}]}, "messages[0]: 'role' is missing"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": 3}]},
            "messages[0].content: must be a string or a list, not 3",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"text": "a"}]}]},
            "messages[0].content[0]: 'type' is missing",
        ),
        (CHAT, {"messages": [], "stream": "yes"}, 'stream: must be true or false, not "yes"'),
        (
            CHAT,
            {"messages": [], "stream_options": {"include_usage": 1}},
            "stream_options.include_usage: must be true or false, not 1",
        ),
    ],
)
def test_what_is_wrong_with_a_field_is_said(
    serve: Serve, path: str, body: Any, message: str
) -> None:
    """Where it is, what is needed, and what was meant."""
    response = serve().http.post(path, json=body)
    assert error_of(response)[::2] == (400, "invalid_request")
    assert response.json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"query": "a", "k": ' + b"9" * 5000 + b"}", "the request contains too large a number"),
        (
            b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "the request is nested too deeply",
        ),
    ],
)
def test_what_cannot_be_held_is_said(serve: Serve, body: bytes, message: str) -> None:
    """Before any field is looked at."""
    response = serve().http.post(SEARCH, content=body)
    assert error_of(response)[::2] == (400, "invalid_request")
    assert response.json()["error"]["message"] == message


NAMES = ["query", "k", "mode", "filters", "messages", "role", "content", "type", "stream", "x"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from([SearchRequest, ChatRequest]))
def test_any_data_is_taken_or_complained_of(data: Any, kind: type[Any]) -> None:
    """Whatever JSON a request holds; the log is told no more than the caller."""
    try:
        msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, reason = complaint(error, data, kind)
        assert message.startswith(reason)


def test_what_is_only_just_not_too_deep_is_refused_for_what_it_is(serve: Serve) -> None:
    """Around the depth from which on data can be read, but not shown."""
    served = serve()
    messages = set()
    for depth in range(900, 1000):
        deep = b"[" * depth + b"]" * depth
        for body in (b'{"query": %b}' % deep, b'{"query": "a", "filters": {"year": %b}}' % deep):
            response = served.http.post(SEARCH, content=body)
            assert response.status_code == 400
            messages.add(response.json()["error"]["message"])
    assert len(messages) == 3
    assert "the request is nested too deeply" in messages


HOSTILE = st.lists(
    st.sampled_from(
        [" - at `$.", "Alice_is_ill", "query", "k", "[0]", "messages", "`", " in `$`", "\n"]
    )
    | st.text(max_size=3),
    max_size=5,
).map(lambda parts: "".join([*parts, "Alice"]))
VALUES = st.recursive(
    st.none() | st.integers(-2, 2) | HOSTILE,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(HOSTILE, inner, max_size=2),
    max_leaves=4,
)


def test_no_word_of_a_caller_is_taken_for_ours(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever their fields are called and hold: it is refused, and none of it is in the log."""
    served = serve()

    @given(HOSTILE, VALUES, st.booleans())
    def refuse(key: str, value: Any, first: bool) -> None:
        caplog.clear()
        fields = [("query", "a"), (key, value)]
        body = dict(fields[::-1] if first else fields)
        response = served.http.post(SEARCH, content=json.dumps(body))
        assert error_of(response)[::2] == (400, "invalid_request")
        assert response.json()["error"]["message"].startswith("unknown field ")
        assert "400 invalid_request: unknown field" in caplog.text
        assert "Alice" not in caplog.text

    @given(VALUES.filter(lambda value: not isinstance(value, str)))
    def complain(value: Any) -> None:
        caplog.clear()
        response = served.http.post(SEARCH, content=json.dumps({"query": value}))
        assert error_of(response)[::2] == (400, "invalid_request")
        assert "400 invalid_request: query: must be a string" in caplog.text
        assert "Alice" not in caplog.text

    with caplog.at_level(logging.WARNING):
        refuse()
        complain()


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1, "seed": 3, "max_tokens": 9, "top_p": 0.9, "model": "any"},
        {"n": 1, "tools": [], "tool_choice": "auto", "stop": None, "logprobs": False},
        {"user": "me", "metadata": {"a": "b"}, "store": False, "functions": [], "logit_bias": {}},
        {"response_format": {"type": "text"}, "stream_options": None, "filters": None},
        {
            "reasoning_effort": "high",
            "store": True,
            "service_tier": "flex",
            "cache_control": {"a": 1},
        },
    ],
)
def test_fields_of_sampling_and_what_asks_for_nothing_are_passed_over(
    serve: Serve, fields: dict[str, Any]
) -> None:
    """OpenAI's clients send many that have no meaning here."""
    assert serve().ask(**fields).status_code == 200


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"whatever": {}}, "invalid_request", 'unknown field "whatever"'),
        ({"k": 9}, "invalid_request", 'unknown field "k"'),
        ({"mode": "bm25"}, "invalid_request", 'unknown field "mode"'),
        ({"steam": True}, "invalid_request", "did you mean 'stream'?"),
        ({"stop": ["."]}, "unsupported", "`stop`"),
        ({"logprobs": True}, "unsupported", "`logprobs` other than false"),
        ({"tool_choice": "required"}, "unsupported", "`tool_choice`"),
        ({"functions": [{}]}, "unsupported", "`functions`"),
        ({"modalities": ["audio"]}, "unsupported", "`modalities`"),
        ({"stream_options": {"include_usage": True}}, "unsupported", "without `stream: true`"),
        ({"stream": True, "stream_options": {"x": 1}}, "invalid_request", 'unknown field "x"'),
        (
            {"messages": [{"role": "user", "content": "x", "nam": "A"}]},
            "invalid_request",
            'unknown field "nam"',
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}]},
            "invalid_request",
            'unknown field "y"',
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(
    serve: Serve, fields: dict[str, Any], code: str, told: str
) -> None:
    """As by the service of a model; the model is not asked."""
    served = serve()
    response = served.ask(**fields)
    assert error_of(response) == (400, "invalid_request_error", code)
    assert told in response.json()["error"]["message"]
    assert served.asked() == []


@pytest.mark.parametrize(("size", "apart"), [(10, False), (200_000, True)])
def test_a_large_request_is_read_in_another_thread(size: int, apart: bool) -> None:
    """To read 16 MB of small messages takes seconds, in which others are answered."""
    body = json.dumps("x" * size).encode()
    request = Request({"type": "http", "method": "POST", "headers": []}, _received(body))

    async def read() -> tuple[int, int]:
        return threading.get_ident(), await read_as(request, lambda data: threading.get_ident())

    loop, reader = asyncio.run(read())
    assert (loop != reader) is apart


def test_a_large_request_is_refused_like_any() -> None:
    """The error comes out of the other thread."""

    async def read(body: bytes) -> None:
        request = Request({"type": "http", "method": "POST", "headers": []}, _received(body))
        await read_as(request, lambda data: converted(data, SearchRequest), 2_000_000)

    for body, code in (
        (b"[" * 200_000, "invalid_request"),
        (b" " * 200_000, "invalid_json"),
        (b"[" + b"{}," * 299_999 + b"[]]", "invalid_request"),
        (b"[" + b"{}," * 500_000 + b"[]]", "body_too_large"),
    ):
        with pytest.raises(ApiError) as refused:
            asyncio.run(read(body))
        assert refused.value.code == code


def _received(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
