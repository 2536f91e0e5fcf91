"""The tools of a request: which one is called, and what no call can come of."""

from __future__ import annotations

from typing import Any

import pytest

from llmpipe.web.errors import ApiError
from llmpipe.web.model.checks import Served
from llmpipe.web.model.requests import ChatRequest, read_request
from llmpipe.web.model.responses import ResponsesRequest

pytestmark = pytest.mark.heavy

ABLE = Served("chat", 100, "{{ tools }}", {"supports_tools": True})
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
RESPONSE: dict[str, Any] = {"input": "hi"}
SHAPE = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}


def tools(*names: str) -> list[dict[str, Any]]:
    """Tools of a chat."""
    return [{"type": "function", "function": {"name": name}} for name in names]


def response_tools(*names: str) -> list[dict[str, Any]]:
    """The same as a response has them."""
    return [{"type": "function", "name": name} for name in names]


def test_the_tool_that_is_named_is_the_only_one_and_required() -> None:
    """llama.cpp reads a named choice as none at all."""
    body = CHAT | {"tools": tools("f", "g", "h")}
    choice = {"type": "function", "function": {"name": "g"}}
    sent = read_request(body | {"tool_choice": choice}, ChatRequest, ABLE)
    assert sent == CHAT | {"tools": tools("g"), "tool_choice": "required"}
    body = RESPONSE | {"tools": response_tools("f", "g", "h")}
    choice = {"type": "function", "name": "g"}
    sent = read_request(body | {"tool_choice": choice}, ResponsesRequest, ABLE)
    assert sent == RESPONSE | {"tools": response_tools("g"), "tool_choice": "required"}


@pytest.mark.parametrize(("names", "known"), [(("f", "g"), "f, g"), ((), "there are none")])
def test_a_name_that_no_tool_has_is_told(names: tuple[str, ...], known: str) -> None:
    """With those that there are."""
    for body, kind in (
        (CHAT | {"tools": tools(*names), "tool_choice": {"type": "function", "function": {"name": "x"}}}, ChatRequest),
        (RESPONSE | {"tools": response_tools(*names), "tool_choice": {"type": "function", "name": "x"}}, ResponsesRequest),
    ):  # fmt: skip
        with pytest.raises(ApiError) as caught:
            read_request(body, kind, ABLE)
        assert (
            caught.value.message
            == f"`tool_choice` names 'x', which is not among the tools: {known}"
        )
        assert "x" not in caught.value.reason.split()


def test_no_call_can_come_where_the_answer_has_a_shape() -> None:
    """llama.cpp holds the answer to the schema alone, also where a call is required."""
    chat = CHAT | {"tools": tools("f"), "response_format": SHAPE}
    response = RESPONSE | {
        "tools": response_tools("f"),
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "integer"}}},
    }
    for body, kind in ((chat, ChatRequest), (response, ResponsesRequest)):
        for choice in (None, "auto", "required"):
            with pytest.raises(ApiError, match="`tools` beside a schema"):
                read_request(body | {"tool_choice": choice}, kind, ABLE)
        read_request(body | {"tool_choice": "none"}, kind, ABLE)


def test_a_response_asks_for_its_shape_as_a_chat_does() -> None:
    """llama.cpp passes `text` over and heeds `response_format` there."""
    told = {"type": "json_schema", "name": "n", "schema": {"type": "integer"}, "strict": True}
    sent = read_request(RESPONSE | {"text": {"format": told}}, ResponsesRequest, ABLE)
    wrapped = {name: value for name, value in told.items() if name != "type"}
    assert sent == RESPONSE | {"response_format": {"type": "json_schema", "json_schema": wrapped}}
    sent = read_request(
        RESPONSE | {"text": {"format": {"type": "json_object"}}}, ResponsesRequest, ABLE
    )
    assert sent == RESPONSE | {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    "nothing",
    [
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"text": {}, "reasoning": {"summary": None, "effort": None}},
        {"stream_options": {"include_obfuscation": False}},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {
            "include": [],
            "truncation": "disabled",
            "top_logprobs": 0,
            "store": False,
            "prompt": None,
        },
    ],
)
def test_a_response_that_asks_for_nothing_more_is_let_through(nothing: dict[str, Any]) -> None:
    """As OpenAI's clients and its agents send it."""
    assert read_request(RESPONSE | nothing, ResponsesRequest, ABLE) == RESPONSE


def test_nulls_of_a_tool_are_left_out() -> None:
    """llama.cpp fails on a description that is null; a null inside the parameters is a value."""
    parameters = {"type": "object", "properties": {"a": {"type": "integer", "default": None}}}
    function = {"name": "f", "description": None, "strict": None, "parameters": parameters}
    sent = read_request(
        CHAT | {"tools": [{"type": "function", "function": function}]}, ChatRequest, ABLE
    )
    assert sent["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": parameters}}
    ]
