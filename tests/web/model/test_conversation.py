"""What came before, as clients send it back: kept, left out, or refused, on both routes alike."""

from __future__ import annotations

from typing import Any

import pytest

from llmpipe.web.errors import ApiError
from llmpipe.web.model.checks import Served
from llmpipe.web.model.requests import ChatRequest, read_request
from llmpipe.web.model.responses import ResponsesRequest

pytestmark = pytest.mark.heavy

CAN = {"supports_tools": True, "supports_object_arguments": True}
PLAIN = Served("chat", 100, "{{ messages }}")
ABLE = Served("chat", 100, "{{ message.reasoning_content }}", CAN, frozenset({"user"}))
ASKED = {"role": "user", "content": "hi"}
ITEM = {"type": "message", **ASKED}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALL_ITEM = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "T"}]}
EMPTY: dict[str, Any] = {
    "refusal": None, "audio": None, "function_call": None, "tool_calls": None, "annotations": None,
}  # fmt: skip


def sent(message: dict[str, Any], served: Served = PLAIN, *, last: bool = False) -> dict[str, Any]:
    """What llama.cpp gets of a message in a chat, or at its end."""
    messages = [ASKED, message] if last else [ASKED, message, ASKED]
    read: dict[str, Any] = read_request({"messages": messages}, ChatRequest, served)["messages"][1]
    return read


def sent_items(*items: dict[str, Any], served: Served = PLAIN) -> list[dict[str, Any]]:
    """What llama.cpp gets of the items of a response."""
    read = read_request({"input": [ASKED, *items, ASKED]}, ResponsesRequest, served)["input"]
    assert read[0] == read[-1] == ITEM
    return list(read[1:-1])


@pytest.mark.parametrize(
    "empty",
    [
        EMPTY,
        {"refusal": "", "annotations": [], "tool_calls": [], "name": ""},
        {"reasoning_content": None, "name": None},
        {"provider_specific_fields": {"refusal": None}, "thinking_blocks": None, "images": []},
    ],
)
def test_the_empty_fields_of_an_answer_are_left_out(empty: dict[str, Any]) -> None:
    """As OpenAI's client and litellm send them back; llama.cpp fails on some that are null."""
    answer = {"role": "assistant", "content": "x"}
    assert sent(answer | empty) == answer
    part = {"type": "text", "text": "x"}
    assert sent(answer | {"content": [part | {"annotations": [], "cache_control": None}]}) == (
        answer | {"content": [part]}
    )


def test_an_answer_of_reasoning_alone_is_an_answer() -> None:
    """Its content is null, or was left out with the nulls; llama.cpp wants one."""
    thought = {"role": "assistant", "reasoning_content": "T"}
    for answer in (thought, thought | {"content": None}):
        assert sent(answer, ABLE) == thought | {"content": ""}


def test_earlier_reasoning_is_the_templates() -> None:
    """It is handed over; only what is to be continued must be read."""
    answer = {"role": "assistant", "content": "x", "reasoning_content": "T"}
    for served in (PLAIN, ABLE):
        assert sent(answer, served) == answer
        assert sent_items(THOUGHT, ITEM | {"role": "assistant"}, served=served)[0] == THOUGHT
    assert sent(answer, ABLE, last=True) == answer
    with pytest.raises(ApiError, match="does not read: 'reasoning_content'"):
        sent(answer, last=True)
    with pytest.raises(ApiError, match="does not read: 'reasoning_content'"):
        read_request({"input": [ASKED, THOUGHT]}, ResponsesRequest, PLAIN)


def test_a_name_is_taken_where_the_template_reads_it() -> None:
    """Of that role, and of no other."""
    named = ASKED | {"name": "ann"}
    assert sent(named, ABLE) == named
    assert sent_items(named, served=ABLE) == [ITEM | {"name": "ann"}]
    with pytest.raises(ApiError, match="the `name` of the speaker"):
        sent({"role": "assistant", "content": "x", "name": "ann"}, ABLE)


def test_what_a_response_gave_can_be_sent_back() -> None:
    """With ids, states and empty fields, as OpenAI's client keeps it."""
    text = {"type": "output_text", "text": "x", "annotations": [], "logprobs": None}
    answer = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "phase": None,
    }
    left = {"id": "m", "type": "message", "role": "assistant", "status": "completed"}
    assert sent_items(answer | {"content": [text]}) == [
        left | {"content": [{"type": "output_text", "text": "x"}]}
    ]
    assert sent_items({"role": "assistant", "content": "x"}) == [
        {"type": "message", "role": "assistant", "content": "x"}
    ]
    thought = {
        "id": "r",
        "type": "reasoning",
        "summary": [],
        "content": None,
        "encrypted_content": "",
    }
    assert sent_items(thought, CALL_ITEM | {"id": None}, served=ABLE) == [CALL_ITEM]


@pytest.mark.parametrize(
    ("message", "item", "told"),
    [
        (ASKED | {"role": "robot"}, ASKED | {"role": "robot"}, "role: must be one of"),
        (ASKED | {"content": 5}, ASKED | {"content": 5}, "content: must be a string or a list"),
        ({"role": "user"}, {"role": "user"}, "is missing"),
        (ASKED | {"name": "ann"}, ASKED | {"name": "ann"}, "the `name` of the speaker"),
        (ASKED | {"foo": 1}, ASKED | {"foo": 1}, 'unknown field "foo"'),
        (
            ASKED | {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            ASKED | {"content": [{"type": "input_image", "image_url": "x"}]},
            "content of the type",
        ),
        (
            ASKED | {"content": [{"type": "text"}]},
            ASKED | {"content": [{"type": "input_text"}]},
            "lacks its `text`",
        ),
        (
            ASKED | {"content": [{"type": "text", "text": "a", "cache_control": {"a": 1}}]},
            ASKED | {"content": [{"type": "input_text", "text": "a", "cache_control": {"a": 1}}]},
            "the field 'cache_control'",
        ),
        (
            {"role": "assistant", "tool_calls": [CALL]},
            CALL_ITEM,
            "the chat template of the model does not support them",
        ),
        (
            {"role": "tool", "content": "5", "tool_call_id": "a"},
            {"type": "function_call_output", "call_id": "a", "output": "5"},
            "the chat template of the model does not support them",
        ),
    ],
)
def test_both_routes_refuse_alike(message: Any, item: Any, told: str) -> None:
    """What a chat's message may not hold, an item may not either; both name its place."""
    for body, kind in (
        ({"messages": [ASKED, message]}, ChatRequest),
        ({"input": [ASKED, item]}, ResponsesRequest),
    ):
        with pytest.raises(ApiError) as caught:
            read_request(body, kind, PLAIN)
        assert told in caught.value.message
        assert caught.value.status == 400


@pytest.mark.parametrize("arguments", ["", "no", "[1]", '"a"', "[" * 100_000])
def test_the_arguments_of_a_call_must_be_an_object(arguments: str) -> None:
    """Where the template takes them apart; llama.cpp fails on them (status 500)."""
    call = CALL | {"function": {"name": "f", "arguments": arguments}}
    for body, kind in (
        ({"messages": [ASKED, {"role": "assistant", "tool_calls": [call]}]}, ChatRequest),
        ({"input": [ASKED, CALL_ITEM | {"arguments": arguments}]}, ResponsesRequest),
    ):
        with pytest.raises(
            ApiError, match=r"tool_calls\[0\].function.arguments: must be a JSON object"
        ):
            read_request(body, kind, ABLE)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"type": "item_reference", "id": "x"}, "an item of the type 'item_reference'"),
        ({"type": ["message"]}, "an item of the type"),
        (THOUGHT | {"summary": [{"type": "summary_text", "text": "s"}]}, "reasoning except as one text"),
        (THOUGHT | {"content": THOUGHT["content"] * 2}, "reasoning except as one text"),  # type: ignore[operator]
        (THOUGHT | {"encrypted_content": "x"}, 'unknown field "encrypted_content"'),
        (THOUGHT | {"content": [{"type": "reasoning_text", "text": 5}]}, "reasoning is not a text"),
        (ASKED | {"content": [{"type": "output_text", "text": "a"}]}, "content of the type 'output_text'"),
        (CALL_ITEM | {"arguments": {}}, "input[1]: arguments: must be a string"),
    ],
)  # fmt: skip
def test_items_that_no_chat_has_are_refused(item: dict[str, Any], told: str) -> None:
    """And those of which llama.cpp would leave a part out."""
    with pytest.raises(ApiError) as caught:
        read_request({"input": [ASKED, item]}, ResponsesRequest, ABLE)
    assert told in caught.value.message
