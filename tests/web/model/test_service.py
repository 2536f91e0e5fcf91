"""The service of a served model, by the real model: what it answers, refuses, and keeps to itself."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from town_service import running
from web.calling import error_of, until
from web.model.conftest import ServedModel

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.web.middleware import Admission
from llmpipe.web.model.relay import Relay
from llmpipe.web.model.service import GENERATIONS, LOOKUPS, make_model_service
from llmpipe.web.model.upstream import Upstream
from llmpipe.web.queueing import Line

pytestmark = pytest.mark.heavy

HI = [{"role": "user", "content": "Say hi."}]
CHAT: dict[str, Any] = {"messages": HI, "max_tokens": 6, "temperature": 0}
TEXT: dict[str, Any] = {"prompt": "Once upon a", "max_tokens": 5, "temperature": 0}
MIROSTAT: dict[str, Any] = {"messages": HI, "max_tokens": 6, "seed": 1, "mirostat": 2}
TOP_K: dict[str, Any] = {"messages": HI, "max_tokens": 6, "seed": 1, "samplers": ["top_k"]}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TIMES = ("created", "created_at", "completed_at", "id", "timings", "usage")


def test_openais_client_gets_what_it_asks_for(model: ServedModel) -> None:
    """Chats, streams with their usage, completions, responses, and the model by its name."""
    ask: Any = CHAT | {"model": "chat"}
    whole = model.openai.chat.completions.create(**ask)
    said = whole.choices[0].message.content
    assert said
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(model.openai.chat.completions.create(**ask, **options))
    parts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(parts) == said
    assert len([part for part in parts if part]) > 2
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 6
    text = model.openai.completions.create(model="chat", **TEXT)
    assert text.choices[0].finish_reason == "length"
    response = model.openai.responses.create(model="chat", input="Say hi.", max_output_tokens=4)
    assert response.output_text
    (listed,) = model.openai.models.list()
    assert (listed.id, listed.owned_by) == ("chat", "llmpipe")
    assert model.openai.models.retrieve("chat").meta["n_vocab"] == 49152
    with pytest.raises(openai.NotFoundError, match="only 'chat'"):
        model.openai.models.retrieve("gpt")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2}),
        ("/v1/chat/completions", CHAT | {"json_schema": SCHEMA, "max_tokens": 20}),
        ("/v1/completions", TEXT | {"logprobs": 2, "logit_bias": {"28": -100}}),
        ("/completion", {"prompt": [1, 2, 3], "n_predict": 4, "temperature": 0, "n_probs": 1}),
        ("/tokenize", {"content": "Hello <|im_end|>", "with_pieces": True}),
        ("/detokenize", {"tokens": [1, 28, 2]}),
        ("/apply-template", {"messages": [{"role": "developer", "content": "Be brief."}, *HI]}),
    ],
)
def test_answers_are_llama_cpps_own(model: ServedModel, path: str, body: dict[str, Any]) -> None:
    """Unchanged but for times and numbers of their own."""
    through, direct = model.http.post(path, json=body), model.raw(path, body)
    assert through.status_code == direct.status_code == 200
    ours, own = through.json(), direct.json()
    for name in (*TIMES, "id_slot", "generation_settings", "tokens_cached"):
        ours.pop(name, None)
        own.pop(name, None)
    assert ours == own


@pytest.mark.parametrize(
    ("path", "body", "ignored"),
    [
        ("/v1/chat/completions", CHAT, {"tools": [TOOL], "tool_choice": "required"}),
        ("/v1/chat/completions", CHAT, {"tool_choice": "required"}),
        ("/v1/chat/completions", CHAT, {"echo": True}),
        ("/v1/chat/completions", CHAT, {"best_of": 3}),
        ("/v1/chat/completions", CHAT, {"model": "another"}),
        ("/v1/chat/completions", CHAT, {"lora": [{"id": 7, "scale": 1.0}]}),
        ("/v1/chat/completions", CHAT, {"temperature": -3}),
        ("/v1/chat/completions", CHAT, {"top_k": -4}),
        ("/v1/chat/completions", CHAT, {"response_format": "json"}),
        ("/v1/chat/completions", CHAT, {"logprobs": True, "top_logprobs": 0}),
        ("/v1/chat/completions", MIROSTAT, {"top_k": 1}),
        ("/v1/chat/completions", MIROSTAT, {"samplers": ["top_k"], "min_p": 1}),
        ("/v1/chat/completions", TOP_K, {"temperature": 0.0}),
        ("/v1/completions", TEXT, {"echo": True}),
        ("/v1/completions", TEXT, {"suffix": "x"}),
        ("/v1/completions", TEXT, {"best_of": 2}),
        ("/v1/completions", TEXT, {"response_format": {"type": "json_object"}}),
        ("/v1/completions", TEXT, {"logit_bias": {"999999": 5}}),
        ("/v1/completions", TEXT, {"no_such_field": 1}),
    ],
)
def test_what_is_refused_is_what_llama_cpp_ignores(
    model: ServedModel, path: str, body: dict[str, Any], ignored: dict[str, Any]
) -> None:
    """Asked directly it answers with status 200, and as if the field were not there.

    Where this fails after an upgrade, llama.cpp has learned something: let it through.
    """
    plain, asked = model.raw(path, body).json(), model.raw(path, body | ignored)
    assert asked.status_code == 200
    assert asked.json()["choices"] == plain["choices"]
    status, kind, _ = error_of(model.http.post(path, json=body | ignored))
    assert status in (400, 404)
    assert kind == "invalid_request_error"


def test_a_response_that_is_cut_is_incomplete(model: ServedModel) -> None:
    """At its own limit; llama.cpp calls it completed."""
    cut: dict[str, Any] = {"input": "Count.", "max_output_tokens": 4, "temperature": 0}
    assert model.raw("/v1/responses", cut).json()["status"] == "completed"
    whole = {"input": "Say hi.", "max_output_tokens": 200, "temperature": 0}
    for body, status in ((cut, "incomplete"), (whole, "completed")):
        response = model.openai.responses.create(model="chat", **body)
        assert (response.status, response.output[-1].status) == (status, status)
        why = response.incomplete_details and response.incomplete_details.reason
        assert why == (None if status == "completed" else "max_output_tokens")
        last = list(model.openai.responses.create(model="chat", stream=True, **body))[-1]
        assert (last.type, last.response.status) == (f"response.{status}", status)
    told = model.http.post("/v1/responses", json=cut | {"stream": True}).text
    assert "event: response.incomplete\n" in told
    assert "event: response.completed" not in told


def test_a_packed_request_is_refused_by_its_encoding(model: ServedModel) -> None:
    """And not as JSON with a mistake in it."""
    packed = gzip.compress(json.dumps(CHAT).encode())
    headers = {"content-encoding": "gzip"}
    reply = model.http.post("/v1/chat/completions", content=packed, headers=headers)
    assert error_of(reply)[::2] == (415, "unsupported_encoding")


def test_a_schema_is_kept_to(model: ServedModel) -> None:
    """In the place where it belongs; what could not be kept to does not get as far."""
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    reply = model.chat("Give me a number.", response_format=shape, max_tokens=40)
    assert isinstance(json.loads(reply.json()["choices"][0]["message"]["content"])["n"], int)
    shape["json_schema"]["schema"] = {"type": "number", "minimum": 3}  # type: ignore[index]
    assert error_of(model.chat(response_format=shape))[::2] == (400, "unsupported_schema")


@pytest.mark.parametrize("path", ["/completion", "/v1/completions"])
@pytest.mark.parametrize(
    ("schema", "answers"),
    [
        ({"oneOf": [{"type": "integer", "minimum": 1, "maximum": 3}, {"enum": [1, 2]}]}, [1, 2, 3]),
        ({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}, [{"a": 1}]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}, [[1, 2]]),
        ({"$schema": "http://example.org/unknown", "const": 1}, [1]),
    ],
)
def test_raw_routes_keep_to_a_schema_as_the_chat_does(
    model: ServedModel, path: str, schema: dict[str, Any], answers: list[Any]
) -> None:
    """llguidance, which compiles it there, drops or widens these as they are sent."""
    reply = model.http.post(path, json=TEXT | {"max_tokens": 30, "json_schema": schema}).json()
    text = reply["content"] if path == "/completion" else reply["choices"][0]["text"]
    assert json.loads(text) in answers


def test_what_is_given_twice_means_the_same_to_both(model: ServedModel) -> None:
    """What was checked is what is asked: llama.cpp would take the first of two, Python the last."""
    body = '{"messages": [], "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 6, "temperature": 0}'
    twice = model.http.post("/v1/chat/completions", content=body)
    assert twice.json()["choices"] == model.chat().json()["choices"]


def test_there_is_no_room(model: ServedModel) -> None:
    """A longer prompt is refused by number; an answer that meets the end says that it was cut."""
    refused = model.chat("word " * 1100)
    assert error_of(refused)[::2] == (400, "context_length_exceeded")
    assert "1131 tokens" in refused.json()["error"]["message"]
    assert "holds 1024" in refused.json()["error"]["message"]
    cut = model.chat("word " * 980, max_tokens=500, ignore_eos=True).json()
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["total_tokens"] <= 1024


def test_only_the_routes_that_are_meant_are_open(model: ServedModel) -> None:
    """No prompts, settings or adapters of others, and no route that was not reviewed."""
    for path in ("/slots", "/props", "/lora-adapters", "/v1/streams", "/tools", "/models"):
        assert error_of(model.http.get(path))[::2] == (404, "not_found")
    for path in (
        "/lora-adapters",
        "/props",
        "/slots/0",
        "/infill",
        "/v1/embeddings",
        "/v1/messages",
    ):
        assert error_of(model.http.post(path, json={}))[::2] == (404, "not_found")
    assert model.http.get("/v1/chat/completions").status_code == 405


def test_nobody_gets_around_the_guard(model: ServedModel) -> None:
    """llama.cpp itself asks for a key that no caller has, for the state of its slots too."""
    url = model.server.url
    assert httpx.post(f"{url}/v1/chat/completions", json=CHAT).status_code == 401
    assert httpx.get(f"{url}/props").status_code == 401
    assert "only-the-guard" not in repr(model.server)


def test_the_guard_asks_for_the_key(llama: LlamaServer, smollm2_gguf: Path) -> None:
    """For all but the health, and of no other site's pages; nothing opens an answer to them."""
    service = make_model_service(llama, smollm2_gguf, Admission(api_key="right"), slots=2)
    with running(service) as url, httpx.Client(base_url=url, timeout=60) as http:
        assert http.get("/health").json() == {
            "status": "ok", "stage": "chat", "key_required": True, "engine": "xllamacpp",
            "context": 1024, "slots": 2, "threads": 1,
        }  # fmt: skip
        for kind in (*GENERATIONS, *LOOKUPS):
            assert error_of(http.post(kind.path, json={}))[::2] == (401, "invalid_api_key")
        assert http.get("/v1/models").status_code == http.get("/metrics").status_code == 401
        key = {"Authorization": "Bearer right"}
        reply = http.post("/v1/chat/completions", json=CHAT, headers=key)
        assert reply.status_code == 200
        assert not [name for name in reply.headers if name.startswith("access-control")]
        stranger = key | {"Origin": "https://evil.example"}
        assert error_of(http.get("/v1/models", headers=stranger))[::2] == (403, "wrong_origin")
        assert http.get("/health", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"timings_per_token": True}),
        ("/v1/completions", TEXT | {"timings_per_token": True}),
        ("/completion", TEXT | {"timings_per_token": True}),
        ("/v1/responses", {"input": "Say hi.", "max_output_tokens": 4}),
    ],
)
def test_nobody_is_told_how_others_prompts_begin(
    model: ServedModel, path: str, body: dict[str, Any], stream: bool
) -> None:
    """The slots' caches are shared: no reply says what of a prompt was in one, unless asked for.

    The same figures tell it as what was not in one, and as the time that this took.
    """
    wanted: dict[str, Any] = {"stream": stream}
    if path == "/v1/chat/completions" and stream:
        wanted["stream_options"] = {"include_usage": True}
    model.http.post(path, json=body)  # the caches are warm
    told = events_of(model.http.post(path, json=body | wanted).text)
    figures = [f for event in told for f in figures_of(event)]
    assert figures
    telling = [(k, v) for k, v in figures if k.startswith(("cache", "prompt_")) and v]
    assert [(k, v) for k, v in telling if k != "prompt_tokens"] == []
    assert ("predicted_n" in dict(figures)) is (path != "/v1/responses" or stream)


def test_a_stage_may_tell_what_was_cached(llama: LlamaServer, smollm2_gguf: Path) -> None:
    """By its field ``cached_tokens``; then the progress of a prompt is told as well."""
    service = make_model_service(
        llama, smollm2_gguf, Admission(), slots=2, tells_cached=True
    )  # fmt: skip
    with running(service) as url:
        model = ServedModel(url, llama)
        model.chat("How are you today, my friend?", stream=False)
        for _ in range(2):  # whichever slot it was in
            usage = model.chat("How are you today, my friend?").json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0
        asked = model.chat("And now?", stream=True, return_progress=True)
        assert '"prompt_progress"' in asked.text


def events_of(text: str) -> list[dict[str, Any]]:
    """Return the data of a stream's events, or a whole reply as the only one."""
    if text.startswith("{"):
        return [json.loads(text)]
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def figures_of(data: Any) -> list[tuple[str, float]]:
    """List the numbers of a reply, at any depth, but those that were asked with."""
    found: list[tuple[str, float]] = []
    if isinstance(data, list):
        data = dict(enumerate(data))
    if isinstance(data, dict):
        for name, value in data.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found.append((str(name), value))
            elif name != "generation_settings":
                found += figures_of(value)
    return found


def test_no_place_of_this_machine_is_told() -> None:
    """Where llama.cpp names the file, callers read the stage's name."""
    model = Path("/home/ann/models/m.gguf")
    relay = Relay(Upstream("", 0, ""), Line(1, 1), model, "chat", 512)
    body = {"error": {"message": f"cannot read {model} in {model.parent}", "type": "server_error"}}
    refused = relay.refusal("/completion", 500, json.dumps(body).encode())
    assert refused.message == "cannot read chat in chat"
    assert "/home" not in refused.reason
    assert relay.refusal("/completion", 502, b"<html>").message == "HTTP 502"


def test_many_clients_at_once(model: ServedModel) -> None:
    """Eight callers of two slots, streamed and not: each gets each answer, and all places are free."""

    def use(number: int) -> list[str]:
        said = []
        for turn in range(3):
            body: Any = CHAT | {"model": "chat"}
            if (number + turn) % 2:
                stream = model.openai.chat.completions.create(**body, stream=True)
                said.append("".join(c.choices[0].delta.content or "" for c in stream if c.choices))
            else:
                whole = model.openai.chat.completions.create(**body)
                said.append(whole.choices[0].message.content or "")
        return said

    alone = model.chat().json()["choices"][0]["message"]["content"]
    with ThreadPoolExecutor(8) as clients:
        answers = [each for said in clients.map(use, range(8)) for each in said]
    assert answers == [alone] * 24
    assert until(lambda: model.metric("llmpipe_requests_in_flight") == 1, 10)
    assert model.metric("llmpipe_requests_waiting") == 0
