"""What may be asked of a served model: what is let through, and what is refused by its name."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.web.errors import ApiError
from llmpipe.web.model.checks import Served
from llmpipe.web.model.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    NativeRequest,
    TokenizeRequest,
    read_request,
)
from llmpipe.web.model.responses import ResponsesRequest

pytestmark = pytest.mark.heavy

PLAIN = Served("chat", 100, "{{ messages }}", {"supports_tools": False})
ABLE = Served(
    "chat",
    100,
    "{{ tools }} {{ enable_thinking }} {{ message.reasoning_content }} {{ reasoning_effort }}",
    {"supports_tools": True, "supports_parallel_tool_calls": True},
)
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"messages": MESSAGES}
TEXT: dict[str, Any] = {"prompt": "a"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "g"}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SHAPE = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}


def said(role: str, **fields: Any) -> dict[str, Any]:
    """A conversation that ends with one more message."""
    return {"messages": [*MESSAGES, {"role": role, **fields}]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"tools": [TOOL]}, "take tools: the chat template of the model does not support them"),
        ({"tool_choice": "required"}, "`tool_choice: required` without `tools`"),
        ({"tool_choice": "required", "tools": []}, "`tool_choice: required` without `tools`"),
        ({"tool_choice": NAMED}, "`tool_choice` names 'g', which is not among the tools: there are none"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "g"}}}, "tool_choice: unknown field"),
        ({"functions": [TOOL["function"]]}, "`functions` other than []"),
        ({"function_call": {"name": "f"}}, '`function_call` other than "none"'),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, "the schema belongs in `response_format.json_schema.schema`"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "`response_format.json_schema.schema` is missing"),
        ({"response_format": {"type": "json_schema", "json_schema": SCHEMA}}, "`response_format.json_schema.schema` is missing"),
        ({"response_format": {"type": "json_object", "json_schema": SHAPE}}, "has no field 'json_schema'"),
        ({"response_format": {"type": "yaml"}}, "is one of text, json_object, json_schema"),
        ({"response_format": {"schema": SCHEMA}}, "is one of text, json_object, json_schema"),
        ({"response_format": SHAPE, "grammar": 'root ::= "a"'}, "exclude one another"),
        ({"json_schema": SCHEMA, "grammar": 'root ::= "a"'}, "exclude each other"),
        ({"json_schema": {"type": "number", "minimum": 1}}, "json_schema.minimum: llama.cpp does not enforce this"),
        ({"n": 2}, "`n` other than 1"),
        ({"best_of": 2}, "`best_of` other than 1"),
        ({"echo": True}, "`echo` other than false"),
        ({"suffix": "x"}, "`suffix` other than"),
        ({"lora": [{"id": 7, "scale": 1}]}, "there is no adapter 7; the service has none"),
        ({"store": True}, "`store` other than false"),
        ({"modalities": ["text", "audio"]}, '`modalities` other than ["text"]'),
        ({"prediction": {"type": "content", "content": "x"}}, "`prediction`"),
        ({"web_search_options": {}}, "`web_search_options`"),
        ({"service_tier": "flex"}, '`service_tier` other than "auto" or "default"'),
        ({"verbosity": "low"}, '`verbosity` other than "medium"'),
        ({"max_tokens": 0}, "`max_tokens: 0`; llama.cpp writes at least 1 token"),
        ({"n_predict": 0}, "llama.cpp writes at least 1 token"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "differ; send one"),
        ({"max_tokens": -2}, "max_tokens: must be a whole number of at least -1, not -2"),
        ({"temperature": -1}, "temperature: must be a number of at least 0, not -1"),
        ({"temperature": True}, "temperature: must be a number of at least 0, not true"),
        ({"top_p": 1.5}, "top_p: must be a number from 0 to 1, not 1.5"),
        ({"typical_p": 0}, "typical_p: must be a number above 0 and at most 1, not 0"),
        ({"seed": 1.5}, "seed: must be a whole number from -1 to 4294967295"),
        ({"seed": 2**32}, "seed: must be a whole number"),
        ({"stop": [""]}, "stop[0]: must be a non-empty string"),
        ({"stop": ""}, "stop: must be a non-empty string or a list"),
        ({"samplers": ["top_k", "temprature"]}, "did you mean 'temperature'?"),
        ({"ignore_eos": True, "json_schema": SCHEMA}, "`ignore_eos: true` beside `json_schema`"),
        ({"ignore_eos": True, "response_format": SHAPE}, "`ignore_eos: true` beside `response_format`"),
        ({"mirostat": 3}, "mirostat: must be one of 0, 1, 2"),
        ({"mirostat": 2, "top_k": 1}, "`top_k` beside `mirostat`, which replaces all but the temperature"),
        ({"mirostat": 1, "samplers": ["top_k"]}, "`samplers` beside `mirostat`"),
        ({"samplers": ["top_k"], "temperature": 0}, "`temperature` without its sampler in `samplers`"),
        ({"samplers": ["top_k"], "presence_penalty": 1}, "`presence_penalty` without its sampler"),
        ({"samplers": ["temperature"], "typical_p": 0.5}, "`typical_p` without its sampler"),
        ({"logit_bias": {"100": 1}}, "the model has no token 100; they go from 0 to 99"),
        ({"logit_bias": {"-1": 1}}, "the model has no token -1"),
        ({"logit_bias": [[3, "a"]]}, "`logit_bias` maps tokens to numbers or to false"),
        ({"logit_bias": {"a": True}}, "`logit_bias` maps tokens to numbers or to false"),
        ({"logit_bias": [[3]]}, "`logit_bias` maps tokens to numbers or to false"),
        ({"logit_bias": {"": 1}}, "an empty text"),
        ({"logit_bias": {"9" * 5000: 1}}, "a token with more than 12 digits"),
        ({"logit_bias": [[True, 1]]}, "`logit_bias` maps tokens to numbers or to false"),
        ({"logprobs": 3}, "logprobs: must be true or false"),
        ({"top_logprobs": 3}, "`top_logprobs` without `logprobs: true`"),
        ({"logprobs": True, "top_logprobs": 0}, "`top_logprobs: 0`; llama.cpp then gives no `logprobs`"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs: must be a whole number from 0 to 20"),
        ({"stream_options": {"include_usage": True}}, "`stream_options.include_usage` without `stream: true`"),
        ({"return_progress": True}, "`return_progress` without `stream: true`"),
        ({"return_progress": True, "stream": True}, "`cached_tokens` of the stage is off"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "include_obfuscation: true"),
        ({"top_k": -2}, "top_k: must be a whole number of at least -1"),
        ({"repeat_last_n": -1}, "repeat_last_n: must be a whole number of at least 0"),
        ({"dry_penalty_last_n": -1}, "dry_penalty_last_n: must be a whole number of at least 0"),
        ({"stream": True, "stream_options": {"usage": True}}, 'unknown field "usage"'),
        ({"reasoning_effort": "high"}, "does not read: 'reasoning_effort'"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "does not read: 'enable_thinking'"),
        ({"chat_template_kwargs": {"messages.": 1}}, "does not read: 'messages.'"),
        ({"temprature": 1}, "did you mean 'temperature'?"),
        ({"id_slot": 1}, 'unknown field "id_slot"'),
        ({"messages": []}, "messages: must be a non-empty list"),
        (said("robot", content="x"), "messages[1].role: must be one of assistant, developer, system, tool, user"),
        (said("user", content=5), "messages[1].content: must be a string or a list"),
        (said("user", content="x", name="ann"), "the `name` of the speaker"),
        (said("user", content="x", foo=1), 'messages[1]: unknown field "foo"'),
        (said("user", content=[{"type": "image_url", "image_url": {"url": "x"}}]), "content of the type 'image_url'"),
        (said("user", content=[{"type": "text"}]), "lacks its `text`"),
        (said("user", content=[{"type": "text", "text": "a", "cache_control": {"a": 1}}]), "the field 'cache_control'"),
        (said("assistant", refusal="no"), "messages[1].refusal: must be null, not \"no\""),
        (said("assistant", tool_calls=[CALL]), "the chat template of the model does not support them"),
        (said("tool", content="5", tool_call_id="a"), "the chat template of the model does not support them"),
        (said("assistant", content="a", reasoning_content="b"), "does not read: 'reasoning_content'"),
        (said("user", content="a", reasoning_content="b"), "except of the assistant"),
        (said("user", content="a", tool_call_id="b"), "`tool_call_id` except of a tool"),
        (said("user", content=None), "messages[1]: `content` is missing"),
        (said("user"), "messages[1]: `content` is missing"),
        (said("assistant", content="a", audio={"id": "x"}), "messages[1].audio: must be null"),
        (said("assistant", content="a", annotations=[{"type": "x"}]), "`annotations` in a message"),
    ],
)  # fmt: skip
def test_what_llama_cpp_would_pass_over_is_refused(body: dict[str, Any], message: str) -> None:
    """By the name of the field, with what to do; most of these get status 200 from llama.cpp."""
    with pytest.raises(ApiError) as caught:
        read_request(CHAT | body, ChatRequest, PLAIN)
    assert message in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        {"n": 1, "best_of": 1, "echo": False, "suffix": "", "store": False, "lora": []},
        {"tools": None, "stop": None, "temperature": None, "functions": None},
        {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
        {"service_tier": "auto", "modalities": ["text"], "verbosity": "medium"},
        {"tools": []},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": False},
        {"tool_choice": "none", "function_call": "auto"},
        {"parallel_tool_calls": False},
        {"stream_options": {"include_usage": None}, "grammar": "", "top_logprobs": 0},
    ],
)
def test_what_asks_for_nothing_is_left_out(body: dict[str, Any]) -> None:
    """Clients send it by default; llama.cpp never sees it."""
    assert read_request(CHAT | body, ChatRequest, PLAIN) == CHAT


@pytest.mark.parametrize("strict", [None, False, True])
@pytest.mark.parametrize(
    ("parameters", "sound"),
    [
        ({"type": "string", "minLength": 3, "maxLength": 1}, False),
        ({"$ref": "#/$defs/no"}, False),
        ({"type": "number", "minimum": 1}, True),
    ],
)
def test_the_parameters_of_a_tool_are_a_schema_too(
    strict: bool | None, parameters: dict[str, Any], sound: bool
) -> None:
    """All of it must bind where the tool is strict, and its bounds must be some where it is not."""
    function = {"name": "f", "parameters": parameters, "strict": strict}
    chat = CHAT | {"tools": [{"type": "function", "function": function}]}
    response = {"input": "hi", "tools": [{"type": "function", **function}]}
    for body, kind, place in (
        (chat, ChatRequest, "tools[0].function.parameters"),
        (response, ResponsesRequest, "tools[0].parameters"),
    ):
        if sound and not strict:
            read_request(body, kind, ABLE)
            continue
        with pytest.raises(ApiError) as caught:
            read_request(body, kind, ABLE)
        assert caught.value.code == "unsupported_schema"
        assert caught.value.message.startswith(place)


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": SHAPE, "stream": True, "stream_options": {"include_usage": True}},
        {"response_format": {"type": "text"}, "stop": ["a", "b"], "logprobs": True, "top_logprobs": 3},
        {"response_format": {"type": "json_object", "schema": SCHEMA}, "max_completion_tokens": -1},
        {"max_tokens": 4, "n_predict": 4, "seed": -1, "temperature": 0, "top_p": 1, "model": "chat"},
        {"logit_bias": {"99": -100, " hello": 2.5}},
        {"logit_bias": [[99, False], ["hello", 1]]},
        {"samplers": ["penalties", "temperature"], "repeat_penalty": 1.1, "dry_sequence_breakers": ["a"]},
        {"samplers": ["top_k"], "repeat_last_n": 8, "dry_base": 2, "xtc_threshold": 0.2, "mirostat_tau": 4},
        {"ignore_eos": True, "response_format": {"type": "text"}, "tools": [TOOL], "tool_choice": "none"},
        {"samplers": ["top_k"], "temperature": 1, "top_p": 1, "dry_multiplier": 0, "top_n_sigma": -1},
        {"mirostat": 2, "mirostat_tau": 4, "temperature": 0.5, "top_k": 0, "repeat_penalty": 1},
        {"mirostat": 0, "top_k": 4, "samplers": ["top_k"]},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": True},
        {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"},
        {"chat_template_kwargs": {"enable_thinking": None}},
        {"stream_options": {"include_usage": False, "include_obfuscation": False}, "top_k": -1},
        {"response_format": {"type": "text"}, "json_schema": SCHEMA},
        {"tools": [TOOL], "tool_choice": "none", "response_format": SHAPE},
        said("assistant", content="", tool_calls=[CALL | {"index": 0}]),
        said("assistant", content="a", reasoning_content="b"),
        said("tool", content="5", tool_call_id="a", name="f"),
        said("developer", content=[{"type": "text", "text": "a"}]),
    ],
)  # fmt: skip
def test_what_has_its_effect_is_passed_on_as_it_is(body: dict[str, Any]) -> None:
    """Every field with every value; a template that knows tools gets them."""
    assert read_request(CHAT | body, ChatRequest, ABLE) == CHAT | body


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (CompletionRequest, {"prompt": ""}, "`prompt` is empty"),
        (CompletionRequest, {"prompt": []}, "`prompt` is empty"),
        (CompletionRequest, {"prompt": [""]}, "`prompt` is empty"),
        (CompletionRequest, {}, "'prompt' is missing"),
        (CompletionRequest, {"prompt": ["a", "b"]}, "several prompts at once"),
        (CompletionRequest, {"prompt": [[1], [2]]}, "several prompts at once"),
        (CompletionRequest, {"prompt": [1, "a"]}, "several prompts at once"),
        (CompletionRequest, {"prompt": [True]}, "several prompts at once"),
        (
            CompletionRequest,
            TEXT | {"logprobs": 0},
            "logprobs: must be a whole number of at least 1",
        ),
        (
            CompletionRequest,
            TEXT | {"logprobs": 101},
            "`logprobs` is 101, but the model has 100 tokens",
        ),
        (NativeRequest, TEXT | {"n_probs": 101}, "`n_probs` is 101, but the model has 100 tokens"),
        (CompletionRequest, TEXT | {"echo": True}, "`echo` other than false"),
        (CompletionRequest, TEXT | {"suffix": "b"}, "`suffix` other than"),
        (CompletionRequest, TEXT | {"best_of": 3}, "`best_of` other than 1"),
        (CompletionRequest, TEXT | {"response_format": {"type": "json_object"}}, "unknown field"),
        (NativeRequest, TEXT | {"n_predict": 0}, "at least 1 token"),
        (NativeRequest, TEXT | {"post_sampling_probs": True}, "without `n_probs`"),
        (NativeRequest, TEXT | {"n": 2}, "`n` other than 1"),
        (TokenizeRequest, {"contents": "a"}, "did you mean 'content'?"),
        (DetokenizeRequest, {"tokens": [100]}, "the model has no token 100"),
        (
            ResponsesRequest,
            {"input": ""},
            "input: must be a non-empty string or a non-empty list",
        ),
        (ResponsesRequest, {"input": "a", "max_output_tokens": 0}, "a whole number of at least 1"),
        (ResponsesRequest, {"input": "a", "previous_response_id": "r"}, "`previous_response_id`"),
        (ResponsesRequest, {"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        (
            ResponsesRequest,
            {"input": "a", "text": {"format": {"type": "xml"}}},
            "`text.format.type`",
        ),
        (
            ResponsesRequest,
            {"input": "a", "text": {"verbosity": "low"}},
            "text.verbosity: must be medium",
        ),
        (
            ResponsesRequest,
            {"input": "a", "text": {"format": {"type": "json_schema", "name": "n"}}},
            "`text.format.schema` is missing",
        ),
        (
            ResponsesRequest,
            {"input": "a", "text": {"format": {"type": "text", "schema": {}}}},
            "has no field 'schema'",
        ),
        (
            ResponsesRequest,
            {"input": "a", "reasoning": {"summary": "auto"}},
            'reasoning: unknown field "summary"',
        ),
        (
            ResponsesRequest,
            {"input": "a", "stream": True, "stream_options": {"include_usage": True}},
            "include_usage",
        ),
        (ResponsesRequest, {"input": "a", "tool_choice": "required"}, "without `tools`"),
        (ResponsesRequest, {"input": []}, "a non-empty list"),
        (
            ResponsesRequest,
            {"input": [{"type": "reasoning", "summary": []}]},
            "contains no message",
        ),
        (ResponsesRequest, {"input": "a", "background": True}, "`background` other than false"),
        (ResponsesRequest, {"input": "a", "store": True}, "`store` other than false"),
        (ResponsesRequest, {"input": "a", "reasoning": {"effort": "low"}}, "'reasoning_effort'"),
        (ResponsesRequest, {"input": [{"type": "item_reference"}]}, "the type 'item_reference'"),
        (
            ResponsesRequest,
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "content of the type 'input_image'",
        ),
        (ChatRequest, [], "must be an object, not []"),
    ],
)
def test_other_routes_are_as_strict(kind: Any, body: Any, message: str) -> None:
    """Completions of both kinds, responses, and the routes that look tokens up."""
    with pytest.raises(ApiError) as caught:
        read_request(body, kind, PLAIN)
    assert message in caught.value.message


def test_an_answer_that_may_not_end_cannot_call() -> None:
    """llama.cpp fails with status 500 once the call is complete."""
    with pytest.raises(ApiError, match="`ignore_eos: true` beside `tools`"):
        read_request(CHAT | {"ignore_eos": True, "tools": [TOOL]}, ChatRequest, ABLE)


def test_another_model_is_not_there() -> None:
    """A request for another one must not get this one's answer; a request for none does."""
    with pytest.raises(ApiError, match="there is no model 'gpt' here, only 'chat'") as caught:
        read_request(CHAT | {"model": "gpt"}, ChatRequest, PLAIN)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


ROUTES = (
    ChatRequest, CompletionRequest, NativeRequest, ResponsesRequest, TokenizeRequest, DetokenizeRequest,
)  # fmt: skip
NAMES = st.sampled_from(
    ("arguments", "call_id", "content", "effort", "format", "function", "id", "input", "json_schema",
     "logit_bias", "messages", "name", "output", "parameters", "prompt", "reasoning",
     "reasoning_content", "response_format", "role", "schema", "stream_options", "strict", "summary",
     "text", "tokens", "tool_call_id", "tool_calls", "tool_choice", "tools", "type", "enum", "x")
)  # fmt: skip
WORDS = st.sampled_from(
    ("", "a", "assistant", "function", "function_call", "function_call_output", "input_text",
     "json_object", "json_schema", "message", "none", "reasoning", "required", "text", "tool", "user",
     "9" * 30, "{", "{}")
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 200) | st.floats(allow_nan=False) | WORDS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=5),
    max_leaves=16,
)


@given(st.dictionaries(NAMES, ANYTHING, max_size=4), st.sampled_from(ROUTES))
def test_whatever_is_sent_is_judged(body: dict[str, Any], kind: Any) -> None:
    """Nothing that is JSON breaks the check, beside what the route needs or alone."""
    needed = {
        ChatRequest: CHAT,
        ResponsesRequest: {"input": "a"},
        DetokenizeRequest: {"tokens": [1]},
    }
    for asked in (body, needed.get(kind, TEXT) | body):
        with contextlib.suppress(ApiError):
            read_request(asked, kind, ABLE)


def test_what_is_nested_without_end_is_judged() -> None:
    """As a request that is not what it must be."""
    deep: Any = None
    for _ in range(900):
        deep = {"content": [deep]}
    for body, kind in (
        (CHAT | {"messages": [deep]}, ChatRequest),
        ({"input": [deep]}, ResponsesRequest),
    ):
        with pytest.raises(ApiError):
            read_request(body, kind, ABLE)
