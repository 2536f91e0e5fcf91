"""What llama.cpp streams of several calls, with the first one alone; the parts' borders do not matter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.web.model.edits import EditedStream, edited
from llmpipe.web.model.one_call import OneCall


def call(index: int, **function: str) -> dict[str, Any]:
    """A piece of a call in a chat's stream."""
    return {
        "choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, "function": function}]}}]
    }


def item(id_: str, **fields: Any) -> dict[str, Any]:
    """A call among the output of a response."""
    return {"id": id_, "type": "function_call", **fields}


TEXT = {"choices": [{"index": 0, "delta": {"content": "I call: ü"}}]}
LAST = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
USAGE: dict[str, Any] = {"choices": [], "usage": {"completion_tokens": 9}}
CHAT = [TEXT, call(0, name="f"), call(0, arguments="{}"), call(1, name="g"), call(1, arguments="{}"),
        LAST, USAGE]  # fmt: skip
CHAT_KEPT = [*CHAT[:3], LAST, USAGE]

DELTA = "response.function_call_arguments.delta"
MESSAGE = {"type": "message", "content": []}
RESPONSES: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"status": "in_progress"}},
    {"type": "response.output_item.added", "item": MESSAGE},
    {"type": "response.output_item.added", "item": item("a")},
    {"type": DELTA, "delta": "{}", "item_id": "a"},
    {"type": "response.output_item.added", "item": item("b")},
    {"type": DELTA, "delta": "{}", "item_id": "b"},
    {"type": "response.output_item.done", "item": item("a", arguments="{}")},
    {"type": "response.output_item.done", "item": item("b", arguments="{}")},
    {"type": "response.completed", "response": {"output": [MESSAGE, item("a"), item("b")]}},
]
RESPONSES_KEPT = [
    *(RESPONSES[at] for at in (0, 1, 2, 3, 6)),
    {"type": "response.completed", "response": {"output": [MESSAGE, item("a")]}},
]


def stream_of(told: list[dict[str, Any]]) -> bytes:
    """Events as llama.cpp writes them."""
    return b"".join(
        (f"event: {event['type']}\n" if "type" in event else "").encode()
        + b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
        for event in told
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "kept"), [(CHAT, CHAT_KEPT), (RESPONSES, RESPONSES_KEPT)], ids=["chat", "responses"]
)
@given(data=st.data())
def test_a_stream_tells_of_the_first_call_alone(
    told: list[dict[str, Any]], kept: list[dict[str, Any]], data: st.DataObject
) -> None:
    """All else is passed on byte by byte."""
    whole = stream_of(told) + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    calls = EditedStream([OneCall()])
    parts = [calls.feed(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert b"".join([*parts, calls.close()]) == stream_of(kept) + b"data: [DONE]\n\n"


def test_a_whole_reply_holds_the_first_call_alone() -> None:
    """Of a chat and of a response; one without calls stays as it is."""
    chat = {"choices": [{"message": {"content": "", "tool_calls": [{"id": "1"}, {"id": "2"}]}}]}
    assert json.loads(edited(json.dumps(chat).encode(), [OneCall()])) == {
        "choices": [{"message": {"content": "", "tool_calls": [{"id": "1"}]}}]
    }
    response = {"output": [MESSAGE, item("a"), item("b")]}
    assert json.loads(edited(json.dumps(response).encode(), [OneCall()])) == {
        "output": [MESSAGE, item("a")]
    }
    plain = {"choices": [{"message": {"content": "hi"}}]}
    assert json.loads(edited(json.dumps(plain).encode(), [OneCall()])) == plain
