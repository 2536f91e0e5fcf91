"""OpenAI's own client before the real guard and a real model that knows tools, over several turns."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from web.model.conftest import CALLS, ServedModel

pytestmark = pytest.mark.heavy

ASKED: Any = {"role": "user", "content": "Say hi."}
CHAT: dict[str, Any] = {"model": "chat", "temperature": 0, "max_tokens": 8}
LED: dict[str, Any] = {"logit_bias": {str(CALLS): 100}, "max_tokens": 40}
"""The model begins with a call: it is too small to do so by itself."""
ONE: dict[str, Any] = {
    "type": "object", "properties": {"a": {"const": 1}}, "required": ["a"],
}  # fmt: skip
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": None, "parameters": ONE}}
    for name in ("first", "second")
]


def test_an_answer_is_sent_back_as_the_client_has_it(caller: ServedModel) -> None:
    """Whole, with all its fields that are null; and the second answer goes on from both."""
    chat = caller.openai.chat.completions
    first = chat.create(messages=[ASKED], **CHAT).choices[0].message
    dumped: Any = first.model_dump()
    assert dumped["refusal"] is dumped["tool_calls"] is dumped["function_call"] is None
    whole = chat.create(messages=[ASKED, dumped, ASKED], **CHAT)
    short: Any = {"role": "assistant", "content": first.content}
    plain = chat.create(messages=[ASKED, short, ASKED], **CHAT)
    as_it_is = chat.create(messages=[ASKED, first, ASKED], **CHAT)  # type: ignore[list-item]
    assert whole.choices[0].message == plain.choices[0].message == as_it_is.choices[0].message
    assert whole.usage.prompt_tokens == plain.usage.prompt_tokens  # type: ignore[union-attr]


def test_reasoning_is_sent_back_and_read(caller: ServedModel) -> None:
    """By the template, which writes it into the earlier turn."""
    thought = {"role": "assistant", "content": "Hi.", "reasoning_content": "I think."}
    chat = [ASKED, thought, ASKED]
    prompt = caller.http.post("/apply-template", json={"messages": chat}).json()["prompt"]
    assert "<think>I think.</think>Hi." in prompt


def test_a_stream_tells_its_usage_when_asked(caller: ServedModel) -> None:
    """And says no more than the answer when not."""
    chat = caller.openai.chat.completions
    for options, told in (
        ({"include_usage": True}, True),
        ({"include_usage": False, "include_obfuscation": False}, False),
    ):
        stream = chat.create(messages=[ASKED], stream=True, stream_options=options, **CHAT)  # type: ignore[call-overload]
        chunks = list(stream)
        assert any(chunk.usage is not None for chunk in chunks) is told
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_named_is_made(caller: ServedModel, stream: bool) -> None:
    """Of two tools the one that is named; its result is sent back, and an answer comes."""
    named: Any = {"type": "function", "function": {"name": "second"}}
    request = CHAT | LED | {"messages": [ASKED], "tools": TOOLS, "tool_choice": named}
    if stream:
        deltas = _deltas(caller.openai.chat.completions.create(**request, stream=True))
        call = {
            "id": deltas[0].id,
            "type": "function",
            "index": 0,
            "function": {
                "name": deltas[0].function.name,
                "arguments": "".join(delta.function.arguments or "" for delta in deltas),
            },
        }
        dumped: Any = {"role": "assistant", "content": None, "tool_calls": [call]}
    else:
        dumped = caller.openai.chat.completions.create(**request).choices[0].message.model_dump()
        call = dumped["tool_calls"][0]
        dumped["tool_calls"] = [call]  # the model is led into one after the other
    assert call["function"]["name"] == "second"
    assert json.loads(call["function"]["arguments"]) == {"a": 1}
    given: Any = {"role": "tool", "content": "5", "tool_call_id": call["id"]}
    last = caller.openai.chat.completions.create(
        messages=[ASKED, dumped, given], tools=TOOLS, **CHAT
    )
    assert last.choices[0].message.content


def test_one_call_at_a_time(caller: ServedModel) -> None:
    """The grammar of the template allows several, whatever is asked; ids differ, arguments do not."""
    chat = caller.openai.chat.completions
    request = CHAT | LED | {"messages": [ASKED], "tools": TOOLS, "tool_choice": "required"}
    request["max_tokens"] = 70
    both = chat.create(**request).choices[0].message.tool_calls
    one = chat.create(**request, parallel_tool_calls=False).choices[0]
    assert len(both) > 1
    assert [call.function for call in one.message.tool_calls] == [both[0].function]
    streamed = [
        c for c in chat.create(**request, parallel_tool_calls=False, stream=True) if c.choices
    ]
    deltas = [delta for c in streamed for delta in c.choices[0].delta.tool_calls or []]
    assert {delta.index for delta in deltas} == {0}
    arguments = "".join(delta.function.arguments or "" for delta in deltas)
    assert arguments == both[0].function.arguments
    assert streamed[-1].choices[0].finish_reason == one.finish_reason


def _deltas(stream: Any) -> list[Any]:
    """What a stream says of the first call, piece by piece."""
    pieces = (c.choices[0].delta.tool_calls or [] for c in stream if c.choices)
    return [delta for found in pieces for delta in found if delta.index == 0]


def test_a_call_that_is_required_is_made(caller: ServedModel) -> None:
    """Of any tool; where none can be called, the client is told."""
    request = CHAT | LED | {"messages": [ASKED], "tools": TOOLS}
    message = caller.openai.chat.completions.create(tool_choice="required", **request)
    assert message.choices[0].message.tool_calls
    choice: Any = {"type": "function", "function": {"name": "third"}}
    with pytest.raises(openai.BadRequestError, match="not among the tools: first, second"):
        caller.openai.chat.completions.create(tool_choice=choice, **request)
    with pytest.raises(openai.BadRequestError, match="without `tools`"):
        caller.openai.chat.completions.create(
            messages=[ASKED], tools=[], tool_choice="required", **CHAT
        )
    shape: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": ONE}}
    with pytest.raises(openai.BadRequestError, match="would forbid every call"):
        caller.openai.chat.completions.create(response_format=shape, **request)


def test_llama_cpp_itself_would_pass_the_name_over(caller: ServedModel) -> None:
    """Where this fails after an upgrade, a named choice may go to llama.cpp as it is."""
    named = {"type": "function", "function": {"name": "second"}}
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": ONE}}
    body = CHAT | {
        "messages": [ASKED],
        "tools": [{"type": "function", "function": {"name": "second"}}],
    }
    unforced, named_only, shaped = (
        caller.raw("/v1/chat/completions", body | more).json()["choices"][0]
        for more in (
            {"tool_choice": "auto"},
            {"tool_choice": named},
            {"tool_choice": "required", "response_format": shape, "max_tokens": 40},
        )
    )
    assert unforced == named_only
    assert "tool_calls" not in shaped["message"]


def test_a_shape_is_kept_to(caller: ServedModel) -> None:
    """On both routes, as their clients ask for it."""
    shape: Any = {"name": "n", "schema": ONE, "strict": True}
    request = CHAT | {"max_tokens": 40}
    whole = caller.openai.chat.completions.create(
        messages=[ASKED], response_format={"type": "json_schema", "json_schema": shape}, **request
    )
    assert json.loads(whole.choices[0].message.content or "") == {"a": 1}
    response = caller.openai.responses.create(
        model="chat", input="Say hi.", temperature=0, max_output_tokens=40,
        text={"format": {"type": "json_schema", **shape}, "verbosity": "medium"},
    )  # fmt: skip
    assert json.loads(response.output_text) == {"a": 1}


def test_a_response_is_sent_back_as_the_client_has_it(caller: ServedModel) -> None:
    """With ids, states and nulls, streamed or not; and of its tools the one that is named is told of."""
    request: dict[str, Any] = {"model": "chat", "temperature": 0, "max_output_tokens": 8}
    first = caller.openai.responses.create(input=[ASKED], **request)
    dumped: Any = [item.model_dump() for item in first.output]
    second = caller.openai.responses.create(input=[ASKED, *dumped, ASKED], **request)
    easy: Any = {"role": "assistant", "content": first.output_text}
    events = caller.openai.responses.create(input=[ASKED, easy, ASKED], stream=True, **request)
    streamed = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert second.output_text == streamed != ""
    tools: Any = [{"type": "function", "strict": None, **tool["function"]} for tool in TOOLS]
    named: Any = {"type": "function", "name": "second"}
    used = [
        caller.openai.responses.create(input="Say hi.", tools=told, tool_choice=choice, **request)
        for told, choice in ((tools, named), (tools[1:], "required"), (tools, "required"))
    ]
    one, alone, both = (each.usage.input_tokens for each in used if each.usage)
    assert one == alone < both


def test_a_name_is_read_where_the_template_does(caller: ServedModel, model: ServedModel) -> None:
    """That of a user here; the other template reads none, and the client is told."""
    named: Any = {"role": "user", "content": "hi", "name": "ann"}
    prompt = caller.http.post("/apply-template", json={"messages": [named]}).json()["prompt"]
    assert "<|im_start|>user ann\nhi" in prompt
    with pytest.raises(openai.BadRequestError, match="the `name` of the speaker"):
        model.openai.chat.completions.create(messages=[named], **CHAT)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_cut_begins_the_json_or_says_nothing(
    caller: ServedModel, stream: bool
) -> None:
    """Inside the Markdown fence a stream holds nothing; otherwise the beginning of the fence."""
    fence = caller.http.post("/tokenize", json={"content": "```"}).json()["tokens"]
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": ONE}}
    for most in (1, 6, 10):
        request = CHAT | {"messages": [ASKED], "response_format": shape, "max_tokens": most}
        request["logit_bias"] = {str(token): 50 for token in fence}
        if stream:
            chunks: Any = list(caller.openai.chat.completions.create(**request, stream=True))
            said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert chunks[-1].choices[0].finish_reason == "length"
            assert said.startswith("{") if most == 10 else said == ""
        else:
            said = caller.openai.chat.completions.create(**request).choices[0].message.content
            assert said.startswith("{" if most == 10 else "```")
